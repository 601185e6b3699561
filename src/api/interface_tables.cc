// KMCL's functions as tables (kmcl/interface.h; KMCL reference 2.5).

#include <kmcl/interface.h>
#include <kmcl/wdk/wdf.h>

#include <cstddef>
#include <cstring>

#include "api/objects.h"
#include "log.h"

const GUID KMCL_CLIENT_INTERFACE_TYPE = {
    0x7e5b1c52, 0x3d0a, 0x4c2e, {0x9f, 0x61, 0x0b, 0x6b, 0x6d, 0x63, 0x6c, 0x01}};
const GUID KMCL_SERVER_INTERFACE_TYPE = {
    0x7e5b1c52, 0x3d0a, 0x4c2e, {0x9f, 0x61, 0x0b, 0x6b, 0x6d, 0x63, 0x6c, 0x02}};

namespace kmcl::api {
namespace {

// The largest table, from which all others are cut.
constexpr KMCL_SERVER_INTERFACE_V5 kAll = {
    .VmbChannelAllocate = VmbChannelAllocate,
    .VmbChannelCleanup = VmbChannelCleanup,
    .VmbChannelCreateGpadlFromBuffer = VmbChannelCreateGpadlFromBuffer,
    .VmbChannelCreateGpadlFromMdl = VmbChannelCreateGpadlFromMdl,
    .VmbChannelDeleteGpadl = VmbChannelDeleteGpadl,
    .VmbChannelDisable = VmbChannelDisable,
    .VmbChannelEnable = VmbChannelEnable,
    .VmbChannelGetInterfaceInstance = VmbChannelGetInterfaceInstance,
    .VmbChannelGetMmioSpace = VmbChannelGetMmioSpace,
    .VmbChannelGetPointer = VmbChannelGetPointer,
    .VmbChannelInitSetClientContextSize = VmbChannelInitSetClientContextSize,
    .VmbChannelInitSetFlags = VmbChannelInitSetFlags,
    .VmbChannelInitSetFriendlyName = VmbChannelInitSetFriendlyName,
    .VmbChannelInitSetMaximumExternalData = VmbChannelInitSetMaximumExternalData,
    .VmbChannelInitSetMaximumPacketSize = VmbChannelInitSetMaximumPacketSize,
    .VmbChannelInitSetProcessPacketCallbacks = VmbChannelInitSetProcessPacketCallbacks,
    .VmbChannelInitSetStateChangeCallbacks = VmbChannelInitSetStateChangeCallbacks,
    .VmbChannelPacketComplete = VmbChannelPacketComplete,
    .VmbChannelPacketDeferToPassive = VmbChannelPacketDeferToPassive,
    .VmbChannelPacketFail = VmbChannelPacketFail,
    .VmbChannelPacketGetExternalData = VmbChannelPacketGetExternalData,
    .VmbChannelPause = VmbChannelPause,
    .VmbChannelSendSynchronousRequest = VmbChannelSendSynchronousRequest,
    .VmbChannelSetIncomingProcessingAtPassive = VmbChannelSetIncomingProcessingAtPassive,
    .VmbChannelSetInterruptLatency = VmbChannelSetInterruptLatency,
    .VmbChannelSetPointer = VmbChannelSetPointer,
    .VmbChannelSetTransactionQuota = VmbChannelSetTransactionQuota,
    .VmbChannelSizeofPacket = VmbChannelSizeofPacket,
    .VmbChannelStart = VmbChannelStart,
    .VmbClientChannelInitSetRingBufferPageCount = VmbClientChannelInitSetRingBufferPageCount,
    .VmbClientChannelInitSetTargetPnp = VmbClientChannelInitSetTargetPnp,
    .VmbPacketAllocate = VmbPacketAllocate,
    .VmbPacketFree = VmbPacketFree,
    .VmbPacketGetChannel = VmbPacketGetChannel,
    .VmbPacketGetPointer = VmbPacketGetPointer,
    .VmbPacketInitialize = VmbPacketInitialize,
    .VmbPacketSend = VmbPacketSend,
    .VmbPacketSendWithExternalMdl = VmbPacketSendWithExternalMdl,
    .VmbPacketSendWithExternalPfns = VmbPacketSendWithExternalPfns,
    .VmbPacketSetCompletionRoutine = VmbPacketSetCompletionRoutine,
    .VmbPacketSetPointer = VmbPacketSetPointer,
    .VmbChannelPacketGetClientContext = VmbChannelPacketGetClientContext,
    .VmbChannelGetTargetDeviceObject = VmbChannelGetTargetDeviceObject,
    .VmbChannelGetParentDeviceObject = VmbChannelGetParentDeviceObject,
    .VmbChannelInitSetBounceBufferSizes = VmbChannelInitSetBounceBufferSizes,
    .VmbChannelAllocateBounceBuffer = VmbChannelAllocateBounceBuffer,
    .VmbChannelInitSetMaximumPacketCount = VmbChannelInitSetMaximumPacketCount,
    .VmbChannelCreateGpadlFromPfnList = VmbChannelCreateGpadlFromPfnList,
    .VmbChannelInitSetPrimaryChannel = VmbChannelInitSetPrimaryChannel,
    .VmbChannelInitialize = VmbChannelInitialize,
    .VmbChannelSetAllowableDpcCpuUsage = VmbChannelSetAllowableDpcCpuUsage,
    .VmbClientChannelInitSetTargetProcessorIndex = VmbClientChannelInitSetTargetProcessorIndex,
    .VmbSizeofChannel = VmbSizeofChannel,
    .VmbChannelInitSetInlinePacketContextSize = VmbChannelInitSetInlinePacketContextSize,
    .VmbPacketGetInlinePacketContextPointer = VmbPacketGetInlinePacketContextPointer,
    .VmbChannelInitSetProcessPacketCallbacksEx = VmbChannelInitSetProcessPacketCallbacksEx,
    .VmbPacketSetCompletionRoutineEx = VmbPacketSetCompletionRoutineEx,
    .VmbChannelMapGpadl = VmbChannelMapGpadl,
    .VmbChannelRestoreFromBuffer = VmbChannelRestoreFromBuffer,
    .VmbChannelSaveBegin = VmbChannelSaveBegin,
    .VmbChannelSaveContinue = VmbChannelSaveContinue,
    .VmbChannelSaveEnd = VmbChannelSaveEnd,
    .VmbChannelUnmapGpadl = VmbChannelUnmapGpadl,
    .VmbConvertVmbusHandleToKernelHandle = VmbConvertVmbusHandleToKernelHandle,
    .VmbPacketRestore = VmbPacketRestore,
    .VmbServerChannelInitSetFlags = VmbServerChannelInitSetFlags,
    .VmbServerChannelInitSetMmioMegabytes = VmbServerChannelInitSetMmioMegabytes,
    .VmbServerChannelInitSetSaveRestorePacketCallbacks =
        VmbServerChannelInitSetSaveRestorePacketCallbacks,
    .VmbServerChannelInitSetTargetInterfaceId = VmbServerChannelInitSetTargetInterfaceId,
    .VmbServerChannelInitSetTargetVtl = VmbServerChannelInitSetTargetVtl,
    .VmbServerChannelInitSetVmbusHandle = VmbServerChannelInitSetVmbusHandle,
    .VmbServerChannelInitSetSaveRestorePacketCallbacksEx =
        VmbServerChannelInitSetSaveRestorePacketCallbacksEx,
};

constexpr std::size_t kClientBytes[] = {
    sizeof(KMCL_CLIENT_INTERFACE_V1), sizeof(KMCL_CLIENT_INTERFACE_V2),
    sizeof(KMCL_CLIENT_INTERFACE_V3), sizeof(KMCL_CLIENT_INTERFACE_V4),
    sizeof(KMCL_CLIENT_INTERFACE_V5)};
constexpr USHORT kVersions = std::size(kClientBytes);
// In a server's table they follow the functions that a client has too.
constexpr std::size_t kServerOnlyOffset = offsetof(KMCL_SERVER_INTERFACE_V5, VmbChannelMapGpadl);
static_assert(kServerOnlyOffset == sizeof(KMCL_CLIENT_INTERFACE_V5));

constexpr std::size_t ServerOnlyBytes(USHORT version) {
  return sizeof(KMCL_SERVER_ONLY_METHODS) +
         (version == 5 ? sizeof(KMCL_SERVER_ONLY_METHODS_V5) : 0);
}

DeviceBinding& BindingFrom(PVOID context) { return *static_cast<DeviceBinding*>(context); }

VOID Reference(PVOID context) {
  BindingFrom(context).interface_references.fetch_add(1, std::memory_order_relaxed);
}

VOID Dereference(PVOID context) {
  auto& references = BindingFrom(context).interface_references;
  long now = references.load(std::memory_order_relaxed);
  while (now > 0 && !references.compare_exchange_weak(now, now - 1, std::memory_order_release,
                                                      std::memory_order_relaxed)) {
  }
  if (now <= 0) {
    Log(LogLevel::kError, "InterfaceDereference without a reference to give back: ignored");
  }
}

}  // namespace

void CheckInterfaceReferences(const DeviceBinding& binding) {
  const long left = binding.interface_references.load(std::memory_order_acquire);
  if (left == 0) return;
  Log(LogLevel::kError,
      "an endpoint is destroyed while %ld references to its interface tables are left", left);
}

}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

