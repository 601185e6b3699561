// The Init functions (KMCL reference 10.2 to 10.4): each first asks for the Init window, then checks its
// own arguments, then sets its value.

#include <new>

#include "api/init_window.h"
#include "api/objects.h"
#include "api/status_map.h"
#include "api/verifier.h"
#include "wire/messages.h"
#include "wire/pipe.h"
#include "wire/ring_layout.h"

namespace kmcl::api {
namespace {

// The longest payload that one ring packet can carry, beside a pipe header (length8 has 16 bits).
constexpr UINT32 kMostPacketBytes = std::size_t{0xFFFF} * 8 - sizeof(wire::PacketDescriptor) - 8;

constexpr struct {
  UINT32 init_flag;
  UINT16 offer_flag;
} kOfferFlags[] = {
    {VMBUS_SERVER_CHANNEL_INIT_FLAG_LOOPBACK_OFFER, wire::kOfferLoopback},
    {VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE,
     wire::kOfferEnumerateDeviceInterface},
    {VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE, wire::kOfferNamedPipeMode},
    {VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER, wire::kOfferTlnpiProvider},
};

}  // namespace

channel::Config* ConfigOf(VMBCHANNEL channel, Kind kind) {
  if (channel == nullptr) return nullptr;
  if (KMCL_VERIFIER_ON && !verifier::IsChannel(channel, "An Init function", nullptr)) return nullptr;
  ChannelObject& object = ChannelObject::From(channel);
  if (kind != Kind::kEither && (kind == Kind::kServer) != object.is_server()) {
    if (KMCL_VERIFIER_ON) verifier::OutsideInitWindow(channel, true);
    return nullptr;
  }
  channel::Config* const config = object.engine().config_in_init_window();
  if (KMCL_VERIFIER_ON && config == nullptr) verifier::OutsideInitWindow(channel, false);
  return config;
}

}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

