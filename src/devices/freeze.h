// The backup service (VSS): has the guest freeze its file systems for a snapshot, and thaw them
// again (VMBus device reference 1.7). The guest does so in a daemon in its user space.
//
// A freeze is never left standing: it ends with Thaw, by itself after a limit, when the device
// goes, and with any freeze that failed half-way.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <expected>
#include <memory>
#include <mutex>
#include <thread>

#include "devices/integration_channel.h"

namespace kmcl::devices {

inline constexpr GUID kFreezeInterface = {
    0x35fa2e29, 0xea23, 0x4236, {0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb, 0xa4, 0x40}};
inline constexpr GUID kFreezeInstance = {
    0x2450ee40, 0x33bf, 0x4fbd, {0x89, 0x2e, 0x9f, 0xb0, 0x6e, 0x92, 0x14, 0xcf}};

struct FreezeOptions {
  std::chrono::milliseconds maximum_frozen{60'000};  // then it is thawed by itself
  std::chrono::milliseconds thaw_timeout{35'000};    // Linux' own limit is 30 s
};

enum class FreezeState {
  kThawed,
  kFreezing,
  kFrozen,
  kThawing,
};
const char* FreezeStateText(FreezeState state);

struct FreezeStatus {
  FreezeState state{};
  std::uint64_t freezes = 0;          // since the offer
  std::uint64_t automatic_thaws = 0;  // of those, ended by the limit
  IntegrationStatus channel;
};

// Made and destroyed by whoever owns the partition's devices, on a thread that may block. Its
// functions may be called on any thread.
class FreezeDevice {
 public:
  using Report = IntegrationChannel::Report;
  static constexpr std::chrono::milliseconds kFreezeTimeout{905'000};  // Linux' own limit is 900 s

  // Offers the device to `partition`. May be called from PartitionArrived. `report` may be empty.
  static std::expected<std::unique_ptr<FreezeDevice>, NTSTATUS> Offer(PDEVICE_OBJECT device_object,
                                                                      HANDLE partition,
                                                                      const FreezeOptions& options,
                                                                      Report report);
  // Thaws first. No thread is in the functions below, unless Stop was called.
  ~FreezeDevice();

  // Asks whether the guest can, then freezes. On success all its file systems stand still. kBusy
  // unless they are thawed.
  std::expected<void, IntegrationFailure> Freeze(
      std::chrono::milliseconds timeout = kFreezeTimeout);
  // Thaws, whether it is known to be frozen or not, and says that the backup is complete. kBusy
  // while Freeze is under way.
  std::expected<void, IntegrationFailure> Thaw();
  FreezeStatus Status() const;

  // Thaws, and lets every waiting call return, for good.
  void Stop();
  // Thaws, revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke();

 private:
  FreezeDevice(const FreezeOptions& options, Report report);
  enum class Operation : std::uint8_t;
  std::expected<IntegrationReply, IntegrationFailure> Ask(std::uint64_t agreement,
                                                          Operation operation,
                                                          std::chrono::milliseconds timeout);
  std::expected<void, IntegrationFailure> ThawNow(std::chrono::milliseconds timeout);
  void RunWatch();
  void SetState(FreezeState state);
  bool IsFrozen() const;

  const FreezeOptions options_;
  const Report report_;

  std::mutex turn_;  // held for the time of a freeze or a thaw
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  FreezeState state_ = FreezeState::kThawed;
  std::uint64_t frozen_agreement_ = 0;  // under which it was frozen: over once the guest reboots
  std::chrono::steady_clock::time_point thaw_at_;
  std::uint64_t freezes_ = 0;
  std::uint64_t automatic_thaws_ = 0;
  bool stopping_ = false;

  std::unique_ptr<IntegrationChannel> channel_;
  std::thread watch_;
};

}  // namespace kmcl::devices
