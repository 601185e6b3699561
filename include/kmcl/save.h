/* kmcl/save.h - save and restore of server channels (KMCL reference 9, 10.8). Part of kmcl/kmcl.h.
 *
 * A server saves a channel that is not running: what the library holds for it (packets that wait to
 * be sent, transactions that wait for the other end, completions that wait for room, a packet that
 * was deferred) and, for each outgoing packet, what the driver adds to it. The client keeps its end
 * of the channel and notices nothing: packets that it sends meanwhile wait in its ring.
 *
 *   save      VmbChannelPause, VmbChannelSaveBegin, VmbChannelSaveContinue until STATUS_SUCCESS,
 *             VmbChannelSaveEnd. Then VmbChannelStart, and everything goes on; or VmbChannelDisable.
 *   restore   VmbChannelAllocate, the same Init functions with the same values,
 *             VmbChannelRestoreFromBuffer until STATUS_SUCCESS, VmbChannelEnable, VmbChannelStart.
 *
 * VmbChannelDisable of a channel whose save was complete (and that was neither started nor closed
 * since) calls EvtVmbChannelClosed as ever, and packets complete with STATUS_DEVICE_REMOVED, but
 * the client is told nothing: its channel stays open, unattended, and waits for its successor. That
 * is the next channel enabled with the same partition, interface type and instance. It takes the
 * client's rings over as soon as it is enabled and restored; EvtVmbChannelOpened, and once it was
 * started EvtVmbChannelStarted and EvtVmbChannelPostStarted, follow as after an open. With
 * VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL it does not: the saved channel is revoked at the
 * client, which gets a new offer, and restored packets complete with STATUS_DEVICE_REMOVED.
 *
 * When the client has closed the channel since it was saved, the restored packets complete with
 * STATUS_DEVICE_REMOVED, and the channel is an ordinary offer that can be opened. GPADLs outlive a
 * save, under their handles; mappings do not: EvtVmbChannelOpened maps again.
 *
 * Not saved: pointers, counters, quota and level of delivery, and the client context of a deferred
 * packet (zeroed). Saved bytes may be kept, sent and read by another process on another machine
 * type; docs/save-format.md describes them. Only a process that holds the partition can restore
 * them: the same one, or one that took over the server (kmcl/handover.h).
 */
#ifndef KMCL_KMCL_H
#include <kmcl/kmcl.h> /* which includes this file where it belongs */
#endif
#ifndef KMCL_SAVE_H
#define KMCL_SAVE_H

