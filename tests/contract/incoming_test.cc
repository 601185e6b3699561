// Received packets: completing, deferring, failing, quota, level and client context
// (KMCL reference 6.3 to 6.6), for a receiver at either end.
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class Incoming : public SidedBusTest {
 protected:
  void OpenActive(const ChannelOptions& options = {}) {
    ASSERT_NO_FATAL_FAILURE(OpenPaused(options));
    receiver().Start();
    ASSERT_TRUE(receiver().Wait("PostStarted"));
  }

  // Closes and opens the channel again, from the sender's side if that is the client's.
  void Reopen() {
    const Channel& client = server_receives() ? sender() : receiver();
    const Channel& server = server_receives() ? receiver() : sender();
    client.Disable();
    ASSERT_TRUE(server.Wait("Closed"));
    ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
    ASSERT_TRUE(client.Wait("PostStarted", static_cast<int>(client.Count("Closed")) + 1));
    ASSERT_TRUE(server.Wait("PostStarted", static_cast<int>(server.Count("Closed")) + 1));
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, Incoming, AllSides(), NameOfSide);

TEST_P(Incoming, CompletionFromAnotherThreadAndOutOfOrderCarriesItsPayload) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  receiver().Set("answer", 1000);
  ASSERT_NO_FATAL_FAILURE(sender().SendMany(1, 5, 64, kWait));
  ASSERT_TRUE(receiver().Wait("packet 5"));
  for (const UINT32 number : {4U, 2U, 5U, 1U, 3U}) {
    receiver().Complete(number);
    const std::string done = "done " + std::to_string(number) + " STATUS_SUCCESS";
    ASSERT_TRUE(sender().Wait(done));
    EXPECT_EQ(sender().Detail(done, "len"), "1000");
    EXPECT_EQ(sender().Detail(done, "answer"), "intact");
  }
}

TEST_P(Incoming, ManyThreadsCompleteAtOnce) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  constexpr int kCount = 64;
  ASSERT_NO_FATAL_FAILURE(sender().SendMany(1, kCount, 64, kWait));
  ASSERT_TRUE(receiver().Wait("packet " + std::to_string(kCount)));
  for (int number = 1; number <= kCount; ++number) {
    receiver().Async("complete", std::to_string(number));
  }
  for (int number = 1; number <= kCount; ++number) {
    const std::string done = "done " + std::to_string(number) + " STATUS_SUCCESS";
    ASSERT_TRUE(sender().Wait(done));
    EXPECT_EQ(sender().Detail(done, "answer"), "intact");
  }
}

TEST_P(Incoming, ACompletionOfTheMaximumSizeIsAccepted) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("answer", 4096);
  ASSERT_EQ(sender().Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(sender().Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(sender().Detail("done 1 STATUS_SUCCESS", "len"), "4096");
  EXPECT_EQ(sender().Detail("done 1 STATUS_SUCCESS", "answer"), "intact");
}

TEST_P(Incoming, BufferAndContextStayUntilThePacketIsRetired) {
  ASSERT_NO_FATAL_FAILURE(OpenActive({.context_bytes = 40}));
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 100, 72));
  ASSERT_TRUE(receiver().Wait("packet 100"));
  for (const int number : {1, 50, 100}) {
    EXPECT_EQ(receiver().Detail("packet " + std::to_string(number), "ctx"), "zero");
  }
  EXPECT_EQ(receiver().Counters().Outstanding, 100U);
  ASSERT_NO_FATAL_FAILURE(Fill(101, 300, 72));  // the ring turns over behind them
  for (UINT32 number = 1; number <= 100; ++number) {
    receiver().Complete(number);  // finds "corrupt" if the payload has changed
  }
}

