#include "transport/kvm/reference_clock.h"

#include <gtest/gtest.h>

#include "transport/kvm/guest_test_support.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kHertz = 2'500'000'000;
constexpr std::uint64_t kTicks = kHertz / 10'000'000;  // in 100 ns
constexpr std::uint64_t kMinute = 600'000'000;

TEST(ReferenceClock, IsTheProcessorsCounterWhereThatGoesAtOneRate) {
  FakeHardware hardware;
  hardware.time_stamp = 1000 * kTicks;
  ReferenceClock clock(hardware);
  clock.Start(kHertz, true);
  EXPECT_EQ(clock.tsc_hertz(), kHertz);
  EXPECT_NEAR(static_cast<double>(clock.Read(0)), 1000, 1);
  hardware.time_stamp = 5'000'000 * kTicks;
  EXPECT_NEAR(static_cast<double>(clock.Read(3)), 5'000'000, 1);
  // What a guest computes: the counter times the scale, without the lower 64 bits.
  __extension__ using Wide = unsigned __int128;
  EXPECT_EQ(clock.Read(0),
            static_cast<std::uint64_t>(Wide{hardware.time_stamp} * clock.tsc_scale() >> 64));
}

TEST(ReferenceClock, TheHostGoesOnFromWhatWasReadLast) {
  FakeHardware hardware;
  hardware.time_stamp = 1000 * kTicks;
  ReferenceClock clock(hardware);
  clock.Start(kHertz, true);
  const std::uint64_t first = clock.Now();
  EXPECT_GE(first, 999u);
  EXPECT_LT(first, 1000 + kMinute);
  std::uint64_t later = first;
  while (later == first) later = clock.Now();
  EXPECT_GT(later, first);

  // Not at once; but after the counters were set, at the next exit.
  hardware.time_stamp = 1'000'000'000'000 * kTicks;
  clock.Follow(0);
  EXPECT_LT(clock.Now(), 1'000'000'000'000u);
  clock.Forget();
  clock.Follow(0);
  EXPECT_GE(clock.Now() + 1, 1'000'000'000'000u);
  EXPECT_LT(clock.Now(), 1'000'000'000'000u + kMinute);
}

TEST(ReferenceClock, IsTheHostsClockWhereTheCountersGoAtNoOneRate) {
  FakeHardware hardware;
  hardware.time_stamp = 1'000'000'000'000 * kTicks;
  ReferenceClock clock(hardware);
  clock.Start(kHertz, false);
  const std::uint64_t before = clock.Now();
  const std::uint64_t read = clock.Read(0);
  EXPECT_LE(before, read);
  EXPECT_LE(read, clock.Now());
  EXPECT_LT(read, kMinute);
}

}  // namespace
}  // namespace kmcl::transport::kvm
