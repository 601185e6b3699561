// The shutdown service: asks the guest to power off, to reboot or to hibernate
// (VMBus device reference 1.5). The guest answers before it acts, so a success here means "it
// will": that the machine has stopped is seen at the machine.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <mutex>
#include <string_view>

#include "devices/integration_channel.h"

namespace kmcl::devices {

inline constexpr GUID kShutdownInterface = {
    0x0e0b6031, 0x5213, 0x4934, {0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb}};
inline constexpr GUID kShutdownInstance = {
    0xb6650ff7, 0x33bc, 0x4840, {0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93}};

enum class ShutdownKind {
  kPowerOff,
  kReboot,
  kHibernate,  // refused by a guest that cannot
};

struct ShutdownOptions {
  bool force = false;             // also if programs in the guest object
  std::chrono::seconds grace{0};  // a hint to the guest
  std::string_view reason{};      // shown in the guest, UTF-8; cut after 1023 characters
  std::chrono::milliseconds timeout{10'000};  // for the guest's answer
};

// Made and destroyed by whoever owns the partition's devices, on a thread that may block. Its
// functions may be called on any thread.
class ShutdownDevice {
 public:
  using Report = IntegrationChannel::Report;

  // Offers the device to `partition`. May be called from PartitionArrived. `report` may be empty.
  static std::expected<std::unique_ptr<ShutdownDevice>, NTSTATUS> Offer(
      PDEVICE_OBJECT device_object, HANDLE partition, Report report);
  // No thread is in Request, unless Stop was called.
  ~ShutdownDevice() = default;

  // Blocks until the guest has accepted. kBusy while another request waits.
  std::expected<void, IntegrationFailure> Request(ShutdownKind kind,
                                                  const ShutdownOptions& options = {});
  IntegrationStatus Status() const { return channel_->Status(); }

  // Lets Request return, for good.
  void Stop() { channel_->Stop(); }
  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke() { return channel_->Revoke(); }

 private:
  ShutdownDevice() = default;

  std::mutex requesting_;  // held for the time of a request; never waited for
  std::unique_ptr<IntegrationChannel> channel_;
};

}  // namespace kmcl::devices
