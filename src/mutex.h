// A mutex and a condition variable that clang's thread-safety analysis understands.
//
// Both are a word or two, because there are thousands of them, and made of futexes. Taking a mutex
// that is free is one locked instruction in the caller's own code, and so is giving it back. One
// that is held is waited for awake for a moment before the kernel is asked: our critical sections
// are shorter than a system call, and a busy channel must make none.
//
// The thread sanitizer is told of both by its own interface, so that it also finds locks that are
// taken in two orders.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "result.h"

#if defined(__SANITIZE_THREAD__)
#define KMCL_TELL_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KMCL_TELL_THREAD_SANITIZER 1
#endif
#endif

#if defined(KMCL_TELL_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#define KMCL_TSAN_MUTEX(call, ...) __tsan_mutex_##call(this, __VA_ARGS__)
#else
#define KMCL_TSAN_MUTEX(call, ...) ((void)0)
#endif

#if defined(__clang__)
#define KMCL_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define KMCL_THREAD_ATTRIBUTE(x)
#endif

#define KMCL_CAPABILITY(x) KMCL_THREAD_ATTRIBUTE(capability(x))
#define KMCL_SCOPED_CAPABILITY KMCL_THREAD_ATTRIBUTE(scoped_lockable)
#define KMCL_GUARDED_BY(x) KMCL_THREAD_ATTRIBUTE(guarded_by(x))
#define KMCL_PT_GUARDED_BY(x) KMCL_THREAD_ATTRIBUTE(pt_guarded_by(x))
#define KMCL_REQUIRES(...) KMCL_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define KMCL_EXCLUDES(...) KMCL_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define KMCL_ACQUIRE(...) KMCL_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define KMCL_RELEASE(...) KMCL_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define KMCL_TRY_ACQUIRE(...) KMCL_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define KMCL_NO_THREAD_SAFETY_ANALYSIS KMCL_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace kmcl {

class KMCL_CAPABILITY("mutex") Mutex {
 public:
#if defined(KMCL_TELL_THREAD_SANITIZER)
  Mutex() { KMCL_TSAN_MUTEX(create, __tsan_mutex_not_static); }
  ~Mutex() { KMCL_TSAN_MUTEX(destroy, __tsan_mutex_not_static); }
#else
  constexpr Mutex() = default;
#endif
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() KMCL_ACQUIRE() {
    KMCL_TSAN_MUTEX(pre_lock, 0);
    std::uint32_t word = kFree;
    if (!word_.compare_exchange_strong(word, kHeld, std::memory_order_acquire,
                                       std::memory_order_relaxed)) [[unlikely]] {
      LockHeld();
    }
    KMCL_TSAN_MUTEX(post_lock, 0, 0);
  }
  void Unlock() KMCL_RELEASE() {
    KMCL_TSAN_MUTEX(pre_unlock, 0);
    // Who waits for it may have taken it, and even destroyed it, once the word is free. Waking
    // somebody by its address is harmless all the same: nothing is read there, and all who sleep
    // look again.
    if (word_.exchange(kFree, std::memory_order_release) == kAwaited) [[unlikely]]
      WakeOne();
    KMCL_TSAN_MUTEX(post_unlock, 0);
  }
  bool TryLock() KMCL_TRY_ACQUIRE(true) {
    KMCL_TSAN_MUTEX(pre_lock, __tsan_mutex_try_lock);
    std::uint32_t word = kFree;
    const bool locked = word_.compare_exchange_strong(word, kHeld, std::memory_order_acquire,
                                                      std::memory_order_relaxed);
    KMCL_TSAN_MUTEX(
        post_lock,
        locked ? __tsan_mutex_try_lock : __tsan_mutex_try_lock | __tsan_mutex_try_lock_failed, 0);
    return locked;
  }

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kHeld = 1;
  static constexpr std::uint32_t kAwaited = 2;  // held, and somebody may sleep until it is not

  [[gnu::cold, gnu::noinline]] void LockHeld();
  [[gnu::cold, gnu::noinline]] void WakeOne();

  std::atomic<std::uint32_t> word_{kFree};
};

class KMCL_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) KMCL_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() KMCL_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits release the mutex and hold it again on return. Wake-ups may be spurious: loop on a
// condition, which is changed under the mutex. Notify with the mutex held or not; when nobody waits
// that is a load.
class CondVar {
 public:
  constexpr CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex& mutex) KMCL_REQUIRES(mutex) { Sleep(mutex, nullptr); }

  // False when the deadline has passed.
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      KMCL_REQUIRES(mutex) {
    return Sleep(mutex, &deadline);
  }

  // A waiter announces itself under the mutex, before it lets go of it. Whoever changes the
  // condition takes the mutex after that, and so sees it; or before, and then the waiter sees the
  // change and does not wait. That is why these loads need no order of their own.
  void NotifyOne() {
    if (waiters_.load(std::memory_order_relaxed) != 0) Wake(1);
  }
  void NotifyAll() {
    if (waiters_.load(std::memory_order_relaxed) != 0) Wake(INT32_MAX);
  }

 private:
  bool Sleep(Mutex& mutex, const std::chrono::steady_clock::time_point* deadline)
      KMCL_REQUIRES(mutex);
  [[gnu::cold, gnu::noinline]] void Wake(std::int32_t most);

  std::atomic<std::uint32_t> times_{0};  // of notifications; what the waiters sleep on
  std::atomic<std::uint32_t> waiters_{0};
};

}  // namespace kmcl
