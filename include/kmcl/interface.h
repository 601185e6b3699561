/* kmcl/interface.h - KMCL's functions as tables (KMCL reference 2.5, 2.6). Part of kmcl/kmcl.h.
 *
 * A driver asks a device object for its functions: by KmclQueryInterface, or in the framework's words
 * by WdfFdoQueryForInterface or WdfIoTargetQueryForInterface (kmcl/wdk/wdf.h). A table begins with
 * the members of INTERFACE; each later version begins like its predecessor. The functions are those
 * of the headers, in every table.
 *
 * A table that was filled in holds a reference to the endpoint; InterfaceReference takes another,
 * InterfaceDereference gives one back, both with the table's Context, at <= DISPATCH, on any thread.
 * All are to be given back before the endpoint is destroyed; one that is not is logged then.
 *
 * GUIDs and version numbers are kmcl's own: Microsoft's are not published.
 */
#ifndef KMCL_KMCL_H
#include <kmcl/kmcl.h> /* which includes this file where it belongs */
#endif
#ifndef KMCL_INTERFACE_H
#define KMCL_INTERFACE_H

#ifdef __cplusplus
extern "C" {
#endif

/* ==== Members, in the order of the tables ===================================================== */

/* Those of INTERFACE. */
#define KMCL_INTERFACE_HEADER                                                                      \
    USHORT Size;                                                                                   \
    USHORT Version;                                                                                \
    PVOID Context;                                                                                 \
    PINTERFACE_REFERENCE InterfaceReference;                                                       \
    PINTERFACE_DEREFERENCE InterfaceDereference;
#define KMCL_CLIENT_MEMBERS_V1                                                                     \
    PFN_VMB_CHANNEL_ALLOCATE VmbChannelAllocate;                                                   \
    PFN_VMB_CHANNEL_CLEANUP VmbChannelCleanup;                                                     \
    PFN_VMB_CHANNEL_CREATE_GPADL_FROM_BUFFER VmbChannelCreateGpadlFromBuffer;                      \
    PFN_VMB_CHANNEL_CREATE_GPADL_FROM_MDL VmbChannelCreateGpadlFromMdl;                            \
    PFN_VMB_CHANNEL_DELETE_GPADL VmbChannelDeleteGpadl;                                            \
    PFN_VMB_CHANNEL_DISABLE VmbChannelDisable;                                                     \
    PFN_VMB_CHANNEL_ENABLE VmbChannelEnable;                                                       \
    PFN_VMB_CHANNEL_GET_INTERFACE_INSTANCE VmbChannelGetInterfaceInstance;                         \
    PFN_VMB_CHANNEL_GET_MMIO_SPACE VmbChannelGetMmioSpace;                                         \
    PFN_VMB_CHANNEL_GET_POINTER VmbChannelGetPointer;                                              \
    PFN_VMB_CHANNEL_INIT_SET_CLIENT_CONTEXT_SIZE VmbChannelInitSetClientContextSize;               \
    PFN_VMB_CHANNEL_INIT_SET_FLAGS VmbChannelInitSetFlags;                                         \
    PFN_VMB_CHANNEL_INIT_SET_FRIENDLY_NAME VmbChannelInitSetFriendlyName;                          \
    PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_EXTERNAL_DATA VmbChannelInitSetMaximumExternalData;           \
    PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_SIZE VmbChannelInitSetMaximumPacketSize;               \
    PFN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS VmbChannelInitSetProcessPacketCallbacks;     \
    PFN_VMB_CHANNEL_INIT_SET_STATE_CHANGE_CALLBACKS VmbChannelInitSetStateChangeCallbacks;         \
    PFN_VMB_CHANNEL_PACKET_COMPLETE VmbChannelPacketComplete;                                      \
    PFN_VMB_CHANNEL_PACKET_DEFER_TO_PASSIVE VmbChannelPacketDeferToPassive;                        \
    PFN_VMB_CHANNEL_PACKET_FAIL VmbChannelPacketFail;                                              \
    PFN_VMB_CHANNEL_PACKET_GET_EXTERNAL_DATA VmbChannelPacketGetExternalData;                      \
    PFN_VMB_CHANNEL_PAUSE VmbChannelPause;                                                         \
    PFN_VMB_CHANNEL_SEND_SYNCHRONOUS_REQUEST VmbChannelSendSynchronousRequest;                     \
    PFN_VMB_CHANNEL_SET_INCOMING_PROCESSING_AT_PASSIVE VmbChannelSetIncomingProcessingAtPassive;   \
    PFN_VMB_CHANNEL_SET_INTERRUPT_LATENCY VmbChannelSetInterruptLatency;                           \
    PFN_VMB_CHANNEL_SET_POINTER VmbChannelSetPointer;                                              \
    PFN_VMB_CHANNEL_SET_TRANSACTION_QUOTA VmbChannelSetTransactionQuota;                           \
    PFN_VMB_CHANNEL_SIZEOF_PACKET VmbChannelSizeofPacket;                                          \
    PFN_VMB_CHANNEL_START VmbChannelStart;                                                         \
    PFN_VMB_CLIENT_CHANNEL_INIT_SET_RING_BUFFER_PAGE_COUNT                                         \
        VmbClientChannelInitSetRingBufferPageCount;                                                \
    PFN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PNP VmbClientChannelInitSetTargetPnp;                   \
    PFN_VMB_PACKET_ALLOCATE VmbPacketAllocate;                                                     \
    PFN_VMB_PACKET_FREE VmbPacketFree;                                                             \
    PFN_VMB_PACKET_GET_CHANNEL VmbPacketGetChannel;                                                \
    PFN_VMB_PACKET_GET_POINTER VmbPacketGetPointer;                                                \
    PFN_VMB_PACKET_INITIALIZE VmbPacketInitialize;                                                 \
    PFN_VMB_PACKET_SEND VmbPacketSend;                                                             \
    PFN_VMB_PACKET_SEND_WITH_EXTERNAL_MDL VmbPacketSendWithExternalMdl;                            \
    PFN_VMB_PACKET_SEND_WITH_EXTERNAL_PFNS VmbPacketSendWithExternalPfns;                          \
    PFN_VMB_PACKET_SET_COMPLETION_ROUTINE VmbPacketSetCompletionRoutine;                           \
    PFN_VMB_PACKET_SET_POINTER VmbPacketSetPointer;
#define KMCL_CLIENT_MEMBERS_V2                                                                     \
    PFN_VMB_CHANNEL_PACKET_GET_CLIENT_CONTEXT VmbChannelPacketGetClientContext;                    \
    PFN_VMB_CHANNEL_GET_TARGET_DEVICE_OBJECT VmbChannelGetTargetDeviceObject;                      \
    PFN_VMB_CHANNEL_GET_PARENT_DEVICE_OBJECT VmbChannelGetParentDeviceObject;
#define KMCL_CLIENT_MEMBERS_V3                                                                     \
    PFN_VMB_CHANNEL_INIT_SET_BOUNCE_BUFFER_SIZES VmbChannelInitSetBounceBufferSizes;               \
    PFN_VMB_CHANNEL_ALLOCATE_BOUNCE_BUFFER VmbChannelAllocateBounceBuffer;
#define KMCL_CLIENT_MEMBERS_V4                                                                     \
    PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_COUNT VmbChannelInitSetMaximumPacketCount;             \
    PFN_VMB_CHANNEL_CREATE_GPADL_FROM_PFN_LIST VmbChannelCreateGpadlFromPfnList;
#define KMCL_CLIENT_MEMBERS_V5                                                                     \
    PFN_VMB_CHANNEL_INIT_SET_PRIMARY_CHANNEL VmbChannelInitSetPrimaryChannel;                      \
    PFN_VMB_CHANNEL_INITIALIZE VmbChannelInitialize;                                               \
    PFN_VMB_CHANNEL_SET_ALLOWABLE_DPC_CPU_USAGE VmbChannelSetAllowableDpcCpuUsage;                 \
    PFN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PROCESSOR_INDEX                                         \
        VmbClientChannelInitSetTargetProcessorIndex;                                               \
    PFN_VMB_SIZEOF_CHANNEL VmbSizeofChannel;                                                       \
    PFN_VMB_CHANNEL_INIT_SET_INLINE_PACKET_CONTEXT_SIZE VmbChannelInitSetInlinePacketContextSize;  \
    PFN_VMB_PACKET_GET_INLINE_PACKET_CONTEXT_POINTER VmbPacketGetInlinePacketContextPointer;       \
    PFN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS_EX                                           \
        VmbChannelInitSetProcessPacketCallbacksEx;                                                 \
    PFN_VMB_PACKET_SET_COMPLETION_ROUTINE_EX VmbPacketSetCompletionRoutineEx;
#define KMCL_SERVER_ONLY_MEMBERS                                                                   \
    PFN_VMB_CHANNEL_MAP_GPADL VmbChannelMapGpadl;                                                  \
    PFN_VMB_CHANNEL_RESTORE_FROM_BUFFER VmbChannelRestoreFromBuffer;                               \
    PFN_VMB_CHANNEL_SAVE_BEGIN VmbChannelSaveBegin;                                                \
    PFN_VMB_CHANNEL_SAVE_CONTINUE VmbChannelSaveContinue;                                          \
    PFN_VMB_CHANNEL_SAVE_END VmbChannelSaveEnd;                                                    \
    PFN_VMB_CHANNEL_UNMAP_GPADL VmbChannelUnmapGpadl;                                              \
    PFN_VMB_CONVERT_VMBUS_HANDLE_TO_KERNEL_HANDLE VmbConvertVmbusHandleToKernelHandle;             \
    PFN_VMB_PACKET_RESTORE VmbPacketRestore;                                                       \
    PFN_VMB_SERVER_CHANNEL_INIT_SET_FLAGS VmbServerChannelInitSetFlags;                            \
    PFN_VMB_SERVER_CHANNEL_INIT_SET_MMIO_MEGABYTES VmbServerChannelInitSetMmioMegabytes;           \
    PFN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS                                  \
        VmbServerChannelInitSetSaveRestorePacketCallbacks;                                         \
    PFN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_INTERFACE_ID VmbServerChannelInitSetTargetInterfaceId;  \
    PFN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_VTL VmbServerChannelInitSetTargetVtl;                   \
    PFN_VMB_SERVER_CHANNEL_INIT_SET_VMBUS_HANDLE VmbServerChannelInitSetVmbusHandle;
#define KMCL_SERVER_ONLY_MEMBERS_V5                                                                \
    PFN_VMB_SERVER_CHANNEL_INIT_SET_SAVE_RESTORE_PACKET_CALLBACKS_EX                               \
        VmbServerChannelInitSetSaveRestorePacketCallbacksEx;

/* ==== Tables ================================================================================== */

typedef struct _KMCL_CLIENT_INTERFACE_V1 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
} KMCL_CLIENT_INTERFACE_V1, *PKMCL_CLIENT_INTERFACE_V1;
typedef struct _KMCL_CLIENT_INTERFACE_V2 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
} KMCL_CLIENT_INTERFACE_V2, *PKMCL_CLIENT_INTERFACE_V2;
typedef struct _KMCL_CLIENT_INTERFACE_V3 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
    KMCL_CLIENT_MEMBERS_V3
} KMCL_CLIENT_INTERFACE_V3, *PKMCL_CLIENT_INTERFACE_V3;
typedef struct _KMCL_CLIENT_INTERFACE_V4 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
    KMCL_CLIENT_MEMBERS_V3
    KMCL_CLIENT_MEMBERS_V4
} KMCL_CLIENT_INTERFACE_V4, *PKMCL_CLIENT_INTERFACE_V4;
typedef struct _KMCL_CLIENT_INTERFACE_V5 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
    KMCL_CLIENT_MEMBERS_V3
    KMCL_CLIENT_MEMBERS_V4
    KMCL_CLIENT_MEMBERS_V5
} KMCL_CLIENT_INTERFACE_V5, *PKMCL_CLIENT_INTERFACE_V5;

