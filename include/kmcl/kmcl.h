/* kmcl/kmcl.h - the VMBus Kernel Mode Client Library for programs, and its manual.
 *
 * Names, types, values and behaviour are those of Microsoft's KMCL, so that a driver's sources
 * compile unchanged. "KMCL reference N.M" after a description names the section of the contract.
 * How a program gets a device object, and with it a bus, is in kmcl/endpoint.h.
 *
 * Glossary
 *   channel      A ring in each direction and a bell. The server offers it, the client opens it. It
 *                is named by two GUIDs: the interface type (which protocol) and the interface
 *                instance (which device). Both ends hold an own VMBCHANNEL for it.
 *   server       The end that offers (the host's side of VMBus).
 *   client       The end that opens, and gives the memory of both rings (the guest's side).
 *   packet       An object that holds one message while it is sent (VMBPACKET). It brings all
 *                memory the send needs, so a send cannot fail for want of it.
 *   transaction  A packet sent with WAIT_FOR_COMPLETION. It ends when the other end completes it.
 *   completion   The answer that ends a transaction; it may carry bytes.
 *   outstanding  Delivered to EvtVmbChannelProcessPacket, and neither completed nor failed yet.
 *   batch        Deliveries in a row, from the moment the incoming ring has something until it is
 *                found empty or delivery pauses for another reason.
 *   worker       The passive thread that runs one channel's state callbacks, one after the other.
 *
 * States (KMCL reference 4). A channel has a connection state and a run state.
 *   Disabled            Not on the bus: after VmbChannelAllocate and after VmbChannelDisable.
 *   Enabled             Offered (server), or bound to an offer or waiting for one (client).
 *   Started / Opened    Open: the client opened it and EvtVmbChannelOpened succeeded (server /
 *                       client).
 *   Stopped / Closed    It was open. A server's offer stands and can be opened again; a client
 *                       becomes Disabled as soon as EvtVmbChannelClosed has returned.
 *   Active, Paused      Whether incoming packets are delivered and outgoing ones placed in the
 *                       ring.
 * A run request, active or paused, is kept beside the state: an open channel becomes Active while
 * the request is active. It starts as active at a client and as paused at a server, and again so on
 * entering Disabled. VmbChannelStart and VmbChannelPause set it in any state.
 *
 * Init window (KMCL reference 4.2). The VmbChannelInitSet*, VmbClientChannelInitSet* and
 * VmbServerChannelInitSet* functions are legal from VmbChannelAllocate to the first successful
 * VmbChannelEnable. At any other time, for NULL, and at the wrong end they return
 * STATUS_INVALID_PARAMETER_1, and that check comes before all others. A call that fails changes
 * nothing; one that is repeated replaces the earlier value. Settings outlive Disable and Enable.
 * They are called at PASSIVE_LEVEL, from one thread at a time, and do not block.
 *
 * Levels (KMCL reference 0). PASSIVE_LEVEL is a thread that may block. DISPATCH_LEVEL is one that
 * must not. "<= DISPATCH" means either. A function marked "any thread" may run in several at once.
 *
 * Handles. Those given to a function must be valid, or NULL where it says so; a stale one is not
 * detected, unless the verifier is on (kmcl/verifier.h). Pointers to buffers are borrowed until the
 * call returns unless the text says otherwise.
 */
#ifndef KMCL_KMCL_H
#define KMCL_KMCL_H

#include <kmcl/nt.h>
#include <kmcl/wdk/mdl.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ==== Handles (KMCL reference 2.1) ============================================================ */

/* One end of a channel: VmbChannelAllocate to VmbChannelCleanup. */
DECLARE_HANDLE(VMBCHANNEL);
/* An outgoing packet: VmbPacketAllocate to VmbPacketFree, or as long as the caller's memory given
 * to VmbPacketInitialize. */
DECLARE_HANDLE(VMBPACKET);
/* One received packet, to retire it: its delivery to VmbChannelPacketComplete or
 * VmbChannelPacketFail. */
DECLARE_HANDLE(VMBPACKETCOMPLETION);

/* ==== Constants (KMCL reference 2.3) ========================================================== */

/* VmbPacketSend: the packet is complete when the other end has completed it, not once sent. */
#define VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION 0x1
/* External data: take the given length even beyond the MDL's bytes. Ignored by VmbPacketSend. */
#define VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH 0x2
/* VmbPacketSend: the buffer is pageable, so the call is made at PASSIVE_LEVEL. */
#define VMBUS_CHANNEL_FORMAT_FLAG_PAGED_BUFFER 0x4
#define VMBUS_CHANNEL_FORMAT_FLAGS 0x7

#define VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY 0x1
#define VMBUS_CHANNEL_GPADL_READ_ONLY VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY
#define VMBUS_CHANNEL_GPADL_FLAGS 0x1

/* VmbChannelInitSetFlags: a small header in every packet, no transactions. */
#define VMBUS_CHANNEL_INIT_FLAG_IS_PIPE 0x1
#define VMBUS_CHANNEL_INIT_FLAGS 0x1

/* VmbServerChannelInitSetFlags: to the server's own partition. */
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_LOOPBACK_OFFER 0x1
/* A device interface at the client, so that programs can open the channel. */
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE 0x2
/* Offered in pipe mode. */
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE 0x4
/* After a restore: a new channel instead of the saved one. */
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL 0x8
/* The channel carries sockets. */
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER 0x10
#define VMBUS_SERVER_CHANNEL_INIT_FLAGS 0x1F

/* EvtVmbChannelProcessPacket: the packet describes memory of the client's. At a server:
 * fetch it with VmbChannelPacketGetExternalData. */
#define VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA 0x1
#define VMBUS_CHANNEL_PROCESS_PACKET_FLAGS 0x1

#define VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY 0x1
#define VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAGS 0x1

/* Bytes that an offer can carry beside its GUIDs. */
#define VMBUS_SERVER_CHANNEL_INIT_MAXIMUM_OFFER_DATA 120

