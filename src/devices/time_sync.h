// The time service: sets the guest's clock when the guest opens the channel, and gives it a sample
// of the host's every five seconds (VMBus device reference 1.4). Linux keeps the samples as its
// "hyperv" PTP device.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "devices/integration_channel.h"

namespace kmcl::devices {

inline constexpr GUID kTimeSyncInterface = {
    0x9527e630, 0xd0ae, 0x497b, {0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf}};
inline constexpr GUID kTimeSyncInstance = {
    0x2dd1ce17, 0x079e, 0x403c, {0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee}};

struct TimeSyncOptions {
  std::chrono::milliseconds interval{5000};
  // The reference counter that the guest reads (HV_X64_MSR_TIME_REF_COUNT, in units of 100 ns),
  // read at the host. Called on any thread. With another clock the guest's time would jump, so
  // without one (empty) only the older versions are offered, which name no such counter.
  std::function<std::uint64_t()> reference_time{};
};

// Counts since the offer.
struct TimeSyncStatus {
  std::uint64_t syncs = 0;    // "set your clock", answered
  std::uint64_t samples = 0;  // answered
  std::optional<std::chrono::system_clock::time_point> last;
  IntegrationStatus channel;
};

// Made and destroyed by whoever owns the partition's devices, on a thread that may block. Its
// functions may be called on any thread.
class TimeSyncDevice {
 public:
  using Report = IntegrationChannel::Report;

  // Offers the device to `partition`. May be called from PartitionArrived. `report` may be empty.
  static std::expected<std::unique_ptr<TimeSyncDevice>, NTSTATUS> Offer(
      PDEVICE_OBJECT device_object, HANDLE partition, TimeSyncOptions options, Report report);
  // No thread is in SetTime, unless Stop was called.
  ~TimeSyncDevice();

  // Has the guest set its clock now; blocks until it has answered. It does so by itself when the
  // guest opens the channel and when the host's own clock was set.
  std::expected<void, IntegrationFailure> SetTime(std::chrono::milliseconds timeout);
  TimeSyncStatus Status() const;

  // Lets SetTime return, for good.
  void Stop() { channel_->Stop(); }
  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke() { return channel_->Revoke(); }

 private:
  explicit TimeSyncDevice(TimeSyncOptions options);
  void RunSamples();
  std::expected<void, IntegrationFailure> Tell(const IntegrationAgreement& agreement, bool set,
                                               std::chrono::milliseconds timeout);
  std::vector<std::byte> Body(const IntegrationAgreement& agreement, bool set) const;

  const TimeSyncOptions options_;

  mutable std::mutex mutex_;
  // Under mutex_.
  TimeSyncStatus status_;

  std::unique_ptr<IntegrationChannel> channel_;
  std::thread thread_;
};

}  // namespace kmcl::devices