typedef struct _KMCL_SERVER_ONLY_METHODS {
    KMCL_SERVER_ONLY_MEMBERS
} KMCL_SERVER_ONLY_METHODS, *PKMCL_SERVER_ONLY_METHODS;
typedef struct _KMCL_SERVER_ONLY_METHODS_V5 {
    KMCL_SERVER_ONLY_MEMBERS_V5
} KMCL_SERVER_ONLY_METHODS_V5, *PKMCL_SERVER_ONLY_METHODS_V5;

/* The client's table of the same version, then what only servers have. */
typedef struct _KMCL_SERVER_INTERFACE_V1 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_SERVER_ONLY_MEMBERS
} KMCL_SERVER_INTERFACE_V1, *PKMCL_SERVER_INTERFACE_V1;
typedef struct _KMCL_SERVER_INTERFACE_V2 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
    KMCL_SERVER_ONLY_MEMBERS
} KMCL_SERVER_INTERFACE_V2, *PKMCL_SERVER_INTERFACE_V2;
typedef struct _KMCL_SERVER_INTERFACE_V3 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
    KMCL_CLIENT_MEMBERS_V3
    KMCL_SERVER_ONLY_MEMBERS
} KMCL_SERVER_INTERFACE_V3, *PKMCL_SERVER_INTERFACE_V3;
typedef struct _KMCL_SERVER_INTERFACE_V4 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
    KMCL_CLIENT_MEMBERS_V3
    KMCL_CLIENT_MEMBERS_V4
    KMCL_SERVER_ONLY_MEMBERS
} KMCL_SERVER_INTERFACE_V4, *PKMCL_SERVER_INTERFACE_V4;
typedef struct _KMCL_SERVER_INTERFACE_V5 {
    KMCL_INTERFACE_HEADER
    KMCL_CLIENT_MEMBERS_V1
    KMCL_CLIENT_MEMBERS_V2
    KMCL_CLIENT_MEMBERS_V3
    KMCL_CLIENT_MEMBERS_V4
    KMCL_CLIENT_MEMBERS_V5
    KMCL_SERVER_ONLY_MEMBERS
    KMCL_SERVER_ONLY_MEMBERS_V5
} KMCL_SERVER_INTERFACE_V5, *PKMCL_SERVER_INTERFACE_V5;

