// The incoming half of an open channel: reads packets, hands them to the owner one at a time, and
// keeps the batch contract (KMCL reference 6.2, rules B1 to B14).
//
// A batch begins with the first packet delivered after the ring was found empty (or delivery
// resumed) and ends when the ring is found empty, or delivery pauses for any other reason.
// OnBatchEnd is called then, once, with the number of packets, if it is not zero.
//
// Deliver runs on one thread at a time: the channel's dispatch thread, or a passive thread when the
// owner wants that. Everything else may be called from anywhere.
//
// What callbacks at dispatch level send on this channel, completions among it, is written at once
// and published together: see PublishHeld.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "channel/dispatch_budget.h"
#include "channel/handler.h"
#include "channel/incoming_pool.h"
#include "channel/packet.h"
#include "channel/sender.h"
#include "channel/ticks.h"
#include "mutex.h"
#include "result.h"
#include "ring/incoming_ring.h"
#include "transport/link.h"

namespace kmcl::channel {

// How a delivery turn ended, that is, what brings the next one.
enum class Turn : std::uint8_t {
  kAsleep,   // the ring is empty and unmasked: a bell
  kEmpty,    // the ring is empty and still masked: whoever polls looks again
  kMore,     // packets wait: another turn, after other channels had theirs
  kStopped,  // nothing to wait for: paused, failed, at its quota, or another thread delivers
};

struct ReceiverCounters {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t completions = 0;
  std::uint64_t batches = 0;
  std::uint64_t bells = 0;
  std::uint64_t outstanding = 0;
};

class Receiver {
 public:
  // `handler` hears of packets, `sender` of completions; both outlive the receiver.
  Receiver(Handler& handler, Turns& turns, Sender& sender)
      : handler_(handler), turns_(turns), sender_(sender) {}

  struct Limits {
    std::uint32_t packet_bytes = 0;
    std::uint32_t context_bytes = 0;
    bool pipe = false;
    std::uint32_t header_bytes = 0;  // that describe external data
  };
  void Configure(Channel& channel, const Limits& limits);

  void Attach(ring::IncomingRing ring, std::shared_ptr<transport::Doorbell> bell);
  // Drops the ring and what was deferred. Requires a stopped queue and no outstanding packet.
  void Detach();

  // The queue. Start wants a turn afterwards. Stop returns once no packet callback runs, after the
  // batch that was under way has ended; it waits for the callback that runs now.
  void Start() KMCL_EXCLUDES(mutex_);
  void Stop() KMCL_EXCLUDES(mutex_);

  // Delivers what is in the ring. An empty ring is looked at `spins` more times and stays masked; with
  // 0 it is unmasked. A ring that breaks the rules stops the queue for good and is reported in `broken`.
  Turn Deliver(Level level, std::uint32_t spins, std::optional<Error>& broken)
      KMCL_EXCLUDES(mutex_);

  // Only inside OnPacket, about the packet that is being delivered; false if it is another.
  bool Defer(IncomingPacket& packet);
  // Until the packet is retired, which this does: the queue stops. False if it is retired already.
  bool Fail(IncomingPacket& packet);

  // The owner is done with `packet`. False if it was not outstanding. Then the caller sends the
  // completion, recycles the packet unless it is queued, and calls CountRetired last; or, inside
  // OnPacket of that very packet, RetireDelivered in the place of both.
  bool Retire(IncomingPacket& packet) {
    return packet.outstanding.exchange(false, std::memory_order_acq_rel);
  }
  void Recycle(IncomingPacket& packet) { pool_.Put(packet); }
  // Takes one off the outstanding count; may restart a queue at its quota, or end a drain. The channel
  // may be gone when this returns.
  void CountRetired() KMCL_EXCLUDES(mutex_);

  // Whether this very thread is inside OnPacket of `packet`, which it has not retired.
  bool IsDelivering(const IncomingPacket& packet) const {
    return here_ == this && current_.load(std::memory_order_relaxed) == &packet;
  }
  void RetireDelivered(IncomingPacket& packet, bool recycle) {
    current_.store(nullptr, std::memory_order_relaxed);
    if (recycle) pool_.PutHere(packet);
  }

