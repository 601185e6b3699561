#include "mutex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace kmcl {
namespace {

// Looks at a held mutex before its waiter sleeps: some microseconds, the price of a system call or
// two.
constexpr int kLooks = 100;

// Tells the processor that this is a wait loop.
void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// On one processor whoever holds the mutex cannot run while we wait awake. The main thread's
// processors are taken for the process's: other threads may be pinned to one each, and still run
// side by side.
bool HasSeveralProcessors() {
  cpu_set_t processors;
  if (sched_getaffinity(getpid(), sizeof processors, &processors) == 0) {
    return CPU_COUNT(&processors) > 1;
  }
  return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

// Sleeps while `word` is `value`, until `deadline` (steady_clock's, CLOCK_MONOTONIC) if there is
// one. False: it has passed. Locks are taken between a failure and the look at its errno: it stays.
bool FutexWait(std::atomic<std::uint32_t>& word, std::uint32_t value, const timespec* deadline) {
  const int kept = errno;
  const long result =
      syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_BITSET_PRIVATE, value,
              deadline, nullptr, FUTEX_BITSET_MATCH_ANY);
  const bool in_time = result == 0 || errno != ETIMEDOUT;
  errno = kept;
  return in_time;
}

void FutexWake(std::atomic<std::uint32_t>& word, std::int32_t most) {
  const int kept = errno;
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE_PRIVATE, most, nullptr,
          nullptr, 0);
  errno = kept;
}

}  // namespace

static_assert(sizeof(Mutex) == 4 && sizeof(CondVar) == 8);

void Mutex::LockHeld() {
  static const int looks = HasSeveralProcessors() ? kLooks : 0;
  for (int i = 0; i < looks; ++i) {
    Relax();
    std::uint32_t word = word_.load(std::memory_order_relaxed);
    if (word == kFree && word_.compare_exchange_weak(word, kHeld, std::memory_order_acquire,
                                                     std::memory_order_relaxed)) {
      return;
    }
  }
  // From here on we may be one of several who sleep, so whoever has it last wakes one more: at
  // worst once in vain.
  while (word_.exchange(kAwaited, std::memory_order_acquire) != kFree) {
    FutexWait(word_, kAwaited, nullptr);
  }
}

void Mutex::WakeOne() { FutexWake(word_, 1); }

// A notification that comes between our look at times_ and our sleep changes times_: we do not
// sleep.
bool CondVar::Sleep(Mutex& mutex, const std::chrono::steady_clock::time_point* deadline) {
  timespec limit{};
  if (deadline != nullptr) {
    const auto since_boot = deadline->time_since_epoch();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_boot);
    if (since_boot > since_boot.zero()) {
      limit.tv_sec = static_cast<time_t>(seconds.count());
      limit.tv_nsec = static_cast<long>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(since_boot - seconds).count());
    }
  }
  waiters_.fetch_add(1, std::memory_order_relaxed);
  const std::uint32_t times = times_.load(std::memory_order_relaxed);
  mutex.Unlock();
  const bool in_time = FutexWait(times_, times, deadline == nullptr ? nullptr : &limit);
  waiters_.fetch_sub(1, std::memory_order_relaxed);
  mutex.Lock();
  return in_time;
}

void CondVar::Wake(std::int32_t most) {
  times_.fetch_add(1, std::memory_order_relaxed);
  FutexWake(times_, most);
}

}  // namespace kmcl
