// What becomes of one packet: its level, its failure, its form, its context.
#include <cstring>
#include <string>
#include <vector>

#include "channel/receiver_fixture.h"
#include "wire/pipe.h"

namespace kmcl::channel {
namespace {

using wire::PacketType;
using ReceivedPacketTest = ReceiverTest;

// ---- Level.

TEST_F(ReceivedPacketTest, PassiveDeliveryIsHandedOver) {
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

TEST_F(ReceivedPacketTest, AnEmptyRingNeedsNoPassiveThread) {
  Start();
  receiver_.SetPassive(true);
  EXPECT_EQ(Deliver(Level::kDispatch), Turn::kAsleep);
  EXPECT_FALSE(turns_.TakePassive());
}

TEST_F(ReceivedPacketTest, TheNextDeliveryFollowsAChangeOfLevelAtOnce) {
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

TEST_F(ReceivedPacketTest, ADeferredPacketComesBackFirstAtPassiveLevelWithAllItHad) {
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

TEST_F(ReceivedPacketTest, OnlyThePacketAtHandMayBeDeferred) {
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

TEST_F(ReceivedPacketTest, ACompletedPacketCannotBeDeferredOrFailed) {
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

TEST_F(ReceivedPacketTest, ADeferredPacketIsDroppedWithTheRing) {
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

TEST_F(ReceivedPacketTest, ADeferredPacketObeysTheQuota) {
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

TEST_F(ReceivedPacketTest, WhoComesWhileAnotherDeliversIsMadeUpFor) {
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

TEST_F(ReceivedPacketTest, AFailedPacketStopsTheQueueUntilTheNextOpen) {
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

TEST_F(ReceivedPacketTest, APacketMayBeFailedAfterItsCallback) {
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

TEST_F(ReceivedPacketTest, TypesThatChannelsDoNotCarryStopTheQueue) {
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

TEST_F(ReceivedPacketTest, ExternalDataIsMarkedAndItsHeaderIsKept) {
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

TEST_F(ReceivedPacketTest, ALargeHeaderFitsBesideTheLargestPayload) {
  Start();
  const std::vector<std::byte> header(2048, std::byte{7});
  Write(std::string(256, 'p'), PacketType::kDataUsingGpaDirect, 1, true, header);
  EXPECT_EQ(Deliver(), Turn::kAsleep);
  ASSERT_EQ(handler_.held.size(), 1u);
  EXPECT_EQ(handler_.held[0]->header.size(), 2048u);
  EXPECT_EQ(handler_.held[0]->payload.size(), 256u);
}

TEST_F(ReceivedPacketTest, APacketBeyondTheMaximumStopsTheQueue) {
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

TEST_F(ReceivedPacketTest, APipePacketArrivesWithItsExactLengthAndWithoutItsHeader) {
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

TEST_F(ReceivedPacketTest, APipeWithoutAValidHeaderStopsTheQueue) {
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

TEST_F(ReceivedPacketTest, TheContextIsZeroAtFirstDeliveryHoweverOftenItsObjectWasUsed) {
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

}  // namespace
}  // namespace kmcl::channel