NTSTATUS KmclQueryInterface(PDEVICE_OBJECT DeviceObject, LPCGUID InterfaceType,
                            PINTERFACE Interface, USHORT Size, USHORT Version) {
  DeviceBinding* const binding = BindingOf(DeviceObject);
  if (binding == nullptr || InterfaceType == nullptr || Interface == nullptr) {
    return STATUS_INVALID_PARAMETER;
  }
  const bool wants_server = *InterfaceType == KMCL_SERVER_INTERFACE_TYPE;
  if (!wants_server && *InterfaceType != KMCL_CLIENT_INTERFACE_TYPE) return STATUS_NOT_SUPPORTED;
  if (wants_server && binding->server == nullptr) return STATUS_NOT_SUPPORTED;
  if (Version < 1 || Version > kVersions) return STATUS_NOT_SUPPORTED;
  const std::size_t client_bytes = kClientBytes[Version - 1];
  const std::size_t bytes = client_bytes + (wants_server ? ServerOnlyBytes(Version) : 0);
  if (Size < bytes) return STATUS_BUFFER_TOO_SMALL;

  auto* const out = reinterpret_cast<std::byte*>(Interface);
  const auto* const all = reinterpret_cast<const std::byte*>(&kAll);
  std::memcpy(out + sizeof(INTERFACE), all + sizeof(INTERFACE), client_bytes - sizeof(INTERFACE));
  if (wants_server) {
    std::memcpy(out + client_bytes, all + kServerOnlyOffset, ServerOnlyBytes(Version));
  }
  *Interface = {.Size = static_cast<USHORT>(bytes),
                .Version = Version,
                .Context = binding,
                .InterfaceReference = Reference,
                .InterfaceDereference = Dereference};
  Reference(binding);
  return STATUS_SUCCESS;
}

NTSTATUS WdfFdoQueryForInterface(WDFDEVICE Fdo, LPCGUID InterfaceType, PINTERFACE Interface,
                                 USHORT Size, USHORT Version, PVOID) {
  return KmclQueryInterface(WdfDeviceWdmGetDeviceObject(Fdo), InterfaceType, Interface, Size,
                            Version);
}

NTSTATUS WdfIoTargetQueryForInterface(WDFIOTARGET IoTarget, LPCGUID InterfaceType,
                                      PINTERFACE Interface, USHORT Size, USHORT Version, PVOID) {
  return KmclQueryInterface(reinterpret_cast<PDEVICE_OBJECT>(IoTarget), InterfaceType, Interface,
                            Size, Version);
}
