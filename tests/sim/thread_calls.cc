// The calls by which programs make threads, wait for them, and ask for the time: ours, for the
// library and for what it is made of.
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>

#include "faults.h"
#include "scheduler.h"

using namespace kmcl::sim;

namespace {

// Threads are named by their numbers, from 1: 0 is none.
pthread_t HandleOf(const Fiber& fiber) { return fiber.id + 1; }

std::int64_t Nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

long Futex(const std::uint32_t* word, int operation, std::uint32_t value,
           const timespec* deadline) {
  switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: {
      FlushStores();
      Step();
      if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != value) {
        errno = EAGAIN;
        return -1;
      }
      std::int64_t until = kNever;
      if (deadline != nullptr) {
        until = Nanoseconds(*deadline);
        if ((operation & FUTEX_CMD_MASK) == FUTEX_WAIT) until += NowNs();
      }
      if (BlockOn(word, until, "a futex")) return 0;
      errno = ETIMEDOUT;
      return -1;
    }
    case FUTEX_WAKE: {
      const int woken = Wake(word, static_cast<int>(value));
      Step();
      return woken;
    }
    default:
      Fail("a futex operation that is not simulated: %d", operation);
  }
}

}  // namespace

extern "C" {

int pthread_create(pthread_t* handle, const pthread_attr_t* attributes, void* (*entry)(void*),
                   void* argument) noexcept {
  FlushStores();
  // Without a thread to close what is a stranger's it stays open, as it says (CloseForeign).
  if (attributes == nullptr && FaultNow(FaultKind::kThread)) return EAGAIN;
  Fiber* const fiber = SpawnFiber(entry, argument, Current().process);
  if (fiber == nullptr) return EAGAIN;
  fiber->of_library = true;
  int detached = PTHREAD_CREATE_JOINABLE;
  if (attributes != nullptr) pthread_attr_getdetachstate(attributes, &detached);
  fiber->detached = detached == PTHREAD_CREATE_DETACHED;
  *handle = HandleOf(*fiber);
  Step();
  return 0;
}

int pthread_join(pthread_t handle, void**) {
  Fiber* const fiber = FiberOf(static_cast<std::uint32_t>(handle - 1));
  if (fiber == nullptr || fiber->joined || fiber->detached) Fail("joined in vain");
  WaitUntil([fiber] { return fiber->state == FiberState::kEnded; }, kNever, "the end of a thread");
  fiber->joined = true;
  return 0;
}

int pthread_detach(pthread_t handle) noexcept {
  Fiber* const fiber = FiberOf(static_cast<std::uint32_t>(handle - 1));
  if (fiber == nullptr) Fail("detached in vain");
  fiber->detached = true;
  return 0;
}

pthread_t pthread_self() noexcept { return HandleOf(Current()); }
int pthread_setaffinity_np(pthread_t, size_t, const cpu_set_t*) noexcept { return 0; }

int sched_getaffinity(pid_t, size_t bytes, cpu_set_t* processors) noexcept {
  CPU_ZERO_S(bytes, processors);
  CPU_SET_S(0, bytes, processors);
  CPU_SET_S(1, bytes, processors);
  return 0;
}

int sched_yield() noexcept {
  Yield();
  return 0;
}

// Each run is a fork of a process with no thread but the first, and goes on with what that has.
int pthread_atfork(void (*)(), void (*)(), void (*)()) noexcept { return 0; }

int pthread_once(pthread_once_t* once, void (*routine)()) {
  // 0: not yet, 1: under way, 2: done.
  if (*once == 0) {
    *once = 1;
    routine();
    *once = 2;
    Changed();
  }
  WaitUntil([once] { return *once == 2; }, kNever, "something that is done once");
  return 0;
}

// The compiler's guard of a local static: the first byte says that it is made, the second that
// somebody is at it.
int __cxa_guard_acquire(std::int64_t* guard) {
  auto* const bytes = reinterpret_cast<std::uint8_t*>(guard);
  while (bytes[0] == 0 && bytes[1] != 0) {
    WaitUntil([bytes] { return bytes[1] == 0; }, kNever, "a static that is being made");
  }
  if (bytes[0] != 0) return 0;
  bytes[1] = 1;
  return 1;
}
void __cxa_guard_release(std::int64_t* guard) {
  auto* const bytes = reinterpret_cast<std::uint8_t*>(guard);
  bytes[0] = 1;
  bytes[1] = 0;
  Changed();
}
void __cxa_guard_abort(std::int64_t* guard) {
  reinterpret_cast<std::uint8_t*>(guard)[1] = 0;
  Changed();
}

long syscall(long number, ...) noexcept {
  va_list arguments;
  va_start(arguments, number);
  const auto a = va_arg(arguments, const std::uint32_t*);
  const auto b = static_cast<int>(va_arg(arguments, long));
  const auto c = static_cast<std::uint32_t>(va_arg(arguments, long));
  const auto d = va_arg(arguments, const timespec*);
  va_end(arguments);
  if (number == SYS_futex) return Futex(a, b, c, d);
  if (number == SYS_gettid) return 1000 + Current().id;
  Fail("a system call that is not simulated: %ld", number);
}

int clock_gettime(clockid_t, timespec* time) noexcept {
  const std::int64_t now = NowNs();
  time->tv_sec = now / 1'000'000'000;
  time->tv_nsec = now % 1'000'000'000;
  return 0;
}

int nanosleep(const timespec* time, timespec*) {
  WaitUntil([] { return false; }, NowNs() + Nanoseconds(*time), "a while");
  return 0;
}

}  // extern "C"

namespace kmcl::sim {

int RealClock(timespec* time) {
  long result = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(SYS_clock_gettime), "D"(CLOCK_MONOTONIC), "S"(time)
               : "rcx", "r11", "memory");
  return static_cast<int>(result);
}

}  // namespace kmcl::sim
