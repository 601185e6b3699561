// The machine's VMBus: what kmcl/kvm.h wants of a VMM, in one place.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kvm.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "vmm/guest_memory.h"
#include "vmm/kvm_headers.h"
#include "vmm/outcome.h"

namespace kmcl::vmm {

struct BusPlan {
  KMCL_ENDPOINT_OPTIONS endpoint{};  // with the callbacks of who offers devices
  ULONG synic = KMCL_KVM_SYNIC_AUTO;
};

class Bus {
 public:
  // For the vCPUs `cpus` of `vm`, whose memory is `memory`. Borrows the descriptors until its end.
  static Outcome<std::unique_ptr<Bus>> Create(int kvm, int vm, std::vector<int> cpus,
                                              const GuestMemory& memory, const BusPlan& plan);
  // Ends the server. Its channels were cleaned up, and no CPU runs.
  ~Bus();
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  KMCL_SERVER server() const { return server_; }

  // What a guest sees in CPUID, on its way to KVM.
  Outcome<void> EditCpuid(std::vector<kvm_cpuid_entry2>& leaves) const;
  // Once, when every CPU has its CPUID.
  Outcome<void> Start() const;
  // An exit of CPU `number`, on its thread; true when it was the bus's.
  bool HandleExit(unsigned number, kvm_run* run) const {
    return KmclKvmHandleExit(kvm_, number, run) != FALSE;
  }
  // The partition's reference time, in units of 100 ns, as the guest reads it now. Any thread,
  // after Start.
  std::uint64_t ReferenceTime() const;
  // Between two lives of the guest; no CPU runs.
  void Reset() const { KmclKvmReset(kvm_); }
  static std::span<const std::byte> AcpiTable();
  // Any thread.
  KMCL_KVM_COUNTERS Counters() const;

 private:
  Bus() = default;

  KMCL_SERVER server_ = nullptr;
  KMCL_KVM kvm_ = nullptr;
};

}  // namespace kmcl::vmm
