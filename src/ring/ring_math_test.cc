#include "ring/ring_math.h"

#include <gtest/gtest.h>

namespace kmcl::ring {
namespace {

constexpr std::uint32_t kOdd = 3 * 4096;  // not a power of two

TEST(RingMath, AnIndexIsBelowTheDataSizeAndAMultipleOf8) {
  EXPECT_TRUE(IsIndex(0, kOdd));
  EXPECT_TRUE(IsIndex(8, kOdd));
  EXPECT_TRUE(IsIndex(kOdd - 8, kOdd));
  EXPECT_FALSE(IsIndex(kOdd, kOdd));
  EXPECT_FALSE(IsIndex(kOdd + 8, kOdd));
  EXPECT_FALSE(IsIndex(0xFFFFFFF8, kOdd));
  for (std::uint32_t i = 1; i < 8; ++i) EXPECT_FALSE(IsIndex(8 + i, kOdd)) << i;
}

TEST(RingMath, DistanceGoesForwardsAndOverTheEnd) {
  EXPECT_EQ(Distance(0, 0, kOdd), 0u);
  EXPECT_EQ(Distance(16, 48, kOdd), 32u);
  EXPECT_EQ(Distance(0, kOdd - 8, kOdd), kOdd - 8);
  EXPECT_EQ(Distance(kOdd - 8, 0, kOdd), 8u);
  EXPECT_EQ(Distance(48, 16, kOdd), kOdd - 32);
  EXPECT_EQ(Distance(8, 0, kOdd), kOdd - 8);
}

TEST(RingMath, AnEmptyRingHasAllButTheUnusedBytesFree) {
  EXPECT_EQ(FreeBytes(0, 0, kOdd), kOdd - 8);
  EXPECT_EQ(FreeBytes(kOdd - 8, kOdd - 8, kOdd), kOdd - 8);
}

TEST(RingMath, AFullRingHasNothingFreeAndIsNotEmpty) {
  EXPECT_EQ(FreeBytes(kOdd - 8, 0, kOdd), 0u);
  EXPECT_EQ(FreeBytes(0, 8, kOdd), 0u);
  EXPECT_EQ(FreeBytes(4096, 4104, kOdd), 0u);
  EXPECT_EQ(FreeBytes(kOdd - 16, 0, kOdd), 8u) << "one unit short of full";
}

TEST(RingMath, AdvancingToTheEndIsTheBeginning) {
  EXPECT_EQ(Advance(0, 24, kOdd), 24u);
  EXPECT_EQ(Advance(kOdd - 32, 24, kOdd), kOdd - 8) << "last unit";
  EXPECT_EQ(Advance(kOdd - 32, 32, kOdd), 0u) << "exact wrap";
  EXPECT_EQ(Advance(kOdd - 32, 40, kOdd), 8u);
  EXPECT_EQ(Advance(kOdd - 8, kOdd, kOdd), kOdd - 8) << "once around";
}

TEST(RingMath, NothingOverflowsInTheLargestRing) {
  constexpr std::uint32_t kS = kMaximumDataBytes;
  EXPECT_EQ(Advance(kS - 8, kS, kS), kS - 8);
  EXPECT_EQ(Distance(kS - 8, kS - 16, kS), kS - 8);
  EXPECT_EQ(FreeBytes(kS - 16, kS - 8, kS), 0u);
}

TEST(RingMath, DistanceAndAdvanceAgreeEverywhereInASmallRing) {
  constexpr std::uint32_t kS = 4096;
  for (std::uint32_t from = 0; from < kS; from += 8) {
    for (std::uint32_t bytes = 0; bytes < kS; bytes += 8) {
      const std::uint32_t to = Advance(from, bytes, kS);
      ASSERT_EQ(to, (from + bytes) % kS);
      ASSERT_EQ(Distance(from, to, kS), bytes);
    }
  }
}

TEST(RingMath, APacketCountsDescriptorPaddingAndTrailer) {
  EXPECT_EQ(PacketBytes(0, 0), 24u);
  EXPECT_EQ(PacketBytes(0, 1), 32u);
  EXPECT_EQ(PacketBytes(0, 5), 32u) << "the worked example";
  EXPECT_EQ(PacketBytes(0, 8), 32u);
  EXPECT_EQ(PacketBytes(0, 9), 40u);
  EXPECT_EQ(PacketBytes(24, 9), 64u);
}

TEST(RingMath, TheLongestPacketIsBoundByTheRingAndByLength8) {
  EXPECT_EQ(MaximumPacketBytes(4096), 4096u - 16);
  EXPECT_EQ(MaximumPacketBytes(128 * 4096), 128u * 4096 - 16) << "524272: still the ring";
  EXPECT_EQ(MaximumPacketBytes(129 * 4096), 524280u + 8);
  EXPECT_EQ(MaximumPacketBytes(kMaximumDataBytes), 524280u + 8);
}

}  // namespace
}  // namespace kmcl::ring
