/* kmcl/kvm.h - a bus for the guest of a KVM virtual machine.
 *
 * A virtual machine monitor (VMM) that uses this shows its guest a Hyper-V host: an unmodified guest
 * with a VMBus driver (Linux: hv_vmbus) finds the bus, connects, and opens the channels that are
 * offered to it. The program offers them as on every other bus (kmcl/endpoint.h, kmcl/kmcl.h): the
 * guest is a partition of a KMCL_SERVER.
 *
 *   make the VM, its irqchip and its vCPUs
 *   KmclKvmServerCreate      the server; PartitionArrived makes the offers
 *   KmclKvmEditCpuid         then KVM_SET_CPUID2 with the result, on each vCPU
 *   KmclKvmAcpiTable         goes to the guest with the VMM's other tables
 *   KmclKvmStart
 *   KVM_RUN ...              after each exit KmclKvmHandleExit first, then the VMM's own devices
 *   KmclKvmReset             between two lives of the guest, all vCPUs stopped
 *   KmclServerDestroy, KmclKvmDestroy
 *
 * How the guest and the bus reach each other. Messages and signals are hypercalls from the guest, and
 * message slots and event flags of its synthetic interrupt controllers (SynIC) towards it. Some KVMs
 * emulate the controllers (KVM_CAP_HYPERV_SYNIC2); then messages are KVM_EXIT_HYPERV, signals are
 * eventfds that KVM writes (where it can: KVM_HYPERV_EVENTFD), and interrupts are irqfds. For the others this library does it in user space, which any KVM since Linux
 * 5.10 allows: accesses to Hyper-V's registers come out as exits (KVM_CAP_X86_USER_SPACE_MSR with a
 * filter for 0x40000000 to 0x400001FF), the hypercall page writes to an I/O port, and interrupts are
 * KVM_SIGNAL_MSI. Guests see no difference.
 *
 * What the VMM has to keep to
 *   * An in-kernel local APIC. vCPU i has APIC id i, and becomes virtual processor i.
 *   * From KmclKvmStart on this library has set, and nobody else changes: in user space the filter
 *     of KVM_X86_SET_MSR_FILTER and the reasons of KVM_CAP_X86_USER_SPACE_MSR; in the kernel the
 *     routing of KVM_SET_GSI_ROUTING, which is KVM's first one for the PICs and the I/O APIC (all in
 *     the kernel) with one line from 24 on for each vCPU.
 *   * The memory slots stay as they were given, and so does the size of their files. More of them may
 *     come (KmclKvmUpdateSlots). What a guest describes that stands in no slot is refused.
 *   * The guest runs in 64-bit mode when it makes hypercalls. Clients below version 2.4 are not served.
 *
 * The partition. It arrives when the guest has agreed on a version for the first time after
 * KmclKvmServerCreate or KmclKvmReset, and leaves at the next KmclKvmReset. A guest that connects anew
 * in between (a driver loaded again, a kexec) is the same partition: its channels are closed and its
 * offers stand. KmclPartitionQuery names this process as the peer. Such a server cannot be handed over.
 *
 * Needs <linux/kvm.h> of the program's own only to look into `struct kvm_run` and
 * `struct kvm_cpuid_entry2`. Sources: Hypervisor Top-Level Functional Specification; KVM API.
 */
#ifndef KMCL_KVM_H
#define KMCL_KVM_H

#include <kmcl/endpoint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvm_cpuid_entry2;
struct kvm_run;

typedef struct KMCL_KVM_OBJECT *KMCL_KVM; /* the bus of one virtual machine */

/* A memory slot of the guest: part of a file that can be mapped shared (a memfd of ordinary pages, not
 * of huge ones), the same that the VMM has given to KVM_SET_USER_MEMORY_REGION. All but the descriptor
 * are multiples of 4096. */
typedef struct KMCL_KVM_SLOT {
    UINT64 GuestAddress;
    UINT64 Bytes;
    int Descriptor; /* duplicated */
    UINT64 Offset;  /* of the slot's first byte in the file */
} KMCL_KVM_SLOT, *PKMCL_KVM_SLOT;

/* Who emulates the interrupt controllers. */
#define KMCL_KVM_SYNIC_AUTO 0u   /* KVM if it can, else this library; the log tells at level info */
#define KMCL_KVM_SYNIC_KERNEL 1u /* KVM */
#define KMCL_KVM_SYNIC_USER 2u   /* this library's */

