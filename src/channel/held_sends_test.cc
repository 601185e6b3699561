// What callbacks at dispatch level send on their own channel: written at once, published together.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "channel/channel.h"
#include "channel/test_support.h"

namespace kmcl::channel {
namespace {

constexpr std::uint64_t kForEver = UINT64_MAX;

// A server whose callbacks complete what they are given, and a client that asks.
class HeldSends : public testing::Test {
 protected:
  explicit HeldSends(std::uint32_t ring_bytes = 65536) : pair_(ring_bytes) {
    pair_.Start();
    pair_.server.channel->SetHoldTime(kForEver);
    pair_.client.channel->SetHoldTime(kForEver);
    pair_.server.handler.on_packet = [this](IncomingPacket& packet) {
      EXPECT_TRUE(pair_.server.channel->Complete(packet, BytesOf("answer")));
    };
  }
  void Ask(int count) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(pair_.client.Send("question", true));
  }
  static std::uint64_t Publications(const End& end) {
    return end.channel->counters().sender.publications;
  }
  // Those of one turn of the server.
  std::uint64_t ServerTurn() {
    const std::uint64_t before = Publications(pair_.server);
    pair_.server.channel->Dispatch(0);
    return Publications(pair_.server) - before;
  }
  std::uint64_t Answers() {
    pair_.client.Dispatch();
    return pair_.client.channel->counters().receiver.completions;
  }
  // Sends as the edge does.
  static bool SendPlain(End& end, const char* name, bool wants_completion = false) {
    if (!end.handler.on_done) {
      end.handler.on_done = [&end](Packet& done) { end.channel->FreePacket(done); };
    }
    Packet* const packet = end.NewPacket(name);
    const std::string text(name);
    const auto data = BytesOf(text);
    const auto bytes = static_cast<std::uint32_t>(data.size());
    if (wants_completion) {
      return end.channel->SendPlain<true, Channel::Length::kAny>(*packet, data.data(), bytes);
    }
    if (!end.channel->SendPlain<false, Channel::Length::kAny>(*packet, data.data(), bytes)) {
      return false;
    }
    packet->state.store(Packet::State::kIdle);
    end.channel->FreePacket(*packet);
    return true;
  }

