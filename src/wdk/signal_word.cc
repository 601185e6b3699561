#include "wdk/signal_word.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>

namespace kmcl::wdk {
namespace {

std::atomic_ref<std::uint32_t> Ref(std::uint32_t& word) {
  return std::atomic_ref<std::uint32_t>(word);
}

void Wake(const std::uint32_t& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

}  // namespace

bool SleepWhile(const std::uint32_t& word, std::uint32_t value, Deadline deadline) {
  timespec until{};
  if (deadline) {
    const auto since_boot = deadline->time_since_epoch();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_boot);
    until.tv_sec = static_cast<time_t>(seconds.count());
    until.tv_nsec = static_cast<long>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(since_boot - seconds).count());
  }
  // The bitset form takes an absolute time of CLOCK_MONOTONIC.
  const long woken = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, value,
                             deadline ? &until : nullptr, nullptr, FUTEX_BITSET_MATCH_ANY);
  return woken == 0 || errno != ETIMEDOUT;
}

void WakeOne(const std::uint32_t& word) { Wake(word, 1); }
void WakeAll(const std::uint32_t& word) { Wake(word, INT_MAX); }

// Forgets that somebody may wait, too: those who are woken and wait again say so again.
bool SignalOne(std::uint32_t& word) {
  const std::uint32_t before = Ref(word).exchange(kSignalled, std::memory_order_acq_rel);
  if ((before & kMayBeWaitedFor) != 0) WakeOne(word);
  return (before & kSignalled) != 0;
}

bool SignalAll(std::uint32_t& word) {
  const std::uint32_t before = Ref(word).exchange(kSignalled, std::memory_order_acq_rel);
  if ((before & kMayBeWaitedFor) != 0) WakeAll(word);
  return (before & kSignalled) != 0;
}

bool Unsignal(std::uint32_t& word) {
  return (Ref(word).fetch_and(~kSignalled, std::memory_order_acq_rel) & kSignalled) != 0;
}

bool IsSignalled(std::uint32_t& word) {
  return (Ref(word).load(std::memory_order_acquire) & kSignalled) != 0;
}

bool WaitUntilSignalled(std::uint32_t& word, Deadline deadline) {
  const auto ref = Ref(word);
  for (;;) {
    std::uint32_t seen = ref.load(std::memory_order_acquire);
    if ((seen & kSignalled) != 0) return true;
    if (seen == 0 && !ref.compare_exchange_strong(seen, kMayBeWaitedFor)) continue;
    if (!SleepWhile(word, kMayBeWaitedFor, deadline)) return IsSignalled(word);
  }
}

bool TryTake(std::uint32_t& word) {
  const auto ref = Ref(word);
  std::uint32_t seen = ref.load(std::memory_order_relaxed);
  while ((seen & kSignalled) != 0) {
    if (ref.compare_exchange_weak(seen, seen & ~kSignalled, std::memory_order_acquire,
                                  std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

bool WaitAndTake(std::uint32_t& word, Deadline deadline) {
  const auto ref = Ref(word);
  // Once it has slept it does not know whether others still do, so it leaves word that they may.
  std::uint32_t left = 0;
  for (;;) {
    std::uint32_t seen = ref.load(std::memory_order_relaxed);
    if ((seen & kSignalled) != 0) {
      if (ref.compare_exchange_strong(seen, left, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return true;
      }
      continue;
    }
    if (seen == 0 && !ref.compare_exchange_strong(seen, kMayBeWaitedFor)) continue;
    left = kMayBeWaitedFor;
    if (!SleepWhile(word, kMayBeWaitedFor, deadline)) return TryTake(word);
  }
}

}  // namespace kmcl::wdk
