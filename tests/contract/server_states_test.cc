// A server's channel through its states: transitions S1 to S12 of KMCL reference 4.3.
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<std::string> kStates{"Opened",  "Closed",      "Suspend",
                                       "Started", "PostStarted", "returned"};

class ServerStates : public BusTest {
 protected:
  std::string Offers() { return client_port().Exchange("offers " + client()); }
};

INSTANTIATE_TEST_SUITE_P(Contract, ServerStates, AllPlacements(), NameOfPlacement);

TEST_P(ServerStates, S1AFreshChannelIsDisabledAndSilent) {
  const Channel server = AddServer();
  EXPECT_EQ(server.Send(1), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Offers(), "0");
  EXPECT_THAT(server.Names(), IsEmpty());
}

TEST_P(ServerStates, S2EnablePublishesTheOfferWithoutWaitingForAClient) {
  const Channel server = AddServer({.type = 7, .instance = "3"});
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  // The offer is on its way; a client that binds to it proves that it has come.
  const Channel client = AddClient({.type = 7, .instance = "3"});
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("Opened"));
  EXPECT_EQ(Offers(), "0 7.3:used");
}

TEST_P(ServerStates, S3AFailedEnableChangesNothing) {
  const Channel first = AddServer();
  ASSERT_EQ(first.Enable(), STATUS_SUCCESS);
  const Channel second = AddServer();
  EXPECT_EQ(second.Enable(), STATUS_OBJECT_NAME_COLLISION);
  EXPECT_EQ(second.Send(1), STATUS_INVALID_DEVICE_STATE);
  EXPECT_THAT(second.Names(), IsEmpty());
  // The Init window is still open: another instance mends it.
  EXPECT_EQ(second.Init("interface 1 2"), STATUS_SUCCESS);
  EXPECT_EQ(second.Enable(), STATUS_SUCCESS);
  EXPECT_EQ(second.Init("interface 1 3"), STATUS_INVALID_PARAMETER_1);
}

TEST_P(ServerStates, S4AnOpenWithoutStartCallsOpenedOnly) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("Opened"));
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_THAT(server.Names(), ElementsAre("Opened"));
}

TEST_P(ServerStates, S4AStartBeforeTheOpenTakesEffectWithIt) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("PostStarted"));
  EXPECT_THAT(server.Names(), ElementsAre("Opened", "Started", "PostStarted"));
}

TEST_P(ServerStates, S4TheClientLearnsOfTheOpenAfterTheCallbackHasAgreed) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Gate("Opened");
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("Opened"));
  EXPECT_THAT(client.Names(), IsEmpty());
  server.Release("Opened");
  ASSERT_TRUE(client.Wait("Opened"));
}

TEST_P(ServerStates, S5AFailingOpenedRollsBackAndTheOfferStands) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Set("opened-status", STATUS_ACCESS_DENIED);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("Opened"));
  ASSERT_TRUE(client.Wait("PnpFailure"));
  client.Disable();
  EXPECT_EQ(client.Count("Opened"), 0U);
  // The next open may succeed.
  server.Set("opened-status", STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_TRUE(server.Wait("PostStarted"));
  EXPECT_THAT(server.Names(kStates), ElementsAre("Opened", "Opened", "Started", "PostStarted"));
}

TEST_P(ServerStates, S6PacketsComeAfterStartedHasReturned) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 3));
  server.Gate("Started");
  server.Start();  // does not block: the callback is held
  ASSERT_TRUE(server.Wait("Started"));
  EXPECT_THAT(server.Names(), ElementsAre("Opened", "Started"));
  server.Release("Started");
  ASSERT_TRUE(server.Wait("batch 3"));
  ASSERT_TRUE(server.Wait("PostStarted"));
}

TEST_P(ServerStates, S6PacketsMayComeWhilePostStartedRuns) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Gate("PostStarted");
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_TRUE(server.Wait("PostStarted"));
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  server.Release("PostStarted");
}

TEST_P(ServerStates, S7APauseSuspendsAndAStartResumes) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  server.Pause();
  EXPECT_THAT(server.Names(kStates), ElementsAre("Opened", "Started", "PostStarted", "Suspend"));
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(server.Count("packet 1"), 0U);
  server.Start();
  ASSERT_TRUE(server.Wait("packet 1"));
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  EXPECT_EQ(server.Count("Opened"), 1U);
}

TEST_P(ServerStates, S8ACloseOfAnActiveChannelSuspendsCancelsDrainsAndCloses) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  client.Set("hold", 1);
  ASSERT_EQ(server.Send(50, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("packet 50"));
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  client.Async("disable");
  ASSERT_TRUE(client.Wait("Suspend"));
  client.Do("fail", "50");  // its own drain, without an answer; the close follows
  ASSERT_TRUE(server.Wait("done 50 STATUS_DEVICE_REMOVED"));
  EXPECT_EQ(server.Count("Closed"), 0U) << "packet 1 is outstanding";
  server.Complete(1);
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_THAT(
      server.Names({"Started", "Suspend", "done", "completing", "Closed"}),
      ElementsAre("Started", "Suspend", "done 50 STATUS_DEVICE_REMOVED", "completing 1", "Closed"));
}