#define KMCL_KVM_MAXIMUM_VCPUS 255u

typedef struct KMCL_KVM_OPTIONS {
    ULONG Size; /* sizeof(KMCL_KVM_OPTIONS); set by KmclKvmOptionsInit */
    int Kvm;    /* descriptors of /dev/kvm, of the VM and of its vCPUs, in the order of their ids: */
    int Vm;     /* they stay the caller's, and open until KmclKvmDestroy */
    ULONG VcpuCount; /* 1 to KMCL_KVM_MAXIMUM_VCPUS */
    const int *Vcpus;
    ULONG SlotCount; /* at least 1; in any order, without overlaps */
    const KMCL_KVM_SLOT *Slots;
    ULONG Synic;         /* KMCL_KVM_SYNIC_...; default KMCL_KVM_SYNIC_AUTO */
    ULONG HypercallPort; /* an I/O port below 0x100 that no device of the guest has; default 0xB8 */
} KMCL_KVM_OPTIONS, *PKMCL_KVM_OPTIONS;

/* Fills `Options` with the defaults: no descriptors, no slots. */
VOID KmclKvmOptionsInit(PKMCL_KVM_OPTIONS Options);

/* Makes the bus of a virtual machine and its server. After the in-kernel irqchip and the vCPUs were
 * made. Both options are copied. Of the endpoint's, MaximumVersion is the newest version that the
 * guest is granted. NoMonitors means nothing: channels have monitors if they ask for them
 * (KmclServerChannelInitSetMonitored). EndpointOptions may be NULL (defaults).
 *   STATUS_SUCCESS                 end them with KmclServerDestroy, then KmclKvmDestroy.
 *   STATUS_INVALID_PARAMETER_1     Options is NULL, Size is wrong, or a value out of its range; slots
 *                                  overlap, or are not part of their file.
 *   STATUS_INVALID_PARAMETER_2     an endpoint option is out of its range, or Size is wrong.
 *   STATUS_INVALID_PARAMETER_3     Server is NULL.
 *   STATUS_INVALID_PARAMETER_4     Kvm is NULL.
 *   STATUS_NOT_SUPPORTED           KVM lacks a capability that is needed; the log names it.
 *   STATUS_DATA_ERROR              a slot's descriptor is not a file of ordinary pages, or not open for
 *                                  writing.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory, descriptors or threads.
 *   STATUS_UNSUCCESSFUL            a system call failed; the log names it. */
NTSTATUS KmclKvmServerCreate(const KMCL_KVM_OPTIONS *Options,
                             const KMCL_ENDPOINT_OPTIONS *EndpointOptions, KMCL_SERVER *Server,
                             KMCL_KVM *Kvm);

/* The machine has been given more memory: all its slots as they are now, in any order. Those that it had
 * are to be among them, as they were: the bus has them in use. Any thread.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1     Kvm is NULL.
 *   STATUS_INVALID_PARAMETER_2     SlotCount is 0.
 *   STATUS_INVALID_PARAMETER_3     Slots is NULL; slots overlap, or are not part of their file.
 *   STATUS_NOT_SUPPORTED           a slot is gone, or elsewhere in the guest or in its file, or of
 *                                  another size; the log names it. Nothing has changed.
 *   STATUS_DATA_ERROR              as KmclKvmServerCreate has it, and so are
 *   STATUS_INSUFFICIENT_RESOURCES, STATUS_UNSUCCESSFUL. */
NTSTATUS KmclKvmUpdateSlots(KMCL_KVM Kvm, ULONG SlotCount, const KMCL_KVM_SLOT *Slots);

/* Makes of a vCPU's CPUID list (from KVM_GET_SUPPORTED_CPUID) that of a guest of Hyper-V, for
 * KVM_SET_CPUID2: sets CPUID.1:ECX[31], takes every leaf from 0x40000000 to 0x4FFFFFFF out (KVM's own
 * signature would win over ours) and puts Hyper-V's in, up to 0x40000005. *Count is the number of
 * entries before and after; `Entries` has room for `Capacity`. Any thread.
 *   STATUS_SUCCESS
 *   STATUS_BUFFER_TOO_SMALL        *Count says how many there would be; the entries are as before.
 *   STATUS_INVALID_PARAMETER_1/_2/_3  NULL, or *Count above Capacity (_3).
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS KmclKvmEditCpuid(KMCL_KVM Kvm, struct kvm_cpuid_entry2 *Entries, ULONG *Count,
                          ULONG Capacity);

/* Takes Hyper-V's registers over from KVM. Once, after KVM_SET_CPUID2 (and KVM_SET_TSC_KHZ, if used)
 * and before the first KVM_RUN.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1     Kvm is NULL.
 *   STATUS_UNSUCCESSFUL            a system call failed; the log names it. */
