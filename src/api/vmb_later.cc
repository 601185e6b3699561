// The functions of tables V2 to V5 (KMCL reference 2.6, kmcl/later.h), but for those that stand
// with their kin: channels in vmb_channel.cc, GPADLs in vmb_gpadl.cc.

#include <kmcl/later.h>

#include <new>

#include "api/init_window.h"
#include "api/objects.h"

namespace kmcl::api {
namespace {

constexpr UINT32 kMostPackets = 65'536;

// The routine of a packet whose own routine takes a context.
VOID CallWithContext(VMBPACKET handle, NTSTATUS status, PVOID buffer, UINT32 bytes) {
  channel::Packet& packet = PacketFrom(handle);
  const auto routine =
      reinterpret_cast<PFN_VMB_PACKET_COMPLETION_ROUTINE_EX>(packet.routine_with_context);
  routine(handle, status, buffer, bytes, packet.routine_context);
}

}  // namespace
}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

PDEVICE_OBJECT VmbChannelGetTargetDeviceObject(VMBCHANNEL Channel) {
  if (Channel == nullptr || ChannelObject::From(Channel).is_server()) return nullptr;
  ChannelObject& object = ChannelObject::From(Channel);
  return object.client()->binding().bound ? object.parent() : nullptr;
}

PDEVICE_OBJECT VmbChannelGetParentDeviceObject(VMBCHANNEL Channel) {
  return Channel == nullptr ? nullptr : ChannelObject::From(Channel).parent();
}

NTSTATUS VmbChannelInitSetBounceBufferSizes(VMBCHANNEL Channel, UINT32 BufferSize,
                                            UINT32 BufferCount) {
  constexpr UINT64 kMostBytes = UINT64{1} << 30;
  if (ConfigOf(Channel, Kind::kClient) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (BufferSize == 0) return STATUS_INVALID_PARAMETER_2;
  if (BufferCount == 0 || ROUND_TO_PAGES(UINT64{BufferSize}) > kMostBytes / BufferCount) {
    return STATUS_INVALID_PARAMETER_3;
  }
  try {
    auto buffers = BounceBuffers::Create(BufferSize, BufferCount);
    if (buffers == nullptr) return STATUS_INSUFFICIENT_RESOURCES;
    ChannelObject::From(Channel).bounce_buffers = std::move(buffers);
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

PVOID VmbChannelAllocateBounceBuffer(VMBCHANNEL Channel) {
  if (Channel == nullptr) return nullptr;
  BounceBuffers* const buffers = ChannelObject::From(Channel).bounce_buffers.get();
  return buffers == nullptr ? nullptr : buffers->Take();
}

NTSTATUS VmbChannelInitSetMaximumPacketCount(VMBCHANNEL Channel, UINT32 Count) {
  channel::Config* const config = ConfigOf(Channel, Kind::kEither);
  if (config == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Count == 0 || Count > kMostPackets) return STATUS_INVALID_PARAMETER_2;
  config->maximum_packets = Count;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetInlinePacketContextSize(VMBCHANNEL Channel, UINT32 ContextSize) {
  channel::Config* const config = ConfigOf(Channel, Kind::kEither);
  if (config == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (ContextSize > kMostContextBytes) return STATUS_INVALID_PARAMETER_2;
  config->inline_context_bytes = ContextSize;
  return STATUS_SUCCESS;
}

PVOID VmbPacketGetInlinePacketContextPointer(VMBPACKET PacketObject) {
  return PacketObject == nullptr ? nullptr : PacketFrom(PacketObject).inline_context;
}

NTSTATUS VmbChannelInitSetProcessPacketCallbacksEx(
    VMBCHANNEL Channel, PFN_VMB_CHANNEL_PROCESS_PACKET_EX ProcessPacketCallback,
    PFN_VMB_CHANNEL_PROCESSING_COMPLETE_EX ProcessingCompleteCallback, PVOID Context) {
  if (ConfigOf(Channel, Kind::kEither) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (ProcessPacketCallback == nullptr) return STATUS_INVALID_PARAMETER_2;
  ChannelObject& object = ChannelObject::From(Channel);
  object.process_packet = nullptr;
  object.processing_complete = nullptr;
  object.process_packet_ex = ProcessPacketCallback;
  object.processing_complete_ex = ProcessingCompleteCallback;
  object.packet_callbacks_context = Context;
  return STATUS_SUCCESS;
}

VOID VmbPacketSetCompletionRoutineEx(VMBPACKET PacketObject,
                                     PFN_VMB_PACKET_COMPLETION_ROUTINE_EX CompletionRoutine,
                                     PVOID Context) {
  channel::Packet& packet = PacketFrom(PacketObject);
  packet.routine_with_context = reinterpret_cast<void (*)()>(CompletionRoutine);
  packet.routine_context = Context;
  packet.routine =
      CompletionRoutine == nullptr ? nullptr : reinterpret_cast<void (*)()>(&CallWithContext);
}

NTSTATUS VmbServerChannelInitSetSaveRestorePacketCallbacksEx(
    VMBCHANNEL Channel, PFN_VMB_CHANNEL_SAVE_PACKET_EX SavePacketCallback,
    PFN_VMB_CHANNEL_RESTORE_PACKET_EX RestorePacketCallback, PVOID Context) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (SavePacketCallback == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (RestorePacketCallback == nullptr) return STATUS_INVALID_PARAMETER_3;
  ChannelObject& object = ChannelObject::From(Channel);
  object.save_packet = nullptr;
  object.restore_packet = nullptr;
  object.save_packet_ex = SavePacketCallback;
  object.restore_packet_ex = RestorePacketCallback;
  object.save_context = Context;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelSetAllowableDpcCpuUsage(VMBCHANNEL Channel, UINT32 Percentage) {
  constexpr UINT32 kNoLimit = 100;
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Percentage == 0 || Percentage > kNoLimit) return STATUS_INVALID_PARAMETER_2;
  ChannelObject::From(Channel).engine().SetDispatchShare(Percentage);
  return STATUS_SUCCESS;
}

NTSTATUS VmbClientChannelInitSetTargetProcessorIndex(VMBCHANNEL Channel, UINT32 ProcessorIndex) {
  if (ConfigOf(Channel, Kind::kClient) == nullptr) return STATUS_INVALID_PARAMETER_1;
  ChannelObject& object = ChannelObject::From(Channel);
  if (ProcessorIndex >= BindingOf(object.parent())->client->processor_count()) {
    return STATUS_INVALID_PARAMETER_2;
  }
  object.client()->setup().processor = ProcessorIndex;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetPrimaryChannel(VMBCHANNEL Channel, VMBCHANNEL PrimaryChannel) {
  if (ConfigOf(Channel, Kind::kEither) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (PrimaryChannel == nullptr || PrimaryChannel == Channel) return STATUS_INVALID_PARAMETER_2;
  ChannelObject& object = ChannelObject::From(Channel);
  ChannelObject& primary = ChannelObject::From(PrimaryChannel);
  if (primary.parent() != object.parent() || primary.end().is_subchannel() ||
      object.end().SubchannelAfter(0) != nullptr) {
    return STATUS_INVALID_PARAMETER_2;
  }
  try {
    object.end().SetPrimary(primary.end());
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}
