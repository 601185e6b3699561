// The echo device: the server's end of one echo channel (echo_protocol.h), for trying and measuring
// a bus.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <vector>

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
  // status of KMCL's, or STATUS_DATA_ERROR.
  std::expected<std::vector<std::byte>, NTSTATUS> Save();
  void Resume();
  static std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> Restore(
      PDEVICE_OBJECT device_object, HANDLE partition, std::span<const std::byte> saved);

  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke();

 private:
  EchoDevice() = default;
  static std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> Make(PDEVICE_OBJECT device_object,
                                                                   HANDLE partition,
                                                                   Monitor monitor);
  static NTSTATUS OnOpened(VMBCHANNEL channel);
  static VOID OnClosed(VMBCHANNEL channel);
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                       UINT32 buffer_bytes, UINT32 flags);
  void Answer(VMBPACKETCOMPLETION packet, const std::byte* bytes, UINT32 byte_count);

  // The delivery thread's. KMCL delivers the packets of one channel one after another.
  std::uint64_t packets_ = 0;
  std::uint64_t bytes_ = 0;
  // The state callbacks'.
  bool open_ = false;
  bool goes_on_ = false;  // the next open is a restored one: keep counting

  ChannelHandle channel_;  // last: torn down before the members that its callbacks use
};

}  // namespace kmcl::devices
