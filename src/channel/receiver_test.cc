#include "channel/receiver.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "channel/test_support.h"
#include "ring/outgoing_ring.h"
#include "wire/pipe.h"

namespace kmcl::channel {
namespace {

using wire::PacketType;

// A receiver on one side of a ring, and on the other a peer that writes whatever it likes.
class ReceiverTest : public ::testing::Test {
 protected:
  ReceiverTest()
      : memory_(8192, ring::Mapped::kTwice),
        channel_(Side::kServer, handler_, turns_),
        receiver_(handler_, turns_, sender_) {
    Configure({.packet_bytes = 256, .context_bytes = 0, .pipe = false});
  }
  ~ReceiverTest() override {
    for (IncomingPacket* packet : handler_.held) Complete(*packet);
    if (!attached_) return;
    receiver_.Stop();
    receiver_.Detach();
  }

  void Configure(const Receiver::Limits& limits) { receiver_.Configure(channel_, limits); }
  void Attach() {
    auto writer = ring::OutgoingRing::Create(memory_.pages());
    ASSERT_TRUE(writer);
    writer_.emplace(std::move(*writer));
    auto incoming = ring::IncomingRing::Attach(memory_.pages());
    ASSERT_TRUE(incoming);
    receiver_.Attach(std::move(*incoming), bell_);
    attached_ = true;
  }
  void Start() {
    Attach();
    receiver_.Start();
  }

  // The peer writes a packet. True if it has to ring.
  bool Write(const std::string& text, PacketType type = PacketType::kDataInBand,
             std::uint64_t id = 0, bool wants_completion = false,
             std::span<const std::byte> header = {}) {
    const auto written =
        writer_->Write({.type = type,
                        .flags = static_cast<std::uint16_t>(wants_completion ? 1 : 0),
                        .transaction_id = id,
                        .header = header,
                        .payload = BytesOf(text)});
    EXPECT_TRUE(written && *written == ring::WriteOutcome::kWritten);
    return writer_->Publish() == ring::Bell::kRing;
  }
  void WriteMany(int count) {
    for (int i = 0; i < count; ++i) Write("x");
  }

  Turn Deliver(Level level = Level::kDispatch, std::uint32_t spins = 0) {
    std::optional<Error> broken;
    const Turn turn = receiver_.Deliver(level, spins, broken);
    if (broken) handler_.Note(std::string("broken ") + ErrorName(*broken));
    return turn;
  }
  void Complete(IncomingPacket& packet) {
    if (!receiver_.Retire(packet)) return;
    receiver_.Recycle(packet);
    receiver_.CountRetired();
  }
  void CompleteEach() {
    handler_.on_packet = [this](IncomingPacket& packet) { Complete(packet); };
  }
  bool IsMasked() { return memory_.word(ring::RingMemory::kInterruptMask) != 0; }

  ring::RingMemory memory_;
  RecordingHandler handler_;
  RecordingTurns turns_;
  Channel channel_;
  std::shared_ptr<CountingBell> bell_ = std::make_shared<CountingBell>();
  Sender sender_;
  Receiver receiver_;
  std::optional<ring::OutgoingRing> writer_;
  bool attached_ = false;
};

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

// ---- Level.

TEST_F(ReceiverTest, PassiveDeliveryIsHandedOver) {
  Start();
  CompleteEach();
  receiver_.SetPassive(true);
  Write("a");
  Write("b");
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), Lines{});
  EXPECT_TRUE(turns_.TakePassive());
  EXPECT_EQ(Deliver(Level::kPassive), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
  receiver_.SetPassive(false);
  Write("c");
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet c", "Batch 1"}));
}

TEST_F(ReceiverTest, AnEmptyRingNeedsNoPassiveThread) {
  Start();
  receiver_.SetPassive(true);
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kAsleep);
  EXPECT_FALSE(turns_.TakePassive());
}

TEST_F(ReceiverTest, TheNextDeliveryFollowsAChangeOfLevelAtOnce) {
  Start();
  handler_.on_packet = [this](IncomingPacket& packet) {
    receiver_.SetPassive(true);
    Complete(packet);
  };
  Write("a");
  Write("b");
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), Lines{"Packet a"});
  EXPECT_TRUE(turns_.TakePassive());
  EXPECT_EQ(Deliver(Level::kPassive), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet b", "Batch 2"}));  // they were both in the ring
}

