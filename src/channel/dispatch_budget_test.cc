#include "channel/dispatch_budget.h"

#include <gtest/gtest.h>

namespace kmcl::channel {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

class DispatchBudgetTest : public testing::Test {
 protected:
  bool Begin(std::uint32_t percent) { return budget.Begin(percent, now); }
  bool Spend(microseconds time) { return budget.Charge(now += time); }

  DispatchBudget budget;
  DispatchBudget::Clock::time_point now = DispatchBudget::Clock::time_point{} + milliseconds(1000);
};

TEST_F(DispatchBudgetTest, AShareOfThePeriodMayBeSpentAtOnce) {
  EXPECT_FALSE(Begin(10));  // 1 ms
  EXPECT_FALSE(Spend(microseconds(600)));
  EXPECT_FALSE(Spend(microseconds(399)));
  EXPECT_TRUE(Spend(microseconds(1)));
}

TEST_F(DispatchBudgetTest, ADebtIsMadeUpForAtTheSharesRate) {
  EXPECT_FALSE(Begin(10));
  EXPECT_TRUE(Spend(milliseconds(2)));  // 1 ms of debt, 0.2 ms of it made up for by the same 2 ms
  now += milliseconds(8);
  EXPECT_TRUE(Begin(10));
  now += microseconds(10);
  EXPECT_FALSE(Begin(10));
}

TEST_F(DispatchBudgetTest, UnusedTimeIsKeptForOnePeriodOnly) {
  EXPECT_FALSE(Begin(50));
  now += std::chrono::hours(100'000);
  EXPECT_FALSE(Begin(50));
  EXPECT_FALSE(Spend(microseconds(4'999)));
  EXPECT_TRUE(Spend(microseconds(1)));
}

}  // namespace
}  // namespace kmcl::channel
