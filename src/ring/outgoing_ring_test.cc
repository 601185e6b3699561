#include "ring/outgoing_ring.h"

#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

#include "ring/ring_test_memory.h"

namespace kmcl::ring {
namespace {

constexpr std::uint32_t kS = 3 * 4096;
using Bytes = std::vector<unsigned>;

PacketParts InBand(std::span<const std::byte> payload, std::uint64_t id = 1) {
  return {.type = wire::PacketType::kDataInBand, .transaction_id = id, .payload = payload};
}

// Each test runs on an area that is mapped once and on one that is mapped twice in a row.
class OutgoingRingTest : public testing::TestWithParam<Mapped> {
 protected:
  // A ring whose peer has read everything up to `index` and masks nothing.
  OutgoingRing RingAt(std::uint32_t index) { return RingAt(index, index); }
  OutgoingRing RingAt(std::uint32_t write, std::uint32_t read) {
    memory_.Fill(0xEE);
    memory_.set_indices(write, read);
    return OutgoingRing::Attach(memory_.pages()).value();
  }
  std::uint32_t word(std::size_t offset) const { return memory_.word(offset); }

  RingMemory memory_{kS, GetParam()};
};

INSTANTIATE_TEST_SUITE_P(, OutgoingRingTest, testing::Values(Mapped::kOnce, Mapped::kTwice),
                         [](const auto& param) {
                           return param.param == Mapped::kOnce ? "MappedOnce" : "MappedTwice";
                         });

TEST_P(OutgoingRingTest, TheWorkedExampleComesOutByteForByte) {
  OutgoingRing ring = RingAt(0);
  const std::byte payload[] = {std::byte{0xAA}, std::byte{0xBB}, std::byte{0xCC}, std::byte{0xDD},
                               std::byte{0xEE}};
  ASSERT_EQ(ring.Write({.type = wire::PacketType::kDataInBand,
                        .flags = 1,
                        .transaction_id = 1,
                        .payload = payload}),
            WriteOutcome::kWritten);
  EXPECT_EQ(memory_.bytes(0, 40),
            (Bytes{
                0x06, 0,    2,    0,    3,    0,    1,    0,    1, 0, 0, 0, 0, 0, 0, 0,  //
                0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0,    0,    0,                             //
                0,    0,    0,    0,    0,    0,    0,    0,                             //
                0xEE, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE,
            }));
  EXPECT_EQ(ring.Publish(), Bell::kRing);
  EXPECT_EQ(word(RingMemory::kWriteIndex), 0x20u);

  ASSERT_EQ(ring.Write(InBand({}, 0x1122334455667788)), WriteOutcome::kWritten);
  EXPECT_EQ(memory_.bytes(0x20, 24),
            (Bytes{0x06, 0,    2,    0,    2,    0,    0,    0,     // no payload
                   0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // id
                   0,    0,    0,    0,    0x20, 0,    0,    0}));  // started at 0x20
}

TEST_P(OutgoingRingTest, HeaderPrefixAndPayloadFollowEachOther) {
  OutgoingRing ring = RingAt(0);
  const auto header = TestBytes(16, 0x10);
  const auto prefix = TestBytes(8, 0x40);
  const auto payload = TestBytes(3, 0x70);
  ASSERT_EQ(ring.Write({.type = wire::PacketType::kCompletion,
                        .transaction_id = 7,
                        .header = header,
                        .prefix = prefix,
                        .payload = payload}),
            WriteOutcome::kWritten);
  EXPECT_EQ(memory_.bytes(0, 8), (Bytes{0x0B, 0, 4, 0, 6, 0, 0, 0}));
  EXPECT_EQ(memory_.bytes(16, 32), (Bytes{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,  //
                                          0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F,  //
                                          0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47,  //
                                          0x70, 0x71, 0x72, 0,    0,    0,    0,    0}));
}

TEST_P(OutgoingRingTest, EveryPayloadLengthArrivesWholeAndPaddedAtEveryPlaceOfTheWrap) {
  for (std::uint32_t back = 0; back <= 96; back += 8) {
    for (std::size_t length = 0; length <= 72; ++length) {
      const std::uint32_t start = (kS - back) % kS;
      OutgoingRing ring = RingAt(start);
      const auto payload = TestBytes(length);
      ASSERT_EQ(ring.Write(InBand(payload, 0xABCD)), WriteOutcome::kWritten);

      const auto padded = static_cast<std::uint32_t>((length + 7) / 8 * 8);
      Bytes expected{6, 0, 2, 0, 2 + padded / 8, 0, 0, 0, 0xCD, 0xAB, 0, 0, 0, 0, 0, 0};
      for (std::size_t i = 0; i < length; ++i) expected.push_back(static_cast<unsigned>(1 + i));
      expected.resize(16 + padded, 0);
      for (const unsigned byte : {0u, 0u, 0u, 0u, start & 0xFF, start >> 8, 0u, 0u}) {
        expected.push_back(byte);
      }
      ASSERT_EQ(memory_.bytes(start, 24 + padded), expected) << start << " " << length;
      ASSERT_EQ(memory_.bytes(start + 24 + padded, 8), Bytes(8, 0xEE)) << "wrote too far";
      ASSERT_EQ(memory_.bytes(start + kS - 8, 8), Bytes(8, 0xEE)) << "wrote before the packet";
      ASSERT_EQ(ring.write_index(), (start + 24 + padded) % kS);
    }
  }
}

TEST_P(OutgoingRingTest, LongPacketsCrossTheEndUnharmed) {
  for (const std::uint32_t start : {kS - 8, kS - 16, kS - 24, kS - 512, kS - 3000, kS - 6000}) {
    OutgoingRing ring = RingAt(start);
    const auto payload = TestBytes(5003);
    ASSERT_EQ(ring.Write(InBand(payload)), WriteOutcome::kWritten);
    const Bytes written = memory_.bytes(start + 16, 5008);
    for (std::size_t i = 0; i < payload.size(); ++i) {
      ASSERT_EQ(written[i], std::to_integer<unsigned>(payload[i])) << start << " " << i;
    }
    EXPECT_EQ(Bytes(written.begin() + 5003, written.end()), Bytes(5, 0));
  }
}

TEST_P(OutgoingRingTest, APacketMayFillTheFreeSpaceExactly) {
  OutgoingRing ring = RingAt(64, 64 + 8 + 32);  // 32 bytes free
  const auto payload = TestBytes(8);
  EXPECT_EQ(ring.Write(InBand(payload)), WriteOutcome::kWritten);
  EXPECT_EQ(ring.Write(InBand({})), WriteOutcome::kFull);
  EXPECT_EQ(ring.write_index(), 96u);
}

TEST_P(OutgoingRingTest, OneUnitLessIsFullAndWritesNothing) {
  OutgoingRing ring = RingAt(64, 64 + 8 + 24);  // 24 bytes free
  const auto payload = TestBytes(8);
  EXPECT_EQ(ring.Write(InBand(payload)), WriteOutcome::kFull);
  EXPECT_EQ(memory_.bytes(64, 32), Bytes(32, 0xEE));
  EXPECT_EQ(ring.write_index(), 64u);
  EXPECT_EQ(ring.Publish(), Bell::kNone);
  memory_.set_word(RingMemory::kReadIndex, 64 + 8 + 32);
  EXPECT_EQ(ring.Write(InBand(payload)), WriteOutcome::kWritten) << "the peer has read on";
}

TEST_P(OutgoingRingTest, TheLongestPacketIsTwoUnitsShorterThanTheRing) {
  OutgoingRing ring = RingAt(4096);
  EXPECT_EQ(ring.maximum_packet_bytes(), kS - 16);
  const auto longest = TestBytes(kS - 16 - 24);
  const auto longer = TestBytes(longest.size() + 1);
  ASSERT_EQ(ring.Write(InBand(longer)).error(), Error::kPacketTooLong);
  EXPECT_FALSE(ring.has_failed()) << "the caller's fault, not the peer's";
  EXPECT_EQ(ring.Write(InBand(longest)), WriteOutcome::kWritten);
  EXPECT_EQ(ring.Publish(), Bell::kRing);
  EXPECT_EQ(word(RingMemory::kWriteIndex), 4096u - 16);
}

TEST(OutgoingRing, Length8BoundsAPacketInALargeRing) {
  RingMemory memory(1 << 20, Mapped::kTwice);
  OutgoingRing ring = OutgoingRing::Create(memory.pages()).value();
  const auto longest = TestBytes(0xFFFF * 8 - 16);
  const auto longer = TestBytes(longest.size() + 1);
  EXPECT_EQ(ring.Write(InBand(longer)).error(), Error::kPacketTooLong);
  ASSERT_EQ(ring.Write(InBand(longest)), WriteOutcome::kWritten);
  EXPECT_EQ(memory.bytes(0, 8), (Bytes{6, 0, 2, 0, 0xFF, 0xFF, 0, 0}));
  EXPECT_EQ(ring.write_index(), 0xFFFFu * 8 + 8);
}

TEST(OutgoingRing, PacketBytesOfAbsurdSizesFitNoRing) {
  EXPECT_EQ(OutgoingRing::PacketBytes(8, 9), 48u);
  EXPECT_GT(OutgoingRing::PacketBytes(0, SIZE_MAX), kMaximumDataBytes);
  EXPECT_GT(OutgoingRing::PacketBytes(SIZE_MAX, SIZE_MAX), kMaximumDataBytes);
  EXPECT_GT(OutgoingRing::PacketBytes(std::size_t{1} << 32, 0), MaximumPacketBytes(1u << 30));
}

TEST_P(OutgoingRingTest, NothingIsVisibleBeforePublish) {
  OutgoingRing ring = RingAt(128);
  ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
  ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
  EXPECT_TRUE(ring.has_unpublished());
  EXPECT_EQ(word(RingMemory::kWriteIndex), 128u);
  EXPECT_EQ(ring.Publish(), Bell::kRing);
  EXPECT_EQ(word(RingMemory::kWriteIndex), 128u + 48);
  EXPECT_FALSE(ring.has_unpublished());
  EXPECT_EQ(ring.Publish(), Bell::kNone) << "one bell a batch";
}

TEST_P(OutgoingRingTest, AMaskedReaderGetsNoBell) {
  OutgoingRing ring = RingAt(128);
  for (const std::uint32_t mask : {1u, 2u, 0x80000000u}) {
    memory_.set_indices(ring.write_index(), ring.write_index());
    memory_.set_word(RingMemory::kInterruptMask, mask);
    ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
    EXPECT_EQ(ring.Publish(), Bell::kNone) << mask;
  }
}

TEST_P(OutgoingRingTest, AReaderThatIsStillBehindGetsNoBell) {
  OutgoingRing ring = RingAt(128, 104);
  ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
  EXPECT_EQ(ring.Publish(), Bell::kNone);
}

TEST_P(OutgoingRingTest, AReaderThatDrainedTheRingWhileWeWroteGetsABell) {
  OutgoingRing ring = RingAt(128, 104);
  ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
  memory_.set_word(RingMemory::kReadIndex, 128);
  EXPECT_EQ(ring.Publish(), Bell::kRing);
}

TEST_P(OutgoingRingTest, ABatchOverTheEndIsPublishedOnce) {
  OutgoingRing ring = RingAt(kS - 48);
  for (int i = 0; i < 4; ++i) ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
  EXPECT_EQ(word(RingMemory::kWriteIndex), kS - 48);
  EXPECT_EQ(ring.Publish(), Bell::kRing);
  EXPECT_EQ(word(RingMemory::kWriteIndex), 48u);
}

TEST_P(OutgoingRingTest, OurOwnWordsAreNeverReadBack) {
  OutgoingRing ring = RingAt(128);
  memory_.set_word(RingMemory::kWriteIndex, 0xFFFFFFFF);
  ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
  EXPECT_EQ(ring.Publish(), Bell::kRing);
  EXPECT_EQ(word(RingMemory::kWriteIndex), 128u + 24);
}

// The peer's read index, at the moment when the writer has to look at it.
TEST_P(OutgoingRingTest, AReadIndexThatNoReaderWritesIsFinal) {
  constexpr std::uint32_t kWrite = 1024;
  constexpr std::uint32_t kRead = 2048;  // 1016 bytes free
  const auto payload = TestBytes(1024);
  const std::pair<std::uint32_t, const char*> hostile[] = {
      {kS, "the size"},
      {kS + 8, "beyond the size"},
      {0xFFFFFFF8, "far beyond"},
      {2052, "no multiple"},
      {kRead - 8, "backwards"},
      {kWrite + 24, "in free space"},
      {kWrite + 8, "unpublished"},
  };
  for (const auto& [index, what] : hostile) {
    OutgoingRing ring = RingAt(kWrite, kRead);
    ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
    memory_.set_word(RingMemory::kReadIndex, index);
    ASSERT_EQ(ring.Write(InBand(payload)).error(), Error::kRingIndexOutOfRange) << what;
    EXPECT_TRUE(ring.has_failed());

    memory_.set_word(RingMemory::kReadIndex, kWrite);  // mended: too late
    EXPECT_EQ(ring.Write(InBand({})).error(), Error::kRingIndexOutOfRange) << what;
    EXPECT_EQ(ring.Publish(), Bell::kNone);
    EXPECT_EQ(word(RingMemory::kWriteIndex), kWrite) << "leaves the page alone";
    EXPECT_EQ(ring.RequestSpaceBell(24).error(), Error::kRingIndexOutOfRange);
    EXPECT_EQ(word(RingMemory::kPendingSend), 0u);
  }
}

TEST_P(OutgoingRingTest, AReaderMayStandAnywhereInWhatItWasShown) {
  for (const std::uint32_t index : {2048u, 2056u, kS - 8, 0u, 1016u, 1024u}) {
    OutgoingRing ring = RingAt(1024, 2048);
    ASSERT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
    memory_.set_word(RingMemory::kReadIndex, index);
    EXPECT_TRUE(ring.Write(InBand(TestBytes(1024))).has_value()) << index;
  }
}

TEST_P(OutgoingRingTest, ASpaceBellIsAskedForAQuarterOfTheRing) {
  OutgoingRing ring = RingAt(64, 72);  // full
  EXPECT_EQ(ring.RequestSpaceBell(24), false);
  EXPECT_EQ(word(RingMemory::kPendingSend), kS / 4);
  EXPECT_EQ(ring.RequestSpaceBell(kS / 4 + 8), false);
  EXPECT_EQ(word(RingMemory::kPendingSend), kS / 4 + 8) << "a longer packet wants more";
  ring.WithdrawSpaceBell();
  EXPECT_EQ(word(RingMemory::kPendingSend), 0u);
}

TEST_P(OutgoingRingTest, RoomForThePacketWithdrawsTheRequest) {
  OutgoingRing ring = RingAt(64, 72);
  ASSERT_EQ(ring.RequestSpaceBell(24), false);
  memory_.set_word(RingMemory::kReadIndex, 88);
  ASSERT_EQ(ring.RequestSpaceBell(24), false) << "16 bytes";
  memory_.set_word(RingMemory::kReadIndex, 96);
  ASSERT_EQ(ring.RequestSpaceBell(24), true) << "24 bytes: enough, though not a quarter";
  EXPECT_EQ(word(RingMemory::kPendingSend), 0u);
  EXPECT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
}

TEST_P(OutgoingRingTest, ASpaceBellForAPacketThatNeverFitsIsRefused) {
  OutgoingRing ring = RingAt(64, 72);
  EXPECT_EQ(ring.RequestSpaceBell(kS - 8).error(), Error::kPacketTooLong);
  EXPECT_EQ(word(RingMemory::kPendingSend), 0u);
  EXPECT_EQ(ring.RequestSpaceBell(kS - 16), false);
  EXPECT_EQ(word(RingMemory::kPendingSend), kS - 16);
}

TEST_P(OutgoingRingTest, CreateSetsTheInitialState) {
  for (std::size_t offset = 0; offset < 0x44; offset += 4) memory_.set_word(offset, 0xFFFFFFFF);
  memory_.set_word(RingMemory::kInterruptMask, 0);
  OutgoingRing ring = OutgoingRing::Create(memory_.pages()).value();
  EXPECT_EQ(word(RingMemory::kWriteIndex), 0u);
  EXPECT_EQ(word(RingMemory::kReadIndex), 0u);
  EXPECT_EQ(word(RingMemory::kPendingSend), 0u);
  EXPECT_EQ(word(RingMemory::kFeatureBits), 1u);
  EXPECT_EQ(word(RingMemory::kInterruptMask), 0u) << "the reader's";
  EXPECT_EQ(ring.Write(InBand({})), WriteOutcome::kWritten);
  EXPECT_EQ(ring.Publish(), Bell::kRing);
}

TEST_P(OutgoingRingTest, AttachGoesOnWhereTheRingStands) {
  memory_.set_word(RingMemory::kPendingSend, 77);
  OutgoingRing ring = RingAt(kS - 24, 48);
  EXPECT_EQ(ring.write_index(), kS - 24);
  EXPECT_EQ(word(RingMemory::kWriteIndex), kS - 24);
  EXPECT_EQ(word(RingMemory::kReadIndex), 48u);
  EXPECT_EQ(word(RingMemory::kPendingSend), 0u);
  EXPECT_EQ(word(RingMemory::kFeatureBits), 1u);
  EXPECT_EQ(ring.Write(InBand(TestBytes(48 + 24 - 8 - 24 + 1))), WriteOutcome::kFull);
  EXPECT_EQ(ring.Write(InBand(TestBytes(48 + 24 - 8 - 24))), WriteOutcome::kWritten);
}

TEST_P(OutgoingRingTest, AttachRefusesIndicesThatNoPeerWrites) {
  for (const std::uint32_t bad : {kS, kS + 8, 4u, 0xFFFFFFFFu}) {
    memory_.set_indices(bad, 0);
    EXPECT_EQ(OutgoingRing::Attach(memory_.pages()).error(), Error::kRingIndexOutOfRange) << bad;
    memory_.set_indices(0, bad);
    EXPECT_EQ(OutgoingRing::Attach(memory_.pages()).error(), Error::kRingIndexOutOfRange) << bad;
    EXPECT_EQ(word(RingMemory::kFeatureBits), 0u) << "refused before anything was promised";
  }
}

TEST(RingPages, OnlyAControlPageAndWholeDataPagesMakeARing) {
  const RingMemory memory(kS, Mapped::kTwice);
  const RingPages good = memory.pages();
  EXPECT_TRUE(CheckGeometry(good).has_value());
  const auto refused = [&](auto change) {
    RingPages pages = good;
    change(pages);
    return CheckGeometry(pages) == std::unexpected(Error::kRingGeometry) &&
           !OutgoingRing::Create(pages).has_value() && !OutgoingRing::Attach(pages).has_value();
  };
  EXPECT_TRUE(refused([](RingPages& p) { p.control = nullptr; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.control += 4; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.data = nullptr; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.data += 1; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.data_bytes = p.mapped_bytes = 0; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.data_bytes = p.mapped_bytes = kS - 8; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.data_bytes = p.mapped_bytes = 0x80000000; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.mapped_bytes = kS + 4096; }));
  EXPECT_TRUE(refused([](RingPages& p) { p.mapped_bytes = 3 * kS; }));
}

}  // namespace
}  // namespace kmcl::ring
