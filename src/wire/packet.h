// Turns the first bytes of a packet into values that can be trusted. Everything handed in here is
// private memory: whoever reads the ring copies first.
//
// Lengths leave this file in bytes. ParseDescriptor is on the way of every packet, so it is inline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "result.h"
#include "wire/gpa_range.h"
#include "wire/ring_layout.h"

namespace kmcl::wire {

// A packet whose parts lie inside what the ring holds.
struct PacketShape {
  PacketType type{};
  std::uint16_t flags = 0;
  std::uint32_t header_bytes = 0;   // type-specific, behind the descriptor
  std::uint32_t payload_bytes = 0;  // padding included: the exact length is not on the wire
  std::uint64_t transaction_id = 0;

  // What the packet takes from the ring.
  constexpr std::uint32_t ring_bytes() const {
    return kPacketDescriptorBytes + header_bytes + payload_bytes + kPacketTrailerBytes;
  }
  constexpr bool completion_requested() const {
    return (flags & kPacketFlagCompletionRequested) != 0;
  }
};

constexpr bool IsKnownPacketType(std::uint16_t type) {
  return type >= static_cast<std::uint16_t>(PacketType::kSynch) &&
         type <= static_cast<std::uint16_t>(PacketType::kAdditionalData);
}

// Checks a descriptor against the `available` bytes that the ring holds from its first byte on
// (VMBus reference 1.10, items 4 and 5).
//   kPacketOffsetOutOfRange  the payload begins inside the descriptor, or behind its end
//   kPacketLengthOutOfRange  packet and trailer are longer than `available`
//   kPacketTypeUnknown, kPacketFlagsUnknown
[[nodiscard]] constexpr Result<PacketShape> ParseDescriptor(const PacketDescriptor& descriptor,
                                                            std::uint32_t available) {
  // Neither product nor sum can overflow: both factors fit in 19 bits.
  const std::uint32_t offset = std::uint32_t{descriptor.data_offset8} * kRingUnitBytes;
  const std::uint32_t length = std::uint32_t{descriptor.length8} * kRingUnitBytes;
  if (offset < kPacketDescriptorBytes || offset > length) [[unlikely]] {
    return std::unexpected(Error::kPacketOffsetOutOfRange);
  }
  if (length + kPacketTrailerBytes > available) [[unlikely]] {
    return std::unexpected(Error::kPacketLengthOutOfRange);
  }
  if (!IsKnownPacketType(descriptor.type)) [[unlikely]] {
    return std::unexpected(Error::kPacketTypeUnknown);
  }
  if ((descriptor.flags & ~kKnownPacketFlags) != 0) [[unlikely]] {
    return std::unexpected(Error::kPacketFlagsUnknown);
  }
  return PacketShape{
      .type = static_cast<PacketType>(descriptor.type),
      .flags = descriptor.flags,
      .header_bytes = offset - kPacketDescriptorBytes,
      .payload_bytes = length - offset,
      .transaction_id = descriptor.transaction_id,
  };
}

// Type-specific headers. `header` is what lies between descriptor and payload; it may be longer
// than what is read from it. kPacketHeaderTooShort when it does not hold what its type or its count
// says.

// 2 and 3. Nobody sends them today.
[[nodiscard]] Result<TransferPageSetHeader> ParseTransferPageSet(std::span<const std::byte> header);

// 5 and 8.
[[nodiscard]] Result<GpadlId> ParseGpadlReference(std::span<const std::byte> header);

// 4. A view into `header`; kGpaRangeMalformed for a bad list.
struct EstablishGpadl {
  GpadlId gpadl_id{};
  PackedGpaRanges ranges{};
};
[[nodiscard]] Result<EstablishGpadl> ParseEstablishGpadl(std::span<const std::byte> header);

// 7. A view into the header it was made from.
class TransferPages {
 public:
  std::uint16_t set_id() const { return header_.set_id; }
  bool sender_owns_set() const { return (header_.sender_owns_set & 1) != 0; }
  std::uint32_t range_count() const { return header_.range_count; }
  // Requires index < range_count(). The range is as the peer wrote it: ask IsInside before using
  // it.
  TransferPageRange range(std::uint32_t index) const;

 private:
  friend Result<TransferPages> ParseTransferPages(std::span<const std::byte> header);
  TransferPagesHeader header_;
  std::span<const std::byte> ranges_;
};
[[nodiscard]] Result<TransferPages> ParseTransferPages(std::span<const std::byte> header);

// Whether a range lies in a set of `set_bytes`.
constexpr bool IsInside(const TransferPageRange& range, std::uint64_t set_bytes) {
  return range.byte_offset <= set_bytes && range.byte_count <= set_bytes - range.byte_offset;
}

// 9. A view into `header`; kGpaRangeMalformed for a bad list.
[[nodiscard]] Result<PackedGpaRanges> ParseGpaDirect(std::span<const std::byte> header);

// 0xD. The part's bytes are the first byte_count of the payload, and it lies inside the whole;
// otherwise kFieldOutOfRange.
[[nodiscard]] Result<AdditionalDataHeader> ParseAdditionalData(std::span<const std::byte> header,
                                                               std::uint32_t payload_bytes);

}  // namespace kmcl::wire
