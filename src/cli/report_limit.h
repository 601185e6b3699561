// Keeps what a guest can make the machine say within bounds: so many lines at once, and then so
// many in each second. What was left out is counted and told with the next line that is not.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

namespace kmcl::cli {

class ReportLimit {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::uint32_t kAtOnce = 400;
  static constexpr std::uint32_t kEachSecond = 10;

  // One line is to be told. Nothing: it is not. Else how many have been left out before it. Any
  // thread.
  std::optional<std::uint64_t> Admit(Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    const auto seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    room_ = std::min<double>(kAtOnce, room_ + seconds * kEachSecond);
    if (room_ < 1) {
      ++left_out_;
      return std::nullopt;
    }
    room_ -= 1;
    return std::exchange(left_out_, 0);
  }

 private:
  std::mutex mutex_;
  Clock::time_point last_ = Clock::now();
  double room_ = kAtOnce;
  std::uint64_t left_out_ = 0;
};

}  // namespace kmcl::cli
