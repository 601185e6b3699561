/* kmcl/endpoint.h - what a kernel does for a KMCL driver, for programs outside of one.
 *
 * KMCL (kmcl/kmcl.h) begins where a driver already has a device object with a bus behind it. This small
 * header is how a program gets one: it makes one end of a bus, learns of partitions, and lends the
 * threads that play DISPATCH_LEVEL and PASSIVE_LEVEL.
 *
 * Glossary
 *   bus         The connection between one server and its clients, named by an address.
 *   address     "unix:PATH" (a Unix socket; PATH is absolute or relative), "local:NAME" (both ends in this
 *               process), and for clients "uio:" (in a guest: kmcl/uio.h). Everywhere an address may be
 *               NULL, the environment variable KMCL_BUS is used instead.
 *   server      The end that listens and offers channels (the host's side of VMBus).
 *   client      One end that connects and opens channels (a guest's side).
 *   partition   One connected client as its server sees it. Partitions cannot see each other.
 *
 * Threads. Each endpoint owns: one bus thread (control protocol, partition callbacks), dispatch threads
 * (packet callbacks and completion routines at DISPATCH_LEVEL; they must not block), and a pool of
 * passive threads (state callbacks, packet callbacks at PASSIVE_LEVEL). A callback must not destroy its
 * own endpoint.
 */
#ifndef KMCL_ENDPOINT_H
#define KMCL_ENDPOINT_H

#include <kmcl/kmcl.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct KMCL_SERVER_OBJECT *KMCL_SERVER;
typedef struct KMCL_CLIENT_OBJECT *KMCL_CLIENT;

/* How a dispatch thread waits for packets once its channels' rings are empty (docs/waiting.md): for so many
 * microseconds since the last packet it looks into them, then it sleeps and the peer rings a bell. Or one of
 * these. */
#define KMCL_SPIN_NEVER 0u             /* sleep at once */
#define KMCL_SPIN_FOREVER 0xFFFFFFFFu  /* poll: never sleep while a channel is open; on one processor, too */
/* Look for at most twice the time that a wake-up takes on this machine, which the first endpoint of a process
 * measures in a millisecond or two, and only while the waits before this one have ended in that time: a
 * channel that is idle, or whose packets come seldom, is slept on at once. A process that may use only one
 * processor never looks. */
#define KMCL_SPIN_ADAPTIVE 0xFFFFFFFEu

/* Sizes, limits and callbacks of an endpoint. Set Size with KmclEndpointOptionsInit. */
typedef struct KMCL_ENDPOINT_OPTIONS {
    ULONG Size;            /* sizeof(KMCL_ENDPOINT_OPTIONS) */
    ULONG DispatchThreads; /* 1 to 16; default 1. Channels are spread over them. */
    ULONG SpinMicroseconds; /* KMCL_SPIN_ADAPTIVE (default), KMCL_SPIN_NEVER, KMCL_SPIN_FOREVER, or a time.
                               Channels may have their own: KmclChannelInitSetWaitPolicy. */

    /* Server only. */
    ULONG MaximumPartitions;     /* connected clients at a time; default 1024 */
    UINT64 MaximumPartitionMemory; /* bytes of rings and GPADLs one partition may have mapped;
                                      default 4 GiB */
    PVOID Context;                 /* handed to the two callbacks */
    /* A client has connected and agreed on a protocol version. Runs on the bus thread; offers are made
     * from here with VmbChannelAllocate and VmbChannelEnable. `Partition` stays valid until
     * PartitionGone has returned; give it to VmbServerChannelInitSetVmbusHandle. */
    VOID (*PartitionArrived)(PVOID Context, KMCL_SERVER Server, HANDLE Partition);
    /* The client has left or died, and its open channels have been told (EvtVmbChannelClosed follows or
     * has run). Runs on a passive thread. The channels offered to it must be disabled and cleaned up
     * here or later; they never open again. */
    VOID (*PartitionGone)(PVOID Context, KMCL_SERVER Server, HANDLE Partition);

    /* Server: TRUE gives channels no monitors (VmbChannelSetInterruptLatency), for clients that
     * would rely on them without saying at which pace they are to be looked at, as operating
     * systems do. Default FALSE. */
    BOOLEAN NoMonitors;

    /* Client only. */
    UINT64 MaximumDonatedMemory; /* bytes of memory that rings may take; default 4 GiB */

    /* Highest protocol version that a client asks for and a server agrees to, major << 16 | minor; 0
     * (default) = the newest, 6.0. */
    ULONG MaximumVersion;

    /* NULL (default), or for each dispatch thread the number of the only processor it runs on, as in
     * sched_setaffinity; DispatchThreads numbers, read before the call returns. */
    const ULONG *DispatchProcessors;
} KMCL_ENDPOINT_OPTIONS, *PKMCL_ENDPOINT_OPTIONS;

