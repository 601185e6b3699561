/* kmcl/gpadl.h - shared buffers: GPADLs (KMCL reference 8, 10.7). Part of kmcl/kmcl.h.
 *
 * A GPADL ("guest physical address descriptor list") describes memory of the client to the
 * server, once, for as long as the channel is open: rings of requests, bitmaps, areas that both
 * write to. The client creates it and sends its handle to the server's driver in a packet; that
 * maps it, works on the memory in place, and unmaps it; the client deletes it and has its
 * memory back.
 *
 * Which memory. The server sees only what the client donates to it, which is the process's
 * nonpaged pool: memory of ExAllocatePool2, ExAllocatePoolWithTag or ExAllocatePoolZero that is
 * not paged (kmcl/wdk/pool.h). It is shared as it is, never copied. Memory from anywhere else
 * (malloc, stack, mmap) cannot be shared for long and is refused with STATUS_NOT_SUPPORTED; as
 * external data of a packet it can be sent. What stands on the first and on the last page
 * beside the buffer is seen by the server too, and so is all of the pool: keep secrets out of
 * it. The client may change the memory at any time; a server copies what it checks before it
 * checks it.
 *
 * When. "Open" starts inside EvtVmbChannelOpened and ends with the return of
 * EvtVmbChannelClosed. Every GPADL is to be deleted, and every mapping undone, at the latest
 * inside EvtVmbChannelClosed. That cannot deadlock: the client tells the server of the close
 * before it calls its EvtVmbChannelClosed, and the server unmaps before it withdraws an offer,
 * so that a delete on a channel which was rescinded, or whose server is gone, returns at once.
 * The library logs and removes what is left after EvtVmbChannelClosed; a server's MDL is
 * invalid then, and VmbChannelDisable of the client returns when the server has let go of
 * everything.
 *
 * Handles are 32 bits, never 0, unique on their channel, and the same at both ends. They
 * survive the save and restore of a server channel (kmcl/save.h), mappings do not.
 *
 * Size. One buffer, or an MDL chain whose parts follow each other page by page, may have up to
 * 2 GiB. A chain of other parts is described part by part, and then 8,190 pages less one for
 * each further part are the limit.
 *
 * All functions here are called at PASSIVE_LEVEL, from any thread, and from any callback at
 * that level.
 */
#ifndef KMCL_KMCL_H
#include <kmcl/kmcl.h> /* which includes this file where it belongs */
#endif
#ifndef KMCL_GPADL_H
#define KMCL_GPADL_H

