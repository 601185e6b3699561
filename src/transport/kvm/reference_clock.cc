#include "transport/kvm/reference_clock.h"

#include <ctime>

#include "result.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kReferenceHertz = 10'000'000;  // 100 ns
constexpr std::uint64_t kNanosecondsPerUnit = 100;
// Both clocks go on by themselves; within this time they do not part by what would matter.
constexpr std::uint64_t kNoteNanoseconds = 1'000'000'000;

// Nobody slows this clock down or speeds it up, as nobody does the processors' counters.
std::uint64_t HostNanoseconds() {
  timespec now{};
  (void)clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

void ReferenceClock::Start(std::uint64_t tsc_hertz, bool is_invariant) {
  KMCL_CHECK(tsc_hertz > kReferenceHertz);
  tsc_hertz_ = tsc_hertz;
  __extension__ using Wide = unsigned __int128;
  tsc_scale_ = static_cast<std::uint64_t>((Wide{kReferenceHertz} << 64) / tsc_hertz);
  tsc_is_invariant_ = is_invariant;
  started_ = HostNanoseconds();
  if (is_invariant) Note(0);
}

std::uint64_t ReferenceClock::Read(std::uint32_t processor) const {
  if (!tsc_is_invariant_) return Now();
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>(Wide{hardware_.TimeStamp(processor)} * tsc_scale_ >> 64);
}

std::uint64_t ReferenceClock::Now() const {
  if (!tsc_is_invariant_) return (HostNanoseconds() - started_) / kNanosecondsPerUnit;
  MutexLock lock(mutex_);
  return noted_time_ + (HostNanoseconds() - noted_at_) / kNanosecondsPerUnit;
}

void ReferenceClock::Follow(std::uint32_t processor) {
  if (!tsc_is_invariant_ || HostNanoseconds() < next_note_.load(std::memory_order_relaxed)) return;
  Note(processor);
}

void ReferenceClock::Note(std::uint32_t processor) {
  const std::uint64_t at = HostNanoseconds();
  const std::uint64_t time = Read(processor);
  next_note_.store(at + kNoteNanoseconds, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  noted_time_ = time;
  noted_at_ = at;
}

}  // namespace kmcl::transport::kvm
