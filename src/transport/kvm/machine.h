// A KVM virtual machine as a guest of Hyper-V: takes what KVM hands out of the guest (accesses to
// Hyper-V's registers, hypercalls), and raises its interrupts.
//
// Where KVM emulates Hyper-V's interrupt controllers, its own are used (KernelSynic). Elsewhere the
// registers come by KVM_CAP_X86_USER_SPACE_MSR and a filter, a hypercall is a write to an I/O port,
// and an interrupt is a KVM_SIGNAL_MSI (VMBus reference 5.5).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "log_limit.h"
#include "result.h"
#include "transport/kvm/enlightenments.h"
#include "transport/kvm/guest_bus.h"
#include "transport/kvm/guest_memory.h"
#include "transport/kvm/hardware.h"
#include "transport/kvm/kernel_synic.h"
#include "transport/kvm/kvm_headers.h"
#include "transport/kvm/synic.h"
#include "transport/link.h"

namespace kmcl::transport::kvm {

enum class SynicKind : std::uint8_t { kAuto, kKernel, kUser };

struct MachineOptions {
  // Borrowed until the machine is destroyed. Processor i has APIC id i.
  int kvm = -1;
  int vm = -1;
  std::span<const int> processors;
  std::span<const MemorySlot> slots;
  SynicKind synic = SynicKind::kAuto;
  std::uint8_t hypercall_port = 0xB8;
};

class Machine final : public Hardware {
 public:
  // kKvmUnsupported: KVM lacks what is needed, or the SynIC that was asked for. Those of
  // GuestMemory; kOutOfDescriptors, kSystemCall.
  [[nodiscard]] static Result<std::unique_ptr<Machine>> Create(const MachineOptions& options);

  // Once. The listener and its links are gone before the machine.
  std::unique_ptr<Listener> Listen() { return bus_->Listen(); }

  // Adds Hyper-V's leaves, and takes others away: MakeHyperVCpuid.
  void EditCpuid(std::vector<kvm_cpuid_entry2>& entries) const;

  // Before any processor runs. kSystemCall.
  [[nodiscard]] Result<void> Start();

  // GuestMemory::Update. Any thread.
  [[nodiscard]] Result<void> UpdateSlots(std::span<const MemorySlot> slots) {
    return memory_->Update(slots);
  }

  // On the processor's thread. True: done, run it again.
  bool HandleExit(std::uint32_t processor, kvm_run& run);

  // The partition's reference time in units of 100 ns, as the guest reads it at this moment. After
  // Start, any thread. kSystemCall.
  [[nodiscard]] Result<std::uint64_t> ReferenceTime() const;

  // No processor runs; not on a thread of the server's. Waits for the server to close what the
  // guest had open.
  void Reset();

  bool synic_in_kernel() const { return kernel_ != nullptr; }
  // Any thread.
  GuestBus::Counts counts() const { return bus_->counts(); }
  std::uint32_t processor_count() const { return static_cast<std::uint32_t>(processors_.size()); }

  void RaiseInterrupt(std::uint32_t processor, std::uint8_t vector) override;
  std::uint64_t TimeStamp(std::uint32_t processor) override;

 private:
  Machine(const MachineOptions& options, std::unique_ptr<GuestMemory> memory);
  Result<void> StartInUserSpace();
  bool HandleRead(std::uint32_t processor, kvm_run& run);
  bool HandleWrite(std::uint32_t processor, kvm_run& run);
  bool HandleOut(std::uint32_t processor, const kvm_run& run);

  const int vm_;
  const std::vector<int> processors_;
  const std::uint8_t hypercall_port_;
  const bool tsc_is_invariant_;
  const std::unique_ptr<GuestMemory> memory_;
  Synic synic_;
  Enlightenments enlightenments_;
  std::unique_ptr<KernelSynic> kernel_;  // where KVM's is used
  std::shared_ptr<GuestBus> bus_;
  LogLimit refused_registers_;
  LogLimit failed_calls_;
};

}  // namespace kmcl::transport::kvm
