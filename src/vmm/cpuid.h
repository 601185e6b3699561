// What each vCPU says of itself in CPUID: its APIC id, and how many there are.
#pragma once

#include <vector>

#include "vmm/kvm_headers.h"

namespace kmcl::vmm {

// `supported` with the leaves that tell one CPU from another set for CPU `number` of `cpu_count`,
// which are the cores of one package. A CPU's APIC id is its number.
std::vector<kvm_cpuid_entry2> CpuidOf(std::vector<kvm_cpuid_entry2> supported, unsigned number,
                                      unsigned cpu_count);

}  // namespace kmcl::vmm
