#include "vmm/cpuid.h"

#include <bit>
#include <cstdint>

namespace kmcl::vmm {

std::vector<kvm_cpuid_entry2> CpuidOf(std::vector<kvm_cpuid_entry2> supported, unsigned number,
                                      unsigned cpu_count) {
  // How many bits of the APIC id number the cores of a package.
  const auto core_bits = static_cast<std::uint32_t>(std::bit_width(cpu_count - 1));
  for (kvm_cpuid_entry2& leaf : supported) {
    switch (leaf.function) {
      case 0x1:
        leaf.ebx = (leaf.ebx & 0xFFFF) | (cpu_count & 0xFF) << 16 | number << 24;
        leaf.edx = cpu_count > 1 ? leaf.edx | 1u << 28 : leaf.edx & ~(1u << 28);
        break;
      case 0x4:  // Intel's caches: shared by nobody, and the package's cores
        leaf.eax = (leaf.eax & 0x3FFF) | (cpu_count - 1) << 26;
        break;
      case 0xB:
      case 0x1F:
        leaf.edx = number;
        leaf.ecx = leaf.index & 0xFF;
        if (leaf.index == 0) {  // threads: one
          leaf.eax = 0;
          leaf.ebx = 1;
          leaf.ecx |= 1 << 8;
        } else if (leaf.index == 1) {  // cores
          leaf.eax = core_bits;
          leaf.ebx = cpu_count;
          leaf.ecx |= 2 << 8;
        } else {
          leaf.eax = 0;
          leaf.ebx = 0;
        }
        break;
      case 0x80000008:  // AMD's number of cores
        leaf.ecx = (leaf.ecx & ~0xF0FFu) | core_bits << 12 | (cpu_count - 1);
        break;
      case 0x8000001D:  // AMD's caches: shared by nobody
        leaf.eax &= ~(0xFFFu << 14);
        break;
      case 0x8000001E:
        leaf.eax = number;
        leaf.ebx = number;  // the core's number; one thread each
        leaf.ecx = 0;       // one node
        break;
      default:
        break;
    }
  }
  return supported;
}

}  // namespace kmcl::vmm
