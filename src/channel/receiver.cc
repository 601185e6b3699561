#include "channel/receiver.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <utility>

#include "channel/synchronous_wait.h"
#include "channel/wakeup_cost.h"
#include "log.h"
#include "wire/pipe.h"
#include "wire/ring_layout.h"

namespace kmcl::channel {
namespace {

// Packets one channel may deliver before the others of its thread get their turn.
constexpr int kTurnPackets = 256;

// Sends that are held before they are published.
constexpr std::uint32_t kMostHeld = 32;

// Traffic is dense where a look at the write index has shown so many packets at once. Then the next
// look waits for as many pauses: each one takes the line with the control words away from the
// writer, who needs it for every packet.
constexpr int kDensePackets = 2;
constexpr std::uint32_t kMostPauses = 32;

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
  Mark(kFailRequested, false);
  unmasked_ = false;
  in_hand_.fetch_and(~kBlocked, std::memory_order_relaxed);
  // What a packet may have that DeliverNext would not have to look at: no pipe header, and no more
  // than the channel's maximum.
  plain_bytes_ = !limits_.pipe && ring_->is_mapped_twice() ? (limits_.packet_bytes + 7) & ~7u : 0;
}

void Receiver::Detach() {
  KMCL_CHECK(IsMarked(kStopped));
  if (deferred_ != nullptr) pool_.Put(*std::exchange(deferred_, nullptr));
  pool_.Trim();
  ring_.reset();
  bell_.reset();
}

IncomingPacket* Receiver::MakePacket(std::uint32_t bytes) {
  IncomingPacket* const packet = pool_.Take(bytes);
  if (packet == nullptr) return nullptr;
  packet->channel = channel_;
  packet->is_unusual = true;
  packet->kind = Outgoing::Kind::kCompletion;
  if (packet->context != nullptr) std::memset(packet->context, 0, limits_.context_bytes);
  return packet;
}

void Receiver::Restore(IncomingPacket* packet, bool failed) {
  KMCL_CHECK(deferred_ == nullptr && IsMarked(kStopped));
  deferred_ = packet;
  failed_ = failed;
}

void Receiver::Start() {
  MutexLock lock(mutex_);
  KMCL_CHECK(ring_.has_value());
  Mark(kStopped, false);
}

void Receiver::Stop() {
  {
    MutexLock lock(mutex_);
    Mark(kStopped, true);
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
  if (IsMarked(kStopped) || failed_) return false;
  delivering_ = true;
  return true;
}

void Receiver::EndTurn() {
  bool missed = false;
  {
    MutexLock lock(mutex_);
    delivering_ = false;
    missed = std::exchange(turn_missed_, false) && !IsMarked(kStopped);
    idle_.NotifyAll();
  }
  if (missed) turns_.RequestDispatch();
}

Turn Receiver::Deliver(Level level, std::uint32_t spins, std::optional<Error>& broken) {
  if (!BeginTurn()) return Turn::kStopped;
  here_ = this;
  may_hold_ = level == Level::kDispatch;
  const Turn turn = DeliverLoop(level, spins, broken);
  if (held_ != 0) PublishHeld();
  here_ = nullptr;
  DropHand();
  EndTurn();
  return turn;
}

bool Receiver::WantsPassive() const {
  return over_budget_ || deferred_ != nullptr || IsMarked(kPassiveRequired);
}

Turn Receiver::DeliverLoop(Level level, std::uint32_t spins, std::optional<Error>& broken) {
  // Only a completion that left the channel below its quota takes it out of this state; raising the
  // quota does not (KMCL reference 6.6).
  if ((in_hand_.load(std::memory_order_acquire) & kBlocked) != 0) return Turn::kStopped;
  if (std::exchange(unmasked_, false)) ring_->Mask();
  const std::uint32_t share = dispatch_share_.load(std::memory_order_relaxed);
  const bool is_limited = level == Level::kDispatch && share != 100;
  over_budget_ = is_limited && budget_.Begin(share);
  for (int budget = kTurnPackets; budget > 0; --budget) {
    Step step = DeliverPlain(spins, budget);
    if (step == Step::kDelivered) {
      if (budget == 0) break;
      if (IsMarked(kStopped)) {
        EndBatch();
        return Turn::kStopped;
      }
      if (IsMarked(kFailRequested)) failed_ = true;
      step = failed_ ? Step::kStop : DeliverNext(level, broken);
    }
    switch (step) {
      case Step::kDelivered:
        if (held_ != 0) PublishHeldIfDue();
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
  for (; spins > 0 && !IsMarked(kStopped); --spins) {
    if (!ring_->Empty()) return true;
    Relax();
  }
  return false;
}

[[gnu::always_inline]] inline Receiver::Step Receiver::DeliverPacket(IncomingPacket& packet) {
  const std::uint64_t bytes = packet.payload.size();
  packet.outstanding.store(true, std::memory_order_relaxed);
  TakeHand();
  current_.store(&packet, std::memory_order_relaxed);
  handler_.OnPacket(packet);
  // Retired inside: the packet may be gone by now, and the hand is free.
  if (current_.load(std::memory_order_relaxed) != nullptr) {
    const Step step = FinishDelivery(packet);
    if (step != Step::kDelivered) return step;
  }
  Count(packets_);
  Count(bytes_, bytes);
  return Step::kDelivered;
}

// Delivers packets that nothing is special about, for as long as there are any and the budget
// lasts. What it does not take, for whatever reason, it leaves to DeliverNext as it is. kDelivered:
// go on.
Receiver::Step Receiver::DeliverPlain(std::uint32_t spins, int& budget) {
  if (plain_bytes_ == 0 || failed_ || deferred_ != nullptr || ring_->has_peeked()) {
    return Step::kDelivered;
  }
  if (may_hold_) looked_at_ = Ticks();
  ring::IncomingRing& ring = *ring_;
  int left = budget;
  int left_at_look = budget;
  Step step = Step::kDelivered;
  for (; left > 0 && marks_.load(std::memory_order_relaxed) == 0; --left) {
    if (ring.known_bytes() == 0) [[unlikely]] {
      if (left_at_look - left >= kDensePackets) PauseBeforeLook(spins);
      left_at_look = left;
    }
    IncomingPacket* const packet = pool_.first();
    if (packet == nullptr) break;
    ring::PlainPacket plain;
    if (ring.ReadPlain(packet->buffer(), plain_bytes_, plain) != ring::IncomingRing::Plain::kRead) {
      break;
    }
    pool_.TakeFirst();
    packet->transaction_id = wire::TransactionId{plain.transaction_id};
    packet->wants_completion = plain.wants_completion;
    packet->payload = {packet->buffer(), plain.payload_bytes};
    if (plain.is_completion) {
      DeliverCompletion(*packet);
    } else {
      if (packet->context != nullptr) std::memset(packet->context, 0, limits_.context_bytes);
      step = DeliverPacket(*packet);
      if (step != Step::kDelivered) [[unlikely]]
        break;
    }
    if (held_ != 0) PublishHeldIfDue();
    if (ring.release_due()) RingIfNeeded(ring.Release());
  }
  budget = left;
  return step;
}

// Not where others wait for this thread, in proportion, nor where nobody is to look
// (wait_policy.h).
void Receiver::PauseBeforeLook(std::uint32_t spins) {
  for (std::uint32_t left = std::min(kMostPauses, spins / 4); left > 0; --left) Relax();
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
  packet->is_unusual = true;
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
      // Memory by reference to something else: there is data, and no description that can be
      // followed.
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
    if (!data)
      return MalformedPacket(packet, "without a valid pipe header", packet->payload.size());
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
  pool_.PutHere(packet);
}

// A packet that was not simply retired inside OnPacket.
Receiver::Step Receiver::FinishDelivery(IncomingPacket& packet) {
  current_.store(nullptr, std::memory_order_relaxed);
  switch (std::exchange(verdict_, Verdict::kNone)) {
    case Verdict::kNone:  // in the owner's hands, or in no one's any more
      has_hand_.store(false, std::memory_order_relaxed);
      return Step::kDelivered;
    case Verdict::kDeferred:
      deferred_ = &packet;
      return Step::kDeferred;
    case Verdict::kFailed:
      break;
  }
  failed_ = true;
  Count(packets_);
  Count(bytes_, packet.payload.size());
  pool_.PutHere(packet);
  return Step::kStop;
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
  Mark(kFailRequested, true);
  pool_.Put(packet);
  CountRetired();
  return true;
}

void Receiver::CountRetired() {
  std::uint64_t before = in_hand_.load(std::memory_order_relaxed);
  std::uint64_t after = 0;
  bool unblocks = false;
  bool drains = false;
  do {
    after = before - 1;
    unblocks =
        (before & kBlocked) != 0 && (after & kCount) < quota_.load(std::memory_order_relaxed);
    drains = (before & kDraining) != 0 && (after & kCount) == 0;
    if (unblocks) after &= ~kBlocked;
    if (drains) after &= ~kDraining;
    if (unblocks || drains) after += kTeller;
  } while (!in_hand_.compare_exchange_weak(before, after, std::memory_order_acq_rel,
                                           std::memory_order_relaxed));
  if (!unblocks && !drains) return;
  if (unblocks) turns_.RequestDispatch();
  if (drains) turns_.RequestState();
  MutexLock lock(mutex_);
  in_hand_.fetch_sub(kTeller, std::memory_order_relaxed);
  idle_.NotifyAll();
}

// Between packets. Whoever retires one after the step that blocks the queue sees that it is
// blocked.
bool Receiver::AtQuota() {
  const std::uint32_t quota = quota_.load(std::memory_order_relaxed);
  if (quota == UINT32_MAX) return false;
  DropHand();
  std::uint64_t in_hand = in_hand_.load(std::memory_order_relaxed);
  do {
    if ((in_hand & kCount) < quota) return false;
  } while (!in_hand_.compare_exchange_weak(in_hand, in_hand | kBlocked, std::memory_order_acq_rel,
                                           std::memory_order_relaxed));
  return true;
}

bool Receiver::DrainedOrNotify() {
  if ((in_hand_.fetch_or(kDraining, std::memory_order_acq_rel) & kCount) != 0) return false;
  MutexLock lock(mutex_);
  while ((in_hand_.load(std::memory_order_relaxed) & kTellers) != 0) idle_.Wait(mutex_);
  in_hand_.fetch_and(~kDraining, std::memory_order_relaxed);
  return true;
}

// Sends from callbacks of this channel at dispatch level are published here and not one by one:
// each publication takes the cache line with the control words away from the reader, which costs
// more than writing the packet did. Nothing stays held for good, as nothing is held but inside a
// turn at dispatch level (MayHold), and each way out of the loop leads to a publication:
//   * before the ring is looked at for packets that are not known yet, and so before every batch's
//   end,
//     every spin and every sleep: PublishHeldIfDue, EndBatch;
//   * behind OnBatchEnd, for what it has sent: EndBatch;
//   * whatever ended the turn, at its end: Deliver.
// Stop waits for the turn's end; so a queue that is paused, saved or closed holds nothing. Sends
// from other threads, synchronous requests and queued packets publish everything that stands in the
// ring, and so does a packet that finds no room: it is the sender's ring, not ours, that knows what
// is unpublished. In between it is never held for long: not beyond kMostHeld sends or an eighth of
// the ring (Sender), and not while callbacks take longer than a publication could matter.
void Receiver::PublishHeld() {
  held_ = 0;
  sender_.PublishHeld();
}

void Receiver::PublishHeldIfDue() {
  if (held_ < kMostHeld && ring_->known_bytes() != 0) {
    const std::uint64_t now = Ticks();
    const std::uint64_t last = std::exchange(looked_at_, now);
    if (now - held_since_ < hold_time_ && now - last < hold_time_) return;
  }
  PublishHeld();
}

void Receiver::EndBatch() {
  if (held_ != 0) PublishHeld();
  if (ring_.has_value() && ring_->unreleased_bytes() > 0) RingIfNeeded(ring_->Release());
  const auto packets = static_cast<std::uint32_t>(packets_.load(std::memory_order_relaxed));
  if (packets == batch_) return;
  Count(batches_);
  handler_.OnBatchEnd(packets - std::exchange(batch_, packets));
  if (held_ != 0) PublishHeld();
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
  // Without the hand that passes packets on, while it is empty.
  counters.outstanding = in_hand_.load(std::memory_order_relaxed) & kCount;
  if (has_hand_.load(std::memory_order_relaxed) &&
      current_.load(std::memory_order_relaxed) == nullptr && counters.outstanding != 0) {
    --counters.outstanding;
  }
  return counters;
}

}  // namespace kmcl::channel
