/* kmcl/connect.h - channels that a client asks for by name, as sockets are (hvsock).
 *
 * An extension of kmcl. On every other channel the server decides what is offered; here a client names
 * a service that it wants to be connected with, and an end of its own, and the server offers one
 * channel with just these two GUIDs, or refuses. One offer is one connection: it is revoked when the
 * connection ends. Linux' hv_sock, behind AF_VSOCK, works like this.
 *
 *   server   PartitionArrived: KmclPartitionSetConnectCallback. In the callback, or later on any thread:
 *            an offer with the interface type ServiceId and the instance EndpointId, with the flags
 *            VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER | ..._OFFER_AS_PIPE |
 *            ..._ENUMERATE_DEVICE_INTERFACE; or KmclPartitionRefuseConnect.
 *   client   VmbClientChannelInitSetTargetPnp with the two GUIDs, VmbChannelEnable, which waits for the
 *            offer; then KmclClientRequestConnect.
 *
 * A server connects to a service of its client's by an offer that nobody asked for: it has the service's
 * GUID as interface type, and says so in its offer data (KMCL_CONNECT_OFFER_DATA, ForClientAccept).
 * A client that does not serve it leaves it unopened and says nothing: it is the server's to revoke it.
 *
 * Sources: VMBus reference 3.10; Linux' net/vmw_vsock/hyperv_transport.c is the client to be understood by.
 */
#ifndef KMCL_CONNECT_H
#define KMCL_CONNECT_H

#include <kmcl/endpoint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The GUID that stands for port P of AF_VSOCK has P in place of Data1. */
#define KMCL_VSOCK_PORT_GUID(Port)                                                                     \
    {(Port), 0xfacb, 0x11e6, {0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3}}

/* What a client asks for. */
typedef struct KMCL_CONNECT_REQUEST {
    GUID EndpointId; /* the client's own end; unique among its connections */
    GUID ServiceId;  /* whom it wants to be connected with */
    GUID SiloId;     /* all zero, unless the client runs in a container and says so */
} KMCL_CONNECT_REQUEST, *PKMCL_CONNECT_REQUEST;

/* The offer data of such a channel, as on the wire: 28 bytes, and zeroes up to 120. */
#pragma pack(push, 1)
typedef struct KMCL_CONNECT_OFFER_DATA {
    UINT32 PipeType;         /* 0: a stream of bytes; no data in a packet ends it */
    UINT8 ForClientAccept;   /* 1: the server connects to the client's service */
    UINT8 ForContainer;      /* 1: the client's end is in the container SiloId */
    UINT32 Version;          /* 1 */
    GUID SiloId;
    UINT16 Reserved;         /* 0 */
} KMCL_CONNECT_OFFER_DATA, *PKMCL_CONNECT_OFFER_DATA;
#pragma pack(pop)

/* ---- Server ---------------------------------------------------------------------------------- */

/* A client asks. Runs on the bus thread and must not block; it may make the offer. `Request` is valid
 * during the call; every bit of it is the client's choice. A failure status refuses; after a success
 * status the client waits for the offer, or for KmclPartitionRefuseConnect. */
typedef NTSTATUS EVT_KMCL_CONNECT_REQUEST(_In_ PVOID Context, _In_ HANDLE Partition,
                                          _In_ const KMCL_CONNECT_REQUEST *Request);
typedef EVT_KMCL_CONNECT_REQUEST *PFN_KMCL_CONNECT_REQUEST;

/* How many requests of one partition come through: that many at once, and as many in each second.
 * What is above that is refused without a call; the log says how many, ever more rarely. */
#define KMCL_CONNECT_REQUESTS_PER_SECOND 1024u

/* Who hears of the partition's requests from now on; it replaces who heard before. NULL: nobody, and
 * all are refused, as before the first call. When it returns no call to the one before is going on any
 * more. Any thread; from a callback of the server's only on its bus thread (PartitionArrived).
 *   STATUS_SUCCESS
 *   STATUS_INVALID_HANDLE          Partition is no partition handle.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS KmclPartitionSetConnectCallback(_In_ HANDLE Partition,
                                         _In_opt_ PFN_KMCL_CONNECT_REQUEST Callback,
                                         _In_opt_ PVOID Context);

/* Refuses a request for which the callback has returned success and no offer was made. The client is told
 * 0xC0000236 (connection refused), from version 4.1 on; older ones cannot be told, and Linux does not
 * listen: its connect() ends after its own time. Any thread.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_HANDLE          Partition is no partition handle.
 *   STATUS_INVALID_PARAMETER_2     Request is NULL.
 *   STATUS_INVALID_DEVICE_STATE    the client has left, or connects anew.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS KmclPartitionRefuseConnect(_In_ HANDLE Partition, _In_ const KMCL_CONNECT_REQUEST *Request);

/* What the channel's offer carries beside its GUIDs, for connections and for whatever else a client
 * understands: copied, and followed by zeroes. Init window, server; after VmbServerChannelInitSetFlags,
 * which sets it anew (to a pipe of messages or to zeroes).
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1  Channel is NULL or a client's, or the Init window is closed.
 *   STATUS_INVALID_PARAMETER_2  Data is NULL and Length is not 0.
 *   STATUS_INVALID_PARAMETER_3  Length is above VMBUS_SERVER_CHANNEL_INIT_MAXIMUM_OFFER_DATA. */
NTSTATUS KmclServerChannelInitSetOfferData(_In_ VMBCHANNEL Channel, _In_opt_ const VOID *Data,
                                           _In_ ULONG Length);

/* ---- Client ---------------------------------------------------------------------------------- */

/* The server refuses a request. `Status` is the server's, 0xC0000236 for "connection refused"; the
 * request's SiloId is not told, and zero. Runs on the bus thread and must not block. A server need not
 * say anything: a request that is not answered in time is the client's to give up. */
typedef VOID EVT_KMCL_CONNECT_REFUSED(_In_ PVOID Context, _In_ const KMCL_CONNECT_REQUEST *Request,
                                      _In_ ULONG Status);
typedef EVT_KMCL_CONNECT_REFUSED *PFN_KMCL_CONNECT_REFUSED;

/* Who hears of refusals from now on; NULL: nobody. When it returns no call to the one before is going on
 * any more. Any thread, not from a callback.
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER_1     Client is NULL.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS KmclClientSetConnectRefusedCallback(_In_ KMCL_CLIENT Client,
                                             _In_opt_ PFN_KMCL_CONNECT_REFUSED Callback,
                                             _In_opt_ PVOID Context);

/* Asks the server for a channel with these GUIDs. The answer is an offer, which a channel that waits for
 * it opens, or the refusal, or nothing. SiloId is not sent below version 5.2. Any thread.
 *   STATUS_SUCCESS                  asked.
 *   STATUS_INVALID_PARAMETER_1/_2   NULL.
 *   STATUS_REVISION_MISMATCH        the version agreed on is below 4.0.
 *   STATUS_CONNECTION_DISCONNECTED  the server has gone.
 *   STATUS_INSUFFICIENT_RESOURCES   no memory. */
NTSTATUS KmclClientRequestConnect(_In_ KMCL_CLIENT Client, _In_ const KMCL_CONNECT_REQUEST *Request);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_CONNECT_H */
