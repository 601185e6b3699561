/* kmcl/later.h - the functions of Microsoft's tables V2 to V5. Part of kmcl/kmcl.h.
 *
 * These are known by name only (KMCL reference 2.6): prototypes and meaning are kmcl's own, chosen to
 * be what the rest of KMCL makes one expect (docs/decisions). The rules of kmcl/kmcl.h hold: an Init
 * function is legal in the Init window only, and returns STATUS_INVALID_PARAMETER_1 otherwise, for
 * NULL, and at the wrong end. VmbChannelPacketGetClientContext (V2) is in kmcl/kmcl.h,
 * VmbChannelCreateGpadlFromPfnList (V4) in kmcl/gpadl.h.
 *
 * Callbacks with a context. An "Ex" setter takes one pointer more than its original and gives it to
 * the callbacks as their last argument; it is not interpreted. Of an original and its Ex setter the
 * later call counts.
 *
 * Sub-channels. A primary channel may be accompanied by sub-channels of the same interface type and
 * instance, numbered from 1, each with rings, packets and callbacks of its own. Both ends mark a
 * channel as a sub-channel with VmbChannelInitSetPrimaryChannel, then enable it once the primary is
 * open and the two drivers have agreed on it. A server's sub-channel can be offered only while its
 * primary is; a client's binds to the lowest-numbered sub-channel offer of its bound primary that is
 * free, and waits for one otherwise. A client's primary that closes, for whatever reason, first has
 * its open sub-channels closed: EvtVmbChannelClosed of each has returned before the primary's is
 * called. VmbChannelDisable of a server's primary disables its sub-channels first; none can be enabled
 * meanwhile.
 */
#ifndef KMCL_KMCL_H
#include <kmcl/kmcl.h> /* which includes this file where it belongs */
#endif
#ifndef KMCL_LATER_H
#define KMCL_LATER_H

