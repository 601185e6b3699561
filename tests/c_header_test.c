// The public headers as a C driver sees them: they compile as C11, their structures have the sizes
// and offsets of 64-bit Windows, and each function has the type that its FN_ name promises. What is
// checked here is checked by the compiler and the linker; running the test adds the inline
// functions.
#include <kmcl/batch.h>
#include <kmcl/connect.h>
#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>
#include <kmcl/nt.h>
#include <kmcl/raw.h>
#include <kmcl/uio.h>
#include <stdio.h>
#include <vmbuskernelmodeclientlibapi.h>

#define INITGUID
#include <kmcl/nt.h>

DEFINE_GUID(kTestGuid, 0xf912ad6d, 0x2b17, 0x48ea, 0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84);

_Static_assert(sizeof(BOOLEAN) == 1 && sizeof(CSHORT) == 2 && sizeof(NTSTATUS) == 4, "scalars");
_Static_assert(sizeof(ULONG) == 4 && sizeof(LONGLONG) == 8 && sizeof(PFN_NUMBER) == 8, "scalars");
_Static_assert(sizeof(WCHAR) == 2 && sizeof(KIRQL) == 1 && sizeof(HANDLE) == 8, "scalars");
_Static_assert((NTSTATUS)-1 < 0, "NTSTATUS is signed");

_Static_assert(sizeof(GUID) == 16, "GUID");
_Static_assert(offsetof(GUID, Data4) == 8, "GUID");
_Static_assert(sizeof(LARGE_INTEGER) == 8 && offsetof(LARGE_INTEGER, HighPart) == 4,
               "LARGE_INTEGER");
_Static_assert(sizeof(UNICODE_STRING) == 16 && offsetof(UNICODE_STRING, Buffer) == 8,
               "UNICODE_STRING");
_Static_assert(sizeof(MDL) == 48, "MDL");
_Static_assert(offsetof(MDL, Next) == 0 && offsetof(MDL, Size) == 8 &&
                   offsetof(MDL, MdlFlags) == 10,
               "MDL");
_Static_assert(offsetof(MDL, Process) == 16 && offsetof(MDL, MappedSystemVa) == 24, "MDL");
_Static_assert(offsetof(MDL, StartVa) == 32 && offsetof(MDL, ByteCount) == 40, "MDL");
_Static_assert(offsetof(MDL, ByteOffset) == 44, "MDL");
_Static_assert(sizeof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS) == 48, "state change callbacks");
_Static_assert(offsetof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS, Size) == 4, "state change callbacks");
_Static_assert(offsetof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS, EvtChannelOpened) == 8 &&
                   offsetof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS, EvtChannelClosed) == 16 &&
                   offsetof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS, EvtChannelSuspend) == 24 &&
                   offsetof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS, EvtChannelStarted) == 32 &&
                   offsetof(VMB_CHANNEL_STATE_CHANGE_CALLBACKS, EvtChannelPostStarted) == 40,
               "state change callbacks");

_Static_assert(VMBUS_CHANNEL_FORMAT_FLAGS == (VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION |
                                              VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH |
                                              VMBUS_CHANNEL_FORMAT_FLAG_PAGED_BUFFER),
               "mask");
_Static_assert(VMBUS_CHANNEL_INIT_FLAGS == VMBUS_CHANNEL_INIT_FLAG_IS_PIPE, "mask");
_Static_assert(VMBUS_SERVER_CHANNEL_INIT_FLAGS ==
                   (VMBUS_SERVER_CHANNEL_INIT_FLAG_LOOPBACK_OFFER |
                    VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE |
                    VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE |
                    VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL |
                    VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER),
               "mask");
_Static_assert(VMBUS_SERVER_CHANNEL_INIT_MAXIMUM_OFFER_DATA == 120, "offer data");

