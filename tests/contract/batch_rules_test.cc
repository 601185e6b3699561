// The batch contract, rule by rule (KMCL reference 6.2), for a receiver at either end.
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;

class BatchRules : public SidedBusTest {
 protected:
  // Deliveries and batch ends, in order.
  std::vector<std::string> Deliveries() const { return receiver().Names({"packet", "batch"}); }
};

INSTANTIATE_TEST_SUITE_P(Contract, BatchRules, AllSides(), NameOfSide);

TEST_P(BatchRules, B1EveryPacketIsDeliveredOnce) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  ASSERT_NO_FATAL_FAILURE(Fill(1, 50));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("batch 50"));
  std::vector<std::string> expected;
  for (int i = 1; i <= 50; ++i) {
    expected.push_back("packet " + std::to_string(i));
  }
  EXPECT_EQ(receiver().Names({"packet"}), expected);
}

TEST_P(BatchRules, B2TheEndIsToldOnceAfterTheLastDelivery) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  ASSERT_NO_FATAL_FAILURE(Fill(1, 3));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("batch 3"));
  ASSERT_NO_FATAL_FAILURE(Fill(4, 1));
  ASSERT_TRUE(receiver().Wait("batch 1"));
  EXPECT_THAT(Deliveries(),
              ElementsAre("packet 1", "packet 2", "packet 3", "batch 3", "packet 4", "batch 1"));
}

TEST_P(BatchRules, B3ACountIsNeverZeroAndNeverAnotherBatchs) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  // Starts and pauses with an empty ring end no batch.
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted"));
  receiver().Pause();
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted", 2));
  EXPECT_THAT(Deliveries(), testing::IsEmpty());
  // A stream whose batches fall where they may; CheckHistory compares each count with its packets.
  ASSERT_NO_FATAL_FAILURE(Fill(1, 200));
  ASSERT_TRUE(receiver().Wait("packet 200"));
  receiver().Pause();
  EXPECT_EQ(receiver().Count("batch 0"), 0U);
  EXPECT_EQ(receiver().Counters().Batches, receiver().Names({"batch"}).size());
}

TEST_P(BatchRules, B4NoEndIsToldBetweenPacketsThatWereBothInTheRing) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused({.pages = 16}));
  ASSERT_NO_FATAL_FAILURE(Fill(1, 300));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 300"));
  ASSERT_TRUE(receiver().Wait("batch 300"));
  EXPECT_THAT(receiver().Names({"batch"}), ElementsAre("batch 300"));
}

TEST_P(BatchRules, B5APacketThatArrivesMeanwhileBelongsToTheBatch) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Gate("packet 1");
  receiver().Start();
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  ASSERT_NO_FATAL_FAILURE(Fill(2, 2));
  receiver().Release("packet 1");
  ASSERT_TRUE(receiver().Wait("batch 3"));
  EXPECT_THAT(Deliveries(), ElementsAre("packet 1", "packet 2", "packet 3", "batch 3"));
}

TEST_P(BatchRules, B6APacketThatArrivesAfterTheEndStartsANewBatch) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Gate("batch 1");
  receiver().Start();
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("batch 1"));
  ASSERT_NO_FATAL_FAILURE(Fill(2, 2));
  EXPECT_THAT(Deliveries(), ElementsAre("packet 1", "batch 1"));
  receiver().Release("batch 1");
  ASSERT_TRUE(receiver().Wait("batch 2"));
  EXPECT_THAT(Deliveries(), ElementsAre("packet 1", "batch 1", "packet 2", "packet 3", "batch 2"));
}

TEST_P(BatchRules, B7CountsAddUpAndADeferredPacketCountsOnce) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  for (const int number : {2, 3, 3, 7, 10}) {
    receiver().Set("defer", number);
  }
  ASSERT_NO_FATAL_FAILURE(Fill(1, 10));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 10"));
  receiver().Pause();
  UINT64 sum = 0;
  for (const std::string& batch : receiver().Names({"batch"})) {
    sum += std::stoul(batch.substr(6));
  }
  EXPECT_EQ(sum, 10U);
  EXPECT_EQ(receiver().Counters().PacketsReceived, 10U);
  EXPECT_EQ(receiver().Names({"deferred"}).size(), 5U);
}