NTSTATUS KmclKvmStart(KMCL_KVM Kvm);

/* Where the guest may place what its bus devices want to have mapped: no memory and no device of the
 * VMM's stands there. */
#define KMCL_KVM_MMIO_ADDRESS 0xF8000000u
#define KMCL_KVM_MMIO_BYTES 0x04000000u

/* An ACPI table (SSDT) with the device by which the guest finds the bus, and the window above; length
 * and checksum are right. It stands for ever. NULL pointers are ignored. */
VOID KmclKvmAcpiTable(const VOID **Table, SIZE_T *Bytes);

/* Looks at an exit of a vCPU, on that vCPU's thread, which is not held up by what the server does.
 * TRUE: it was Hyper-V's, the answer stands in `Run` and the vCPU's registers: KVM_RUN again.
 * FALSE: not ours (or a vCPU that does not exist), nothing has changed. */
BOOLEAN KmclKvmHandleExit(KMCL_KVM Kvm, ULONG Vcpu, struct kvm_run *Run);

/* The partition's reference time, in units of 100 ns: what the guest reads at this moment from
 * HV_X64_MSR_TIME_REF_COUNT, or computes from its reference TSC page. A device names it beside a time
 * of the host's to tell when that was (time synchronisation, version 4.0). With KVM's own controllers
 * it is KVM's clock of the machine; otherwise what a processor would have read on its way out of the
 * guest, seconds ago at most while the bus is used, and the host's CLOCK_MONOTONIC_RAW since. Any
 * thread; does not wait for the guest.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1/_2  NULL.
 *   STATUS_INVALID_DEVICE_STATE    KmclKvmStart has not succeeded yet.
 *   STATUS_UNSUCCESSFUL            a system call failed; the log names it. */
NTSTATUS KmclKvmReferenceTime(KMCL_KVM Kvm, UINT64 *HundredNanoseconds);

/* What the guest's processors have left it for, since KmclKvmServerCreate. With KVM's own controllers a
 * channel's signals are eventfds in the kernel from its open to its close (KVM_HYPERV_EVENTFD), and
 * nobody counts them: Signals stays as it is, unless a guest signals what nobody listens to. */
typedef struct KMCL_KVM_COUNTERS {
    ULONG Size;              /* in: sizeof(KMCL_KVM_COUNTERS) */
    ULONG Synic;             /* KMCL_KVM_SYNIC_KERNEL or KMCL_KVM_SYNIC_USER: who emulates */
    UINT64 Messages;         /* HvPostMessage; refused ones included, here and below */
    UINT64 Signals;          /* HvSignalEvent */
    UINT64 Refused;          /* hypercalls that were wrong in any way */
    UINT64 ChannelsInKernel; /* channels whose signals need no exit, now */
} KMCL_KVM_COUNTERS, *PKMCL_KVM_COUNTERS;

/* Any thread. STATUS_INVALID_PARAMETER_1 Kvm is NULL; STATUS_INVALID_PARAMETER_2 NULL or wrong Size. */
NTSTATUS KmclKvmQueryCounters(KMCL_KVM Kvm, PKMCL_KVM_COUNTERS Counters);

/* The machine is reset: what the guest had open is closed as if it had died, and its controllers are as
 * after power-on. All vCPUs are stopped. Returns when nobody touches the guest's memory through the bus
 * any more, that is, once the drivers have retired the packets that they hold; so the VMM may load
 * the next guest. Not from a callback. PartitionGone for the old guest may come later. NULL is ignored. */
VOID KmclKvmReset(KMCL_KVM Kvm);

/* Frees the bus. After KmclServerDestroy; no vCPU runs any more. NULL is ignored. */
VOID KmclKvmDestroy(KMCL_KVM Kvm);

#ifdef __cplusplus
}
#endif

#endif /* KMCL_KVM_H */
