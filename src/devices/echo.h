// The echo device: the server's end of one echo channel (echo_protocol.h), for trying and measuring
// a bus.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>

#include "devices/echo_protocol.h"
#include "devices/server_channel.h"

namespace kmcl::devices {

// Made and destroyed by whoever owns the partition's devices, on a thread that may block.
class EchoDevice {
 public:
  // Offers the device to `partition`. May be called from PartitionArrived.
  static std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> Offer(PDEVICE_OBJECT device_object,
                                                                    HANDLE partition);

  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke();

 private:
  EchoDevice() = default;
  static NTSTATUS OnOpened(VMBCHANNEL channel);
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                       UINT32 buffer_bytes, UINT32 flags);
  void Answer(VMBPACKETCOMPLETION packet, const std::byte* bytes, UINT32 byte_count);

  // The delivery thread's. KMCL delivers the packets of one channel one after another.
  std::uint64_t packets_ = 0;
  std::uint64_t bytes_ = 0;

  ChannelHandle channel_;  // last: torn down before the members that its callbacks use
};

}  // namespace kmcl::devices
