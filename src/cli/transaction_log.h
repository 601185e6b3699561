// One entry for each transaction that a command starts, to prove that every one of them ended
// exactly once: completed by the other end, or by an error. It does not trust KMCL's own counters;
// commands compare the two.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "cli/output.h"

namespace kmcl::cli {

struct TransactionSums {
  std::uint64_t accepted = 0;    // VmbPacketSend took them
  std::uint64_t completed = 0;   // of those, by the other end
  std::uint64_t cancelled = 0;   // of those, by an error
  std::uint64_t unanswered = 0;  // of those, not at all
  std::uint64_t twice = 0;       // completions beyond the first

  bool each_ended_once() const { return unanswered == 0 && twice == 0; }
};

// Any thread may call; a transaction's entry is written before it is sent and by its completion.
class TransactionLog {
 public:
  explicit TransactionLog(std::uint64_t capacity) : entries_(capacity) {}

  std::uint64_t capacity() const { return entries_.size(); }

  // Before the send, because the completion may come before the send returns.
  void OnSending(std::uint64_t index) {
    entries_[index].store(State::kAccepted, std::memory_order_relaxed);
  }
  void OnRefused(std::uint64_t index) {
    entries_[index].store(State::kUnsent, std::memory_order_relaxed);
  }
  void OnEnded(std::uint64_t index, bool success) {
    const State before = entries_[index].exchange(success ? State::kCompleted : State::kCancelled,
                                                  std::memory_order_acq_rel);
    if (before != State::kAccepted) {
      twice_.fetch_add(1, std::memory_order_relaxed);
    }
  }

  // Exact once the channel is Disabled: then every completion has come that will ever come.
  TransactionSums Sums() const;

 private:
  enum class State : std::uint8_t { kUnsent, kAccepted, kCompleted, kCancelled };

  std::vector<std::atomic<State>> entries_;
  std::atomic<std::uint64_t> twice_{0};
};

Json ToJson(const TransactionSums& sums);

}  // namespace kmcl::cli
