#include "vmm/bus.h"

namespace kmcl::vmm {
namespace {

std::unexpected<std::string> FailWithStatus(const std::string& what, NTSTATUS status) {
  return Fail(what + " (" + KmclStatusName(status) + ")");
}

}  // namespace

Outcome<std::unique_ptr<Bus>> Bus::Create(int kvm, int vm, std::vector<int> cpus,
                                          const GuestMemory& memory, const BusPlan& plan) {
  std::vector<KMCL_KVM_SLOT> slots;
  for (const GuestMemory::Slot& slot : memory.slots()) {
    slots.push_back({slot.guest_address, slot.bytes, memory.descriptor(), slot.file_offset});
  }
  KMCL_KVM_OPTIONS options;
  KmclKvmOptionsInit(&options);
  options.Kvm = kvm;
  options.Vm = vm;
  options.VcpuCount = static_cast<ULONG>(cpus.size());
  options.Vcpus = cpus.data();
  options.SlotCount = static_cast<ULONG>(slots.size());
  options.Slots = slots.data();
  options.Synic = plan.synic;
  std::unique_ptr<Bus> bus(new Bus);
  const NTSTATUS status = KmclKvmServerCreate(&options, &plan.endpoint, &bus->server_, &bus->kvm_);
  if (!NT_SUCCESS(status)) {
    return FailWithStatus("the machine gets no bus", status);
  }
  return bus;
}

Bus::~Bus() {
  KmclServerDestroy(server_);
  KmclKvmDestroy(kvm_);
}

Outcome<void> Bus::EditCpuid(std::vector<kvm_cpuid_entry2>& leaves) const {
  auto count = static_cast<ULONG>(leaves.size());
  leaves.resize(leaves.size() + 16);
  NTSTATUS status =
      KmclKvmEditCpuid(kvm_, leaves.data(), &count, static_cast<ULONG>(leaves.size()));
  if (status == STATUS_BUFFER_TOO_SMALL) {
    const auto capacity = count;
    count = static_cast<ULONG>(leaves.size() - 16);
    leaves.resize(capacity);
    status = KmclKvmEditCpuid(kvm_, leaves.data(), &count, capacity);
  }
  if (!NT_SUCCESS(status)) {
    return FailWithStatus("the guest cannot be shown a Hyper-V host", status);
  }
  leaves.resize(count);
  return {};
}

Outcome<void> Bus::Start() const {
  const NTSTATUS status = KmclKvmStart(kvm_);
  if (!NT_SUCCESS(status)) {
    return FailWithStatus("the bus does not start", status);
  }
  UINT64 time = 0;
  if (const NTSTATUS read = KmclKvmReferenceTime(kvm_, &time); !NT_SUCCESS(read)) {
    return FailWithStatus("the guest's clock cannot be read", read);
  }
  return {};
}

std::uint64_t Bus::ReferenceTime() const {
  UINT64 time = 0;
  // It has been read by Start, so there is nothing left that could refuse it.
  (void)KmclKvmReferenceTime(kvm_, &time);
  return time;
}

std::span<const std::byte> Bus::AcpiTable() {
  const VOID* table = nullptr;
  SIZE_T bytes = 0;
  KmclKvmAcpiTable(&table, &bytes);
  return {static_cast<const std::byte*>(table), bytes};
}

KMCL_KVM_COUNTERS Bus::Counters() const {
  KMCL_KVM_COUNTERS counters{};
  counters.Size = sizeof(counters);
  KmclKvmQueryCounters(kvm_, &counters);
  return counters;
}

}  // namespace kmcl::vmm
