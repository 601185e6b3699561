#include "channel/config.h"

#include <algorithm>

#include "ring/outgoing_ring.h"
#include "wire/gpa_range.h"
#include "wire/pipe.h"

namespace kmcl::channel {
namespace {

// Data pages of a ring that holds `packets` of the largest packets of a channel.
std::uint32_t PagesFor(const Config& config, std::uint64_t packets) {
  const std::uint64_t packet_bytes = ring::OutgoingRing::PacketBytes(
      ExternalHeaderBytes(config),
      std::uint64_t{config.maximum_packet_bytes} + (config.pipe ? sizeof(wire::PipeHeader) : 0));
  // A ring is never filled to its last two units (ring::MaximumPacketBytes).
  constexpr std::uint64_t kUnused = 2 * std::uint64_t{wire::kRingUnitBytes};
  return static_cast<std::uint32_t>((packets * packet_bytes + kUnused + wire::kPageBytes - 1) /
                                    wire::kPageBytes);
}

}  // namespace

std::uint32_t ExternalHeaderBytes(const Config& config) {
  if (config.maximum_external_bytes == 0 || config.maximum_external_chain == 0) return 0;
  // Every piece may begin and end inside of a page, and has at least a byte.
  const std::uint64_t pieces =
      std::min(config.maximum_external_chain, config.maximum_external_bytes);
  const std::uint64_t pages = config.maximum_external_bytes / wire::kPageBytes + 2 * pieces;
  const std::uint32_t body = wire::kMaximumPacketBytes - wire::kPacketDescriptorBytes;
  const std::uint32_t most = body - std::min(body, (config.maximum_packet_bytes + 7) / 8 * 8);
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(wire::GpaDirectWriter::Bytes(pieces, pages), most));
}

std::uint32_t ExternalRoom(const Config& config) {
  constexpr std::uint32_t kMost = 2560;  // describes 1 MiB in some pieces
  return std::min(ExternalHeaderBytes(config), kMost);
}

std::uint32_t RingPages(const Config& config, std::uint32_t wanted) {
  constexpr std::uint32_t kControlPages = 1;
  constexpr std::uint32_t kLeastDefaultPages = 4;  // KMCL reference 10.3
  constexpr std::uint64_t kDefaultPackets = 8;
  if (wanted == 0) {
    return std::max(kLeastDefaultPages, kControlPages + PagesFor(config, kDefaultPackets));
  }
  return std::max(wanted, kControlPages + PagesFor(config, 1));
}

}  // namespace kmcl::channel
