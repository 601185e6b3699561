#include "wire/packet.h"

#include <cstring>

namespace kmcl::wire {
namespace {

template <typename Header>
Result<Header> ReadHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(Header)) return std::unexpected(Error::kPacketHeaderTooShort);
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  return header;
}

}  // namespace

const char* NameOf(PacketType type) {
  switch (type) {
    case PacketType::kInvalid:
      return "Invalid";
    case PacketType::kSynch:
      return "Synch";
    case PacketType::kAddTransferPageSet:
      return "AddTransferPageSet";
    case PacketType::kRemoveTransferPageSet:
      return "RemoveTransferPageSet";
    case PacketType::kEstablishGpadl:
      return "EstablishGpadl";
    case PacketType::kTeardownGpadl:
      return "TeardownGpadl";
    case PacketType::kDataInBand:
      return "DataInBand";
    case PacketType::kDataUsingTransferPages:
      return "DataUsingTransferPages";
    case PacketType::kDataUsingGpadl:
      return "DataUsingGpadl";
    case PacketType::kDataUsingGpaDirect:
      return "DataUsingGpaDirect";
    case PacketType::kCancelRequest:
      return "CancelRequest";
    case PacketType::kCompletion:
      return "Completion";
    case PacketType::kDataUsingAdditionalPackets:
      return "DataUsingAdditionalPackets";
    case PacketType::kAdditionalData:
      return "AdditionalData";
  }
  return "unknown";
}

Result<TransferPageSetHeader> ParseTransferPageSet(std::span<const std::byte> header) {
  return ReadHeader<TransferPageSetHeader>(header);
}

Result<GpadlId> ParseGpadlReference(std::span<const std::byte> header) {
  const auto reference = ReadHeader<GpadlReferenceHeader>(header);
  if (!reference) return std::unexpected(reference.error());
  return reference->gpadl_id;
}

Result<EstablishGpadl> ParseEstablishGpadl(std::span<const std::byte> header) {
  const auto fixed = ReadHeader<EstablishGpadlHeader>(header);
  if (!fixed) return std::unexpected(fixed.error());
  const auto ranges = PackedGpaRanges::Parse(header.subspan(sizeof *fixed), fixed->range_count);
  if (!ranges) return std::unexpected(ranges.error());
  return EstablishGpadl{.gpadl_id = fixed->gpadl_id, .ranges = *ranges};
}

Result<TransferPages> ParseTransferPages(std::span<const std::byte> header) {
  const auto fixed = ReadHeader<TransferPagesHeader>(header);
  if (!fixed) return std::unexpected(fixed.error());
  TransferPages pages;
  pages.header_ = *fixed;
  pages.ranges_ = header.subspan(sizeof *fixed);
  if (pages.ranges_.size() / sizeof(TransferPageRange) < fixed->range_count) {
    return std::unexpected(Error::kPacketHeaderTooShort);
  }
  return pages;
}

TransferPageRange TransferPages::range(std::uint32_t index) const {
  KMCL_CHECK(index < range_count());
  TransferPageRange range;
  std::memcpy(&range, ranges_.data() + std::size_t{index} * sizeof range, sizeof range);
  return range;
}

Result<PackedGpaRanges> ParseGpaDirect(std::span<const std::byte> header) {
  const auto fixed = ReadHeader<GpaDirectHeader>(header);
  if (!fixed) return std::unexpected(fixed.error());
  return PackedGpaRanges::Parse(header.subspan(sizeof *fixed), fixed->range_count);
}

Result<AdditionalDataHeader> ParseAdditionalData(std::span<const std::byte> header,
                                                 std::uint32_t payload_bytes) {
  const auto part = ReadHeader<AdditionalDataHeader>(header);
  if (!part) return part;
  const bool is_inside = part->byte_offset <= part->total_bytes &&
                         part->byte_count <= part->total_bytes - part->byte_offset;
  if (!is_inside || part->byte_count > payload_bytes) {
    return std::unexpected(Error::kFieldOutOfRange);
  }
  return part;
}

}  // namespace kmcl::wire
