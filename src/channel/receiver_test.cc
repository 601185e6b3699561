// Batches, the quota, a ring that breaks, and the end.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "channel/receiver_fixture.h"

namespace kmcl::channel {
namespace {

using wire::PacketType;

TEST_F(ReceiverTest, NothingIsDeliveredBeforeTheQueueIsOn) {
  Attach();
  Write("a");
  EXPECT_EQ(Deliver(), Turn::kStopped);
  receiver_.Start();
  CompleteEach();
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Batch 1"}));
}

TEST_F(ReceiverTest, ABatchEndsOnceWhenTheRingIsEmpty) {
  Start();
  CompleteEach();
  Write("a");
  Write("b");
  Write("c");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Packet c", "Batch 3"}));
  EXPECT_EQ(Deliver(), Turn::kAsleep);  // no packets, no batch
  EXPECT_EQ(handler_.Take(), Lines{});
  Write("d");
  Deliver();
  EXPECT_EQ(handler_.Take(), (Lines{"Packet d", "Batch 1"}));
  const ReceiverCounters counters = receiver_.counters();
  EXPECT_EQ(counters.packets, 4u);
  EXPECT_EQ(counters.bytes, 32u);  // padded
  EXPECT_EQ(counters.batches, 2u);
  EXPECT_EQ(counters.outstanding, 0u);
}

TEST_F(ReceiverTest, ABatchEndsAlthoughItsPacketsAreStillOutstanding) {
  Start();
  Write("a");
  Write("b");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
  EXPECT_EQ(receiver_.counters().outstanding, 2u);
}

TEST_F(ReceiverTest, APacketThatComesWhileTheBatchRunsBelongsToIt) {
  Start();
  handler_.on_packet = [this](IncomingPacket& packet) {
    if (TextOf(packet.payload) == "a") Write("b");
    Complete(packet);
  };
  Write("a");
  Deliver();
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
}

TEST_F(ReceiverTest, APacketThatComesAfterTheRingWasEmptyBeginsANewBatch) {
  Start();
  CompleteEach();
  int more = 2;
  handler_.on_batch = [&] {
    if (more-- > 0) Write("b");
  };
  Write("a");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(),
            (Lines{"Packet a", "Batch 1", "Packet b", "Batch 1", "Packet b", "Batch 1"}));
}

TEST_F(ReceiverTest, TheBudgetOfATurnDoesNotEndABatch) {
  Start();
  CompleteEach();
  // 32 bytes each: some refill is needed to write more than one turn delivers.
  WriteMany(200);
  int refill = 200;
  handler_.on_packet = [&](IncomingPacket& packet) {
    Complete(packet);
    if (refill-- > 0) Write("y");
  };
  EXPECT_EQ(Deliver(), Turn::kMore);
  Lines lines = handler_.Take();
  EXPECT_EQ(lines.size(), 256u);
  EXPECT_TRUE(lines.back().starts_with("Packet"));
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  lines = handler_.Take();
  EXPECT_EQ(lines.size(), 400u - 256u + 1u);
  EXPECT_EQ(lines.back(), "Batch 400");
}

TEST_F(ReceiverTest, StoppingEndsTheBatchThatIsOpenBetweenTwoTurns) {
  Start();
  WriteMany(200);
  int refill = 100;
  handler_.on_packet = [&](IncomingPacket& packet) {
    Complete(packet);
    if (refill-- > 0) Write("y");
  };
  EXPECT_EQ(Deliver(), Turn::kMore);
  handler_.Take();
  receiver_.Stop();
  EXPECT_EQ(handler_.Take(), Lines{"Batch 256"});
  EXPECT_EQ(Deliver(), Turn::kStopped);
  receiver_.Start();
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take().back(), "Batch 44");
}

TEST_F(ReceiverTest, StoppingFromWithinATurnEndsItAfterThePacket) {
  Start();
  handler_.on_packet = [&](IncomingPacket& packet) {
    Complete(packet);
    // As the state worker does, without the wait for this very callback.
    std::thread([this] { receiver_.SetQuota(1); }).join();
  };
  Write("a");
  Write("b");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
}

