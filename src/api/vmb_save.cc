// Save and restore of server channels (KMCL reference 10.8).

#include <kmcl/save.h>

#include <new>

#include "api/objects.h"
#include "api/status_map.h"
#include "api/verifier.h"

using namespace kmcl;
using namespace kmcl::api;

namespace {

ChannelObject* ServerFrom(VMBCHANNEL channel) {
  if (channel == nullptr || !ChannelObject::From(channel).is_server()) return nullptr;
  return &ChannelObject::From(channel);
}

NTSTATUS StatusOfFailure(const channel::SaveFailure& failure) {
  return failure.error == Error::kCallbackFailed ? NTSTATUS{failure.callback_status}
                                                 : StatusOf(failure.error);
}

}  // namespace

NTSTATUS VmbChannelSaveBegin(VMBCHANNEL Channel) {
  ChannelObject* const object = ServerFrom(Channel);
  if (object == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!MayChangeState(Channel, "VmbChannelSaveBegin", KMCL_CALLER)) return STATUS_INVALID_DEVICE_STATE;
  const auto begun = object->engine().BeginSave(object->server()->name());
  return begun ? STATUS_SUCCESS : StatusOf(begun.error());
}

NTSTATUS VmbChannelSaveContinue(VMBCHANNEL Channel, PVOID SaveBuffer, ULONG SaveBufferSize,
                                PULONG BytesFilled, PULONG BytesRequired) {
  ChannelObject* const object = ServerFrom(Channel);
  if (object == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (SaveBuffer == nullptr && SaveBufferSize != 0) return STATUS_INVALID_PARAMETER_2;
  if (BytesFilled == nullptr) return STATUS_INVALID_PARAMETER_4;
  if (BytesRequired == nullptr) return STATUS_INVALID_PARAMETER_5;
  *BytesFilled = *BytesRequired = 0;
  if (!MayChangeState(Channel, "VmbChannelSaveContinue", KMCL_CALLER)) return STATUS_INVALID_DEVICE_STATE;
  const auto progress =
      object->engine().ContinueSave({static_cast<std::byte*>(SaveBuffer), SaveBufferSize});
  if (!progress) return StatusOfFailure(progress.error());
  *BytesFilled = static_cast<ULONG>(progress->filled_bytes);
  *BytesRequired = static_cast<ULONG>(progress->required_bytes);
  switch (progress->kind) {
    case channel::SaveProgress::Kind::kDone:
      return STATUS_SUCCESS;
    case channel::SaveProgress::Kind::kMore:
      return STATUS_BUFFER_OVERFLOW;
    case channel::SaveProgress::Kind::kTooSmall:
      return STATUS_BUFFER_TOO_SMALL;
  }
  return STATUS_UNSUCCESSFUL;
}

VOID VmbChannelSaveEnd(VMBCHANNEL Channel) {
  ChannelObject* const object = ServerFrom(Channel);
  if (object == nullptr || !MayChangeState(Channel, "VmbChannelSaveEnd", KMCL_CALLER)) return;
  object->engine().EndSave();
}

NTSTATUS VmbChannelRestoreFromBuffer(VMBCHANNEL Channel, PVOID Buffer, ULONG BufferSize) {
  ChannelObject* const object = ServerFrom(Channel);
  if (object == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Buffer == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (!MayChangeState(Channel, "VmbChannelRestoreFromBuffer", KMCL_CALLER)) return STATUS_INVALID_DEVICE_STATE;
  const auto restored =
      object->server()->Restore({static_cast<const std::byte*>(Buffer), BufferSize});
  if (!restored) return StatusOfFailure(restored.error());
  return *restored == channel::Channel::Restored::kComplete ? STATUS_SUCCESS
                                                            : STATUS_MORE_PROCESSING_REQUIRED;
}

NTSTATUS VmbPacketRestore(VMBPACKET PacketObject, PVOID Buffer, ULONG BufferSize) {
  if (PacketObject == nullptr || PacketFrom(PacketObject).routine == nullptr) {
    return STATUS_INVALID_PARAMETER_1;
  }
  if (Buffer == nullptr) return STATUS_INVALID_PARAMETER_2;
  channel::Packet& packet = PacketFrom(PacketObject);
  try {
    const auto restored = packet.channel->RestorePacket(
        packet, {static_cast<const std::byte*>(Buffer), BufferSize});
    if (KMCL_VERIFIER_ON && restored) verifier::Restored(PacketObject, KMCL_CALLER);
    return restored ? STATUS_SUCCESS : StatusOf(restored.error());
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}
