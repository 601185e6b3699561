#include "devices/freeze.h"

#include <utility>
#include <vector>

namespace kmcl::devices {

enum class FreezeDevice::Operation : std::uint8_t {
  kHotBackupCheck = 2,
  kBackupComplete = 4,
  kFreeze = 5,
  kThaw = 6,
};

namespace {

using namespace std::chrono_literals;
using Kind = IntegrationFailure::Kind;

constexpr IntegrationVersion kVersions[] = {{5, 0}};

// The operation, seven bytes reserved, then what the operation needs: flags, for these.
constexpr std::size_t kBodyBytes = 32;

constexpr auto kLastThawTimeout = 5s;  // of a device that goes
constexpr auto kThawAgainAfter = 5s;   // of a thaw that was not answered

constexpr IntegrationService kService = {
    .interface_type = kFreezeInterface,
    .interface_instance = kFreezeInstance,
    .friendly_name = u"Backup",
    .name = "vss",
    .message = IntegrationMessage::kFreeze,
    .frameworks = kNewerIntegrationFramework,
    .versions = kVersions,
    .maximum_body_bytes = kBodyBytes,
};

}  // namespace

const char* FreezeStateText(FreezeState state) {
  switch (state) {
    case FreezeState::kThawed:
      return "thawed";
    case FreezeState::kFreezing:
      return "freezing";
    case FreezeState::kFrozen:
      return "frozen";
    case FreezeState::kThawing:
      return "thawing";
  }
  return "";
}

std::expected<std::unique_ptr<FreezeDevice>, NTSTATUS> FreezeDevice::Offer(
    PDEVICE_OBJECT device_object, HANDLE partition, const FreezeOptions& options, Report report) {
  std::unique_ptr<FreezeDevice> device(new FreezeDevice(options, report));
  auto channel = IntegrationChannel::Offer(device_object, partition, kService, std::move(report));
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  device->watch_ = std::thread(&FreezeDevice::RunWatch, device.get());
  return device;
}

FreezeDevice::FreezeDevice(const FreezeOptions& options, Report report)
    : options_(options), report_(std::move(report)) {}

FreezeDevice::~FreezeDevice() {
  if (watch_.joinable()) {
    Stop();
    watch_.join();
  }
}

void FreezeDevice::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  // A freeze that is under way is cut off, and thaws in vain; so it is thawed here, if it can be.
  if (const std::unique_lock turn(turn_, std::try_to_lock); turn && IsFrozen()) {
    (void)ThawNow(kLastThawTimeout);
  }
  channel_->Stop();
}

KMCL_CHANNEL_COUNTERS FreezeDevice::Revoke() {
  if (const std::unique_lock turn(turn_, std::try_to_lock); turn && IsFrozen()) {
    (void)ThawNow(kLastThawTimeout);
  }
  return channel_->Revoke();
}

// Not when the guest has closed the channel since: whatever was frozen is gone with its system.
bool FreezeDevice::IsFrozen() const {
  const auto agreement = channel_->Agreement();
  const std::lock_guard lock(mutex_);
  return state_ == FreezeState::kFrozen && agreement && agreement->number == frozen_agreement_;
}

FreezeStatus FreezeDevice::Status() const {
  FreezeStatus status;
  status.channel = channel_->Status();
  const std::lock_guard lock(mutex_);
  const bool over =
      !status.channel.agreement || status.channel.agreement->number != frozen_agreement_;
  status.state = state_ == FreezeState::kFrozen && over ? FreezeState::kThawed : state_;
  status.freezes = freezes_;
  status.automatic_thaws = automatic_thaws_;
  return status;
}

std::expected<IntegrationReply, IntegrationFailure> FreezeDevice::Ask(
    std::uint64_t agreement, Operation operation, std::chrono::milliseconds timeout) {
  auto reply = channel_->Ask(
      agreement,
      [operation] {
        std::vector<std::byte> body(kBodyBytes);
        body[0] = static_cast<std::byte>(operation);
        return body;
      },
      timeout);
  if (reply && reply->status != kIntegrationSuccess) {
    return std::unexpected(
        IntegrationFailure{Kind::kRefused, IntegrationState::kReady, reply->status});
  }
  return reply;
}

