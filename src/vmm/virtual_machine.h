// The virtual machine as KVM sees it: the descriptors, the interrupt controllers, the memory slots.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/descriptor.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm_headers.h"
#include "vmm/outcome.h"

namespace kmcl::vmm {

class VirtualMachine {
 public:
  // Opens /dev/kvm and makes a machine with in-kernel interrupt controllers and timer, whose memory
  // is `memory` (borrowed; it must outlive this).
  static Outcome<VirtualMachine> Create(const GuestMemory& memory);

  int kvm() const { return kvm_.get(); }
  int descriptor() const { return vm_.get(); }

  // What KVM lets a guest see of the processor.
  Outcome<std::vector<kvm_cpuid_entry2>> SupportedCpuid() const;

  // Any thread.
  void SetInterruptLine(unsigned interrupt, bool level) const;

  // The interrupt controllers and the timer as they were made. No vCPU runs.
  Outcome<void> Reset() const;

 private:
  VirtualMachine() = default;
  Outcome<void> SaveInitialState();

  Descriptor kvm_;
  Descriptor vm_;
  kvm_irqchip irqchips_[3] = {};
  kvm_pit_state2 timer_ = {};
};

}  // namespace kmcl::vmm
