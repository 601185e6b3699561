#include "wire/packet.h"

#include <gtest/gtest.h>

#include <cstring>

#include "wire/test_bytes.h"

namespace kmcl::wire {
namespace {

PacketDescriptor InBand(std::uint16_t data_offset8, std::uint16_t length8) {
  return {.type = 6, .data_offset8 = data_offset8, .length8 = length8, .transaction_id = 42};
}

void ExpectError(const PacketDescriptor& descriptor, std::uint32_t available, Error error) {
  const auto shape = ParseDescriptor(descriptor, available);
  ASSERT_FALSE(shape);
  EXPECT_EQ(shape.error(), error) << ErrorName(shape.error());
}

TEST(Descriptor, OfTheReferencesExampleIsRead) {
  // VMBus reference 1.4: in-band, payload AA BB CC DD EE, completion requested, transaction id 1.
  const auto packet = TestBytes(32)
                          .Hex(0, "06 00 02 00 03 00 01 00 01 00 00 00 00 00 00 00")
                          .Hex(16, "AA BB CC DD EE 00 00 00")
                          .Hex(24, "00 00 00 00 00 00 00 00")
                          .vector();
  PacketDescriptor descriptor;
  std::memcpy(&descriptor, packet.data(), sizeof descriptor);
  const auto shape = ParseDescriptor(descriptor, 32);
  ASSERT_TRUE(shape);
  EXPECT_EQ(shape->type, PacketType::kDataInBand);
  EXPECT_TRUE(shape->completion_requested());
  EXPECT_EQ(shape->transaction_id, 1u);
  EXPECT_EQ(shape->header_bytes, 0u);
  EXPECT_EQ(shape->payload_bytes, 8u);
  EXPECT_EQ(shape->ring_bytes(), 0x20u);
}

TEST(Descriptor, GivesLengthsInBytes) {
  const auto shape = ParseDescriptor(
      {.type = 9, .data_offset8 = 6, .length8 = 10, .transaction_id = 0xFFFFFFFFFFFFFFFF}, 4096);
  ASSERT_TRUE(shape);
  EXPECT_EQ(shape->type, PacketType::kDataUsingGpaDirect);
  EXPECT_FALSE(shape->completion_requested());
  EXPECT_EQ(shape->header_bytes, 32u);
  EXPECT_EQ(shape->payload_bytes, 32u);
  EXPECT_EQ(shape->ring_bytes(), 88u);
  EXPECT_EQ(shape->transaction_id, 0xFFFFFFFFFFFFFFFF);
}

TEST(Descriptor, MayHaveNoPayload) {
  const auto shape = ParseDescriptor(InBand(2, 2), 24);
  ASSERT_TRUE(shape);
  EXPECT_EQ(shape->payload_bytes, 0u);
  EXPECT_EQ(shape->ring_bytes(), 24u);
}

TEST(Descriptor, NeedsRoomForTheTrailer) {
  EXPECT_TRUE(ParseDescriptor(InBand(2, 3), 32));
  ExpectError(InBand(2, 3), 31, Error::kPacketLengthOutOfRange);
  ExpectError(InBand(2, 3), 24, Error::kPacketLengthOutOfRange);
  ExpectError(InBand(2, 2), 16, Error::kPacketLengthOutOfRange);
  ExpectError(InBand(2, 2), 0, Error::kPacketLengthOutOfRange);
}

TEST(Descriptor, MayBeAsLongAsItsFieldCanSay) {
  EXPECT_EQ(ParseDescriptor(InBand(2, 0xFFFF), 524288)->payload_bytes, 524264u);
  ExpectError(InBand(2, 0xFFFF), 524287, Error::kPacketLengthOutOfRange);
  EXPECT_EQ(ParseDescriptor(InBand(0xFFFF, 0xFFFF), 524288)->payload_bytes, 0u);
  EXPECT_TRUE(ParseDescriptor(InBand(2, 0xFFFF), 0xFFFFFFFF));
}

TEST(Descriptor, KeepsItsPayloadBehindTheDescriptorAndBeforeItsEnd) {
  ExpectError(InBand(0, 4), 4096, Error::kPacketOffsetOutOfRange);
  ExpectError(InBand(1, 4), 4096, Error::kPacketOffsetOutOfRange);
  ExpectError(InBand(5, 4), 4096, Error::kPacketOffsetOutOfRange);
  ExpectError(InBand(0xFFFF, 4), 4096, Error::kPacketOffsetOutOfRange);
  ExpectError(InBand(2, 0), 4096, Error::kPacketOffsetOutOfRange);
  ExpectError(InBand(2, 1), 4096, Error::kPacketOffsetOutOfRange);
  ExpectError(InBand(0, 0), 4096, Error::kPacketOffsetOutOfRange);
  EXPECT_TRUE(ParseDescriptor(InBand(4, 4), 4096));
}

TEST(Descriptor, HasAKnownType) {
  for (std::uint32_t type = 0; type <= 0xFFFF; ++type) {
    const PacketDescriptor descriptor{
        .type = static_cast<std::uint16_t>(type), .data_offset8 = 2, .length8 = 2};
    const auto shape = ParseDescriptor(descriptor, 24);
    if (type >= 1 && type <= 0xD) {
      ASSERT_TRUE(shape) << type;
      EXPECT_EQ(static_cast<std::uint32_t>(shape->type), type);
      EXPECT_STRNE(NameOf(shape->type), "unknown");
    } else {
      ASSERT_FALSE(shape) << type;
      EXPECT_EQ(shape.error(), Error::kPacketTypeUnknown);
    }
  }
}

TEST(Descriptor, HasKnownFlags) {
  for (std::uint32_t flags = 0; flags <= 0xFFFF; ++flags) {
    PacketDescriptor descriptor = InBand(2, 2);
    descriptor.flags = static_cast<std::uint16_t>(flags);
    const auto shape = ParseDescriptor(descriptor, 24);
    if (flags <= 1) {
      ASSERT_TRUE(shape) << flags;
      EXPECT_EQ(shape->completion_requested(), flags == 1);
    } else {
      ASSERT_FALSE(shape) << flags;
      EXPECT_EQ(shape.error(), Error::kPacketFlagsUnknown);
    }
  }
}

TEST(Descriptor, NeverYieldsPartsBeyondWhatIsAvailable) {
  for (std::uint32_t offset = 0; offset <= 40; ++offset) {
    for (std::uint32_t length = 0; length <= 40; ++length) {
      for (std::uint32_t available = 0; available <= 320; ++available) {
        const auto shape = ParseDescriptor(
            InBand(static_cast<std::uint16_t>(offset), static_cast<std::uint16_t>(length)),
            available);
        const bool fits = offset >= 2 && offset <= length && length * 8 + 8 <= available;
        ASSERT_EQ(shape.has_value(), fits) << offset << " " << length << " " << available;
        if (shape) {
          ASSERT_EQ(shape->ring_bytes(), length * 8 + 8);
          ASSERT_EQ(shape->header_bytes, offset * 8 - 16);
        }
      }
    }
  }
}

TEST(TransferPages, AreReadFromTheirHeader) {
  const TestBytes header = TestBytes(24)
                               .U16(0, 0xCAFE)
                               .U8(2, 1)
                               .U8(3, 0xEE)
                               .U32(4, 2)
                               .U32(8, 100)
                               .U32(12, 200)
                               .U32(16, 300)
                               .U32(20, 400);
  const auto pages = ParseTransferPages(header);
  ASSERT_TRUE(pages);
  EXPECT_EQ(pages->set_id(), 0xCAFE);
  EXPECT_TRUE(pages->sender_owns_set());
  ASSERT_EQ(pages->range_count(), 2u);
  EXPECT_EQ(pages->range(0), (TransferPageRange{.byte_count = 100, .byte_offset = 200}));
  EXPECT_EQ(pages->range(1), (TransferPageRange{.byte_count = 300, .byte_offset = 400}));
}

TEST(TransferPages, RefuseMoreRangesThanTheHeaderHolds) {
  for (const std::uint32_t count : {3u, 0x20000000u, 0x20000002u, 0xFFFFFFFFu}) {
    const auto pages = ParseTransferPages(TestBytes(24).U32(4, count));
    ASSERT_FALSE(pages) << count;
    EXPECT_EQ(pages.error(), Error::kPacketHeaderTooShort);
  }
  for (std::size_t size = 0; size < 24; ++size) {
    const auto pages = ParseTransferPages(TestBytes(24).U32(4, 2).span().first(size));
    ASSERT_FALSE(pages) << size;
    EXPECT_EQ(pages.error(), Error::kPacketHeaderTooShort);
  }
}

TEST(TransferPages, AreCheckedAgainstTheirSetWithoutOverflow) {
  EXPECT_TRUE(IsInside(TransferPageRange{.byte_count = 10, .byte_offset = 90}, 100));
  EXPECT_TRUE(IsInside(TransferPageRange{.byte_count = 0, .byte_offset = 100}, 100));
  EXPECT_FALSE(IsInside(TransferPageRange{.byte_count = 11, .byte_offset = 90}, 100));
  EXPECT_FALSE(IsInside(TransferPageRange{.byte_count = 0, .byte_offset = 101}, 100));
  EXPECT_FALSE(IsInside(TransferPageRange{.byte_count = 0xFFFFFFFF, .byte_offset = 90}, 100));
  EXPECT_FALSE(IsInside(TransferPageRange{.byte_count = 20, .byte_offset = 0xFFFFFFF0}, 100));
  EXPECT_TRUE(IsInside(TransferPageRange{.byte_count = 0xFFFFFFFF, .byte_offset = 0xFFFFFFFF},
                       0x1FFFFFFFE));
}

TEST(GpaDirect, IsReadWhateverItsReservedWordHolds) {
  const TestBytes header =
      TestBytes(24).U32(0, 0xDEADBEEF).U32(4, 1).U32(8, 512).U32(12, 8).U64(16, 0x99);
  const auto ranges = ParseGpaDirect(header);
  ASSERT_TRUE(ranges);
  EXPECT_EQ(ranges->range_count(), 1u);
  EXPECT_EQ((*ranges->begin()).page(0), PageNumber{0x99});
}

TEST(GpaDirect, RefusesShortHeadersAndBadRanges) {
  EXPECT_EQ(ParseGpaDirect(TestBytes(7)).error(), Error::kPacketHeaderTooShort);
  EXPECT_EQ(ParseGpaDirect(TestBytes(8)).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(ParseGpaDirect(TestBytes(24).U32(4, 0).U32(8, 512)).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(ParseGpaDirect(TestBytes(24).U32(4, 2).U32(8, 512)).error(), Error::kGpaRangeMalformed);
  EXPECT_EQ(ParseGpaDirect(TestBytes(24).U32(4, 1).U32(8, 4097)).error(),
            Error::kGpaRangeMalformed);
}

TEST(HistoricPackets, AreReadFromTheirHeaders) {
  const TestBytes set = TestBytes(8).U32(0, 0xE1E10).U16(4, 0x1234);
  EXPECT_EQ(ParseTransferPageSet(set)->gpadl_id, GpadlId{0xE1E10});
  EXPECT_EQ(ParseTransferPageSet(set)->set_id, 0x1234);
  EXPECT_EQ(ParseGpadlReference(set), GpadlId{0xE1E10});

  const TestBytes establish = TestBytes(24).U32(0, 7).U32(4, 1).U32(8, 4096).U64(16, 5);
  const auto gpadl = ParseEstablishGpadl(establish);
  ASSERT_TRUE(gpadl);
  EXPECT_EQ(gpadl->gpadl_id, GpadlId{7});
  EXPECT_EQ(gpadl->ranges.byte_count(), 4096u);
}

TEST(HistoricPackets, AreRefusedWhenShort) {
  for (std::size_t size = 0; size < 8; ++size) {
    const TestBytes header(size);
    EXPECT_EQ(ParseTransferPageSet(header).error(), Error::kPacketHeaderTooShort);
    EXPECT_EQ(ParseGpadlReference(header).error(), Error::kPacketHeaderTooShort);
    EXPECT_EQ(ParseEstablishGpadl(header).error(), Error::kPacketHeaderTooShort);
  }
  EXPECT_EQ(ParseEstablishGpadl(TestBytes(8).U32(4, 1)).error(), Error::kGpaRangeMalformed);
}

TEST(AdditionalData, LiesInsideTheWholeAndThePayload) {
  const auto header = [](std::uint64_t total, std::uint32_t offset, std::uint32_t count) {
    return TestBytes(16).U64(0, total).U32(8, offset).U32(12, count);
  };
  const auto part = ParseAdditionalData(header(100, 60, 40), 40);
  ASSERT_TRUE(part);
  EXPECT_EQ(part->total_bytes, 100u);
  EXPECT_EQ(part->byte_offset, 60u);
  EXPECT_EQ(part->byte_count, 40u);
  EXPECT_EQ(ParseAdditionalData(header(100, 61, 40), 40).error(), Error::kFieldOutOfRange);
  EXPECT_EQ(ParseAdditionalData(header(100, 101, 0), 40).error(), Error::kFieldOutOfRange);
  EXPECT_EQ(ParseAdditionalData(header(100, 60, 40), 39).error(), Error::kFieldOutOfRange);
  EXPECT_EQ(ParseAdditionalData(header(100, 0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF).error(),
            Error::kFieldOutOfRange);
  EXPECT_EQ(ParseAdditionalData(TestBytes(15), 40).error(), Error::kPacketHeaderTooShort);
}

}  // namespace
}  // namespace kmcl::wire
