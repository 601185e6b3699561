#include "wire/gpa_range.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace kmcl::wire {

PageNumber PackedGpaRange::page(std::uint32_t index) const {
  KMCL_CHECK(index < page_count());
  PageNumber page;
  std::memcpy(&page, pages_.data() + std::size_t{index} * sizeof page, sizeof page);
  return page;
}

Result<PackedGpaRange> PackedGpaRanges::First(std::span<const std::byte> bytes) {
  PackedGpaRange range;
  if (bytes.size() < sizeof range.header_) return std::unexpected(Error::kGpaRangeMalformed);
  std::memcpy(&range.header_, bytes.data(), sizeof range.header_);
  const auto page_count = GpaRangePageCount(range.byte_count(), range.byte_offset());
  if (!page_count) return std::unexpected(page_count.error());
  const auto rest = bytes.subspan(sizeof range.header_);
  if (rest.size() / sizeof(PageNumber) < *page_count) {
    return std::unexpected(Error::kGpaRangeMalformed);
  }
  range.pages_ = rest.first(*page_count * sizeof(PageNumber));
  return range;
}

Result<PackedGpaRanges> PackedGpaRanges::Parse(std::span<const std::byte> bytes,
                                               std::uint32_t range_count) {
  // The second half keeps the loop short when the count is a lie.
  if (range_count == 0 || bytes.size() / kMinimumGpaRangeBytes < range_count) {
    return std::unexpected(Error::kGpaRangeMalformed);
  }
  PackedGpaRanges ranges;
  ranges.range_count_ = range_count;
  std::span<const std::byte> rest = bytes;
  for (std::uint32_t i = 0; i < range_count; ++i) {
    const auto range = First(rest);
    if (!range) return std::unexpected(range.error());
    ranges.page_count_ += range->page_count();
    ranges.byte_count_ += range->byte_count();
    rest = rest.subspan(sizeof range->header_ + range->pages_.size());
  }
  ranges.bytes_ = bytes.first(bytes.size() - rest.size());
  return ranges;
}

PackedGpaRange PackedGpaRanges::Iterator::operator*() const {
  const auto range = First(rest_);
  KMCL_CHECK(range.has_value());  // Parse has seen these bytes, and they are ours alone
  return *range;
}

PackedGpaRanges::Iterator& PackedGpaRanges::Iterator::operator++() {
  const PackedGpaRange range = **this;
  rest_ = rest_.subspan(sizeof range.header_ + range.pages_.size());
  return *this;
}

Result<GpaRangeList> GpaRangeList::Parse(std::span<const std::byte> bytes,
                                         std::uint32_t range_count) {
  const auto packed = PackedGpaRanges::Parse(bytes, range_count);
  if (!packed) return std::unexpected(packed.error());
  GpaRangeList list;
  list.ranges_.reserve(packed->range_count());
  list.pages_.reserve(packed->page_count());
  for (const PackedGpaRange range : *packed) {
    list.ranges_.push_back({.byte_count = range.byte_count(),
                            .byte_offset = range.byte_offset(),
                            .first_page = list.pages_.size(),
                            .page_count = range.page_count()});
    for (std::uint32_t i = 0; i < range.page_count(); ++i) list.pages_.push_back(range.page(i));
  }
  list.byte_count_ = packed->byte_count();
  return list;
}

Result<GpaRangeList> GpaRangeList::OfPages(PageNumber first, std::uint32_t page_count) {
  const std::uint64_t byte_count = std::uint64_t{page_count} * kPageBytes;
  const std::uint64_t first_number = std::to_underlying(first);
  if (page_count == 0 || byte_count > std::numeric_limits<std::uint32_t>::max() ||
      first_number > std::numeric_limits<std::uint64_t>::max() - (page_count - 1)) {
    return std::unexpected(Error::kGpaRangeMalformed);
  }
  std::vector<PageNumber> pages(page_count);
  for (std::uint32_t i = 0; i < page_count; ++i) pages[i] = PageNumber{first_number + i};
  GpaRangeList list;
  const auto added = list.Append(static_cast<std::uint32_t>(byte_count), 0, pages);
  if (!added) return std::unexpected(added.error());
  return list;
}

Result<void> GpaRangeList::Append(std::uint32_t byte_count, std::uint32_t byte_offset,
                                  std::span<const PageNumber> pages) {
  const auto page_count = GpaRangePageCount(byte_count, byte_offset);
  if (!page_count) return std::unexpected(page_count.error());
  if (*page_count != pages.size()) return std::unexpected(Error::kGpaRangeMalformed);
  ranges_.push_back({.byte_count = byte_count,
                     .byte_offset = byte_offset,
                     .first_page = pages_.size(),
                     .page_count = pages.size()});
  pages_.insert(pages_.end(), pages.begin(), pages.end());
  byte_count_ += byte_count;
  return {};
}

