// A driver's source as its author wrote it: nothing but Windows' header names and words, compiled as C
// and (wdk_driver_test.cc) as C++, with no more than include paths. Running it tries the words that are
// macros or inline functions; the functions have tests of their own.
#include <ntddk.h>
#include <wdm.h>
#include <ntifs.h>
#include <initguid.h>
#include <vmbuskernelmodeclientlibapi.h>
#include <wdf.h>

#define POOL_TAG 'tseT'

DEFINE_GUID(GUID_WDK_DRIVER_TEST, 0x3b1c9c4e, 0x7d3a, 0x4f53, 0x9a, 0x11, 0x0c, 0x5e, 0x1b, 0x2a, 0x3d,
            0x4f);

typedef struct _DEVICE_CONTEXT {
    LIST_ENTRY Link;
    KSPIN_LOCK Lock;
    FAST_MUTEX Mutex;
    KEVENT Idle;
    EX_RUNDOWN_REF Rundown;
    IO_REMOVE_LOCK RemoveLock;
    SLIST_HEADER Free;
    SINGLE_LIST_ENTRY Simple;
    LONG References;
    UCHAR Data[100];
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

C_ASSERT(sizeof(KEVENT) == 24);
C_ASSERT(sizeof(SLIST_HEADER) == 16);
C_ASSERT(sizeof(KSPIN_LOCK) == 8);
C_ASSERT(RTL_SIZEOF_THROUGH_FIELD(MDL, Next) == 8);
C_ASSERT(MDL_WRITE_OPERATION == 0x80 && MDL_PARTIAL_HAS_BEEN_MAPPED == 0x20);

static IO_WORKITEM_ROUTINE WorkRoutine;
static EVT_VMB_CHANNEL_OPENED EvtOpened;

static VOID WorkRoutine(_In_ PDEVICE_OBJECT DeviceObject, _In_opt_ PVOID Context) {
    PDEVICE_CONTEXT context = (PDEVICE_CONTEXT)Context;
    UNREFERENCED_PARAMETER(DeviceObject);
    PAGED_CODE();
    ExReleaseRundownProtection(&context->Rundown);
    KeSetEvent(&context->Idle, IO_NO_INCREMENT, FALSE);
}

_Use_decl_annotations_ static NTSTATUS EvtOpened(VMBCHANNEL Channel) {
    UNREFERENCED_PARAMETER(Channel);
    return STATUS_SUCCESS;
}

static PMDL DescribeData(PDEVICE_CONTEXT Context) {
    PMDL mdl = IoAllocateMdl(Context->Data, sizeof(Context->Data), FALSE, FALSE, NULL);
    if (mdl == NULL) {
        return NULL;
    }
    MmBuildMdlForNonPagedPool(mdl);
    return mdl;
}

// Pointers in C, references in C++, as on Windows.
static BOOLEAN SameGuid(const GUID* Guid) {
#ifdef __cplusplus
    return InlineIsEqualGUID(*Guid, GUID_WDK_DRIVER_TEST);
#else
    return InlineIsEqualGUID(Guid, &GUID_WDK_DRIVER_TEST);
#endif
}

static int failures;

static void Check(BOOLEAN Holds, PCSTR What) {
    if (!Holds) {
        DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL, "wdk_driver_test: %s\n", What);
        ++failures;
    }
}

static void UseContext(PDEVICE_CONTEXT Context) {
    LIST_ENTRY list;
    KIRQL irql;
    PMDL mdl;
    PIO_WORKITEM item;
    LARGE_INTEGER second;
    NTSTATUS status;

    InitializeListHead(&list);
    KeInitializeSpinLock(&Context->Lock);
    ExInitializeFastMutex(&Context->Mutex);
    KeInitializeEvent(&Context->Idle, NotificationEvent, FALSE);
    ExInitializeRundownProtection(&Context->Rundown);
    IoInitializeRemoveLock(&Context->RemoveLock, POOL_TAG, 0, 0);
    InitializeSListHead(&Context->Free);

    KeAcquireSpinLock(&Context->Lock, &irql);
    InsertTailList(&list, &Context->Link);
    KeReleaseSpinLock(&Context->Lock, irql);
    Check(CONTAINING_RECORD(RemoveHeadList(&list), DEVICE_CONTEXT, Link) == Context, "lists");
    Check(InterlockedIncrement(&Context->References) == 1, "interlocked operations");

    mdl = DescribeData(Context);
    Check(mdl != NULL && MmGetMdlByteCount(mdl) == 100, "an MDL");
    Check(MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority | MdlMappingNoExecute) == Context->Data,
          "an MDL's address");
    IoFreeMdl(mdl);

    item = IoAllocateWorkItem(NULL);
    Check(item != NULL && ExAcquireRundownProtection(&Context->Rundown), "rundown protection");
    IoQueueWorkItem(item, WorkRoutine, DelayedWorkQueue, Context);
    second.QuadPart = -10 * 1000 * 1000;
    do {
        status = KeWaitForSingleObject(&Context->Idle, Executive, KernelMode, FALSE, &second);
    } while (status == STATUS_TIMEOUT);
    Check(NT_SUCCESS(status), "a work item");
    ExWaitForRundownProtectionRelease(&Context->Rundown);
    IoFreeWorkItem(item);
}

int main(void) {
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    PDEVICE_CONTEXT context;
    INTERFACE header;
    GUID copy = GUID_WDK_DRIVER_TEST;

    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelOpened = EvtOpened;
    RtlZeroMemory(&header, sizeof(header));
    header.Size = sizeof(header);
    Check(header.Size == 32, "INTERFACE");
    Check(copy.Data1 == 0x3b1c9c4e && SameGuid(&copy),
          "GUIDs");
    Check(min(2, 3) == 2 && max(2, 3) == 3, "min and max");
    Check(ALIGN_UP_BY(5, 8) == 8 && ALIGN_DOWN_BY(13, 8) == 8 && ARRAYSIZE(context->Data) == 100,
          "arithmetic");

    context = (PDEVICE_CONTEXT)ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(*context), POOL_TAG);
    if (context == NULL) {
        return 1;
    }
    UseContext(context);
    ExFreePoolWithTag(context, POOL_TAG);
    NT_ASSERT(KeGetCurrentIrql() == PASSIVE_LEVEL);
    KdPrint(("%d failures, %wZ\n", failures, (PUNICODE_STRING)NULL));
    return failures == 0 ? 0 : 1;
}
