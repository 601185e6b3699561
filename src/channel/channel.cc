#include "channel/channel.h"

#include <utility>

#include "channel/callback_scope.h"
#include "log.h"

namespace kmcl::channel {
namespace {

// Before a synchronous request is sent, and when that has failed.
void TakeAlong(Packet& packet, ExternalData* external) {
  if (external == nullptr) return;
  packet.external = external->header;
  packet.transfer = external->transfer;
  external->accepted = true;
}

void LeaveBehind(Packet& packet, ExternalData* external) {
  packet.external = {};
  packet.transfer = nullptr;
  if (external != nullptr) external->accepted = false;
}

ring::RingPages PagesOf(const transport::RingMapping::View& view) {
  return {.control = view.control,
          .data = view.data,
          .data_bytes = view.data_bytes,
          .mapped_bytes = 2 * view.data_bytes};
}

}  // namespace

bool InCallback() { return callback_depth > 0; }

Channel::Channel(Side side, Handler& handler, Turns& turns)
    : side_(side),
      handler_(handler),
      turns_(turns),
      lifecycle_(side),
      packets_(*this, sender_),
      receiver_(handler, turns, sender_) {}

Channel::~Channel() = default;

// ---- State.

Config* Channel::config_in_init_window() {
  MutexLock lock(mutex_);
  return init_window_open_ ? &config_ : nullptr;
}

Result<void> Channel::Enable() {
  {
    MutexLock lock(mutex_);
    if (lifecycle_.phase() != Lifecycle::Phase::kDisabled) {
      return std::unexpected(Error::kNotDisabled);
    }
    lifecycle_.OnEnable();
    saved_ = was_opened_ = reattached_ = false;
    sender_.set_pipe(config_.pipe);
    sender_.AllowSynchronous();
    receiver_.Configure(*this, {.packet_bytes = config_.maximum_packet_bytes,
                                .context_bytes = config_.context_bytes,
                                .pipe = config_.pipe,
                                .header_bytes = ExternalRoom(config_)});
  }
  SetSenderMode(Sender::Mode::kHolding);
  if (auto ready = packets_.Preallocate(); !ready) {
    UndoEnable();
    return ready;
  }
  return {};
}

void Channel::ConfirmEnable() {
  MutexLock lock(mutex_);
  init_window_open_ = false;
}

void Channel::UndoEnable() {
  CancelOutgoing();
  MutexLock lock(mutex_);
  lifecycle_.UndoEnable();
  changed_.NotifyAll();
}

void Channel::Disable() {
  AbortSynchronous();
  std::uint64_t times_disabled = 0;
  while (true) {
    EndSave();
    MutexLock lock(mutex_);
    if (lifecycle_.phase() == Lifecycle::Phase::kDisabled) return;
    if (save_busy_ || saver_ != nullptr) continue;  // another thread has just begun one
    times_disabled = lifecycle_.times_disabled();
    lifecycle_.EndSave();  // held for a handover
    lifecycle_.OnDisable();
    break;
  }
  turns_.RequestState();
  MutexLock lock(mutex_);
  while (lifecycle_.times_disabled() == times_disabled) changed_.Wait(mutex_);
}

void Channel::Start() {
  {
    MutexLock lock(mutex_);
    lifecycle_.OnStart();
    if (!lifecycle_.saving()) saved_ = false;
  }
  turns_.RequestState();
}

void Channel::Pause() {
  {
    MutexLock lock(mutex_);
    lifecycle_.OnPause();
    if (!lifecycle_.running()) return;
  }
  turns_.RequestState();
  MutexLock lock(mutex_);
  while (lifecycle_.running()) changed_.Wait(mutex_);
}

bool Channel::is_disabled() const {
  MutexLock lock(mutex_);
  return lifecycle_.phase() == Lifecycle::Phase::kDisabled;
}

bool Channel::is_enabled() const {
  MutexLock lock(mutex_);
  return lifecycle_.phase() == Lifecycle::Phase::kEnabled;
}

bool Channel::is_open() const {
  MutexLock lock(mutex_);
  return lifecycle_.open();
}

std::optional<BusRequest> Channel::RunState() {
  CallbackScope in_callback;
  for (;;) {
    Lifecycle::Step step;
    EndAbandoned();
    {
      MutexLock lock(mutex_);
      if (std::exchange(bus_request_made_, false)) {
        lifecycle_.Done();
        changed_.NotifyAll();
      }
      step = lifecycle_.Next([this] { return receiver_.DrainedOrNotify(); });
      // Next may have moved on without a step, from draining to paused.
      changed_.NotifyAll();
    }
    if (step == Lifecycle::Step::kNone) return std::nullopt;
    const StepResult result = RunStep(step);
    MutexLock lock(mutex_);
    if (result.request) {
      bus_request_made_ = true;
      return result.request;
    }
    lifecycle_.Done(result.success);
    changed_.NotifyAll();
  }
}

Channel::StepResult Channel::RunStep(Lifecycle::Step step) {
  switch (step) {
    case Lifecycle::Step::kNone:
      return {};
    case Lifecycle::Step::kOpened:
      return {.success = handler_.OnOpened(), .request = {}};
    case Lifecycle::Step::kAccept:
      // Completions that were saved go out as they would have; packets wait for the start.
      if (TakeReattached()) SetSenderMode(Sender::Mode::kPaused);
      return {.request = BusRequest::kAcceptOpen};
    case Lifecycle::Step::kReject:
      if (TakeReattached()) CancelAll();
      DetachRings();
      return {.request = BusRequest::kRejectOpen};
    case Lifecycle::Step::kStarted:
      if (raw_ != nullptr) raw_->Start();
      SetSenderMode(Sender::Mode::kRunning);
      handler_.OnStarted();
      return {};
    case Lifecycle::Step::kPostStarted:
      if (raw_ == nullptr) {
        receiver_.Start();
        turns_.RequestDispatch();
      }
      handler_.OnPostStarted();
      return {};
    case Lifecycle::Step::kSuspend:
      if (raw_ != nullptr) {
        raw_->StopIncoming();
        handler_.OnSuspend();
        raw_->StopOutgoing();
        return {};
      }
      receiver_.Stop();
      handler_.OnSuspend();
      SetSenderMode(Sender::Mode::kPaused);
      return {};
    case Lifecycle::Step::kCancel: {
      SetSenderMode(Sender::Mode::kHolding);
      CancelAll();
      return {};
    }
    case Lifecycle::Step::kSayClose:
      return {.request = BusRequest::kSayClose};
    case Lifecycle::Step::kClosed:
      handler_.OnClosed();
      return {};
    case Lifecycle::Step::kDetach:
      DetachRings();
      sender_.AllowSynchronous();
      return {.request = BusRequest::kDetach};
    case Lifecycle::Step::kFail: {
      Error error;
      {
        MutexLock lock(mutex_);
        error = connect_error_;
      }
      handler_.OnConnectFailed(error);
      return {};
    }
    case Lifecycle::Step::kLeave:
      CancelOutgoing();
      DropRestored();
      return {.request = BusRequest::kLeave};
  }
  return {};
}

// The channel becomes disabled: sends are refused from now on, and what waits ends.
void Channel::CancelOutgoing() {
  SetSenderMode(Sender::Mode::kDisabled);
  CancelAll();
}

void Channel::CancelAll() {
  Sender::Effects effects;
  sender_.CancelAll(effects);
  Carry(effects);
}

void Channel::AbortSynchronous() {
  Sender::Effects effects;
  sender_.AbortSynchronous(effects);
  Carry(effects);
}

Result<void> Channel::AttachRings(const transport::RingMapping& rings, RingOrigin origin,
                                  std::shared_ptr<transport::Doorbell> bell, const RingName& name) {
  AbandonRestored();  // the client has opened anew: what was saved belongs to nothing any more
  MutexLock lock(mutex_);
  return Attach(rings, origin, std::move(bell), name);
}

Result<void> Channel::Attach(const transport::RingMapping& rings, RingOrigin origin,
                             std::shared_ptr<transport::Doorbell> bell, const RingName& name) {
  const bool server = side_ == Side::kServer;
  const ring::RingPages out = PagesOf(server ? rings.server_to_client : rings.client_to_server);
  const ring::RingPages in = PagesOf(server ? rings.client_to_server : rings.server_to_client);
  if (!lifecycle_.may_open()) return std::unexpected(Error::kChannelState);

  auto outgoing = origin == RingOrigin::kOurs ? ring::OutgoingRing::Create(out)
                                              : ring::OutgoingRing::Attach(out);
  if (!outgoing) return std::unexpected(outgoing.error());
  auto incoming =
      origin == RingOrigin::kOurs ? ring::IncomingRing::Create(in) : ring::IncomingRing::Attach(in);
  if (!incoming) return std::unexpected(incoming.error());
  const bool peer_rings_for_space =
      origin == RingOrigin::kOurs || incoming->peer_promises_space_bells();
  if (raw_ != nullptr) {
    raw_->Attach(std::move(*incoming), std::move(*outgoing), std::move(bell), peer_rings_for_space);
  } else {
    sender_.Attach(std::move(*outgoing), bell, peer_rings_for_space);
    receiver_.Attach(std::move(*incoming), std::move(bell));
  }
  rings_ = name;
  ring_broken_.store(false, std::memory_order_relaxed);
  return {};
}

void Channel::DetachRings() {
  if (raw_ != nullptr) {
    raw_->Detach();
    return;
  }
  receiver_.Detach();
  sender_.Detach();
}

void Channel::OnOpen() {
  {
    MutexLock lock(mutex_);
    lifecycle_.OnOpen();
    saved_ = false;
    was_opened_ = true;
  }
  turns_.RequestState();
}

void Channel::OnClose() {
  AbortSynchronous();
  {
    MutexLock lock(mutex_);
    lifecycle_.OnClose();
    saved_ = false;
  }
  turns_.RequestState();
}

void Channel::OnConnectFailed(Error error) {
  {
    MutexLock lock(mutex_);
    connect_error_ = error;
    lifecycle_.OnFailure();
  }
  turns_.RequestState();
}

// ---- Packets.

Result<void> Channel::Send(Packet& packet, std::span<const std::byte> data, bool wants_completion) {
  if (data.size() > packet.capacity) return std::unexpected(Error::kPacketTooLong);
  Sender::Effects effects;
  if (auto sent = sender_.Send(packet, data, wants_completion, effects); !sent) return sent;
  Carry(effects);
  return {};
}

bool Channel::Cancel(Packet& packet) {
  if (!sender_.Cancel(packet)) return false;
  if (!packet.external.empty()) EndExternal(handler_, packet, Outcome::kCancelled);
  return true;
}

Result<std::size_t> Channel::SendAndWait(
    Packet& packet, std::span<const std::byte> data, bool wants_completion,
    std::span<std::byte> reply, std::optional<std::chrono::steady_clock::time_point> deadline,
    ExternalData* external) {
  SynchronousWait wait(reply);
  packet.waiter = &wait;
  TakeAlong(packet, external);
  if (auto sent = Send(packet, data, wants_completion); !sent) {
    LeaveBehind(packet, external);
    return std::unexpected(sent.error());
  }
  if (!wait.Wait(deadline)) {
    if (Cancel(packet)) return std::unexpected(Error::kCancelled);
    wait.Wait(std::nullopt);  // it is being completed at this moment
  }
  if (wait.outcome != Outcome::kSuccess) return std::unexpected(Error::kDeviceRemoved);
  return wait.reply_bytes;
}

Result<std::size_t> Channel::Request(std::span<const std::byte> data, bool wants_completion,
                                     std::span<std::byte> reply,
                                     std::optional<std::chrono::steady_clock::time_point> deadline,
                                     ExternalData* external) {
  Packet* const packet = packets_.Take(PacketPool::For::kLibrary);
  if (packet == nullptr) return std::unexpected(Error::kOutOfMemory);
  auto result = SendAndWait(*packet, data, wants_completion, reply, deadline, external);
  packets_.Free(*packet);
  return result;
}

Result<std::size_t> Channel::RequestNow(std::span<const std::byte> data, bool wants_completion,
                                        std::span<std::byte> reply, ExternalData* external) {
  if (data.size() > config_.maximum_packet_bytes) return std::unexpected(Error::kPacketTooLong);
  Packet* const packet = packets_.Take(PacketPool::For::kLibrary);
  if (packet == nullptr) return std::unexpected(Error::kOutOfMemory);
  SynchronousWait wait(reply);
  packet->waiter = &wait;
  TakeAlong(*packet, external);
  Sender::Effects effects;
  Result<std::size_t> result = std::size_t{0};
  if (auto sent = sender_.SendNow(*packet, data, wants_completion, effects); !sent) {
    result = std::unexpected(sent.error());
    LeaveBehind(*packet, external);
    Carry(effects);  // the ring may have turned out to be corrupt
  } else {
    Carry(effects);
    if (!wait.IsDone() && Cancel(*packet)) {
      result = std::unexpected(Error::kCancelled);
    } else {
      wait.Wait(std::nullopt);
      if (wait.outcome == Outcome::kSuccess) {
        result = wait.reply_bytes;
      } else {
        result = std::unexpected(Error::kDeviceRemoved);
      }
    }
  }
  packets_.Free(*packet);
  return result;
}

bool Channel::Complete(IncomingPacket& packet, std::span<const std::byte> reply) {
  if (!receiver_.Retire(packet)) {
    return handler_.OnNotOutstanding(packet, Handler::Retire::kComplete, reply);
  }
  // Before the completion: the peer uses its memory for something else once it has that.
  ReleaseExternalView(packet);
  bool queued = false;
  if (packet.wants_completion) {
    switch (sender_.CompletePlain(packet.transaction_id, reply, receiver_.MayHold())) {
      case Sender::Plain::kPublished:
        break;
      case Sender::Plain::kHeld:
        receiver_.NoteHeld();
        break;
      case Sender::Plain::kNo: {
        Sender::Effects effects;
        queued = sender_.Complete(packet, reply, effects);
        Carry(effects);
        break;
      }
    }
  }
  if (receiver_.IsDelivering(packet)) {
    receiver_.RetireDelivered(packet, !queued);
    return true;
  }
  if (!queued) receiver_.Recycle(packet);
  receiver_.CountRetired();  // the channel may be gone from here on
  return true;
}

// A raw channel's sender stays disabled for ever: that is what refuses packets.
void Channel::SetSenderMode(Sender::Mode mode) {
  if (raw_ != nullptr) return;
  Sender::Effects effects;
  sender_.SetMode(mode, effects);
  Carry(effects);
}

void Channel::Carry(Sender::Effects& effects) {
  if (effects.bell != nullptr) effects.bell->Ring();
  if (effects.poll) turns_.RequestDispatch();
  while (IncomingPacket* packet = effects.retired) {
    effects.retired = packet->next_free;
    receiver_.Recycle(*packet);
  }
  while (Outgoing* item = effects.too_long.Pop()) {
    FinishPacket(handler_, static_cast<Packet&>(*item), Outcome::kCancelled, {});
  }
  while (Outgoing* item = effects.done.Pop()) {
    FinishPacket(handler_, static_cast<Packet&>(*item), effects.outcome, {});
  }
  if (effects.broken) Break(*effects.broken);
}

// The peer broke a ring. The channel ends as if the peer had closed it; the endpoint sees to it
// that the peer learns of it.
void Channel::Break(Error error) {
  if (ring_broken_.exchange(true, std::memory_order_relaxed)) return;
  Log(LogLevel::kWarning, "the peer broke a ring (%s): the channel is closed", ErrorName(error));
  OnClose();
}

Result<void> Channel::MakeRaw() {
  if (raw_ != nullptr) return {};
  auto made = RawQueue::Create(turns_);
  if (!made) return std::unexpected(made.error());
  raw_ = std::move(*made);
  return {};
}

void Channel::OnRawError(Error error) {
  if (RawQueue::IsCorrupt(error)) Break(error);
}

// ---- Turns.

Turn Channel::Dispatch(std::uint32_t spins) {
  if (raw_ != nullptr) {
    raw_->OnBell();
    return Turn::kAsleep;
  }
  CallbackScope in_callback;
  if (!std::exchange(awake_, true)) packets_.KeepIdle();
  if (sender_.has_queued()) {
    Sender::Effects effects;
    sender_.Flush(effects);
    effects.poll = false;  // who gives the turns asks must_poll(), and need not be in a hurry
    Carry(effects);
  }
  std::optional<Error> broken;
  const Turn turn = receiver_.Deliver(Level::kDispatch, spins, broken);
  if (broken) Break(*broken);
  if (turn == Turn::kAsleep || turn == Turn::kStopped) {
    awake_ = false;
    if (config_.maximum_packets == 0) packets_.TrimIdle();
  }
  return turn;
}

void Channel::DeliverPassive() {
  CallbackScope in_callback;
  std::optional<Error> broken;
  const Turn turn = receiver_.Deliver(Level::kPassive, 0, broken);
  if (broken) Break(*broken);
  if (turn == Turn::kMore) turns_.RequestPassive();
}

Counters Channel::counters() const {
  Counters counters;
  counters.sender = sender_.counters();
  counters.receiver = receiver_.counters();
  counters.bells_rung = counters.sender.bells + receiver_.bells_rung();
  if (raw_ != nullptr) {
    const RawCounters raw = raw_->counters();
    counters.sender.packets = raw.packets_sent;
    counters.sender.bytes = raw.bytes_sent;
    counters.sender.completions = raw.completions_sent;
    counters.sender.ring_full = raw.ring_full;
    counters.receiver.packets = raw.packets_received;
    counters.receiver.bytes = raw.bytes_received;
    counters.receiver.completions = raw.completions_received;
    counters.bells_rung = raw.bells_rung;
  }
  return counters;
}

}  // namespace kmcl::channel
