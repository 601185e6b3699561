// Transactions against the echo device: sends, checks that each answer carries the bytes that were
// sent, and records how long it took.
//
// Without an interval the completion routine sends the next transaction itself, on the dispatch
// thread, so that the figures are KMCL's and not those of waking the main thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cli/client_channel.h"
#include "cli/latency_histogram.h"
#include "cli/transaction_log.h"

namespace kmcl::cli {

struct RoundTripPlan {
  std::uint32_t packet_bytes = 64;        // payload with the echo header: at least 8
  std::uint32_t window = 1;               // transactions in flight, on each channel
  std::uint64_t count = UINT64_MAX;       // how many
  std::chrono::nanoseconds at_most{0};    // 0: no limit
  std::chrono::microseconds interval{0};  // between two sends; 0: as fast as they come back
  bool keep_log = true;                   // one entry a transaction; needs a finite count
};

class RoundTrips {
 public:
  // `channels`: one, or a primary and its sub-channels, which share the count. They are open, of
  // one bus with one dispatch thread, and outlive this.
  static Outcome<std::unique_ptr<RoundTrips>> Prepare(std::span<ClientChannel* const> channels,
                                                      const RoundTripPlan& plan);
  static Outcome<std::unique_ptr<RoundTrips>> Prepare(ClientChannel& channel,
                                                      const RoundTripPlan& plan) {
    ClientChannel* const channels[] = {&channel};
    return Prepare(channels, plan);
  }

  // Returns when all transactions have ended, the time is up and those in flight have ended, the
  // channel was lost, or the user interrupted. `tick` runs on the main thread, ten times a second.
  template <typename Tick>
  void Run(Tick tick) {
    Start();
    while (!WaitForEnd(std::chrono::milliseconds(100))) {
      tick();
    }
  }

  std::uint64_t ended() const { return ended_.load(std::memory_order_acquire); }
  // Final once the channel was closed.
  std::uint64_t completed() const { return latencies_.count(); }
  std::uint64_t completed(const ClientChannel& channel) const;
  std::uint64_t mismatches() const { return mismatches_.load(std::memory_order_relaxed); }
  const LatencyHistogram& latencies() const { return latencies_; }
  std::optional<TransactionSums> Sums() const;
  // From the first send to the last completion, or to the end of Run.
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;

  // One transaction at a time. Written by whoever sends it, read by its completion.
  struct Slot {
    RoundTrips* owner = nullptr;
    ClientChannel* channel = nullptr;
    PacketHandle packet;
    std::vector<std::byte> payload;
    std::uint64_t index = 0;
    std::uint64_t completed = 0;
    Clock::time_point sent{};
    std::atomic<bool> in_flight{false};
  };

  RoundTrips(std::span<ClientChannel* const> channels, const RoundTripPlan& plan);
  static VOID OnCompletion(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 buffer_bytes);
  void Start();
  bool WaitForEnd(std::chrono::milliseconds at_most);
  bool SendNext(Slot& slot);
  void Complete(Slot& slot, NTSTATUS status, const std::byte* answer, std::size_t answer_bytes);
  void SendOnTime();
  bool Done() const;
  bool AnyLost() const;

  const std::vector<ClientChannel*> channels_;
  const RoundTripPlan plan_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::optional<TransactionLog> log_;
  LatencyHistogram latencies_;
  Clock::time_point started_{};
  Clock::time_point next_send_{};             // with an interval; the main thread's
  std::atomic<std::int64_t> last_end_ns_{0};  // since started_
  std::atomic<std::uint64_t> next_index_{0};
  std::atomic<std::uint64_t> in_flight_{0};
  std::atomic<std::uint64_t> ended_{0};
  std::atomic<std::uint64_t> mismatches_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace kmcl::cli
