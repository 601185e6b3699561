// What blocks, for how long, and what a pause waits for (KMCL reference 4.6 and 4.7).
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class Drains : public SidedBusTest {
 protected:
  void OpenActive() {
    ASSERT_NO_FATAL_FAILURE(OpenPaused());
    receiver().Start();
    ASSERT_TRUE(receiver().Wait("PostStarted"));
  }
  const std::string kReturned = "returned pause ok";
};

INSTANTIATE_TEST_SUITE_P(Contract, Drains, AllSides(), NameOfSide);

TEST_P(Drains, PauseWaitsForEveryOutstandingPacket) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 3));
  ASSERT_TRUE(receiver().Wait("packet 3"));
  receiver().Async("pause");
  ASSERT_TRUE(receiver().Wait("Suspend"));
  for (const UINT32 number : {2U, 1U, 3U}) {
    EXPECT_EQ(receiver().Count(kReturned), 0U);
    receiver().Complete(number);
  }
  ASSERT_TRUE(receiver().Wait(kReturned));
  EXPECT_THAT(receiver().Names({"Suspend", "completing", "returned"}),
              ElementsAre("Suspend", "completing 2", "completing 1", "completing 3", kReturned));
}

TEST_P(Drains, ACompletionMadeWhileSuspendingIsTransmitted) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  ASSERT_EQ(sender().Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Async("pause");
  ASSERT_TRUE(receiver().Wait("Suspend"));
  receiver().Complete(1);
  ASSERT_TRUE(sender().Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(sender().Detail("done 1 STATUS_SUCCESS", "answer"), "intact");
  ASSERT_TRUE(receiver().Wait(kReturned));
}

TEST_P(Drains, PauseDoesNotWaitForOwnTransactions) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  sender().Set("hold", 1);
  ASSERT_EQ(receiver().Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(sender().Wait("packet 1"));
  receiver().Pause();
  EXPECT_THAT(receiver().Names({"done"}), IsEmpty());
  // The answer waits in the ring for the next start.
  sender().Complete(1);
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(receiver().Detail("done 1 STATUS_SUCCESS", "answer"), "intact");
}

TEST_P(Drains, ADeferredPacketIsNotOutstanding) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  // Deferred for longer than the test runs: each delivery defers again until the pause.
  for (int i = 0; i < 1000; ++i) {
    receiver().Set("defer", 1);
  }
  receiver().Gate("deferred 1");
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("deferred 1"));
  receiver().Async("pause");
  receiver().Release("deferred 1");
  ASSERT_TRUE(receiver().Wait(kReturned));
  ASSERT_TRUE(receiver().Wait("Suspend"));
  // It went back to the queue, and the next start delivers it.
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 1"));
}

TEST_P(Drains, PauseWaitsForADeliveryThatRuns) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Gate("packet 1");
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Async("pause");
  EXPECT_EQ(receiver().Count("Suspend"), 0U);
  receiver().Release("packet 1");
  ASSERT_TRUE(receiver().Wait(kReturned));
}

TEST_P(Drains, PauseOfAChannelThatIsNotOpenReturns) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Pause();  // open and paused
  const Channel server = AddServer({.instance = "2"});
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Pause();  // enabled
  const Channel client = AddClient({.instance = "3"});
  client.Pause();  // disabled
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  client.Pause();
  EXPECT_THAT(client.Names(), IsEmpty());
}

TEST_P(Drains, PauseDuringTheStartLetsItFinish) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Gate("Started");
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("Started"));
  receiver().Async("pause");
  receiver().Release("Started");
  ASSERT_TRUE(receiver().Wait(kReturned));
  EXPECT_EQ(receiver().Count("Suspend"), 1U);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 1"));
}

TEST_P(Drains, DisableWaitsForEveryOutstandingPacketAndForClosed) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Gate("Closed");
  receiver().Async("disable");
  receiver().Async("disable");  // the second waits for the first
  ASSERT_TRUE(receiver().Wait("Suspend"));
  EXPECT_EQ(receiver().Count("Closed"), 0U);
  receiver().Complete(1);
  ASSERT_TRUE(receiver().Wait("Closed"));
  EXPECT_EQ(receiver().Count("returned disable ok"), 0U);
  receiver().Release("Closed");
  ASSERT_TRUE(receiver().Wait("returned disable ok", 2));
  EXPECT_EQ(receiver().Count("Closed"), 1U);
}

TEST_P(Drains, DisableDuringAPauseThatDrains) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Async("pause");
  ASSERT_TRUE(receiver().Wait("Suspend"));
  receiver().Async("disable");
  receiver().Complete(1);
  ASSERT_TRUE(receiver().Wait(kReturned));
  ASSERT_TRUE(receiver().Wait("returned disable ok"));
  EXPECT_EQ(receiver().Count("Suspend"), 1U);
  EXPECT_EQ(receiver().Count("Closed"), 1U);
}

TEST_P(Drains, ACloseByTheOtherEndDuringAPauseThatDrains) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Async("pause");
  ASSERT_TRUE(receiver().Wait("Suspend"));
  sender().Async("disable");
  ASSERT_TRUE(sender().Wait("Suspend"));
  receiver().Complete(1);
  ASSERT_TRUE(receiver().Wait("Closed"));
  ASSERT_TRUE(receiver().Wait(kReturned));
  EXPECT_EQ(receiver().Count("Suspend"), 1U);
}

TEST_P(Drains, EnableAndStartDoNotWaitForTheOtherEndOrForCallbacks) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Gate("Opened");
  client.Gate("Opened");
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  client.Start();
  ASSERT_TRUE(server.Wait("Opened"));  // and stays there
  server.Start();
  server.Release("Opened");
  ASSERT_TRUE(client.Wait("Opened"));
  client.Start();
  client.Release("Opened");
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_TRUE(server.Wait("PostStarted"));
}

// 4.6: a second Disable waits for the first.
TEST_P(Drains, TwoDisablesReturnWhenTheTeardownIsDone) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Async("disable");
  ASSERT_TRUE(receiver().Wait("Suspend"));
  receiver().Async("disable");
  receiver().Gate("Closed");
  receiver().Complete(1);
  ASSERT_TRUE(receiver().Wait("Closed"));
  EXPECT_EQ(receiver().Count("returned disable ok"), 0U);
  receiver().Release("Closed");
  ASSERT_TRUE(receiver().Wait("returned disable ok", 2));
  EXPECT_EQ(receiver().Count("Closed"), 1U);
}

}  // namespace

}  // namespace kmcl::contract
