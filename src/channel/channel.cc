#include "channel/channel.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <new>
#include <utility>

#include "channel/callback_scope.h"
#include "log.h"
#include "wire/gpa_range.h"
#include "wire/pipe.h"

namespace kmcl::channel {
namespace {

constexpr std::uint32_t kMostIdlePackets = 256;  // in a busy channel's lookaside list
constexpr std::size_t kPacketAlignment = 16;
static_assert(alignof(Packet) <= kPacketAlignment && sizeof(Packet) % kPacketAlignment == 0);

// `unit` is a power of two.
constexpr std::uint32_t RoundUp(std::uint32_t bytes, std::uint32_t unit) {
  return (bytes + unit - 1) & ~(unit - 1);
}

// A packet sets aside at most this much for the description of external data: what describes 1 MiB in
// some pieces. A longer description is allocated when it is sent.
constexpr std::uint32_t kMostExternalRoom = 2560;

std::uint32_t ExternalRoom(const Config& config) {
  return std::min(ExternalHeaderBytes(config), kMostExternalRoom);
}

// Where a packet's inline context stands in its buffer, at a multiple of `unit`.
std::uint32_t InlineContextOffset(const Config& config, std::uint32_t unit) {
  return RoundUp(RoundUp(config.maximum_packet_bytes, 8) + ExternalRoom(config), unit);
}

// Data pages of a ring that holds `packets` of the largest packets of a channel.
std::uint32_t PagesFor(const Config& config, std::uint64_t packets) {
  const std::uint64_t packet_bytes = ring::OutgoingRing::PacketBytes(
      ExternalHeaderBytes(config), std::uint64_t{config.maximum_packet_bytes} +
                                       (config.pipe ? sizeof(wire::PipeHeader) : 0));
  // A ring is never filled to its last two units (ring::MaximumPacketBytes).
  constexpr std::uint64_t kUnused = 2 * std::uint64_t{wire::kRingUnitBytes};
  return static_cast<std::uint32_t>((packets * packet_bytes + kUnused + wire::kPageBytes - 1) /
                                    wire::kPageBytes);
}

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

std::uint32_t ExternalHeaderBytes(const Config& config) {
  if (config.maximum_external_bytes == 0 || config.maximum_external_chain == 0) return 0;
  // Every piece may begin and end inside of a page, and has at least a byte.
  const std::uint64_t pieces =
      std::min(config.maximum_external_chain, config.maximum_external_bytes);
  const std::uint64_t pages = config.maximum_external_bytes / wire::kPageBytes + 2 * pieces;
  const std::uint32_t body = wire::kMaximumPacketBytes - wire::kPacketDescriptorBytes;
  const std::uint32_t most = body - std::min(body, RoundUp(config.maximum_packet_bytes, 8));
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(wire::GpaDirectWriter::Bytes(pieces, pages), most));
}

std::uint32_t RingPages(const Config& config, std::uint32_t wanted) {
  constexpr std::uint32_t kControlPages = 1;
  constexpr std::uint32_t kLeastDefaultPages = 4;  // KMCL reference 10.3
  constexpr std::uint64_t kDefaultPackets = 8;
  if (wanted == 0) {
    return std::max(kLeastDefaultPages, kControlPages + PagesFor(config, kDefaultPackets));
  }
  return std::max(wanted, kControlPages + PagesFor(config, 1));
}

bool InCallback() { return callback_depth > 0; }

Channel::Channel(Side side, Handler& handler, Turns& turns)
    : side_(side),
      handler_(handler),
      turns_(turns),
      lifecycle_(side),
      receiver_(handler, turns, sender_) {}

Channel::~Channel() {
  TrimIdlePackets();
  MutexLock lock(packets_mutex_);
  if (packet_count_ != 0) {
    Log(LogLevel::kError, "a channel goes while its owner still has %" PRIu32 " of its packets",
        packet_count_);
  }
}

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
  if (auto ready = PreallocatePackets(); !ready) {
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
  EndSave();
  AbortSynchronous();
  std::uint64_t times_disabled = 0;
  {
    MutexLock lock(mutex_);
    if (lifecycle_.phase() == Lifecycle::Phase::kDisabled) return;
    times_disabled = lifecycle_.times_disabled();
    lifecycle_.EndSave();  // held for a handover
    lifecycle_.OnDisable();
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
  auto incoming = origin == RingOrigin::kOurs ? ring::IncomingRing::Create(in)
                                              : ring::IncomingRing::Attach(in);
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

// [Packet | payload | description of external data | inline context]
std::uint32_t Channel::packet_object_bytes() const {
  const std::uint32_t inline_bytes = config_.inline_context_bytes;
  return static_cast<std::uint32_t>(sizeof(Packet)) +
         (inline_bytes == 0 ? InlineContextOffset(config_, 8)
                            : InlineContextOffset(config_, 16) + RoundUp(inline_bytes, 16));
}

Packet* Channel::InitializePacket(void* memory) {
  auto* packet = new (memory) Packet;
  packet->channel = this;
  packet->capacity = config_.maximum_packet_bytes;
  packet->send_limit = packet->capacity + 1;
  packet->external_room = ExternalRoom(config_);
  packet->in_caller_memory = true;
  if (config_.inline_context_bytes != 0) {
    packet->inline_context_bytes = config_.inline_context_bytes;
    packet->inline_context = packet->buffer() + InlineContextOffset(config_, 16);
    std::memset(packet->inline_context, 0, packet->inline_context_bytes);
  }
  return packet;
}

Packet* Channel::NewPacket() {
  void* memory = ::operator new(packet_object_bytes(), std::align_val_t{kPacketAlignment},
                                std::nothrow);
  if (memory == nullptr) return nullptr;
  Packet* const packet = InitializePacket(memory);
  packet->in_caller_memory = false;
  return packet;
}

void Channel::DeletePacket(Packet& packet) {
  packet.~Packet();
  ::operator delete(&packet, std::align_val_t{kPacketAlignment});
}

Packet* Channel::AllocatePacket() { return TakePacket<For::kOwner>(); }

template <Channel::For kFor>
Packet* Channel::TakePacket() {
  constexpr bool kCounts = kFor == For::kOwner;
  Packet* packet = nullptr;
  std::uint32_t count = 0;
  {
    MutexLock lock(packets_mutex_);
    if (kCounts && config_.maximum_packets != 0 && owners_count_ >= config_.maximum_packets) {
      return nullptr;
    }
    // One whose layout is still the right one: the Init window may have been used since.
    while (packet == nullptr && idle_packets_ != nullptr) {
      Packet* const idle = std::exchange(idle_packets_, idle_packets_->next_idle);
      --idle_count_;
      if (idle->capacity == config_.maximum_packet_bytes &&
          idle->external_room == ExternalRoom(config_) &&
          idle->inline_context_bytes == config_.inline_context_bytes) {
        packet = idle;
      } else {
        --packet_count_;
        DeletePacket(*idle);
      }
    }
    if (packet == nullptr && (!kCounts || !config_.watched)) count = ++packet_count_;
    if (kCounts) ++owners_count_;
  }
  if (packet != nullptr) {
    packet->next_idle = nullptr;
    if (packet->inline_context != nullptr) {
      std::memset(packet->inline_context, 0, packet->inline_context_bytes);
    }
  } else {
    packet = count == 0 ? handler_.OnAllocatePacket() : NewPacket();
    if (packet == nullptr) {
      MutexLock lock(packets_mutex_);
      if (count != 0) --packet_count_;
      if (kCounts) --owners_count_;
      return nullptr;
    }
    if (count != 0) sender_.ReserveTransactions(count);
  }
  packet->counts = kCounts;
  return packet;
}

void Channel::ForgetPacket(Packet& packet) {
  MutexLock lock(packets_mutex_);
  if (std::exchange(packet.counts, false)) --owners_count_;
}

void Channel::FreePacket(Packet& packet) {
  packet.pointer = nullptr;
  packet.routine = nullptr;
  packet.waiter = nullptr;
  {
    MutexLock lock(packets_mutex_);
    if (std::exchange(packet.counts, false)) --owners_count_;
    const std::uint32_t most =
        config_.maximum_packets != 0 ? config_.maximum_packets : kMostIdlePackets;
    if (keeping_packets_ && idle_count_ < most) {
      packet.next_idle = idle_packets_;
      idle_packets_ = &packet;
      ++idle_count_;
      return;
    }
    --packet_count_;
  }
  DeletePacket(packet);
}

Result<void> Channel::PreallocatePackets() {
  const std::uint32_t wanted = config_.maximum_packets;
  if (wanted == 0 || config_.watched) return {};
  sender_.ReserveTransactions(wanted);
  for (;;) {
    {
      MutexLock lock(packets_mutex_);
      keeping_packets_ = true;
      if (packet_count_ >= wanted) return {};
      ++packet_count_;
    }
    Packet* const packet = NewPacket();
    MutexLock lock(packets_mutex_);
    if (packet == nullptr) {
      --packet_count_;
      return std::unexpected(Error::kOutOfMemory);
    }
    packet->next_idle = std::exchange(idle_packets_, packet);
    ++idle_count_;
  }
}

void Channel::KeepIdlePackets() {
  MutexLock lock(packets_mutex_);
  keeping_packets_ = !config_.watched;  // none that the watching owner does not know
}

void Channel::TrimIdlePackets() {
  Packet* idle = nullptr;
  {
    MutexLock lock(packets_mutex_);
    keeping_packets_ = false;
    idle = std::exchange(idle_packets_, nullptr);
    packet_count_ -= std::exchange(idle_count_, 0);
  }
  while (idle != nullptr) DeletePacket(*std::exchange(idle, idle->next_idle));
}

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

Result<std::size_t> Channel::Request(
    std::span<const std::byte> data, bool wants_completion, std::span<std::byte> reply,
    std::optional<std::chrono::steady_clock::time_point> deadline, ExternalData* external) {
  Packet* const packet = TakePacket<For::kLibrary>();
  if (packet == nullptr) return std::unexpected(Error::kOutOfMemory);
  auto result = SendAndWait(*packet, data, wants_completion, reply, deadline, external);
  FreePacket(*packet);
  return result;
}

Result<std::size_t> Channel::RequestNow(std::span<const std::byte> data, bool wants_completion,
                                        std::span<std::byte> reply, ExternalData* external) {
  if (data.size() > config_.maximum_packet_bytes) return std::unexpected(Error::kPacketTooLong);
  Packet* const packet = TakePacket<For::kLibrary>();
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
  FreePacket(*packet);
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
    Sender::Effects effects;
    queued = sender_.Complete(packet, reply, effects);
    Carry(effects);
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

// The peer broke a ring. The channel ends as if the peer had closed it; the endpoint sees to it that the
// peer learns of it.
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
  if (!std::exchange(awake_, true)) KeepIdlePackets();
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
    if (config_.maximum_packets == 0) TrimIdlePackets();
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
