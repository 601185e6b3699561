// The memory of a ring and of a packet in it, as bytes. Nothing here reads any (VMBus reference 1).
//
// A ring is a control page and a data area. A packet in the data area is a descriptor, a header
// that depends on its type, a payload, and a trailer; each part fills whole 8-byte units:
//
//   +0   descriptor            16
//   +16  type-specific header  to data_offset8 * 8
//        payload               to length8 * 8, zero-padded
//        trailer               8, not counted in length8
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "wire/ids.h"

namespace kmcl::wire {

// Everything in a ring is aligned to it, and free space is kept in it.
inline constexpr std::uint32_t kRingUnitBytes = 8;

// The first page of a ring. Its words are shared with the peer: the ring room reaches them as
// atomics, at these offsets, and never through this type.
struct ControlPage {
  std::uint32_t write_index;      // by the producer: where the next byte will be written
  std::uint32_t read_index;       // by the consumer: where the next byte will be read
  std::uint32_t interrupt_mask;   // by the consumer: non-zero = do not ring when packets arrive
  std::uint32_t pending_send_sz;  // by the producer: 0, or the free bytes that it waits for
  std::array<std::uint32_t, 12> reserved1;
  std::uint32_t feature_bits;  // by the producer
  std::array<std::byte, 0xFF8 - 0x44> reserved2;
  std::uint64_t client_interrupt_count;  // statistics of some clients; never to be relied on
};
static_assert(sizeof(ControlPage) == kPageBytes);
static_assert(offsetof(ControlPage, write_index) == 0x00);
static_assert(offsetof(ControlPage, read_index) == 0x04);
static_assert(offsetof(ControlPage, interrupt_mask) == 0x08);
static_assert(offsetof(ControlPage, pending_send_sz) == 0x0C);
static_assert(offsetof(ControlPage, feature_bits) == 0x40);
static_assert(offsetof(ControlPage, client_interrupt_count) == 0xFF8);

// feature_bits: whoever sets it in the ring it produces into writes pending_send_sz there when it
// is blocked, and honours the peer's in the ring it consumes.
inline constexpr std::uint32_t kFeaturePendingSendSize = 0x1;

enum class PacketType : std::uint16_t {
  kInvalid = 0,
  kSynch = 1,
  kAddTransferPageSet = 2,
  kRemoveTransferPageSet = 3,
  kEstablishGpadl = 4,
  kTeardownGpadl = 5,
  kDataInBand = 6,
  kDataUsingTransferPages = 7,
  kDataUsingGpadl = 8,
  kDataUsingGpaDirect = 9,
  kCancelRequest = 0xA,
  kCompletion = 0xB,
  kDataUsingAdditionalPackets = 0xC,
  kAdditionalData = 0xD,
};

// "DataInBand", ...; "unknown" for a number that is none of the above.
const char* NameOf(PacketType type);

// flags of a descriptor.
inline constexpr std::uint16_t kPacketFlagCompletionRequested = 0x1;
inline constexpr std::uint16_t kKnownPacketFlags = kPacketFlagCompletionRequested;

struct PacketDescriptor {
  std::uint16_t type = 0;          // a PacketType, once ParseDescriptor has said so
  std::uint16_t data_offset8 = 0;  // where the payload begins
  std::uint16_t length8 = 0;       // where it ends
  std::uint16_t flags = 0;
  std::uint64_t transaction_id = 0;

  friend bool operator==(const PacketDescriptor&, const PacketDescriptor&) = default;
};
static_assert(sizeof(PacketDescriptor) == 16);
static_assert(offsetof(PacketDescriptor, data_offset8) == 2);
static_assert(offsetof(PacketDescriptor, length8) == 4);
static_assert(offsetof(PacketDescriptor, flags) == 6);
static_assert(offsetof(PacketDescriptor, transaction_id) == 8);

inline constexpr std::uint32_t kPacketDescriptorBytes = sizeof(PacketDescriptor);

// Written behind every packet and checked by nobody: some senders leave garbage there.
struct PacketTrailer {
  std::uint32_t reserved = 0;
  std::uint32_t packet_start = 0;  // the write index at which this packet started
};
static_assert(sizeof(PacketTrailer) == 8);
static_assert(offsetof(PacketTrailer, packet_start) == 4);

inline constexpr std::uint32_t kPacketTrailerBytes = sizeof(PacketTrailer);

// Descriptor, header and payload of the longest packet: length8 is a u16.
inline constexpr std::uint32_t kMaximumPacketBytes = 0xFFFF * kRingUnitBytes;
static_assert(kMaximumPacketBytes == 524280);

// Type-specific headers. Each stands right after the descriptor; packet.h reads them.

// 2 and 3.
struct TransferPageSetHeader {
  GpadlId gpadl_id{};
  std::uint16_t set_id = 0;
  std::uint16_t reserved = 0;
};
static_assert(sizeof(TransferPageSetHeader) == 8);
static_assert(offsetof(TransferPageSetHeader, set_id) == 4);

// 4; followed by `range_count` GPA ranges.
struct EstablishGpadlHeader {
  GpadlId gpadl_id{};
  std::uint32_t range_count = 0;
};
static_assert(sizeof(EstablishGpadlHeader) == 8);
static_assert(offsetof(EstablishGpadlHeader, range_count) == 4);

// 5 and 8.
struct GpadlReferenceHeader {
  GpadlId gpadl_id{};
  std::uint32_t reserved = 0;
};
static_assert(sizeof(GpadlReferenceHeader) == 8);

// 7; followed by `range_count` TransferPageRanges.
struct TransferPagesHeader {
  std::uint16_t set_id = 0;
  std::uint8_t sender_owns_set = 0;  // may hold garbage
  std::uint8_t reserved = 0;         // may hold garbage
  std::uint32_t range_count = 0;
};
static_assert(sizeof(TransferPagesHeader) == 8);
static_assert(offsetof(TransferPagesHeader, sender_owns_set) == 2);
static_assert(offsetof(TransferPagesHeader, range_count) == 4);

struct TransferPageRange {
  std::uint32_t byte_count = 0;
  std::uint32_t byte_offset = 0;  // into the set

  friend bool operator==(const TransferPageRange&, const TransferPageRange&) = default;
};
static_assert(sizeof(TransferPageRange) == 8);
static_assert(offsetof(TransferPageRange, byte_offset) == 4);

// 9; followed by `range_count` GPA ranges.
struct GpaDirectHeader {
  std::uint32_t reserved = 0;  // may hold garbage
  std::uint32_t range_count = 0;
};
static_assert(sizeof(GpaDirectHeader) == 8);
static_assert(offsetof(GpaDirectHeader, range_count) == 4);

// Begins each GPA range; followed by a page number for every page that the bytes touch.
struct GpaRangeHeader {
  std::uint32_t byte_count = 0;
  std::uint32_t byte_offset = 0;  // into the first page
};
static_assert(sizeof(GpaRangeHeader) == 8);
static_assert(offsetof(GpaRangeHeader, byte_offset) == 4);

// 0xD: a later part of a packet that was sent as several.
struct AdditionalDataHeader {
  std::uint64_t total_bytes = 0;
  std::uint32_t byte_offset = 0;  // of this part in the whole
  std::uint32_t byte_count = 0;   // of this part
};
static_assert(sizeof(AdditionalDataHeader) == 16);
static_assert(offsetof(AdditionalDataHeader, byte_offset) == 8);
static_assert(offsetof(AdditionalDataHeader, byte_count) == 12);

}  // namespace kmcl::wire
