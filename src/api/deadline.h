// Timeouts in the style of KeWaitForSingleObject.
#pragma once

#include <kmcl/nt.h>

#include <chrono>

namespace kmcl::api {

// When `timeout` is over: units of 100 ns, negative from now, positive since 1601.
std::chrono::steady_clock::time_point DeadlineOf(LONGLONG timeout);

}  // namespace kmcl::api