TEST_F(ReceiverTest, StopWaitsForTheCallbackThatRuns) {
  Start();
  std::atomic<bool> inside{false};
  std::atomic<bool> left{false};
  handler_.on_packet = [&](IncomingPacket& packet) {
    inside = true;
    inside.notify_all();
    for (int i = 0; i < 2000; ++i) std::this_thread::yield();
    Complete(packet);
    left = true;
  };
  Write("a");
  Write("b");
  std::thread dispatch([&] { Deliver(); });
  inside.wait(false);
  receiver_.Stop();
  EXPECT_TRUE(left);
  const Lines lines = handler_.Take();
  EXPECT_EQ(lines.back(), "Batch " + std::to_string(lines.size() - 1));
  dispatch.join();
  EXPECT_EQ(handler_.Take(), Lines{});
}

TEST_F(ReceiverTest, AnEmptyRingIsUnmaskedOnlyBeforeSleep) {
  Start();
  CompleteEach();
  EXPECT_EQ(Deliver(Level::kDispatch, 1), Turn::kEmpty);
  EXPECT_TRUE(IsMasked());
  EXPECT_FALSE(Write("a"));  // we poll
  EXPECT_EQ(Deliver(Level::kDispatch, 10), Turn::kEmpty);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Batch 1"}));
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_FALSE(IsMasked());
  EXPECT_TRUE(Write("b"));  // we sleep
  EXPECT_EQ(Deliver(Level::kDispatch, 1), Turn::kEmpty);
  EXPECT_TRUE(IsMasked());
}

TEST_F(ReceiverTest, CompletionsAreNotDeliveriesAndUnknownOnesAreCountedAndDropped) {
  Start();
  Write("x", PacketType::kCompletion, 1);
  Write("", PacketType::kCompletion, 0);
  Write("y", PacketType::kCompletion, ~std::uint64_t{0});
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), Lines{});
  EXPECT_EQ(receiver_.counters().batches, 0u);
  EXPECT_EQ(receiver_.counters().completions, 0u);
  EXPECT_EQ(sender_.counters().unexpected_completions, 3u);
}

TEST_F(ReceiverTest, TheWishForACompletionAndTheIdAreKept) {
  Start();
  Write("a", PacketType::kDataInBand, 0x123456789, true);
  Write("b", PacketType::kDataInBand, 7, false);
  Deliver();
  ASSERT_EQ(handler_.held.size(), 2u);
  EXPECT_TRUE(handler_.held[0]->wants_completion);
  EXPECT_EQ(handler_.held[0]->transaction_id, wire::TransactionId{0x123456789});
  EXPECT_FALSE(handler_.held[1]->wants_completion);
}

// ---- Quota.

