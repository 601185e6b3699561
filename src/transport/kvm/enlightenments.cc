#include "transport/kvm/enlightenments.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kEnable = 1;
constexpr std::uint64_t kLocked = 2;
// What KVM's in-kernel APIC counts with.
constexpr std::uint64_t kApicHertz = 1'000'000'000;

// Layout of the reference TSC page: a u32 sequence (0: do not use), a reserved u32, u64 scale, s64
// offset. The time is (TSC * scale >> 64) + offset.
constexpr std::size_t kTscSequence = 0;
constexpr std::size_t kTscScale = 8;
constexpr std::size_t kTscOffset = 16;

// Indirect branches may land on the ENDBR64. OUT's port is the immediate byte; the machine puts the
// result into RAX before the guest goes on.
constexpr std::array<std::uint8_t, 7> HypercallCode(std::uint8_t port) {
  return {0xF3, 0x0F, 0x1E, 0xFA,  // endbr64
          0xE7, port,              // out port, eax
          0xC3};                   // ret
}
constexpr int kInt3 = 0xCC;

std::byte* PageOf(const GuestMemory& memory, std::uint64_t page_register) {
  return memory.Window(wire::PageNumber{page_register / wire::kPageBytes}, 1);
}

}  // namespace

Enlightenments::Enlightenments(const GuestMemory& memory, Hardware& hardware, Synic& synic,
                               std::uint32_t processor_count, std::uint8_t hypercall_port)
    : memory_(memory),
      synic_(synic),
      hypercall_port_(hypercall_port),
      clock_(hardware),
      assist_pages_(processor_count) {}

bool Enlightenments::hypercalls_enabled() const {
  return (hypercall_.load(std::memory_order_acquire) & kEnable) != 0;
}

std::optional<std::uint64_t> Enlightenments::ReadRegister(std::uint32_t processor,
                                                          std::uint32_t index) {
  switch (index) {
    case msr::kGuestOsId: {
      MutexLock lock(mutex_);
      return guest_os_id_;
    }
    case msr::kHypercall:
      return hypercall_.load(std::memory_order_acquire);
    case msr::kVpIndex:
      return processor;
    case msr::kTimeRefCount:
      return clock_.Read(processor);
    case msr::kReferenceTsc: {
      MutexLock lock(mutex_);
      return reference_tsc_;
    }
    case msr::kTscFrequency:
      return clock_.tsc_hertz();
    case msr::kApicFrequency:
      return kApicHertz;
    case msr::kVpAssistPage: {
      MutexLock lock(mutex_);
      return assist_pages_.at(processor);
    }
    default:
      return synic_.ReadRegister(processor, index);
  }
}

bool Enlightenments::WriteRegister(std::uint32_t processor, std::uint32_t index,
                                   std::uint64_t value) {
  switch (index) {
    case msr::kGuestOsId: {
      MutexLock lock(mutex_);
      guest_os_id_ = value;
      // Who is nobody makes no hypercalls.
      if (value == 0) hypercall_.store(0, std::memory_order_release);
      return true;
    }
    case msr::kHypercall: {
      MutexLock lock(mutex_);
      return WriteHypercall(value);
    }
    case msr::kReferenceTsc: {
      MutexLock lock(mutex_);
      WriteReferenceTsc(value);
      return true;
    }
    case msr::kVpAssistPage: {
      // Every Linux sets it. What could be told there is optional, and we have nothing to tell.
      MutexLock lock(mutex_);
      assist_pages_.at(processor) = value;
      return true;
    }
    case msr::kVpIndex:
    case msr::kTimeRefCount:
    case msr::kTscFrequency:
    case msr::kApicFrequency:
      return false;
    default:
      return synic_.WriteRegister(processor, index, value);
  }
}

bool Enlightenments::WriteHypercall(std::uint64_t value) {
  const std::uint64_t now = hypercall_.load(std::memory_order_relaxed);
  if ((now & kLocked) != 0) return false;
  if (guest_os_id_ == 0) value &= ~kEnable;
  if ((value & kEnable) != 0) {
    std::byte* const page = PageOf(memory_, value);
    if (page == nullptr) return false;
    const auto code = HypercallCode(hypercall_port_);
    std::memset(page, kInt3, wire::kPageBytes);
    std::memcpy(page, code.data(), code.size());
  }
  hypercall_.store(value, std::memory_order_release);
  return true;
}

// A page that is none of the guest's memory shows nothing; its guest reads the counter instead.
void Enlightenments::WriteReferenceTsc(std::uint64_t value) {
  reference_tsc_ = value;
  if ((value & kEnable) == 0) return;
  std::byte* const page = PageOf(memory_, value);
  if (page == nullptr) return;
  const std::uint64_t scale = clock_.tsc_scale();
  std::atomic_ref sequence(*reinterpret_cast<std::uint32_t*>(page + kTscSequence));
  sequence.store(0, std::memory_order_seq_cst);
  std::memcpy(page + kTscScale, &scale, sizeof scale);
  std::memset(page + kTscOffset, 0, sizeof(std::int64_t));
  if (clock_.tsc_is_invariant()) sequence.store(1, std::memory_order_release);
}

void Enlightenments::Reset() {
  MutexLock lock(mutex_);
  hypercall_.store(0, std::memory_order_release);
  guest_os_id_ = 0;
  reference_tsc_ = 0;
  std::ranges::fill(assist_pages_, 0);
  clock_.Forget();
}

}  // namespace kmcl::transport::kvm