TEST_F(ReceiverTest, ADeferredPacketComesBackFirstAtPassiveLevelWithAllItHad) {
  Configure({.packet_bytes = 256, .context_bytes = 24, .pipe = false});
  Start();
  int deferrals = 2;
  handler_.on_packet = [&](IncomingPacket& packet) {
    if (TextOf(packet.payload) == "b") {
      auto* context = static_cast<unsigned char*>(packet.context);
      EXPECT_EQ(*context, 2 - deferrals);  // zeroed once, then kept
      ++*context;
      EXPECT_TRUE(packet.wants_completion);
      if (deferrals-- > 0) {
        EXPECT_TRUE(receiver_.Defer(packet));
        EXPECT_FALSE(receiver_.Defer(packet));  // once
        return;
      }
    }
    Complete(packet);
  };
  Write("a");
  Write("b", PacketType::kDataInBand, 5, true);
  Write("c");
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 1"}));
  EXPECT_EQ(receiver_.counters().outstanding, 0u);
  EXPECT_TRUE(turns_.TakePassive());
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kStopped);  // packets behind it wait
  EXPECT_EQ(handler_.Take(), Lines{});
  EXPECT_TRUE(turns_.TakePassive());
  EXPECT_EQ(Deliver(Level::kPassive), Turn::kStopped);  // deferred again
  EXPECT_EQ(handler_.Take(), Lines{"Packet b"});        // nothing was delivered for good: no batch
  EXPECT_TRUE(turns_.TakePassive());
  EXPECT_EQ(Deliver(Level::kPassive), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet b", "Packet c", "Batch 2"}));
  EXPECT_EQ(receiver_.counters().packets, 3u);  // counted at its final delivery
}

TEST_F(ReceiverTest, OnlyThePacketAtHandMayBeDeferred) {
  Start();
  IncomingPacket* first = nullptr;
  handler_.on_packet = [&](IncomingPacket& packet) {
    if (first == nullptr) {
      first = &packet;
    } else {
      EXPECT_FALSE(receiver_.Defer(*first));
      std::thread([&] { EXPECT_FALSE(receiver_.Defer(packet)); }).join();
      Complete(packet);
    }
  };
  Write("a");
  Write("b");
  Deliver();
  EXPECT_FALSE(receiver_.Defer(*first));  // its callback has returned
  Complete(*first);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
}

TEST_F(ReceiverTest, ACompletedPacketCannotBeDeferredOrFailed) {
  Start();
  handler_.on_packet = [&](IncomingPacket& packet) {
    EXPECT_TRUE(receiver_.Retire(packet));
    EXPECT_FALSE(receiver_.Defer(packet));
    EXPECT_FALSE(receiver_.Fail(packet));
    EXPECT_FALSE(receiver_.Retire(packet));
    receiver_.Recycle(packet);
    receiver_.CountRetired();
  };
  Write("a");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Batch 1"}));
}

TEST_F(ReceiverTest, ADeferredPacketIsDroppedWithTheRing) {
  Start();
  handler_.on_packet = [&](IncomingPacket& packet) { EXPECT_TRUE(receiver_.Defer(packet)); };
  Write("a");
  Deliver();
  EXPECT_TRUE(receiver_.DrainedOrNotify());  // it went back to the queue
  receiver_.Stop();
  receiver_.Detach();
  Start();
  EXPECT_EQ(Deliver(Level::kPassive), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), Lines{"Packet a"});
}

TEST_F(ReceiverTest, ADeferredPacketObeysTheQuota) {
  Start();
  Write("a");
  Deliver();
  handler_.on_packet = [&](IncomingPacket& packet) { EXPECT_TRUE(receiver_.Defer(packet)); };
  Write("b");
  Deliver();
  handler_.Take();
  receiver_.SetQuota(1);
  handler_.on_packet = nullptr;
  EXPECT_EQ(Deliver(Level::kPassive), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), Lines{});
  Complete(*handler_.held[0]);
  handler_.held.clear();
  EXPECT_TRUE(turns_.TakeDispatch());
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kStopped);  // hands over once more
  EXPECT_TRUE(turns_.TakePassive());
  EXPECT_EQ(Deliver(Level::kPassive), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet b", "Batch 1"}));
}