#ifdef __cplusplus
extern "C" {
#endif

/* Client, open: makes a GPADL of `DataLengthWithinMdl` bytes of an MDL chain, from
 * `StartOffsetWithinMdl` bytes on; length 0 is to the end of the chain. `Flags`: 0, or
 * VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY if the server shall only read (an intent, no protection:
 * it can write). Blocks until the server has confirmed; the handle may then be sent to its
 * driver. The memory and the MDLs stay the caller's and must stay as they are until
 * VmbChannelDeleteGpadl has returned. *GpadlHandle is 0 after a failure (KMCL reference 8.1,
 * 8.6).
 *   STATUS_SUCCESS                 confirmed.
 *   STATUS_INVALID_PARAMETER_1     Channel is NULL or a server's.
 *   STATUS_INVALID_PARAMETER_2     unknown flags.
 *   STATUS_INVALID_PARAMETER_3     Mdl is NULL, or describes pages that were never filled in
 *                                  (MmBuildMdlForNonPagedPool, MmProbeAndLockPages).
 *   STATUS_INVALID_PARAMETER_4     the offset is not inside the chain.
 *   STATUS_INVALID_PARAMETER_5     the length reaches beyond the chain, or is more than 2 GiB.
 *   STATUS_INVALID_PARAMETER_6     GpadlHandle is NULL.
 *   STATUS_INVALID_DEVICE_STATE    the channel is not open, or is being closed by this end.
 *   STATUS_NOT_SUPPORTED           memory that the server cannot see; see above.
 *   STATUS_DEVICE_REMOVED          the channel was closed, its offer withdrawn or the server lost
 *                                  before it answered.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory, too many pages in a chain of separate parts, or the
 *                                  server refuses: it has a limit for each client. */
_Must_inspect_result_ NTSTATUS VmbChannelCreateGpadlFromMdl(_In_ VMBCHANNEL Channel,
                                                            _In_ UINT32 Flags, _In_ PMDL Mdl,
                                                            _In_ UINT32 StartOffsetWithinMdl,
                                                            _In_ UINT32 DataLengthWithinMdl,
                                                            _Out_ PUINT32 GpadlHandle);

/* Client, open: as above, of `ByteCount` bytes at `Buffer`, which need not be aligned.
 *   STATUS_INVALID_PARAMETER_3     Buffer is NULL.
 *   STATUS_INVALID_PARAMETER_4     ByteCount is 0 or more than 2 GiB.
 *   STATUS_INVALID_PARAMETER_5     GpadlHandle is NULL.
 *   and the others of VmbChannelCreateGpadlFromMdl. */
_Must_inspect_result_ NTSTATUS VmbChannelCreateGpadlFromBuffer(
    _In_ VMBCHANNEL Channel, _In_ UINT32 Flags, _In_reads_bytes_(ByteCount) PVOID Buffer,
    _In_ UINT32 ByteCount, _Out_ PUINT32 GpadlHandle);

/* Client, open: as above, of `ByteCount` bytes from `ByteOffset` in the first of `PfnCount`
 * pages on; 0 is to the end of the last page. A page number is an address divided by PAGE_SIZE,
 * as in an MDL (kmcl/wdk/mdl.h); the pages may come in any order and are one buffer to the
 * server. `Pfns` is only read during the call. The name is KMCL's (table V4), the parameters
 * are this library's (KMCL reference 2.6).
 *   STATUS_INVALID_PARAMETER_3     Pfns is NULL.
 *   STATUS_INVALID_PARAMETER_4     PfnCount is 0 or more than 524,289.
 *   STATUS_INVALID_PARAMETER_5     ByteOffset is not inside the first page.
 *   STATUS_INVALID_PARAMETER_6     ByteCount reaches beyond the last page or does not reach it, or
 *                                  is more than 2 GiB.
 *   STATUS_INVALID_PARAMETER_7     GpadlHandle is NULL.
 *   and the others of VmbChannelCreateGpadlFromMdl. */
_Must_inspect_result_ NTSTATUS VmbChannelCreateGpadlFromPfnList(
    _In_ VMBCHANNEL Channel, _In_ UINT32 Flags, _In_reads_(PfnCount) PPFN_NUMBER Pfns,
    _In_ UINT32 PfnCount, _In_ UINT32 ByteOffset, _In_ UINT32 ByteCount,
    _Out_ PUINT32 GpadlHandle);

/* Client, open: takes the memory back. Blocks while the server has it mapped; returns at once
 * when the offer was withdrawn or the server is gone. The handle is dead then, and the memory
 * the caller's alone. A NULL channel, a server's, and a handle that is not a GPADL of the
 * channel, or that another thread is deleting, are logged and ignored (KMCL reference 8.3,
 * 12.45). */
VOID VmbChannelDeleteGpadl(_In_ VMBCHANNEL Channel, _In_ UINT32 GpadlHandle);

/* Server, open: gives the client's memory as an MDL chain, one MDL for each part that the
 * client described. The MDLs have pages and no address: MmGetSystemAddressForMdlSafe or
 * MmMapLockedPagesSpecifyCache map one of them, however scattered its pages are, and
 * MmUnmapLockedPages undoes it. They are the library's and valid until VmbChannelUnmapGpadl.
 * One mapping of a GPADL at a time. `Flags`: 0 to write, or VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY.
 * The handle usually comes in a packet, and with it from the client: every value is safe to
 * try. Does not block. *Mdl is NULL after a failure (KMCL reference 8.2, 8.6).
 *   STATUS_SUCCESS                 mapped.
 *   STATUS_INVALID_PARAMETER_1     Channel is NULL or a client's.
 *   STATUS_INVALID_PARAMETER_2     unknown flags.
 *   STATUS_INVALID_PARAMETER_3     no GPADL of the channel, or the one that its rings are made of.
 *   STATUS_INVALID_PARAMETER_4     Mdl is NULL.
 *   STATUS_ACCESS_DENIED           without READ_ONLY, but the client created it READ_ONLY.
 *   STATUS_INVALID_DEVICE_STATE    mapped already, or the channel is not open.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
_Must_inspect_result_ NTSTATUS VmbChannelMapGpadl(_In_ VMBCHANNEL Channel, _In_ UINT32 Flags,
                                                  _In_ UINT32 GpadlHandle, _Out_ PMDL *Mdl);

/* Server, open: the driver uses the memory no more, and the MDL chain, with all addresses it
 * was mapped to, is invalid. Lets a waiting VmbChannelDeleteGpadl go on. Does not block. A NULL
 * channel, a client's, and a handle that is not mapped are logged and ignored (KMCL reference
 * 8.3, 12.45). */
VOID VmbChannelUnmapGpadl(_In_ VMBCHANNEL Channel, _In_ UINT32 GpadlHandle);

/* ==== Function types (KMCL reference 2.2) ===================================================== */

typedef NTSTATUS FN_VMB_CHANNEL_CREATE_GPADL_FROM_MDL(VMBCHANNEL, UINT32, PMDL, UINT32, UINT32,
                                                      PUINT32);
typedef NTSTATUS FN_VMB_CHANNEL_CREATE_GPADL_FROM_BUFFER(VMBCHANNEL, UINT32, PVOID, UINT32,
                                                         PUINT32);
typedef NTSTATUS FN_VMB_CHANNEL_CREATE_GPADL_FROM_PFN_LIST(VMBCHANNEL, UINT32, PPFN_NUMBER, UINT32,
                                                           UINT32, UINT32, PUINT32);
typedef VOID FN_VMB_CHANNEL_DELETE_GPADL(VMBCHANNEL, UINT32);
typedef NTSTATUS FN_VMB_CHANNEL_MAP_GPADL(VMBCHANNEL, UINT32, UINT32, PMDL *);
typedef VOID FN_VMB_CHANNEL_UNMAP_GPADL(VMBCHANNEL, UINT32);

typedef FN_VMB_CHANNEL_CREATE_GPADL_FROM_MDL *PFN_VMB_CHANNEL_CREATE_GPADL_FROM_MDL;
typedef FN_VMB_CHANNEL_CREATE_GPADL_FROM_BUFFER *PFN_VMB_CHANNEL_CREATE_GPADL_FROM_BUFFER;
typedef FN_VMB_CHANNEL_CREATE_GPADL_FROM_PFN_LIST *PFN_VMB_CHANNEL_CREATE_GPADL_FROM_PFN_LIST;
typedef FN_VMB_CHANNEL_DELETE_GPADL *PFN_VMB_CHANNEL_DELETE_GPADL;
typedef FN_VMB_CHANNEL_MAP_GPADL *PFN_VMB_CHANNEL_MAP_GPADL;
typedef FN_VMB_CHANNEL_UNMAP_GPADL *PFN_VMB_CHANNEL_UNMAP_GPADL;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_GPADL_H */
