#include "transport/kvm/cpuid.h"

#include <algorithm>

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint32_t kFirstHypervisorLeaf = 0x40000000;
constexpr std::uint32_t kLastHypervisorLeaf = 0x4FFFFFFF;
constexpr std::uint32_t kHypervisorPresent = 1u << 31;  // leaf 1, ECX

// Leaf 0x40000003, EAX: which registers there are.
constexpr std::uint32_t kTimeRefCount = 1 << 1;
constexpr std::uint32_t kSynic = 1 << 2;
constexpr std::uint32_t kHypercall = 1 << 5;
constexpr std::uint32_t kVpIndex = 1 << 6;
constexpr std::uint32_t kReferenceTsc = 1 << 9;
constexpr std::uint32_t kFrequencies = 1 << 11;
// EBX: which hypercalls.
constexpr std::uint32_t kPostMessages = 1 << 4;
constexpr std::uint32_t kSignalEvents = 1 << 5;
// EDX: the frequency registers once more.
constexpr std::uint32_t kFrequenciesAvailable = 1 << 8;

// Leaf 0x40000004, EAX: what is recommended.
constexpr std::uint32_t kRelaxedTiming = 1 << 5;
constexpr std::uint32_t kNoAutoEoi = 1 << 9;
constexpr std::uint32_t kNeverNotifySpins = 0xFFFFFFFF;

// Leaf 0x40000002: what a Windows Server 2022 says of itself, whose protocol versions we have.
constexpr std::uint32_t kBuild = 20348;
constexpr std::uint32_t kMajorMinor = 10 << 16;

constexpr std::uint32_t kLeastMaximumProcessors = 64;

}  // namespace

void MakeHyperVCpuid(std::vector<kvm_cpuid_entry2>& entries, const CpuidFeatures& features) {
  std::erase_if(entries, [](const kvm_cpuid_entry2& entry) {
    return entry.function >= kFirstHypervisorLeaf && entry.function <= kLastHypervisorLeaf;
  });
  for (kvm_cpuid_entry2& entry : entries) {
    if (entry.function == 1) entry.ecx |= kHypervisorPresent;
  }

  std::uint32_t leaf = kFirstHypervisorLeaf;
  const auto add = [&](std::uint32_t eax, std::uint32_t ebx, std::uint32_t ecx, std::uint32_t edx) {
    kvm_cpuid_entry2 entry{};
    entry.function = leaf++;
    entry.eax = eax;
    entry.ebx = ebx;
    entry.ecx = ecx;
    entry.edx = edx;
    entries.push_back(entry);
  };
  const std::uint32_t most = std::max(features.processor_count, kLeastMaximumProcessors);
  add(kFirstHypervisorLeaf + 5, 0x7263694D, 0x666F736F, 0x76482074);  // "Microsoft Hv"
  add(0x31237648, 0, 0, 0);                                           // "Hv#1"
  add(kBuild, kMajorMinor, 0, 0);
  add(kTimeRefCount | kSynic | kHypercall | kVpIndex | kFrequencies |
          (features.reference_tsc ? kReferenceTsc : 0),
      kPostMessages | kSignalEvents, 0, kFrequenciesAvailable);
  add(kRelaxedTiming | kNoAutoEoi, kNeverNotifySpins, 0, 0);
  add(most, most, 0, 0);
}

}  // namespace kmcl::transport::kvm
