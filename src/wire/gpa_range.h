// Lists of client memory ranges: the contents of a GPADL, and of packets that point at memory.
//
// A range is a number of bytes from an offset in its first page on, and the number of each 4 KiB
// page that they touch. On the wire ranges stand packed one after the other (VMBus
// reference 1.5.2, 3.5).
//
// Accepted here means well-formed. Whether the pages exist is for the transport to say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "result.h"
#include "wire/ids.h"
#include "wire/messages_gpadl.h"
#include "wire/ring_layout.h"

namespace kmcl::wire {

// range_list_bytes is a u16 and counts words.
inline constexpr std::size_t kMaximumGpadlRangeListBytes = 65528;
// So a GPADL of one range whose length the header can say describes at most so many pages.
inline constexpr std::size_t kMaximumSaidGpadlPages = (kMaximumGpadlRangeListBytes - 8) / 8;
static_assert(kMaximumSaidGpadlPages == 8190);
// We describe no more than this, and only in one range where it is more than that: the header then
// carries the list's length modulo 2^16, and the receiver computes it from the range.
inline constexpr std::uint64_t kMaximumGpadlBytes = std::uint64_t{2} << 30;
// And the shortest range takes its header and one page number.
inline constexpr std::size_t kMinimumGpaRangeBytes = 16;

// How many pages `byte_count` bytes touch from `byte_offset` on.
//   kGpaRangeMalformed  no bytes, an offset beyond the first page, or an end beyond 32 bits
[[nodiscard]] constexpr Result<std::uint32_t> GpaRangePageCount(std::uint32_t byte_count,
                                                                std::uint32_t byte_offset) {
  if (byte_count == 0 || byte_offset >= kPageBytes) {
    return std::unexpected(Error::kGpaRangeMalformed);
  }
  // The protocol's own arithmetic is in 32 bits, so a range that needs more is nobody's.
  const std::uint64_t rounded_up = std::uint64_t{byte_offset} + byte_count + (kPageBytes - 1);
  if (rounded_up > 0xFFFFFFFF) return std::unexpected(Error::kGpaRangeMalformed);
  return static_cast<std::uint32_t>(rounded_up / kPageBytes);
}

// One range in private wire bytes, which may stand at any alignment. A view.
class PackedGpaRange {
 public:
  std::uint32_t byte_count() const { return header_.byte_count; }
  std::uint32_t byte_offset() const { return header_.byte_offset; }
  std::uint32_t page_count() const { return static_cast<std::uint32_t>(pages_.size() / 8); }
  // Requires index < page_count().
  PageNumber page(std::uint32_t index) const;

 private:
  friend class PackedGpaRanges;
  GpaRangeHeader header_;
  std::span<const std::byte> pages_;
};

// A list of ranges in private wire bytes, checked as a whole when it was made. A view of those
// bytes; takes no memory. Iterate over it to get PackedGpaRange values.
class PackedGpaRanges {
 public:
  // Checks `range_count` ranges at the start of `bytes`; what lies behind them is ignored.
  //   kGpaRangeMalformed  no range, one that GpaRangePageCount refuses, or fewer bytes than they
  //   need
  [[nodiscard]] static Result<PackedGpaRanges> Parse(std::span<const std::byte> bytes,
                                                     std::uint32_t range_count);

  std::uint32_t range_count() const { return range_count_; }
  std::uint64_t page_count() const { return page_count_; }     // of all ranges
  std::uint64_t byte_count() const { return byte_count_; }     // of all ranges
  std::span<const std::byte> bytes() const { return bytes_; }  // without what lies behind

  class Iterator {
   public:
    using value_type = PackedGpaRange;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    PackedGpaRange operator*() const;
    Iterator& operator++();
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& at, std::default_sentinel_t) { return at.rest_.empty(); }

   private:
    friend class PackedGpaRanges;
    explicit Iterator(std::span<const std::byte> rest) : rest_(rest) {}
    std::span<const std::byte> rest_;
  };
  Iterator begin() const { return Iterator(bytes_); }
  std::default_sentinel_t end() const { return {}; }

 private:
  friend class Iterator;
  // The range at the start of `bytes`, if it is whole and well-formed.
  static Result<PackedGpaRange> First(std::span<const std::byte> bytes);

  std::span<const std::byte> bytes_;
  std::uint32_t range_count_ = 0;
  std::uint64_t page_count_ = 0;
  std::uint64_t byte_count_ = 0;
};

