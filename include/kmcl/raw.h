/* kmcl/raw.h - raw mode: a channel whose owner works on its rings itself.
 *
 * An extension of kmcl, for the lowest latency: the library's queue management is suppressed (KMCL
 * reference 6.1, 12.23). The owner's own thread looks at the incoming ring as often as it likes,
 * and writes the outgoing one; no thread of the library stands between, nothing is queued, matched
 * or copied but by these calls, and packet callbacks are never called. Everything else is as
 * always: Init functions, Enable, Disable, Start, Pause, and the state callbacks in their order.
 * The other end cannot tell the difference; it may be raw or not.
 *
 * A raw channel's life
 *   VmbChannelAllocate, Init functions, KmclChannelInitSetRaw, VmbChannelEnable.
 *   EvtVmbChannelStarted: the calls below work from now on, also inside of this callback. Tell your
 *     thread to begin.
 *   EvtVmbChannelSuspend: KmclRawPeek, Read, Skip, Release, Arm and Wait return
 *     STATUS_DEVICE_REMOVED from before this callback on, and who waits is woken; KmclRawWrite and
 *     Flush work until it has returned, so that answers can still go out. Tell your thread to stop.
 *     A call that runs on another thread at that moment is waited for; it is never left with memory
 *     that has gone.
 *   Pause and Start: the rings keep what is in them. What was written and not flushed is sent by
 *     the next flush.
 *   VmbChannelCleanup: no thread may be inside of a call on this channel, or make one, any more.
 *
 * Threads. Peek, Read, Skip and Release are the incoming direction, Write and Flush the outgoing
 * one; Arm and Wait belong to the directions they name. Each direction is used by one thread at a
 * time (STATUS_INVALID_DEVICE_STATE when two calls meet); the two may be different threads. Any
 * level, callbacks included, but for Wait. None allocates memory. None makes a system call, except:
 * ringing a peer that sleeps (Flush, Release), and Arm and Wait.
 *
 * What a raw channel does not have: VmbPacketSend and VmbChannelSendSynchronousRequest return
 * STATUS_INVALID_DEVICE_STATE, VmbChannelSaveBegin STATUS_NOT_SUPPORTED; no completion is matched
 * with its request, and transaction ids are the owner's to choose; in pipe mode
 * (VMBUS_CHANNEL_INIT_FLAG_IS_PIPE) the owner writes and reads the 8 bytes of pipe header itself.
 * Maximum packet size, client context, transaction quota and
 * VmbChannelSetIncomingProcessingAtPassive do nothing, except that the default size of the rings
 * follows from the first.
 *
 * Statuses that every call but KmclChannelInitSetRaw and KmclRawGetDescriptor may return:
 *   STATUS_INVALID_PARAMETER_1   Channel is NULL, or not raw.
 *   STATUS_DEVICE_REMOVED        not between Started and Suspend, as told above.
 *   STATUS_INVALID_DEVICE_STATE  another thread is inside a call of this direction.
 *   STATUS_DATA_ERROR            the other end has broken the ring's rules. Final: the channel is
 *                                closed as if the other end had closed it (EvtVmbChannelSuspend
 *                                follows).
 */
#ifndef KMCL_RAW_H
#define KMCL_RAW_H

#include <kmcl/kmcl.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef STATUS_NO_MORE_ENTRIES
#define STATUS_NO_MORE_ENTRIES ((NTSTATUS)0x8000001A)
#endif

/* Packet types, as on the wire. Others may be received (external data, for example, is 9); their
 * type-specific header is the owner's to read, and to mistrust. */
#define KMCL_RAW_DATA 6u        /* data in-band */
#define KMCL_RAW_COMPLETION 11u /* ends the transaction of that id at the other end */

/* Flag of a data packet: the other end is to answer with a completion of the same id. */
#define KMCL_RAW_FLAG_COMPLETION_REQUESTED 0x1u

