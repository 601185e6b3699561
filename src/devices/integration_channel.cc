#include "devices/integration_channel.h"

#include <algorithm>
#include <utility>

namespace kmcl::devices {
namespace {

// Packets of one open that were no answers, before the guest is no longer heard.
constexpr std::uint32_t kMostStrikes = 1000;

// Room for a negotiation, and for the answer of a guest whose structures are longer than ours.
constexpr UINT32 kLeastMaximumBodyBytes = 2048;

}  // namespace

const char* IntegrationStateText(IntegrationState state) {
  switch (state) {
    case IntegrationState::kNotOpen:
      return "not open";
    case IntegrationState::kNegotiating:
      return "negotiating";
    case IntegrationState::kReady:
      return "ready";
    case IntegrationState::kNoCommonVersion:
      return "no common version";
    case IntegrationState::kDeaf:
      return "not heard";
  }
  return "";
}

std::string IntegrationFailureText(const IntegrationFailure& failure) {
  switch (failure.kind) {
    case IntegrationFailure::Kind::kNotReady:
      switch (failure.state) {
        case IntegrationState::kNotOpen:
          return "the guest has not opened the channel";
        case IntegrationState::kNegotiating:
          return "the guest has not answered yet which versions it speaks";
        case IntegrationState::kNoCommonVersion:
          return "the guest speaks no version of this service that we do";
        case IntegrationState::kDeaf:
          return "the guest has sent too much that nobody asked for";
        case IntegrationState::kReady:
          break;
      }
      return "the guest is not ready";
    case IntegrationFailure::Kind::kBusy:
      return "the guest is still busy with an earlier request";
    case IntegrationFailure::Kind::kTimedOut:
      return "the guest has not answered in time";
    case IntegrationFailure::Kind::kClosed:
      return "the guest closed the channel";
    case IntegrationFailure::Kind::kRefused:
      return "the guest refused: " + IntegrationStatusText(failure.status);
    case IntegrationFailure::Kind::kMalformed:
      return "the guest's answer makes no sense";
    case IntegrationFailure::Kind::kStopped:
      return "the device is going away";
    case IntegrationFailure::Kind::kGivenUp:
      return "it was given up";
  }
  return "";
}

std::expected<std::unique_ptr<IntegrationChannel>, NTSTATUS> IntegrationChannel::Offer(
    PDEVICE_OBJECT device_object, HANDLE partition, const IntegrationService& service,
    Report report) {
  std::unique_ptr<IntegrationChannel> made(new IntegrationChannel(service, std::move(report)));
  ServerChannelSettings settings;
  settings.interface_type = service.interface_type;
  settings.interface_instance = service.interface_instance;
  settings.friendly_name = service.friendly_name;
  settings.maximum_packet_bytes = static_cast<UINT32>(sizeof(IntegrationHeader)) +
                                  std::max(service.maximum_body_bytes, kLeastMaximumBodyBytes);
  settings.message_pipe = true;
  settings.process_packet = OnPacket;
  settings.processing_complete = OnBatchEnd;
  settings.started = OnStarted;
  settings.suspend = OnSuspend;
  auto channel = MakeServerChannel(device_object, partition, settings, made.get());
  if (!channel) {
    return std::unexpected(channel.error());
  }
  made->channel_ = std::move(*channel);
  made->packet_.reset(VmbPacketAllocate(made->channel_.get()));
  if (made->packet_ == nullptr) {
    return std::unexpected(STATUS_INSUFFICIENT_RESOURCES);
  }
  VmbPacketSetPointer(made->packet_.get(), made.get());
  VmbPacketSetCompletionRoutine(made->packet_.get(), OnSent);
  if (const NTSTATUS status = OfferServerChannel(made->channel_.get()); !NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return made;
}

IntegrationChannel::IntegrationChannel(const IntegrationService& service, Report report)
    : service_(service), report_(std::move(report)) {}

// Disabled first: that completes the packet, which is freed before the channel is.
IntegrationChannel::~IntegrationChannel() {
  if (channel_) {
    VmbChannelDisable(channel_.get());
  }
}

KMCL_CHANNEL_COUNTERS IntegrationChannel::Revoke() {
  VmbChannelDisable(channel_.get());
  return QueryCounters(channel_.get());
}

void IntegrationChannel::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

IntegrationStatus IntegrationChannel::Status() const {
  const std::lock_guard lock(mutex_);
  IntegrationStatus status{state_, std::nullopt, counts_};
  if (state_ == IntegrationState::kReady) {
    status.agreement = agreement_;
  }
  return status;
}

std::optional<IntegrationFailure> IntegrationChannel::WhyNot(std::uint64_t number) const {
  using Kind = IntegrationFailure::Kind;
  if (stopped_) {
    return IntegrationFailure{Kind::kStopped, state_, 0};
  }
  if (state_ == IntegrationState::kReady && number == agreement_.number) {
    return std::nullopt;
  }
  return IntegrationFailure{number == 0 ? Kind::kNotReady : Kind::kClosed, state_, 0};
}

std::expected<IntegrationAgreement, IntegrationFailure> IntegrationChannel::Agreement() const {
  const std::lock_guard lock(mutex_);
  if (state_ == IntegrationState::kReady && !stopped_) {
    return agreement_;
  }
  return std::unexpected(*WhyNot(0));
}

std::optional<IntegrationAgreement> IntegrationChannel::AwaitAgreement(std::uint64_t after) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return stopped_ || (state_ == IntegrationState::kReady && agreement_.number > after);
  });
  if (stopped_) {
    return std::nullopt;
  }
  return agreement_;
}

