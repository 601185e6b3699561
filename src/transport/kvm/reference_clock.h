// The partition's reference time, in units of 100 ns, where the enlightenments are ours: what the
// guest reads from HV_X64_MSR_TIME_REF_COUNT or computes from its reference TSC page, and what the
// host reads to tell the guest when something happened (TLFS, "Partition Reference Time").
//
// Where the processors' counters go at one rate, the guest computes it from them, so they are the
// clock. Only a processor's own thread can read its counter without waiting for the guest to come
// out, so the host goes on from what was read last (Follow), with a clock of its own for the time
// since. Elsewhere the guest has no page, and the host's clock is the clock.
#pragma once

#include <atomic>
#include <cstdint>

#include "mutex.h"
#include "transport/kvm/hardware.h"

namespace kmcl::transport::kvm {

class ReferenceClock {
 public:
  // Borrows the hardware.
  explicit ReferenceClock(Hardware& hardware) : hardware_(hardware) {}

  // Starts it. Once, before the first processor runs and on a thread that may read the counter of
  // processor 0. `is_invariant`: the counters go at this rate all the time and agree.
  void Start(std::uint64_t tsc_hertz, bool is_invariant) KMCL_EXCLUDES(mutex_);

  std::uint64_t tsc_hertz() const { return tsc_hertz_; }
  // Units of 100 ns in a tick of the counters, times 2^64.
  std::uint64_t tsc_scale() const { return tsc_scale_; }
  bool tsc_is_invariant() const { return tsc_is_invariant_; }

  // What `processor` reads; on its thread.
  std::uint64_t Read(std::uint32_t processor) const;

  // The same, on any thread.
  std::uint64_t Now() const KMCL_EXCLUDES(mutex_);

  // Notes what `processor` would read, if the last note is too old. On its thread, whenever it has
  // left the guest.
  void Follow(std::uint32_t processor) KMCL_EXCLUDES(mutex_);

  // The counters are about to be set anew: no note counts any more. No processor runs.
  void Forget() { next_note_.store(0, std::memory_order_relaxed); }

 private:
  void Note(std::uint32_t processor) KMCL_EXCLUDES(mutex_);

  Hardware& hardware_;
  // Set once, before anybody reads them.
  std::uint64_t tsc_hertz_ = 0;
  std::uint64_t tsc_scale_ = 0;
  bool tsc_is_invariant_ = false;
  std::uint64_t started_ = 0;  // on the host's clock, in ns

  std::atomic<std::uint64_t> next_note_{0};  // on the host's clock, in ns
  mutable Mutex mutex_;
  std::uint64_t noted_time_ KMCL_GUARDED_BY(mutex_) = 0;  // units of 100 ns
  std::uint64_t noted_at_ KMCL_GUARDED_BY(mutex_) = 0;    // on the host's clock, in ns
};

}  // namespace kmcl::transport::kvm
