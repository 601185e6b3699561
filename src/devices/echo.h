// The echo device: the server's end of an echo channel and of the sub-channels that its client asks
// for (echo_protocol.h), for trying and measuring a bus.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <vector>

#include "devices/echo_counter.h"
#include "devices/echo_family.h"
#include "devices/echo_protocol.h"
#include "devices/server_channel.h"

namespace kmcl::devices {

// Made and destroyed by whoever owns the partition's devices, on a thread that may block.
class EchoDevice {
 public:
  // Whether the offer asks for a monitor: see KmclServerChannelInitSetMonitored.
  enum class Monitor : bool { kNo, kYes };

  // Offers the device to `partition`. May be called from PartitionArrived.
  static std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> Offer(PDEVICE_OBJECT device_object,
                                                                    HANDLE partition,
                                                                    Monitor monitor = Monitor::kNo);

  // Saving: the device holds still until Resume, or goes. Restore makes one of it elsewhere; a
  // status of KMCL's, or STATUS_DATA_ERROR. Sub-channels are not saved but revoked: the client may
  // ask for them again.
  std::expected<std::vector<std::byte>, NTSTATUS> Save();
  void Resume();
  static std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> Restore(
      PDEVICE_OBJECT device_object, HANDLE partition, std::span<const std::byte> saved);

  // Revokes the offers and waits until the channels are torn down. The counts, which are the
  // primary's, are final.
  KMCL_CHANNEL_COUNTERS Revoke();
  ~EchoDevice() { Revoke(); }
  EchoDevice(const EchoDevice&) = delete;
  EchoDevice& operator=(const EchoDevice&) = delete;

 private:
  EchoDevice() = default;
  static std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> Make(PDEVICE_OBJECT device_object,
                                                                   HANDLE partition,
                                                                   Monitor monitor);
  static NTSTATUS OnOpened(VMBCHANNEL channel);
  static VOID OnClosed(VMBCHANNEL channel);
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                       UINT32 buffer_bytes, UINT32 flags);

  // The delivery thread's.
  EchoCounter counter_;
  // The state callbacks'.
  bool open_ = false;
  bool goes_on_ = false;  // the next open is a restored one: keep counting

  // In this order: sub-channels are cleaned up before their primary, which was revoked before, as
  // its callbacks use all this.
  ChannelHandle channel_;
  std::unique_ptr<EchoFamily> family_;
};

}  // namespace kmcl::devices