std::expected<void, IntegrationFailure> FreezeDevice::Freeze(std::chrono::milliseconds timeout) {
  const std::unique_lock turn(turn_, std::try_to_lock);
  if (!turn || IsFrozen()) {
    return std::unexpected(IntegrationFailure{Kind::kBusy, IntegrationState::kReady, 0});
  }
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  if (const auto can = Ask(agreement->number, Operation::kHotBackupCheck, options_.thaw_timeout);
      !can) {
    return std::unexpected(can.error());
  }
  SetState(FreezeState::kFreezing);
  const auto frozen = Ask(agreement->number, Operation::kFreeze, timeout);
  {
    const std::lock_guard lock(mutex_);
    state_ = FreezeState::kFrozen;  // perhaps, if it failed
    frozen_agreement_ = agreement->number;
    thaw_at_ = std::chrono::steady_clock::now() + options_.maximum_frozen;
    freezes_ += frozen ? 1 : 0;
  }
  changed_.notify_all();
  if (!frozen) {
    (void)ThawNow(options_.thaw_timeout);
    return std::unexpected(frozen.error());
  }
  return {};
}

std::expected<void, IntegrationFailure> FreezeDevice::Thaw() {
  const std::unique_lock turn(turn_, std::try_to_lock);
  if (!turn) {
    return std::unexpected(IntegrationFailure{Kind::kBusy, IntegrationState::kReady, 0});
  }
  return ThawNow(options_.thaw_timeout);
}

// With turn_. A thaw that was not answered leaves the state as it was: the watch tries again.
std::expected<void, IntegrationFailure> FreezeDevice::ThawNow(std::chrono::milliseconds timeout) {
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    SetState(FreezeState::kThawed);
    return std::unexpected(agreement.error());
  }
  SetState(FreezeState::kThawing);
  const auto thawed = Ask(agreement->number, Operation::kThaw, timeout);
  if (!thawed) {
    const bool again = thawed.error().kind == Kind::kTimedOut || thawed.error().kind == Kind::kBusy;
    {
      const std::lock_guard lock(mutex_);
      state_ = again ? FreezeState::kFrozen : FreezeState::kThawed;
      frozen_agreement_ = agreement->number;
      thaw_at_ = std::chrono::steady_clock::now() + kThawAgainAfter;
    }
    changed_.notify_all();
    return std::unexpected(thawed.error());
  }
  SetState(FreezeState::kThawed);
  const auto complete = Ask(agreement->number, Operation::kBackupComplete, timeout);
  if (!complete) {
    return std::unexpected(complete.error());
  }
  return {};
}

void FreezeDevice::SetState(FreezeState state) {
  {
    const std::lock_guard lock(mutex_);
    state_ = state;
  }
  changed_.notify_all();
}

void FreezeDevice::RunWatch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (state_ != FreezeState::kFrozen) {
      changed_.wait(lock);
      continue;
    }
    if (changed_.wait_until(lock, thaw_at_) == std::cv_status::no_timeout ||
        std::chrono::steady_clock::now() < thaw_at_) {
      continue;
    }
    lock.unlock();
    bool thaws = false;
    if (const std::unique_lock turn(turn_); IsFrozen()) {
      thaws = ThawNow(options_.thaw_timeout).has_value();
      if (report_) {
        report_(thaws ? "vss: thawed the guest, which was frozen for too long"
                      : "vss: the guest is frozen for too long and does not thaw");
      }
    } else {
      SetState(FreezeState::kThawed);
    }
    lock.lock();
    automatic_thaws_ += thaws ? 1 : 0;
  }
}

}  // namespace kmcl::devices