  // All of that in one step, for a packet that is retired inside of its OnPacket, whose sender
  // wants no completion, and that nothing is special about. False: nothing has happened.
  bool RetirePlain(IncomingPacket& packet) {
    if ((packet.wants_completion | packet.is_unusual) || !IsDelivering(packet) || !Retire(packet))
        [[unlikely]] {
      return false;
    }
    current_.store(nullptr, std::memory_order_relaxed);
    pool_.PutUsualHere(packet);
    return true;
  }

  // Whether this thread delivers at dispatch level, and so publishes what it sends in the end. Then
  // NoteHeld says that there is something to publish.
  bool MayHold() const { return here_ == this && may_hold_; }
  void SetHoldTime(std::uint64_t ticks) { hold_time_ = ticks; }
  void NoteHeld(std::uint32_t sends = 1) {
    if (held_ == 0) held_since_ = Ticks();
    held_ += sends;
  }

  void SetQuota(std::uint32_t quota) {
    quota_.store(quota, std::memory_order_relaxed);
    Mark(kHasQuota, quota != UINT32_MAX);
  }
  void SetPassive(bool required) { Mark(kPassiveRequired, required); }
  // Of a processor, in percent, for deliveries at dispatch level; what exceeds it is passive.
  void SetDispatchShare(std::uint32_t percent) {
    dispatch_share_.store(percent, std::memory_order_relaxed);
    Mark(kHasShare, percent != 100);
  }

  // Save and restore, while the queue is stopped. The packet that is to be delivered first, or
  // nullptr; and whether the queue has failed.
  const IncomingPacket* deferred() const { return deferred_; }
  bool has_failed() const { return failed_ || IsMarked(kFailRequested); }
  // After Attach. `packet` is one of MakePacket's, or nullptr.
  void Restore(IncomingPacket* packet, bool failed);
  // An object of this channel that was never in the ring; nullptr without memory. Give it to
  // Recycle in the end.
  IncomingPacket* MakePacket(std::uint32_t bytes);

  // Asks for a state turn when nothing is outstanding any more; says whether that is so already.
  bool DrainedOrNotify() KMCL_EXCLUDES(mutex_);

  ReceiverCounters counters() const;
  std::uint64_t bells_rung() const { return bells_rung_.load(std::memory_order_relaxed); }
  std::uint64_t activity() const {
    return packets_.load(std::memory_order_relaxed) + completions_.load(std::memory_order_relaxed);
  }
  void CountBell() { bells_.fetch_add(1, std::memory_order_relaxed); }

 private:
  enum class Verdict : std::uint8_t { kNone, kDeferred, kFailed };
  // Why packets cannot be delivered one after the other without a closer look at each. Set by
  // anyone.
  static constexpr std::uint32_t kStopped = 1;
  static constexpr std::uint32_t kFailRequested = 2;
  static constexpr std::uint32_t kPassiveRequired = 4;
  static constexpr std::uint32_t kHasShare = 8;
  static constexpr std::uint32_t kHasQuota = 16;
  void Mark(std::uint32_t mark, bool set) {
    if (set) {
      marks_.fetch_or(mark, std::memory_order_relaxed);
    } else {
      marks_.fetch_and(~mark, std::memory_order_relaxed);
    }
  }
  bool IsMarked(std::uint32_t mark) const {
    return (marks_.load(std::memory_order_relaxed) & mark) != 0;
  }
  // What became of one packet. kDeferred ends the batch; kToPassive goes on with it on another thread.
  enum class Step : std::uint8_t { kDelivered, kEmpty, kStop, kDeferred, kToPassive };

  bool BeginTurn() KMCL_EXCLUDES(mutex_);
  void EndTurn() KMCL_EXCLUDES(mutex_);
  Turn DeliverLoop(Level level, std::uint32_t spins, std::optional<Error>& broken);
  Step DeliverPlain(std::uint32_t spins, int& budget);
  static void PauseBeforeLook(std::uint32_t spins);
  bool SpinUntilPacket(std::uint32_t spins) const;
  Step DeliverNext(Level level, std::optional<Error>& broken);
  Step DeliverPacket(IncomingPacket& packet);
  Step FinishDelivery(IncomingPacket& packet);
  void TakeHand() {
    if (has_hand_.load(std::memory_order_relaxed)) return;
    has_hand_.store(true, std::memory_order_relaxed);
    in_hand_.fetch_add(1, std::memory_order_relaxed);
  }
  void DropHand() {
    if (!has_hand_.load(std::memory_order_relaxed)) return;
    has_hand_.store(false, std::memory_order_relaxed);
    in_hand_.fetch_sub(1, std::memory_order_relaxed);
  }
  Step MalformedPacket(IncomingPacket* packet, const char* what, std::uint64_t size);
  void DeliverCompletion(IncomingPacket& packet);
  bool AtQuota();
  bool WantsPassive() const;
  void EndBatch();
  void PublishHeld();
  void PublishHeldIfDue();
  void RingIfNeeded(ring::Bell bell);

