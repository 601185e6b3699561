#include "vmm/vcpu_state.h"

#include <sys/ioctl.h>

#include <cstdint>
#include <memory>

namespace kmcl::vmm {
namespace {

// A kvm_msrs with one entry: KVM stops at the first one of a longer list that it does not like.
struct OneMsr {
  std::uint32_t count = 1;
  std::uint32_t padding = 0;
  kvm_msr_entry entry{};
};
static_assert(sizeof(OneMsr) == sizeof(kvm_msrs) + sizeof(kvm_msr_entry));

kvm_segment Flat(std::uint16_t selector, bool code) {
  kvm_segment segment{};
  segment.selector = selector;
  segment.limit = 0xFFFFFFFF;
  segment.type = code ? 11 : 3;
  segment.present = 1;
  segment.s = 1;
  segment.l = code ? 1 : 0;
  segment.db = code ? 0 : 1;
  segment.g = 1;
  return segment;
}

// What the 64-bit entry point asks for: flat segments, paging on, interrupts off.
void Enter(const BootEntry& entry, kvm_regs& registers, kvm_sregs& special) {
  constexpr std::uint64_t kCr0 = 0x80000031;  // paging, numeric errors, extension type, protection
  constexpr std::uint64_t kCr4 = 0x20;        // physical address extension
  constexpr std::uint64_t kEfer = 0x500;      // long mode, on and active
  special.cr0 = kCr0;
  special.cr3 = entry.page_tables;
  special.cr4 = kCr4;
  special.efer = kEfer;
  special.gdt.base = entry.gdt;
  special.gdt.limit = static_cast<std::uint16_t>(entry.gdt_bytes - 1);
  special.cs = Flat(0x10, true);
  special.ds = special.es = special.fs = special.gs = special.ss = Flat(0x18, false);
  registers = {};
  registers.rip = entry.instruction;
  registers.rsi = entry.boot_params;
  registers.rsp = entry.stack;
  registers.rflags = 2;
}

static_assert(sizeof(kvm_xsave) == 4096);

}  // namespace

Outcome<VcpuState> VcpuState::Read(int kvm, int vcpu) {
  VcpuState state;
  if (ioctl(vcpu, KVM_GET_REGS, &state.registers_) != 0 ||
      ioctl(vcpu, KVM_GET_SREGS, &state.special_) != 0 ||
      ioctl(vcpu, KVM_GET_XSAVE, state.floating_.data()) != 0 ||
      ioctl(vcpu, KVM_GET_DEBUGREGS, &state.debug_) != 0 ||
      ioctl(vcpu, KVM_GET_VCPU_EVENTS, &state.events_) != 0 ||
      ioctl(vcpu, KVM_GET_LAPIC, &state.apic_) != 0 ||
      ioctl(vcpu, KVM_GET_MP_STATE, &state.power_) != 0) {
    return FailWithErrno("KVM does not show the state of a CPU");
  }
  state.has_extended_ = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
  if (state.has_extended_ && ioctl(vcpu, KVM_GET_XCRS, &state.extended_) != 0) {
    return FailWithErrno("KVM does not show the state of a CPU");
  }
  if (const auto read = state.ReadMsrs(kvm, vcpu); !read) {
    return std::unexpected(read.error());
  }
  return state;
}

Outcome<void> VcpuState::ReadMsrs(int kvm, int vcpu) {
  kvm_msr_list count{};
  (void)ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &count);  // E2BIG, and the number
  const std::size_t words = 1 + count.nmsrs;
  const auto storage = std::make_unique<std::uint32_t[]>(words);
  auto* const list = reinterpret_cast<kvm_msr_list*>(storage.get());
  list->nmsrs = count.nmsrs;
  if (ioctl(kvm, KVM_GET_MSR_INDEX_LIST, list) != 0) {
    return FailWithErrno("KVM does not list its MSRs");
  }
  for (std::uint32_t i = 0; i < list->nmsrs; ++i) {
    OneMsr one;
    one.entry.index = storage[1 + i];
    // The list is of all that KVM knows; a CPU may not have them all.
    if (ioctl(vcpu, KVM_GET_MSRS, &one) == 1) {
      msrs_.push_back(one.entry);
    }
  }
  return {};
}

Outcome<void> VcpuState::Write(int vcpu, const std::optional<BootEntry>& entry) const {
  kvm_regs registers = registers_;
  kvm_sregs special = special_;
  if (entry) {
    Enter(*entry, registers, special);
  }
  auto floating = floating_;
  kvm_xcrs extended = extended_;
  kvm_debugregs debug = debug_;
  kvm_vcpu_events events = events_;
  kvm_lapic_state apic = apic_;
  kvm_mp_state power = power_;
  if (ioctl(vcpu, KVM_SET_MP_STATE, &power) != 0 || ioctl(vcpu, KVM_SET_SREGS, &special) != 0 ||
      ioctl(vcpu, KVM_SET_REGS, &registers) != 0 ||
      (has_extended_ && ioctl(vcpu, KVM_SET_XCRS, &extended) != 0) ||
      ioctl(vcpu, KVM_SET_XSAVE, floating.data()) != 0 ||
      ioctl(vcpu, KVM_SET_DEBUGREGS, &debug) != 0 || ioctl(vcpu, KVM_SET_LAPIC, &apic) != 0) {
    return FailWithErrno("KVM does not take the state of a CPU");
  }
  for (const kvm_msr_entry& msr : msrs_) {
    OneMsr one;
    one.entry = msr;
    // Some can only be read, and long mode is decided above.
    constexpr std::uint32_t kEferMsr = 0xC0000080;
    if (msr.index != kEferMsr) {
      (void)ioctl(vcpu, KVM_SET_MSRS, &one);
    }
  }
  if (ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events) != 0) {
    return FailWithErrno("KVM does not take the events of a CPU");
  }
  return {};
}

}  // namespace kmcl::vmm
