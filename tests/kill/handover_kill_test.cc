// A busy server is handed over to another process, and one of the two, or both, are killed
// meanwhile. The client is this process. As long as one of them serves, it notices nothing;
// otherwise it is told.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <thread>

#include "busy_ends.h"
#include "child.h"
#include "roles.h"
#include "seeds.h"
#include "survivor.h"

namespace kmcl::kill {
namespace {

bool HitsOld(Step step) {
  return step == Step::kSaveBegun || step == Step::kSaveEnded || step == Step::kResumeBegun ||
         step == Step::kOldByClock || step == Step::kBothByClock;
}
bool HitsNew(Step step) { return !HitsOld(step) || step == Step::kBothByClock; }

void SleepUntil(std::int64_t ns) {
  const timespec until{ns / 1'000'000'000, ns % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

class HandoverKillTest : public SurvivorTest {
 protected:
  // Kills by the clock, counted from now, those whom the plan kills so.
  std::thread KillByClock(const Plan& plan, pid_t old_server, pid_t new_server) {
    struct Kill {
      pid_t victim;
      std::int64_t when_ns;
    };
    std::vector<Kill> kills;
    const std::int64_t first = NowNs() + std::int64_t{plan.timer_us} * 1000;
    const std::int64_t second = NowNs() + std::int64_t{plan.other_timer_us} * 1000;
    if (plan.step == Step::kOldByClock) kills = {{old_server, first}};
    if (plan.step == Step::kNewByClock) kills = {{new_server, first}};
    if (plan.step == Step::kBothByClock) {
      kills = {{old_server, first}, {new_server, second}};
      if (second < first) std::swap(kills[0], kills[1]);
    }
    return std::thread([this, kills] {
      for (const Kill& each : kills) {
        SleepUntil(each.when_ns);
        if (&each == &kills.back()) killed_ns()->store(NowNs());
        ::kill(each.victim, SIGKILL);  // nobody has waited for it yet
      }
    });
  }

  // Whether the server that was not killed serves the clients now.
  static bool Serves(const Plan& plan, const Child& survivor) {
    const std::optional<char> word = survivor.Hear();
    EXPECT_TRUE(word == kServes || word == kServesNot) << "the other server ended, or hangs";
    const bool serves = word == kServes;
    switch (plan.step) {
      case Step::kSaveBegun:
      case Step::kSaveEnded:
      case Step::kResumeBegun:
        EXPECT_FALSE(serves) << "the new server serves what it was never given";
        break;
      case Step::kRestoreBegun:
      case Step::kRestoreEnded:
        EXPECT_TRUE(serves) << "the old server let go too early";
        break;
      case Step::kOldByClock:
      case Step::kNewByClock:
      case Step::kBothByClock:
        break;
    }
    return serves;
  }

  void Survive(const Plan& plan) {
    const Census before = TakeCensus();
    {
      int ends[2];
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
      std::optional<Child> old_server =
          Child::Start(OldServerRole(plan.seed, address(), DescriptorsAtStart()), ends[0]);
      std::optional<Child> new_server =
          Child::Start(NewServerRole(plan.seed, address(), DescriptorsAtStart()), ends[1]);
      close(ends[0]);
      close(ends[1]);
      ASSERT_TRUE(old_server && new_server);
      ASSERT_EQ(old_server->Hear(), kReady);
      ASSERT_EQ(new_server->Hear(), kReady);

      BusyClient client(around());
      NTSTATUS status = STATUS_SUCCESS;
      // In every second run it begins while the client is still connecting.
      const bool connects_meanwhile = plan.seed % 2 == 0;
      if (!connects_meanwhile) status = client.Open(address(), plan);
      old_server->Say(kHandOver);
      std::thread killer = KillByClock(plan, old_server->pid(), new_server->pid());
      if (connects_meanwhile) status = client.Open(address(), plan);
      killer.join();
      if (HitsOld(plan.step)) ExpectKilled(*old_server);
      if (HitsNew(plan.step)) ExpectKilled(*new_server);
      const bool served = plan.step != Step::kBothByClock &&
                          Serves(plan, HitsOld(plan.step) ? *new_server : *old_server);
      if (served) {
        ++served_on_;
        EXPECT_EQ(status, STATUS_SUCCESS) << KmclStatusName(status);
        EXPECT_TRUE(client.StillWorks()) << "the client noticed a handover";
        const NTSTATUS visit = Visit(address());
        EXPECT_EQ(visit, STATUS_SUCCESS) << KmclStatusName(visit) << ": a new client is not served";
      } else {
        EXPECT_TRUE(status == STATUS_SUCCESS || status == STATUS_OBJECT_NAME_NOT_FOUND ||
                    status == STATUS_CONNECTION_DISCONNECTED || status == STATUS_NO_SUCH_DEVICE)
            << KmclStatusName(status);
        EXPECT_TRUE(client.WaitUntilClosed()) << "nobody serves, and the client was not told";
      }
    }
    ExpectCensus(before, 0);
    ExpectNextServer();
    ExpectCensus(before, 0);
  }

  std::size_t served_on_ = 0;  // runs in which one of the two served in the end
};

TEST_F(HandoverKillTest, AClientIsServedByExactlyOneServerOrToldThatThereIsNone) {
  const std::vector<Plan> plans = PlansFor(Victim::kHandover);
  if (plans.empty()) GTEST_SKIP() << "none of these seeds hits a handover";
  ForEach(plans, [this](const Plan& plan) { Survive(plan); });
  printf("In %zu runs the other server went on.\n", served_on_);
}

}  // namespace
}  // namespace kmcl::kill
