// Raw mode (kmcl/raw.h): argument checks, and statuses for what the channel's raw queue says.

#include <kmcl/raw.h>

#include <chrono>
#include <optional>

#include "api/objects.h"
#include "api/status_map.h"
#include "channel/raw_queue.h"
#include "wdk/clock.h"
#include "wire/ring_layout.h"

namespace kmcl::api {
namespace {

using channel::RawQueue;

RawQueue* RawOf(VMBCHANNEL channel) {
  return channel == nullptr ? nullptr : ChannelObject::From(channel).engine().raw();
}

[[gnu::cold]] NTSTATUS Failed(VMBCHANNEL channel, Error error) {
  ChannelObject::From(channel).engine().OnRawError(error);
  return error == Error::kRequestPending ? STATUS_NO_MORE_ENTRIES : StatusOf(error);
}

void Fill(KMCL_RAW_PACKET& packet, const ring::IncomingPacket& from) {
  packet = {.Type = static_cast<UINT16>(from.type),
            .Flags = from.flags,
            .HeaderLength = static_cast<UINT32>(from.header.size()),
            .TransactionId = from.transaction_id,
            .Header = from.header.data(),
            .Payload = from.payload.data(),
            .PayloadLength = static_cast<UINT32>(from.payload.size()),
            .Reserved = 0};
}

bool AreDirections(UINT32 directions) {
  return directions != 0 && (directions & ~UINT32{KMCL_RAW_DIRECTIONS}) == 0;
}

RawQueue::Wish WishOf(UINT32 directions, UINT32 payload_bytes) {
  return {.incoming = (directions & KMCL_RAW_INCOMING) != 0,
          .outgoing = (directions & KMCL_RAW_OUTGOING) != 0,
          .payload_bytes = payload_bytes};
}

}  // namespace
}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

static_assert(KMCL_RAW_DATA == static_cast<unsigned>(wire::PacketType::kDataInBand));
static_assert(KMCL_RAW_COMPLETION == static_cast<unsigned>(wire::PacketType::kCompletion));
static_assert(KMCL_RAW_FLAG_COMPLETION_REQUESTED == wire::kPacketFlagCompletionRequested);

NTSTATUS KmclChannelInitSetRaw(VMBCHANNEL Channel) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  channel::Channel& engine = ChannelObject::From(Channel).engine();
  if (engine.config_in_init_window() == nullptr) return STATUS_INVALID_PARAMETER_1;
  const auto made = engine.MakeRaw();
  return made ? STATUS_SUCCESS : StatusOf(made.error());
}

NTSTATUS KmclRawPeek(VMBCHANNEL Channel, PKMCL_RAW_PACKET Packet) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Packet == nullptr) return STATUS_INVALID_PARAMETER_2;
  const auto packet = raw->Peek();
  if (!packet) return Failed(Channel, packet.error());
  if (!*packet) return STATUS_NO_MORE_ENTRIES;
  Fill(*Packet, **packet);
  return STATUS_SUCCESS;
}

NTSTATUS KmclRawSkip(VMBCHANNEL Channel) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  const auto skipped = raw->Skip();
  return skipped ? STATUS_SUCCESS : Failed(Channel, skipped.error());
}

NTSTATUS KmclRawRead(VMBCHANNEL Channel, PVOID Buffer, UINT32 BufferLength,
                     PKMCL_RAW_PACKET Packet) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Buffer == nullptr && BufferLength != 0) return STATUS_INVALID_PARAMETER_2;
  if (Packet == nullptr) return STATUS_INVALID_PARAMETER_4;
  const auto packet = raw->Read({static_cast<std::byte*>(Buffer), BufferLength});
  if (!packet) return Failed(Channel, packet.error());
  if (!*packet) return STATUS_NO_MORE_ENTRIES;
  Fill(*Packet, **packet);
  return STATUS_SUCCESS;
}

NTSTATUS KmclRawRelease(VMBCHANNEL Channel) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  const auto released = raw->Release();
  return released ? STATUS_SUCCESS : Failed(Channel, released.error());
}

NTSTATUS KmclRawWrite(VMBCHANNEL Channel, UINT16 Type, UINT16 Flags, UINT64 TransactionId,
                      PVOID Payload, UINT32 PayloadLength) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Type != KMCL_RAW_DATA && Type != KMCL_RAW_COMPLETION) return STATUS_INVALID_PARAMETER_2;
  const UINT16 allowed = Type == KMCL_RAW_DATA ? KMCL_RAW_FLAG_COMPLETION_REQUESTED : 0;
  if ((Flags & ~allowed) != 0) return STATUS_INVALID_PARAMETER_3;
  if (Payload == nullptr && PayloadLength != 0) return STATUS_INVALID_PARAMETER_5;
  const auto written =
      raw->Write({.type = static_cast<wire::PacketType>(Type),
                  .flags = Flags,
                  .transaction_id = TransactionId,
                  .payload = {static_cast<const std::byte*>(Payload), PayloadLength}});
  if (!written) {
    return written.error() == Error::kPacketTooLong ? STATUS_INVALID_PARAMETER_6
                                                    : Failed(Channel, written.error());
  }
  return *written == ring::WriteOutcome::kFull ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

NTSTATUS KmclRawFlush(VMBCHANNEL Channel) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  const auto flushed = raw->Flush();
  return flushed ? STATUS_SUCCESS : Failed(Channel, flushed.error());
}

NTSTATUS KmclRawQueryOutgoing(VMBCHANNEL Channel, PUINT32 RingBytes, PUINT32 UntakenBytes) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (RingBytes == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (UntakenBytes == nullptr) return STATUS_INVALID_PARAMETER_3;
  const auto use = raw->QueryOutgoing();
  if (!use) return Failed(Channel, use.error());
  *RingBytes = use->ring_bytes;
  *UntakenBytes = use->untaken_bytes;
  return STATUS_SUCCESS;
}

NTSTATUS KmclRawWait(VMBCHANNEL Channel, UINT32 Directions, UINT32 PayloadLength,
                     PLARGE_INTEGER Timeout) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!AreDirections(Directions)) return STATUS_INVALID_PARAMETER_2;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  if (Timeout != nullptr) deadline = wdk::DeadlineOf(Timeout->QuadPart);
  const auto ready = raw->Wait(WishOf(Directions, PayloadLength), deadline);
  if (!ready) return Failed(Channel, ready.error());
  return *ready ? STATUS_SUCCESS : STATUS_TIMEOUT;
}

NTSTATUS KmclRawArm(VMBCHANNEL Channel, UINT32 Directions, UINT32 PayloadLength) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!AreDirections(Directions)) return STATUS_INVALID_PARAMETER_2;
  const auto ready = raw->Arm(WishOf(Directions, PayloadLength));
  if (!ready) return Failed(Channel, ready.error());
  return *ready ? STATUS_MORE_PROCESSING_REQUIRED : STATUS_SUCCESS;
}

int KmclRawGetDescriptor(VMBCHANNEL Channel, UINT32 Direction) {
  RawQueue* const raw = RawOf(Channel);
  if (raw == nullptr) return -1;
  if (Direction == KMCL_RAW_INCOMING) return raw->incoming_fd();
  return Direction == KMCL_RAW_OUTGOING ? raw->outgoing_fd() : -1;
}
