// What a guest finds when it asks the processor who runs it (VMBus reference 5.1).
#pragma once

#include <cstdint>
#include <vector>

#include "transport/kvm/kvm_headers.h"

namespace kmcl::transport::kvm {

// What the leaves tell beside what is always so.
struct CpuidFeatures {
  std::uint32_t processor_count = 1;
  bool reference_tsc = false;  // the guest may compute its clock from the TSC
};

// Turns a list of CPUID entries into that of a guest of Hyper-V: leaf 1 says that there is a
// hypervisor, every leaf from 0x40000000 to 0x4FFFFFFF goes (KVM's own signature would win over
// ours in Linux), and Hyper-V's come.
void MakeHyperVCpuid(std::vector<kvm_cpuid_entry2>& entries, const CpuidFeatures& features);

}  // namespace kmcl::transport::kvm
