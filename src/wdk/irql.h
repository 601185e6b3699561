// The level a thread runs at, as the drivers on it see it.
#pragma once

#include <cstdint>

namespace kmcl::wdk {

inline constexpr std::uint8_t kPassiveLevel = 0;
inline constexpr std::uint8_t kDispatchLevel = 2;

// Every thread starts passive; dispatch threads raise theirs for good.
inline thread_local std::uint8_t current_irql = kPassiveLevel;

}  // namespace kmcl::wdk