TEST_P(BatchRules, B8CompletionsOfOwnTransactionsAreNoDeliveries) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted"));
  ASSERT_NO_FATAL_FAILURE(receiver().SendMany(100, 5, 16, kWait));
  for (int i = 100; i < 105; ++i) {
    ASSERT_TRUE(receiver().Wait("done " + std::to_string(i) + " STATUS_SUCCESS"));
  }
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("batch 1"));
  EXPECT_THAT(Deliveries(), ElementsAre("packet 1", "batch 1"));
  EXPECT_EQ(receiver().Counters().CompletionsReceived, 5U);
}

TEST_P(BatchRules, B8CompletionsBetweenPacketsDoNotCount) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted"));
  // While delivery is held, a completion lands between packets 2 and 3.
  sender().Set("hold", 1);
  ASSERT_EQ(receiver().Send(100, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(sender().Wait("packet 100"));
  receiver().Gate("packet 1");
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  ASSERT_NO_FATAL_FAILURE(Fill(2, 1));
  sender().Complete(100);
  ASSERT_NO_FATAL_FAILURE(Fill(3, 1));
  receiver().Release("packet 1");
  ASSERT_TRUE(receiver().Wait("batch 3"));
  ASSERT_TRUE(receiver().Wait("done 100 STATUS_SUCCESS"));
  EXPECT_THAT(Deliveries(), ElementsAre("packet 1", "packet 2", "packet 3", "batch 3"));
}

TEST_P(BatchRules, B9DeliveriesAreSerializedInTheOrderOfTheRing) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Start();
  ASSERT_NO_FATAL_FAILURE(sender().SendMany(1, 1000, 40));
  ASSERT_TRUE(receiver().Wait("packet 1000"));
  std::vector<std::string> expected;
  for (int i = 1; i <= 1000; ++i) {
    expected.push_back("packet " + std::to_string(i));
  }
  EXPECT_EQ(receiver().Names({"packet"}), expected);  // CheckHistory finds overlaps
}

TEST_P(BatchRules, B10BothCallbacksRunAtTheSameLevel) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Start();
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("batch 1"));
  EXPECT_LE(std::stoi(receiver().Detail("packet 1", "irql")), DISPATCH_LEVEL);
  EXPECT_LE(std::stoi(receiver().Detail("batch 1", "irql")), DISPATCH_LEVEL);
  receiver().Set("passive", 1);
  receiver().Gate("packet 2");
  ASSERT_NO_FATAL_FAILURE(Fill(2, 1));
  ASSERT_TRUE(receiver().Wait("packet 2"));
  ASSERT_NO_FATAL_FAILURE(Fill(3, 1));
  receiver().Release("packet 2");
  ASSERT_TRUE(receiver().Wait("batch 2"));
  EXPECT_EQ(receiver().Detail("packet 2", "irql"), "0");
  EXPECT_EQ(receiver().Detail("packet 3", "irql"), "0");
  EXPECT_EQ(receiver().Detail("batch 2", "irql"), "0");
}

TEST_P(BatchRules, B11AQuotaEndsTheBatch) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("hold", 1);
  receiver().Set("quota", 2);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 5));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("batch 2"));
  EXPECT_THAT(Deliveries(), ElementsAre("packet 1", "packet 2", "batch 2"));
  receiver().Complete(1);
  ASSERT_TRUE(receiver().Wait("batch 1"));
  EXPECT_THAT(Deliveries(), ElementsAre("packet 1", "packet 2", "batch 2", "packet 3", "batch 1"));
}

