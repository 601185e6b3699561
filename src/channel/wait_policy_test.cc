#include "channel/wait_policy.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "channel/wakeup_cost.h"

namespace kmcl::channel {
namespace {

using namespace std::chrono_literals;

constexpr auto kWakeup = 20us;

TEST(SpinJudge, LooksAtFirstForTwiceAWakeup) {
  const SpinJudge judge(kWakeup);
  EXPECT_TRUE(judge.Pays());
  EXPECT_EQ(judge.window(), 40us);
}

TEST(SpinJudge, NeverLooksWhereAWakeupHasNoCost) {
  SpinJudge judge(0ns);
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(judge.Pays());
    judge.OnFound();
    judge.OnWoken(0ns);
  }
}

TEST(SpinJudge, AnIdleEndLooksOnceAndThenSleepsAtOnce) {
  SpinJudge judge(kWakeup);
  judge.OnVain();
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(judge.Pays());
    judge.OnWoken(1ms);  // packets come, but seldom
  }
}

TEST(SpinJudge, TwoSleepersFindOutThatTheyNeedNotSleep) {
  SpinJudge judge(kWakeup);
  judge.OnVain();
  // The other end needs a wake-up to answer, and so do we to see it.
  judge.OnWoken(45us);
  EXPECT_FALSE(judge.Pays());
  judge.OnWoken(45us);
  EXPECT_TRUE(judge.Pays());
}

TEST(SpinJudge, FewLooksAreInVainAfterALongBusyTime) {
  SpinJudge judge(kWakeup);
  for (int i = 0; i < 1000; ++i) judge.OnFound();
  int in_vain = 0;
  for (; judge.Pays(); ++in_vain) judge.OnVain();
  EXPECT_LE(in_vain, 4);
}

TEST(SpinJudge, MostLooksPayWhateverComes) {
  // Where only one wait in three ends within the window, looking ends.
  SpinJudge judge(kWakeup);
  int looks = 0;
  int in_vain = 0;
  for (int i = 0; i < 3000; ++i) {
    const bool soon = i % 3 == 0;
    if (judge.Pays()) {
      ++looks;
      if (soon) {
        judge.OnFound();
      } else {
        ++in_vain;
        judge.OnVain();
      }
    } else {
      judge.OnWoken(soon ? 20us : 1ms);
    }
  }
  EXPECT_LE(in_vain, 2);
  EXPECT_LE(looks, 4);
}

TEST(WakeupCost, IsWithinItsLimitsAndMeasuredOnce) {
  const auto cost = WakeupCost();
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  if (CPU_COUNT(&allowed) == 1) {
    EXPECT_EQ(cost, 0ns);
  } else {
    EXPECT_GE(cost, 2us);
    EXPECT_LE(cost, 50us);
  }
  EXPECT_EQ(WakeupCost(), cost);
}

TEST(WakeupCost, IsNothingToAvoidOnOneProcessor) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const int processor = sched_getcpu();
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) _exit(2);
    _exit(MeasureWakeupCost() == 0ns ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace kmcl::channel