/* ==== Callbacks (KMCL reference 11) ===========================================================
 *
 * State callbacks run at PASSIVE_LEVEL on the channel's worker and may block. Those of one channel
 * never overlap, and may run before the call that caused them has returned. Every Opened that
 * succeeded is followed by exactly one Closed, every Started by exactly one Suspend (KMCL reference
 * 4.5).
 *
 * Packet callbacks run at DISPATCH_LEVEL or, when they were deferred or
 * VmbChannelSetIncomingProcessingAtPassive asks for it, at PASSIVE_LEVEL. Those of one channel
 * never overlap, and come in the order of the ring. Completion routines may overlap anything.
 *
 * From no callback: VmbChannelEnable, Disable, Start, Pause and Cleanup; a debug build aborts
 * (4.8).
 */

/* EvtVmbChannelOpened: the channel was opened. Packets sent before EvtVmbChannelStarted are queued.
 * A failure status undoes the open, and EvtVmbChannelClosed is not called for it: a server is
 * Enabled (or Stopped) again and the client's open fails, a client becomes Disabled. */
typedef NTSTATUS EVT_VMB_CHANNEL_OPENED(_In_ VMBCHANNEL Channel);
typedef EVT_VMB_CHANNEL_OPENED *PFN_VMB_CHANNEL_OPENED;

/* EvtVmbChannelClosed: the channel was closed, by either end. All outgoing packets have completed,
 * and all incoming ones were retired. */
typedef VOID EVT_VMB_CHANNEL_CLOSED(_In_ VMBCHANNEL Channel);
typedef EVT_VMB_CHANNEL_CLOSED *PFN_VMB_CHANNEL_CLOSED;

/* EvtVmbChannelSuspend: an Active channel is paused or closed. No EvtVmbChannelProcessPacket runs,
 * or will run before the next EvtVmbChannelStarted. Stop sending, and complete every outstanding
 * packet sooner or later: the pause or close waits for them without limit (4.7). */
typedef VOID EVT_VMB_CHANNEL_SUSPEND(_In_ VMBCHANNEL Channel);
typedef EVT_VMB_CHANNEL_SUSPEND *PFN_VMB_CHANNEL_SUSPEND;

/* EvtVmbChannelStarted: the channel is about to become Active; nothing was delivered yet. May send,
 * but must not wait for packets or completions: they come after it has returned. */
typedef VOID EVT_VMB_CHANNEL_STARTED(_In_ VMBCHANNEL Channel);
typedef EVT_VMB_CHANNEL_STARTED *PFN_VMB_CHANNEL_STARTED;

/* EvtVmbChannelPostStarted: delivery is on (EvtVmbChannelProcessPacket may run before, during and
 * after this call). A client may send synchronous requests here. The channel is Active when it
 * returns. */
typedef VOID EVT_VMB_CHANNEL_POST_STARTED(_In_ VMBCHANNEL Channel);
typedef EVT_VMB_CHANNEL_POST_STARTED *PFN_VMB_CHANNEL_POST_STARTED;

/* EvtVmbChannelProcessPacket: one call for each received packet. `Packet` retires it, here or later
 * on any thread, with exactly one VmbChannelPacketComplete, unless this call ends in
 * VmbChannelPacketDeferToPassive or VmbChannelPacketFail. `Buffer` holds the payload, is the
 * library's, is only to be read, and valid until the packet is retired. `BufferLength` is its
 * length in bytes, a multiple of 8: what the sender gave, rounded up, with zeroes behind it (5.4);
 * in pipe mode exactly what the sender gave, which may be nothing.
 * `Flags`: VMBUS_CHANNEL_PROCESS_PACKET_FLAG_*. */
typedef VOID EVT_VMB_CHANNEL_PROCESS_PACKET(_In_ VMBCHANNEL Channel,
                                            _In_ VMBPACKETCOMPLETION Packet,
                                            _In_reads_bytes_(BufferLength) PVOID Buffer,
                                            _In_ UINT32 BufferLength, _In_ UINT32 Flags);
typedef EVT_VMB_CHANNEL_PROCESS_PACKET *PFN_VMB_CHANNEL_PROCESS_PACKET;

/* EvtVmbChannelProcessingComplete: a batch has ended. Called once for each batch, after its last
 * EvtVmbChannelProcessPacket has returned and before the next batch begins; never with a count of
 * 0. The counts add up to the packets delivered. Packets of the batch may still be outstanding
 * (6.2). */
typedef VOID EVT_VMB_CHANNEL_PROCESSING_COMPLETE(_In_ VMBCHANNEL Channel,
                                                 _In_ UINT32 PacketsProcessed);
typedef EVT_VMB_CHANNEL_PROCESSING_COMPLETE *PFN_VMB_CHANNEL_PROCESSING_COMPLETE;

/* EvtVmbPacketCompletionRoutine: a packet that was sent is complete. Called exactly once for each
 * successful send, at <= DISPATCH, possibly before the send has returned. `Status`:
 *   STATUS_SUCCESS         it is in the ring (without WAIT_FOR_COMPLETION: Buffer NULL, length 0),
 *                          or the other end completed it (with WAIT_FOR_COMPLETION). `Buffer` then
 *                          holds the completion's bytes, the library's, valid during this call.
 *   STATUS_DEVICE_REMOVED  the channel was closed or disabled first (5.7); Buffer NULL, length 0.
 * The packet is the driver's again: it may be freed or sent again, also from here. */
typedef VOID EVT_VMB_PACKET_COMPLETION_ROUTINE(_In_ VMBPACKET Packet, _In_ NTSTATUS Status,
                                               _In_reads_bytes_opt_(BufferLength) PVOID Buffer,
                                               _In_ UINT32 BufferLength);
typedef EVT_VMB_PACKET_COMPLETION_ROUTINE *PFN_VMB_PACKET_COMPLETION_ROUTINE;