TEST_P(BatchRules, B11ADeferralEndsTheBatch) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("defer", 3);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 5));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 5"));
  receiver().Pause();
  const std::vector<std::string> seen = receiver().Names({"packet", "batch", "deferred"});
  ASSERT_GE(seen.size(), 5U);
  EXPECT_THAT(std::vector(seen.begin(), seen.begin() + 5),
              ElementsAre("packet 1", "packet 2", "deferred 3", "batch 2", "packet 3"));
}

TEST_P(BatchRules, B11ADeferralOfTheFirstPacketEndsNoBatch) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("defer", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 2));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("packet 2"));
  receiver().Pause();
  const std::vector<std::string> seen = receiver().Names({"packet", "batch", "deferred"});
  ASSERT_GE(seen.size(), 2U);
  EXPECT_EQ(seen[0], "deferred 1");
  EXPECT_EQ(seen[1], "packet 1");
}

TEST_P(BatchRules, B11AFailedPacketEndsTheBatch) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("fail", 3);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 5));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("failed 3"));
  receiver().Pause();
  EXPECT_THAT(receiver().Names({"packet"}), ElementsAre("packet 1", "packet 2", "packet 3"));
  EXPECT_EQ(receiver().Names({"batch"}).size(), 1U);
}

TEST_P(BatchRules, B12TheLastBatchEndsBeforeSuspend) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Gate("packet 1");
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted"));
  ASSERT_NO_FATAL_FAILURE(Fill(1, 4));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  receiver().Async("pause");
  receiver().Release("packet 1");
  ASSERT_TRUE(receiver().Wait("returned pause ok"));
  const std::vector<std::string> seen = receiver().Names({"packet", "batch", "Suspend"});
  ASSERT_GE(seen.size(), 3U);
  EXPECT_EQ(seen.back(), "Suspend");
  // However many packets it was: all of them are counted in front of it.
  EXPECT_EQ(seen[seen.size() - 2], "batch " + std::to_string(seen.size() - 2));
}

TEST_P(BatchRules, B13ABatchEndsAlthoughItsPacketsAreOutstanding) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Fill(1, 3));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("batch 3"));
  EXPECT_EQ(receiver().Counters().Outstanding, 3U);
  for (const UINT32 number : {2U, 3U, 1U}) {
    receiver().Complete(number);
  }
  EXPECT_EQ(receiver().Counters().Outstanding, 0U);
}

TEST_P(BatchRules, B14NoBellIsRungWhileABatchRunsAndNoPacketIsLostAfterwards) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused());
  receiver().Gate("packet 1");
  receiver().Start();
  ASSERT_NO_FATAL_FAILURE(Fill(1, 1));
  ASSERT_TRUE(receiver().Wait("packet 1"));
  const UINT64 bells = sender().Counters().BellsRung;
  ASSERT_NO_FATAL_FAILURE(Fill(2, 20));
  EXPECT_EQ(sender().Counters().BellsRung, bells);
  receiver().Release("packet 1");
  ASSERT_TRUE(receiver().Wait("batch 21"));
  // The bell is wanted again: single packets, each into an empty ring.
  for (UINT32 number = 100; number < 150; ++number) {
    ASSERT_NO_FATAL_FAILURE(Fill(number, 1));
    ASSERT_TRUE(receiver().Wait("packet " + std::to_string(number)));
  }
}

TEST_P(BatchRules, TheBatchCallbackIsOptional) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused({.batch_callback = false}));
  receiver().Start();
  ASSERT_NO_FATAL_FAILURE(Fill(1, 10));
  ASSERT_TRUE(receiver().Wait("packet 10"));
  EXPECT_THAT(receiver().Names({"batch"}), testing::IsEmpty());
}

TEST_P(BatchRules, WithoutAPacketCallbackEachPacketIsCompletedWithNoBytes) {
  ASSERT_NO_FATAL_FAILURE(OpenPaused({.packet_callback = false}));
  receiver().Start();
  ASSERT_TRUE(receiver().Wait("PostStarted"));
  ASSERT_EQ(sender().Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(sender().Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(sender().Detail("done 1 STATUS_SUCCESS", "len"), "0");
}

}  // namespace

}  // namespace kmcl::contract