#ifdef __cplusplus
extern "C" {
#endif

/* ==== Device objects (V2) ===================================================================== */

/* Client: the device object of the endpoint on whose bus the channel is bound to an offer, from
 * before EvtVmbChannelOpened until after EvtVmbChannelClosed. NULL while it is bound to none, and at
 * a server. Owned by the endpoint. <= DISPATCH, any thread. */
PDEVICE_OBJECT VmbChannelGetTargetDeviceObject(_In_ VMBCHANNEL Channel);

/* The device object that VmbChannelAllocate or VmbChannelInitialize was given; NULL for NULL.
 * <= DISPATCH, any thread. */
PDEVICE_OBJECT VmbChannelGetParentDeviceObject(_In_ VMBCHANNEL Channel);

/* ==== Bounce buffers (V3) ===================================================================== */

/* Client, Init: sets `BufferCount` buffers of `BufferSize` bytes aside, at once, in memory that the
 * server sees: data and GPADLs in them are used in place, where other memory has to be copied or is
 * refused. Each begins at a page and shares none. A repeated call replaces them; the earlier ones are
 * freed. Together at most 1 GiB.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2     BufferSize is 0.
 *   STATUS_INVALID_PARAMETER_3     BufferCount is 0, or together they are more than 1 GiB.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory; the earlier ones stay. */
NTSTATUS VmbChannelInitSetBounceBufferSizes(_In_ VMBCHANNEL Channel, _In_ UINT32 BufferSize,
                                            _In_ UINT32 BufferCount);

/* One of them, zeroed, each once; NULL when all are taken, none were set aside, or Channel is NULL.
 * It belongs to the driver until VmbChannelCleanup. <= DISPATCH, any thread. */
PVOID VmbChannelAllocateBounceBuffer(_In_ VMBCHANNEL Channel);

/* ==== Packets (V4, V5) ======================================================================== */

/* Init: how many packets of VmbPacketAllocate may exist at a time (1 to 65,536; the default is no
 * limit); beyond it VmbPacketAllocate returns NULL. VmbChannelEnable makes that many in advance and
 * they are kept until VmbChannelCleanup: up to the limit VmbPacketAllocate then cannot fail. Packets
 * of VmbPacketInitialize and those of synchronous requests do not count.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  Count is 0 or above 65,536.
 * VmbChannelEnable: STATUS_INSUFFICIENT_RESOURCES when there is no memory for them. */
NTSTATUS VmbChannelInitSetMaximumPacketCount(_In_ VMBCHANNEL Channel, _In_ UINT32 Count);

/* Init: bytes of the driver's own inside each outgoing packet object
 * (VmbPacketGetInlinePacketContextPointer); 0, the default, is none. VmbChannelSizeofPacket grows by
 * them.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  ContextSize is above 1 MiB. */
NTSTATUS VmbChannelInitSetInlinePacketContextSize(_In_ VMBCHANNEL Channel, _In_ UINT32 ContextSize);

/* The driver's bytes in this packet, aligned to 16: zeroed by VmbPacketAllocate and
 * VmbPacketInitialize, kept through sends, valid as long as the packet. NULL when their size was 0.
 * <= DISPATCH. */
PVOID VmbPacketGetInlinePacketContextPointer(_In_ VMBPACKET PacketObject);

/* ==== Callbacks with a context (V5) =========================================================== */

typedef VOID EVT_VMB_CHANNEL_PROCESS_PACKET_EX(_In_ VMBCHANNEL Channel,
                                               _In_ VMBPACKETCOMPLETION Packet,
                                               _In_reads_bytes_(BufferLength) PVOID Buffer,
                                               _In_ UINT32 BufferLength, _In_ UINT32 Flags,
                                               _In_opt_ PVOID Context);
typedef EVT_VMB_CHANNEL_PROCESS_PACKET_EX *PFN_VMB_CHANNEL_PROCESS_PACKET_EX;
typedef VOID EVT_VMB_CHANNEL_PROCESSING_COMPLETE_EX(_In_ VMBCHANNEL Channel,
                                                    _In_ UINT32 PacketsProcessed,
                                                    _In_opt_ PVOID Context);
typedef EVT_VMB_CHANNEL_PROCESSING_COMPLETE_EX *PFN_VMB_CHANNEL_PROCESSING_COMPLETE_EX;
typedef VOID EVT_VMB_PACKET_COMPLETION_ROUTINE_EX(_In_ VMBPACKET Packet, _In_ NTSTATUS Status,
                                                  _In_reads_bytes_opt_(BufferLength) PVOID Buffer,
                                                  _In_ UINT32 BufferLength,
                                                  _In_opt_ PVOID Context);
typedef EVT_VMB_PACKET_COMPLETION_ROUTINE_EX *PFN_VMB_PACKET_COMPLETION_ROUTINE_EX;
typedef NTSTATUS EVT_VMB_CHANNEL_SAVE_PACKET_EX(_In_ VMBCHANNEL Channel, _In_ VMBPACKET Packet,
                                                _Out_writes_bytes_opt_(SaveBufSize) PVOID SaveBuf,
                                                _In_ UINT32 SaveBufSize, _Out_ PUINT32 BytesNeeded,
                                                _In_opt_ PVOID Context);
typedef EVT_VMB_CHANNEL_SAVE_PACKET_EX *PFN_VMB_CHANNEL_SAVE_PACKET_EX;
typedef NTSTATUS EVT_VMB_CHANNEL_RESTORE_PACKET_EX(_In_ VMBCHANNEL Channel,
                                                   _In_reads_bytes_(LibBufSize) PVOID LibBuf,
                                                   _In_ UINT32 LibBufSize,
                                                   _In_reads_bytes_opt_(SaveBufSize) PVOID SaveBuf,
                                                   _In_ UINT32 SaveBufSize,
                                                   _In_opt_ PVOID Context);
typedef EVT_VMB_CHANNEL_RESTORE_PACKET_EX *PFN_VMB_CHANNEL_RESTORE_PACKET_EX;

/* Init: as VmbChannelInitSetProcessPacketCallbacks, for callbacks that take a context.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  ProcessPacketCallback is NULL. */
NTSTATUS VmbChannelInitSetProcessPacketCallbacksEx(
    _In_ VMBCHANNEL Channel, _In_ PFN_VMB_CHANNEL_PROCESS_PACKET_EX ProcessPacketCallback,
    _In_opt_ PFN_VMB_CHANNEL_PROCESSING_COMPLETE_EX ProcessingCompleteCallback,
    _In_opt_ PVOID Context);

/* As VmbPacketSetCompletionRoutine, for a routine that takes a context. */
VOID VmbPacketSetCompletionRoutineEx(_In_ VMBPACKET PacketObject,
                                     _In_ PFN_VMB_PACKET_COMPLETION_ROUTINE_EX CompletionRoutine,
                                     _In_opt_ PVOID Context);

/* Server, Init: as VmbServerChannelInitSetSaveRestorePacketCallbacks (kmcl/save.h), for callbacks
 * that take a context.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  SavePacketCallback is NULL.
 *   STATUS_INVALID_PARAMETER_3  RestorePacketCallback is NULL. */
NTSTATUS VmbServerChannelInitSetSaveRestorePacketCallbacksEx(
    _In_ VMBCHANNEL Channel, _In_ PFN_VMB_CHANNEL_SAVE_PACKET_EX SavePacketCallback,
    _In_ PFN_VMB_CHANNEL_RESTORE_PACKET_EX RestorePacketCallback, _In_opt_ PVOID Context);

/* ==== Channels in the caller's memory (V5) ==================================================== */

/* Bytes that VmbChannelInitialize needs. */
UINT32 VmbSizeofChannel(VOID);

/* As VmbChannelAllocate, in the caller's memory: ByteCount bytes at `Channel`, aligned to 16, which
 * is the handle then. VmbChannelCleanup undoes it; afterwards, also after a failure, the memory may
 * be used for anything else. (Rings and what belongs to the bus are elsewhere.) PASSIVE_LEVEL, any
 * thread; does not block.
 *   STATUS_SUCCESS                 the channel is Disabled.
 *   STATUS_INVALID_PARAMETER_1     ParentDeviceObject is NULL, or not that of an endpoint.
 *   STATUS_INVALID_PARAMETER_2     IsServer does not fit the endpoint.
 *   STATUS_INVALID_PARAMETER_3     Channel is NULL or not aligned.
 *   STATUS_INVALID_PARAMETER_4     ByteCount is below VmbSizeofChannel.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory for the rest. */
NTSTATUS VmbChannelInitialize(_In_ PDEVICE_OBJECT ParentDeviceObject, _In_ BOOLEAN IsServer,
                              _Out_writes_bytes_(ByteCount) VMBCHANNEL Channel,
                              _In_ UINT32 ByteCount);

/* ==== Threads (V5) ============================================================================ */

/* The share of a processor, in percent, that the channel's packet callbacks may take at
 * DISPATCH_LEVEL; 100, the default, is no limit. Time is counted as it passes; unused time is kept
 * for 10 ms. A channel that has used up its share is delivered at PASSIVE_LEVEL, from the next packet
 * on, until its ring is empty and for as long as the share is exceeded; order and batches are as
 * ever. In any state, from the next delivery on. <= DISPATCH, any thread.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1  Channel is NULL.
 *   STATUS_INVALID_PARAMETER_2  Percentage is 0 or above 100. */
NTSTATUS VmbChannelSetAllowableDpcCpuUsage(_In_ VMBCHANNEL Channel, _In_ UINT32 Percentage);

/* Client, Init: which of the endpoint's dispatch threads (DispatchThreads in kmcl/endpoint.h,
 * counted from 0) serves the channel, that is, where the server sends its bells. Without this call
 * the threads take turns.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  there is no such thread. */
NTSTATUS VmbClientChannelInitSetTargetProcessorIndex(_In_ VMBCHANNEL Channel,
                                                     _In_ UINT32 ProcessorIndex);

/* ==== Sub-channels (V5) ======================================================================= */

/* Init: makes Channel a sub-channel of PrimaryChannel, which is of the same device object and must
 * not be cleaned up before Channel. It takes the primary's interface type and instance, and at a
 * server its partition, as they are when Channel is enabled: no other target need be set. A server's
 * sub-channels of a primary are numbered in the order of these calls.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  PrimaryChannel is NULL, Channel itself, a sub-channel, or of another
 *                               device object; or Channel has sub-channels.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory.
 * VmbChannelEnable of a sub-channel: STATUS_INVALID_DEVICE_STATE when its primary is Disabled, or is
 * being disabled. */
NTSTATUS VmbChannelInitSetPrimaryChannel(_In_ VMBCHANNEL Channel, _In_ VMBCHANNEL PrimaryChannel);

/* ==== Function types (KMCL reference 2.2) ===================================================== */

typedef PDEVICE_OBJECT FN_VMB_CHANNEL_GET_TARGET_DEVICE_OBJECT(VMBCHANNEL);
typedef PDEVICE_OBJECT FN_VMB_CHANNEL_GET_PARENT_DEVICE_OBJECT(VMBCHANNEL);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_BOUNCE_BUFFER_SIZES(VMBCHANNEL, UINT32, UINT32);
typedef PVOID FN_VMB_CHANNEL_ALLOCATE_BOUNCE_BUFFER(VMBCHANNEL);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_COUNT(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_INLINE_PACKET_CONTEXT_SIZE(VMBCHANNEL, UINT32);
typedef PVOID FN_VMB_PACKET_GET_INLINE_PACKET_CONTEXT_POINTER(VMBPACKET);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS_EX(
    VMBCHANNEL, PFN_VMB_CHANNEL_PROCESS_PACKET_EX, PFN_VMB_CHANNEL_PROCESSING_COMPLETE_EX, PVOID);
typedef VOID FN_VMB_PACKET_SET_COMPLETION_ROUTINE_EX(VMBPACKET,
                                                     PFN_VMB_PACKET_COMPLETION_ROUTINE_EX, PVOID);
typedef NTSTATUS FN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS_EX(
    VMBCHANNEL, PFN_VMB_CHANNEL_SAVE_PACKET_EX, PFN_VMB_CHANNEL_RESTORE_PACKET_EX, PVOID);
typedef UINT32 FN_VMB_SIZEOF_CHANNEL(VOID);
typedef NTSTATUS FN_VMB_CHANNEL_INITIALIZE(PDEVICE_OBJECT, BOOLEAN, VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_SET_ALLOWABLE_DPC_CPU_USAGE(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PROCESSOR_INDEX(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_INIT_SET_PRIMARY_CHANNEL(VMBCHANNEL, VMBCHANNEL);

typedef FN_VMB_CHANNEL_GET_TARGET_DEVICE_OBJECT *PFN_VMB_CHANNEL_GET_TARGET_DEVICE_OBJECT;
typedef FN_VMB_CHANNEL_GET_PARENT_DEVICE_OBJECT *PFN_VMB_CHANNEL_GET_PARENT_DEVICE_OBJECT;
typedef FN_VMB_CHANNEL_INIT_SET_BOUNCE_BUFFER_SIZES *PFN_VMB_CHANNEL_INIT_SET_BOUNCE_BUFFER_SIZES;
typedef FN_VMB_CHANNEL_ALLOCATE_BOUNCE_BUFFER *PFN_VMB_CHANNEL_ALLOCATE_BOUNCE_BUFFER;
typedef FN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_COUNT *PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_COUNT;
typedef FN_VMB_CHANNEL_INIT_SET_INLINE_PACKET_CONTEXT_SIZE
    *PFN_VMB_CHANNEL_INIT_SET_INLINE_PACKET_CONTEXT_SIZE;
typedef FN_VMB_PACKET_GET_INLINE_PACKET_CONTEXT_POINTER
    *PFN_VMB_PACKET_GET_INLINE_PACKET_CONTEXT_POINTER;
typedef FN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS_EX
    *PFN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS_EX;
typedef FN_VMB_PACKET_SET_COMPLETION_ROUTINE_EX *PFN_VMB_PACKET_SET_COMPLETION_ROUTINE_EX;
typedef FN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS_EX
    *PFN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS_EX;
typedef FN_VMB_SIZEOF_CHANNEL *PFN_VMB_SIZEOF_CHANNEL;
typedef FN_VMB_CHANNEL_INITIALIZE *PFN_VMB_CHANNEL_INITIALIZE;
typedef FN_VMB_CHANNEL_SET_ALLOWABLE_DPC_CPU_USAGE *PFN_VMB_CHANNEL_SET_ALLOWABLE_DPC_CPU_USAGE;
typedef FN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PROCESSOR_INDEX
    *PFN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PROCESSOR_INDEX;
typedef FN_VMB_CHANNEL_INIT_SET_PRIMARY_CHANNEL *PFN_VMB_CHANNEL_INIT_SET_PRIMARY_CHANNEL;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_LATER_H */
