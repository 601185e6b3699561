#include "api/deadline.h"

#include <time.h>

#include <algorithm>

namespace kmcl::api {

std::chrono::steady_clock::time_point DeadlineOf(LONGLONG timeout) {
  constexpr LONGLONG kUnitsPerSecond = 10'000'000;
  constexpr LONGLONG kSecondsFrom1601To1970 = 11'644'473'600;
  constexpr LONGLONG kLongest = LONGLONG{100} * 365 * 86'400 * kUnitsPerSecond;  // a century
  LONGLONG from_now = 0;
  if (timeout < 0) {
    from_now = timeout < -kLongest ? kLongest : -timeout;
  } else {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    const LONGLONG system_time =
        (LONGLONG{now.tv_sec} + kSecondsFrom1601To1970) * kUnitsPerSecond + now.tv_nsec / 100;
    from_now = std::clamp<LONGLONG>(timeout - system_time, 0, kLongest);
  }
  return std::chrono::steady_clock::now() + std::chrono::nanoseconds(from_now * 100);
}

}  // namespace kmcl::api
