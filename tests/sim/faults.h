// What the system refuses, when the seed says so.
#pragma once

#include <cstdint>

namespace kmcl::sim {

enum class FaultKind : std::uint8_t { kMemory, kDescriptor, kMapping, kThread };
inline constexpr std::uint32_t kFaultKinds = 4;

// The next calls of this kind by the library's code are refused: `count` of them after `skip`.
void Refuse(FaultKind kind, std::uint32_t skip, std::uint32_t count);
void NoFaults();
bool FaultNow(FaultKind kind);
std::uint64_t Faults();  // that came to pass

}  // namespace kmcl::sim
