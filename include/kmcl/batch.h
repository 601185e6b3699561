/* kmcl/batch.h - several packets at once.
 *
 * Each VmbPacketSend shows its packet to the other end, and rings for it if need be. Between
 * processors the showing costs more than the writing of a short packet, so whoever has several to
 * send at the same time sends them together. (What EvtVmbChannelProcessPacket,
 * EvtVmbChannelProcessingComplete and completion routines send on their own channel at
 * DISPATCH_LEVEL is shown together in any case, when the packets that have arrived are dealt with:
 * at most 32 packets, or an eighth of the ring, and not where callbacks take microseconds.)
 *
 * An extension of kmcl: Microsoft's library has no such function.
 */
#ifndef KMCL_BATCH_H
#define KMCL_BATCH_H

#include <kmcl/kmcl.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sends Count packets, in their order: for each i what VmbPacketSend(Packets[i], Buffers[i],
 * BufferLengths[i], NULL, Flags) does, but they are shown to the other end together, up to 32 at a
 * time, with at most one signal for them. Nothing is held back when the function returns, unless
 * VmbPacketSend would have held it back (above).
 *
 * Stops at the first packet that VmbPacketSend would refuse. Those before it are sent, and their
 * completion routines are or will be called; that one and those behind it remain the caller's.
 * *Sent receives the number of packets that were sent, Count on success; Sent may be NULL. Packets
 * in one call may belong to several channels. A packet must not stand in the call twice, unless it
 * wants no completion and finds room.
 *
 * The three arrays are the caller's. They are read until the function returns, and completion
 * routines of packets without completion are called before that; so routines must leave the arrays
 * alone. Buffers are copied. Any thread, any level up to DISPATCH_LEVEL, as VmbPacketSend.
 *   STATUS_SUCCESS               all are sent.
 *   STATUS_INVALID_PARAMETER_1   Packets is NULL, or Packets[*Sent] is, or has no completion routine.
 *   STATUS_INVALID_PARAMETER_2   Buffers is NULL, or Buffers[*Sent] is and its length is not 0.
 *   STATUS_INVALID_PARAMETER_3   BufferLengths is NULL, or BufferLengths[*Sent] is more than the
 *                                packet's capacity, or than the ring can ever hold.
 *   STATUS_INVALID_PARAMETER_5   Flags has unknown bits, or asks for completions on a pipe.
 *   STATUS_INVALID_DEVICE_STATE  and others: as VmbPacketSend, of Packets[*Sent].
 * Where Count is 0 nothing but STATUS_SUCCESS comes of it. */
NTSTATUS KmclPacketSendBatch(_In_reads_(Count) const VMBPACKET* Packets,
                             _In_reads_(Count) const PVOID* Buffers,
                             _In_reads_(Count) const UINT32* BufferLengths, _In_ UINT32 Count,
                             _In_ UINT32 Flags, _Out_opt_ PUINT32 Sent);

#ifdef __cplusplus
}
#endif

#endif /* KMCL_BATCH_H */
