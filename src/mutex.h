// A mutex and a condition variable that clang's thread-safety analysis understands.
//
// The mutex spins for a moment before it asks the kernel: our critical sections are shorter than a
// system call, and a busy channel must make none.
#pragma once

#include <pthread.h>
#include <time.h>

#include <chrono>

#include "result.h"

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
  Mutex() {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&mutex_, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }
  ~Mutex() { pthread_mutex_destroy(&mutex_); }
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() KMCL_ACQUIRE() { pthread_mutex_lock(&mutex_); }
  void Unlock() KMCL_RELEASE() { pthread_mutex_unlock(&mutex_); }
  bool TryLock() KMCL_TRY_ACQUIRE(true) { return pthread_mutex_trylock(&mutex_) == 0; }

 private:
  friend class CondVar;
  pthread_mutex_t mutex_;
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

// Waits release the mutex and hold it again on return. Wake-ups may be spurious: loop on a condition.
class CondVar {
 public:
  CondVar() {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&condition_, &attributes);
    pthread_condattr_destroy(&attributes);
  }
  ~CondVar() { pthread_cond_destroy(&condition_); }
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex& mutex) KMCL_REQUIRES(mutex) { pthread_cond_wait(&condition_, &mutex.mutex_); }

  // False when the deadline has passed.
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      KMCL_REQUIRES(mutex) {
    const auto since_boot = deadline.time_since_epoch();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_boot);
    timespec limit{};
    limit.tv_sec = static_cast<time_t>(seconds.count());
    limit.tv_nsec = static_cast<long>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(since_boot - seconds).count());
    return pthread_cond_timedwait(&condition_, &mutex.mutex_, &limit) == 0;
  }

  void NotifyOne() { pthread_cond_signal(&condition_); }
  void NotifyAll() { pthread_cond_broadcast(&condition_); }

 private:
  pthread_cond_t condition_;
};

}  // namespace kmcl