/* EvtChannelPnpFailure: client; an offer was found, but it could not be opened. Runs on the worker
 * at PASSIVE_LEVEL. The channel becomes Disabled; another thread may enable it again (C4). */
typedef VOID EVT_VMB_CHANNEL_PNP_FAILURE(_In_ VMBCHANNEL Channel, _In_ NTSTATUS FailureStatus);
typedef EVT_VMB_CHANNEL_PNP_FAILURE *PFN_VMB_CHANNEL_PNP_FAILURE;

/* The state callbacks of a channel. NULL: Opened succeeds, the others do nothing (2.4). */
typedef struct _VMB_CHANNEL_STATE_CHANGE_CALLBACKS {
    ULONG Version; /* 1 */
    ULONG Size;    /* sizeof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS) */
    PFN_VMB_CHANNEL_OPENED EvtChannelOpened;
    PFN_VMB_CHANNEL_CLOSED EvtChannelClosed;
    PFN_VMB_CHANNEL_SUSPEND EvtChannelSuspend;
    PFN_VMB_CHANNEL_STARTED EvtChannelStarted;
    PFN_VMB_CHANNEL_POST_STARTED EvtChannelPostStarted;
} VMB_CHANNEL_STATE_CHANGE_CALLBACKS, *PVMB_CHANNEL_STATE_CHANGE_CALLBACKS;

/* Zeroes *Callbacks and fills in Version and Size. */
FORCEINLINE VOID
VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(_Out_ PVMB_CHANNEL_STATE_CHANGE_CALLBACKS Callbacks) {
    RtlZeroMemory(Callbacks, sizeof(*Callbacks));
    Callbacks->Version = 1;
    Callbacks->Size = sizeof(*Callbacks);
}

/* ==== Channel lifetime and state (KMCL reference 10.1) ======================================== */

/* Makes one end of a channel, Disabled and with default settings. `ParentDeviceObject` names the
 * endpoint (kmcl/endpoint.h) and must outlive the channel. `IsServer`: TRUE for a server's end.
 * *Channel receives the handle, or NULL on failure; give it to VmbChannelCleanup in the end.
 * PASSIVE_LEVEL, any thread (also the PartitionArrived callback); does not block.
 *   STATUS_SUCCESS                 *Channel is Disabled.
 *   STATUS_INVALID_PARAMETER_1     ParentDeviceObject is NULL, or not that of an endpoint.
 *   STATUS_INVALID_PARAMETER_2     IsServer is TRUE for a client's device object, or FALSE for a
 *                                  server's.
 *   STATUS_INVALID_PARAMETER_3     Channel is NULL.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS VmbChannelAllocate(_In_ PDEVICE_OBJECT ParentDeviceObject, _In_ BOOLEAN IsServer,
                            _Out_ VMBCHANNEL *Channel);

/* Frees a Disabled channel; one that is not is disabled first, and that is logged. NULL is ignored.
 * All its packets must be back with the driver and be freed: packets left over are logged and
 * leaked. The handles of the channel and of its packets are invalid afterwards.
 * PASSIVE_LEVEL, not from a callback. Does not block for a Disabled channel. */
VOID VmbChannelCleanup(_In_ VMBCHANNEL Channel);

/* Brings the channel onto the bus and ends the Init window. A server publishes its offer; a client
 * binds to the offer it looks for, or waits for it, and opens. Returns without waiting for the
 * other end: what follows is told by the state callbacks. On failure no callback runs, nothing is
 * published, the channel stays Disabled, and the Init window stays as it was.
 * PASSIVE_LEVEL, not from a callback. A client whose channel was closed by the server calls
 * VmbChannelDisable before it enables again; that waits for EvtVmbChannelClosed.
 *   STATUS_SUCCESS                 Enabled.
 *   STATUS_INVALID_PARAMETER_1     Channel is NULL.
 *   STATUS_INVALID_DEVICE_STATE    not Disabled; or a server without interface id or bus handle.
 *   STATUS_NO_SUCH_DEVICE          no live bus behind the device object, or the partition is gone.
 *   STATUS_OBJECT_NAME_COLLISION   server: type and instance are offered to that partition already.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory, or the bus has no channel left. */
_Must_inspect_result_ NTSTATUS VmbChannelEnable(_In_ VMBCHANNEL Channel);

/* Takes the channel off the bus: a client closes it, a server revokes its offer. Returns when it is
 * torn down completely: EvtVmbChannelSuspend if it was Active, outgoing packets completed with
 * STATUS_DEVICE_REMOVED, every outstanding incoming packet retired by the driver,
 * EvtVmbChannelClosed if it was open. Disabled already: nothing. While another thread disables it:
 * waits for that. A server never waits for the client here; a client waits until its server has let
 * go of the rings, and so for the drain of the server's driver. PASSIVE_LEVEL, not from a
 * callback. */
VOID VmbChannelDisable(_In_ VMBCHANNEL Channel);

/* Sets the run request to active. An open, paused channel starts on its worker:
 * EvtVmbChannelStarted, delivery, EvtVmbChannelPostStarted. In other states only the request
 * changes. A server's channel carries nothing before this call. PASSIVE_LEVEL, not from a state
 * callback; does not block. */
VOID VmbChannelStart(_In_ VMBCHANNEL Channel);

/* Sets the run request to paused. An Active channel stops delivery, calls EvtVmbChannelSuspend and
 * waits until no incoming packet is outstanding; a start that is going on finishes first. In other
 * states only the request changes, and the call returns at once; on a Disabled channel the next
 * open will not start. PASSIVE_LEVEL, not from a state callback; blocks. */
VOID VmbChannelPause(_In_ VMBCHANNEL Channel);

/* Keeps one pointer for the driver, through Disable and Enable. Not interpreted and not freed.
 * <= DISPATCH, any thread. */
FASTCALL VOID VmbChannelSetPointer(_In_ VMBCHANNEL Channel, _In_opt_ PVOID Pointer);

