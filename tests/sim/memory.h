// The library's heap: at the same addresses in every run, counted, with a check of every access to
// what was freed, and out of memory when the seed says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kmcl::sim {

inline constexpr std::size_t kHeapBytes = std::size_t{256} << 20;
inline constexpr std::size_t kGrainBytes = 16;
extern std::byte* heap;
extern std::uint8_t* freed;  // for each grain

void PrepareMemory();
[[noreturn]] void FailFreedAccess(const void* address);

// Every access of the library's comes by here.
inline void CheckAccess(const void* address) {
  const auto offset = static_cast<std::size_t>(reinterpret_cast<const std::byte*>(address) - heap);
  if (offset < kHeapBytes && freed[offset / kGrainBytes] != 0) [[unlikely]]
    FailFreedAccess(address);
}

struct Living {
  std::uint64_t blocks = 0;
  std::uint64_t bytes = 0;
  std::uint64_t most_bytes = 0;  // there ever were
};
// What no process of a run may exceed, whatever the others do: what grows without a bound comes to it.
void LimitMemory(std::uint64_t bytes);
// What the library holds of its heap in a process, and for people where it was allocated.
Living LivingMemory(std::uint32_t process);
std::string DescribeLeaks(std::uint32_t process);
// What is there now is shared by all processes, and stays.
void KeepMemory();
// A static, or something that stays: memory that outlives every process.
bool IsKept(const void* address);

// The next allocations of the library fail: `count` of them after `skip`.
void FailAllocations(std::uint32_t skip, std::uint32_t count);
std::uint64_t FailedAllocations();

}  // namespace kmcl::sim
