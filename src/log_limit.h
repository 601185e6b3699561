// How often a peer did something that is worth a line in the log: each of the first ones, then only
// the 32nd, 64th, 128th, ... No peer can fill the log.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>

namespace kmcl {

// Any thread.
class LogLimit {
 public:
  // Counts one. The count, when this one is to be logged.
  std::optional<std::uint64_t> Count() {
    const std::uint64_t count = count_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (count > kLoggedOneByOne && !std::has_single_bit(count)) return std::nullopt;
    return count;
  }

  std::uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::uint64_t kLoggedOneByOne = 16;
  std::atomic<std::uint64_t> count_{0};
};

}  // namespace kmcl
