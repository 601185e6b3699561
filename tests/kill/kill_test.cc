// One of two busy processes is killed, again and again; the other one is this process, which stays
// the same all along, so that whatever a death leaves behind adds up.
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

using SurvivingClient = SurvivorTest;

TEST_F(SurvivingClient, AccountsForEveryPacketWhenItsServerIsKilledAndFindsTheNextOne) {
  const std::vector<Plan> plans = PlansFor(Victim::kServer);
  if (plans.empty()) GTEST_SKIP() << "none of these seeds kills a server";

  ForEach(plans, [&](const Plan& plan) {
    const Census before = TakeCensus();
    {
      std::optional<Child> server =
          Child::Start(BusyServerRole(plan.seed, address(), DescriptorsAtStart()));
      ASSERT_TRUE(server);
      ASSERT_EQ(server->Hear(), kReady);
      around().kill_switch.Arm(plan, KillSwitch::Role::kSurvivor, server->pid(),
                               around().killed_ns);
      BusyClient client(around());
      const NTSTATUS status = client.Open(address(), plan);
      if (plan.moment != Moment::kTimer) {
        EXPECT_TRUE(status == STATUS_SUCCESS || status == STATUS_NO_SUCH_DEVICE)
            << KmclStatusName(status);
      } else if (status != STATUS_SUCCESS) {
        EXPECT_TRUE(status == STATUS_OBJECT_NAME_NOT_FOUND ||
                    status == STATUS_CONNECTION_DISCONNECTED || status == STATUS_NO_SUCH_DEVICE)
            << KmclStatusName(status);
      }
      if (plan.cycles && status == STATUS_SUCCESS) client.Cycle(server->end_fd());
      ExpectKilled(*server);
      EXPECT_TRUE(client.WaitUntilClosed()) << "the client has not noticed that its server is gone";
    }
    ExpectCensus(before, 0);

    {
      std::optional<Child> next = Child::Start(EchoServerRole(address(), DescriptorsAtStart()));
      ASSERT_TRUE(next);
      ASSERT_EQ(next->Hear(), kReady) << "no server can follow the one that was killed";
      const NTSTATUS status = Visit(address());
      EXPECT_EQ(status, STATUS_SUCCESS) << KmclStatusName(status);
    }
    ExpectCensus(before, 0);
  });
}

}  // namespace
}  // namespace kmcl::kill