bool IntegrationChannel::WaitWhileAgreed(std::uint64_t number, Deadline deadline) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_until(lock, deadline, [&] { return WhyNot(number).has_value(); });
}

void IntegrationChannel::GiveUp(std::atomic<bool>& flag) {
  {
    const std::lock_guard lock(mutex_);  // whoever is about to wait has seen it, or is woken
    flag.store(true);
  }
  changed_.notify_all();
}

std::expected<IntegrationReply, IntegrationFailure> IntegrationChannel::Ask(
    std::uint64_t number, const MakeBody& make_body, std::chrono::milliseconds timeout,
    const std::atomic<bool>* given_up) {
  using Kind = IntegrationFailure::Kind;
  const auto is_given_up = [given_up] { return given_up != nullptr && given_up->load(); };
  const Deadline deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock lock(mutex_);
  const bool has_turn = changed_.wait_until(
      lock, deadline, [&] { return !asking_ || WhyNot(number) || is_given_up(); });
  if (const auto why = WhyNot(number)) {
    return std::unexpected(*why);
  }
  if (is_given_up()) {
    return std::unexpected(IntegrationFailure{Kind::kGivenUp, state_, 0});
  }
  if (!has_turn || in_flight_) {
    return std::unexpected(IntegrationFailure{Kind::kBusy, state_, 0});
  }
  asking_ = true;
  sending_ = true;
  in_flight_ = true;
  expecting_ = true;
  reply_.reset();
  arrived_.reset();
  ++transaction_;
  ++counts_.asked;
  ++unanswered_;
  const IntegrationAgreement agreement = agreement_;
  const std::uint8_t transaction = transaction_;
  lock.unlock();

  const bool sent = Send(EncodeIntegrationRequest(service_.message, agreement.framework,
                                                  agreement.message, transaction, make_body()));

  lock.lock();
  sending_ = false;
  changed_.notify_all();
  if (sent) {
    changed_.wait_until(lock, deadline, [&] { return reply_ || WhyNot(number) || is_given_up(); });
  } else {
    in_flight_ = false;
  }
  asking_ = false;
  expecting_ = false;
  changed_.notify_all();
  if (reply_) {
    return std::move(*std::exchange(reply_, std::nullopt));
  }
  if (const auto why = WhyNot(number)) {
    return std::unexpected(*why);
  }
  const Kind kind = !sent ? Kind::kClosed : is_given_up() ? Kind::kGivenUp : Kind::kTimedOut;
  return std::unexpected(IntegrationFailure{kind, state_, 0});
}

bool IntegrationChannel::Send(std::span<const std::byte> bytes) {
  return NT_SUCCESS(VmbPacketSend(packet_.get(), const_cast<std::byte*>(bytes.data()),
                                  static_cast<UINT32>(bytes.size()), nullptr, 0));
}

VOID IntegrationChannel::OnSent(VMBPACKET packet, NTSTATUS /*status*/, PVOID /*buffer*/,
                                UINT32 /*bytes*/) {
  auto* self = static_cast<IntegrationChannel*>(VmbPacketGetPointer(packet));
  const std::lock_guard lock(self->mutex_);
  self->in_flight_ = false;
}

// The host speaks first. The packet is idle: what was in flight was completed before the last
// close.
VOID IntegrationChannel::OnStarted(VMBCHANNEL channel) {
  static_cast<IntegrationChannel*>(VmbChannelGetPointer(channel))->Negotiate();
}