TEST_P(ServerStates, S8TheOfferStandsAndIsOpenedAgainWithTheSameRunRequest) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  for (int round = 2; round <= 4; ++round) {
    client.Disable();
    ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
    ASSERT_TRUE(server.Wait("PostStarted", round));
    ASSERT_TRUE(client.Wait("PostStarted", round));
    ASSERT_NO_FATAL_FAILURE(Mark(client, server));
    ASSERT_NO_FATAL_FAILURE(Mark(server, client));
  }
  EXPECT_EQ(server.Count("Closed"), 3U);
}

TEST_P(ServerStates, S9ACloseOfAPausedChannelHasNoSecondSuspend) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  client.Disable();
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_THAT(server.Names(kStates),
              ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Closed"));
}

TEST_P(ServerStates, S9AnOpenThatWasNeverStartedClosesWithoutSuspend) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("Opened"));
  ASSERT_TRUE(client.Wait("Opened"));
  client.Disable();
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_THAT(server.Names(), ElementsAre("Opened", "Closed"));
}

TEST_P(ServerStates, S10DisableOfAnActiveChannelTearsItDown) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Disable();
  EXPECT_THAT(server.Names(kStates),
              ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Closed"));
  EXPECT_EQ(server.Send(1), STATUS_INVALID_DEVICE_STATE);
  ASSERT_TRUE(client.Wait("Closed"));
  EXPECT_EQ(Offers(), "0");
}

TEST_P(ServerStates, S10DisableOfAPausedChannelClosesIt) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  server.Disable();
  EXPECT_THAT(server.Names(kStates),
              ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Closed"));
}

TEST_P(ServerStates, S10DisableOfAChannelThatNobodyOpenedIsSilent) {
  const Channel server = AddServer();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Disable();
  EXPECT_THAT(server.Names(), IsEmpty());
  server.Disable();  // Disabled already: nothing
  EXPECT_THAT(server.Names(), IsEmpty());
}

TEST_P(ServerStates, S10DisableAfterAGuestCloseIsSilent) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Disable();
  ASSERT_TRUE(server.Wait("Closed"));
  const std::vector<std::string> before = server.Names();
  server.Disable();
  EXPECT_EQ(server.Names(), before);
}

TEST_P(ServerStates, S10ADisabledChannelIsOfferedAgainAndPaused) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Disable();
  client.Disable();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("Opened", 2));
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  // Entering Disabled has reset the run request.
  EXPECT_EQ(server.Count("Started"), 1U);
  server.Start();
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
}

TEST_P(ServerStates, S10AStateCallbackThatRunsFinishesBeforeTheTeardown) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Gate("PostStarted");
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_TRUE(server.Wait("PostStarted"));
  server.Async("disable");
  server.Release("PostStarted");
  ASSERT_TRUE(server.Wait("returned disable ok"));
  EXPECT_THAT(server.Names(kStates), ElementsAre("Opened", "Started", "PostStarted", "Suspend",
                                                 "Closed", "returned disable ok"));
}

TEST_P(ServerStates, S10TeardownDuringStartedSkipsPostStarted) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Gate("Started");
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_TRUE(server.Wait("Started"));
  ASSERT_TRUE(client.Wait("PostStarted"));
  client.Async("disable");
  ASSERT_TRUE(client.Wait("Suspend"));
  server.Release("Started");
  ASSERT_TRUE(server.Wait("Closed"));
  // Whether the teardown was seen before delivery was enabled is the race this test allows.
  EXPECT_THAT(server.Names(kStates),
              testing::AnyOf(ElementsAre("Opened", "Started", "Suspend", "Closed"),
                             ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Closed")));
}

TEST_P(ServerStates, S11StartAndPauseBeforeTheOpenOnlyChangeTheRequest) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  server.Pause();
  server.Start();
  server.Pause();
  EXPECT_THAT(server.Names(), IsEmpty());
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 1));
  ASSERT_TRUE(client.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_THAT(server.Names(), ElementsAre("Opened"));
}

TEST_P(ServerStates, S11AStartWhileDisabledPreselectsActive) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Start();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("PostStarted"));
}

TEST_P(ServerStates, S12CleanupFreesADisabledChannel) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Disable();
  server.Cleanup();
  // Its name is free again.
  const Channel next = AddServer();
  client.Disable();
  ASSERT_NO_FATAL_FAILURE(Open(next, client));
}

TEST_P(ServerStates, S12CleanupOfAnEnabledChannelDisablesItFirst) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Cleanup();
  EXPECT_EQ(server.Names().back(), "Closed");
  ASSERT_TRUE(client.Wait("Closed"));
}

TEST_P(ServerStates, CallbacksRunAtPassiveLevelAndNotOnTheCallersThread) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  server.Disable();
  ASSERT_TRUE(client.Wait("Closed"));
  for (const Channel& channel : {server, client}) {
    const std::string caller = channel.port().Exchange("tid");
    for (const char* event : {"Opened", "Started", "PostStarted", "Suspend", "Closed"}) {
      EXPECT_EQ(channel.Detail(event, "irql"), "0") << event;
      EXPECT_NE(channel.Detail(event, "tid"), caller) << event;
    }
  }
}

TEST_P(ServerStates, StartOfAnActiveAndPauseOfAPausedChannelDoNothing) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Start();
  client.Start();
  server.Pause();
  server.Pause();
  server.Start();
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(server, client));
  EXPECT_EQ(client.Count("Started"), 1U);
  EXPECT_THAT(server.Names(kStates),
              ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Started", "PostStarted"));
}

}  // namespace

}  // namespace kmcl::contract