/* One packet of the incoming ring. */
typedef struct KMCL_RAW_PACKET {
    UINT16 Type;          /* KMCL_RAW_DATA, KMCL_RAW_COMPLETION, ... */
    UINT16 Flags;         /* KMCL_RAW_FLAG_*; other bits are 0 */
    UINT32 HeaderLength;  /* bytes at Header: 0 for the two types above, unless the sender is odd */
    UINT64 TransactionId; /* as the sender chose it */
    PVOID Header;         /* type-specific; not checked in any way */
    PVOID Payload;
    UINT32 PayloadLength; /* a multiple of 8: what the sender gave, rounded up */
    UINT32 Reserved;      /* 0 */
} KMCL_RAW_PACKET, *PKMCL_RAW_PACKET;

/* Makes the channel raw, for ever. In the Init window (KMCL reference 4.2); calling it again
 * changes nothing. PASSIVE_LEVEL.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1     Channel is NULL, or the Init window is closed.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory or descriptors (it takes two). */
NTSTATUS KmclChannelInitSetRaw(_In_ VMBCHANNEL Channel);

/* ---- Incoming ------------------------------------------------------------------------------- */

/* Shows the next packet where it lies in the ring, without a copy, and does not go on: the next
 * call shows it again. Type, flags, id and the lengths were copied out and checked; they hold. The
 * bytes at Header and Payload are memory that the other end can still write, whenever it likes:
 * read each of them once, into a variable, before you check it, and never act on a second reading.
 * They stay in place until KmclRawRelease, Arm or Wait after KmclRawSkip, or until
 * EvtVmbChannelSuspend has returned; after a close they are not mapped any more. If that is too
 * sharp, KmclRawRead.
 *   STATUS_SUCCESS              *Packet is filled in.
 *   STATUS_NO_MORE_ENTRIES      the ring is empty.
 *   STATUS_INVALID_PARAMETER_2  Packet is NULL. */
NTSTATUS KmclRawPeek(_In_ VMBCHANNEL Channel, _Out_ PKMCL_RAW_PACKET Packet);

/* Goes behind the packet that KmclRawPeek has shown. Its space is not given back yet.
 *   STATUS_SUCCESS
 *   STATUS_NO_MORE_ENTRIES  nothing was peeked since the last Skip or Read. */
NTSTATUS KmclRawSkip(_In_ VMBCHANNEL Channel);

/* Copies the next packet to Buffer, header first, and goes on. Header and Payload then point into
 * Buffer (8-byte aligned is best, not required), which is private: nobody can change it any more.
 * The space in the ring is not given back yet.
 *   STATUS_SUCCESS              *Packet is filled in.
 *   STATUS_NO_MORE_ENTRIES      the ring is empty.
 *   STATUS_BUFFER_TOO_SMALL     header and payload are longer than BufferLength. The packet stays
 *                               the next one; KmclRawPeek tells its lengths.
 *   STATUS_INVALID_PARAMETER_2  Buffer is NULL and BufferLength is not 0.
 *   STATUS_INVALID_PARAMETER_4  Packet is NULL. */
NTSTATUS KmclRawRead(_In_ VMBCHANNEL Channel, _Out_writes_bytes_(BufferLength) PVOID Buffer,
                     _In_ UINT32 BufferLength, _Out_ PKMCL_RAW_PACKET Packet);

/* Gives the space of everything read and skipped back to the other end, and rings it if it waits
 * for space. Once for a batch is enough; an eighth of the ring is a good batch.
 *   STATUS_SUCCESS */
NTSTATUS KmclRawRelease(_In_ VMBCHANNEL Channel);

/* ---- Outgoing ------------------------------------------------------------------------------- */

/* Writes one packet into the ring, behind those that are not flushed yet. Payload is copied before
 * the call returns. The other end sees it after KmclRawFlush.
 *   STATUS_SUCCESS
 *   STATUS_BUFFER_OVERFLOW      no room now; nothing was written. Flush, then wait for room.
 *   STATUS_INVALID_PARAMETER_2  Type is neither KMCL_RAW_DATA nor KMCL_RAW_COMPLETION.
 *   STATUS_INVALID_PARAMETER_3  an unknown flag; or a flag of a completion.
 *   STATUS_INVALID_PARAMETER_5  Payload is NULL and PayloadLength is not 0.
 *   STATUS_INVALID_PARAMETER_6  longer than the ring, or a packet, can ever hold. */
