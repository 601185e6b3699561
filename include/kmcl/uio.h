/* kmcl/uio.h - the bus of the Linux guest that a program runs in.
 *
 * In a guest of Hyper-V, or of a VMM with kmcl/kvm.h, the kernel's hv_vmbus is the client of the host's
 * bus. Its driver uio_hv_generic lends channels to user space; KmclClientConnect with the address "uio:"
 * (all devices) or "uio:INSTANCE" (one, by its instance GUID) makes a KMCL client of that. A driver's
 * ordinary code works on it: VmbChannelAllocate, VmbChannelEnable, VmbPacketSend, the callbacks.
 *
 *   KmclUioBind(&instance)                   takes the device from whichever driver has it
 *   KmclClientConnect("uio:", NULL, &client)
 *   VmbChannelAllocate ... VmbChannelEnable  opens the kernel's channel
 *   VmbChannelDisable                        closes it
 *   KmclUioUnbind(&instance)
 *
 * What is different from other buses
 *   * The kernel speaks the control protocol. KmclClientVersion says 5.3 at most, whatever the kernel
 *     has agreed on with its host; its log tells that. Offers come without flags and MMIO space, since the
 *     kernel does not show them. So nobody tells a channel in pipe mode from another: it is the program
 *     that has to know (VMBUS_CHANNEL_INIT_FLAG_IS_PIPE), and its server that finds packets malformed.
 *   * All offers are listed, also those that another driver has. A channel that uio_hv_generic does not
 *     have ends its VmbChannelEnable with STATUS_DEVICE_NOT_READY in the failure callback of
 *     VmbClientChannelInitSetTargetPnp, one that another program has opened with STATUS_DEVICE_BUSY.
 *   * The kernel has made the rings: 68 KiB each for device types that Linux does not know (20 KiB for
 *     file copy, 2 MiB for the others), whatever VmbClientChannelInitSetRingBufferPageCount says.
 *     VmbPacketSend refuses what can never fit (STATUS_INVALID_PARAMETER_3).
 *   * No memory of the program's can be shown to the host: VmbChannelCreateGpadl... and sending external
 *     data fail with STATUS_NOT_SUPPORTED. (The kernel makes two buffers for that, of 31 and 16 MiB, when
 *     a device is bound; they are not used here.)
 *   * VmbChannelSetInterruptLatency means nothing. Signals go by the channel's monitor where it has one,
 *     which a host looks at in its own time; else by a system call, which Linux has from 6.10 on.
 *     Below that a device without a monitor cannot be bound.
 *   * A device that the host takes away ends its channel as everywhere: EvtChannelSuspend, packets
 *     completed with STATUS_DEVICE_REMOVED, EvtChannelClosed. Linux gives the rings' memory back then,
 *     and does not take it away from the program: in the moment until a dispatch thread has heard of it,
 *     the program may write into a page that belongs to somebody else in the guest.
 *   * Sub-channels are the kernel's to open, when it sees them offered while the primary is open; and to
 *     close, when the primary's last user has closed it. There is no way to close one alone: the program's
 *     VmbChannelDisable of a sub-channel ends its use here, and the host still has it open. Their rings are
 *     2 MiB each in Linux 6.1 and 6.12, whatever the primary's are.
 *   * Beware of sub-channels of a device without a monitor (seen with Debian's Linux 6.12.107): a program
 *     that signals its host while a sub-channel is announced and has no rings yet has the kernel write
 *     through a null pointer (hv_uio_irqcontrol). With a monitor the kernel is not asked to signal.
 *
 * It takes the rights to write to sysfs (bind) and to open /dev/uioN: root, mostly. Linux 6.1 or later.
 * Source: VMBus reference 6; Linux, drivers/uio/uio_hv_generic.c, as a guest shows it.
 */
#ifndef KMCL_UIO_H
#define KMCL_UIO_H

#include <kmcl/endpoint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KMCL_UIO_NO_MONITOR 0xFF

/* A device of the guest's bus, as its kernel shows it. */
typedef struct KMCL_UIO_DEVICE {
    GUID InterfaceType;
    GUID InterfaceInstance;
    UINT32 ChannelId;
    UINT32 RingBytes;       /* of each ring, control page included; 0 unless uio_hv_generic has it */
    UINT64 Interrupts;      /* signals from the host that the kernel has counted */
    UINT64 Signals;         /* signals to the host by hypercall, likewise; not those of monitors */
    UINT16 SubChannels;     /* that are offered now */
    UINT8 MonitorId;        /* KMCL_UIO_NO_MONITOR: none */
    BOOLEAN Bound;          /* uio_hv_generic has it */
    BOOLEAN Open;           /* its channel is open, by a driver or a program */
    char Driver[64];        /* which driver has it, a string; empty: none. Longer names are cut. */
    char Node[64];          /* "/dev/uio0"; empty unless Bound */
} KMCL_UIO_DEVICE, *PKMCL_UIO_DEVICE;

/* Whether there is such a bus: hv_vmbus is loaded, and found its host. */
BOOLEAN KmclUioIsPresent(VOID);

/* Copies up to `Capacity` devices, by channel id, and stores in *Count how many there are. Any thread.
 *   STATUS_SUCCESS; STATUS_BUFFER_TOO_SMALL when *Count > Capacity (the first Capacity are copied);
 *   STATUS_INVALID_PARAMETER_1/_3 for NULL (Devices may be NULL when Capacity is 0);
 *   STATUS_OBJECT_NAME_NOT_FOUND   there is no bus. */
NTSTATUS KmclUioQueryDevices(PKMCL_UIO_DEVICE Devices, ULONG Capacity, PULONG Count);

/* Gives the device to uio_hv_generic, until KmclUioUnbind; other devices of its type stay where they are
 * (driver_override, not new_id). Any thread; waits for the kernel.
 *   STATUS_SUCCESS                 also when it had it already.
 *   STATUS_INVALID_PARAMETER_1     Instance is NULL.
 *   STATUS_OBJECT_NAME_NOT_FOUND   there is no bus.
 *   STATUS_NOT_FOUND               no such device.
 *   STATUS_ACCESS_DENIED           not allowed to write to sysfs.
 *   STATUS_NOT_SUPPORTED           uio_hv_generic is not loaded (modprobe uio_hv_generic), or does not
 *                                  take the device; the log tells which. The device is as before.
 *   STATUS_UNSUCCESSFUL            the kernel refuses otherwise; see the log. */
NTSTATUS KmclUioBind(const GUID *Instance);

/* Takes the device from uio_hv_generic, and lets the kernel find another driver. A program that has it open
 * loses its channel. Statuses as KmclUioBind's, and the one below. Beware of Linux 6.1 (seen with Debian's):
 * it forgets to take back the driver's callback for rescinds, and when the host takes the device away later,
 * while uio_hv_generic does not have it, the guest's kernel oopses. Bind it again before that.
 *   STATUS_DEVICE_NOT_READY        uio_hv_generic does not have it. */
NTSTATUS KmclUioUnbind(const GUID *Instance);

#ifdef __cplusplus
}
#endif

#endif /* KMCL_UIO_H */