TEST_P(Incoming, ADeferredPacketComesAgainAtPassiveLevelBeforeTheOnesBehindIt) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused({.context_bytes = 24}));
  receiver().Set("defer", 2);
  receiver().Set("defer", 2);  // also at PASSIVE_LEVEL
  ASSERT_NO_FATAL_FAILURE(Fill(1, 4, 100));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 4"));
  EXPECT_THAT(
      receiver().Names({"packet", "deferred"}),
      ElementsAre("packet 1", "deferred 2", "deferred 2", "packet 2", "packet 3", "packet 4"));
  EXPECT_EQ(receiver().Detail("packet 2", "irql"), "0");
  EXPECT_EQ(receiver().Detail("packet 2", "len"), "104");
  EXPECT_EQ(receiver().Detail("deferred 2", "ctx"), "zero");
  EXPECT_EQ(receiver().Detail("packet 2", "ctx"), "kept");
  EXPECT_EQ(receiver().Detail("packet 3", "ctx"), "zero");
  EXPECT_EQ(receiver().Detail("packet 1", "ctx"), "zero");
}

TEST_P(Incoming, ADeferredTransactionIsCompletedOnce) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("defer", 1);
  ASSERT_EQ(sender().Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(sender().Wait("done 1 STATUS_SUCCESS"));
  ASSERT_NO_FATAL_FAILURE(Mark(receiver(), sender()));
  EXPECT_EQ(sender().Counters().CompletionsReceived, 1U);
}

TEST_P(Incoming, AFailedPacketStopsDeliveryUntilTheChannelIsOpenedAgain) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("fail", 2);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 4));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("failed 2"));
  // Pause and Start do not revive it, and the rest of the state machine works.
  receiver().Pause();
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(receiver(), sender()));  // sending still works
  EXPECT_THAT(receiver().Names({"packet"}), ElementsAre("packet 1", "packet 2"));
  EXPECT_EQ(receiver().Counters().Outstanding, 0U);
  ASSERT_NO_FATAL_FAILURE(Reopen());
  ASSERT_EQ(sender().Send(10), STATUS_SUCCESS);
  ASSERT_TRUE(receiver().Wait("packet 10"));
  EXPECT_THAT(receiver().Names({"packet"}), ElementsAre("packet 1", "packet 2", "packet 10"));
}

TEST_P(Incoming, AFailedTransactionGetsNoAnswer) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("fail", 1);
  ASSERT_EQ(sender().Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(receiver().Wait("failed 1"));
  ASSERT_NO_FATAL_FAILURE(Mark(receiver(), sender()));
  EXPECT_THAT(sender().Names({"done 1"}), IsEmpty());
  EXPECT_EQ(receiver().Counters().CompletionsSent, 0U);
}

TEST_P(Incoming, AfterAFailureResponsesAreNotReadEither) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  sender().Set("hold", 1);
  ASSERT_EQ(receiver().Send(50, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(sender().Wait("packet 50"));
  receiver().Set("fail", 1);
  ASSERT_EQ(sender().Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(receiver().Wait("failed 1"));
  sender().Complete(50);
  receiver().Pause();
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(receiver(), sender()));
  EXPECT_EQ(receiver().Count("done 50 STATUS_SUCCESS"), 0U);
  sender().Do("complete", "all");  // else a client would wait for its server's drain
  receiver().Disable();
  EXPECT_EQ(receiver().Count("done 50 STATUS_DEVICE_REMOVED"), 1U);
}

TEST_P(Incoming, TheQuotaLimitsOutstandingPackets) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("hold", 1);
  receiver().Set("quota", 3);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 10));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 3"));
  ASSERT_TRUE(receiver().Wait("batch 3"));
  for (UINT32 number = 1; number <= 7; ++number) {
    EXPECT_EQ(receiver().Counters().Outstanding, 3U);
    receiver().Complete(number);
    ASSERT_TRUE(receiver().Wait("packet " + std::to_string(number + 3)));
  }
  EXPECT_EQ(receiver().Names({"packet"}).size(), 10U);
}

