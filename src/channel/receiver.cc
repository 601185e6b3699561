#include "channel/receiver.h"

#include <cinttypes>
#include <cstring>
#include <utility>

#include "channel/synchronous_wait.h"
#include "log.h"
#include "wire/pipe.h"
#include "wire/ring_layout.h"

namespace kmcl::channel {
namespace {

// Which receiver is inside OnPacket on this thread.
thread_local const Receiver* delivering_receiver = nullptr;

// Packets one channel may deliver before the others of its thread get their turn.
constexpr int kTurnPackets = 256;

// Tells the processor that this is a wait loop.
void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Counters have one writer at a time; a plain increment without a locked instruction is enough.
void Count(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace

void Receiver::Configure(Channel& channel, const Limits& limits) {
  channel_ = &channel;
  limits_ = limits;
  pool_.Configure(limits.packet_bytes + (limits.pipe ? sizeof(wire::PipeHeader) : 0),
                  limits.context_bytes, limits.header_bytes);
}

void Receiver::Attach(ring::IncomingRing ring, std::shared_ptr<transport::Doorbell> bell) {
  ring_.emplace(std::move(ring));
  bell_ = std::move(bell);
  failed_ = false;
  fail_requested_.store(false, std::memory_order_relaxed);
  unmasked_ = false;
  blocked_.store(false, std::memory_order_relaxed);
}

void Receiver::Detach() {
  KMCL_CHECK(!enabled_.load(std::memory_order_relaxed));
  if (deferred_ != nullptr) pool_.Put(*std::exchange(deferred_, nullptr));
  pool_.Trim();
  ring_.reset();
  bell_.reset();
}

IncomingPacket* Receiver::MakePacket(std::uint32_t bytes) {
  IncomingPacket* const packet = pool_.Take(bytes);
  if (packet == nullptr) return nullptr;
  packet->channel = channel_;
  packet->kind = Outgoing::Kind::kCompletion;
  if (packet->context != nullptr) std::memset(packet->context, 0, limits_.context_bytes);
  return packet;
}

void Receiver::Restore(IncomingPacket* packet, bool failed) {
  KMCL_CHECK(deferred_ == nullptr && !enabled_.load(std::memory_order_relaxed));
  deferred_ = packet;
  failed_ = failed;
}

void Receiver::Start() {
  MutexLock lock(mutex_);
  KMCL_CHECK(ring_.has_value());
  enabled_.store(true, std::memory_order_relaxed);
}

void Receiver::Stop() {
  {
    MutexLock lock(mutex_);
    enabled_.store(false, std::memory_order_relaxed);
    while (delivering_) idle_.Wait(mutex_);
  }
  // Nobody delivers now. A batch may be open between two turns.
  EndBatch();
}

bool Receiver::BeginTurn() {
  MutexLock lock(mutex_);
  if (delivering_) {
    turn_missed_ = true;
    return false;
  }
  if (!enabled_.load(std::memory_order_relaxed) || failed_) return false;
  delivering_ = true;
  return true;
}

void Receiver::EndTurn() {
  bool missed = false;
  {
    MutexLock lock(mutex_);
    delivering_ = false;
    missed = std::exchange(turn_missed_, false) && enabled_.load(std::memory_order_relaxed);
    idle_.NotifyAll();
  }
  if (missed) turns_.RequestDispatch();
}

Turn Receiver::Deliver(Level level, std::uint32_t spins, std::optional<Error>& broken) {
  if (!BeginTurn()) return Turn::kStopped;
  const Turn turn = DeliverLoop(level, spins, broken);
  EndTurn();
  return turn;
}

bool Receiver::WantsPassive() const {
  return over_budget_ || deferred_ != nullptr ||
         passive_required_.load(std::memory_order_relaxed);
}

Turn Receiver::DeliverLoop(Level level, std::uint32_t spins, std::optional<Error>& broken) {
  // Only a completion that left the channel below its quota takes it out of this state; raising the
  // quota does not (KMCL reference 6.6).
  if (blocked_.load(std::memory_order_seq_cst)) return Turn::kStopped;
  if (std::exchange(unmasked_, false)) ring_->Mask();
  const std::uint32_t share = dispatch_share_.load(std::memory_order_relaxed);
  const bool is_limited = level == Level::kDispatch && share != 100;
  over_budget_ = is_limited && budget_.Begin(share);
  for (int budget = kTurnPackets; budget > 0; --budget) {
    if (!enabled_.load(std::memory_order_relaxed)) {
      EndBatch();
      return Turn::kStopped;
    }
    if (fail_requested_.load(std::memory_order_relaxed)) failed_ = true;
    const Step step = failed_ ? Step::kStop : DeliverNext(level, broken);
    switch (step) {
      case Step::kDelivered:
        if (ring_->release_due()) RingIfNeeded(ring_->Release());
        if (is_limited) over_budget_ = budget_.Charge();
        continue;
      case Step::kStop:
        EndBatch();
        return Turn::kStopped;
      case Step::kDeferred:
        EndBatch();
        [[fallthrough]];
      case Step::kToPassive:
        turns_.RequestPassive();
        return Turn::kStopped;
      case Step::kEmpty:
        break;
    }
    EndBatch();  // B2: non-empty to empty, after the last packet
    if (spins > 0) {
      if (SpinUntilPacket(spins)) continue;
      return Turn::kEmpty;
    }
    pool_.Trim();
    // B14: unmask, then look again. A hit starts a new batch (B6).
    const auto still_empty = ring_->UnmaskAndCheck();
    if (!still_empty) {
      failed_ = true;
      broken = still_empty.error();
      return Turn::kStopped;
    }
    if (*still_empty) {
      unmasked_ = true;
      return Turn::kAsleep;
    }
    ring_->Mask();
  }
  return Turn::kMore;  // the batch stays open (B4)
}

bool Receiver::SpinUntilPacket(std::uint32_t spins) const {
  for (; spins > 0 && enabled_.load(std::memory_order_relaxed); --spins) {
    if (!ring_->Empty()) return true;
    Relax();
  }
  return false;
}

Receiver::Step Receiver::DeliverNext(Level level, std::optional<Error>& broken) {
  if (deferred_ != nullptr) {
    if (level != Level::kPassive) return Step::kToPassive;
    if (AtQuota()) return Step::kStop;
    return DeliverPacket(*std::exchange(deferred_, nullptr));
  }
  const auto bytes = ring_->PeekBytes();
  if (!bytes) {
    failed_ = true;
    broken = bytes.error();
    return Step::kStop;
  }
  if (!*bytes) return Step::kEmpty;
  if (level != Level::kPassive && WantsPassive()) return Step::kToPassive;
  if (AtQuota()) return Step::kStop;

  IncomingPacket* const packet = pool_.Take(**bytes);
  if (packet == nullptr) {
    // Without memory the packet stays in the ring; the next completion or bell tries again.
    Log(LogLevel::kError, "out of memory for an incoming packet of %" PRIu32 " bytes", **bytes);
    turns_.RequestDispatch();
    return Step::kStop;
  }
  const auto read = ring_->Read({packet->buffer(), packet->capacity});
  if (!read || !*read) {
    pool_.Put(*packet);
    failed_ = true;
    broken = read ? Error::kRingIndexOutOfRange : read.error();
    return Step::kStop;
  }
  packet->channel = channel_;
  packet->kind = Outgoing::Kind::kCompletion;  // what it may become in the outgoing queue
  packet->transaction_id = wire::TransactionId{(*read)->transaction_id};
  packet->wants_completion = ((*read)->flags & wire::kPacketFlagCompletionRequested) != 0;
  packet->header = (*read)->header;
  packet->payload = (*read)->payload;

  switch ((*read)->type) {
    case wire::PacketType::kCompletion:
      DeliverCompletion(*packet);
      return Step::kDelivered;
    case wire::PacketType::kDataInBand:
      packet->external_data = false;
      break;
    case wire::PacketType::kDataUsingTransferPages:
    case wire::PacketType::kDataUsingGpadl:
      // Memory by reference to something else: there is data, and no description that can be followed.
      packet->external_data = true;
      packet->header = {};
      break;
    case wire::PacketType::kDataUsingGpaDirect:
      packet->external_data = true;
      break;
    default:
      // Historic and reserved types: no peer of ours may expect anything from them.
      return MalformedPacket(packet, "of a type that channels do not carry",
                             static_cast<std::uint64_t>((*read)->type));
  }
  if (limits_.pipe) {
    const auto data = wire::ParsePipePacket(packet->payload);
    if (!data) return MalformedPacket(packet, "without a valid pipe header", packet->payload.size());
    packet->payload = packet->payload.subspan(sizeof(wire::PipeHeader), data->size());
  }
  if (packet->payload.size() > (limits_.packet_bytes + std::size_t{7}) / 8 * 8) {
    return MalformedPacket(packet, "longer than the channel's maximum", packet->payload.size());
  }
  if (packet->context != nullptr) std::memset(packet->context, 0, limits_.context_bytes);
  return DeliverPacket(*packet);
}

Receiver::Step Receiver::MalformedPacket(IncomingPacket* packet, const char* what,
                                         std::uint64_t size) {
  Log(LogLevel::kWarning, "a packet %s (%" PRIu64 "): the incoming queue stops", what, size);
  pool_.Put(*packet);
  failed_ = true;
  return Step::kStop;
}

void Receiver::DeliverCompletion(IncomingPacket& packet) {
  Packet* const waiting = sender_.TakeCompleted(packet.transaction_id);
  if (waiting != nullptr) {
    Count(completions_);
    FinishPacket(handler_, *waiting, Outcome::kSuccess, packet.payload);
  } else {
    handler_.OnLateCompletion(packet.transaction_id);
  }
  pool_.Put(packet);
}

Receiver::Step Receiver::DeliverPacket(IncomingPacket& packet) {
  const std::uint64_t bytes = packet.payload.size();
  packet.outstanding.store(true, std::memory_order_relaxed);
  outstanding_.fetch_add(1, std::memory_order_relaxed);
  in_hand_.fetch_add(1, std::memory_order_relaxed);
  current_ = &packet;
  verdict_ = Verdict::kNone;
  delivering_receiver = this;
  handler_.OnPacket(packet);
  delivering_receiver = nullptr;
  current_ = nullptr;

  // With kNone the packet may have been completed, and be gone, by now.
  switch (verdict_) {
    case Verdict::kNone:
      break;
    case Verdict::kDeferred:
      deferred_ = &packet;
      CountRetired();
      return Step::kDeferred;
    case Verdict::kFailed:
      pool_.Put(packet);
      CountRetired();
      failed_ = true;
      break;
  }
  ++batch_;
  Count(packets_);
  Count(bytes_, bytes);
  return verdict_ == Verdict::kFailed ? Step::kStop : Step::kDelivered;
}

// Whether this very thread is inside OnPacket of `packet`.
bool Receiver::IsDelivering(const IncomingPacket& packet) const {
  return delivering_receiver == this && current_ == &packet;
}

// Both retire the packet at once: a completion, or a second verdict, that follows finds nothing.
bool Receiver::Defer(IncomingPacket& packet) {
  if (!IsDelivering(packet) || !Retire(packet)) return false;
  verdict_ = Verdict::kDeferred;
  return true;
}

bool Receiver::Fail(IncomingPacket& packet) {
  if (!Retire(packet)) return false;
  if (IsDelivering(packet)) {
    verdict_ = Verdict::kFailed;
    return true;
  }
  fail_requested_.store(true, std::memory_order_relaxed);
  pool_.Put(packet);
  CountRetired();
  return true;
}

bool Receiver::Retire(IncomingPacket& packet) {
  return packet.outstanding.exchange(false, std::memory_order_acq_rel);
}

void Receiver::CountRetired() {
  const std::uint64_t left = outstanding_.fetch_sub(1, std::memory_order_seq_cst) - 1;
  if (blocked_.load(std::memory_order_seq_cst) && left < quota_.load(std::memory_order_relaxed) &&
      blocked_.exchange(false, std::memory_order_seq_cst)) {
    turns_.RequestDispatch();
  }
  std::uint64_t in_hand = in_hand_.load(std::memory_order_relaxed);
  while (!in_hand_.compare_exchange_weak(in_hand,
                                         in_hand == (kDraining | 1) ? kTelling : in_hand - 1,
                                         std::memory_order_acq_rel, std::memory_order_relaxed)) {
  }
  if (in_hand != (kDraining | 1)) return;
  turns_.RequestState();
  MutexLock lock(mutex_);
  in_hand_.fetch_and(~kTelling, std::memory_order_relaxed);
  idle_.NotifyAll();
}

bool Receiver::AtQuota() {
  const std::uint32_t quota = quota_.load(std::memory_order_relaxed);
  if (quota == UINT32_MAX || outstanding_.load(std::memory_order_relaxed) < quota) return false;
  blocked_.store(true, std::memory_order_seq_cst);
  // A completion that came before the store above did not see it.
  if (outstanding_.load(std::memory_order_seq_cst) >= quota) return true;
  // It did not see it, or it did and asked for a turn, which then finds nothing new.
  blocked_.store(false, std::memory_order_seq_cst);
  return false;
}

bool Receiver::DrainedOrNotify() {
  constexpr std::uint64_t kMarks = kDraining | kTelling;
  if ((in_hand_.fetch_or(kDraining, std::memory_order_acq_rel) & ~kMarks) != 0) return false;
  MutexLock lock(mutex_);
  while ((in_hand_.load(std::memory_order_relaxed) & kTelling) != 0) idle_.Wait(mutex_);
  in_hand_.fetch_and(~kDraining, std::memory_order_relaxed);
  return true;
}

void Receiver::EndBatch() {
  if (ring_.has_value() && ring_->unreleased_bytes() > 0) RingIfNeeded(ring_->Release());
  if (batch_ == 0) return;
  Count(batches_);
  handler_.OnBatchEnd(std::exchange(batch_, 0));
}

void Receiver::RingIfNeeded(ring::Bell bell) {
  if (bell != ring::Bell::kRing) return;
  Count(bells_rung_);
  bell_->Ring();
}

ReceiverCounters Receiver::counters() const {
  ReceiverCounters counters;
  counters.packets = packets_.load(std::memory_order_relaxed);
  counters.bytes = bytes_.load(std::memory_order_relaxed);
  counters.completions = completions_.load(std::memory_order_relaxed);
  counters.batches = batches_.load(std::memory_order_relaxed);
  counters.bells = bells_.load(std::memory_order_relaxed);
  counters.outstanding = outstanding_.load(std::memory_order_relaxed);
  return counters;
}

}  // namespace kmcl::channel
