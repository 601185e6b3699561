// The page through which connections below 2.4 signal (VMBus reference 3.7). Shared with the peer;
// only its layout is here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "wire/ids.h"

namespace kmcl::wire {

inline constexpr std::size_t kInterruptPageHalfBytes = 2048;

// Bit n of a half belongs to channel n: set by one side, scanned and cleared by the other,
// atomically.
struct InterruptPage {
  std::array<std::uint32_t, kInterruptPageHalfBytes / 4> server_to_client;
  std::array<std::uint32_t, kInterruptPageHalfBytes / 4> client_to_server;
};
static_assert(sizeof(InterruptPage) == kPageBytes);
static_assert(offsetof(InterruptPage, client_to_server) == kInterruptPageHalfBytes);

}  // namespace kmcl::wire
