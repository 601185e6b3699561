// Whoever may connect to a server's socket and is no client: hellos of any length and content, with
// any descriptors or none, then silence or messages that mean nothing.
#pragma once

#include <cstdint>

namespace kmcl::sim {

// The process that they are.
inline constexpr std::uint32_t kStrangerProcess = 62;

// One of them comes and goes, in a thread of the current fiber's process.
void Knock(const char* path);

}  // namespace kmcl::sim