  Handler& handler_;
  Turns& turns_;
  Sender& sender_;
  Channel* channel_ = nullptr;
  Limits limits_;
  IncomingPool pool_;

  // Who delivers.
  Mutex mutex_;
  CondVar idle_;
  bool delivering_ KMCL_GUARDED_BY(mutex_) = false;
  bool turn_missed_ KMCL_GUARDED_BY(mutex_) = false;  // somebody came while another delivered

  // Used by whoever delivers, or by the state worker while nobody does.
  std::optional<ring::IncomingRing> ring_;
  std::shared_ptr<transport::Doorbell> bell_;
  IncomingPacket* deferred_ = nullptr;  // goes first, at passive level
  std::atomic<const IncomingPacket*> current_{nullptr};  // in OnPacket, and not retired there
  Verdict verdict_ = Verdict::kNone;                     // about the packet in OnPacket
  bool may_hold_ = false;
  std::uint32_t plain_bytes_ = 0;  // payload of the packets that DeliverPlain may take; 0: none
  std::uint32_t batch_ = 0;
  std::uint32_t held_ = 0;        // sends that were written and not published
  std::uint64_t held_since_ = 0;  // Ticks
  std::uint64_t hold_time_ = kTicksThatMatter;
  std::uint64_t looked_at_ = 0;  // Ticks when the last packet had been delivered
  bool failed_ = false;
  bool unmasked_ = false;  // the peer rings for new packets
  DispatchBudget budget_;  // used only while a share is set
  bool over_budget_ = false;

  // Set by anyone, read on the packet path.
  std::atomic<std::uint32_t> marks_{kStopped};
  std::atomic<std::uint32_t> dispatch_share_{100};
  std::atomic<std::uint32_t> quota_{UINT32_MAX};
  // Packets in the owner's hands; whether the queue waits for fewer than its quota of them, whether
  // the state worker waits for none, and how many threads are telling either of them. One word, so
  // that whoever takes a packet off learns of the wait in the same step, and does not touch a
  // channel that nobody waits for any more. The state worker may come upon zero before it was told
  // of it; it does not go on, and so does not let the channel end, before those who tell have let
  // go (mutex_, idle_).
  //
  // Whoever delivers holds one more, the hand that passes packets on: it stands for the packet in
  // OnPacket. One that is retired there gives the hand back as it was, and the word is not touched.
  // Otherwise the packet keeps it, and a new one is taken. There is no hand while the queue waits
  // for its quota, nor while nobody delivers, and so none when the state worker waits.
  static constexpr std::uint64_t kDraining = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kBlocked = std::uint64_t{1} << 62;
  static constexpr std::uint64_t kTeller = std::uint64_t{1} << 48;
  static constexpr std::uint64_t kTellers = kBlocked - kTeller;
  static constexpr std::uint64_t kCount = kTeller - 1;
  std::atomic<std::uint64_t> in_hand_{0};
  std::atomic<bool> has_hand_{false};  // written by whoever delivers

  // Which receiver delivers on this thread. The model keeps the shared library from a call for it.
  [[gnu::tls_model("initial-exec")]] static inline constinit thread_local const Receiver* here_ =
      nullptr;

  // Written by whoever delivers; bells_ by the dispatch thread and by whoever frees space.
  std::atomic<std::uint64_t> packets_{0};
  std::atomic<std::uint64_t> bytes_{0};
  std::atomic<std::uint64_t> completions_{0};
  std::atomic<std::uint64_t> batches_{0};
  std::atomic<std::uint64_t> bells_{0};
  std::atomic<std::uint64_t> bells_rung_{0};
};

}  // namespace kmcl::channel
