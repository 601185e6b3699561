#include "cli/transaction_log.h"

namespace kmcl::cli {

TransactionSums TransactionLog::Sums() const {
  TransactionSums sums;
  sums.twice = twice_.load(std::memory_order_relaxed);
  for (const auto& entry : entries_) {
    switch (entry.load(std::memory_order_acquire)) {
      case State::kUnsent:
        continue;
      case State::kAccepted:
        ++sums.unanswered;
        break;
      case State::kCompleted:
        ++sums.completed;
        break;
      case State::kCancelled:
        ++sums.cancelled;
        break;
    }
    ++sums.accepted;
  }
  return sums;
}

Json ToJson(const TransactionSums& sums) {
  return {{"accepted", sums.accepted},
          {"completed", sums.completed},
          {"cancelled", sums.cancelled},
          {"unanswered", sums.unanswered},
          {"completed_twice", sums.twice}};
}

}  // namespace kmcl::cli