  Pair pair_;
};

TEST_F(HeldSends, TheCompletionsOfABatchArePublishedOnce) {
  Ask(20);
  EXPECT_EQ(ServerTurn(), 1u);
  EXPECT_EQ(pair_.server.bell->count, 1);
  EXPECT_EQ(Answers(), 20u);
}

TEST_F(HeldSends, NoMoreThanThirtyTwoAreHeld) {
  Ask(80);
  EXPECT_EQ(ServerTurn(), 3u);
  EXPECT_EQ(Answers(), 80u);
}

TEST_F(HeldSends, ATurnThatEndsForOthersToHaveTheirsLeavesNothing) {
  Ask(300);  // a turn is 256 packets
  EXPECT_EQ(ServerTurn(), 8u);
  EXPECT_EQ(Answers(), 256u);
  pair_.server.Dispatch();
  EXPECT_EQ(Answers(), 300u);
}

TEST_F(HeldSends, OfSlowCallbacksEachIsPublished) {
  pair_.server.channel->SetHoldTime(0);
  Ask(20);
  EXPECT_EQ(ServerTurn(), 20u);
  EXPECT_EQ(Answers(), 20u);
}

TEST_F(HeldSends, AtPassiveLevelNothingIsHeld) {
  pair_.server.channel->SetPassive(true);
  Ask(20);
  const std::uint64_t before = Publications(pair_.server);
  pair_.server.Dispatch();
  ASSERT_TRUE(pair_.server.turns.TakePassive());
  pair_.server.channel->DeliverPassive();
  EXPECT_EQ(Publications(pair_.server) - before, 20u);
  EXPECT_EQ(Answers(), 20u);
}

TEST_F(HeldSends, WhatProcessingCompleteSendsIsPublishedBehindIt) {
  pair_.server.handler.on_batch = [this] {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(SendPlain(pair_.server, "news"));
  };
  Ask(5);
  EXPECT_EQ(ServerTurn(), 2u) << "the completions, then the news";
  pair_.client.handler.on_packet = [this](IncomingPacket& packet) {
    pair_.client.channel->Complete(packet, {});
  };
  EXPECT_EQ(Answers(), 5u);
  EXPECT_EQ(pair_.client.channel->counters().receiver.packets, 3u);
}

TEST_F(HeldSends, APacketFromAnotherThreadShowsWhatIsHeld) {
  int seen = 0;
  pair_.server.handler.on_packet = [&](IncomingPacket& packet) {
    pair_.server.channel->Complete(packet, {});
    if (++seen != 3) return;
    std::thread([&] {
      pair_.client.Dispatch();
      EXPECT_EQ(pair_.client.channel->counters().receiver.completions, 0u) << "still held";
      EXPECT_TRUE(SendPlain(pair_.server, "from elsewhere"));
      pair_.client.handler.on_packet = [this](IncomingPacket& news) {
        pair_.client.channel->Complete(news, {});
      };
      pair_.client.Dispatch();
      EXPECT_EQ(pair_.client.channel->counters().receiver.completions, 3u);
      EXPECT_EQ(pair_.client.channel->counters().receiver.packets, 1u);
    }).join();
  };
  Ask(5);
  EXPECT_EQ(ServerTurn(), 2u);
  EXPECT_EQ(Answers(), 5u);
}

// A client that sends the next request from the completion routine of the last.
TEST_F(HeldSends, RequestsFromCompletionRoutinesArePublishedOnce) {
  int again = 10;
  pair_.client.handler.on_done = [&](Packet& done) {
    if (again > 0) {
      --again;
      EXPECT_TRUE((pair_.client.channel->SendPlain<true, Channel::Length::kAny>(
          done, BytesOf("again").data(), 5)));
    } else {
      pair_.client.channel->FreePacket(done);
    }
  };
  Ask(10);
  ServerTurn();
  const std::uint64_t before = Publications(pair_.client);
  pair_.client.Dispatch();
  EXPECT_EQ(Publications(pair_.client) - before, 1u);
  ServerTurn();
  EXPECT_EQ(Answers(), 20u);
}

TEST_F(HeldSends, SendsOnAnotherChannelAreNotHeld) {
  Pair other(65536);
  other.Start();
  pair_.server.handler.on_packet = [&](IncomingPacket& packet) {
    pair_.server.channel->Complete(packet, {});
    const std::uint64_t before = Publications(other.client);
    EXPECT_TRUE(SendPlain(other.client, "passed on"));
    EXPECT_EQ(Publications(other.client) - before, 1u);
  };
  Ask(5);
  EXPECT_EQ(ServerTurn(), 1u);
  other.server.handler.on_packet = [&](IncomingPacket& packet) {
    other.server.channel->Complete(packet, {});
  };
  other.server.Dispatch();
  EXPECT_EQ(other.server.channel->counters().receiver.packets, 5u);
  EXPECT_EQ(Answers(), 5u);
}

TEST_F(HeldSends, ASynchronousRequestPublishesAllAndIsNotHeld) {
  int seen = 0;
  pair_.server.handler.on_packet = [&](IncomingPacket& packet) {
    pair_.server.channel->Complete(packet, {});
    if (++seen != 2) return;
    const std::uint64_t before = Publications(pair_.server);
    EXPECT_TRUE(pair_.server.channel->RequestNow(BytesOf("now"), false, {}));
    EXPECT_EQ(Publications(pair_.server) - before, 1u);
  };
  Ask(4);
  EXPECT_EQ(ServerTurn(), 2u);
  pair_.client.handler.on_packet = [this](IncomingPacket& packet) {
    pair_.client.channel->Complete(packet, {});
  };
  EXPECT_EQ(Answers(), 4u);
}

TEST_F(HeldSends, TheCountOfOutstandingPacketsIsExactInsideCallbacks) {
  const auto outstanding = [this] { return pair_.server.channel->counters().receiver.outstanding; };
  std::vector<IncomingPacket*> kept;
  std::uint64_t expected = 0;
  pair_.server.handler.on_packet = [&](IncomingPacket& packet) {
    EXPECT_EQ(outstanding(), expected + 1);
    if (kept.size() < 3) {
      kept.push_back(&packet);
      ++expected;
    } else if (kept.size() == 3 && expected == 3) {
      // On another thread, while its callback runs.
      std::thread([&] { pair_.server.channel->Complete(packet, {}); }).join();
      EXPECT_EQ(outstanding(), 3u);
    } else {
      pair_.server.channel->Complete(packet, {});
      EXPECT_EQ(outstanding(), expected);
    }
  };
  Ask(6);
  ServerTurn();
  EXPECT_EQ(outstanding(), 3u);
  for (IncomingPacket* packet : kept) pair_.server.channel->Complete(*packet, {});
  EXPECT_EQ(outstanding(), 0u);
  EXPECT_EQ(Answers(), 6u);
}

TEST_F(HeldSends, APacketIsRetiredOnceWhereverThatHappens) {
  pair_.server.handler.on_packet = [this](IncomingPacket& packet) {
    EXPECT_TRUE(pair_.server.channel->Complete(packet, {}));
    EXPECT_FALSE(pair_.server.channel->Complete(packet, {}));
    EXPECT_FALSE(pair_.server.channel->CompletePlain(packet));
    EXPECT_FALSE(pair_.server.channel->Fail(packet));
    EXPECT_FALSE(pair_.server.channel->Defer(packet));
  };
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(pair_.client.Send("note"));
  Ask(3);
  ServerTurn();
  EXPECT_EQ(Answers(), 3u);
  EXPECT_EQ(pair_.server.channel->counters().receiver.outstanding, 0u);
}

class HeldSendsInASmallRing : public HeldSends {
 protected:
  HeldSendsInASmallRing() : HeldSends(4096) {}
};

TEST_F(HeldSendsInASmallRing, NoMoreThanAnEighthOfTheRingIsHeld) {
  Ask(32);  // completions of 32 bytes each: 16 are an eighth
  EXPECT_EQ(ServerTurn(), 2u);
  EXPECT_EQ(Answers(), 32u);
}

// The queue asks for a bell when there is no room, and for that all must have been published.
TEST_F(HeldSendsInASmallRing, WhatFindsNoRoomIsQueuedBehindWhatWasHeld) {
  const std::string answer(400, '.');
  pair_.server.handler.on_packet = [&](IncomingPacket& packet) {
    EXPECT_TRUE(pair_.server.channel->Complete(packet, BytesOf(answer)));
  };
  for (int i = 0; i < 10; ++i) {
    Ask(30);
    for (int turn = 0; turn < 10; ++turn) {
      ServerTurn();
      pair_.client.Dispatch();
    }
  }
  EXPECT_EQ(Answers(), 300u);
  EXPECT_GT(pair_.server.channel->counters().sender.ring_full, 0u);
}

}  // namespace
}  // namespace kmcl::channel