/* The pointer given to VmbChannelSetPointer; NULL if there was none. <= DISPATCH, any thread. */
FASTCALL PVOID VmbChannelGetPointer(_In_ VMBCHANNEL Channel);

/* Copies the instance GUID: a server's as configured, a client's from the offer it is bound to, and
 * before there is one what it looks for. All zero when there is none. <= DISPATCH, any thread. */
VOID VmbChannelGetInterfaceInstance(_In_ VMBCHANNEL Channel, _Out_ LPGUID InterfaceInstance);

/* Client, once EvtVmbChannelOpened was called: what the server reserved with
 * VmbServerChannelInitSetMmioMegabytes, as a guest physical address and a size in bytes. 0 and 0
 * when nothing is reserved, or at a server. No address space stands behind the reservation in this
 * version: the address is always 0. PASSIVE_LEVEL. */
VOID VmbChannelGetMmioSpace(_In_ VMBCHANNEL Channel, _Out_ UINT64 *MmioAddress,
                            _Out_ UINT64 *MmioSize);

/* Client, while open (from EvtVmbChannelOpened to EvtVmbChannelClosed): how late the server may
 * notice what was sent, in units of 100 ns. 0, the default after each open: it is rung, which costs a
 * system call when it sleeps. Otherwise a bit in a shared page is set instead (VMBus reference 3.8),
 * and the server looks at it at that pace, at most every 50 us, which costs it time as long as the
 * channel is open. A channel whose offer has no monitor rings at once in any case.
 * *OriginalLatency receives the value before, on success. PASSIVE_LEVEL.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1   Channel is NULL or a server's.
 *   STATUS_INVALID_PARAMETER_3   OriginalLatency is NULL.
 *   STATUS_INVALID_DEVICE_STATE  not open. */
_Must_inspect_result_ NTSTATUS VmbChannelSetInterruptLatency(_In_ VMBCHANNEL Channel,
                                                             _In_ UINT16 Latency,
                                                             _Out_ PUINT16 OriginalLatency);

/* ==== Init functions, either end (KMCL reference 10.2) ========================================
 *
 * Each also returns STATUS_INVALID_PARAMETER_1 as the Init window says (top of this file).
 */

/* The longest payload, in bytes, that is sent or accepted inline; default 4096. Rings are made
 * large enough for it. A longer packet from the other end is malformed and stops delivery, as
 * VmbChannelPacketFail does. Packets keep the capacity that was in force when they were made.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  PacketSize is 0, or more than any ring can hold. */
NTSTATUS VmbChannelInitSetMaximumPacketSize(_In_ VMBCHANNEL Channel,
                                            _In_range_(>, 0) UINT32 PacketSize);

/* Limits of the data one packet may describe (kmcl/external_data.h): bytes, and MDLs in the chain. Rings
 * are made large enough, and packets get room for the description. Without this call only the ring and
 * what a packet can describe at all set the limit.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  DataSize is 0.
 *   STATUS_INVALID_PARAMETER_3  ChainLength is 0. */
NTSTATUS VmbChannelInitSetMaximumExternalData(_In_ VMBCHANNEL Channel,
                                              _In_range_(>, 0) UINT32 DataSize,
                                              _In_range_(>, 0) UINT32 ChainLength);

/* Bytes of the driver's own that come with each incoming packet (VmbChannelPacketGetClientContext);
 * 0, the default, is none.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  ContextSize is above 1 MiB. */
NTSTATUS VmbChannelInitSetClientContextSize(_In_ VMBCHANNEL Channel, _In_ UINT32 ContextSize);

/* Who receives packets, and optionally who is told of the end of each batch (KMCL reference 6.1,
 * 6.2). Without this call each packet is completed at once, with no bytes.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  ProcessPacketCallback is NULL. */
NTSTATUS VmbChannelInitSetProcessPacketCallbacks(
    _In_ VMBCHANNEL Channel, _In_ PFN_VMB_CHANNEL_PROCESS_PACKET ProcessPacketCallback,
    _In_opt_ PFN_VMB_CHANNEL_PROCESSING_COMPLETE ProcessingCompleteCallback);

/* Who is told of state changes. The structure is copied.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  NULL, or Version or Size is wrong. */
NTSTATUS VmbChannelInitSetStateChangeCallbacks(
    _In_ VMBCHANNEL Channel, _In_ PVMB_CHANNEL_STATE_CHANGE_CALLBACKS StateChangeCallbacks);

/* A short name for logs and counters, UTF-16. It is copied.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2     Name is NULL, has an odd Length, or a Length without a Buffer.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS VmbChannelInitSetFriendlyName(_In_ VMBCHANNEL Channel, _In_ PCUNICODE_STRING Name);

/* VMBUS_CHANNEL_INIT_FLAG_* bits; they replace the earlier ones.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  a bit outside of VMBUS_CHANNEL_INIT_FLAGS. */
NTSTATUS VmbChannelInitSetFlags(_In_ VMBCHANNEL Channel, _In_ UINT32 Flags);

/* ==== Init functions, client (KMCL reference 10.3) ============================================ */

/* Pages of 4 KiB for each ring as the client sees it, its control page included. Counts too small
 * for the maximum packet size are raised without a word. The default follows from that size, at
 * least 4.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  IncomingPageCount is 0.
 *   STATUS_INVALID_PARAMETER_3  OutgoingPageCount is 0. */
NTSTATUS VmbClientChannelInitSetRingBufferPageCount(_In_ VMBCHANNEL Channel,
                                                    _In_ UINT32 IncomingPageCount,
                                                    _In_ UINT32 OutgoingPageCount);

/* Which offer to open: by type and instance, or by type alone when InterfaceInstance is NULL (the
 * first offer that no other channel of this client has). `PnpFailureCallback` is told when an offer
 * was found but could not be opened. The GUIDs are copied.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  InterfaceType is NULL. */
