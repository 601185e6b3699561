// How those who wait for packets look for them before they sleep.
//
// To sleep costs two things: who sends has to ring, and who sleeps is late by the time a wake-up
// takes. To look costs a processor. The rule is the one of a skier who does not know how long the
// winter is: look for about as long as sleeping would cost, then sleep. The worst that comes of it
// is a small multiple of what a prophet would pay. SpinJudge adds that where looking has not paid
// of late, there is none at all.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace kmcl::channel {

// Microseconds to look for since the last packet, or one of these.
inline constexpr std::uint32_t kSpinNever = 0;
inline constexpr std::uint32_t kSpinForever = 0xFFFFFFFF;
inline constexpr std::uint32_t kSpinAdaptive = 0xFFFFFFFE;

// Whether looking pays, judged by the waits that were. Any thread; they may lose each other's news.
class SpinJudge {
 public:
  // `wakeup`: from a bell to the thread that slept; zero where looking is of no use
  // (wakeup_cost.h).
  explicit SpinJudge(std::chrono::nanoseconds wakeup) : wakeup_ns_(wakeup.count()) {}

  // How long to look at most. Twice a wake-up, because the other end may have to wake up first: two
  // ends that both sleep could otherwise never find out that they need not.
  std::chrono::nanoseconds window() const { return std::chrono::nanoseconds(2 * wakeup_ns_); }
  bool Pays() const { return wakeup_ns_ != 0 && score_.load(std::memory_order_relaxed) >= kEnough; }

  // Something came while we looked.
  void OnFound() { Move(1); }
  // Nothing did, and the window is over.
  void OnVain() { Move(-2); }
  // We slept at once, without a look, and were woken by something after so long. Had we looked we
  // had seen it a wake-up earlier.
  void OnWoken(std::chrono::nanoseconds slept) { Move(slept.count() <= 3 * wakeup_ns_ ? 1 : -1); }

 private:
  static constexpr int kEnough = 2;  // from the beginning, so that the first wait is a look
  static constexpr int kMost = 8;    // four looks in vain and it is over

  void Move(int step) {
    const int score = score_.load(std::memory_order_relaxed);
    score_.store(std::clamp(score + step, 0, kMost), std::memory_order_relaxed);
  }

  const std::int64_t wakeup_ns_;
  std::atomic<int> score_{kEnough};
};

}  // namespace kmcl::channel
