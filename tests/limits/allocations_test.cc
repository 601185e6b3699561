// An open, busy channel allocates nothing: this program's malloc counts over 100,000 transactions,
// in both processes and on all threads.
#include <execinfo.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "ends.h"
#include "fast_path.h"
#include "peer.h"

#ifndef KMCL_SANITIZED
extern "C" {
// glibc's own, behind the names that this file takes over.
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* memory, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);
void __libc_free(void* memory);
}
#endif

namespace kmcl::limits {
namespace {

// Shared by both processes and the test.
struct Allocations {
  static constexpr int kMostFrames = 32;
  std::atomic<std::uint64_t> count{0};
  std::atomic<std::uint64_t> frees{0};
  std::atomic<bool> first_is_taken{false};
};

// Set in the processes that are watched, before they have threads.
Allocations* allocations = nullptr;
const BusyState* watched = nullptr;
thread_local bool inside = false;

bool IsCounting() {
  return watched != nullptr && watched->phase.load(std::memory_order_relaxed) == Phase::kBetween;
}

[[maybe_unused]] void CountAllocation() {
  if (!IsCounting() || inside) return;
  inside = true;
  ++allocations->count;
  if (!allocations->first_is_taken.exchange(true)) {
    void* frames[Allocations::kMostFrames];
    backtrace_symbols_fd(frames, backtrace(frames, Allocations::kMostFrames), STDERR_FILENO);
  }
  inside = false;
}

[[maybe_unused]] void CountFree() {
  if (IsCounting() && !inside) ++allocations->frees;
}

void Watch(Allocations& counts, const BusyState& state) {
  void* frame = nullptr;
  backtrace(&frame, 1);  // its first call allocates
  allocations = &counts;
  watched = &state;
}

TEST(Allocations, AreNotMadeOnABusyChannel) {
#ifdef KMCL_SANITIZED
  GTEST_SKIP() << "the sanitizer's allocator cannot be taken over";
#endif
  const Address address;
  BusyState& state = *BusyState::Make();
  void* const memory = mmap(nullptr, 2 * sizeof(Allocations), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const counts = new (memory) Allocations[2];
  Peer server([&](const Line& line) {
    Watch(counts[0], state);
    return RunBusyServer(address.text(), state, line);
  });
  Peer client([&](const Line& line) {
    Watch(counts[1], state);
    return RunBusyClient(address.text(), state, 0, line);
  });
  ASSERT_EQ(server.line().Hear<char>(), 'r');
  client.line().Say('s');
  ASSERT_EQ(client.line().Hear<char>(), 'b') << "the channel does not become busy";
  state.may_begin = true;
  ASSERT_EQ(client.line().Hear<char>(), 'e') << "transactions: " << state.transactions;
  EXPECT_EQ(counts[0].count, 0u) << "allocations of the server; the first one's stack is above";
  EXPECT_EQ(counts[0].frees, 0u);
  EXPECT_EQ(counts[1].count, 0u) << "allocations of the client; the first one's stack is above";
  EXPECT_EQ(counts[1].frees, 0u);
}

TEST(Allocations, AreCountedWhereverTheyAreMade) {
#ifdef KMCL_SANITIZED
  GTEST_SKIP() << "the sanitizer's allocator cannot be taken over";
#endif
  BusyState& state = *BusyState::Make();
  static Allocations counts;
  counts.first_is_taken = true;  // no stack, please
  Watch(counts, state);
  state.phase = Phase::kBetween;
  int* volatile number = new int(1);  // or the compiler leaves both out
  delete number;
  ::operator delete (::operator new (64, std::align_val_t{64}), std::align_val_t{64});
  free(realloc(calloc(1, 8), 100));
  watched = nullptr;
  EXPECT_EQ(counts.count, 4u);
  EXPECT_EQ(counts.frees, 3u);
}

}  // namespace
}  // namespace kmcl::limits

#ifndef KMCL_SANITIZED
extern "C" {
void* malloc(std::size_t bytes) {
  kmcl::limits::CountAllocation();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  kmcl::limits::CountAllocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
  kmcl::limits::CountAllocation();
  return __libc_realloc(memory, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  kmcl::limits::CountAllocation();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
  *memory = memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}
void free(void* memory) {
  kmcl::limits::CountFree();
  __libc_free(memory);
}
}
#endif