NTSTATUS VmbClientChannelInitSetTargetPnp(_In_ VMBCHANNEL Channel, _In_ LPCGUID InterfaceType,
                                          _In_opt_ LPCGUID InterfaceInstance,
                                          _In_opt_ PFN_VMB_CHANNEL_PNP_FAILURE PnpFailureCallback);

/* ==== Init functions, server (KMCL reference 10.4) ============================================ */

/* VMBUS_SERVER_CHANNEL_INIT_FLAG_* bits; they replace the earlier ones.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  a bit outside of VMBUS_SERVER_CHANNEL_INIT_FLAGS. */
NTSTATUS VmbServerChannelInitSetFlags(_In_ VMBCHANNEL Channel, _In_ UINT32 Flags);

/* MMIO space to reserve at the client: megabytes that it needs, and more that would be welcome.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER  both are 0. */
NTSTATUS VmbServerChannelInitSetMmioMegabytes(_In_ VMBCHANNEL Channel,
                                              _In_range_(>, 0) UINT16 MmioMegabytes,
                                              _In_ UINT16 MmioMegabytesOptional);

/* Under which GUIDs (by value) the channel is offered. Required before VmbChannelEnable.
 *   STATUS_SUCCESS */
NTSTATUS VmbServerChannelInitSetTargetInterfaceId(_In_ VMBCHANNEL Channel, _In_ GUID InterfaceType,
                                                  _In_ GUID InterfaceInstance);

/* To which partition the channel is offered: a handle from PartitionArrived (kmcl/endpoint.h) or
 * from VmbConvertVmbusHandleToKernelHandle. The channel takes a reference of its own, so the latter
 * may be closed at once. Required before VmbChannelEnable.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  no such handle. */
NTSTATUS VmbServerChannelInitSetVmbusHandle(_In_ VMBCHANNEL Channel, _In_ HANDLE VmbusHandle);

/* The virtual trust level that may see the offer: 0 (default), 1 or 2.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  TargetVtl is above 2. */
NTSTATUS VmbServerChannelInitSetTargetVtl(_In_ VMBCHANNEL Channel, _In_ UINT8 TargetVtl);

/* A second handle to the same partition; the caller closes it with ZwClose. PASSIVE_LEVEL, any
 * thread.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_HANDLE          VmbusHandle is no partition handle.
 *   STATUS_INVALID_PARAMETER_2     KernelHandle is NULL.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS VmbConvertVmbusHandleToKernelHandle(_In_ HANDLE VmbusHandle, _Out_ PHANDLE KernelHandle);

/* ==== Outgoing packets (KMCL reference 5, 10.5) ===============================================
 *
 * All of these run at <= DISPATCH, on any thread, and do not block, unless they say so. A packet
 * itself is used by one thread at a time. It is the driver's, except from a send that succeeded
 * until its completion routine is called ("in flight").
 */

/* A packet that holds up to the channel's maximum packet size, or NULL for want of memory. Its
 * completion routine frees it, until another is set. Call it after the Init functions. */
VMBPACKET VmbPacketAllocate(_In_ VMBCHANNEL Channel);

/* Frees a packet of VmbPacketAllocate that is not in flight. NULL is ignored. Not for packets of
 * VmbPacketInitialize: their memory is the caller's. */
VOID VmbPacketFree(_In_ VMBPACKET VmbPacket);

/* Bytes that VmbPacketInitialize needs. Call it after the Init functions. */
UINT32 VmbChannelSizeofPacket(_In_ VMBCHANNEL Channel);

/* Makes a packet in the caller's memory: ByteCount bytes at `VmbPacket`, aligned to 16. It has no
 * completion routine: set one before sending. There is nothing to undo: the memory may be used for
 * anything else while the packet is not in flight.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1  Channel is NULL.
 *   STATUS_INVALID_PARAMETER_2  VmbPacket is NULL or not aligned.
 *   STATUS_INVALID_PARAMETER_3  ByteCount is below VmbChannelSizeofPacket. */
NTSTATUS VmbPacketInitialize(_In_ VMBCHANNEL Channel,
                             _Out_writes_bytes_(ByteCount) VMBPACKET VmbPacket,
                             _In_ UINT32 ByteCount);

/* Keeps one pointer for the driver, through sends. NULL at first. Not interpreted and not freed. */
FASTCALL VOID VmbPacketSetPointer(_In_ VMBPACKET PacketObject, _In_opt_ PVOID Pointer);
FASTCALL PVOID VmbPacketGetPointer(_In_ VMBPACKET PacketObject);

/* The channel the packet was made for. */
FASTCALL VMBCHANNEL VmbPacketGetChannel(_In_ VMBPACKET PacketObject);

/* Replaces the completion routine; sending again keeps it. From now on the driver frees the packet.
 * Not while the packet is in flight. NULL is not a routine: a send will refuse it. */
VOID VmbPacketSetCompletionRoutine(_In_ VMBPACKET PacketObject,
                                   _In_ PFN_VMB_PACKET_COMPLETION_ROUTINE CompletionRoutine);

/* Sends `BufferLength` bytes (0 is legal, with a NULL buffer). They are taken over before the call
 * returns. While the channel is not open, is paused or is closing, while the ring is full and while
 * others wait, the packet is queued: everything sent on a channel keeps its order (5.3). The
 * completion routine may run before the call returns. `Flags`:
 * VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION and ..._PAGED_BUFFER (PASSIVE_LEVEL);
 * ..._FORCE_MDL_LENGTH is ignored. On failure the packet stays the driver's and its routine is not
 * called.
 *   STATUS_SUCCESS               sent or queued.
 *   STATUS_INVALID_PARAMETER_1   PacketObject is NULL, or has no completion routine.
 *   STATUS_INVALID_PARAMETER_2   Buffer is NULL and BufferLength is not 0.
 *   STATUS_INVALID_PARAMETER_3   longer than the packet's capacity.
 *   STATUS_INVALID_PARAMETER_4   an ExternalDataMdl at a server or in pipe mode; it describes nothing,
 *                                more than the channel's limits allow, or than a packet can.
 *   STATUS_INVALID_PARAMETER_5   an unknown flag; WAIT_FOR_COMPLETION in pipe mode; an ExternalDataMdl
 *                                without WAIT_FOR_COMPLETION.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory to bounce what the ExternalDataMdl describes.
 *   STATUS_INVALID_DEVICE_STATE  the channel is Disabled, or the packet is in flight. */