_Static_assert(NT_SUCCESS(STATUS_SUCCESS) && NT_SUCCESS(STATUS_PENDING), "severities");
_Static_assert(!NT_SUCCESS(STATUS_BUFFER_OVERFLOW) && NT_WARNING(STATUS_BUFFER_OVERFLOW),
               "severities");
_Static_assert(NT_ERROR(STATUS_MORE_PROCESSING_REQUIRED) && !NT_WARNING(STATUS_CANCELLED),
               "severities");
_Static_assert((ULONG)STATUS_INVALID_PARAMETER_8 == 0xC00000F6u, "values");
_Static_assert((ULONG)STATUS_DEVICE_REMOVED == 0xC00002B6u, "values");
_Static_assert((ULONG)STATUS_CONNECTION_DISCONNECTED == 0xC000020Cu, "values");

_Static_assert(BYTES_TO_PAGES(1) == 1 && BYTES_TO_PAGES(4096) == 1 && BYTES_TO_PAGES(4097) == 2,
               "pages");
_Static_assert(ROUND_TO_PAGES(1) == 4096 && ROUND_TO_PAGES(8192) == 8192, "pages");

// Three handle types that C does not convert into each other.
#define IS(type, expression) _Generic((expression), type : 1, default : 0)
_Static_assert(!IS(VMBCHANNEL, (VMBPACKET)0) && !IS(VMBPACKET, (VMBPACKETCOMPLETION)0), "handles");
_Static_assert(!IS(VMBCHANNEL, (HANDLE)0), "handles");

// Every function of this version, by its own name. A wrong prototype does not compile, a function
// that is not there does not link.
typedef VOID (*AnyFunction)(VOID);
static const PFN_VMB_CHANNEL_ALLOCATE allocate = VmbChannelAllocate;
static const PFN_VMB_CHANNEL_CLEANUP cleanup = VmbChannelCleanup;
static const PFN_VMB_CHANNEL_ENABLE enable = VmbChannelEnable;
static const PFN_VMB_CHANNEL_DISABLE disable = VmbChannelDisable;
static const PFN_VMB_CHANNEL_START start = VmbChannelStart;
static const PFN_VMB_CHANNEL_PAUSE pause_channel = VmbChannelPause;
static const PFN_VMB_CHANNEL_SET_POINTER set_pointer = VmbChannelSetPointer;
static const PFN_VMB_CHANNEL_GET_POINTER get_pointer = VmbChannelGetPointer;
static const PFN_VMB_CHANNEL_GET_INTERFACE_INSTANCE get_instance = VmbChannelGetInterfaceInstance;
static const PFN_VMB_CHANNEL_GET_MMIO_SPACE get_mmio = VmbChannelGetMmioSpace;
static const PFN_VMB_CHANNEL_SET_INTERRUPT_LATENCY set_latency = VmbChannelSetInterruptLatency;
static const PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_PACKET_SIZE maximum_packet =
    VmbChannelInitSetMaximumPacketSize;
static const PFN_VMB_CHANNEL_INIT_SET_MAXIMUM_EXTERNAL_DATA maximum_external =
    VmbChannelInitSetMaximumExternalData;
static const PFN_VMB_CHANNEL_INIT_SET_CLIENT_CONTEXT_SIZE context_size =
    VmbChannelInitSetClientContextSize;
static const PFN_VMB_CHANNEL_INIT_SET_PROCESS_PACKET_CALLBACKS packet_callbacks =
    VmbChannelInitSetProcessPacketCallbacks;
static const PFN_VMB_CHANNEL_INIT_SET_STATE_CHANGE_CALLBACKS state_callbacks =
    VmbChannelInitSetStateChangeCallbacks;
static const PFN_VMB_CHANNEL_INIT_SET_FRIENDLY_NAME friendly_name = VmbChannelInitSetFriendlyName;
static const PFN_VMB_CHANNEL_INIT_SET_FLAGS flags = VmbChannelInitSetFlags;
static const PFN_VMB_CLIENT_CHANNEL_INIT_SET_RING_BUFFER_PAGE_COUNT ring_pages =
    VmbClientChannelInitSetRingBufferPageCount;
