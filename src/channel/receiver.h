// The incoming half of an open channel: reads packets, hands them to the owner one at a time, and keeps
// the batch contract (KMCL reference 6.2, rules B1 to B14).
//
// A batch begins with the first packet delivered after the ring was found empty (or delivery resumed)
// and ends when the ring is found empty, or delivery pauses for any other reason. OnBatchEnd is called
// then, once, with the number of packets, if it is not zero.
//
// Deliver runs on one thread at a time: the channel's dispatch thread, or a passive thread when the
// owner wants that. Everything else may be called from anywhere.
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
  // completion, recycles the packet unless it is queued, and calls CountRetired last.
  bool Retire(IncomingPacket& packet);
  void Recycle(IncomingPacket& packet) { pool_.Put(packet); }
  // Takes one off the outstanding count; may restart a queue at its quota, or end a drain. The channel
  // may be gone when this returns.
  void CountRetired() KMCL_EXCLUDES(mutex_);

  void SetQuota(std::uint32_t quota) { quota_.store(quota, std::memory_order_relaxed); }
  void SetPassive(bool required) { passive_required_.store(required, std::memory_order_relaxed); }
  // Of a processor, in percent, for deliveries at dispatch level; what exceeds it is passive.
  void SetDispatchShare(std::uint32_t percent) {
    dispatch_share_.store(percent, std::memory_order_relaxed);
  }

  // Save and restore, while the queue is stopped. The packet that is to be delivered first, or
  // nullptr; and whether the queue has failed.
  const IncomingPacket* deferred() const { return deferred_; }
  bool has_failed() const {
    return failed_ || fail_requested_.load(std::memory_order_relaxed);
  }
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
  // What became of one packet. kDeferred ends the batch; kToPassive goes on with it on another thread.
  enum class Step : std::uint8_t { kDelivered, kEmpty, kStop, kDeferred, kToPassive };

  bool BeginTurn() KMCL_EXCLUDES(mutex_);
  void EndTurn() KMCL_EXCLUDES(mutex_);
  Turn DeliverLoop(Level level, std::uint32_t spins, std::optional<Error>& broken);
  bool SpinUntilPacket(std::uint32_t spins) const;
  Step DeliverNext(Level level, std::optional<Error>& broken);
  Step DeliverPacket(IncomingPacket& packet);
  Step MalformedPacket(IncomingPacket* packet, const char* what, std::uint64_t size);
  void DeliverCompletion(IncomingPacket& packet);
  bool IsDelivering(const IncomingPacket& packet) const;
  bool AtQuota();
  bool WantsPassive() const;
  void EndBatch();
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
  const IncomingPacket* current_ = nullptr;
  Verdict verdict_ = Verdict::kNone;
  std::uint32_t batch_ = 0;
  bool failed_ = false;
  bool unmasked_ = false;  // the peer rings for new packets
  DispatchBudget budget_;  // used only while a share is set
  bool over_budget_ = false;

  // Set by anyone, read on the packet path.
  std::atomic<bool> fail_requested_{false};
  std::atomic<bool> enabled_{false};
  std::atomic<bool> passive_required_{false};
  std::atomic<std::uint32_t> dispatch_share_{100};
  std::atomic<std::uint32_t> quota_{UINT32_MAX};
  // Against the quota. A handshake with CountRetired, a store followed by a load on both sides
  // (seq_cst): blocked_ then outstanding_ here, outstanding_ then blocked_ there.
  std::atomic<std::uint64_t> outstanding_{0};
  std::atomic<bool> blocked_{false};
  // Against the channel's end: packets in the owner's hands, whether the state worker waits for zero,
  // and whether somebody is telling it of zero. One word, so that whoever takes the last packet off
  // learns of the wait in the same step, and does not touch a channel that nobody waits for any more.
  // The state worker may come upon zero before it was told of it; it does not go on, and so does not
  // let the channel end, before the one who tells has let go (mutex_, idle_).
  static constexpr std::uint64_t kDraining = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kTelling = std::uint64_t{1} << 62;
  std::atomic<std::uint64_t> in_hand_{0};

  // Written by whoever delivers; bells_ by the dispatch thread and by whoever frees space.
  std::atomic<std::uint64_t> packets_{0};
  std::atomic<std::uint64_t> bytes_{0};
  std::atomic<std::uint64_t> completions_{0};
  std::atomic<std::uint64_t> batches_{0};
  std::atomic<std::uint64_t> bells_{0};
  std::atomic<std::uint64_t> bells_rung_{0};
};

}  // namespace kmcl::channel
