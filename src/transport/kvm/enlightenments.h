// What a guest that has found Hyper-V reads and writes, other than its interrupt controllers: who
// it is, its hypercall page, its clock, and a few numbers (TLFS; VMBus reference 4.1 and 5.5). And
// the one door to all of Hyper-V's registers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "mutex.h"
#include "transport/kvm/guest_memory.h"
#include "transport/kvm/hardware.h"
#include "transport/kvm/reference_clock.h"
#include "transport/kvm/synic.h"

namespace kmcl::transport::kvm {

namespace msr {
// All of Hyper-V's registers stand here; the machine has KVM send their accesses to us.
inline constexpr std::uint32_t kFirst = 0x40000000;
inline constexpr std::uint32_t kCount = 0x200;

inline constexpr std::uint32_t kGuestOsId = 0x40000000;
inline constexpr std::uint32_t kHypercall = 0x40000001;
inline constexpr std::uint32_t kVpIndex = 0x40000002;
inline constexpr std::uint32_t kTimeRefCount = 0x40000020;
inline constexpr std::uint32_t kReferenceTsc = 0x40000021;
inline constexpr std::uint32_t kTscFrequency = 0x40000022;
inline constexpr std::uint32_t kApicFrequency = 0x40000023;
inline constexpr std::uint32_t kVpAssistPage = 0x40000073;
}  // namespace msr

class Enlightenments {
 public:
  // The guest makes hypercalls by writing to `hypercall_port`. Borrows the others.
  Enlightenments(const GuestMemory& memory, Hardware& hardware, Synic& synic,
                 std::uint32_t processor_count, std::uint8_t hypercall_port);

  // Before the first processor runs. `is_invariant`: the processors' counters go at this rate all
  // the time and agree with each other, so that the guest may read its clock from them.
  void SetTscFrequency(std::uint64_t hertz, bool is_invariant) {
    clock_.Start(hertz, is_invariant);
  }

  // The partition's reference time, as the guest reads it. Any thread.
  std::uint64_t ReferenceTime() const { return clock_.Now(); }
  // On the processor's thread, whenever it has left the guest: see ReferenceClock.
  void FollowTime(std::uint32_t processor) { clock_.Follow(processor); }

  // On the processor's thread. Nothing, or false: the guest gets a #GP.
  std::optional<std::uint64_t> ReadRegister(std::uint32_t processor, std::uint32_t index);
  bool WriteRegister(std::uint32_t processor, std::uint32_t index, std::uint64_t value)
      KMCL_EXCLUDES(mutex_);

  // The guest has a hypercall page now. Any thread.
  bool hypercalls_enabled() const;

  // As after power-on. No processor runs.
  void Reset() KMCL_EXCLUDES(mutex_);

 private:
  bool WriteHypercall(std::uint64_t value) KMCL_REQUIRES(mutex_);
  void WriteReferenceTsc(std::uint64_t value) KMCL_REQUIRES(mutex_);

  const GuestMemory& memory_;
  Synic& synic_;
  const std::uint8_t hypercall_port_;

  ReferenceClock clock_;

  std::atomic<std::uint64_t> hypercall_{0};  // written under the mutex
  Mutex mutex_;
  std::uint64_t guest_os_id_ KMCL_GUARDED_BY(mutex_) = 0;
  std::uint64_t reference_tsc_ KMCL_GUARDED_BY(mutex_) = 0;
  std::vector<std::uint64_t> assist_pages_ KMCL_GUARDED_BY(mutex_);  // by processor
};

}  // namespace kmcl::transport::kvm
