// The outgoing half of an open channel: packets and completions in one order, into the ring or, while
// the ring has no room or must not be used, into a queue without an end.
//
// Anyone may call, from any thread. What has to happen outside of the lock (ring the bell, tell the
// packets' owners) is handed back as Effects; the caller carries it out.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "channel/packet.h"
#include "channel/transactions.h"
#include "mutex.h"
#include "result.h"
#include "ring/outgoing_ring.h"
#include "transport/link.h"

namespace kmcl::channel {

struct SenderCounters {
  std::uint64_t packets = 0;
  std::uint64_t completions = 0;
  std::uint64_t bytes = 0;
  std::uint64_t bells = 0;
  std::uint64_t publications = 0;  // of one packet or several
  std::uint64_t ring_full = 0;
  std::uint64_t transactions_started = 0;
  std::uint64_t transactions_completed = 0;
  std::uint64_t transactions_cancelled = 0;
  std::uint64_t unexpected_completions = 0;
  std::uint64_t queued = 0;
};

class Sender {
 public:
  enum class Mode : std::uint8_t {
    kDisabled,  // sends are refused
    kHolding,   // no ring, or a ring that is about to go: packets queue, completions are dropped
    kPaused,    // completions of packets that are still outstanding go out, packets queue
    kRunning,   // everything goes out
    kFrozen,    // being saved: nothing moves, packets queue
  };

  // What the caller does after the lock was left, in this order.
  struct Effects {
    std::shared_ptr<transport::Doorbell> bell;  // ring it
    OutgoingQueue done;                         // data packets to tell their owners about
    Outcome outcome = Outcome::kSuccess;        // of all in `done`
    OutgoingQueue too_long;                     // data packets that the peer's ring can never hold
    IncomingPacket* retired = nullptr;          // received packets whose buffers are free again
    bool poll = false;                          // the peer does not ring for space: look again soon
    std::optional<Error> broken;                // the ring is corrupt; the channel is finished
  };

  // A ring to send into. `peer_rings_for_space`: the peer promised to honour pending_send_sz.
  void Attach(ring::OutgoingRing ring, std::shared_ptr<transport::Doorbell> bell,
              bool peer_rings_for_space) KMCL_EXCLUDES(mutex_);
  void Detach() KMCL_EXCLUDES(mutex_);
  void SetMode(Mode mode, Effects& effects) KMCL_EXCLUDES(mutex_);
  void set_pipe(bool pipe) KMCL_EXCLUDES(mutex_);

  // Accepts a packet, placing it in the ring now or later. On failure it stays the caller's.
  //   kDisabled, kPacketInFlight; kPacketTooLong for the ring; kDeviceRemoved for a synchronous packet while the channel closes.
  [[nodiscard]] Result<void> Send(Packet& packet, std::span<const std::byte> data,
                                  bool wants_completion, Effects& effects) KMCL_EXCLUDES(mutex_);
  // As Send, but places it in the ring now or fails with kWouldBlock.
  [[nodiscard]] Result<void> SendNow(Packet& packet, std::span<const std::byte> data,
                                     bool wants_completion, Effects& effects)
      KMCL_EXCLUDES(mutex_);
  // Sends the completion of a received packet. True if the packet's buffer stays in use (queued).
  bool Complete(IncomingPacket& packet, std::span<const std::byte> reply, Effects& effects)
      KMCL_EXCLUDES(mutex_);

  // Send and Complete for what is mostly so: the packet goes into the ring at once. `packet`
  // describes no memory and nobody waits for it; when it wants no completion it stays idle, and the
  // caller calls its routine, else it may have ended already. With `hold` it may be left to
  // PublishHeld to show it.
  enum class Plain : std::uint8_t {
    kNo,  // nothing has happened: Send and Complete say what is different
    kPublished,
    kHeld,
  };
  template <bool kWantsCompletion, ring::OutgoingRing::Length kLength>
  [[nodiscard]] Plain SendPlain(Packet& packet, const std::byte* data, std::uint32_t bytes,
                                bool hold) KMCL_EXCLUDES(mutex_);
  [[nodiscard]] Plain CompletePlain(wire::TransactionId id, std::span<const std::byte> reply,
                                    bool hold) KMCL_EXCLUDES(mutex_);
  // SendPlain for several, which are shown together. Ends before the first that cannot go this way,
  // and says how many have gone. Those that want no completion are not idle until the caller makes
  // them so: one that is given twice goes once.
  struct PlainSend {
    Packet* packet = nullptr;
    const std::byte* data = nullptr;
    std::uint32_t bytes = 0;
  };
  [[nodiscard]] std::uint32_t SendPlainBatch(std::span<const PlainSend> sends,
                                             bool wants_completion, bool hold, Plain& how)
      KMCL_EXCLUDES(mutex_);
  // Shows the peer what was held, and rings.
  void PublishHeld() KMCL_EXCLUDES(mutex_);

