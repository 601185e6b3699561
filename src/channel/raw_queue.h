// The rings of a raw channel, lent to its owner's own threads: nothing is queued, matched or
// delivered here (KMCL reference 6.1, "queue management suppressed").
//
// Two directions, each used by one thread of the owner at a time, without a lock. They may be two
// threads. The channel's state worker opens and stops them; a call that finds its direction stopped
// says kDeviceRemoved, and Stop returns only once no call is inside. No call allocates; none makes
// a system call but to ring a peer who sleeps, and to sleep itself.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "channel/handler.h"
#include "result.h"
#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "transport/link.h"

namespace kmcl::channel {

struct RawCounters {
  std::uint64_t packets_sent = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t completions_sent = 0;
  std::uint64_t ring_full = 0;
  std::uint64_t packets_received = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t completions_received = 0;
  std::uint64_t bells_rung = 0;
};

class RawQueue {
 public:
  // kOutOfDescriptors. `turns` outlives the queue.
  [[nodiscard]] static Result<std::unique_ptr<RawQueue>> Create(Turns& turns);
  ~RawQueue();
  RawQueue(const RawQueue&) = delete;
  RawQueue& operator=(const RawQueue&) = delete;

  // ---- The channel's side: its state worker, or the bus thread before an open.

  // `peer_rings_for_space`: the peer promised to honour pending_send_sz; otherwise it is polled.
  void Attach(ring::IncomingRing incoming, ring::OutgoingRing outgoing,
              std::shared_ptr<transport::Doorbell> bell, bool peer_rings_for_space);
  void Detach();  // requires both directions stopped
  void Start();
  // Both wake who sleeps, and leave the descriptor readable until the next Start. From StopIncoming
  // on nobody may sleep for space either, but writing goes on until StopOutgoing.
  void StopIncoming();
  void StopOutgoing();
  // The peer rang, or a turn that was asked for is here. On the dispatch thread.
  void OnBell();
  // Somebody waits for space that the peer does not announce.
  bool must_poll() const { return must_poll_ && outgoing_.armed.load(std::memory_order_relaxed); }

  // ---- The owner's side. Each fails with kDeviceRemoved while the direction is stopped, with
  // kChannelState when another thread is inside of it, and with what the ring says of a peer that
  // broke it (IsCorrupt); that is final.

  // The next packet, in shared memory (ring::IncomingRing::PeekInPlace) or copied; nullopt: empty.
  // kBufferTooSmall: the packet stays where it is.
  [[nodiscard]] Result<std::optional<ring::IncomingPacket>> Peek();
  [[nodiscard]] Result<std::optional<ring::IncomingPacket>> Read(std::span<std::byte> buffer);
  // kRequestPending: nothing was peeked.
  [[nodiscard]] Result<void> Skip();
  // Gives back the space of everything read and skipped.
  [[nodiscard]] Result<void> Release();
  // Writes behind what is not flushed yet. kPacketTooLong: the ring never holds it.
  [[nodiscard]] Result<ring::WriteOutcome> Write(const ring::PacketParts& parts);
  [[nodiscard]] Result<void> Flush();

  // How large the outgoing ring is, and how much of what was flushed the peer has not taken.
  struct OutgoingUse {
    std::uint32_t ring_bytes = 0;
    std::uint32_t untaken_bytes = 0;
  };
  [[nodiscard]] Result<OutgoingUse> QueryOutgoing();

  // The last step before sleeping: true, something can be done now; false, the descriptor becomes
  // readable when that changes. Incoming: releases. Outgoing: flushes, then waits for room for one
  // packet of `payload_bytes`.
  struct Wish {
    bool incoming = false;
    bool outgoing = false;
    std::size_t payload_bytes = 0;
  };
  [[nodiscard]] Result<bool> Arm(const Wish& wish);
  // Arms and sleeps. False: the deadline came first.
  [[nodiscard]] Result<bool> Wait(const Wish& wish,
                                  std::optional<std::chrono::steady_clock::time_point> deadline);
  int incoming_fd() const { return incoming_.fd; }
  int outgoing_fd() const { return outgoing_.fd; }

  // Of the errors above: the peer broke the ring.
  static bool IsCorrupt(Error error);

  RawCounters counters() const;

 private:
  // One direction. A handshake with Stop, a store followed by a load on both sides (seq_cst):
  // inside then open in Enter, open then inside in Stop. So either the call sees that it is
  // stopped, or Stop sees the call.
  struct Direction {
    int fd = -1;
    std::atomic<bool> open{false};
    std::atomic<bool> inside{false};
    std::atomic<bool> armed{false};  // the next bell is to be passed on
    [[nodiscard]] Result<void> Enter();
    void Leave() { inside.store(false, std::memory_order_release); }
    void Stop();
    void Signal();
    void Drain();
  };
  class Visit;

  explicit RawQueue(Turns& turns) : turns_(turns) {}
  Result<bool> ArmIncoming();
  Result<bool> ArmOutgoing(std::size_t payload_bytes);
  void RingIf(ring::Bell bell, std::atomic<std::uint64_t>& count);
  void CountReceived(const ring::IncomingPacket& packet);

  Turns& turns_;
  // Written while both directions are stopped.
  std::shared_ptr<transport::Doorbell> bell_;
  bool must_poll_ = false;

  // Whoever is inside of the incoming direction.
  alignas(64) Direction incoming_;
  std::optional<ring::IncomingRing> incoming_ring_;
  std::atomic<std::uint64_t> packets_received_{0};
  std::atomic<std::uint64_t> bytes_received_{0};
  std::atomic<std::uint64_t> completions_received_{0};
  std::atomic<std::uint64_t> bells_rung_for_space_{0};

  // Whoever is inside of the outgoing direction.
  alignas(64) Direction outgoing_;
  std::optional<ring::OutgoingRing> outgoing_ring_;
  bool space_requested_ = false;
  std::atomic<std::uint64_t> packets_sent_{0};
  std::atomic<std::uint64_t> bytes_sent_{0};
  std::atomic<std::uint64_t> completions_sent_{0};
  std::atomic<std::uint64_t> ring_full_{0};
  std::atomic<std::uint64_t> bells_rung_{0};
};

}  // namespace kmcl::channel
