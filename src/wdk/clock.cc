#include "wdk/clock.h"

#include <kmcl/wdk/events.h>
#include <kmcl/wdk/interlocked.h>
#include <time.h>

#include <algorithm>
#include <optional>

#include "wdk/irql.h"
#include "wdk/misuse.h"
#include "wdk/signal_word.h"

namespace kmcl::wdk {
namespace {

using std::chrono::steady_clock;

constexpr LONGLONG kSecondsFrom1601To1970 = 11'644'473'600;

LONGLONG Ticks(clockid_t clock) {
  timespec now{};
  (void)clock_gettime(clock, &now);
  return LONGLONG{now.tv_sec} * kTicksPerSecond + now.tv_nsec / 100;
}

}  // namespace

LONGLONG SystemTime() { return Ticks(CLOCK_REALTIME) + kSecondsFrom1601To1970 * kTicksPerSecond; }

steady_clock::time_point DeadlineOf(LONGLONG timeout) {
  constexpr LONGLONG kLongest = LONGLONG{100} * 365 * 86'400 * kTicksPerSecond;  // a century
  const LONGLONG from_now = timeout < 0 ? (timeout < -kLongest ? kLongest : -timeout)
                                        : std::clamp<LONGLONG>(timeout - SystemTime(), 0, kLongest);
  return steady_clock::now() + std::chrono::nanoseconds(from_now * 100);
}

}  // namespace kmcl::wdk

using namespace kmcl::wdk;

NTSTATUS KeDelayExecutionThread(KPROCESSOR_MODE, BOOLEAN, PLARGE_INTEGER Interval) {
  Require(current_irql < DISPATCH_LEVEL, "KeDelayExecutionThread",
          "must not wait at DISPATCH_LEVEL");
  std::uint32_t never = 0;
  WaitUntilSignalled(never, DeadlineOf(Interval->QuadPart));
  return STATUS_SUCCESS;
}

VOID KeStallExecutionProcessor(ULONG MicroSeconds) {
  const auto until = steady_clock::now() + std::chrono::microseconds(MicroSeconds);
  while (steady_clock::now() < until) YieldProcessor();
}

LARGE_INTEGER KeQueryPerformanceCounter(PLARGE_INTEGER PerformanceFrequency) {
  if (PerformanceFrequency != nullptr) PerformanceFrequency->QuadPart = kTicksPerSecond;
  LARGE_INTEGER now;
  now.QuadPart = Ticks(CLOCK_MONOTONIC);
  return now;
}

VOID KeQuerySystemTime(PLARGE_INTEGER CurrentTime) { CurrentTime->QuadPart = SystemTime(); }

ULONGLONG KeQueryInterruptTime(VOID) { return static_cast<ULONGLONG>(Ticks(CLOCK_BOOTTIME)); }