NTSTATUS VmbPacketSend(_In_ VMBPACKET PacketObject, _In_reads_bytes_opt_(BufferLength) PVOID Buffer,
                       _In_ UINT32 BufferLength, _In_opt_ PMDL ExternalDataMdl, _In_ UINT32 Flags);

/* Sends, and waits for what VmbPacketSend's completion routine would tell (KMCL reference 5.6).
 * Timeout: NULL waits without limit; otherwise in units of 100 ns, negative from now, positive an
 * absolute system time (since 1601); a value of 0 never waits:
 *   0 without WAIT_FOR_COMPLETION  placed in the ring now, or STATUS_BUFFER_OVERFLOW. <= DISPATCH.
 *                                  The only form for a server.
 *   0 with it                      as above; then one look for the completion, else
 *                                  STATUS_CANCELLED.
 * All other forms run at PASSIVE_LEVEL and block; never call them from a packet callback, a
 * completion routine or EvtVmbChannelStarted, which they would wait for. *CompletionBufferSize: in
 * the capacity of CompletionBuffer, a multiple of 8; out, on success, the bytes written. Both may
 * be NULL.
 *   STATUS_SUCCESS              in the ring; with WAIT_FOR_COMPLETION, completed.
 *   STATUS_BUFFER_TOO_SMALL     completed, but the answer is longer: its first bytes were copied.
 *   STATUS_BUFFER_OVERFLOW      Timeout is 0 and there is no room now (ring full, packets queued,
 *                               not started); not queued.
 *   STATUS_CANCELLED            the time is up. A completion that comes later is dropped.
 *   STATUS_DEVICE_REMOVED       the channel is shutting down.
 *   STATUS_INVALID_DEVICE_STATE the channel is Disabled.
 *   STATUS_INVALID_PARAMETER_1  Channel is NULL.
 *   STATUS_INVALID_PARAMETER_2  Buffer is NULL and BufferSize is not 0.
 *   STATUS_INVALID_PARAMETER_3  longer than the maximum packet size.
 *   STATUS_INVALID_PARAMETER_4  as VmbPacketSend.
 *   STATUS_INVALID_PARAMETER_5  an unknown flag; WAIT_FOR_COMPLETION at a server or in pipe mode;
 *                               an ExternalDataMdl without it.
 *   STATUS_INVALID_PARAMETER_7  *CompletionBufferSize is not a multiple of 8.
 *   STATUS_INVALID_PARAMETER_8  server: Timeout is NULL or not 0.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory for a packet, or to bounce. */
NTSTATUS VmbChannelSendSynchronousRequest(
    _In_ VMBCHANNEL Channel, _In_reads_bytes_opt_(BufferSize) PVOID Buffer, _In_ UINT32 BufferSize,
    _In_opt_ PMDL ExternalDataMdl, _In_ UINT32 Flags,
    _Out_writes_bytes_to_opt_(*CompletionBufferSize, *CompletionBufferSize) PVOID CompletionBuffer,
    _Inout_opt_ PUINT32 CompletionBufferSize, _In_opt_ PLARGE_INTEGER Timeout);

/* ==== Incoming packets (KMCL reference 6, 10.6) =============================================== */

/* Retires a delivered packet: once for each, from its EvtVmbChannelProcessPacket on, in any order.
 * If the sender waits for it, `BufSize` bytes go back as the completion (at most the maximum packet
 * size; they are copied, and queued behind other packets while the ring is full). Otherwise they
 * are ignored, as they are once the channel is closed. The context and the packet's buffer are
 * invalid afterwards. <= DISPATCH, any thread; does not block. */
VOID VmbChannelPacketComplete(_In_ VMBPACKETCOMPLETION PacketCompletionContext,
                              _In_reads_bytes_opt_(BufSize) PVOID PacketCompletionBuffer,
                              _In_ UINT32 BufSize);

/* Only inside EvtVmbChannelProcessPacket: the packet is to be delivered again at PASSIVE_LEVEL,
 * before the ones behind it, with the same bytes, flags and client context. Touch neither context
 * nor buffer afterwards, and do not complete the packet for this call (KMCL reference 6.4). */
FASTCALL VOID VmbChannelPacketDeferToPassive(_In_ VMBPACKETCOMPLETION PacketCompletionContext);

/* Retires a malformed packet, without an answer, and stops delivery for good: nothing more is read
 * from the ring, completions included, until the channel is closed and opened again. The state
 * stays open. <= DISPATCH, any thread, before VmbChannelPacketComplete (KMCL reference 6.5). */
FASTCALL VOID VmbChannelPacketFail(_In_ VMBPACKETCOMPLETION PacketCompletionContext);

/* The driver's bytes of this packet (VmbChannelInitSetClientContextSize), aligned to 16, zeroed
 * when the packet is delivered first, kept when it is delivered again, valid until it is retired.
 * NULL when their size is 0. <= DISPATCH, any thread (KMCL reference 2.6, 6.6). */
PVOID VmbChannelPacketGetClientContext(_In_ VMBPACKETCOMPLETION PacketCompletionContext);

/* TRUE: later deliveries run at PASSIVE_LEVEL. FALSE, the default: at either level. In any state,
 * from the next delivery on. <= DISPATCH, any thread. */
VOID VmbChannelSetIncomingProcessingAtPassive(_In_ VMBCHANNEL Channel, _In_ BOOLEAN RequirePassive);