// A list of ranges that owns its page numbers. Every range in it is well-formed. An empty list is
// one that is still to be built.
class GpaRangeList {
 public:
  // One range; the pages belong to the list and are gone with it, or with the next Append.
  struct Range {
    std::uint32_t byte_count = 0;
    std::uint32_t byte_offset = 0;
    std::span<const PageNumber> pages;
  };

  // Takes a list from wire bytes; as PackedGpaRanges::Parse.
  [[nodiscard]] static Result<GpaRangeList> Parse(std::span<const std::byte> bytes,
                                                  std::uint32_t range_count);
  // `page_count` whole pages from `first` on, as one range. What a ring is made of.
  //   kGpaRangeMalformed  no pages, 4 GiB or more, or page numbers beyond 64 bits
  [[nodiscard]] static Result<GpaRangeList> OfPages(PageNumber first, std::uint32_t page_count);

  // Adds a range at the end. kGpaRangeMalformed, and nothing is added, when GpaRangePageCount
  // refuses it or `pages` is not exactly as long as it says.
  [[nodiscard]] Result<void> Append(std::uint32_t byte_count, std::uint32_t byte_offset,
                                    std::span<const PageNumber> pages);

  std::size_t range_count() const { return ranges_.size(); }
  bool empty() const { return ranges_.empty(); }
  // Requires index < range_count().
  Range range(std::size_t index) const;
  // Of all ranges, in order.
  std::span<const PageNumber> pages() const { return pages_; }
  std::uint64_t byte_count() const { return byte_count_; }

  // The packed form's length and the packed form.
  std::size_t encoded_bytes() const { return (ranges_.size() + pages_.size()) * 8; }
  std::vector<std::byte> Encode() const;

  friend bool operator==(const GpaRangeList&, const GpaRangeList&) = default;

 private:
  struct Extent {
    std::uint32_t byte_count = 0;
    std::uint32_t byte_offset = 0;
    std::size_t first_page = 0;  // in pages_
    std::size_t page_count = 0;
    friend bool operator==(const Extent&, const Extent&) = default;
  };
  std::vector<Extent> ranges_;
  std::vector<PageNumber> pages_;
  std::uint64_t byte_count_ = 0;
};

// Writes one range in packed form at the start of `out`, for packets that are built without a list.
// Returns its length.
//   kGpaRangeMalformed  as GpaRangeList::Append
//   kBufferTooSmall     `out` does not hold it
[[nodiscard]] Result<std::size_t> EncodeGpaRange(std::uint32_t byte_count,
                                                 std::uint32_t byte_offset,
                                                 std::span<const PageNumber> pages,
                                                 std::span<std::byte> out);

// The header of a packet of type 9, written range by range into private memory: for senders that must
// not allocate. Its length is known beforehand.
class GpaDirectWriter {
 public:
  static constexpr std::size_t Bytes(std::size_t ranges, std::size_t pages) {
    return sizeof(GpaDirectHeader) + ranges * sizeof(GpaRangeHeader) + pages * sizeof(PageNumber);
  }
  // Requires Bytes() of what will be written.
  explicit GpaDirectWriter(std::span<std::byte> out);
  // Begins a range; requires what GpaRangePageCount accepts, and as many pages as it says.
  void BeginRange(std::uint32_t byte_count, std::uint32_t byte_offset);
  void AddPage(PageNumber page);

 private:
  void Put(const auto& value);

  std::span<std::byte> all_;
  std::span<std::byte> rest_;
  std::uint32_t ranges_ = 0;
};

// The messages that describe a GPADL: the header, and as many bodies as the list needs, in order.
struct GpadlMessages {
  GpadlHeader header{};
  std::vector<GpadlBody> bodies{};
};

//   kGpaRangeMalformed  the list is empty
//   kGpadlTooLarge      the list is longer than kMaximumGpadlRangeListBytes, and has more than one
//                       range or describes more than kMaximumGpadlBytes
[[nodiscard]] Result<GpadlMessages> FragmentGpadl(ChannelId channel_id, GpadlId gpadl_id,
                                                  const GpaRangeList& ranges);

// How long the range list is that a header begins. That is what it says, unless its one range needs
// more than 16 bits can say and the header says the rest of it modulo 2^16. (So do our clients, and
// senders that do not see the field overflow.)
[[nodiscard]] std::size_t RangeListBytes(const GpadlHeader& header);

}  // namespace kmcl::wire
