#include "devices/time_sync.h"

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;

// The newest last: without a reference counter it is left out.
constexpr IntegrationVersion kVersions[] = {{1, 0}, {3, 0}, {4, 0}};
constexpr std::uint16_t kReferenceMajor = 4;

constexpr std::uint8_t kSync = 1;
constexpr std::uint8_t kSample = 2;

// From version 4.0 on.
struct ReferenceBody {
  std::uint64_t host_time = 0;
  std::uint64_t reference_time = 0;
  std::uint8_t flags = 0;
  std::uint8_t leap = 0;
  std::uint8_t stratum = 0;
  std::uint8_t reserved[5] = {};
};
static_assert(sizeof(ReferenceBody) == 24 && offsetof(ReferenceBody, flags) == 16);

struct RoundTripBody {
  std::uint32_t host_time[2] = {};  // halves of a number, as the body's end is not aligned to 8
  std::uint32_t guest_time[2] = {};
  std::uint32_t round_trip[2] = {};
  std::uint8_t flags = 0;
  std::uint8_t reserved[3] = {};
};
static_assert(sizeof(RoundTripBody) == 28 && offsetof(RoundTripBody, flags) == 24);

IntegrationService ServiceOf(const TimeSyncOptions& options) {
  const std::span<const IntegrationVersion> versions(kVersions);
  return {.interface_type = kTimeSyncInterface,
          .interface_instance = kTimeSyncInstance,
          .friendly_name = u"Time synchronisation",
          .name = "timesync",
          .message = IntegrationMessage::kTimeSync,
          .frameworks = kIntegrationFrameworks,
          .versions = options.reference_time ? versions : versions.first(versions.size() - 1),
          .maximum_body_bytes = sizeof(RoundTripBody)};
}

// Units of 100 ns since 1601-01-01.
std::uint64_t HostTime() {
  constexpr std::uint64_t kFrom1601To1970 = 116'444'736'000'000'000;
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return kFrom1601To1970 +
         static_cast<std::uint64_t>(
             std::chrono::duration_cast<
                 std::chrono::duration<std::int64_t, std::ratio<1, 10'000'000>>>(since_1970)
                 .count());
}

// How far the clock that can be set is from the one that cannot.
std::chrono::nanoseconds ClockOffset() {
  return std::chrono::system_clock::now().time_since_epoch() -
         std::chrono::steady_clock::now().time_since_epoch();
}

template <typename Body>
std::vector<std::byte> BytesOfBody(const Body& body) {
  const auto bytes = std::as_bytes(std::span(&body, 1));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

std::expected<std::unique_ptr<TimeSyncDevice>, NTSTATUS> TimeSyncDevice::Offer(
    PDEVICE_OBJECT device_object, HANDLE partition, TimeSyncOptions options, Report report) {
  std::unique_ptr<TimeSyncDevice> device(new TimeSyncDevice(std::move(options)));
  auto channel = IntegrationChannel::Offer(device_object, partition, ServiceOf(device->options_),
                                           std::move(report));
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  device->thread_ = std::thread(&TimeSyncDevice::RunSamples, device.get());
  return device;
}

TimeSyncDevice::TimeSyncDevice(TimeSyncOptions options) : options_(std::move(options)) {}

TimeSyncDevice::~TimeSyncDevice() {
  if (thread_.joinable()) {
    channel_->Stop();
    thread_.join();
  }
}

TimeSyncStatus TimeSyncDevice::Status() const {
  const std::lock_guard lock(mutex_);
  TimeSyncStatus status = status_;
  status.channel = channel_->Status();
  return status;
}

std::expected<void, IntegrationFailure> TimeSyncDevice::SetTime(std::chrono::milliseconds timeout) {
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  return Tell(*agreement, true, timeout);
}

// The next sample goes out an interval after the answer to the one before: a guest that does not
// answer is not asked again, so that what it finds when it wakes up is not stale.
void TimeSyncDevice::RunSamples() {
  constexpr auto kNoLimit = std::chrono::hours(24 * 365);
  constexpr auto kStep = 500ms;
  std::uint64_t last = 0;
  while (const auto agreement = channel_->AwaitAgreement(last)) {
    last = agreement->number;
    bool set = true;
    auto offset = ClockOffset();
    for (;;) {
      if (!Tell(*agreement, set, kNoLimit) ||
          !channel_->WaitWhileAgreed(agreement->number,
                                     std::chrono::steady_clock::now() + options_.interval)) {
        break;
      }
      const auto now = ClockOffset();
      set = std::chrono::abs(now - offset) > kStep;
      offset = now;
    }
  }
}

std::expected<void, IntegrationFailure> TimeSyncDevice::Tell(const IntegrationAgreement& agreement,
                                                             bool set,
                                                             std::chrono::milliseconds timeout) {
  const auto reply = channel_->Ask(agreement.number, [&] { return Body(agreement, set); }, timeout);
  if (!reply) {
    return std::unexpected(reply.error());
  }
  const std::lock_guard lock(mutex_);
  ++(set ? status_.syncs : status_.samples);
  status_.last = std::chrono::system_clock::now();
  return {};
}

// Both clocks are read back to back.
std::vector<std::byte> TimeSyncDevice::Body(const IntegrationAgreement& agreement, bool set) const {
  const std::uint8_t flags = set ? kSync : kSample;
  if (agreement.message.major >= kReferenceMajor) {
    ReferenceBody body;
    body.flags = flags;
    body.reference_time = options_.reference_time();
    body.host_time = HostTime();
    return BytesOfBody(body);
  }
  RoundTripBody body;
  body.flags = flags;
  const std::uint64_t now = HostTime();
  body.host_time[0] = static_cast<std::uint32_t>(now);
  body.host_time[1] = static_cast<std::uint32_t>(now >> 32);
  return BytesOfBody(body);
}

}  // namespace kmcl::devices
