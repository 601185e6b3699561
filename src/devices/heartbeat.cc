#include "devices/heartbeat.h"

#include <cstddef>
#include <cstring>
#include <utility>

namespace kmcl::devices {
namespace {

constexpr IntegrationVersion kVersions[] = {{1, 0}, {3, 0}};

struct HeartbeatBody {
  std::uint64_t sequence = 0;
  std::uint32_t application_state = 0;
  std::uint32_t reserved[7] = {};
};
static_assert(sizeof(HeartbeatBody) == 40 && offsetof(HeartbeatBody, application_state) == 8);

// All that is needed of an answer.
constexpr std::size_t kLeastAnswerBytes = 12;

constexpr IntegrationService kService = {
    .interface_type = kHeartbeatInterface,
    .interface_instance = kHeartbeatInstance,
    .friendly_name = u"Heartbeat",
    .name = "heartbeat",
    .message = IntegrationMessage::kHeartbeat,
    .frameworks = kIntegrationFrameworks,
    .versions = kVersions,
    .maximum_body_bytes = sizeof(HeartbeatBody),
};

}  // namespace

const char* HeartbeatStateText(HeartbeatState state) {
  switch (state) {
    case HeartbeatState::kNoContact:
      return "no contact";
    case HeartbeatState::kOk:
      return "ok";
    case HeartbeatState::kLost:
      return "lost";
  }
  return "";
}

std::expected<std::unique_ptr<HeartbeatDevice>, NTSTATUS> HeartbeatDevice::Offer(
    PDEVICE_OBJECT device_object, HANDLE partition, const HeartbeatOptions& options, Report report,
    StateChanged state_changed) {
  std::unique_ptr<HeartbeatDevice> device(new HeartbeatDevice(options, std::move(state_changed)));
  auto channel = IntegrationChannel::Offer(device_object, partition, kService, std::move(report));
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  device->thread_ = std::thread(&HeartbeatDevice::RunBeats, device.get());
  return device;
}

HeartbeatDevice::HeartbeatDevice(const HeartbeatOptions& options, StateChanged state_changed)
    : options_(options), state_changed_(std::move(state_changed)) {}

HeartbeatDevice::~HeartbeatDevice() {
  if (thread_.joinable()) {
    channel_->Stop();
    thread_.join();
  }
}

HeartbeatStatus HeartbeatDevice::Status() const {
  const std::lock_guard lock(mutex_);
  HeartbeatStatus status = status_;
  status.channel = channel_->Status();
  return status;
}

KMCL_CHANNEL_COUNTERS HeartbeatDevice::Revoke() { return channel_->Revoke(); }

// One question for each interval, never two at a time.
void HeartbeatDevice::RunBeats() {
  std::uint64_t last = 0;
  while (const auto agreement = channel_->AwaitAgreement(last)) {
    last = agreement->number;
    missed_in_a_row_ = 0;
    for (std::uint64_t sequence = 0;; ++sequence) {
      const auto next = std::chrono::steady_clock::now() + options_.interval;
      Beat(*agreement, sequence);
      if (!channel_->WaitWhileAgreed(agreement->number, next)) {
        break;
      }
    }
    SetState(HeartbeatState::kNoContact);
  }
}

// The guest adds one to the number.
void HeartbeatDevice::Beat(const IntegrationAgreement& agreement, std::uint64_t sequence) {
  HeartbeatBody body;
  body.sequence = sequence;
  const auto reply = channel_->Ask(
      agreement.number,
      [&body] {
        const auto bytes = std::as_bytes(std::span(&body, 1));
        return std::vector<std::byte>(bytes.begin(), bytes.end());
      },
      options_.interval);
  if (reply && reply->body.size() >= kLeastAnswerBytes) {
    std::uint64_t answered = 0;
    std::uint32_t application_state = 0;
    std::memcpy(&answered, reply->body.data(), sizeof(answered));
    std::memcpy(&application_state, reply->body.data() + offsetof(HeartbeatBody, application_state),
                sizeof(application_state));
    if (answered == sequence + 1) {
      {
        const std::lock_guard lock(mutex_);
        ++status_.beats;
        status_.last_beat = std::chrono::system_clock::now();
        status_.application_state = application_state;
      }
      missed_in_a_row_ = 0;
      return SetState(HeartbeatState::kOk);
    }
  }
  using Kind = IntegrationFailure::Kind;
  if (!reply && reply.error().kind != Kind::kTimedOut && reply.error().kind != Kind::kBusy) {
    return;  // it closed the channel, or we are going: no interval was missed
  }
  bool lost = false;
  {
    const std::lock_guard lock(mutex_);
    ++(reply ? status_.wrong : status_.missed);
    lost = status_.state != HeartbeatState::kNoContact && ++missed_in_a_row_ >= options_.lost_after;
  }
  if (lost) {
    SetState(HeartbeatState::kLost);
  }
}

void HeartbeatDevice::SetState(HeartbeatState state) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(status_.state, state) == state) {
      return;
    }
  }
  if (state_changed_) {
    state_changed_(state);
  }
}

}  // namespace kmcl::devices
