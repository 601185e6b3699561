/* kmcl/handover.h - one server process replaced by another, with its clients none the wiser.
 *
 * The process that serves (old) and the one that shall serve (new) are connected by a Unix socket of
 * type SOCK_SEQPACKET, which the program makes and lets them find each other by. Over it goes
 * everything that makes the bus: the listening socket, and for each client its connection, its
 * memory, its bells, and the state of the control protocol. What the drivers know travels as bytes
 * of the program's own, mostly saved channels (kmcl/save.h). Clients wait meanwhile: what they send
 * stays in their rings, and is served by the new process.
 *
 *   old process                                 new process
 *   KmclServerHandOver                          KmclServerTakeOver
 *     stops listening to all clients
 *     Save: the program pauses and saves          waits
 *     every channel, and gives its bytes
 *     sends everything                  ----->    makes the server and the partitions
 *                                                 Restore: the program restores and enables
 *                                                 its channels; nothing runs yet
 *                                       <-----    ready
 *     from here on it does not go back  ----->    the channels are attached; it serves
 *   returns STATUS_SUCCESS              <-----  returns STATUS_SUCCESS
 *
 * Until the new process has said that it is ready, everything can be undone: if it fails or dies,
 * or takes longer than Timeout, the old one calls Resume and serves on. If it dies later but before
 * it has touched anything, likewise. Nothing is lost either way, and no client sees an error.
 *
 * What is the same afterwards: partition handles and numbers, channel ids, GPADL handles, who the
 * peer is. What is not: channel and packet handles, mappings of GPADLs, and duplicates of partition
 * handles made by VmbConvertVmbusHandleToKernelHandle.
 */
#ifndef KMCL_HANDOVER_H
#define KMCL_HANDOVER_H

#include <kmcl/endpoint.h>
#include <kmcl/save.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the program does in the old process. Both callbacks run on the thread that called
 * KmclServerHandOver, at PASSIVE_LEVEL, outside of KMCL's callbacks. */
typedef struct KMCL_HANDOVER_OPTIONS {
    ULONG Size;    /* sizeof(KMCL_HANDOVER_OPTIONS); set by KmclHandOverOptionsInit */
    ULONG Timeout; /* milliseconds until the new process must be ready; default 10,000, 0 = forever */
    PVOID Context; /* handed to the callbacks */
    /* Every channel of the server that is not Disabled is to be paused (VmbChannelPause) and saved
     * completely (VmbChannelSaveBegin to VmbChannelSaveEnd); then it stays as it is. No partition
     * arrives meanwhile (one that left before may still be told of by PartitionGone). *State receives *StateSize bytes for Restore, the program's, valid
     * until KmclServerHandOver returns. A failure ends the handover with that status; Resume is
     * called then too. */
    NTSTATUS (*Save)(PVOID Context, KMCL_SERVER Server, const VOID **State, SIZE_T *StateSize);
    /* It has failed. Start the channels that Save paused (VmbChannelStart). */
    VOID (*Resume)(PVOID Context, KMCL_SERVER Server);
} KMCL_HANDOVER_OPTIONS, *PKMCL_HANDOVER_OPTIONS;

/* Fills in the defaults. */
VOID KmclHandOverOptionsInit(PKMCL_HANDOVER_OPTIONS Options);

/* Gives the server's clients to the process at the other end of `Socket`, which must belong to the
 * same user (or root). Blocks until that process serves them, or will not. `Socket` stays the
 * caller's. Any thread but KMCL's; one handover of a server at a time, and no KmclServerDestroy
 * meanwhile.
 * After a success PartitionGone is called for each partition (on passive threads, perhaps before
 * this returns); disabling and cleaning up the channels tells the clients nothing. Then destroy the
 * server, which does not remove the address.
 *   STATUS_SUCCESS                 the other process serves.
 *   STATUS_INVALID_PARAMETER_1     Server is NULL.
 *   STATUS_INVALID_PARAMETER_2     Socket is not a connected SOCK_SEQPACKET socket.
 *   STATUS_INVALID_PARAMETER_3     Options is NULL, its Size is wrong, or a callback is NULL.
 *   Everything below: the server serves on, and Resume was called if Save was.
 *   STATUS_ACCESS_DENIED           the other process is another user's.
 *   STATUS_NOT_SUPPORTED           a "local:" bus.
 *   STATUS_INVALID_DEVICE_STATE    a channel was not saved; called from a callback; or handed over
 *                                  already.
 *   STATUS_DEVICE_NOT_READY        not ready within Timeout.
 *   STATUS_CONNECTION_DISCONNECTED the other process went away, or refused.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory or descriptors.
 *   any failure of Save. */
NTSTATUS KmclServerHandOver(KMCL_SERVER Server, int Socket, const KMCL_HANDOVER_OPTIONS *Options);

/* What the program does in the new process. */
typedef struct KMCL_TAKEOVER_OPTIONS {
    ULONG Size;    /* sizeof(KMCL_TAKEOVER_OPTIONS); set by KmclTakeOverOptionsInit */
    ULONG Timeout; /* milliseconds to wait for the old process, each time; default 60,000, 0 = forever */
    PVOID Context; /* handed to Restore */
    /* Makes, restores, enables and starts the channels of all partitions, by what Save gave in the
     * old process (borrowed for the call); the partition handles in it are valid here.
     * PartitionArrived is not called for these partitions. State callbacks begin after the handover
     * is final. Channels that were saved and are not enabled here are revoked then. Runs on the
     * thread that called KmclServerTakeOver. A failure ends it with that status. */
    NTSTATUS (*Restore)(PVOID Context, KMCL_SERVER Server, const VOID *State, SIZE_T StateSize);
} KMCL_TAKEOVER_OPTIONS, *PKMCL_TAKEOVER_OPTIONS;

/* Fills in the defaults. */
VOID KmclTakeOverOptionsInit(PKMCL_TAKEOVER_OPTIONS Options);

/* Takes over the server that the process at the other end of `Socket` hands over. Blocks until it is
 * served here, or will not be. `Endpoint` are the new server's options (NULL: defaults) and must
 * grant at least what its clients have in use. `Socket` stays the caller's. Any thread but KMCL's.
 * On failure after Restore was called, PartitionGone is called for each partition, to clean up the
 * channels that Restore made, before this returns; the old process then serves on.
 *   STATUS_SUCCESS                 *Server serves; end it with KmclServerDestroy.
 *   STATUS_INVALID_PARAMETER_1     Socket is not a connected SOCK_SEQPACKET socket.
 *   STATUS_INVALID_PARAMETER_2     an endpoint option is out of its range, or its Size is wrong.
 *   STATUS_INVALID_PARAMETER_3     Options is NULL, its Size is wrong, or Restore is NULL.
 *   STATUS_INVALID_PARAMETER_4     Server is NULL.
 *   STATUS_ACCESS_DENIED           the other process is another user's.
 *   STATUS_REVISION_MISMATCH       it hands over in a format that is not known here.
 *   STATUS_DATA_ERROR              what came is not a server, or not within the endpoint options.
 *   STATUS_DEVICE_NOT_READY        nothing came within Timeout.
 *   STATUS_CONNECTION_DISCONNECTED the other process went away, or does not hand over.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory, descriptors or threads.
 *   any failure of Restore. */
NTSTATUS KmclServerTakeOver(int Socket, const KMCL_ENDPOINT_OPTIONS *Endpoint,
                            const KMCL_TAKEOVER_OPTIONS *Options, KMCL_SERVER *Server);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_HANDOVER_H */
