// The one place where the main thread waits: for its channel's callbacks, for the time, and for
// Ctrl-C.
//
// SIGINT, SIGTERM and SIGHUP are blocked in every thread and taken by a thread of their own, so
// that they interrupt nothing half-way. The first one ends the current wait; the command then
// closes its channels and leaves. The second one leaves at once.
#pragma once

#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace kmcl::cli {

class MainWait {
 public:
  // The first call, from main, must precede every other thread of the process.
  static MainWait& Get();

  bool interrupted() const { return interrupted_.load(std::memory_order_acquire); }

  // Lets the main thread look at its condition again. Any thread, also completion routines.
  void Wake();

  // Returns when `ready` or when interrupted. `ready` reads atomics, or state of its own lock.
  template <typename Ready>
  void Until(Ready ready) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready() || interrupted(); });
  }

  // As above; false when `deadline` came first.
  template <typename Ready>
  bool UntilTime(std::chrono::steady_clock::time_point deadline, Ready ready) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline, [&] { return ready() || interrupted(); });
  }

  // To be called, on the thread that takes signals, when the second one leaves at once.
  void BeforeLeaving(void (*call)()) { before_leaving_.store(call); }

  // The signal mask that the process was started with, for children.
  const sigset_t& original_mask() const { return original_mask_; }

 private:
  MainWait();
  void TakeSignals();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> interrupted_{false};
  std::atomic<void (*)()> before_leaving_{nullptr};
  sigset_t taken_{};
  sigset_t original_mask_{};
};

}  // namespace kmcl::cli