C_ASSERT(sizeof(INTERFACE) == 32);
C_ASSERT(sizeof(KMCL_CLIENT_INTERFACE_V1) == 360);
C_ASSERT(sizeof(KMCL_CLIENT_INTERFACE_V2) == 384);
C_ASSERT(sizeof(KMCL_CLIENT_INTERFACE_V3) == 400);
C_ASSERT(sizeof(KMCL_CLIENT_INTERFACE_V4) == 416);
C_ASSERT(sizeof(KMCL_CLIENT_INTERFACE_V5) == 488);
C_ASSERT(sizeof(KMCL_SERVER_ONLY_METHODS) == 112);
C_ASSERT(sizeof(KMCL_SERVER_ONLY_METHODS_V5) == 8);
C_ASSERT(sizeof(KMCL_SERVER_INTERFACE_V1) == 472);
C_ASSERT(sizeof(KMCL_SERVER_INTERFACE_V2) == 496);
C_ASSERT(sizeof(KMCL_SERVER_INTERFACE_V3) == 512);
C_ASSERT(sizeof(KMCL_SERVER_INTERFACE_V4) == 528);
C_ASSERT(sizeof(KMCL_SERVER_INTERFACE_V5) == 608);

/* ==== Asking for one ========================================================================== */

extern const GUID KMCL_CLIENT_INTERFACE_TYPE;
extern const GUID KMCL_SERVER_INTERFACE_TYPE;

