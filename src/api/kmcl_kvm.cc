// The bus of a KVM guest (kmcl/kvm.h).

#include <kmcl/kvm.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "api/server_object.h"
#include "api/status_map.h"
#include "log.h"
#include "transport/kvm/acpi_table.h"
#include "transport/kvm/machine.h"

using namespace kmcl;
using namespace kmcl::api;

static_assert(KMCL_KVM_MMIO_ADDRESS == transport::kvm::kMmioWindow);
static_assert(KMCL_KVM_MMIO_BYTES == transport::kvm::kMmioWindowBytes);

struct KMCL_KVM_OBJECT {
  std::unique_ptr<transport::kvm::Machine> machine;
  std::atomic<bool> started{false};
};

namespace {

constexpr ULONG kDefaultHypercallPort = 0xB8;
constexpr ULONG kMostHypercallPort = 0xFF;

bool IsValid(const KMCL_KVM_OPTIONS* options) {
  return options != nullptr && options->Size == sizeof *options && options->Kvm >= 0 &&
         options->Vm >= 0 && options->VcpuCount >= 1 &&
         options->VcpuCount <= KMCL_KVM_MAXIMUM_VCPUS && options->Vcpus != nullptr &&
         options->SlotCount >= 1 && options->Slots != nullptr &&
         options->Synic <= KMCL_KVM_SYNIC_USER && options->HypercallPort <= kMostHypercallPort;
}

transport::kvm::SynicKind KindOf(ULONG synic) {
  switch (synic) {
    case KMCL_KVM_SYNIC_KERNEL:
      return transport::kvm::SynicKind::kKernel;
    case KMCL_KVM_SYNIC_USER:
      return transport::kvm::SynicKind::kUser;
    default:
      return transport::kvm::SynicKind::kAuto;
  }
}

// What concerns memory says so by its own statuses, not those of a bus's peer.
NTSTATUS MachineStatusOf(Error error) {
  return error == Error::kFieldOutOfRange ? STATUS_INVALID_PARAMETER_1 : StatusOf(error);
}

std::vector<transport::kvm::MemorySlot> SlotsOf(std::span<const KMCL_KVM_SLOT> given) {
  std::vector<transport::kvm::MemorySlot> slots;
  for (const KMCL_KVM_SLOT& slot : given) {
    slots.push_back({.guest_address = slot.GuestAddress,
                     .bytes = slot.Bytes,
                     .fd = slot.Descriptor,
                     .offset = slot.Offset});
  }
  return slots;
}

NTSTATUS Create(const KMCL_KVM_OPTIONS& options, const KMCL_ENDPOINT_OPTIONS& endpoint_options,
                KMCL_SERVER* server, KMCL_KVM* kvm) {
  const auto slots = SlotsOf({options.Slots, options.SlotCount});
  auto machine = transport::kvm::Machine::Create(
      {.kvm = options.Kvm,
       .vm = options.Vm,
       .processors = {options.Vcpus, options.VcpuCount},
       .slots = slots,
       .synic = KindOf(options.Synic),
       .hypercall_port = static_cast<std::uint8_t>(options.HypercallPort)});
  if (!machine) return MachineStatusOf(machine.error());
  auto kvm_object = std::make_unique<KMCL_KVM_OBJECT>();
  kvm_object->machine = std::move(*machine);

  auto object = std::make_unique<KMCL_SERVER_OBJECT>();
  object->options = endpoint_options;
  auto server_options = ServerOptionsOf(endpoint_options, "kvm");
  // Nothing tells us when a guest has written to its page, or how soon it wants that to be seen.
  // What looking costs is paid for channels that cannot do without.
  server_options.monitors = bus::Monitors::kAsked;
  // To end a guest's connection would take from it what its other drivers do well, and it would be
  // back with the next message.
  server_options.maximum_refusals.reset();
  // Older clients share one interrupt page, which nobody looks at here.
  server_options.oldest = wire::Version::kWin8;
  auto created =
      endpoint::Server::Create(kvm_object->machine->Listen(), server_options, EventsOf(*object));
  if (!created) return StatusOf(created.error());
  object->server = std::move(*created);
  *server = object.release();
  *kvm = kvm_object.release();
  return STATUS_SUCCESS;
}

}  // namespace

VOID KmclKvmOptionsInit(PKMCL_KVM_OPTIONS Options) {
  *Options = {};
  Options->Size = sizeof *Options;
  Options->Kvm = -1;
  Options->Vm = -1;
  Options->Synic = KMCL_KVM_SYNIC_AUTO;
  Options->HypercallPort = kDefaultHypercallPort;
}

