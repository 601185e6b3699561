#include "endpoint/monitor_page.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

namespace kmcl::endpoint {
namespace {

class MonitorPageTest : public testing::Test {
 protected:
  static std::byte* NewPage() {
    return static_cast<std::byte*>(mmap(nullptr, wire::kPageBytes, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }

  std::byte* const bytes = NewPage();  // the page unmaps it
  MonitorPage page{transport::Mapping(bytes, wire::kPageBytes)};
};

TEST_F(MonitorPageTest, ABitIsTakenOnceAndStandsWhereTheFormatHasIt) {
  for (unsigned monitor = 0; monitor < wire::kMonitorCount; ++monitor) {
    const auto id = static_cast<std::uint8_t>(monitor);
    EXPECT_FALSE(page.TakePending(id));
    page.SetPending(id);
    const auto* raw = reinterpret_cast<const wire::MonitorPage*>(bytes);
    EXPECT_EQ(raw->trigger_groups[monitor / 32].pending, 1u << monitor % 32);
    EXPECT_FALSE(page.TakePending(static_cast<std::uint8_t>((monitor + 1) % 128)));
    EXPECT_TRUE(page.TakePending(id));
    EXPECT_FALSE(page.TakePending(id));
  }
}

TEST_F(MonitorPageTest, ALatencyStandsWhereTheFormatHasIt) {
  page.SetLatency(127, 0xABCD);
  page.SetLatency(0, 1);
  const auto* raw = reinterpret_cast<const wire::MonitorPage*>(bytes);
  EXPECT_EQ(raw->latency[3][31], 0xABCD);
  EXPECT_EQ(raw->latency[0][0], 1);
  EXPECT_EQ(page.latency(127), 0xABCD);
}

TEST_F(MonitorPageTest, WhateverThePageHoldsTheServerLooksAtItsOwnPace) {
  std::memset(bytes, 0xFF, wire::kPageBytes);
  for (unsigned monitor = 0; monitor < wire::kMonitorCount; ++monitor) {
    const auto id = static_cast<std::uint8_t>(monitor);
    EXPECT_EQ(MonitorPage::IntervalOf(page.latency(id)), std::chrono::nanoseconds(6'553'500));
    EXPECT_TRUE(page.TakePending(id));
    EXPECT_FALSE(page.TakePending(id));
  }
  EXPECT_EQ(MonitorPage::IntervalOf(1), MonitorPage::kShortestCheck);
}

TEST(MonitorPage, AClientThatDoesNotSayIsLookedAtLessAndLessOften) {
  using namespace std::chrono_literals;
  EXPECT_EQ(MonitorPage::UnannouncedInterval(0ns), 100us);
  EXPECT_EQ(MonitorPage::UnannouncedInterval(400us), 100us);
  EXPECT_EQ(MonitorPage::UnannouncedInterval(4ms), 1ms);
  EXPECT_EQ(MonitorPage::UnannouncedInterval(8ms), 2ms);
  EXPECT_EQ(MonitorPage::UnannouncedInterval(24h), 2ms);
}

}  // namespace
}  // namespace kmcl::endpoint
