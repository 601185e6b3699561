#include "wire/version.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <set>
#include <string>

#include "wire/interrupt_page.h"
#include "wire/monitor_page.h"

namespace kmcl::wire {
namespace {

TEST(Version, ListsAllElevenNewestFirst) {
  EXPECT_EQ(kVersionsNewestFirst.size(), 11u);
  EXPECT_TRUE(std::ranges::is_sorted(kVersionsNewestFirst, std::greater<>()));
  std::set<std::string> names;
  for (const Version version : kVersionsNewestFirst) {
    EXPECT_TRUE(IsKnown(version));
    names.insert(NameOf(version));
  }
  EXPECT_EQ(names.size(), 11u);
  EXPECT_FALSE(names.contains("unknown"));
}

TEST(Version, IsMatchedExactly) {
  for (const std::uint32_t number :
       {0u, 0x0000000Cu, 0x0000000Eu, 0x00010000u, 0x00020003u, 0x00030001u, 0x00040002u,
        0x00050004u, 0x00060001u, 0x00070000u, 0xFFFFFFFFu}) {
    EXPECT_FALSE(IsKnown(static_cast<Version>(number))) << number;
    EXPECT_STREQ(NameOf(static_cast<Version>(number)), "unknown");
  }
}

TEST(Version, SplitsIntoMajorAndMinor) {
  EXPECT_EQ(MajorOf(Version::kIron), 5u);
  EXPECT_EQ(MinorOf(Version::kIron), 3u);
  EXPECT_EQ(MajorOf(Version::kV1), 0u);
  EXPECT_EQ(MinorOf(Version::kV1), 13u);
}

TEST(Version, BringsWhatTheTableSays) {
  struct Row {
    bool (*has)(Version);
    std::uint32_t since;
  };
  const Row rows[] = {
      {HasDedicatedConnections, 0x00010001},
      {HasEventFlagPerChannel, 0x00020004},
      {HasConnectionState, 0x00020004},
      {HonoursTargetMessageVp, 0x00030000},
      {HasReservedChannels, 0x00040000},
      {HasTlConnect, 0x00040000},
      {HasTlConnectResult, 0x00040001},
      {HasModifyChannel, 0x00040001},
      {HasMessageConnectionId, 0x00050000},
      {HasTargetVtl, 0x00050001},
      {HasSiloId, 0x00050002},
      {HasModifyChannelResponse, 0x00050003},
      {HasFeatureFlags, 0x00060000},
  };
  for (const Row& row : rows) {
    for (const Version version : kVersionsNewestFirst) {
      EXPECT_EQ(row.has(version), static_cast<std::uint32_t>(version) >= row.since)
          << NameOf(version) << " " << row.since;
    }
  }
}

TEST(Version, LimitsChannelIdsWhereTheInterruptPageIsScanned) {
  EXPECT_EQ(MaximumChannelId(Version::kV1), 255u);
  EXPECT_EQ(MaximumChannelId(Version::kWin7), 255u);
  EXPECT_EQ(MaximumChannelId(Version::kWin8), 2047u);
  EXPECT_EQ(MaximumChannelId(Version::kCopper), 2047u);
}

TEST(FeatureFlags, AreASet) {
  const FeatureFlags two = Feature::kClientId | Feature::kPauseResume;
  EXPECT_EQ(two.bits(), 0x28u);
  EXPECT_TRUE(two.Has(Feature::kClientId));
  EXPECT_FALSE(two.Has(Feature::kGpaPinning));
  EXPECT_TRUE(two.HasAll({}));
  EXPECT_TRUE(two.HasAll(two));
  EXPECT_FALSE(two.HasAll(two | Feature::kGpaPinning));
  EXPECT_EQ(two.Without(Feature::kClientId), FeatureFlags(Feature::kPauseResume));
  EXPECT_EQ(two & FeatureFlags(0x21), FeatureFlags(0x20));
  EXPECT_TRUE(FeatureFlags().empty());
}

TEST(FeatureFlags, LoseUnknownBitsToTheKnownOnes) {
  EXPECT_EQ(FeatureFlags(0xFFFFFFFF) & kKnownFeatures, FeatureFlags(0xFF));
}

}  // namespace
}  // namespace kmcl::wire