static const PFN_VMB_CLIENT_CHANNEL_INIT_SET_TARGET_PNP target_pnp =
    VmbClientChannelInitSetTargetPnp;
static const PFN_VMB_SERVER_CHANNEL_INIT_SET_FLAGS server_flags = VmbServerChannelInitSetFlags;
static const PFN_VMB_SERVER_CHANNEL_INIT_SET_MMIO_MEGABYTES mmio =
    VmbServerChannelInitSetMmioMegabytes;
static const PFN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_INTERFACE_ID interface_id =
    VmbServerChannelInitSetTargetInterfaceId;
static const PFN_VMB_SERVER_CHANNEL_INIT_SET_VMBUS_HANDLE bus_handle =
    VmbServerChannelInitSetVmbusHandle;
static const PFN_VMB_SERVER_CHANNEL_INIT_SET_TARGET_VTL vtl = VmbServerChannelInitSetTargetVtl;
static const PFN_VMB_CONVERT_VMBUS_HANDLE_TO_KERNEL_HANDLE convert =
    VmbConvertVmbusHandleToKernelHandle;
static const PFN_VMB_PACKET_ALLOCATE packet_allocate = VmbPacketAllocate;
static const PFN_VMB_PACKET_FREE packet_free = VmbPacketFree;
static const PFN_VMB_CHANNEL_SIZEOF_PACKET sizeof_packet = VmbChannelSizeofPacket;
static const PFN_VMB_PACKET_INITIALIZE packet_initialize = VmbPacketInitialize;
static const PFN_VMB_PACKET_SET_POINTER packet_set_pointer = VmbPacketSetPointer;
static const PFN_VMB_PACKET_GET_POINTER packet_get_pointer = VmbPacketGetPointer;
static const PFN_VMB_PACKET_GET_CHANNEL packet_get_channel = VmbPacketGetChannel;
static const PFN_VMB_PACKET_SET_COMPLETION_ROUTINE set_routine = VmbPacketSetCompletionRoutine;
static const PFN_VMB_PACKET_SEND packet_send = VmbPacketSend;
static const PFN_VMB_CHANNEL_SEND_SYNCHRONOUS_REQUEST synchronous =
    VmbChannelSendSynchronousRequest;
static const PFN_VMB_CHANNEL_PACKET_COMPLETE complete = VmbChannelPacketComplete;
static const PFN_VMB_CHANNEL_PACKET_DEFER_TO_PASSIVE defer = VmbChannelPacketDeferToPassive;
static const PFN_VMB_CHANNEL_PACKET_FAIL fail = VmbChannelPacketFail;
static const PFN_VMB_CHANNEL_PACKET_GET_CLIENT_CONTEXT context = VmbChannelPacketGetClientContext;
static const PFN_VMB_CHANNEL_SET_INCOMING_PROCESSING_AT_PASSIVE at_passive =
    VmbChannelSetIncomingProcessingAtPassive;
static const PFN_VMB_CHANNEL_SET_TRANSACTION_QUOTA quota = VmbChannelSetTransactionQuota;