  // A completion packet arrived: the packet that waited for it, or nullptr (counted as unexpected).
  Packet* TakeCompleted(wire::TransactionId id) KMCL_EXCLUDES(mutex_);
  // Gives up one packet. False if its completion is already on the way to its owner.
  bool Cancel(Packet& packet) KMCL_EXCLUDES(mutex_);
  // From now until AllowSynchronous, synchronous packets fail at once; those that wait are in `done`.
  void AbortSynchronous(Effects& effects) KMCL_EXCLUDES(mutex_);
  void AllowSynchronous() KMCL_EXCLUDES(mutex_);
  // Takes every packet that was accepted, in send order; queued completions are retired.
  void CancelAll(Effects& effects) KMCL_EXCLUDES(mutex_);

  // Moves what waits into the ring. Cheap when nothing waits.
  void Flush(Effects& effects) KMCL_EXCLUDES(mutex_);
  bool has_queued() const { return has_queued_.load(std::memory_order_relaxed); }
  bool must_poll() const { return has_queued() && must_poll_.load(std::memory_order_relaxed); }

  // Save and restore. What was accepted and not ended, oldest first; it stays here. The owner sees to
  // it that nothing of it ends meanwhile: the mode is kFrozen or kHolding, and nothing is received.
  struct Inventory {
    std::vector<Packet*> in_flight;
    std::vector<Outgoing*> queued;
    std::uint64_t last_transaction = 0;
  };
  Inventory TakeInventory() const KMCL_EXCLUDES(mutex_);
  Mode mode() const KMCL_EXCLUDES(mutex_);
  // Puts restored packets back, in front of what waits here: those in flight under the ids that they
  // have, and the others into the queue. New ids are above `last_transaction`.
  void Restore(std::span<Packet* const> in_flight, OutgoingQueue& queued,
               std::uint64_t last_transaction, Effects& effects) KMCL_EXCLUDES(mutex_);

  void ReserveTransactions(std::uint32_t packets) KMCL_EXCLUDES(mutex_);
  SenderCounters counters() const KMCL_EXCLUDES(mutex_);

 private:
  enum class Placed : std::uint8_t { kYes, kFull, kTooLong, kBroken };

  bool MayPlace(Outgoing::Kind kind) const KMCL_REQUIRES(mutex_);
  Placed Place(Outgoing& item, std::span<const std::byte> data, Effects& effects)
      KMCL_REQUIRES(mutex_);
  bool FitsRing(std::size_t header_bytes, std::size_t data_bytes) const KMCL_REQUIRES(mutex_);
  void FinishPlaced(Outgoing& item, Effects& effects) KMCL_REQUIRES(mutex_);
  static void Retire(IncomingPacket& packet, Effects& effects);
  void Queue(Outgoing& item, std::span<const std::byte> data) KMCL_REQUIRES(mutex_);
  void FlushLocked(Effects& effects) KMCL_REQUIRES(mutex_);
  void Publish(Effects& effects) KMCL_REQUIRES(mutex_);
  // What SendPlain does in the lock. False: nothing.
  template <bool kWantsCompletion, ring::OutgoingRing::Length kLength>
  bool PlacePlain(Packet& packet, const std::byte* data, std::uint32_t bytes) KMCL_REQUIRES(mutex_);
  // Whether it stays unpublished. Leaves the lock.
  bool PublishAndUnlock(bool hold) KMCL_RELEASE(mutex_);
  [[gnu::cold, gnu::noinline]] void RingAndUnlock() KMCL_RELEASE(mutex_);
  // What the plain way needs: packets and completions go into the ring and nothing is in front of
  // them.
  void Settle() KMCL_REQUIRES(mutex_) {
    is_plain_ =
        mode_ == Mode::kRunning && queue_.empty() && !broken_ && !pipe_ && ring_->is_mapped_twice();
  }
  bool WaitForSpace(const Outgoing& item, Effects& effects) KMCL_REQUIRES(mutex_);
  [[nodiscard]] Result<void> Accept(Packet& packet, bool wants_completion) KMCL_REQUIRES(mutex_);