TEST_F(ReceiverTest, AtItsQuotaTheQueueBlocksUntilACompletion) {
  Start();
  receiver_.SetQuota(2);
  for (const char* name : {"a", "b", "c", "d"}) Write(name);
  EXPECT_EQ(Deliver(), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
  EXPECT_EQ(Deliver(), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), Lines{});
  EXPECT_FALSE(turns_.TakeDispatch());
  Complete(*handler_.held[0]);
  EXPECT_TRUE(turns_.TakeDispatch());
  EXPECT_EQ(Deliver(), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet c", "Batch 1"}));
  handler_.held.erase(handler_.held.begin());
}

TEST_F(ReceiverTest, RaisingTheQuotaDoesNotRestartTheQueue) {
  Start();
  receiver_.SetQuota(1);
  for (const char* name : {"a", "b", "c"}) Write(name);
  EXPECT_EQ(Deliver(), Turn::kStopped);
  handler_.Take();
  receiver_.SetQuota(10);
  EXPECT_FALSE(turns_.TakeDispatch());
  EXPECT_EQ(Deliver(), Turn::kStopped);  // not even when the peer rings
  EXPECT_EQ(handler_.Take(), Lines{});
  Complete(*handler_.held[0]);
  handler_.held.clear();
  EXPECT_TRUE(turns_.TakeDispatch());
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet b", "Packet c", "Batch 2"}));
}

TEST_F(ReceiverTest, AQuotaBelowWhatIsOutstandingCountsFromThere) {
  Start();
  for (const char* name : {"a", "b", "c"}) Write(name);
  Deliver();
  handler_.Take();
  receiver_.SetQuota(2);
  Write("d");
  EXPECT_EQ(Deliver(), Turn::kStopped);
  Complete(*handler_.held[0]);  // 2 are left: still at the quota
  EXPECT_FALSE(turns_.TakeDispatch());
  Complete(*handler_.held[1]);  // 1
  EXPECT_TRUE(turns_.TakeDispatch());
  Deliver();
  EXPECT_EQ(handler_.Take(), (Lines{"Packet d", "Batch 1"}));
  handler_.held.erase(handler_.held.begin(), handler_.held.begin() + 2);
}

TEST_F(ReceiverTest, CompletionsAreReadOnlyUpToThePacketThatWaits) {
  Start();
  receiver_.SetQuota(1);
  Write("a");
  Write("b");
  Write("x", PacketType::kCompletion, 9);
  Deliver();
  EXPECT_EQ(sender_.counters().unexpected_completions, 0u);  // nothing is removed at the limit
}

TEST_F(ReceiverTest, APacketCompletedInsideItsCallbackDoesNotCountAgainstTheQuota) {
  Start();
  receiver_.SetQuota(1);
  CompleteEach();
  WriteMany(50);
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(receiver_.counters().packets, 50u);
  EXPECT_EQ(receiver_.counters().batches, 1u);
}
// ---- A peer that breaks the ring.

TEST_F(ReceiverTest, AnImpossibleWriteIndexIsReportedOnce) {
  for (const std::uint32_t write : {8192u, 0xFFFFFFF8u, 13u}) {
    Start();
    CompleteEach();
    Write("a");
    Deliver();
    handler_.Take();
    memory_.set_word(ring::RingMemory::kWriteIndex, write);
    EXPECT_EQ(Deliver(), Turn::kStopped);
    EXPECT_EQ(handler_.Take(), Lines{"broken RingIndexOutOfRange"}) << write;
    EXPECT_EQ(Deliver(), Turn::kStopped);
    EXPECT_EQ(handler_.Take(), Lines{});
    receiver_.Stop();
    receiver_.Detach();
  }
}

TEST_F(ReceiverTest, AnImpossibleDescriptorIsReportedOnceAfterTheBatchEnded) {
  struct Case {
    std::uint32_t offset;
    unsigned value;
    const char* error;
  };
  for (const Case& each :
       {Case{0, 0x20, "broken PacketTypeUnknown"}, Case{2, 0x01, "broken PacketOffsetOutOfRange"},
        Case{5, 0x40, "broken PacketLengthOutOfRange"},
        Case{7, 0x80, "broken PacketFlagsUnknown"}}) {
    Start();
    CompleteEach();
    Write("a");
    Write("b");
    memory_.set_bytes(32 + each.offset, {each.value});  // each packet takes 32 bytes
    EXPECT_EQ(Deliver(), Turn::kStopped);
    EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Batch 1", each.error}));
    EXPECT_EQ(Deliver(), Turn::kStopped);
    EXPECT_EQ(handler_.Take(), Lines{});
    receiver_.Stop();
    receiver_.Detach();
  }
}

TEST_F(ReceiverTest, AnIndexThatBreaksWhileWePollIsReported) {
  Start();
  EXPECT_EQ(Deliver(Level::kDispatch, 1), Turn::kEmpty);
  memory_.set_word(ring::RingMemory::kWriteIndex, 4);
  EXPECT_EQ(Deliver(Level::kDispatch, 1), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), Lines{"broken RingIndexOutOfRange"});
}

TEST_F(ReceiverTest, SpaceIsGivenBackBeforeALongBatchEndsAndTheWaitingPeerIsRungFor) {
  Start();
  const std::string payload(240, 'x');
  while (true) {
    const auto written =
        writer_->Write({.type = PacketType::kDataInBand, .payload = BytesOf(payload)});
    ASSERT_TRUE(written);
    if (*written == ring::WriteOutcome::kFull) break;
  }
  (void)writer_->Publish();
  ASSERT_FALSE(writer_->RequestSpaceBell(264).value());
  int bells_at_last_packet = 0;
  handler_.on_packet = [&](IncomingPacket& packet) {
    bells_at_last_packet = bell_->count;
    Complete(packet);
  };
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(bells_at_last_packet, 1);
  EXPECT_EQ(bell_->count, 1);
  EXPECT_EQ(receiver_.bells_rung(), 1u);
}
// ---- The end.

