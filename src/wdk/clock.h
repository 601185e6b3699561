// Times as Windows counts them: 100 ns, since 1601.
#pragma once

#include <kmcl/nt.h>

#include <chrono>

namespace kmcl::wdk {

inline constexpr LONGLONG kTicksPerSecond = 10'000'000;

LONGLONG SystemTime();

// When a timeout in the style of KeWaitForSingleObject is over: negative from now, positive since
// 1601. One beyond a century ends after a century.
std::chrono::steady_clock::time_point DeadlineOf(LONGLONG timeout);

}  // namespace kmcl::wdk
