// The processor's clock, for asking whether something took long. A look at it costs less than a
// packet. KMCL_TICKS_OF_CLOCK: the system's clock instead, for whoever stands in its place.
#pragma once

#include <chrono>
#include <cstdint>

namespace kmcl::channel {

#if defined(__x86_64__) && !defined(KMCL_TICKS_OF_CLOCK)
inline std::uint64_t Ticks() { return __builtin_ia32_rdtsc(); }
// Between 4 and 20 microseconds on all processors there are.
inline constexpr std::uint64_t kTicksThatMatter = 20'000;
#else
inline std::uint64_t Ticks() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
inline constexpr std::uint64_t kTicksThatMatter = 5'000;  // nanoseconds
#endif

}  // namespace kmcl::channel