/* How many incoming packets may be outstanding; at the limit nothing is taken from the ring.
 * Default: no limit. 0 is ignored and logged. Raising it does not restart delivery: the next
 * completion does. In any state, <= DISPATCH, any thread (KMCL reference 6.6). */
VOID VmbChannelSetTransactionQuota(_In_ VMBCHANNEL Channel, _In_ UINT32 Quota);

/* ==== Function types (KMCL reference 2.2) ===================================================== */

typedef NTSTATUS FN_VMB_CHANNEL_ALLOCATE(PDEVICE_OBJECT, BOOLEAN, VMBCHANNEL *);
typedef VOID FN_VMB_CHANNEL_CLEANUP(VMBCHANNEL);
typedef NTSTATUS FN_VMB_CHANNEL_ENABLE(VMBCHANNEL);
typedef VOID FN_VMB_CHANNEL_DISABLE(VMBCHANNEL);
typedef VOID FN_VMB_CHANNEL_START(VMBCHANNEL);
typedef VOID FN_VMB_CHANNEL_PAUSE(VMBCHANNEL);
typedef FASTCALL VOID FN_VMB_CHANNEL_SET_POINTER(VMBCHANNEL, PVOID);
typedef FASTCALL PVOID FN_VMB_CHANNEL_GET_POINTER(VMBCHANNEL);
typedef VOID FN_VMB_CHANNEL_GET_INTERFACE_INSTANCE(VMBCHANNEL, LPGUID);
typedef VOID FN_VMB_CHANNEL_GET_MMIO_SPACE(VMBCHANNEL, UINT64 *, UINT64 *);
typedef NTSTATUS FN_VMB_CHANNEL_SET_INTERRUPT_LATENCY(VMBCHANNEL, UINT16, PUINT16);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_SIZE(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_MAXIMUM_EXTERNAL_DATA(VMBCHANNEL, UINT32, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_CLIENT_CONTEXT_SIZE(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS(
    VMBCHANNEL, PFN_VMB_CHANNEL_PROCESS_PACKET, PFN_VMB_CHANNEL_PROCESSING_COMPLETE);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_STATE_CHANGE_CALLBACKS(
    VMBCHANNEL, PVMB_CHANNEL_STATE_CHANGE_CALLBACKS);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_FRIENDLY_NAME(VMBCHANNEL, PCUNICODE_STRING);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_FLAGS(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CLIENT_CHANNEL_INIT_SET_RING_BUFFER_PAGE_COUNT(VMBCHANNEL, UINT32, UINT32);
typedef NTSTATUS FN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PNP(VMBCHANNEL, LPCGUID, LPCGUID,
                                                           PFN_VMB_CHANNEL_PNP_FAILURE);
typedef NTSTATUS FN_VMB_SERVER_CHANNEL_INIT_SET_FLAGS(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_SERVER_CHANNEL_INIT_SET_MMIO_MEGABYTES(VMBCHANNEL, UINT16, UINT16);
typedef NTSTATUS FN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_INTERFACE_ID(VMBCHANNEL, GUID, GUID);
typedef NTSTATUS FN_VMB_SERVER_CHANNEL_INIT_SET_VMBUS_HANDLE(VMBCHANNEL, HANDLE);
typedef NTSTATUS FN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_VTL(VMBCHANNEL, UINT8);
typedef NTSTATUS FN_VMB_CONVERT_VMBUS_HANDLE_TO_KERNEL_HANDLE(HANDLE, PHANDLE);
typedef VMBPACKET FN_VMB_PACKET_ALLOCATE(VMBCHANNEL);
typedef VOID FN_VMB_PACKET_FREE(VMBPACKET);
typedef UINT32 FN_VMB_CHANNEL_SIZEOF_PACKET(VMBCHANNEL);
typedef NTSTATUS FN_VMB_PACKET_INITIALIZE(VMBCHANNEL, VMBPACKET, UINT32);
typedef FASTCALL VOID FN_VMB_PACKET_SET_POINTER(VMBPACKET, PVOID);
typedef FASTCALL PVOID FN_VMB_PACKET_GET_POINTER(VMBPACKET);
typedef FASTCALL VMBCHANNEL FN_VMB_PACKET_GET_CHANNEL(VMBPACKET);
typedef VOID FN_VMB_PACKET_SET_COMPLETION_ROUTINE(VMBPACKET, PFN_VMB_PACKET_COMPLETION_ROUTINE);
typedef NTSTATUS FN_VMB_PACKET_SEND(VMBPACKET, PVOID, UINT32, PMDL, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_SEND_SYNCHRONOUS_REQUEST(VMBCHANNEL, PVOID, UINT32, PMDL, UINT32,
                                                         PVOID, PUINT32, PLARGE_INTEGER);
typedef VOID FN_VMB_CHANNEL_PACKET_COMPLETE(VMBPACKETCOMPLETION, PVOID, UINT32);
typedef FASTCALL VOID FN_VMB_CHANNEL_PACKET_DEFER_TO_PASSIVE(VMBPACKETCOMPLETION);
typedef FASTCALL VOID FN_VMB_CHANNEL_PACKET_FAIL(VMBPACKETCOMPLETION);
typedef PVOID FN_VMB_CHANNEL_PACKET_GET_CLIENT_CONTEXT(VMBPACKETCOMPLETION);
typedef VOID FN_VMB_CHANNEL_SET_INCOMING_PROCESSING_AT_PASSIVE(VMBCHANNEL, BOOLEAN);
typedef VOID FN_VMB_CHANNEL_SET_TRANSACTION_QUOTA(VMBCHANNEL, UINT32);

typedef FN_VMB_CHANNEL_ALLOCATE *PFN_VMB_CHANNEL_ALLOCATE;
typedef FN_VMB_CHANNEL_CLEANUP *PFN_VMB_CHANNEL_CLEANUP;
typedef FN_VMB_CHANNEL_ENABLE *PFN_VMB_CHANNEL_ENABLE;
typedef FN_VMB_CHANNEL_DISABLE *PFN_VMB_CHANNEL_DISABLE;
typedef FN_VMB_CHANNEL_START *PFN_VMB_CHANNEL_START;
typedef FN_VMB_CHANNEL_PAUSE *PFN_VMB_CHANNEL_PAUSE;
typedef FN_VMB_CHANNEL_SET_POINTER *PFN_VMB_CHANNEL_SET_POINTER;
typedef FN_VMB_CHANNEL_GET_POINTER *PFN_VMB_CHANNEL_GET_POINTER;
typedef FN_VMB_CHANNEL_GET_INTERFACE_INSTANCE *PFN_VMB_CHANNEL_GET_INTERFACE_INSTANCE;
typedef FN_VMB_CHANNEL_GET_MMIO_SPACE *PFN_VMB_CHANNEL_GET_MMIO_SPACE;
typedef FN_VMB_CHANNEL_SET_INTERRUPT_LATENCY *PFN_VMB_CHANNEL_SET_INTERRUPT_LATENCY;
typedef FN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_SIZE *PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_SIZE;
typedef FN_VMB_CHANNEL_INIT_SET_MAXIMUM_EXTERNAL_DATA
    *PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_EXTERNAL_DATA;
typedef FN_VMB_CHANNEL_INIT_SET_CLIENT_CONTEXT_SIZE *PFN_VMB_CHANNEL_INIT_SET_CLIENT_CONTEXT_SIZE;
typedef FN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS
    *PFN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS;
typedef FN_VMB_CHANNEL_INIT_SET_STATE_CHANGE_CALLBACKS
    *PFN_VMB_CHANNEL_INIT_SET_STATE_CHANGE_CALLBACKS;
typedef FN_VMB_CHANNEL_INIT_SET_FRIENDLY_NAME *PFN_VMB_CHANNEL_INIT_SET_FRIENDLY_NAME;
typedef FN_VMB_CHANNEL_INIT_SET_FLAGS *PFN_VMB_CHANNEL_INIT_SET_FLAGS;
typedef FN_VMB_CLIENT_CHANNEL_INIT_SET_RING_BUFFER_PAGE_COUNT
    *PFN_VMB_CLIENT_CHANNEL_INIT_SET_RING_BUFFER_PAGE_COUNT;
typedef FN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PNP *PFN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PNP;
typedef FN_VMB_SERVER_CHANNEL_INIT_SET_FLAGS *PFN_VMB_SERVER_CHANNEL_INIT_SET_FLAGS;
typedef FN_VMB_SERVER_CHANNEL_INIT_SET_MMIO_MEGABYTES
    *PFN_VMB_SERVER_CHANNEL_INIT_SET_MMIO_MEGABYTES;
typedef FN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_INTERFACE_ID
    *PFN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_INTERFACE_ID;
typedef FN_VMB_SERVER_CHANNEL_INIT_SET_VMBUS_HANDLE *PFN_VMB_SERVER_CHANNEL_INIT_SET_VMBUS_HANDLE;
typedef FN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_VTL *PFN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_VTL;
typedef FN_VMB_CONVERT_VMBUS_HANDLE_TO_KERNEL_HANDLE *PFN_VMB_CONVERT_VMBUS_HANDLE_TO_KERNEL_HANDLE;
typedef FN_VMB_PACKET_ALLOCATE *PFN_VMB_PACKET_ALLOCATE;
typedef FN_VMB_PACKET_FREE *PFN_VMB_PACKET_FREE;
typedef FN_VMB_CHANNEL_SIZEOF_PACKET *PFN_VMB_CHANNEL_SIZEOF_PACKET;
typedef FN_VMB_PACKET_INITIALIZE *PFN_VMB_PACKET_INITIALIZE;
typedef FN_VMB_PACKET_SET_POINTER *PFN_VMB_PACKET_SET_POINTER;
typedef FN_VMB_PACKET_GET_POINTER *PFN_VMB_PACKET_GET_POINTER;
typedef FN_VMB_PACKET_GET_CHANNEL *PFN_VMB_PACKET_GET_CHANNEL;
typedef FN_VMB_PACKET_SET_COMPLETION_ROUTINE *PFN_VMB_PACKET_SET_COMPLETION_ROUTINE;
typedef FN_VMB_PACKET_SEND *PFN_VMB_PACKET_SEND;
typedef FN_VMB_CHANNEL_SEND_SYNCHRONOUS_REQUEST *PFN_VMB_CHANNEL_SEND_SYNCHRONOUS_REQUEST;
typedef FN_VMB_CHANNEL_PACKET_COMPLETE *PFN_VMB_CHANNEL_PACKET_COMPLETE;
typedef FN_VMB_CHANNEL_PACKET_DEFER_TO_PASSIVE *PFN_VMB_CHANNEL_PACKET_DEFER_TO_PASSIVE;
typedef FN_VMB_CHANNEL_PACKET_FAIL *PFN_VMB_CHANNEL_PACKET_FAIL;
typedef FN_VMB_CHANNEL_PACKET_GET_CLIENT_CONTEXT *PFN_VMB_CHANNEL_PACKET_GET_CLIENT_CONTEXT;
typedef FN_VMB_CHANNEL_SET_INCOMING_PROCESSING_AT_PASSIVE
    *PFN_VMB_CHANNEL_SET_INCOMING_PROCESSING_AT_PASSIVE;
typedef FN_VMB_CHANNEL_SET_TRANSACTION_QUOTA *PFN_VMB_CHANNEL_SET_TRANSACTION_QUOTA;

#ifdef __cplusplus
} /* extern "C" */
#endif

#include <kmcl/external_data.h>
#include <kmcl/gpadl.h>
#include <kmcl/later.h>
#include <kmcl/save.h>
/* All of them in tables. */
#include <kmcl/interface.h>

#endif /* KMCL_KMCL_H */