#ifdef __cplusplus
extern "C" {
#endif

/* EvtVmbChannelSavePacket: what the driver wants to keep of an outgoing packet that is queued or
 * waits for its completion. Called inside VmbChannelSaveContinue, on its thread at PASSIVE_LEVEL,
 * for each such packet in send order: first with `SaveBuf` NULL and `SaveBufSize` 0. Success then
 * means that nothing is to be kept. A failure with *BytesNeeded set (it is 0 before) is followed by
 * a second call with a buffer of that size, which is to be filled. A failure with *BytesNeeded 0,
 * or of the second call, ends the save with that status. Never called more often: a repeated
 * VmbChannelSaveContinue uses the result (KMCL reference 9.3). */
typedef NTSTATUS EVT_VMB_CHANNEL_SAVE_PACKET(_In_ VMBCHANNEL Channel, _In_ VMBPACKET Packet,
                                             _Out_writes_bytes_opt_(SaveBufSize) PVOID SaveBuf,
                                             _In_ UINT32 SaveBufSize, _Out_ PUINT32 BytesNeeded);
typedef EVT_VMB_CHANNEL_SAVE_PACKET *PFN_VMB_CHANNEL_SAVE_PACKET;

/* EvtVmbChannelRestorePacket: a saved packet is to come back. Called inside
 * VmbChannelRestoreFromBuffer, on its thread at PASSIVE_LEVEL, in send order. The driver allocates
 * a packet of `Channel`, sets its completion routine and pointer, gives it and `LibBuf` to
 * VmbPacketRestore, exactly once, and rebuilds its own state from `SaveBuf`, which is NULL when
 * nothing was kept. Both buffers are the library's, are only to be read, and valid during the call.
 * A failure ends the restore with that status; a success without VmbPacketRestore ends it with
 * STATUS_INVALID_DEVICE_STATE (KMCL reference 9.5). */
typedef NTSTATUS EVT_VMB_CHANNEL_RESTORE_PACKET(_In_ VMBCHANNEL Channel,
                                                _In_reads_bytes_(LibBufSize) PVOID LibBuf,
                                                _In_ UINT32 LibBufSize,
                                                _In_reads_bytes_opt_(SaveBufSize) PVOID SaveBuf,
                                                _In_ UINT32 SaveBufSize);
typedef EVT_VMB_CHANNEL_RESTORE_PACKET *PFN_VMB_CHANNEL_RESTORE_PACKET;

/* Server, Init window: the driver's part in saving and restoring packets. Default: nothing is kept
 * beside the packets, and restored ones have the completion routine of VmbPacketAllocate, which
 * frees them (KMCL reference 9.6, 10.4).
 *   STATUS_SUCCESS              set.
 *   STATUS_INVALID_PARAMETER_1  Channel is NULL, a client's, or past its Init window.
 *   STATUS_INVALID_PARAMETER_2  SavePacketCallback is NULL.
 *   STATUS_INVALID_PARAMETER_3  RestorePacketCallback is NULL. */
NTSTATUS VmbServerChannelInitSetSaveRestorePacketCallbacks(
    _In_ VMBCHANNEL Channel, _In_ PFN_VMB_CHANNEL_SAVE_PACKET SavePacketCallback,
    _In_ PFN_VMB_CHANNEL_RESTORE_PACKET RestorePacketCallback);

/* Server: begins a save. From here to VmbChannelSaveEnd the channel holds still: nothing goes into
 * its ring, VmbChannelStart and what the client does (open, close) take effect afterwards, and
 * packets that are sent are queued and are not part of the save. VmbChannelDisable ends the save.
 * PASSIVE_LEVEL, not from a callback. Waits for state callbacks that already run.
 *   STATUS_SUCCESS                 begun; VmbChannelSaveEnd is owed.
 *   STATUS_INVALID_PARAMETER_1     Channel is NULL or a client's.
 *   STATUS_INVALID_DEVICE_STATE    Disabled, running (pause it first), or being saved already; or
 *                                  called from a callback.
 *   STATUS_NOT_SUPPORTED           a raw channel (kmcl/raw.h).
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
_Must_inspect_result_ NTSTATUS VmbChannelSaveBegin(_In_ VMBCHANNEL Channel);

/* Server: writes the next part of the save to `SaveBuffer`, in whole chunks, and runs
 * EvtVmbChannelSavePacket. PASSIVE_LEVEL, not from a callback. `SaveBuffer` may be NULL when
 * `SaveBufferSize` is 0. On every failure but STATUS_BUFFER_OVERFLOW *BytesFilled is 0.
 *   STATUS_SUCCESS                 *BytesFilled bytes were written, and that is all there is.
 *                                  *BytesRequired is 0.
 *   STATUS_BUFFER_OVERFLOW         *BytesFilled bytes were written, and there is more: call again,
 *                                  with at least *BytesRequired bytes. (Not an NT_SUCCESS.)
 *   STATUS_BUFFER_TOO_SMALL        nothing was written, and nothing is lost: call again, with at
 *                                  least *BytesRequired bytes.
 *   STATUS_INVALID_PARAMETER_1     Channel is NULL or a client's.
 *   STATUS_INVALID_PARAMETER_2     SaveBuffer is NULL and SaveBufferSize is not 0.
 *   STATUS_INVALID_PARAMETER_4/_5  BytesFilled / BytesRequired is NULL.
 *   STATUS_INVALID_DEVICE_STATE    no save was begun, or it is complete or has failed already; or
 *                                  called from a callback.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. This save has failed.
 *   any failure of EvtVmbChannelSavePacket; this save has failed. */
_Must_inspect_result_ NTSTATUS
VmbChannelSaveContinue(_In_ VMBCHANNEL Channel,
                       _Out_writes_bytes_to_opt_(SaveBufferSize, *BytesFilled) PVOID SaveBuffer,
                       _In_ ULONG SaveBufferSize, _Out_ PULONG BytesFilled,
                       _Out_ PULONG BytesRequired);

/* Server: ends a save, complete or not, and releases what it holds. The channel goes on as it was
 * asked to meanwhile. Without a save: nothing. PASSIVE_LEVEL, not from a callback; does not block,
 * but for a VmbChannelSaveContinue in another thread. */
VOID VmbChannelSaveEnd(_In_ VMBCHANNEL Channel);

/* Server: takes back what was saved. `Buffer` holds whole chunks, in the order of the save; they
 * may be divided into calls differently. It is borrowed for the call, which runs
 * EvtVmbChannelRestorePacket once `Buffer` was found good. After a failure the channel is as before
 * the first of these calls: packets that had been restored complete with STATUS_DEVICE_REMOVED,
 * inside this call. Legal while Disabled, and while Enabled before the first open. PASSIVE_LEVEL,
 * not from a callback.
 *   STATUS_SUCCESS                  complete. If Enabled, the channel opens as soon as it can.
 *   STATUS_MORE_PROCESSING_REQUIRED this part is in; more follows. (Not an NT_SUCCESS.)
 *   STATUS_INVALID_PARAMETER_1      Channel is NULL or a client's.
 *   STATUS_INVALID_PARAMETER_2      Buffer is NULL.
 *   STATUS_INVALID_DEVICE_STATE     in any other state, or restored already; called from a
 *                                   callback; or EvtVmbChannelRestorePacket did not restore.
 *   STATUS_NOT_SUPPORTED            a raw channel (kmcl/raw.h).
 *   STATUS_DATA_ERROR               not what VmbChannelSaveContinue wrote for a channel of this
 *                                   interface type and instance, maximum packet size and flags, or
 *                                   not all of it, or not in order.
 *   STATUS_REVISION_MISMATCH        written in a version of the format that is not known here.
 *   STATUS_INSUFFICIENT_RESOURCES   no memory.
 *   any failure of EvtVmbChannelRestorePacket. */
_Must_inspect_result_ NTSTATUS VmbChannelRestoreFromBuffer(_In_ VMBCHANNEL Channel,
                                                           _In_reads_bytes_(BufferSize) PVOID Buffer,
                                                           _In_ ULONG BufferSize);

/* Server, only inside EvtVmbChannelRestorePacket: makes an idle packet of that channel the one that
 * was saved. `Buffer` and `BufferSize` are LibBuf and LibBufSize, or a copy. On success the packet
 * counts as sent: its completion routine is called once, when it completes or is given up. On
 * failure it stays the driver's. Does not block.
 *   STATUS_SUCCESS               restored.
 *   STATUS_INVALID_PARAMETER_1   PacketObject is NULL, or has no completion routine.
 *   STATUS_INVALID_PARAMETER_2   Buffer is NULL.
 *   STATUS_INVALID_DEVICE_STATE  outside of the callback, for the second time in it, for another
 *                                channel's packet, or for one that is in flight.
 *   STATUS_DATA_ERROR            Buffer does not hold what the callback was given, or the packet
 *                                object is too small for it.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS VmbPacketRestore(_In_ VMBPACKET PacketObject, _In_reads_bytes_(BufferSize) PVOID Buffer,
                          _In_ ULONG BufferSize);

/* ==== Function types (KMCL reference 2.2) ===================================================== */

typedef NTSTATUS FN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS(
    VMBCHANNEL, PFN_VMB_CHANNEL_SAVE_PACKET, PFN_VMB_CHANNEL_RESTORE_PACKET);
typedef NTSTATUS FN_VMB_CHANNEL_SAVE_BEGIN(VMBCHANNEL);
typedef NTSTATUS FN_VMB_CHANNEL_SAVE_CONTINUE(VMBCHANNEL, PVOID, ULONG, PULONG, PULONG);
typedef VOID FN_VMB_CHANNEL_SAVE_END(VMBCHANNEL);
typedef NTSTATUS FN_VMB_CHANNEL_RESTORE_FROM_BUFFER(VMBCHANNEL, PVOID, ULONG);
typedef NTSTATUS FN_VMB_PACKET_RESTORE(VMBPACKET, PVOID, ULONG);

typedef FN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS
    *PFN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS;
typedef FN_VMB_CHANNEL_SAVE_BEGIN *PFN_VMB_CHANNEL_SAVE_BEGIN;
typedef FN_VMB_CHANNEL_SAVE_CONTINUE *PFN_VMB_CHANNEL_SAVE_CONTINUE;
typedef FN_VMB_CHANNEL_SAVE_END *PFN_VMB_CHANNEL_SAVE_END;
typedef FN_VMB_CHANNEL_RESTORE_FROM_BUFFER *PFN_VMB_CHANNEL_RESTORE_FROM_BUFFER;
typedef FN_VMB_PACKET_RESTORE *PFN_VMB_PACKET_RESTORE;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_SAVE_H */
