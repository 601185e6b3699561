// Several packets at once (kmcl/batch.h).

#include <kmcl/batch.h>

#include <array>
#include <cstdint>

#include "api/objects.h"
#include "api/verifier.h"

namespace kmcl::api {
namespace {

using channel::Channel;

// As many packets are shown at a time.
constexpr UINT32 kMostTogether = 32;

struct Batch {
  const VMBPACKET* packets;
  const PVOID* buffers;
  const UINT32* lengths;
  UINT32 count;
};

// Whether it may go the short way: the looks that VmbPacketSend takes.
bool IsPlain(VMBPACKET handle, PVOID buffer, UINT32 length) {
  if (handle == nullptr || buffer == nullptr) return false;
  const channel::Packet& packet = PacketFrom(handle);
  return packet.routine != nullptr && length < packet.send_limit;
}

// Sends packets of one channel from `first` on, as many as go the short way together: their number.
UINT32 SendTogether(const Batch& batch, UINT32 first, bool wait) {
  std::array<Channel::PlainSend, kMostTogether> sends;
  Channel* channel = nullptr;
  UINT32 count = 0;
  for (UINT32 i = first; i < batch.count && count < kMostTogether; ++i) {
    if (!IsPlain(batch.packets[i], batch.buffers[i], batch.lengths[i])) break;
    channel::Packet& packet = PacketFrom(batch.packets[i]);
    if (channel == nullptr) channel = packet.channel;
    if (packet.channel != channel) break;
    sends[count++] = {.packet = &packet,
                      .data = static_cast<const std::byte*>(batch.buffers[i]),
                      .bytes = batch.lengths[i]};
  }
  if (count == 0) return 0;
  const UINT32 sent = channel->SendPlainBatch(std::span(sends).first(count), wait);
  if (wait) return sent;
  for (const Channel::PlainSend& send : std::span(sends).first(sent)) {
    send.packet->state.store(channel::Packet::State::kIdle, std::memory_order_relaxed);
    ChannelObject::CallRoutine(*send.packet, STATUS_SUCCESS, {});
  }
  return sent;
}

}  // namespace
}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

NTSTATUS KmclPacketSendBatch(const VMBPACKET* Packets, const PVOID* Buffers,
                             const UINT32* BufferLengths, UINT32 Count, UINT32 Flags,
                             PUINT32 Sent) {
  if (Sent != nullptr) *Sent = 0;
  if (Count == 0) return STATUS_SUCCESS;
  if (Packets == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Buffers == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (BufferLengths == nullptr) return STATUS_INVALID_PARAMETER_3;
  constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;
  const Batch batch{Packets, Buffers, BufferLengths, Count};
  UINT32 sent = 0;
  NTSTATUS status = STATUS_SUCCESS;
  while (sent < Count) {
    const UINT32 together = (Flags & ~kWait) == 0 ? SendTogether(batch, sent, Flags != 0) : 0;
    sent += together;
    if (together != 0) continue;
    status = SendAnyPacket(Packets[sent], Buffers[sent], BufferLengths[sent], nullptr, Flags,
                           KMCL_CALLER);
    if (status != STATUS_SUCCESS) break;
    ++sent;
  }
  if (Sent != nullptr) *Sent = sent;
  return status;
}
