#include "wire/gpa_range.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "wire/message_codec.h"
#include "wire/test_bytes.h"

namespace kmcl::wire {
namespace {

std::vector<PageNumber> Pages(std::initializer_list<std::uint64_t> numbers) {
  std::vector<PageNumber> pages;
  for (const std::uint64_t number : numbers) pages.push_back(PageNumber{number});
  return pages;
}

// Two ranges: 100 bytes from 4090 on, over two pages, and one whole page.
TestBytes TwoRanges() {
  return TestBytes(40)
      .U32(0, 100)
      .U32(4, 4090)
      .U64(8, 0x123456789)
      .U64(16, 7)
      .U32(24, 4096)
      .U32(28, 0)
      .U64(32, 0xFEDCBA);
}

void ExpectRefused(std::span<const std::byte> bytes, std::uint32_t range_count) {
  const auto list = GpaRangeList::Parse(bytes, range_count);
  ASSERT_FALSE(list);
  EXPECT_EQ(list.error(), Error::kGpaRangeMalformed);
}

TEST(GpaRangePageCount, CountsEveryPageThatIsTouched) {
  EXPECT_EQ(GpaRangePageCount(1, 0), 1u);
  EXPECT_EQ(GpaRangePageCount(1, 4095), 1u);
  EXPECT_EQ(GpaRangePageCount(2, 4095), 2u);
  EXPECT_EQ(GpaRangePageCount(4096, 0), 1u);
  EXPECT_EQ(GpaRangePageCount(4096, 1), 2u);
  EXPECT_EQ(GpaRangePageCount(4097, 0), 2u);
}

TEST(GpaRangePageCount, RefusesNoBytesAndOffsetsBeyondThePage) {
  EXPECT_EQ(GpaRangePageCount(0, 0).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(GpaRangePageCount(0, 100).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(GpaRangePageCount(1, 4096).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(GpaRangePageCount(1, 0xFFFFFFFF).error(), Error::kGpaRangeMalformed);
}

TEST(GpaRangePageCount, RefusesARoundedEndBeyond32Bits) {
  EXPECT_EQ(GpaRangePageCount(0xFFFFF000, 0), 0xFFFFFu);
  EXPECT_EQ(GpaRangePageCount(0xFFFFF001, 0).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(GpaRangePageCount(0xFFFFEFFF, 1), 0xFFFFFu);
  EXPECT_EQ(GpaRangePageCount(0xFFFFF000, 1).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(GpaRangePageCount(0xFFFFFFFF, 4095).error(), Error::kGpaRangeMalformed);
}

TEST(PackedGpaRanges, ReadWhatIsThere) {
  const TestBytes bytes = TwoRanges();
  const auto ranges = PackedGpaRanges::Parse(bytes, 2);
  ASSERT_TRUE(ranges);
  EXPECT_EQ(ranges->range_count(), 2u);
  EXPECT_EQ(ranges->page_count(), 3u);
  EXPECT_EQ(ranges->byte_count(), 4196u);
  EXPECT_EQ(ranges->bytes().size(), 40u);

  auto at = ranges->begin();
  const PackedGpaRange first = *at;
  EXPECT_EQ(first.byte_count(), 100u);
  EXPECT_EQ(first.byte_offset(), 4090u);
  ASSERT_EQ(first.page_count(), 2u);
  EXPECT_EQ(first.page(0), PageNumber{0x123456789});
  EXPECT_EQ(first.page(1), PageNumber{7});
  ++at;
  const PackedGpaRange second = *at;
  EXPECT_EQ(second.byte_count(), 4096u);
  EXPECT_EQ(second.byte_offset(), 0u);
  ASSERT_EQ(second.page_count(), 1u);
  EXPECT_EQ(second.page(0), PageNumber{0xFEDCBA});
  ++at;
  EXPECT_TRUE(at == ranges->end());
}

TEST(PackedGpaRanges, ReadAtAnyAlignment) {
  for (std::size_t shift = 0; shift < 8; ++shift) {
    std::vector<std::byte> shifted(shift);
    const auto bytes = TwoRanges().vector();
    shifted.insert(shifted.end(), bytes.begin(), bytes.end());
    const auto ranges = PackedGpaRanges::Parse(std::span(shifted).subspan(shift), 2);
    ASSERT_TRUE(ranges);
    EXPECT_EQ((*ranges->begin()).page(0), PageNumber{0x123456789});
  }
}

TEST(PackedGpaRanges, IgnoreWhatLiesBehindThem) {
  const TestBytes bytes = TwoRanges();
  const auto ranges = PackedGpaRanges::Parse(bytes, 1);
  ASSERT_TRUE(ranges);
  EXPECT_EQ(ranges->bytes().size(), 24u);
  EXPECT_EQ(std::ranges::distance(ranges->begin(), ranges->end()), 1);
}

TEST(GpaRangeList, RefusesEveryTruncation) {
  const std::vector<std::byte> bytes = TwoRanges().vector();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    SCOPED_TRACE(size);
    ExpectRefused(std::vector(bytes.begin(), bytes.begin() + size), 2);
  }
}

TEST(GpaRangeList, RefusesCountsThatTheBytesDoNotHold) {
  for (const std::uint32_t count : {0u, 3u, 4u, 0x10000000u, 0x80000000u, 0xFFFFFFFFu}) {
    SCOPED_TRACE(count);
    ExpectRefused(TwoRanges(), count);
  }
}

TEST(GpaRangeList, RefusesABadRangeAnywhere) {
  for (const std::size_t at : {0, 24}) {
    SCOPED_TRACE(at);
    ExpectRefused(TwoRanges().U32(at, 0), 2);
    ExpectRefused(TwoRanges().U32(at + 4, 4096), 2);
    ExpectRefused(TwoRanges().U32(at + 4, 0xFFFFFFFF), 2);
    ExpectRefused(TwoRanges().U32(at, 0xFFFFFFFF), 2);
    ExpectRefused(TwoRanges().U32(at, 0xFFFFF001).U32(at + 4, 0), 2);
    ExpectRefused(TwoRanges().U32(at, 5 * 4096), 2);
  }
}

TEST(GpaRangeList, OwnsWhatItRead) {
  const auto list = GpaRangeList::Parse(TwoRanges(), 2);
  ASSERT_TRUE(list);
  ASSERT_EQ(list->range_count(), 2u);
  EXPECT_EQ(list->byte_count(), 4196u);
  EXPECT_EQ(list->range(0).byte_count, 100u);
  EXPECT_EQ(list->range(0).byte_offset, 4090u);
  EXPECT_TRUE(std::ranges::equal(list->range(0).pages, Pages({0x123456789, 7})));
  EXPECT_EQ(list->range(1).byte_count, 4096u);
  EXPECT_TRUE(std::ranges::equal(list->range(1).pages, Pages({0xFEDCBA})));
  EXPECT_TRUE(std::ranges::equal(list->pages(), Pages({0x123456789, 7, 0xFEDCBA})));
}

TEST(GpaRangeList, WritesTheBytesThatItRead) {
  const auto list = GpaRangeList::Parse(TwoRanges(), 2);
  ASSERT_TRUE(list);
  EXPECT_EQ(list->encoded_bytes(), 40u);
  EXPECT_EQ(list->Encode(), TwoRanges().vector());
}

TEST(GpaRangeList, IsBuiltFromGoodRangesOnly) {
  GpaRangeList list;
  EXPECT_TRUE(list.Append(100, 4090, Pages({0x123456789, 7})));
  EXPECT_EQ(list.Append(100, 4090, Pages({1})).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(list.Append(100, 4090, Pages({1, 2, 3})).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(list.Append(0, 0, {}).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(list.Append(1, 4096, Pages({1})).error(), Error::kGpaRangeMalformed);
  EXPECT_TRUE(list.Append(4096, 0, Pages({0xFEDCBA})));
  EXPECT_EQ(list.Encode(), TwoRanges().vector());
}

TEST(GpaRangeList, OfPagesCountsUpFromTheFirst) {
  const auto list = GpaRangeList::OfPages(PageNumber{0x100}, 3);
  ASSERT_TRUE(list);
  ASSERT_EQ(list->range_count(), 1u);
  EXPECT_EQ(list->byte_count(), 3u * 4096);
  EXPECT_TRUE(std::ranges::equal(list->pages(), Pages({0x100, 0x101, 0x102})));
}

TEST(GpaRangeList, OfPagesRefusesWhatOneRangeCannotSay) {
  constexpr std::uint64_t kLast = 0xFFFFFFFFFFFFFFFF;
  EXPECT_EQ(GpaRangeList::OfPages(PageNumber{1}, 0).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(GpaRangeList::OfPages(PageNumber{1}, 0x100000).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(GpaRangeList::OfPages(PageNumber{kLast}, 2).error(), Error::kGpaRangeMalformed);
  EXPECT_TRUE(GpaRangeList::OfPages(PageNumber{kLast}, 1));
}

TEST(EncodeGpaRange, WritesIntoWhatItIsGiven) {
  std::vector<std::byte> out(24);
  EXPECT_EQ(EncodeGpaRange(100, 4090, Pages({0x123456789, 7}), out), 24u);
  const auto expected = TwoRanges().vector();
  EXPECT_TRUE(std::equal(out.begin(), out.end(), expected.begin()));
  EXPECT_EQ(EncodeGpaRange(100, 4090, Pages({1, 2}), std::span(out).first(23)).error(),
            Error::kBufferTooSmall);
  EXPECT_EQ(EncodeGpaRange(100, 4090, Pages({1}), out).error(), Error::kGpaRangeMalformed);
}

TEST(FragmentGpadl, PutsTwentySixPagesIntoTheHeader) {
  const auto messages =
      FragmentGpadl(ChannelId{3}, GpadlId{9}, GpaRangeList::OfPages(PageNumber{50}, 26).value());
  ASSERT_TRUE(messages);
  EXPECT_TRUE(messages->bodies.empty());
  TestBytes expected(236);
  expected.U32(0, 8).U32(8, 3).U32(12, 9).U16(16, 216).U16(18, 1).U32(20, 26 * 4096).U32(24, 0);
  for (std::size_t i = 0; i < 26; ++i) expected.U64(28 + 8 * i, 50 + i);
  const MessageBytes encoded = Encode(messages->header, {.version = Version::kWin8});
  EXPECT_EQ(std::vector(encoded.span().begin(), encoded.span().end()), expected.vector());
}

TEST(FragmentGpadl, PutsTwentyEightPagesIntoEachBody) {
  struct Row {
    std::uint32_t pages;
    std::size_t bodies;
    std::size_t last_bytes;
  };
  for (const Row& row :
       {Row{27, 1, 8}, Row{54, 1, 224}, Row{55, 2, 8}, Row{82, 2, 224}, Row{8190, 292, 128}}) {
    SCOPED_TRACE(row.pages);
    const auto messages = FragmentGpadl(ChannelId{3}, GpadlId{9},
                                        GpaRangeList::OfPages(PageNumber{0}, row.pages).value());
    ASSERT_TRUE(messages);
    EXPECT_EQ(messages->header.ranges().size(), 216u);
    ASSERT_EQ(messages->bodies.size(), row.bodies);
    for (std::size_t i = 0; i + 1 < row.bodies; ++i) {
      EXPECT_EQ(messages->bodies[i].ranges().size(), 224u);
    }
    EXPECT_EQ(messages->bodies.back().ranges().size(), row.last_bytes);
  }
}

TEST(FragmentGpadl, CanBePutTogetherAgain) {
  GpaRangeList list;
  ASSERT_TRUE(list.Append(4096 * 30, 0, std::vector(30, PageNumber{5})));
  ASSERT_TRUE(list.Append(10, 4090, Pages({1, 2})));
  ASSERT_TRUE(list.Append(4096 * 60, 0, std::vector(60, PageNumber{6})));
  const auto messages = FragmentGpadl(ChannelId{3}, GpadlId{9}, list);
  ASSERT_TRUE(messages);
  EXPECT_EQ(messages->header.range_count, 3u);
  EXPECT_EQ(messages->header.range_list_bytes, 8u * (3 + 92));

  std::vector<std::byte> together;
  const auto take = [&](std::span<const std::byte> part) {
    together.insert(together.end(), part.begin(), part.end());
  };
  take(messages->header.ranges());
  for (const GpadlBody& body : messages->bodies) {
    EXPECT_EQ(body.gpadl_id, GpadlId{9});
    take(body.ranges());
  }
  EXPECT_EQ(together.size(), messages->header.range_list_bytes);
  EXPECT_TRUE(GpaRangeList::Parse(together, messages->header.range_count) ==
              Result<GpaRangeList>(list));
}

TEST(FragmentGpadl, SaysTheLengthOfOneLargeRangeModulo65536) {
  for (const std::uint32_t pages : {8191u, 8192u, 16383u, 300000u, 524288u}) {
    SCOPED_TRACE(pages);
    const auto list = GpaRangeList::OfPages(PageNumber{7}, pages).value();
    const auto messages = FragmentGpadl(ChannelId{1}, GpadlId{1}, list);
    ASSERT_TRUE(messages);
    EXPECT_EQ(messages->header.range_list_bytes, 8 * (1 + pages) % 65536);
    EXPECT_EQ(RangeListBytes(messages->header), 8u * (1 + pages));
    std::size_t carried = messages->header.ranges().size();
    for (const GpadlBody& body : messages->bodies) carried += body.ranges().size();
    EXPECT_EQ(carried, 8u * (1 + pages));
  }
}

TEST(FragmentGpadl, RefusesWhatTheLengthFieldCannotSay) {
  GpaRangeList two_ranges = GpaRangeList::OfPages(PageNumber{0}, 8190).value();
  EXPECT_EQ(RangeListBytes(FragmentGpadl(ChannelId{1}, GpadlId{1}, two_ranges)->header), 65528u);
  ASSERT_TRUE(two_ranges.Append(1, 0, Pages({1})));
  EXPECT_EQ(FragmentGpadl(ChannelId{1}, GpadlId{1}, two_ranges).error(), Error::kGpadlTooLarge);
  const auto too_large = GpaRangeList::OfPages(PageNumber{0}, 524289);
  ASSERT_TRUE(too_large);
  EXPECT_EQ(FragmentGpadl(ChannelId{1}, GpadlId{1}, *too_large).error(), Error::kGpadlTooLarge);
  EXPECT_EQ(FragmentGpadl(ChannelId{1}, GpadlId{1}, GpaRangeList()).error(),
            Error::kGpaRangeMalformed);
}

TEST(RangeListBytes, BelievesTheHeaderUnlessItOverflows) {
  GpadlHeader header;
  const auto set = [&](std::uint32_t byte_count, std::uint32_t byte_offset, std::uint16_t said) {
    const GpaRangeHeader range{.byte_count = byte_count, .byte_offset = byte_offset};
    std::memcpy(header.range_bytes.data(), &range, sizeof range);
    header.range_bytes_size = 216;
    header.range_count = 1;
    header.range_list_bytes = said;
    return RangeListBytes(header);
  };
  EXPECT_EQ(set(4096, 0, 16), 16u);
  EXPECT_EQ(set(4096, 0, 8), 8u) << "too short, and no overflow explains it";
  EXPECT_EQ(set(4096, 0, 24), 24u) << "more than the range needs";
  EXPECT_EQ(set(8191 * 4096, 0, 0), 65536u);
  EXPECT_EQ(set(8191 * 4096, 0, 65528), 65528u) << "not the length modulo 65536";
  EXPECT_EQ(set(8192 * 4096, 0, 8), 65544u);
  EXPECT_EQ(set(8191 * 4096, 1, 8), 65544u) << "the offset costs a page";
  EXPECT_EQ(set(0, 0, 16), 16u);
  EXPECT_EQ(set(8191 * 4096, 4096, 0), 0u) << "an offset beyond the page";
  EXPECT_EQ(set(0xFFFFF000, 0, 0), 8u * 1048576) << "the most that a range can say";
  header.range_count = 2;
  EXPECT_EQ(RangeListBytes(header), 0u);
  header.range_count = 1;
  header.range_bytes_size = 0;
  EXPECT_EQ(RangeListBytes(header), 0u);
}

}  // namespace
}  // namespace kmcl::wire
