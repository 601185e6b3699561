// External data (KMCL reference 5.5, 7).

#include <kmcl/endpoint.h>
#include <kmcl/external_data.h>

#include <optional>

#include "api/external_send.h"
#include "api/status_map.h"
#include "api/verifier.h"
#include "channel/channel.h"
#include "wdk/mdl.h"
#include "wire/packet.h"

namespace kmcl::api {
namespace {

using endpoint::ExternalSource;
using endpoint::Transfers;

std::span<const std::byte> BytesOf(PVOID buffer, UINT32 length) {
  return {static_cast<const std::byte*>(buffer), length};
}

// Parameters 1 to 3 of the sending functions.
NTSTATUS CheckPacketAndBuffer(VMBPACKET packet, PVOID buffer, UINT32 length) {
  if (packet == nullptr || PacketFrom(packet).routine == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (buffer == nullptr && length != 0) return STATUS_INVALID_PARAMETER_2;
  if (length > PacketFrom(packet).capacity) return STATUS_INVALID_PARAMETER_3;
  return STATUS_SUCCESS;
}

bool AreSendFlags(UINT32 flags) {
  return (flags & ~UINT32{VMBUS_CHANNEL_FORMAT_FLAGS}) == 0 &&
         (flags & VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION) != 0;
}

// The part of a chain that VmbPacketSendWithExternalMdl names, or what is wrong with it.
std::expected<ExternalSource, NTSTATUS> PartOf(PMDL head, UINT32 offset, UINT32 length,
                                               bool forced) {
  if (forced && length != 0) {
    const auto piece = wdk::ForcedPiece(head, offset, length);
    if (piece) return ExternalSource::OfPiece(*piece);
    const bool begins_inside = wdk::ForcedPiece(head, offset, 1).has_value();
    return std::unexpected(begins_inside ? STATUS_INVALID_PARAMETER_6 : STATUS_INVALID_PARAMETER_5);
  }
  const std::uint64_t bytes = forced ? head->ByteCount : wdk::SizeOf(head).bytes;
  if (offset >= bytes) return std::unexpected(STATUS_INVALID_PARAMETER_5);
  if (length > bytes - offset) return std::unexpected(STATUS_INVALID_PARAMETER_6);
  return ExternalSource::OfChain(head, offset, length == 0 ? bytes - offset : length);
}

// Takes one of the refusals that a test has asked for.
bool TakeForcedPending(ChannelObject& object) {
  ULONG left = object.pending_forced.load(std::memory_order_relaxed);
  while (left > 0) {
    if (object.pending_forced.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

bool IsWithinLimits(const channel::Config& config, std::uint64_t bytes, std::uint64_t pieces) {
  return config.maximum_external_bytes == 0 ||
         (bytes <= config.maximum_external_bytes && pieces <= config.maximum_external_chain);
}

}  // namespace

bool MayDescribe(ChannelObject& object) {
  return !object.is_server() && !object.engine().config().pipe;
}

bool IsWithinLimits(ChannelObject& object, const ExternalSource& source) {
  std::uint64_t bytes = 0;
  std::uint64_t pieces = 0;
  source.ForEach([&](const wdk::Piece& piece) {
    bytes += piece.byte_count;
    ++pieces;
  });
  return bytes != 0 && IsWithinLimits(object.engine().config(), bytes, pieces);
}

NTSTATUS Describe(ChannelObject& object, const ExternalSource& source, std::span<std::byte> room,
                  NTSTATUS too_large, Transfers::Description& description) {
  auto described = Transfers::Describe(object.client()->link(), source, room);
  if (!described) {
    return described.error() == Error::kPacketTooLong ? too_large : StatusOf(described.error());
  }
  description = *std::move(described);
  return STATUS_SUCCESS;
}

NTSTATUS SendDescribed(channel::Packet& packet, std::span<const std::byte> data,
                       const ExternalSource& source, NTSTATUS too_large) {
  // Its room may be in use.
  if (packet.state.load(std::memory_order_relaxed) != channel::Packet::State::kIdle) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  Transfers::Description description;
  const NTSTATUS described = Describe(ChannelObject::From(*packet.channel), source,
                                      packet.room_for_external(), too_large, description);
  if (described != STATUS_SUCCESS) return described;
  packet.external = description.header;
  packet.transfer = description.transfer.get();
  const auto sent = packet.channel->Send(packet, data, true);
  if (sent) {
    static_cast<void>(description.transfer.release());  // the packet's, which may be over by now
    return STATUS_SUCCESS;
  }
  packet.external = {};
  packet.transfer = nullptr;
  return sent.error() == Error::kPacketTooLong ? too_large : StatusOf(sent.error());
}

namespace {

NTSTATUS SendWithMdl(VMBPACKET PacketObject, PVOID Buffer, UINT32 BufferLength,
                     PMDL ExternalDataMdl, UINT32 MdlOffset, UINT32 MdlLength, UINT32 Flags) {
  const NTSTATUS checked = CheckPacketAndBuffer(PacketObject, Buffer, BufferLength);
  if (checked != STATUS_SUCCESS) return checked;
  channel::Packet& packet = PacketFrom(PacketObject);
  ChannelObject& object = ChannelObject::From(*packet.channel);
  if (ExternalDataMdl == nullptr || !MayDescribe(object)) return STATUS_INVALID_PARAMETER_4;
  const auto part = PartOf(ExternalDataMdl, MdlOffset, MdlLength,
                           (Flags & VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH) != 0);
  if (!part) return part.error();
  if (!IsWithinLimits(object, *part)) return STATUS_INVALID_PARAMETER_4;
  if (!AreSendFlags(Flags)) return STATUS_INVALID_PARAMETER_7;
  return SendDescribed(packet, BytesOf(Buffer, BufferLength), *part, STATUS_INVALID_PARAMETER_4);
}

NTSTATUS SendWithPfns(VMBPACKET PacketObject, PVOID Buffer, UINT32 BufferLength,
                      PPFN_NUMBER ExternalDataPfns, UINT32 PfnLength, UINT32 Flags) {
  constexpr UINT32 kMostPages = 0xFFFFFFFF / PAGE_SIZE;
  const NTSTATUS checked = CheckPacketAndBuffer(PacketObject, Buffer, BufferLength);
  if (checked != STATUS_SUCCESS) return checked;
  channel::Packet& packet = PacketFrom(PacketObject);
  ChannelObject& object = ChannelObject::From(*packet.channel);
  if (ExternalDataPfns == nullptr || !MayDescribe(object)) return STATUS_INVALID_PARAMETER_4;
  if (PfnLength == 0 || PfnLength > kMostPages) return STATUS_INVALID_PARAMETER_5;
  const auto source = ExternalSource::OfPages({ExternalDataPfns, PfnLength});
  if (!IsWithinLimits(object, source)) return STATUS_INVALID_PARAMETER_5;
  if (!AreSendFlags(Flags)) return STATUS_INVALID_PARAMETER_6;
  return SendDescribed(packet, BytesOf(Buffer, BufferLength), source, STATUS_INVALID_PARAMETER_5);
}

// Whether the verifier has to look at a packet first.
bool IsWatched(VMBPACKET packet) { return packet != nullptr && PacketFrom(packet).send_limit == 0; }

}  // namespace
}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

NTSTATUS VmbPacketSendWithExternalMdl(VMBPACKET PacketObject, PVOID Buffer, UINT32 BufferLength,
                                      PMDL ExternalDataMdl, UINT32 MdlOffset, UINT32 MdlLength,
                                      UINT32 Flags) {
  const auto send = [=] {
    return SendWithMdl(PacketObject, Buffer, BufferLength, ExternalDataMdl, MdlOffset, MdlLength,
                       Flags);
  };
  if (KMCL_VERIFIER_ON && IsWatched(PacketObject)) {
    return verifier::Send(PacketObject, Flags, "VmbPacketSendWithExternalMdl", send, KMCL_CALLER);
  }
  return send();
}

NTSTATUS VmbPacketSendWithExternalPfns(VMBPACKET PacketObject, PVOID Buffer, UINT32 BufferLength,
                                       PPFN_NUMBER ExternalDataPfns, UINT32 PfnLength,
                                       UINT32 Flags) {
  const auto send = [=] {
    return SendWithPfns(PacketObject, Buffer, BufferLength, ExternalDataPfns, PfnLength, Flags);
  };
  if (KMCL_VERIFIER_ON && IsWatched(PacketObject)) {
    return verifier::Send(PacketObject, Flags, "VmbPacketSendWithExternalPfns", send, KMCL_CALLER);
  }
  return send();
}

NTSTATUS VmbChannelPacketGetExternalData(VMBPACKETCOMPLETION PacketCompletionContext, UINT32 Flags,
                                         PMDL* Mdl) {
  if (Mdl != nullptr) *Mdl = nullptr;
  if (PacketCompletionContext == nullptr) return STATUS_INVALID_PARAMETER_1;
  if ((Flags & ~UINT32{VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAGS}) != 0) {
    return STATUS_INVALID_PARAMETER_2;
  }
  if (Mdl == nullptr) return STATUS_INVALID_PARAMETER_3;
  // A packet that is not outstanding is the verifier's copy of one that is.
  channel::IncomingPacket& drivers = IncomingFrom(PacketCompletionContext);
  channel::IncomingPacket* real = &drivers;
  if (KMCL_VERIFIER_ON && !drivers.outstanding.load(std::memory_order_relaxed)) {
    real = verifier::Delivered(PacketCompletionContext, "VmbChannelPacketGetExternalData",
                               KMCL_CALLER);
    if (real == nullptr) return STATUS_INVALID_PARAMETER_1;
  }
  channel::IncomingPacket& packet = *real;
  ChannelObject& object = ChannelObject::From(*packet.channel);
  // What a server describes is no memory of ours to look at.
  if (!packet.external_data || !object.is_server()) return STATUS_NOT_FOUND;
  if (packet.external_view != nullptr) {
    *Mdl = static_cast<PMDL>(packet.external_view);
    return STATUS_SUCCESS;
  }
  const auto ranges = wire::ParseGpaDirect(packet.header);
  if (!ranges ||
      !IsWithinLimits(object.engine().config(), ranges->byte_count(), ranges->range_count())) {
    return STATUS_INVALID_BUFFER_SIZE;
  }
  if (TakeForcedPending(object) && object.engine().Defer(drivers)) return STATUS_PENDING;
  const auto access = (Flags & VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY) != 0
                          ? wdk::Access::kReadOnly
                          : wdk::Access::kReadWrite;
  wdk::Chain chain = wdk::MakeChain(object.server()->setup().partition->pages(), *ranges, access);
  if (chain == nullptr) return STATUS_INSUFFICIENT_RESOURCES;
  packet.external_view = chain.release();
  packet.release_external_view = [](void* view) { wdk::FreeChain(static_cast<PMDL>(view)); };
  *Mdl = static_cast<PMDL>(packet.external_view);
  return STATUS_SUCCESS;
}

VOID KmclChannelForceExternalDataPending(VMBCHANNEL Channel, ULONG Times) {
  if (Channel == nullptr) return;
  ChannelObject::From(Channel).pending_forced.store(Times, std::memory_order_relaxed);
}