/* Fills `Options` with the defaults. */
VOID KmclEndpointOptionsInit(PKMCL_ENDPOINT_OPTIONS Options);

/* Serves a bus at `Address`. `Options` may be NULL (defaults); it is copied.
 *   STATUS_SUCCESS                 *Server is listening; end it with KmclServerDestroy.
 *   STATUS_INVALID_PARAMETER_1     the address is malformed, or NULL without KMCL_BUS.
 *   STATUS_INVALID_PARAMETER_2     an option is out of its range, a dispatch thread may not run on its
 *                                  processor, or Size is wrong.
 *   STATUS_INVALID_PARAMETER_3     Server is NULL.
 *   STATUS_OBJECT_NAME_COLLISION   a live server owns the address.
 *   STATUS_ACCESS_DENIED           the file system does not let us.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory, descriptors or threads. */
NTSTATUS KmclServerCreate(const char *Address, const KMCL_ENDPOINT_OPTIONS *Options, KMCL_SERVER *Server);

/* Stops listening, disconnects every partition (PartitionGone is called for each), and frees the server.
 * Every server channel must have been cleaned up, or is disabled here and reported. Blocks until all
 * callbacks have returned. NULL is ignored. Not from a callback of this server. */
VOID KmclServerDestroy(KMCL_SERVER Server);

/* The device object to give to VmbChannelAllocate for channels of this endpoint. Owned by it. */
PDEVICE_OBJECT KmclServerDeviceObject(KMCL_SERVER Server);

/* Who connected: process, user and group of the client's socket (SO_PEERCRED), and the protocol version
 * it agreed on (major << 16 | minor). */
typedef struct KMCL_PARTITION_INFORMATION {
    UINT32 ProcessId;
    UINT32 UserId;
    UINT32 GroupId;
    UINT32 Version;
    UINT64 Number; /* counts partitions of this server, from 1 */
} KMCL_PARTITION_INFORMATION, *PKMCL_PARTITION_INFORMATION;

/* STATUS_INVALID_HANDLE if `Partition` is not a partition handle; STATUS_INVALID_PARAMETER_2 for NULL. */
NTSTATUS KmclPartitionQuery(HANDLE Partition, PKMCL_PARTITION_INFORMATION Information);

/* Connects to the bus at `Address`: agrees on a version and fetches the offers. Returns when all offers
 * that stand now have been delivered. `Options` may be NULL; it is copied.
 *   STATUS_SUCCESS                 *Client is connected; end it with KmclClientDestroy.
 *   STATUS_INVALID_PARAMETER_1/_2/_3  as KmclServerCreate.
 *   STATUS_OBJECT_NAME_NOT_FOUND   nobody serves the address, or answers within 5 s.
 *   STATUS_ACCESS_DENIED           the socket's mode or the server refuses this user.
 *   STATUS_CONNECTION_DISCONNECTED the server went away, or refused us, before the offers came; or it
 *                                  has not answered for ten seconds.
 *   STATUS_REVISION_MISMATCH       no common protocol version.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory, descriptors or threads. */
NTSTATUS KmclClientConnect(const char *Address, const KMCL_ENDPOINT_OPTIONS *Options, KMCL_CLIENT *Client);

/* Leaves the bus (UNLOAD) and frees the client. Every client channel must have been cleaned up, or is
 * disabled here and reported. Blocks until all callbacks have returned. NULL is ignored. Not from a
 * callback of this client. */
VOID KmclClientDestroy(KMCL_CLIENT Client);

/* The device object to give to VmbChannelAllocate for channels of this endpoint. Owned by it. */
PDEVICE_OBJECT KmclClientDeviceObject(KMCL_CLIENT Client);

/* FALSE once the server has gone or the connection broke. Such a client stays disconnected: destroy it
 * and connect again. */
BOOLEAN KmclClientIsConnected(KMCL_CLIENT Client);

/* Protocol version that was agreed on, major << 16 | minor. */
ULONG KmclClientVersion(KMCL_CLIENT Client);

/* One offer that stands. */
typedef struct KMCL_OFFER {
    GUID InterfaceType;
    GUID InterfaceInstance;
    UINT32 ChannelId;
    UINT16 SubChannelIndex;
    UINT16 Flags;          /* offer flags as on the wire */
    UINT16 MmioMegabytes;
    UINT16 MmioMegabytesOptional;
    BOOLEAN InUse;         /* a channel of this client has it bound */
} KMCL_OFFER, *PKMCL_OFFER;

/* Copies up to `Capacity` offers, by channel id, and stores in *Count how many stand.
 *   STATUS_SUCCESS; STATUS_BUFFER_TOO_SMALL when *Count > Capacity (the first Capacity are copied);
 *   STATUS_INVALID_PARAMETER_1/_2/_4 for NULL (Offers may be NULL when Capacity is 0). */
