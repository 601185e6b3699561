#include "cli/latency_histogram.h"

#include <gtest/gtest.h>

namespace kmcl::cli {
namespace {

TEST(LatencyHistogram, HasNothingToSayWhenNothingWasRecorded) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.Percentile(0.5), 0u);
  EXPECT_EQ(histogram.Draw(40), "");
}

TEST(LatencyHistogram, IsExactForSmallValues) {
  LatencyHistogram histogram;
  for (std::uint64_t value = 1; value <= 100; ++value) {
    histogram.Record(value <= 50 ? value : 63);
  }
  EXPECT_EQ(histogram.Percentile(0.01), 1u);
  EXPECT_EQ(histogram.Percentile(0.5), 50u);
  EXPECT_EQ(histogram.Percentile(0.51), 63u);
  EXPECT_EQ(histogram.maximum(), 63u);
}

TEST(LatencyHistogram, IsAtMostOnePartInSixtyFourOffForAnyValue) {
  for (std::uint64_t value = 1; value < (std::uint64_t{1} << 62); value = value * 3 + 1) {
    LatencyHistogram histogram;
    histogram.Record(value);
    histogram.Record(UINT64_MAX);
    const std::uint64_t seen = histogram.Percentile(0.5);
    EXPECT_GE(seen, value);
    EXPECT_LE(seen - value, value / 64);
  }
}

TEST(LatencyHistogram, NeverExceedsTheMaximum) {
  LatencyHistogram histogram;
  histogram.Record(1000);
  EXPECT_EQ(histogram.Percentile(0.999), 1000u);
  EXPECT_EQ(histogram.minimum(), 1000u);
}

TEST(LatencyHistogram, DrawsALineForEachOctaveBetweenTheExtremes) {
  LatencyHistogram histogram;
  histogram.Record(10);   // 8 to 16
  histogram.Record(100);  // 64 to 128
  histogram.Record(100);
  const std::string drawing = histogram.Draw(8);
  EXPECT_EQ(std::count(drawing.begin(), drawing.end(), '\n'), 4);
  EXPECT_NE(drawing.find("████████\n"), std::string::npos);  // the most frequent fills the columns
  EXPECT_NE(drawing.find("████\n"), std::string::npos);
}

}  // namespace
}  // namespace kmcl::cli