void IntegrationChannel::Negotiate() {
  std::uint8_t transaction = 0;
  {
    const std::lock_guard lock(mutex_);
    state_ = IntegrationState::kNegotiating;
    in_flight_ = true;
    unanswered_ = 1;
    strikes_ = 0;
    transaction = ++transaction_;
  }
  if (!Send(EncodeIntegrationRequest(IntegrationMessage::kNegotiate, {}, {}, transaction,
                                     EncodeNegotiation(service_.frameworks, service_.versions)))) {
    const std::lock_guard lock(mutex_);
    in_flight_ = false;
  }
}

// No question of the old agreement may be sent from here on: it would wait for the next open and
// arrive there before the negotiation.
VOID IntegrationChannel::OnSuspend(VMBCHANNEL channel) {
  auto* self = static_cast<IntegrationChannel*>(VmbChannelGetPointer(channel));
  std::unique_lock lock(self->mutex_);
  self->state_ = IntegrationState::kNotOpen;
  self->changed_.notify_all();
  self->changed_.wait(lock, [self] { return !self->sending_; });
}

VOID IntegrationChannel::OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                                  UINT32 buffer_bytes, UINT32 /*flags*/) {
  auto* self = static_cast<IntegrationChannel*>(VmbChannelGetPointer(channel));
  std::string line;
  if (self->Take({static_cast<const std::byte*>(buffer), buffer_bytes}, line)) {
    VmbChannelPacketComplete(packet, nullptr, 0);
  } else {
    VmbChannelPacketFail(packet);
  }
  if (!line.empty() && self->report_) {
    self->report_(std::string(self->service_.name) + ": " + line);
  }
}

bool IntegrationChannel::Take(std::span<const std::byte> bytes, std::string& line) {
  const auto answer = ParseIntegrationAnswer(bytes);
  {
    const std::lock_guard lock(mutex_);
    const bool is_choice = answer && answer->type == IntegrationMessage::kNegotiate;
    // The answer that is waited for counts whatever came before it, twice or uncalled for.
    const bool waited_for = answer && answer->transaction == transaction_ &&
                            (is_choice ? state_ == IntegrationState::kNegotiating
                                       : answer->type == service_.message && expecting_);
    const bool late =
        !waited_for && answer && unanswered_ > 0 && (is_choice || answer->type == service_.message);
    if (waited_for || late) {
      unanswered_ -= std::min<std::uint64_t>(unanswered_, 1);
    } else {
      ++counts_.malformed;
      ++strikes_;
      if (strikes_ == 1) {
        line = "ignored a packet of " + std::to_string(bytes.size()) +
               " bytes that answers nothing; further ones are counted";
      }
      if (strikes_ >= kMostStrikes) {
        state_ = IntegrationState::kDeaf;
        line = "ignored " + std::to_string(strikes_) +
               " packets that answer nothing: the guest is not heard until it opens again";
      }
    }
    counts_.late += late ? 1 : 0;
    if (waited_for && is_choice) {
      TakeChoice(*answer, line);
    } else if (waited_for) {
      ++counts_.answered;
      expecting_ = false;
      arrived_ = IntegrationReply{answer->status, {answer->body.begin(), answer->body.end()}};
    }
  }
  changed_.notify_all();
  const std::lock_guard lock(mutex_);
  return state_ != IntegrationState::kDeaf;
}

// Only now has the guest's ring the room back that the answer took, and whoever waits for it may
// ask the next question. Linux loses an answer that finds no room, and its ring has none for two of
// the longest.
VOID IntegrationChannel::OnBatchEnd(VMBCHANNEL channel, UINT32 /*packets*/) {
  auto* self = static_cast<IntegrationChannel*>(VmbChannelGetPointer(channel));
  {
    const std::lock_guard lock(self->mutex_);
    if (!self->arrived_) {
      return;
    }
    self->reply_ = std::exchange(self->arrived_, std::nullopt);
  }
  self->changed_.notify_all();
}

// Under mutex_.
void IntegrationChannel::TakeChoice(const IntegrationAnswer& answer, std::string& line) {
  const auto choice = ParseChoice(answer.body, service_.frameworks, service_.versions);
  if (!choice) {
    state_ = IntegrationState::kNoCommonVersion;
    line = "the guest accepts none of the versions that were offered";
    return;
  }
  state_ = IntegrationState::kReady;
  agreement_ = {agreement_.number + 1, choice->framework, choice->message};
  line =
      "version " + VersionText(choice->message) + ", framework " + VersionText(choice->framework);
}

}  // namespace kmcl::devices