NTSTATUS KmclClientQueryOffers(KMCL_CLIENT Client, PKMCL_OFFER Offers, ULONG Capacity, PULONG Count);

/* Server, in the Init window of a channel: TRUE has the offer ask for a monitor (offer flag 0x400), a bit in
 * a page of the client's that stands for its signals. For guests of a virtual machine (kmcl/kvm.h): their
 * channels have monitors only where that is asked for, since a guest then signals by the bit alone, and
 * somebody has to look: a dispatch thread does, from open to close, every 0.1 ms while the channel is
 * busy and every 2 ms while it is idle. Needed by what a Linux guest opens through
 * uio_hv_generic below 6.10, which has no other signal. Default FALSE. Clients of other buses, who have
 * monitors anyway, just see the flag. The first 128 channel ids have a monitor; a guest that gives no page
 * gets none.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1  not a server's channel in its Init window. */
NTSTATUS KmclServerChannelInitSetMonitored(VMBCHANNEL Channel, BOOLEAN Monitored);

/* In the Init window: how the dispatch thread waits for what this channel receives, in place of the
 * endpoint's SpinMicroseconds and with the same values. Either end.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1  not a channel in its Init window. */
NTSTATUS KmclChannelInitSetWaitPolicy(VMBCHANNEL Channel, ULONG SpinMicroseconds);

/* What one end of a channel has done since VmbChannelAllocate. Counts never go back; re-opening keeps
 * them. Taken without stopping the channel, so two counts may be a packet apart. */
typedef struct KMCL_CHANNEL_COUNTERS {
    ULONG Size; /* in: sizeof(KMCL_CHANNEL_COUNTERS) */
    ULONG Reserved;
    UINT64 PacketsSent;        /* data packets placed in the outgoing ring */
    UINT64 BytesSent;          /* their payload */
    UINT64 CompletionsSent;    /* completion packets placed in the outgoing ring */
    UINT64 PacketsReceived;    /* data packets delivered (B7: once each) */
    UINT64 BytesReceived;      /* their payload, as rounded up on the wire */
    UINT64 CompletionsReceived;/* completion packets that matched a transaction */
    UINT64 CompletionsUnexpected; /* that matched none: dropped */
    UINT64 Batches;            /* ProcessingComplete calls, or what would have been one */
    UINT64 BellsRung;          /* signals to the other end */
    UINT64 BellsReceived;      /* signals from the other end */
    UINT64 RingFull;           /* times a packet found no room and was queued */
    UINT64 TransactionsStarted;   /* sends with WAIT_FOR_COMPLETION that were accepted */
    UINT64 TransactionsCompleted; /* of those, completed by the other end */
    UINT64 TransactionsCancelled; /* of those, completed by an error: time-out or teardown */
    UINT64 Outstanding;        /* incoming packets delivered and not retired yet */
    UINT64 Queued;             /* outgoing packets that wait for room */
    UINT64 Publications;       /* times that the other end was shown packets or completions, one or more */
} KMCL_CHANNEL_COUNTERS, *PKMCL_CHANNEL_COUNTERS;

/* STATUS_INVALID_PARAMETER_1 bad channel; STATUS_INVALID_PARAMETER_2 NULL or wrong Size. */
NTSTATUS KmclChannelQueryCounters(VMBCHANNEL Channel, PKMCL_CHANNEL_COUNTERS Counters);

/* For tests of drivers: the next `Times` calls of VmbChannelPacketGetExternalData on this channel that
 * would succeed, inside EvtVmbChannelProcessPacket, return STATUS_PENDING; each such packet is delivered
 * again at PASSIVE_LEVEL. Server; any thread. NULL is ignored. */
VOID KmclChannelForceExternalDataPending(VMBCHANNEL Channel, ULONG Times);

/* What the library has to say about peers that break rules, leaks, and misuse. */
typedef enum KMCL_LOG_LEVEL {
    KmclLogError = 0,
    KmclLogWarning = 1, /* default; the environment variable KMCL_LOG changes it */
    KmclLogInfo = 2,
    KmclLogDebug = 3
} KMCL_LOG_LEVEL;

/* Sends log lines to `Sink` (any thread, concurrently) instead of standard error; NULL goes back. */
VOID KmclSetLogSink(VOID (*Sink)(PVOID Context, KMCL_LOG_LEVEL Level, const char *Line), PVOID Context);
VOID KmclSetLogLevel(KMCL_LOG_LEVEL Level);

/* The name of a status ("STATUS_DEVICE_REMOVED"), or "STATUS_0x........" for one that kmcl never uses. The
 * string is static, except that the unknown form is overwritten by the next call on the same thread. */
const char *KmclStatusName(NTSTATUS Status);

#ifdef __cplusplus
}
#endif

#endif /* KMCL_ENDPOINT_H */