NTSTATUS KmclRawWrite(_In_ VMBCHANNEL Channel, _In_ UINT16 Type, _In_ UINT16 Flags,
                      _In_ UINT64 TransactionId, _In_reads_bytes_opt_(PayloadLength) PVOID Payload,
                      _In_ UINT32 PayloadLength);

/* Shows the other end everything written since the last call, with one store, and rings it if it
 * sleeps. Nothing new: nothing happens.
 *   STATUS_SUCCESS */
NTSTATUS KmclRawFlush(_In_ VMBCHANNEL Channel);

/* How many bytes of packets the outgoing ring holds in all, and how many of those that were flushed the
 * other end has not given back: a packet takes its payload, rounded up to 8, and 24 bytes more. Of the
 * ring 8 bytes are never used. An end that reads may give space back late, when it finds its ring empty.
 * Counts as a call of the outgoing direction.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_2  RingBytes is NULL.
 *   STATUS_INVALID_PARAMETER_3  UntakenBytes is NULL. */
NTSTATUS KmclRawQueryOutgoing(_In_ VMBCHANNEL Channel, _Out_ PUINT32 RingBytes,
                              _Out_ PUINT32 UntakenBytes);

/* ---- Sleeping ------------------------------------------------------------------------------- */

#define KMCL_RAW_INCOMING 0x1u /* until there is a packet; releases first */
#define KMCL_RAW_OUTGOING 0x2u /* until there is room for a packet of that length; flushes first */
#define KMCL_RAW_DIRECTIONS 0x3u

/* Sleeps until one of the directions can go on. A bell comes by way of the endpoint's dispatch
 * thread, so this takes a thread switch more than a callback would; a busy owner polls with
 * KmclRawPeek instead, and comes here when that was in vain for long enough. `Timeout` as for
 * VmbChannelSendSynchronousRequest: NULL waits without limit; units of 100 ns, negative from now,
 * positive an absolute system time; 0 only looks. PASSIVE_LEVEL, not from a callback: Suspend could
 * not be told.
 *   STATUS_SUCCESS              one of them can go on.
 *   STATUS_TIMEOUT              the time is up.
 *   STATUS_INVALID_PARAMETER_2  no direction, or an unknown bit.
 *   STATUS_INVALID_PARAMETER_3  room for a packet that the ring can never hold. */
NTSTATUS KmclRawWait(_In_ VMBCHANNEL Channel, _In_ UINT32 Directions, _In_ UINT32 PayloadLength,
                     _In_opt_ PLARGE_INTEGER Timeout);

/* The last step before sleeping on the descriptors oneself, with poll or epoll (level-triggered).
 *   STATUS_SUCCESS                   nothing to do: sleep. The descriptor of each direction named
 *                                    becomes readable when it can go on, or the channel is
 *                                    suspended. It may also do so for no reason; then arm again.
 *   STATUS_MORE_PROCESSING_REQUIRED  one of them can go on now: do not sleep.
 *   STATUS_INVALID_PARAMETER_2, _3   as KmclRawWait. */
NTSTATUS KmclRawArm(_In_ VMBCHANNEL Channel, _In_ UINT32 Directions, _In_ UINT32 PayloadLength);

/* The descriptor for KmclRawArm, of KMCL_RAW_INCOMING or KMCL_RAW_OUTGOING, or -1 for anything else
 * and for a channel that is not raw. It is the channel's, from KmclChannelInitSetRaw to
 * VmbChannelCleanup: poll it, but neither read nor close it. From Suspend to the next Started it is
 * readable. Any state, any thread. */
int KmclRawGetDescriptor(_In_ VMBCHANNEL Channel, _In_ UINT32 Direction);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_RAW_H */
