// Messages that share client memory. Rules in messages.h; what a list of ranges must look like is
// in gpa_range.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "wire/message_type.h"

namespace kmcl::wire {

// How many bytes of the range list one message carries: whole words only.
inline constexpr std::size_t kGpadlHeaderRangeBytes = 216;  // (240 - 20) & ~7: 27 words
inline constexpr std::size_t kGpadlBodyRangeBytes = 224;    // 240 - 16: 28 words
// One range costs a word for its size and offset.
static_assert(kGpadlHeaderRangeBytes / 8 - 1 == 26);
static_assert(kGpadlBodyRangeBytes / 8 == 28);

// The protocol cannot say that memory is only to be read. The client chooses the ids, and ours set
// this bit in those of such GPADLs.
inline constexpr std::uint32_t kReadOnlyGpadlBit = 0x80000000;
constexpr bool IsReadOnly(GpadlId id) { return (std::to_underlying(id) & kReadOnlyGpadlBit) != 0; }

// 8, client: here is memory of mine, and the first part of its range list.
struct GpadlHeader {
  static constexpr MessageType kType = MessageType::kGpadlHeader;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 20;  // followed by range bytes

  ChannelId channel_id{};
  GpadlId gpadl_id{};
  // Of header and bodies together ("range_buflen"), or that modulo 2^16: see RangeListBytes.
  std::uint16_t range_list_bytes = 0;
  std::uint16_t range_count = 0;
  // What this message brought: a private copy, rounded down to words. It may be longer than
  // range_list_bytes; the tail then means nothing. The length is not on the wire.
  std::array<std::byte, kGpadlHeaderRangeBytes> range_bytes{};
  std::uint16_t range_bytes_size = 0;

  constexpr std::span<const std::byte> ranges() const {
    return std::span(range_bytes).first(range_bytes_size);
  }

  friend bool operator==(const GpadlHeader&, const GpadlHeader&) = default;
};
static_assert(OnWire(offsetof(GpadlHeader, gpadl_id)) == 12);
static_assert(OnWire(offsetof(GpadlHeader, range_list_bytes)) == 16);
static_assert(OnWire(offsetof(GpadlHeader, range_count)) == 18);
static_assert(OnWire(offsetof(GpadlHeader, range_bytes)) == GpadlHeader::kBytes);

// 9, client: more of the range list. Belongs to the incomplete GPADL with this id.
struct GpadlBody {
  static constexpr MessageType kType = MessageType::kGpadlBody;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 16;  // followed by range bytes

  std::uint32_t message_number = 0;  // nobody fills it in reliably; not to be checked
  GpadlId gpadl_id{};
  std::array<std::byte, kGpadlBodyRangeBytes> range_bytes{};  // as in GpadlHeader
  std::uint16_t range_bytes_size = 0;

  constexpr std::span<const std::byte> ranges() const {
    return std::span(range_bytes).first(range_bytes_size);
  }

  friend bool operator==(const GpadlBody&, const GpadlBody&) = default;
};
static_assert(OnWire(offsetof(GpadlBody, gpadl_id)) == 12);
static_assert(OnWire(offsetof(GpadlBody, range_bytes)) == GpadlBody::kBytes);

// 10, server: the memory was accepted, or not.
struct GpadlCreated {
  static constexpr MessageType kType = MessageType::kGpadlCreated;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 20;

  ChannelId channel_id{};
  GpadlId gpadl_id{};
  std::uint32_t status = kStatusSuccess;

  friend bool operator==(const GpadlCreated&, const GpadlCreated&) = default;
};
static_assert(OnWire(sizeof(GpadlCreated)) == GpadlCreated::kBytes);
static_assert(OnWire(offsetof(GpadlCreated, gpadl_id)) == 12);
static_assert(OnWire(offsetof(GpadlCreated, status)) == 16);

// 11, client: let go of the memory.
struct GpadlTeardown {
  static constexpr MessageType kType = MessageType::kGpadlTeardown;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 16;

  ChannelId channel_id{};
  GpadlId gpadl_id{};

  friend bool operator==(const GpadlTeardown&, const GpadlTeardown&) = default;
};
static_assert(OnWire(sizeof(GpadlTeardown)) == GpadlTeardown::kBytes);
static_assert(OnWire(offsetof(GpadlTeardown, gpadl_id)) == 12);

// 12, server: nothing refers to the memory any more.
struct GpadlTorndown {
  static constexpr MessageType kType = MessageType::kGpadlTorndown;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 12;

  GpadlId gpadl_id{};

  friend bool operator==(const GpadlTorndown&, const GpadlTorndown&) = default;
};
static_assert(OnWire(sizeof(GpadlTorndown)) == GpadlTorndown::kBytes);

}  // namespace kmcl::wire
