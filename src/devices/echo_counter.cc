#include "devices/echo_counter.h"

#include <cstring>

#include "devices/echo_protocol.h"

namespace kmcl::devices {
namespace {

// The header, if all the bytes that it tells of have come.
std::optional<EchoHeader> ReadHeader(const std::byte* bytes, UINT32 byte_count) {
  EchoHeader header;
  if (byte_count < sizeof(header)) {
    return std::nullopt;
  }
  std::memcpy(&header, bytes, sizeof(header));
  return header.bytes <= byte_count - sizeof(header) ? std::optional(header) : std::nullopt;
}

}  // namespace

// The completion is built whether or not one was asked: KMCL drops it when not.
void EchoCounter::Answer(VMBPACKETCOMPLETION packet, const std::byte* bytes, UINT32 byte_count) {
  const auto header = ReadHeader(bytes, byte_count);
  if (header && header->kind == static_cast<std::uint32_t>(EchoKind::kData)) {
    ++packets_;
    bytes_ += sizeof(*header) + header->bytes;
    VmbChannelPacketComplete(packet, const_cast<std::byte*>(bytes),
                             static_cast<UINT32>(sizeof(*header)) + header->bytes);
    return;
  }
  if (header && header->kind == static_cast<std::uint32_t>(EchoKind::kCount)) {
    EchoCounts counts;
    counts.header = {header->kind, sizeof(counts) - sizeof(*header)};
    counts.packets = packets_;
    counts.bytes = bytes_;
    VmbChannelPacketComplete(packet, &counts, sizeof(counts));
    return;
  }
  RefuseEcho(packet);
}

std::optional<std::uint32_t> WantedSubchannels(const std::byte* bytes, UINT32 byte_count) {
  const auto header = ReadHeader(bytes, byte_count);
  EchoSubchannels request;
  if (!header || header->kind != static_cast<std::uint32_t>(EchoKind::kSubchannels) ||
      header->bytes != sizeof(request) - sizeof(*header)) {
    return std::nullopt;
  }
  std::memcpy(&request, bytes, sizeof(request));
  return request.count;
}

void RefuseEcho(VMBPACKETCOMPLETION packet) {
  EchoHeader refusal{static_cast<std::uint32_t>(EchoKind::kRefused), 0};
  VmbChannelPacketComplete(packet, &refusal, sizeof(refusal));
}

}  // namespace kmcl::devices
