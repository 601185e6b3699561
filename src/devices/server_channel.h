// A server channel as devices use it: allocated, configured and offered in two steps, revoked and
// freed by its owner. Thin on purpose; everything it does is KMCL's.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <expected>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

namespace kmcl::devices {

// Revokes the offer, waits until the channel is torn down, and frees it.
struct CleanUpChannel {
  void operator()(VMBCHANNEL channel) const;
};
using ChannelHandle = std::unique_ptr<std::remove_pointer_t<VMBCHANNEL>, CleanUpChannel>;

struct ServerChannelSettings {
  // Makes it a sub-channel of this one, which must outlive it; type and instance are its then.
  VMBCHANNEL primary = nullptr;
  GUID interface_type{};
  GUID interface_instance{};
  const char16_t* friendly_name = u"";
  UINT32 maximum_packet_bytes = 4096;
  PFN_VMB_CHANNEL_PROCESS_PACKET process_packet = nullptr;
  PFN_VMB_CHANNEL_PROCESSING_COMPLETE processing_complete = nullptr;  // may be null
  PFN_VMB_CHANNEL_OPENED opened = nullptr;                            // may be null
  PFN_VMB_CHANNEL_CLOSED closed = nullptr;                            // may be null
  PFN_VMB_CHANNEL_STARTED started = nullptr;                          // may be null
  PFN_VMB_CHANNEL_SUSPEND suspend = nullptr;                          // may be null
  // Packets carry their exact length, and the offer says so, as Hyper-V's integration services do.
  bool message_pipe = false;
  bool monitored = false;  // KmclServerChannelInitSetMonitored
};

// A channel for `partition` on the bus of `device_object`, Disabled. `context` is its pointer
// (VmbChannelGetPointer) and must outlive it.
std::expected<ChannelHandle, NTSTATUS> MakeServerChannel(PDEVICE_OBJECT device_object,
                                                         HANDLE partition,
                                                         const ServerChannelSettings& settings,
                                                         PVOID context);

// Enables and starts it: callbacks may run before this returns.
NTSTATUS OfferServerChannel(VMBCHANNEL channel);

// Pauses and saves it; it stays paused. And makes a channel that was configured alike of that, and
// offers it as OfferServerChannel does.
std::expected<std::vector<std::byte>, NTSTATUS> SaveServerChannel(VMBCHANNEL channel);
NTSTATUS RestoreServerChannel(VMBCHANNEL channel, std::span<const std::byte> saved);

// All zero when the channel is not one.
KMCL_CHANNEL_COUNTERS QueryCounters(VMBCHANNEL channel);

}  // namespace kmcl::devices