#define KMCL_CLIENT_INTERFACE_VERSION_V1 1
#define KMCL_CLIENT_INTERFACE_VERSION_V2 2
#define KMCL_CLIENT_INTERFACE_VERSION_V3 3
#define KMCL_CLIENT_INTERFACE_VERSION_V4 4
#define KMCL_CLIENT_INTERFACE_VERSION_V5 5
#define KMCL_CLIENT_INTERFACE_VERSION_LATEST KMCL_CLIENT_INTERFACE_VERSION_V5
#define KMCL_SERVER_INTERFACE_VERSION_V1 1
#define KMCL_SERVER_INTERFACE_VERSION_V2 2
#define KMCL_SERVER_INTERFACE_VERSION_V3 3
#define KMCL_SERVER_INTERFACE_VERSION_V4 4
#define KMCL_SERVER_INTERFACE_VERSION_V5 5
#define KMCL_SERVER_INTERFACE_VERSION_LATEST KMCL_SERVER_INTERFACE_VERSION_V5

/* Fills *Interface, which is Size bytes long, with one table: the size of exactly that version,
 * Version, a Context with one reference, and the functions. What lies behind it is not touched.
 * KMCL_SERVER_INTERFACE_TYPE is to be had from a server's device object only,
 * KMCL_CLIENT_INTERFACE_TYPE from every one. On failure *Interface is as before. <= DISPATCH, any
 * thread; does not block. As WdfFdoQueryForInterface, whose statuses it gives:
 *   STATUS_SUCCESS
 *   STATUS_INVALID_PARAMETER  a NULL argument, or not a device object of an endpoint.
 *   STATUS_NOT_SUPPORTED      no such type or version, or not of this kind of endpoint.
 *   STATUS_BUFFER_TOO_SMALL   Size is below the table's. */
NTSTATUS KmclQueryInterface(_In_ PDEVICE_OBJECT DeviceObject, _In_ LPCGUID InterfaceType,
                            _Out_writes_bytes_(Size) PINTERFACE Interface, _In_ USHORT Size,
                            _In_ USHORT Version);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_INTERFACE_H */
