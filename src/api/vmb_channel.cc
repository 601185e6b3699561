// Channel lifetime and state (KMCL reference 10.1).

#include <new>

#include "api/objects.h"
#include "api/status_map.h"
#include "api/verifier.h"
#include "log.h"

namespace kmcl::api {
namespace {

// What VmbChannelAllocate and VmbChannelInitialize check alike.
NTSTATUS CheckParent(PDEVICE_OBJECT parent, BOOLEAN is_server) {
  const DeviceBinding* const binding = BindingOf(parent);
  if (binding == nullptr) return STATUS_INVALID_PARAMETER_1;
  return (is_server != FALSE) != (binding->server != nullptr) ? STATUS_INVALID_PARAMETER_2
                                                              : STATUS_SUCCESS;
}

}  // namespace
}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

NTSTATUS VmbChannelAllocate(PDEVICE_OBJECT ParentDeviceObject, BOOLEAN IsServer,
                            VMBCHANNEL* Channel) {
  if (Channel != nullptr) *Channel = nullptr;
  const NTSTATUS checked = CheckParent(ParentDeviceObject, IsServer);
  if (checked != STATUS_SUCCESS) return checked;
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_3;
  try {
    ChannelObject* const object = KMCL_WITH_VERIFIER && verifier::Attach()
                                      ? verifier::MakeChannel(ParentDeviceObject, KMCL_CALLER)
                                      : new ChannelObject(ParentDeviceObject, false);
    *Channel = object->handle();
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

UINT32 VmbSizeofChannel(VOID) { return sizeof(ChannelObject); }

NTSTATUS VmbChannelInitialize(PDEVICE_OBJECT ParentDeviceObject, BOOLEAN IsServer,
                              VMBCHANNEL Channel, UINT32 ByteCount) {
  constexpr std::uintptr_t kAlignment = 16;
  static_assert(alignof(ChannelObject) <= kAlignment);
  const NTSTATUS checked = CheckParent(ParentDeviceObject, IsServer);
  if (checked != STATUS_SUCCESS) return checked;
  if (Channel == nullptr || reinterpret_cast<std::uintptr_t>(Channel) % kAlignment != 0) {
    return STATUS_INVALID_PARAMETER_3;
  }
  if (ByteCount < sizeof(ChannelObject)) return STATUS_INVALID_PARAMETER_4;
  // The verifier keeps what was freed, to recognise it: this memory it could not keep.
  if (KMCL_WITH_VERIFIER) verifier::MadeUnwatched();
  try {
    new (Channel) ChannelObject(ParentDeviceObject, true);
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

VOID VmbChannelCleanup(VMBCHANNEL Channel) {
  if (Channel == nullptr || !MayChangeState(Channel, "VmbChannelCleanup", KMCL_CALLER)) return;
  ChannelObject& object = ChannelObject::From(Channel);
  if (!object.engine().is_disabled()) {
    if (KMCL_VERIFIER_ON) verifier::CleanupOfEnabled(Channel, KMCL_CALLER);
    Log(LogLevel::kError, "VmbChannelCleanup of a channel that is not Disabled: disabled first");
    object.end().Disable();
  }
  object.engine().DropRestored();  // restored, and never enabled
  if (object.in_caller_memory()) {
    object.~ChannelObject();
  } else if (KMCL_VERIFIER_ON) {
    verifier::Discard(object, KMCL_CALLER);
  } else {
    delete &object;
  }
}

NTSTATUS VmbChannelEnable(VMBCHANNEL Channel) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!MayChangeState(Channel, "VmbChannelEnable", KMCL_CALLER)) return STATUS_INVALID_DEVICE_STATE;
  try {
    const auto enabled = ChannelObject::From(Channel).end().Enable();
    return enabled ? STATUS_SUCCESS : StatusOf(enabled.error());
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

VOID VmbChannelDisable(VMBCHANNEL Channel) {
  if (Channel == nullptr || !MayChangeState(Channel, "VmbChannelDisable", KMCL_CALLER)) return;
  ChannelObject::From(Channel).end().Disable();
}

VOID VmbChannelStart(VMBCHANNEL Channel) {
  if (Channel == nullptr || !MayChangeState(Channel, "VmbChannelStart", KMCL_CALLER)) return;
  ChannelObject::From(Channel).engine().Start();
}

VOID VmbChannelPause(VMBCHANNEL Channel) {
  if (Channel == nullptr || !MayChangeState(Channel, "VmbChannelPause", KMCL_CALLER)) return;
  ChannelObject::From(Channel).engine().Pause();
}

VOID VmbChannelSetPointer(VMBCHANNEL Channel, PVOID Pointer) {
  ChannelObject::From(Channel).pointer.store(Pointer, std::memory_order_release);
}

PVOID VmbChannelGetPointer(VMBCHANNEL Channel) {
  return ChannelObject::From(Channel).pointer.load(std::memory_order_acquire);
}

VOID VmbChannelGetInterfaceInstance(VMBCHANNEL Channel, LPGUID InterfaceInstance) {
  if (Channel == nullptr || InterfaceInstance == nullptr) return;
  ChannelObject& object = ChannelObject::From(Channel);
  *InterfaceInstance = ToC(object.is_server() ? object.server()->setup().offer.key.instance
                                              : object.client()->binding().instance);
}

VOID VmbChannelGetMmioSpace(VMBCHANNEL Channel, UINT64* MmioAddress, UINT64* MmioSize) {
  if (Channel == nullptr || MmioAddress == nullptr || MmioSize == nullptr) return;
  ChannelObject& object = ChannelObject::From(Channel);
  // These transports have no physical address space to reserve from: the size is what was offered.
  *MmioAddress = 0;
  *MmioSize = object.is_server() ? 0 : UINT64{object.client()->binding().mmio_megabytes} << 20;
}

NTSTATUS VmbChannelSetInterruptLatency(VMBCHANNEL Channel, UINT16 Latency,
                                       PUINT16 OriginalLatency) {
  if (Channel == nullptr || ChannelObject::From(Channel).is_server()) {
    return STATUS_INVALID_PARAMETER_1;
  }
  if (OriginalLatency == nullptr) return STATUS_INVALID_PARAMETER_3;
  if (KMCL_VERIFIER_ON &&
      !verifier::IsAtPassive(Channel, "VmbChannelSetInterruptLatency", KMCL_CALLER)) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  ChannelObject& object = ChannelObject::From(Channel);
  if (!object.engine().is_open()) return STATUS_INVALID_DEVICE_STATE;
  const auto before = object.client()->SetLatency(Latency);
  if (!before) return StatusOf(before.error());
  *OriginalLatency = *before;
  return STATUS_SUCCESS;
}

VOID VmbChannelSetIncomingProcessingAtPassive(VMBCHANNEL Channel, BOOLEAN RequirePassive) {
  if (Channel == nullptr) return;
  if (KMCL_VERIFIER_ON &&
      !verifier::IsChannel(Channel, "VmbChannelSetIncomingProcessingAtPassive", KMCL_CALLER))
    return;
  ChannelObject::From(Channel).engine().SetPassive(RequirePassive != FALSE);
}

VOID VmbChannelSetTransactionQuota(VMBCHANNEL Channel, UINT32 Quota) {
  if (Channel == nullptr) return;
  if (KMCL_VERIFIER_ON &&
      !verifier::IsChannel(Channel, "VmbChannelSetTransactionQuota", KMCL_CALLER))
    return;
  if (Quota == 0) {
    Log(LogLevel::kError, "VmbChannelSetTransactionQuota: a quota of 0 is ignored");
    return;
  }
  ChannelObject::From(Channel).engine().SetQuota(Quota);
}