TEST_F(ReceiverTest, ADrainIsToldOfOnceWhenItEnds) {
  Start();
  EXPECT_TRUE(receiver_.DrainedOrNotify());
  Write("a");
  Write("b");
  Deliver();
  receiver_.Stop();
  EXPECT_FALSE(receiver_.DrainedOrNotify());
  EXPECT_FALSE(receiver_.DrainedOrNotify());  // asked again, still waited for once
  Complete(*handler_.held[1]);
  EXPECT_FALSE(turns_.TakeState());
  Complete(*handler_.held[0]);
  EXPECT_TRUE(turns_.TakeState());
  EXPECT_TRUE(receiver_.DrainedOrNotify());
  handler_.held.clear();
  // Nobody waits now.
  receiver_.Start();
  CompleteEach();
  Write("c");
  Deliver();
  EXPECT_FALSE(turns_.TakeState());
}

TEST_F(ReceiverTest, OfTwoCompletionsOneCounts) {
  Start();
  Write("a");
  Deliver();
  IncomingPacket& packet = *handler_.held.back();
  handler_.held.clear();
  EXPECT_TRUE(receiver_.Retire(packet));
  EXPECT_FALSE(receiver_.Retire(packet));
  EXPECT_FALSE(receiver_.Fail(packet));
  receiver_.Recycle(packet);
  receiver_.CountRetired();
  EXPECT_EQ(receiver_.counters().outstanding, 0u);
}

// The state worker comes upon a finished drain by itself while the one who finished it is still
// about to tell of it: it must not go on, because the channel might be destroyed under the other's
// feet.
TEST_F(ReceiverTest, TheDrainDoesNotEndBeforeWhoeverEndedItHasLetGo) {
  Start();
  Write("a");
  Deliver();
  receiver_.Stop();
  ASSERT_FALSE(receiver_.DrainedOrNotify());
  std::atomic<bool> has_let_go{false};
  std::thread worker;
  turns_.on_state = [&] {
    worker = std::thread([&] {
      EXPECT_TRUE(receiver_.DrainedOrNotify());
      EXPECT_TRUE(has_let_go);
    });
    for (int i = 0; i < 2000; ++i) std::this_thread::yield();
    has_let_go = true;
  };
  Complete(*handler_.held.back());
  handler_.held.clear();
  worker.join();
  turns_.on_state = nullptr;
}

// Two threads: one completes, the other waits for the drain as the state worker does.
TEST_F(ReceiverTest, NoDrainIsMissed) {
  Start();
  std::atomic<IncomingPacket*> slot{nullptr};
  std::atomic<bool> stopping{false};
  std::thread owner([&] {
    while (!stopping) {
      IncomingPacket* const packet = slot.exchange(nullptr);
      if (packet != nullptr) {
        Complete(*packet);
      } else {
        std::this_thread::yield();
      }
    }
  });
  const std::atomic<bool> never{false};
  for (int round = 0; round < 3000; ++round) {
    Write("a");
    Deliver();
    receiver_.Stop();
    turns_.TakeState();
    slot = handler_.held.back();
    handler_.held.clear();
    while (!receiver_.DrainedOrNotify()) {
      ASSERT_TRUE(turns_.AwaitState(never)) << "nobody told of the end of the drain";
    }
    receiver_.Start();
  }
  stopping = true;
  owner.join();
}

TEST_F(ReceiverTest, NoCompletionIsMissedByAQueueAtItsQuota) {
  Start();
  receiver_.SetQuota(1);
  std::atomic<IncomingPacket*> slot{nullptr};
  std::atomic<bool> stopping{false};
  std::thread owner([&] {
    while (!stopping) {
      IncomingPacket* const packet = slot.exchange(nullptr);
      if (packet != nullptr) {
        Complete(*packet);
      } else {
        std::this_thread::yield();
      }
    }
  });
  handler_.on_packet = [&](IncomingPacket& packet) { slot = &packet; };
  constexpr std::uint64_t kPackets = 5000;
  std::uint64_t written = 0;
  while (receiver_.counters().packets < kPackets) {
    while (written < kPackets && written < receiver_.counters().packets + 100) {
      Write("x");
      ++written;
    }
    // Blocked: only the completion's own request for a turn leads on; without it this has no end.
    if (Deliver() != Turn::kStopped) continue;
    while (!turns_.TakeDispatch()) std::this_thread::yield();
  }
  while (receiver_.counters().outstanding != 0) std::this_thread::yield();
  stopping = true;
  owner.join();
  handler_.on_packet = nullptr;
}

}  // namespace
}  // namespace kmcl::channel
