/* kmcl/external_data.h - memory that a packet describes instead of carrying (KMCL reference 5.5, 7).
 * Part of kmcl/kmcl.h.
 *
 * A client's packet can describe memory by MDLs or page numbers. The server's driver gets an MDL for
 * it, maps it, reads and writes it, and completes the packet; what it wrote is then in the client's
 * memory. VmbPacketSend and VmbChannelSendSynchronousRequest describe a whole chain, the functions here
 * a part of one, or pages.
 *
 * Any memory can be described. What ExAllocatePool gave (nonpaged; kmcl/wdk/pool.h) is used in place.
 * Any other memory is bounced: its bytes are copied when the packet is sent, and copied back before the
 * completion routine is called (or the synchronous request returns), except those of an MDL that was
 * locked for reading (IoReadAccess). The server sees the same: one MDL for each MDL of the chain, with
 * the same offset in its first page.
 *
 * The memory stays as it is until the packet has completed; the MDLs and page numbers themselves may go
 * when the send returns. After a request that was cancelled (a timeout, or the channel was closed), the
 * server may still be using memory that is used in place: do not reuse it before the late completion, or
 * before EvtVmbChannelClosed has returned. Memory that is bounced is the driver's again at once.
 */
#ifndef KMCL_KMCL_H
#include <kmcl/kmcl.h> /* which includes this file where it belongs */
#endif
#ifndef KMCL_EXTERNAL_DATA_H
#define KMCL_EXTERNAL_DATA_H

#ifdef __cplusplus
extern "C" {
#endif

/* Sends `BufferLength` bytes in the packet, as VmbPacketSend, with the part of the chain that begins
 * `MdlOffset` bytes in and is `MdlLength` bytes long; 0 is to the end of the chain. `Flags` must have
 * VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION. With ..._FORCE_MDL_LENGTH, MdlLength is taken as
 * given, beyond the MDL's ByteCount but not beyond the last page it touches, and only the first MDL of
 * the chain is looked at. Client; <= DISPATCH, any thread; does not block. On failure the packet stays
 * the driver's and its routine is not called. KMCL reference 10.5.
 *   STATUS_SUCCESS                 sent or queued.
 *   STATUS_INVALID_PARAMETER_1     PacketObject is NULL, or has no completion routine.
 *   STATUS_INVALID_PARAMETER_2     Buffer is NULL and BufferLength is not 0.
 *   STATUS_INVALID_PARAMETER_3     longer than the packet's capacity.
 *   STATUS_INVALID_PARAMETER_4     ExternalDataMdl is NULL; at a server or in pipe mode; the part is
 *                                  beyond the channel's limits, or longer than a packet can describe.
 *   STATUS_INVALID_PARAMETER_5     MdlOffset is not inside of the chain's bytes.
 *   STATUS_INVALID_PARAMETER_6     MdlLength goes beyond the chain's bytes, or (forced) the last page.
 *   STATUS_INVALID_PARAMETER_7     an unknown flag, or no WAIT_FOR_COMPLETION.
 *   STATUS_INVALID_DEVICE_STATE    the channel is Disabled, or the packet is in flight.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory to bounce, or pages that cannot be mapped. */
NTSTATUS VmbPacketSendWithExternalMdl(_In_ VMBPACKET PacketObject,
                                      _In_reads_bytes_opt_(BufferLength) PVOID Buffer,
                                      _In_ UINT32 BufferLength, _In_ PMDL ExternalDataMdl,
                                      _In_ UINT32 MdlOffset, _In_ UINT32 MdlLength,
                                      _In_ UINT32 Flags);

/* The same with `PfnLength` whole pages: numbers are addresses of this process divided by PAGE_SIZE. The
 * server gets them as one MDL. Pages that are bounced are copied back as a whole: nothing else may stand
 * on them.
 *   STATUS_INVALID_PARAMETER_4     ExternalDataPfns is NULL; at a server or in pipe mode.
 *   STATUS_INVALID_PARAMETER_5     PfnLength is 0, beyond the channel's limits, or more than a packet can
 *                                  describe.
 *   STATUS_INVALID_PARAMETER_6     an unknown flag, or no WAIT_FOR_COMPLETION.
 *   others                         as above. */
NTSTATUS VmbPacketSendWithExternalPfns(_In_ VMBPACKET PacketObject,
                                       _In_reads_bytes_opt_(BufferLength) PVOID Buffer,
                                       _In_ UINT32 BufferLength,
                                       _In_reads_(PfnLength) PPFN_NUMBER ExternalDataPfns,
                                       _In_ UINT32 PfnLength, _In_ UINT32 Flags);

/* Server: the memory that a delivered packet describes (VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA).
 * *Mdl heads a chain of locked pages without an address: map each MDL with MmGetSystemAddressForMdlSafe
 * or MmMapLockedPagesSpecifyCache (kmcl/wdk/mdl.h). The client can change the bytes at any time: copy
 * what is to be checked. The chain is the library's and goes when the packet is retired, with all its
 * mappings; a second call gives the same one. `Flags`:
 * VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY, the MDLs are only mapped for reading.
 * From EvtVmbChannelProcessPacket on, until the packet is retired, by one thread at a time;
 * <= DISPATCH; does not block. KMCL reference 7, 10.6.
 *   STATUS_SUCCESS                 *Mdl is the chain. Otherwise it is NULL.
 *   STATUS_PENDING                 not yet: return from EvtVmbChannelProcessPacket at once, without
 *                                  completing the packet. It is delivered again, before those behind it.
 *                                  Only KmclChannelForceExternalDataPending brings this about.
 *   STATUS_INVALID_PARAMETER_1     PacketCompletionContext is NULL.
 *   STATUS_INVALID_PARAMETER_2     an unknown flag.
 *   STATUS_INVALID_PARAMETER_3     Mdl is NULL.
 *   STATUS_NOT_FOUND               the packet describes no memory, or this is a client.
 *   STATUS_INVALID_BUFFER_SIZE     the description is malformed, or beyond the channel's limits.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS VmbChannelPacketGetExternalData(_In_ VMBPACKETCOMPLETION PacketCompletionContext,
                                         _In_ UINT32 Flags, _Out_ PMDL *Mdl);

typedef NTSTATUS FN_VMB_PACKET_SEND_WITH_EXTERNAL_MDL(VMBPACKET, PVOID, UINT32, PMDL, UINT32, UINT32,
                                                      UINT32);
typedef NTSTATUS FN_VMB_PACKET_SEND_WITH_EXTERNAL_PFNS(VMBPACKET, PVOID, UINT32, PPFN_NUMBER, UINT32,
                                                       UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_PACKET_GET_EXTERNAL_DATA(VMBPACKETCOMPLETION, UINT32, PMDL *);
typedef FN_VMB_PACKET_SEND_WITH_EXTERNAL_MDL *PFN_VMB_PACKET_SEND_WITH_EXTERNAL_MDL;
typedef FN_VMB_PACKET_SEND_WITH_EXTERNAL_PFNS *PFN_VMB_PACKET_SEND_WITH_EXTERNAL_PFNS;
typedef FN_VMB_CHANNEL_PACKET_GET_EXTERNAL_DATA *PFN_VMB_CHANNEL_PACKET_GET_EXTERNAL_DATA;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_EXTERNAL_DATA_H */