NTSTATUS VmbChannelInitSetMaximumPacketSize(VMBCHANNEL Channel, UINT32 PacketSize) {
  channel::Config* const config = ConfigOf(Channel, Kind::kEither);
  if (config == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (PacketSize == 0 || PacketSize > kMostPacketBytes) return STATUS_INVALID_PARAMETER_2;
  config->maximum_packet_bytes = PacketSize;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetMaximumExternalData(VMBCHANNEL Channel, UINT32 DataSize,
                                              UINT32 ChainLength) {
  channel::Config* const config = ConfigOf(Channel, Kind::kEither);
  if (config == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (DataSize == 0) return STATUS_INVALID_PARAMETER_2;
  if (ChainLength == 0) return STATUS_INVALID_PARAMETER_3;
  config->maximum_external_bytes = DataSize;
  config->maximum_external_chain = ChainLength;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetClientContextSize(VMBCHANNEL Channel, UINT32 ContextSize) {
  channel::Config* const config = ConfigOf(Channel, Kind::kEither);
  if (config == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (ContextSize > kMostContextBytes) return STATUS_INVALID_PARAMETER_2;
  config->context_bytes = ContextSize;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetProcessPacketCallbacks(
    VMBCHANNEL Channel, PFN_VMB_CHANNEL_PROCESS_PACKET ProcessPacketCallback,
    PFN_VMB_CHANNEL_PROCESSING_COMPLETE ProcessingCompleteCallback) {
  if (ConfigOf(Channel, Kind::kEither) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (ProcessPacketCallback == nullptr) return STATUS_INVALID_PARAMETER_2;
  ChannelObject& object = ChannelObject::From(Channel);
  object.process_packet = ProcessPacketCallback;
  object.processing_complete = ProcessingCompleteCallback;
  object.processing_complete_ex = nullptr;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetStateChangeCallbacks(
    VMBCHANNEL Channel, PVMB_CHANNEL_STATE_CHANGE_CALLBACKS StateChangeCallbacks) {
  if (ConfigOf(Channel, Kind::kEither) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (StateChangeCallbacks == nullptr || StateChangeCallbacks->Version != 1 ||
      StateChangeCallbacks->Size != sizeof *StateChangeCallbacks) {
    return STATUS_INVALID_PARAMETER_2;
  }
  ChannelObject::From(Channel).state_callbacks = *StateChangeCallbacks;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetFriendlyName(VMBCHANNEL Channel, PCUNICODE_STRING Name) {
  if (ConfigOf(Channel, Kind::kEither) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Name == nullptr || Name->Length % sizeof(WCHAR) != 0 ||
      (Name->Length != 0 && Name->Buffer == nullptr)) {
    return STATUS_INVALID_PARAMETER_2;
  }
  try {
    static_assert(sizeof(WCHAR) == sizeof(char16_t));
    const auto* const text = reinterpret_cast<const char16_t*>(Name->Buffer);
    ChannelObject::From(Channel).friendly_name.assign(text, text + Name->Length / sizeof(WCHAR));
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS VmbChannelInitSetFlags(VMBCHANNEL Channel, UINT32 Flags) {
  channel::Config* const config = ConfigOf(Channel, Kind::kEither);
  if (config == nullptr) return STATUS_INVALID_PARAMETER_1;
  if ((Flags & ~UINT32{VMBUS_CHANNEL_INIT_FLAGS}) != 0) return STATUS_INVALID_PARAMETER_2;
  config->pipe = (Flags & VMBUS_CHANNEL_INIT_FLAG_IS_PIPE) != 0;
  return STATUS_SUCCESS;
}

NTSTATUS VmbClientChannelInitSetRingBufferPageCount(VMBCHANNEL Channel, UINT32 IncomingPageCount,
                                                    UINT32 OutgoingPageCount) {
  if (ConfigOf(Channel, Kind::kClient) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (IncomingPageCount == 0) return STATUS_INVALID_PARAMETER_2;
  if (OutgoingPageCount == 0) return STATUS_INVALID_PARAMETER_3;
  auto& setup = ChannelObject::From(Channel).client()->setup();
  setup.incoming_pages = IncomingPageCount;
  setup.outgoing_pages = OutgoingPageCount;
  return STATUS_SUCCESS;
}

NTSTATUS VmbClientChannelInitSetTargetPnp(VMBCHANNEL Channel, LPCGUID InterfaceType,
                                          LPCGUID InterfaceInstance,
                                          PFN_VMB_CHANNEL_PNP_FAILURE PnpFailureCallback) {
  if (ConfigOf(Channel, Kind::kClient) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (InterfaceType == nullptr) return STATUS_INVALID_PARAMETER_2;
  ChannelObject& object = ChannelObject::From(Channel);
  auto& setup = object.client()->setup();
  setup.interface_type = FromC(*InterfaceType);
  setup.instance.reset();
  if (InterfaceInstance != nullptr) setup.instance = FromC(*InterfaceInstance);
  object.pnp_failure = PnpFailureCallback;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetFlags(VMBCHANNEL Channel, UINT32 Flags) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if ((Flags & ~UINT32{VMBUS_SERVER_CHANNEL_INIT_FLAGS}) != 0) return STATUS_INVALID_PARAMETER_2;
  UINT16 offer_flags = 0;
  for (const auto& each : kOfferFlags) {
    if ((Flags & each.init_flag) != 0) offer_flags |= each.offer_flag;
  }
  auto& setup = ChannelObject::From(Channel).server()->setup();
  constexpr UINT16 kOthers = wire::kOfferRequestMonitoredNotification;  // is set on its own
  setup.offer.flags = static_cast<UINT16>((setup.offer.flags & kOthers) | offer_flags);
  // What KMCL sends through a pipe are messages, and the offer says so; sockets carry a stream.
  setup.offer.user_defined = {};
  constexpr UINT16 kKind = wire::kOfferNamedPipeMode | wire::kOfferTlnpiProvider;
  if ((offer_flags & kKind) == wire::kOfferNamedPipeMode) {
    setup.offer.user_defined = wire::EncodePipeParameters({.kind = wire::PipeKind::kMessage});
  }
  setup.force_new = (Flags & VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL) != 0;
  return STATUS_SUCCESS;
}

NTSTATUS KmclChannelInitSetWaitPolicy(VMBCHANNEL Channel, ULONG SpinMicroseconds) {
  channel::Config* const config = ConfigOf(Channel, Kind::kEither);
  if (config == nullptr) return STATUS_INVALID_PARAMETER_1;
  config->spin_us = SpinMicroseconds;
  return STATUS_SUCCESS;
}

NTSTATUS KmclServerChannelInitSetMonitored(VMBCHANNEL Channel, BOOLEAN Monitored) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  UINT16& flags = ChannelObject::From(Channel).server()->setup().offer.flags;
  constexpr UINT16 kFlag = wire::kOfferRequestMonitoredNotification;
  flags = static_cast<UINT16>(Monitored == FALSE ? flags & ~kFlag : flags | kFlag);
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetMmioMegabytes(VMBCHANNEL Channel, UINT16 MmioMegabytes,
                                              UINT16 MmioMegabytesOptional) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (MmioMegabytes == 0 && MmioMegabytesOptional == 0) return STATUS_INVALID_PARAMETER;
  auto& offer = ChannelObject::From(Channel).server()->setup().offer;
  offer.mmio_megabytes = MmioMegabytes;
  offer.mmio_megabytes_optional = MmioMegabytesOptional;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetTargetInterfaceId(VMBCHANNEL Channel, GUID InterfaceType,
                                                  GUID InterfaceInstance) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  auto& setup = ChannelObject::From(Channel).server()->setup();
  setup.offer.key = {.interface_type = FromC(InterfaceType),
                     .instance = FromC(InterfaceInstance),
                     .subchannel_index = 0};
  setup.has_offer = true;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetSaveRestorePacketCallbacks(
    VMBCHANNEL Channel, PFN_VMB_CHANNEL_SAVE_PACKET SavePacketCallback,
    PFN_VMB_CHANNEL_RESTORE_PACKET RestorePacketCallback) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (SavePacketCallback == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (RestorePacketCallback == nullptr) return STATUS_INVALID_PARAMETER_3;
  ChannelObject& object = ChannelObject::From(Channel);
  object.save_packet = SavePacketCallback;
  object.restore_packet = RestorePacketCallback;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetVmbusHandle(VMBCHANNEL Channel, HANDLE VmbusHandle) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  auto partition = FindPartition(VmbusHandle);
  if (partition == nullptr) return STATUS_INVALID_PARAMETER_2;
  ChannelObject::From(Channel).server()->setup().partition = std::move(partition);
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetTargetVtl(VMBCHANNEL Channel, UINT8 TargetVtl) {
  constexpr UINT8 kHighestVtl = 2;
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (TargetVtl > kHighestVtl) return STATUS_INVALID_PARAMETER_2;
  ChannelObject::From(Channel).server()->setup().target_vtl = TargetVtl;
  return STATUS_SUCCESS;
}

NTSTATUS VmbConvertVmbusHandleToKernelHandle(HANDLE VmbusHandle, PHANDLE KernelHandle) {
  auto partition = FindPartition(VmbusHandle);
  if (partition == nullptr) return STATUS_INVALID_HANDLE;
  if (KernelHandle == nullptr) return STATUS_INVALID_PARAMETER_2;
  try {
    *KernelHandle = AddPartitionHandle(std::move(partition));
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS NtClose(HANDLE Handle) {
  return RemovePartitionHandle(Handle) ? STATUS_SUCCESS : STATUS_INVALID_HANDLE;
}

NTSTATUS ZwClose(HANDLE Handle) { return NtClose(Handle); }
