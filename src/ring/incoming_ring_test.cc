#include "ring/incoming_ring.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "ring/ring_model.h"
#include "ring/ring_test_memory.h"

namespace kmcl::ring {
namespace {

constexpr std::uint32_t kS = 3 * 4096;

class IncomingRingTest : public testing::TestWithParam<Mapped> {
 protected:
  IncomingRing RingAt(std::uint32_t index) { return RingAt(index, index); }
  IncomingRing RingAt(std::uint32_t write, std::uint32_t read) {
    memory_.set_indices(write, read);
    return IncomingRing::Attach(memory_.pages()).value();
  }
  // Puts one packet behind the write index in the page, as a peer would.
  void Put(const ModelPacket& packet) {
    ModelWriter writer(memory_.pages());
    ASSERT_TRUE(writer.Put(packet));
    writer.Publish();
  }
  void Put(std::size_t payload_bytes) {
    Put(ModelPacket{.type = 6, .transaction_id = 5, .payload = TestBytes(payload_bytes)});
  }
  Result<std::optional<IncomingPacket>> Read(IncomingRing& ring) { return ring.Read(buffer_); }
  std::uint32_t word(std::size_t offset) const { return memory_.word(offset); }

  RingMemory memory_{kS, GetParam()};
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kS);
};

INSTANTIATE_TEST_SUITE_P(, IncomingRingTest, testing::Values(Mapped::kOnce, Mapped::kTwice),
                         [](const auto& param) {
                           return param.param == Mapped::kOnce ? "MappedOnce" : "MappedTwice";
                         });

std::vector<std::byte> Copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

TEST_P(IncomingRingTest, TheWorkedExampleIsReadFromItsBytes) {
  IncomingRing ring = RingAt(0);
  EXPECT_TRUE(ring.Empty());
  EXPECT_EQ(Read(ring).value(), std::nullopt);
  memory_.set_bytes(0, {0x06, 0,    2,    0,    3,    0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                        0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  memory_.set_word(RingMemory::kWriteIndex, 0x20);
  EXPECT_FALSE(ring.Empty());
  const auto packet = Read(ring).value();
  ASSERT_TRUE(packet.has_value());
  EXPECT_EQ(packet->type, wire::PacketType::kDataInBand);
  EXPECT_EQ(packet->flags, 1);
  EXPECT_EQ(packet->transaction_id, 1u);
  EXPECT_TRUE(packet->header.empty());
  const std::byte padded[] = {std::byte{0xAA}, std::byte{0xBB}, std::byte{0xCC}, std::byte{0xDD},
                              std::byte{0xEE}, std::byte{0},    std::byte{0},    std::byte{0}};
  EXPECT_EQ(Copy(packet->payload), Copy(padded));
  EXPECT_EQ(Read(ring).value(), std::nullopt);
  EXPECT_EQ(word(RingMemory::kReadIndex), 0u) << "not released yet";
  EXPECT_EQ(ring.unreleased_bytes(), 0x20u);
  EXPECT_EQ(ring.Release(), Bell::kNone);
  EXPECT_EQ(word(RingMemory::kReadIndex), 0x20u);
}

// What is not plain stays where it is, for the way that judges everything.
TEST(IncomingRingPlainTest, TakesPlainPacketsAndLeavesTheOthers) {
  using Plain = IncomingRing::Plain;
  RingMemory memory(kS, Mapped::kTwice);
  std::vector<std::byte> buffer(kS);
  const auto at = [&](std::uint32_t index, const ModelPacket& packet) {
    memory.set_indices(index, index);
    IncomingRing ring = IncomingRing::Attach(memory.pages()).value();
    ModelWriter writer(memory.pages());
    EXPECT_TRUE(writer.Put(packet));
    writer.Publish();
    return ring;
  };
  PlainPacket plain;
  for (std::uint32_t back = 0; back <= 96; back += 8) {
    const ModelPacket sent{.type = 6, .flags = 1, .transaction_id = 77, .payload = TestBytes(61)};
    IncomingRing ring = at((kS - back) % kS, sent);
    ASSERT_EQ(ring.ReadPlain(buffer.data(), 56, plain), Plain::kOther) << "too long for the buffer";
    ASSERT_EQ(ring.ReadPlain(buffer.data(), 64, plain), Plain::kRead);
    EXPECT_FALSE(plain.is_completion);
    EXPECT_TRUE(plain.wants_completion);
    EXPECT_EQ(plain.transaction_id, 77u);
    ASSERT_EQ(plain.payload_bytes, 64u);
    std::vector<std::byte> padded = sent.payload;
    padded.resize(64);
    EXPECT_EQ(Copy({buffer.data(), 64}), padded);
    EXPECT_EQ(ring.ReadPlain(buffer.data(), 64, plain), Plain::kEmpty);
  }
  {
    IncomingRing ring = at(0, {.type = 0xB, .transaction_id = 5, .payload = {}});
    ASSERT_EQ(ring.ReadPlain(buffer.data(), 64, plain), Plain::kRead);
    EXPECT_TRUE(plain.is_completion);
    EXPECT_EQ(plain.payload_bytes, 0u);
  }
  for (const ModelPacket& other :
       {ModelPacket{.type = 9, .header = TestBytes(8), .payload = TestBytes(8)},
        ModelPacket{.type = 6, .header = TestBytes(8), .payload = TestBytes(8)},
        ModelPacket{.type = 7, .payload = TestBytes(8)}}) {
    IncomingRing ring = at(8, other);
    ASSERT_EQ(ring.ReadPlain(buffer.data(), 64, plain), Plain::kOther);
    const auto packet = ring.Read(buffer).value();
    ASSERT_TRUE(packet.has_value());
    EXPECT_EQ(Copy(packet->payload), TestBytes(8));
  }
  // Broken: the general way says how.
  const struct {
    std::initializer_list<unsigned> first_word;
    Error error;
  } broken[] = {
      {{6, 0, 2, 0, 1, 0, 0, 0}, Error::kPacketOffsetOutOfRange},
      {{6, 0, 2, 0, 4, 0, 0, 0}, Error::kPacketLengthOutOfRange},
      {{6, 0, 2, 0, 0xFF, 0xFF, 0, 0}, Error::kPacketLengthOutOfRange},
      {{6, 0, 2, 0, 3, 0, 2, 0}, Error::kPacketFlagsUnknown},
      {{0x0E, 0, 2, 0, 3, 0, 0, 0}, Error::kPacketTypeUnknown},
  };
  for (const auto& each : broken) {
    IncomingRing ring = at(0, {.type = 6, .payload = TestBytes(8)});
    memory.set_bytes(0, each.first_word);
    EXPECT_EQ(ring.ReadPlain(buffer.data(), kS, plain), Plain::kOther);
    EXPECT_EQ(ring.Read(buffer).error(), each.error);
    EXPECT_EQ(ring.ReadPlain(buffer.data(), kS, plain), Plain::kOther) << "and it is final";
  }
  IncomingRing ring = at(0, {.type = 6, .payload = TestBytes(8)});
  memory.set_word(RingMemory::kWriteIndex, kS);
  EXPECT_EQ(ring.ReadPlain(buffer.data(), kS, plain), Plain::kOther);
  EXPECT_EQ(ring.Read(buffer).error(), Error::kRingIndexOutOfRange);
}

TEST_P(IncomingRingTest, EveryPayloadLengthIsReadWholeAtEveryPlaceOfTheWrap) {
  for (std::uint32_t back = 0; back <= 96; back += 8) {
    for (std::size_t length = 0; length <= 72; ++length) {
      IncomingRing ring = RingAt((kS - back) % kS);
      const ModelPacket sent{.type = 0xB, .transaction_id = length, .payload = TestBytes(length)};
      Put(sent);
      const auto packet = Read(ring).value();
      ASSERT_TRUE(packet.has_value());
      std::vector<std::byte> padded = sent.payload;
      padded.resize((length + 7) / 8 * 8);
      ASSERT_EQ(Copy(packet->payload), padded) << back << " " << length;
      ASSERT_EQ(packet->transaction_id, length);
      EXPECT_EQ(ring.Release(), Bell::kNone);
      ASSERT_EQ(word(RingMemory::kReadIndex), word(RingMemory::kWriteIndex));
    }
  }
}

TEST_P(IncomingRingTest, LongPacketsAreReadOverTheEnd) {
  for (const std::uint32_t start : {kS - 8, kS - 16, kS - 24, kS - 512, kS - 3000, kS - 6000}) {
    IncomingRing ring = RingAt(start);
    Put(5000);
    const auto packet = Read(ring).value();
    ASSERT_TRUE(packet.has_value());
    EXPECT_EQ(Copy(packet->payload), TestBytes(5000)) << start;
  }
}

TEST_P(IncomingRingTest, HeaderAndPayloadAreToldApart) {
  IncomingRing ring = RingAt(kS - 32);
  // A GPA direct packet with one range of one page.
  const ModelPacket sent{.type = 9,
                         .flags = 1,
                         .transaction_id = 0x8000000000000001,
                         .header = TestBytes(24, 0x20),
                         .payload = TestBytes(16, 0x80)};
  Put(sent);
  const auto packet = Read(ring).value();
  ASSERT_TRUE(packet.has_value());
  EXPECT_EQ(packet->transaction_id, sent.transaction_id);
  EXPECT_EQ(Copy(packet->header), sent.header);
  EXPECT_EQ(Copy(packet->payload), sent.payload);
  EXPECT_EQ(packet->header.data(), buffer_.data()) << "in the caller's buffer";
}

TEST_P(IncomingRingTest, APacketMayFillTheRingToTheLastUsableByte) {
  IncomingRing ring = RingAt(4096);
  Put(kS - 8 - 24);
  EXPECT_EQ(word(RingMemory::kWriteIndex), 4096u - 8);
  const auto packet = Read(ring).value();
  ASSERT_TRUE(packet.has_value());
  EXPECT_EQ(Copy(packet->payload), TestBytes(kS - 8 - 24));
  EXPECT_TRUE(ring.release_due());
}

TEST_P(IncomingRingTest, ReleaseIsDueFromAnEighthOfTheRing) {
  IncomingRing ring = RingAt(0);
  Put(kS / 8 - 24 - 8);
  ASSERT_TRUE(Read(ring).value().has_value());
  EXPECT_FALSE(ring.release_due());
  Put(0);
  ASSERT_TRUE(Read(ring).value().has_value());
  EXPECT_TRUE(ring.release_due());
  EXPECT_EQ(ring.Release(), Bell::kNone);
  EXPECT_FALSE(ring.release_due());
}

TEST_P(IncomingRingTest, PeekTellsAnEmptyPacketFromAnEmptyRing) {
  IncomingRing ring = RingAt(kS - 8);
  EXPECT_EQ(ring.PeekBytes().value(), std::nullopt);
  Put(0);
  EXPECT_EQ(ring.PeekBytes().value(), 0u);
  EXPECT_TRUE(Read(ring).value().has_value());
  Put(ModelPacket{.type = 9, .header = TestBytes(24), .payload = TestBytes(5)});
  EXPECT_EQ(ring.PeekBytes().value(), 32u);
  EXPECT_EQ(ring.PeekBytes().value(), 32u);
  EXPECT_TRUE(ring.Read(std::span(buffer_).first(32)).value().has_value()) << "and no more";
}

TEST_P(IncomingRingTest, APeekedDescriptorIsNotFetchedAgain) {
  IncomingRing ring = RingAt(kS - 8);
  Put(16);
  ASSERT_EQ(ring.PeekBytes().value(), 16u);
  memory_.set_bytes(kS - 8, {0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF});
  const auto packet = Read(ring).value();
  ASSERT_TRUE(packet.has_value());
  EXPECT_EQ(packet->type, wire::PacketType::kDataInBand);
  EXPECT_EQ(packet->transaction_id, 5u);
  EXPECT_EQ(Copy(packet->payload), TestBytes(16));
}

TEST_P(IncomingRingTest, ASmallBufferIsFinal) {
  IncomingRing ring = RingAt(0);
  Put(16);
  EXPECT_EQ(ring.Read(std::span(buffer_).first(15)).error(), Error::kPacketTooLong);
  EXPECT_EQ(Read(ring).error(), Error::kPacketTooLong);
}

TEST_P(IncomingRingTest, OurOwnWordsAreNeverReadBack) {
  IncomingRing ring = RingAt(0);
  Put(8);
  memory_.set_word(RingMemory::kReadIndex, 0xFFFFFFFF);
  EXPECT_TRUE(Read(ring).value().has_value());
  EXPECT_EQ(ring.unreleased_bytes(), 32u);
  EXPECT_EQ(ring.Release(), Bell::kNone);
  EXPECT_EQ(word(RingMemory::kReadIndex), 32u);
}

TEST_P(IncomingRingTest, AWriteIndexThatNoWriterWritesIsFinal) {
  const std::pair<std::uint32_t, const char*> hostile[] = {
      {kS, "the size"},    {kS + 8, "beyond the size"}, {0xFFFFFFF8, "far beyond"},
      {28, "no multiple"}, {16, "in what was read"},    {0, "in what was read"},
  };
  for (const auto& [index, what] : hostile) {
    IncomingRing ring = RingAt(kS - 8);
    Put(0);  // to 16
    ASSERT_TRUE(Read(ring).value().has_value());
    Put(0);  // to 40
    ASSERT_TRUE(Read(ring).value().has_value());
    memory_.set_word(RingMemory::kWriteIndex, index);
    EXPECT_FALSE(ring.Empty()) << what;
    EXPECT_EQ(Read(ring).error(), Error::kRingIndexOutOfRange) << what;
    memory_.set_word(RingMemory::kWriteIndex, 40);  // mended: too late
    EXPECT_EQ(Read(ring).error(), Error::kRingIndexOutOfRange) << what;
    EXPECT_EQ(ring.PeekBytes().error(), Error::kRingIndexOutOfRange) << what;
    EXPECT_EQ(ring.UnmaskAndCheck().error(), Error::kRingIndexOutOfRange) << what;
    EXPECT_FALSE(ring.Empty());
    EXPECT_EQ(ring.Release(), Bell::kNone);
    EXPECT_EQ(word(RingMemory::kReadIndex), kS - 8) << "leaves the page alone";
    EXPECT_EQ(word(RingMemory::kInterruptMask), 1u);
  }
}

TEST_P(IncomingRingTest, FewerBytesThanADescriptorAreCorrupt) {
  IncomingRing ring = RingAt(0);
  memory_.set_word(RingMemory::kWriteIndex, 8);
  EXPECT_EQ(Read(ring).error(), Error::kPacketLengthOutOfRange);
}

TEST_P(IncomingRingTest, EveryDescriptorRuleIsAFinalError) {
  struct Case {
    unsigned type, data_offset8, length8, flags;
    Error error;
  };
  // The ring holds 48 bytes: length8 5 is the longest that fits with its trailer.
  const Case cases[] = {
      {0x0000, 2, 5, 0, Error::kPacketTypeUnknown},
      {0x000E, 2, 5, 0, Error::kPacketTypeUnknown},
      {0xFFFF, 2, 5, 0, Error::kPacketTypeUnknown},
      {0x0006, 2, 5, 2, Error::kPacketFlagsUnknown},
      {0x0006, 2, 5, 0x8000, Error::kPacketFlagsUnknown},
      {0x0006, 0, 5, 0, Error::kPacketOffsetOutOfRange},
      {0x0006, 1, 5, 0, Error::kPacketOffsetOutOfRange},
      {0x0006, 6, 5, 0, Error::kPacketOffsetOutOfRange},
      {0x0006, 0xFFFF, 5, 0, Error::kPacketOffsetOutOfRange},
      {0x0006, 2, 6, 0, Error::kPacketLengthOutOfRange},
      {0x0006, 2, 0xFFFF, 0, Error::kPacketLengthOutOfRange},
  };
  for (const Case& c : cases) {
    for (const std::uint32_t start : {0u, kS - 8, kS - 16}) {
      IncomingRing ring = RingAt((start + 48) % kS, start);
      memory_.set_bytes(
          start, {c.type & 0xFF, c.type >> 8, c.data_offset8 & 0xFF, c.data_offset8 >> 8,
                  c.length8 & 0xFF, c.length8 >> 8, c.flags & 0xFF, c.flags >> 8, 1, 0, 0, 0, 0});
      EXPECT_EQ(Read(ring).error(), c.error) << c.type << " " << c.data_offset8 << " " << c.length8;
      memory_.set_bytes(start, {6, 0, 2, 0, 5, 0, 0, 0});  // mended: too late
      EXPECT_EQ(Read(ring).error(), c.error);
    }
  }
}

// --- the bell for space: signal iff free(before) < wanted <= free(after).

class ReleaseBellTest : public IncomingRingTest {
 protected:
  // A ring with `used` bytes in it, of which the next Release gives back `given`.
  Bell ReleaseWith(std::uint32_t used, std::uint32_t given, std::uint32_t pending,
                   std::uint32_t feature_bits = 1) {
    memory_.set_word(RingMemory::kFeatureBits, feature_bits);
    IncomingRing ring = RingAt(kS - 24);
    Put(given - 24);
    if (used > given) Put(used - given - 24);
    memory_.set_word(RingMemory::kPendingSend, pending);
    EXPECT_TRUE(Read(ring).value().has_value());
    return ring.Release();
  }
};

INSTANTIATE_TEST_SUITE_P(, ReleaseBellTest, testing::Values(Mapped::kOnce, Mapped::kTwice),
                         [](const auto& param) {
                           return param.param == Mapped::kOnce ? "MappedOnce" : "MappedTwice";
                         });

TEST_P(ReleaseBellTest, RingsForTheStepFromTooLittleToEnough) {
  // 1000 bytes used, 200 given back: free goes from S - 1008 to S - 808.
  EXPECT_EQ(ReleaseWith(1000, 200, kS - 808), Bell::kRing) << "just enough";
  EXPECT_EQ(ReleaseWith(1000, 200, kS - 800), Bell::kNone) << "one unit short";
  EXPECT_EQ(ReleaseWith(1000, 200, kS - 1000), Bell::kRing) << "was one unit short";
  EXPECT_EQ(ReleaseWith(1000, 200, kS - 1008), Bell::kNone) << "was enough before";
}

TEST_P(ReleaseBellTest, RingsWhenADrainedRingIsWanted) {
  EXPECT_EQ(ReleaseWith(kS - 8, kS - 8, kS - 8), Bell::kRing);
  EXPECT_EQ(ReleaseWith(kS - 8, kS - 8, 8), Bell::kRing);
}

TEST_P(ReleaseBellTest, OddRequestsAreRoundedDown) {
  EXPECT_EQ(ReleaseWith(kS - 8, kS - 8, kS - 1), Bell::kRing) << "S - 1 means S - 8";
  EXPECT_EQ(ReleaseWith(kS - 8, kS - 8, 7), Bell::kNone) << "7 means nothing";
}

TEST_P(ReleaseBellTest, NothingWantedOrPromisedIsSilent) {
  EXPECT_EQ(ReleaseWith(1000, 200, 0), Bell::kNone);
  EXPECT_EQ(ReleaseWith(1000, 200, kS - 808, 0), Bell::kNone) << "no feature bit";
  EXPECT_EQ(ReleaseWith(1000, 200, kS - 808, 0xFFFFFFFE), Bell::kNone) << "other bits";
  EXPECT_EQ(ReleaseWith(1000, 200, 0xFFFFFFFF), Bell::kNone) << "more than the ring";
}

TEST_P(ReleaseBellTest, TheMaskHasNoPartInIt) {
  memory_.set_word(RingMemory::kInterruptMask, 1);
  EXPECT_EQ(ReleaseWith(1000, 200, kS - 808), Bell::kRing);
}

TEST_P(ReleaseBellTest, ARequestThatStaysCostsOneBellEachTimeItIsMet) {
  memory_.set_word(RingMemory::kFeatureBits, 1);
  IncomingRing ring = RingAt(0);
  memory_.set_word(RingMemory::kPendingSend, kS / 2);
  int bell_count = 0;
  for (int round = 0; round < 3; ++round) {
    while (FreeBytes(word(RingMemory::kWriteIndex), word(RingMemory::kReadIndex), kS) >= 104) {
      Put(80);
    }
    while (Read(ring).value().has_value()) {
      if (ring.Release() == Bell::kRing) ++bell_count;
    }
  }
  EXPECT_EQ(bell_count, 3);
}

TEST_P(ReleaseBellTest, AHostileWriteIndexIsSilentAndReportedByTheNextRead) {
  memory_.set_word(RingMemory::kFeatureBits, 1);
  IncomingRing ring = RingAt(0);
  Put(80);
  memory_.set_word(RingMemory::kPendingSend, kS - 8);
  ASSERT_TRUE(Read(ring).value().has_value());
  memory_.set_word(RingMemory::kWriteIndex, 0xFFFFFFF0);
  EXPECT_EQ(ring.Release(), Bell::kNone);
  EXPECT_EQ(Read(ring).error(), Error::kRingIndexOutOfRange);
}

// --- masking

TEST_P(IncomingRingTest, ARingStartsMaskedAndIsUnmaskedBeforeSleeping) {
  IncomingRing ring = RingAt(0);
  EXPECT_EQ(word(RingMemory::kInterruptMask), 1u);
  EXPECT_EQ(ring.UnmaskAndCheck(), true);
  EXPECT_EQ(word(RingMemory::kInterruptMask), 0u);
  ring.Mask();
  EXPECT_EQ(word(RingMemory::kInterruptMask), 1u);
}

TEST_P(IncomingRingTest, PacketsThatCameMeanwhileForbidSleeping) {
  IncomingRing ring = RingAt(0);
  EXPECT_EQ(Read(ring).value(), std::nullopt);
  Put(8);
  EXPECT_EQ(ring.UnmaskAndCheck(), false);
  ring.Mask();
  EXPECT_EQ(word(RingMemory::kInterruptMask), 1u);
  EXPECT_TRUE(Read(ring).value().has_value());
}

TEST_P(IncomingRingTest, AMaskSetBySomebodyElseIsClearedBeforeSleeping) {
  IncomingRing ring = RingAt(0);
  EXPECT_EQ(ring.UnmaskAndCheck(), true);
  memory_.set_word(RingMemory::kInterruptMask, 1);  // a kernel driver does this with each interrupt
  EXPECT_EQ(ring.UnmaskAndCheck(), true);
  EXPECT_EQ(word(RingMemory::kInterruptMask), 0u);
}

TEST_P(IncomingRingTest, CreateSetsTheInitialState) {
  for (std::size_t offset = 0; offset < 0x44; offset += 4) memory_.set_word(offset, 0xFFFFFFFF);
  IncomingRing ring = IncomingRing::Create(memory_.pages()).value();
  EXPECT_EQ(word(RingMemory::kWriteIndex), 0u);
  EXPECT_EQ(word(RingMemory::kReadIndex), 0u);
  EXPECT_EQ(word(RingMemory::kInterruptMask), 1u);
  EXPECT_EQ(word(RingMemory::kPendingSend), 0u);
  EXPECT_EQ(word(RingMemory::kFeatureBits), 1u);
  EXPECT_TRUE(ring.Empty());
  EXPECT_TRUE(ring.peer_promises_space_bells());
}

TEST_P(IncomingRingTest, AttachGoesOnWhereTheRingStands) {
  memory_.set_indices(64, 64);
  Put(8);
  IncomingRing ring = IncomingRing::Attach(memory_.pages()).value();
  EXPECT_FALSE(ring.peer_promises_space_bells());
  EXPECT_EQ(word(RingMemory::kInterruptMask), 1u);
  EXPECT_EQ(Copy(Read(ring).value()->payload), TestBytes(8));
  for (const std::uint32_t bad : {kS, kS + 8, 4u, 0xFFFFFFFFu}) {
    memory_.set_indices(bad, 0);
    EXPECT_EQ(IncomingRing::Attach(memory_.pages()).error(), Error::kRingIndexOutOfRange) << bad;
    memory_.set_indices(0, bad);
    EXPECT_EQ(IncomingRing::Attach(memory_.pages()).error(), Error::kRingIndexOutOfRange) << bad;
  }
}

}  // namespace
}  // namespace kmcl::ring
