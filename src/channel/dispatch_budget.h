// How much of a processor one channel's packet callbacks may take at dispatch level.
//
// A bucket of time: it fills at the channel's share of the time that passes, up to that share of
// kPeriod, and is emptied by the time that callbacks take. It may run into debt, by one callback.
// Used by whoever delivers, one thread at a time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace kmcl::channel {

class DispatchBudget {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::nanoseconds kPeriod = std::chrono::milliseconds(10);

  // A turn begins, with a share of 1 to 99 percent. True: nothing is left to spend.
  bool Begin(std::uint32_t percent, Clock::time_point now = Clock::now()) {
    const std::chrono::nanoseconds full = kPeriod * percent / 100;
    const std::chrono::nanoseconds passed =
        std::min<std::chrono::nanoseconds>(now - filled_at_, kLongest);
    left_ = std::min(full, left_ + passed * percent / 100);
    filled_at_ = charged_at_ = now;
    return left_ <= std::chrono::nanoseconds::zero();
  }
  // The turn has lasted until now. True: nothing is left to spend.
  bool Charge(Clock::time_point now = Clock::now()) {
    left_ -= now - charged_at_;
    charged_at_ = now;
    return left_ <= std::chrono::nanoseconds::zero();
  }

 private:
  // Longer than any debt is made up for in, and short enough to be multiplied.
  static constexpr std::chrono::nanoseconds kLongest = std::chrono::hours(24);

  std::chrono::nanoseconds left_{0};
  Clock::time_point filled_at_{};
  Clock::time_point charged_at_{};
};

}  // namespace kmcl::channel
