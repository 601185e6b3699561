// One or two of several busy processes are killed, again and again; one that survives is this
// process, which stays the same all along, so that whatever a death leaves behind adds up.
#include <gtest/gtest.h>

#include "busy_ends.h"
#include "child.h"
#include "roles.h"
#include "seeds.h"
#include "survivor.h"

namespace kmcl::kill {
namespace {

constexpr int kLetGoMs = 5000;

class SurvivingServer : public SurvivorTest {
 protected:
  void Visit(const Child& visitor) {
    visitor.Say(kVisit);
    const std::optional<char> answer = visitor.Hear();
    EXPECT_TRUE(answer && *answer == kVisited) << "a new client is not served";
  }
};

TEST_F(SurvivingServer, AccountsForEveryPacketOfAClientThatIsKilledAndServesTheNext) {
  const std::vector<Plan> plans = PlansFor(Victim::kClient);
  if (plans.empty()) GTEST_SKIP() << "none of these seeds kills a client";
  BusyServer server(around());
  ASSERT_EQ(server.Create(address()), STATUS_SUCCESS);
  std::optional<Child> visitor = Child::Start(VisitorRole(address(), DescriptorsAtStart()));
  ASSERT_TRUE(visitor);
  server.SetVisitor(visitor->pid());
  // The first visit brings what the server keeps from then on.
  const Census unvisited = TakeCensus();
  Visit(*visitor);
  ASSERT_TRUE(server.WaitUntilAlone());
  ExpectCensus(unvisited, kLetGoMs);

  ForEach(plans, [&](const Plan& plan) {
    const Census before = TakeCensus();
    server.SetPlan(plan);
    {
      std::optional<Child> client =
          Child::Start(BusyClientRole(plan.seed, address(), DescriptorsAtStart()));
      ASSERT_TRUE(client);
      around().kill_switch.Arm(plan, KillSwitch::Role::kSurvivor, client->pid(),
                               around().killed_ns);
      ExpectKilled(*client);
    }
    // A visitor that connects after the victim's death is served after it: by then the server has
    // taken notice of the victim, even of one that was killed while it was connecting.
    Visit(*visitor);
    EXPECT_TRUE(server.WaitUntilAlone()) << "the server has not noticed that its client is gone";
    ExpectCensus(before, kLetGoMs);
  });
}

class SurvivingClient : public SurvivorTest {
 protected:
  // One run: this process is a client of the plan's server, which is killed, and with it perhaps
  // another client.
  void Survive(const Plan& plan) {
    const Census before = TakeCensus();
    {
      std::optional<Child> server =
          Child::Start(BusyServerRole(plan.seed, address(), DescriptorsAtStart()));
      ASSERT_TRUE(server);
      ASSERT_EQ(server->Hear(), kReady);
      std::optional<Child> other;
      if (plan.victim == Victim::kBoth) {
        std::optional<Child> started =
            Child::Start(OtherClientRole(plan.seed, address(), DescriptorsAtStart()));
        ASSERT_TRUE(started);
        other.emplace(*std::move(started));
      }
      around().kill_switch.Arm(plan, KillSwitch::Role::kSurvivor, server->pid(),
                               around().killed_ns);
      BusyClient client(around());
      const NTSTATUS status = client.Open(address(), plan);
      if (plan.moment != Moment::kTimer) {
        EXPECT_TRUE(status == STATUS_SUCCESS || status == STATUS_NO_SUCH_DEVICE ||
                    // Killed by what it did for the other client.
                    (other && status == STATUS_CONNECTION_DISCONNECTED) ||
                    (other && status == STATUS_OBJECT_NAME_NOT_FOUND))
            << KmclStatusName(status);
      } else if (status != STATUS_SUCCESS) {
        EXPECT_TRUE(status == STATUS_OBJECT_NAME_NOT_FOUND ||
                    status == STATUS_CONNECTION_DISCONNECTED || status == STATUS_NO_SUCH_DEVICE)
            << KmclStatusName(status);
      }
      if (plan.cycles && status == STATUS_SUCCESS) client.Cycle(server->end_fd());
      ExpectKilled(*server);
      if (other) ExpectKilled(*other);
      EXPECT_TRUE(client.WaitUntilClosed()) << "the client has not noticed that its server is gone";
    }
    ExpectCensus(before, 0);
    ExpectNextServer();
    ExpectCensus(before, 0);
  }
};

TEST_F(SurvivingClient, AccountsForEveryPacketWhenItsServerIsKilledAndFindsTheNextOne) {
  const std::vector<Plan> plans = PlansFor(Victim::kServer);
  if (plans.empty()) GTEST_SKIP() << "none of these seeds kills a server";
  ForEach(plans, [this](const Plan& plan) { Survive(plan); });
}

TEST_F(SurvivingClient, AccountsForEveryPacketWhenItsServerAndAnotherClientAreKilled) {
  const std::vector<Plan> plans = PlansFor(Victim::kBoth);
  if (plans.empty()) GTEST_SKIP() << "none of these seeds kills both";
  ForEach(plans, [this](const Plan& plan) { Survive(plan); });
}

}  // namespace
}  // namespace kmcl::kill