TEST_F(ReceiverTest, WhoComesWhileAnotherDeliversIsMadeUpFor) {
  Start();
  handler_.on_packet = [&](IncomingPacket& packet) {
    EXPECT_EQ(Deliver(), Turn::kStopped);  // this channel is being delivered already
    Complete(packet);
  };
  Write("a");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_TRUE(turns_.TakeDispatch());
  handler_.on_packet = nullptr;
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_FALSE(turns_.TakeDispatch());
}

// ---- Failing.

TEST_F(ReceiverTest, AFailedPacketStopsTheQueueUntilTheNextOpen) {
  Start();
  handler_.on_packet = [&](IncomingPacket& packet) {
    if (TextOf(packet.payload) == "b") {
      EXPECT_TRUE(receiver_.Fail(packet));
      EXPECT_FALSE(receiver_.Fail(packet));
    } else {
      Complete(packet);
    }
  };
  for (const char* name : {"a", "b", "c"}) Write(name);
  Write("x", PacketType::kCompletion, 1);
  EXPECT_EQ(Deliver(), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
  EXPECT_EQ(receiver_.counters().outstanding, 0u);
  receiver_.Stop();
  receiver_.Start();
  EXPECT_EQ(Deliver(), Turn::kStopped);  // neither packets nor completions
  EXPECT_EQ(sender_.counters().unexpected_completions, 0u);
  receiver_.Stop();
  receiver_.Detach();
  Start();
  Write("d");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet d", "Batch 1"}));
}

TEST_F(ReceiverTest, APacketMayBeFailedAfterItsCallback) {
  Start();
  Write("a");
  Deliver();
  IncomingPacket* const packet = handler_.held.back();
  handler_.held.clear();
  EXPECT_TRUE(receiver_.Fail(*packet));
  EXPECT_EQ(receiver_.counters().outstanding, 0u);
  Write("b");
  EXPECT_EQ(Deliver(), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Batch 1"}));
}

TEST_F(ReceiverTest, TypesThatChannelsDoNotCarryStopTheQueue) {
  const auto types = {PacketType::kSynch,
                      PacketType::kAddTransferPageSet,
                      PacketType::kRemoveTransferPageSet,
                      PacketType::kEstablishGpadl,
                      PacketType::kTeardownGpadl,
                      PacketType::kCancelRequest,
                      PacketType::kDataUsingAdditionalPackets,
                      PacketType::kAdditionalData};
  for (const PacketType type : types) {
    LogLines log;
    Start();
    CompleteEach();
    Write("a");
    Write("b", type);
    Write("c");
    EXPECT_EQ(Deliver(), Turn::kStopped);
    EXPECT_EQ(Deliver(), Turn::kStopped);
    EXPECT_EQ(handler_.Take(), (Lines{"Packet a", "Batch 1"})) << static_cast<int>(type);
    EXPECT_EQ(log.count(), 1);
    receiver_.Stop();
    receiver_.Detach();
  }
}

TEST_F(ReceiverTest, ExternalDataIsMarkedAndItsHeaderIsKept) {
  Start();
  const std::array<std::byte, 16> header{std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},
                                         std::byte{0x42}};
  for (const PacketType type : {PacketType::kDataUsingGpaDirect, PacketType::kDataUsingGpadl,
                                PacketType::kDataUsingTransferPages}) {
    Write("payload", type, 1, true, header);
  }
  Write("plain");
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  ASSERT_EQ(handler_.held.size(), 4u);
  for (int i = 0; i < 3; ++i) {
    const IncomingPacket& packet = *handler_.held[static_cast<std::size_t>(i)];
    EXPECT_TRUE(packet.external_data);
    // What refers to something else is no description that could be followed.
    ASSERT_EQ(packet.header.size(), i == 0 ? 16u : 0u);
    if (i == 0) {
      EXPECT_EQ(packet.header[4], std::byte{0x42});
    }
    EXPECT_EQ(TextOf(packet.payload), "payload");
  }
  EXPECT_FALSE(handler_.held[3]->external_data);
}

TEST_F(ReceiverTest, ALargeHeaderFitsBesideTheLargestPayload) {
  Start();
  const std::vector<std::byte> header(2048, std::byte{7});
  Write(std::string(256, 'p'), PacketType::kDataUsingGpaDirect, 1, true, header);
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  ASSERT_EQ(handler_.held.size(), 1u);
  EXPECT_EQ(handler_.held[0]->header.size(), 2048u);
  EXPECT_EQ(handler_.held[0]->payload.size(), 256u);
}

TEST_F(ReceiverTest, APacketBeyondTheMaximumStopsTheQueue) {
  LogLines log;
  Configure({.packet_bytes = 100, .context_bytes = 0, .pipe = false});
  Start();
  CompleteEach();
  Write(std::string(104, 'x'));  // 100, rounded up on the wire
  Write(std::string(105, 'y'));
  EXPECT_EQ(Deliver(), Turn::kStopped);
  EXPECT_EQ(handler_.Take(), (Lines{"Packet " + std::string(104, 'x'), "Batch 1"}));
  EXPECT_EQ(log.count(), 1);
}

// ---- Pipes.

std::string PipePacket(wire::PipePacketType type, std::uint32_t len, const std::string& data) {
  const wire::PipeHeader header{type, len};
  std::string packet(reinterpret_cast<const char*>(&header), sizeof header);
  return packet + data;
}

TEST_F(ReceiverTest, APipePacketArrivesWithItsExactLengthAndWithoutItsHeader) {
  Configure({.packet_bytes = 16, .context_bytes = 0, .pipe = true});
  Start();
  Write(PipePacket(wire::PipePacketType::kData, 5, "hello"));
  Write(PipePacket(wire::PipePacketType::kData, 0, ""));
  Write(PipePacket(wire::PipePacketType::kData, 16, "0123456789abcdef"));
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  EXPECT_EQ(handler_.Take(),
            (Lines{"Packet hello", "Packet ", "Packet 0123456789abcdef", "Batch 3"}));
  ASSERT_EQ(handler_.held.size(), 3u);
  EXPECT_EQ(handler_.held[0]->payload.size(), 5u);
  EXPECT_EQ(handler_.held[1]->payload.size(), 0u);
}

TEST_F(ReceiverTest, APipeWithoutAValidHeaderStopsTheQueue) {
  const auto bad = {
      std::string(),                                            // no header
      PipePacket(wire::PipePacketType::kData, 9, "12345678"),   // longer than the packet
      PipePacket(wire::PipePacketType::kData, 0xFFFFFFFF, ""),  //
      PipePacket(wire::PipePacketType::kPartial, 8, "12345678"),
      PipePacket(wire::PipePacketType::kSetupGpaDirect, 8, "12345678"),
      PipePacket(static_cast<wire::PipePacketType>(99), 8, "12345678"),
      PipePacket(wire::PipePacketType::kData, 265, std::string(265, 'x')),  // beyond the maximum
  };
  Configure({.packet_bytes = 256, .context_bytes = 0, .pipe = true});
  for (const std::string& packet : bad) {
    LogLines log;
    Start();
    Write(packet);
    EXPECT_EQ(Deliver(), Turn::kStopped);
    EXPECT_EQ(handler_.Take(), Lines{});
    EXPECT_EQ(log.count(), 1);
    receiver_.Stop();
    receiver_.Detach();
  }
}

// ---- Contexts.

TEST_F(ReceiverTest, TheContextIsZeroAtFirstDeliveryHoweverOftenItsObjectWasUsed) {
  Configure({.packet_bytes = 64, .context_bytes = 40, .pipe = false});
  Start();
  int delivered = 0;
  handler_.on_packet = [&](IncomingPacket& packet) {
    auto* const context = static_cast<unsigned char*>(packet.context);
    ASSERT_NE(context, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(context) % 16, 0u);
    for (int i = 0; i < 40; ++i) EXPECT_EQ(context[i], 0);
    std::memset(context, 0xEE, 40);
    ++delivered;
    Complete(packet);
  };
  for (int round = 0; round < 3; ++round) {
    WriteMany(20);
    Write("large", PacketType::kDataUsingGpaDirect, 1, false, std::vector<std::byte>(512));
    Deliver(Level::kDispatch, 1);
  }
  EXPECT_EQ(delivered, 63);
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
  const auto deadline = Patience();
  while (receiver_.counters().packets < kPackets) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the queue was not restarted";
    while (written < kPackets && written < receiver_.counters().packets + 100) {
      Write("x");
      ++written;
    }
    // Blocked: only the completion's own request for a turn leads on.
    if (Deliver() != Turn::kStopped) continue;
    while (!turns_.TakeDispatch() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
  }
  while (receiver_.counters().outstanding != 0) std::this_thread::yield();
  stopping = true;
  owner.join();
  handler_.on_packet = nullptr;
}

}  // namespace
}  // namespace kmcl::channel