TEST_P(Incoming, RaisingTheQuotaDoesNotRestartButTheNextCompletionDoes) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("hold", 1);
  receiver().Set("quota", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 5));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("batch 1"));
  receiver().Set("quota", 4);
  // A bell for another reason, room in the outgoing ring, is no completion either.
  sender().Gate("packet 1000");
  UINT32 number = 1000;
  while (receiver().Counters().Queued == 0) {
    ASSERT_EQ(receiver().Send(number++, 2000), STATUS_SUCCESS);
    ASSERT_LT(number, 2000U);
  }
  ASSERT_TRUE(sender().Wait("packet 1000"));
  sender().Release("packet 1000");
  ASSERT_NO_FATAL_FAILURE(Mark(receiver(), sender()));
  EXPECT_THAT(receiver().Names({"packet"}), ElementsAre("packet 1"));
  receiver().Complete(1);
  ASSERT_TRUE(receiver().Wait("packet 5"));
  EXPECT_EQ(receiver().Counters().Outstanding, 4U);
}

TEST_P(Incoming, TheQuotaMayBeLoweredBelowWhatIsOutstanding) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 4));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("batch 4"));
  receiver().Set("quota", 2);
  ASSERT_NO_FATAL_FAILURE(Fill(5, 1));
  for (const UINT32 number : {1U, 2U}) {
    receiver().Complete(number);  // still two outstanding
    EXPECT_EQ(receiver().Count("packet 5"), 0U);
  }
  receiver().Complete(3);
  ASSERT_TRUE(receiver().Wait("packet 5"));
}

TEST_P(Incoming, AQuotaOfZeroIsIgnored) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("quota", 0);
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 5));
  ASSERT_TRUE(receiver().Wait("packet 5"));
}

TEST_P(Incoming, AQuotaHoldsBackOwnCompletionsBehindItOnlyUntilItIsFree) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("hold", 1);
  receiver().Set("quota", 1);
  sender().Set("hold", 1);
  ASSERT_EQ(receiver().Send(50, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(sender().Wait("packet 50"));
  ASSERT_NO_FATAL_FAILURE(Fill(1, 2));
  sender().Complete(50);  // behind packet 2 in the ring
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Complete(1);
  ASSERT_TRUE(receiver().Wait("packet 2"));
  receiver().Complete(2);
  ASSERT_TRUE(receiver().Wait("done 50 STATUS_SUCCESS"));
}

TEST_P(Incoming, PassiveProcessingIsSwitchedAtRunTime) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  receiver().Set("passive", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 10));
  ASSERT_TRUE(receiver().Wait("packet 10"));
  for (int number = 1; number <= 10; ++number) {
    EXPECT_EQ(receiver().Detail("packet " + std::to_string(number), "irql"), "0");
  }
  receiver().Set("passive", 0);
  ASSERT_NO_FATAL_FAILURE(Fill(11, 10));
  ASSERT_TRUE(receiver().Wait("packet 20"));
  receiver().Set("passive", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(21, 1));
  ASSERT_TRUE(receiver().Wait("packet 21"));
  EXPECT_EQ(receiver().Detail("packet 21", "irql"), "0");
  EXPECT_EQ(receiver().Names({"packet"}).size(), 21U);
}

TEST_P(Incoming, ASwitchToPassiveTakesEffectFromTheNextDelivery) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Gate("packet 1");
  ASSERT_NO_FATAL_FAILURE(Fill(1, 3));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Set("passive", 1);
  receiver().Release("packet 1");
  ASSERT_TRUE(receiver().Wait("packet 3"));
  EXPECT_EQ(receiver().Detail("packet 2", "irql"), "0");
  EXPECT_EQ(receiver().Detail("packet 3", "irql"), "0");
}

TEST_P(Incoming, TheContextIsZeroedForEachPacket) {
  ASSERT_NO_FATAL_FAILURE(OpenActive({.context_bytes = 200}));
  ASSERT_NO_FATAL_FAILURE(Fill(1, 60));  // each delivery dirties the context it got
  ASSERT_TRUE(receiver().Wait("packet 60"));
  for (int number = 1; number <= 60; ++number) {
    EXPECT_EQ(receiver().Detail("packet " + std::to_string(number), "ctx"), "zero");
  }
}

TEST_P(Incoming, WithoutAContextSizeThereIsNoContext) {
  ASSERT_NO_FATAL_FAILURE(OpenActive());
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  EXPECT_EQ(receiver().Detail("packet 1", "ctx"), "none");
}

}  // namespace

}  // namespace kmcl::contract
