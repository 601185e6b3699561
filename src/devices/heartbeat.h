// The heartbeat service: asks the guest every other second whether it lives, and counts
// (VMBus device reference 1.3). Hyper-V's class and instance ids; the guest's driver is hv_utils.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "devices/integration_channel.h"

namespace kmcl::devices {

inline constexpr GUID kHeartbeatInterface = {
    0x57164f39, 0x9115, 0x4e78, {0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d}};
inline constexpr GUID kHeartbeatInstance = {
    0xfd149e91, 0x82e0, 0x4a7d, {0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0}};

enum class HeartbeatState {
  kNoContact,  // the guest has not answered since it opened the channel, or has not opened it
  kOk,
  kLost,  // it answered once, and has missed several intervals in a row
};
const char* HeartbeatStateText(HeartbeatState state);

struct HeartbeatOptions {
  std::chrono::milliseconds interval{2000};
  std::uint32_t lost_after = 5;  // missed intervals in a row
};

// Counts since the offer.
struct HeartbeatStatus {
  HeartbeatState state{};
  std::uint64_t beats = 0;
  std::uint64_t missed = 0;  // intervals without an answer
  std::uint64_t wrong = 0;   // answers with a sequence number that is not the next one
  std::optional<std::chrono::system_clock::time_point> last_beat;
  // What the guest says of its applications: 0 unknown, 1 healthy, 2 critical, 3 stopped. Linux
  // always says 0.
  std::uint32_t application_state = 0;
  IntegrationStatus channel;
};

// Made and destroyed by whoever owns the partition's devices, on a thread that may block. Its
// functions may be called on any thread.
class HeartbeatDevice {
 public:
  using Report = IntegrationChannel::Report;
  // Each change of the state. Called on the device's own thread.
  using StateChanged = std::function<void(HeartbeatState)>;

  // Offers the device to `partition`. May be called from PartitionArrived. Both callbacks may be
  // empty.
  static std::expected<std::unique_ptr<HeartbeatDevice>, NTSTATUS> Offer(
      PDEVICE_OBJECT device_object, HANDLE partition, const HeartbeatOptions& options,
      Report report, StateChanged state_changed = {});
  ~HeartbeatDevice();

  HeartbeatStatus Status() const;

  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke();

 private:
  HeartbeatDevice(const HeartbeatOptions& options, StateChanged state_changed);
  void RunBeats();
  void Beat(const IntegrationAgreement& agreement, std::uint64_t sequence);
  void SetState(HeartbeatState state);

  const HeartbeatOptions options_;
  const StateChanged state_changed_;

  mutable std::mutex mutex_;
  // Under mutex_.
  HeartbeatStatus status_;

  std::uint32_t missed_in_a_row_ = 0;  // the beating thread's

  std::unique_ptr<IntegrationChannel> channel_;
  std::thread thread_;
};

}  // namespace kmcl::devices
