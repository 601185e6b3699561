// Two processes that keep one channel busy, both polling, so that neither ever sleeps; and the
// marks between which a test counts what they do.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "peer.h"

namespace kmcl::limits {

inline constexpr std::uint64_t kWarmUpTransactions = 20'000;
inline constexpr std::uint64_t kMarkedTransactions = 100'000;

// Which of the two marks are behind us. The client's dispatch thread moves on.
enum class Phase : std::uint32_t { kBefore, kBetween, kAfter };

// Shared by both processes and the test.
struct BusyState {
  std::atomic<Phase> phase{Phase::kBefore};
  // Set by the test; the first mark comes no earlier.
  std::atomic<bool> may_begin{false};
  std::atomic<std::uint64_t> transactions{0};
  std::atomic<pid_t> server_dispatch_thread{0};
  std::atomic<pid_t> client_dispatch_thread{0};

  // In memory that processes forked from now on share. Never freed.
  static BusyState* Make();
};

// The system call that the client makes at each mark, after it was set: it tells a tracer, and is
// not counted. Nothing else here or in the library makes it.
long BeaconCall();

// Bodies of the two processes. The server says 'r' once clients may connect. The client waits for a
// byte, says 'b' once the channel is busy, and 'e' when the second mark is behind it; it is busy
// until it is killed. `bystanders` other clients are connected to the server, idle.
int RunBusyServer(const char* address, BusyState& state, const Line& line);
int RunBusyClient(const char* address, BusyState& state, std::uint32_t bystanders,
                  const Line& line);

}  // namespace kmcl::limits
