// All that KVM keeps of a vCPU: read once when it is new, and put back when the machine is reset.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "vmm/boot_loader.h"
#include "vmm/kvm_headers.h"
#include "vmm/outcome.h"

namespace kmcl::vmm {

class VcpuState {
 public:
  VcpuState() = default;

  // Of the vCPU `vcpu` of the system `kvm`, which does not run.
  static Outcome<VcpuState> Read(int kvm, int vcpu);

  // Puts it back. With `entry` the CPU is then in 64-bit mode, at the kernel's first instruction.
  Outcome<void> Write(int vcpu, const std::optional<BootEntry>& entry) const;

 private:
  Outcome<void> ReadMsrs(int kvm, int vcpu);

  kvm_regs registers_{};
  kvm_sregs special_{};
  std::array<std::uint32_t, 1024> floating_{};  // a kvm_xsave
  bool has_extended_ = false;
  kvm_xcrs extended_{};
  kvm_debugregs debug_{};
  kvm_vcpu_events events_{};
  kvm_lapic_state apic_{};
  kvm_mp_state power_{};
  std::vector<kvm_msr_entry> msrs_;
};

}  // namespace kmcl::vmm