static int FunctionsMissing(void) {
  // Read through volatile, so that the compiler keeps every reference for the linker.
  const volatile AnyFunction functions[] = {
      (AnyFunction)allocate,
      (AnyFunction)cleanup,
      (AnyFunction)enable,
      (AnyFunction)disable,
      (AnyFunction)start,
      (AnyFunction)pause_channel,
      (AnyFunction)set_pointer,
      (AnyFunction)get_pointer,
      (AnyFunction)get_instance,
      (AnyFunction)get_mmio,
      (AnyFunction)set_latency,
      (AnyFunction)maximum_packet,
      (AnyFunction)maximum_external,
      (AnyFunction)context_size,
      (AnyFunction)packet_callbacks,
      (AnyFunction)state_callbacks,
      (AnyFunction)friendly_name,
      (AnyFunction)flags,
      (AnyFunction)ring_pages,
      (AnyFunction)target_pnp,
      (AnyFunction)server_flags,
      (AnyFunction)mmio,
      (AnyFunction)interface_id,
      (AnyFunction)bus_handle,
      (AnyFunction)vtl,
      (AnyFunction)convert,
      (AnyFunction)packet_allocate,
      (AnyFunction)packet_free,
      (AnyFunction)sizeof_packet,
      (AnyFunction)packet_initialize,
      (AnyFunction)packet_set_pointer,
      (AnyFunction)packet_get_pointer,
      (AnyFunction)packet_get_channel,
      (AnyFunction)set_routine,
      (AnyFunction)packet_send,
      (AnyFunction)synchronous,
      (AnyFunction)complete,
      (AnyFunction)defer,
      (AnyFunction)fail,
      (AnyFunction)context,
      (AnyFunction)at_passive,
      (AnyFunction)quota,
      (AnyFunction)NtClose,
      (AnyFunction)ZwClose,
      (AnyFunction)KeGetCurrentIrql,
      (AnyFunction)KeRaiseIrql,
      (AnyFunction)KeLowerIrql,
  };
  int missing = 0;
  for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); ++i) {
    missing += functions[i] == NULL;
  }
  return missing;
}

static int failures;

static void Check(int holds, const char* what) {
  if (!holds) {
    (void)fprintf(stderr, "c_header_test: %s\n", what);
    ++failures;
  }
}

int main(void) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  memset(&callbacks, 0xA5, sizeof(callbacks));
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  Check(callbacks.Version == 1 && callbacks.Size == 48, "INIT sets version and size");
  Check(callbacks.EvtChannelOpened == NULL && callbacks.EvtChannelPostStarted == NULL,
        "INIT clears the callbacks");

  UNICODE_STRING name;
  RtlInitUnicodeString(&name, u"Echo");
  Check(name.Length == 8 && name.MaximumLength == 10 && name.Buffer[3] == u'o', "a string");
  RtlInitUnicodeString(&name, NULL);
  Check(name.Length == 0 && name.MaximumLength == 0 && name.Buffer == NULL, "no string");
  DECLARE_CONST_UNICODE_STRING(constant, u"Network");
  Check(constant.Length == 14 && constant.MaximumLength == 16, "a constant string");

  const GUID same = {0xf912ad6d, 0x2b17, 0x48ea, {0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84}};
  GUID other = same;
  other.Data4[7] ^= 1;
  Check(IsEqualGUID(&kTestGuid, &same) && !IsEqualGUID(&kTestGuid, &other), "GUIDs compare");

  Check(RtlCompareMemory("abc", "abd", 3) == 2, "RtlCompareMemory counts equal bytes");
  Check(ADDRESS_AND_SIZE_TO_SPAN_PAGES(0xFFF, 2) == 2, "two bytes can span two pages");
  UNICODE_STRING* const outer = CONTAINING_RECORD(&name.Buffer, UNICODE_STRING, Buffer);
  Check(outer == &name, "CONTAINING_RECORD finds the structure");

  KIRQL old = DISPATCH_LEVEL;
  Check(KeGetCurrentIrql() == PASSIVE_LEVEL, "a program's thread is at PASSIVE_LEVEL");
  KeRaiseIrql(DISPATCH_LEVEL, &old);
  Check(old == PASSIVE_LEVEL && KeGetCurrentIrql() == DISPATCH_LEVEL, "the level rises");
  KeLowerIrql(old);
  Check(KeGetCurrentIrql() == PASSIVE_LEVEL, "the level falls");

  Check(FunctionsMissing() == 0, "every function is there");
  return failures == 0 ? 0 : 1;
}