  mutable Mutex mutex_;
  bool is_plain_ KMCL_GUARDED_BY(mutex_) = false;  // may be false when it need not
  Mode mode_ KMCL_GUARDED_BY(mutex_) = Mode::kDisabled;
  bool pipe_ KMCL_GUARDED_BY(mutex_) = false;
  bool broken_ KMCL_GUARDED_BY(mutex_) = false;
  bool synchronous_aborted_ KMCL_GUARDED_BY(mutex_) = false;
  bool space_bell_requested_ KMCL_GUARDED_BY(mutex_) = false;
  std::optional<ring::OutgoingRing> ring_ KMCL_GUARDED_BY(mutex_);
  std::shared_ptr<transport::Doorbell> bell_ KMCL_GUARDED_BY(mutex_);
  OutgoingQueue queue_ KMCL_GUARDED_BY(mutex_);
  Transactions transactions_ KMCL_GUARDED_BY(mutex_);
  SenderCounters counters_ KMCL_GUARDED_BY(mutex_);

  // Read without the lock by the dispatch thread, to know whether Flush is worth the lock.
  std::atomic<bool> has_queued_{false};
  std::atomic<bool> must_poll_{false};
};

[[gnu::always_inline]] inline bool Sender::PublishAndUnlock(bool hold) {
  if (hold) [[unlikely]] {
    // An eighth of the ring is what its reader gives back at a time, too.
    if (ring_->unpublished_bytes() < ring_->data_bytes() / 8) {
      mutex_.Unlock();
      return true;
    }
  }
  ++counters_.publications;
  if (ring_->PublishWritten() == ring::Bell::kRing) [[unlikely]] {
    RingAndUnlock();
  } else {
    mutex_.Unlock();
  }
  return false;
}

template <bool kWantsCompletion, ring::OutgoingRing::Length kLength>
[[gnu::always_inline]] inline bool Sender::PlacePlain(Packet& packet, const std::byte* data,
                                                      std::uint32_t bytes) {
  constexpr std::uint64_t kKind = ring::OutgoingRing::PlainKind(
      wire::PacketType::kDataInBand, kWantsCompletion ? wire::kPacketFlagCompletionRequested : 0);
  const std::uint64_t id =
      kWantsCompletion ? static_cast<std::uint64_t>(transactions_.next_id()) : 0;
  if (!is_plain_ || packet.state.load(std::memory_order_relaxed) != Packet::State::kIdle ||
      !ring_->WritePlain<kLength>(kKind, id, data, bytes)) [[unlikely]] {
    return false;
  }
  ++counters_.packets;
  counters_.bytes += bytes;
  packet.wants_completion = kWantsCompletion;
  if (kWantsCompletion) {
    ++counters_.transactions_started;
    transactions_.Enter(packet);
    packet.state.store(Packet::State::kInFlight, std::memory_order_relaxed);
  }
  return true;
}

template <bool kWantsCompletion, ring::OutgoingRing::Length kLength>
[[gnu::always_inline]] inline Sender::Plain Sender::SendPlain(Packet& packet, const std::byte* data,
                                                              std::uint32_t bytes, bool hold) {
  // Who has to wait can as well go the general way.
  if (!mutex_.TryLock()) [[unlikely]]
    return Plain::kNo;
  if (!PlacePlain<kWantsCompletion, kLength>(packet, data, bytes)) [[unlikely]] {
    mutex_.Unlock();
    return Plain::kNo;
  }
  return PublishAndUnlock(hold) ? Plain::kHeld : Plain::kPublished;
}

[[gnu::always_inline]] inline Sender::Plain Sender::CompletePlain(wire::TransactionId id,
                                                                  std::span<const std::byte> reply,
                                                                  bool hold) {
  constexpr std::uint64_t kKind = ring::OutgoingRing::PlainKind(wire::PacketType::kCompletion, 0);
  mutex_.Lock();
  if (!is_plain_ || !ring_->WritePlain(kKind, static_cast<std::uint64_t>(id), reply.data(),
                                       static_cast<std::uint32_t>(reply.size()))) [[unlikely]] {
    mutex_.Unlock();
    return Plain::kNo;
  }
  ++counters_.completions;
  return PublishAndUnlock(hold) ? Plain::kHeld : Plain::kPublished;
}

}  // namespace kmcl::channel
