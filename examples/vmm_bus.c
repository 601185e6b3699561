/* A bus for the guest of a VMM that is there already: what the VMM calls, and when. docs/vmm.md
 * quotes it. */
#include "vmm_bus.h"

#include <kmcl/kvm.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

static KMCL_SERVER g_Server;
static KMCL_KVM g_Bus;

/* 1. When the interrupt controllers (KVM_CREATE_IRQCHIP) and the vCPUs are made; vCPU i has APIC id
 * i. The guest's memory is a memfd, mapped at guest address 0 by KVM_SET_USER_MEMORY_REGION.
 * `Arrived` makes the offers, as on any other bus: examples/echo_server.c. */
int bus_create(int kvm, int vm, const int* vcpus, unsigned vcpu_count, int memfd, uint64_t bytes,
               BUS_CALLBACK* Arrived, BUS_CALLBACK* Gone) {
  const KMCL_KVM_SLOT memory = {
      .GuestAddress = 0, .Bytes = bytes, .Descriptor = memfd, .Offset = 0};
  KMCL_KVM_OPTIONS options;
  KMCL_ENDPOINT_OPTIONS endpoint;
  KmclKvmOptionsInit(&options);
  options.Kvm = kvm;
  options.Vm = vm;
  options.Vcpus = vcpus;
  options.VcpuCount = vcpu_count;
  options.Slots = &memory;
  options.SlotCount = 1;
  KmclEndpointOptionsInit(&endpoint);
  endpoint.PartitionArrived = Arrived;
  endpoint.PartitionGone = Gone;
  return NT_SUCCESS(KmclKvmServerCreate(&options, &endpoint, &g_Server, &g_Bus)) ? 0 : -1;
}

/* 2. For each vCPU, with what KVM_GET_SUPPORTED_CPUID has said and room for 16 entries more. */
int bus_set_cpuid(int vcpu, struct kvm_cpuid2* leaves, unsigned capacity) {
  ULONG count = leaves->nent;
  if (!NT_SUCCESS(KmclKvmEditCpuid(g_Bus, leaves->entries, &count, capacity))) return -1;
  leaves->nent = count;
  return ioctl(vcpu, KVM_SET_CPUID2, leaves);
}

/* 3. Before the first KVM_RUN. */
int bus_start(void) { return NT_SUCCESS(KmclKvmStart(g_Bus)) ? 0 : -1; }

/* 4. With the other ACPI tables; the XSDT names it. Returns how long it is. */
size_t bus_acpi_table(void* place, size_t capacity) {
  const VOID* table;
  SIZE_T bytes;
  KmclKvmAcpiTable(&table, &bytes);
  if (bytes <= capacity) memcpy(place, table, bytes);
  return bytes;
}

/* 5. After each KVM_RUN, before the VMM looks at the exit. 1: it was the bus's; run again. */
int bus_handle_exit(unsigned vcpu, struct kvm_run* run) {
  return KmclKvmHandleExit(g_Bus, vcpu, run);
}

/* 6. Between two lives of the guest, with all vCPUs stopped. */
void bus_reset(void) { KmclKvmReset(g_Bus); }

/* 7. In the end, with all vCPUs stopped. */
void bus_destroy(void) {
  KmclServerDestroy(g_Server);
  KmclKvmDestroy(g_Bus);
}