GpaRangeList::Range GpaRangeList::range(std::size_t index) const {
  KMCL_CHECK(index < ranges_.size());
  const Extent& extent = ranges_[index];
  return {.byte_count = extent.byte_count,
          .byte_offset = extent.byte_offset,
          .pages = std::span(pages_).subspan(extent.first_page, extent.page_count)};
}

std::vector<std::byte> GpaRangeList::Encode() const {
  std::vector<std::byte> bytes(encoded_bytes());
  std::span<std::byte> rest = bytes;
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    const Range one = range(i);
    const auto written = EncodeGpaRange(one.byte_count, one.byte_offset, one.pages, rest);
    KMCL_CHECK(written.has_value());  // Append let in only what can be written
    rest = rest.subspan(*written);
  }
  return bytes;
}

Result<std::size_t> EncodeGpaRange(std::uint32_t byte_count, std::uint32_t byte_offset,
                                   std::span<const PageNumber> pages, std::span<std::byte> out) {
  const auto page_count = GpaRangePageCount(byte_count, byte_offset);
  if (!page_count) return std::unexpected(page_count.error());
  if (*page_count != pages.size()) return std::unexpected(Error::kGpaRangeMalformed);
  const GpaRangeHeader header{.byte_count = byte_count, .byte_offset = byte_offset};
  const std::size_t encoded_bytes = sizeof header + pages.size_bytes();
  if (out.size() < encoded_bytes) return std::unexpected(Error::kBufferTooSmall);
  std::memcpy(out.data(), &header, sizeof header);
  std::memcpy(out.data() + sizeof header, pages.data(), pages.size_bytes());
  return encoded_bytes;
}

Result<GpadlMessages> FragmentGpadl(ChannelId channel_id, GpadlId gpadl_id,
                                    const GpaRangeList& ranges) {
  if (ranges.empty()) return std::unexpected(Error::kGpaRangeMalformed);
  const bool is_large = ranges.encoded_bytes() > kMaximumGpadlRangeListBytes;
  if (is_large && (ranges.range_count() != 1 || ranges.byte_count() > kMaximumGpadlBytes)) {
    return std::unexpected(Error::kGpadlTooLarge);
  }
  const std::vector<std::byte> encoded = ranges.Encode();
  std::span<const std::byte> rest = encoded;
  // Moves the next bytes of the list into a message. The cuts fall wherever a message is full, in
  // the middle of a range as well.
  const auto fill = [&rest](auto& message) {
    const std::size_t count = std::min(rest.size(), message.range_bytes.size());
    std::memcpy(message.range_bytes.data(), rest.data(), count);
    message.range_bytes_size = static_cast<std::uint16_t>(count);
    rest = rest.subspan(count);
  };

  GpadlMessages messages;
  messages.header.channel_id = channel_id;
  messages.header.gpadl_id = gpadl_id;
  messages.header.range_list_bytes = static_cast<std::uint16_t>(encoded.size());  // modulo 2^16
  messages.header.range_count = static_cast<std::uint16_t>(ranges.range_count());
  fill(messages.header);
  messages.bodies.reserve((rest.size() + kGpadlBodyRangeBytes - 1) / kGpadlBodyRangeBytes);
  while (!rest.empty()) {
    GpadlBody& body = messages.bodies.emplace_back();
    body.gpadl_id = gpadl_id;
    fill(body);
  }
  return messages;
}

std::size_t RangeListBytes(const GpadlHeader& header) {
  const std::size_t said = header.range_list_bytes;
  GpaRangeHeader first;
  if (header.range_count != 1 || header.range_bytes_size < sizeof first) return said;
  std::memcpy(&first, header.range_bytes.data(), sizeof first);
  const auto pages = GpaRangePageCount(first.byte_count, first.byte_offset);
  if (!pages) return said;
  const std::size_t needed = sizeof first + std::size_t{*pages} * sizeof(PageNumber);
  const bool overflows = needed > kMaximumGpadlRangeListBytes;
  return overflows && static_cast<std::uint16_t>(needed) == header.range_list_bytes ? needed : said;
}

GpaDirectWriter::GpaDirectWriter(std::span<std::byte> out) : all_(out), rest_(out) {
  Put(GpaDirectHeader{});
}

void GpaDirectWriter::Put(const auto& value) {
  KMCL_CHECK(rest_.size() >= sizeof(value));
  std::memcpy(rest_.data(), &value, sizeof(value));
  rest_ = rest_.subspan(sizeof(value));
}

void GpaDirectWriter::BeginRange(std::uint32_t byte_count, std::uint32_t byte_offset) {
  Put(GpaRangeHeader{.byte_count = byte_count, .byte_offset = byte_offset});
  const GpaDirectHeader header{.reserved = 0, .range_count = ++ranges_};
  std::memcpy(all_.data(), &header, sizeof(header));
}

void GpaDirectWriter::AddPage(PageNumber page) { Put(page); }

}  // namespace kmcl::wire