NTSTATUS KmclKvmServerCreate(const KMCL_KVM_OPTIONS* Options,
                             const KMCL_ENDPOINT_OPTIONS* EndpointOptions, KMCL_SERVER* Server,
                             KMCL_KVM* Kvm) {
  if (Server != nullptr) *Server = nullptr;
  if (Kvm != nullptr) *Kvm = nullptr;
  try {
    if (!IsValid(Options)) return STATUS_INVALID_PARAMETER_1;
    KMCL_ENDPOINT_OPTIONS endpoint_options;
    if (!TakeOptions(EndpointOptions, endpoint_options)) return STATUS_INVALID_PARAMETER_2;
    if (Server == nullptr) return STATUS_INVALID_PARAMETER_3;
    if (Kvm == nullptr) return STATUS_INVALID_PARAMETER_4;
    return Create(*Options, endpoint_options, Server, Kvm);
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclKvmEditCpuid(KMCL_KVM Kvm, struct kvm_cpuid_entry2* Entries, ULONG* Count,
                          ULONG Capacity) {
  if (Kvm == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Entries == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (Count == nullptr || *Count > Capacity) return STATUS_INVALID_PARAMETER_3;
  try {
    std::vector<kvm_cpuid_entry2> entries(Entries, Entries + *Count);
    Kvm->machine->EditCpuid(entries);
    *Count = static_cast<ULONG>(entries.size());
    if (*Count > Capacity) return STATUS_BUFFER_TOO_SMALL;
    std::ranges::copy(entries, Entries);
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclKvmUpdateSlots(KMCL_KVM Kvm, ULONG SlotCount, const KMCL_KVM_SLOT* Slots) {
  if (Kvm == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (SlotCount == 0) return STATUS_INVALID_PARAMETER_2;
  if (Slots == nullptr) return STATUS_INVALID_PARAMETER_3;
  try {
    const auto updated = Kvm->machine->UpdateSlots(SlotsOf({Slots, SlotCount}));
    if (updated) return STATUS_SUCCESS;
    return updated.error() == Error::kFieldOutOfRange ? STATUS_INVALID_PARAMETER_3
                                                      : StatusOf(updated.error());
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclKvmStart(KMCL_KVM Kvm) {
  if (Kvm == nullptr) return STATUS_INVALID_PARAMETER_1;
  const auto started = Kvm->machine->Start();
  if (!started) return StatusOf(started.error());
  Kvm->started.store(true);
  return STATUS_SUCCESS;
}

VOID KmclKvmAcpiTable(const VOID** Table, SIZE_T* Bytes) {
  const auto table = transport::kvm::AcpiTable();
  if (Table != nullptr) *Table = table.data();
  if (Bytes != nullptr) *Bytes = table.size();
}

BOOLEAN KmclKvmHandleExit(KMCL_KVM Kvm, ULONG Vcpu, struct kvm_run* Run) {
  if (Kvm == nullptr || Run == nullptr || Vcpu >= Kvm->machine->processor_count()) return FALSE;
  return Kvm->machine->HandleExit(Vcpu, *Run) ? TRUE : FALSE;
}

NTSTATUS KmclKvmReferenceTime(KMCL_KVM Kvm, UINT64* HundredNanoseconds) {
  if (Kvm == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (HundredNanoseconds == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (!Kvm->started.load()) return STATUS_INVALID_DEVICE_STATE;
  const auto time = Kvm->machine->ReferenceTime();
  if (!time) return StatusOf(time.error());
  *HundredNanoseconds = *time;
  return STATUS_SUCCESS;
}

NTSTATUS KmclKvmQueryCounters(KMCL_KVM Kvm, PKMCL_KVM_COUNTERS Counters) {
  if (Kvm == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Counters == nullptr || Counters->Size != sizeof *Counters) return STATUS_INVALID_PARAMETER_2;
  const auto counts = Kvm->machine->counts();
  *Counters = {
      .Size = sizeof *Counters,
      .Synic = Kvm->machine->synic_in_kernel() ? KMCL_KVM_SYNIC_KERNEL : KMCL_KVM_SYNIC_USER,
      .Messages = counts.messages,
      .Signals = counts.signals,
      .Refused = counts.refused,
      .ChannelsInKernel = counts.routed_channels};
  return STATUS_SUCCESS;
}

VOID KmclKvmReset(KMCL_KVM Kvm) {
  if (Kvm != nullptr) Kvm->machine->Reset();
}

VOID KmclKvmDestroy(KMCL_KVM Kvm) { delete Kvm; }
