// A thread of the simulated world: a stack of its own, and its own copy of the program's
// thread-local variables. All of them run on one real thread, one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace kmcl::sim {

inline constexpr std::size_t kMostFibers = 128;
inline constexpr std::size_t kBufferedStores = 8;
inline constexpr std::size_t kMostThreadLocalBytes = 512;

// An atomic store that the other threads do not see yet.
struct BufferedStore {
  void* address = nullptr;
  std::uint64_t value = 0;
  std::uint32_t bytes = 0;
};

// The test itself, which never dies.
inline constexpr std::uint32_t kWorldProcess = 63;
inline constexpr std::uint32_t kMostProcesses = 64;

enum class FiberState : std::uint8_t { kUnused, kRunnable, kBlocked, kEnded, kDead };

struct Fiber {
  std::uint32_t id = 0;
  std::uint32_t process = 0;  // of the simulated ones; who dies takes all of its threads along
  FiberState state = FiberState::kUnused;
  bool of_library = false;  // made by the library, not by the test
  bool detached = false;
  bool joined = false;
  bool in_library = true;  // else in the test's own code, whose memory is not counted
  void* (*entry)(void*) = nullptr;
  void* argument = nullptr;

  // Blocked: until `ready` says so, until somebody wakes `key` (a futex word), or until `deadline`.
  bool (*ready)(void*) = nullptr;
  void* ready_argument = nullptr;
  const void* key = nullptr;
  std::int64_t deadline_ns = 0;
  bool timed_out = false;
  const char* what = "";       // it waits for, for people
  const char* call = nullptr;  // it is inside, of the library's functions, and of which end
  std::uint32_t call_end = 0;

  std::int64_t priority = 0;  // less World::priority_base
  std::uint32_t locks_held = 0;
  std::array<const void*, 8> locks{};

  std::array<BufferedStore, kBufferedStores> stores;
  std::uint32_t store_count = 0;

  // While another one runs.
  void* stack_pointer = nullptr;
  std::array<std::byte, kMostThreadLocalBytes> thread_locals{};
  void* exceptions[2] = {};
  int error_number = 0;
};

// Once, before the first fiber: finds the program's thread-local variables and makes the stacks.
void PrepareFibers();
// A stack, and what a new thread finds in its variables.
void StartFiber(Fiber& fiber, void (*run)());
// `from` goes on when somebody switches back to it.
void SwitchFiber(Fiber& from, Fiber& to);
}  // namespace kmcl::sim
