// Bells by themselves: flags, edges, and that none is lost. What a hostile client can do to them is
// in shm_hostile_bells_test.cc.
#include "transport/bells.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <atomic>

#include "transport/partition_memory.h"
#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

constexpr wire::ChannelId kChannel{77};

struct BellPair {
  Bells server;
  Bells client;
  Mapping pages;  // for a look at the bytes
};

BellPair MakeBells(Peer client, std::uint32_t count = 1) {
  Result<PartitionMemory> memory = PartitionMemory::Create(count, std::uint64_t{1} << 20);
  std::vector<wire::PageNumber> pages;
  for (std::uint64_t page = 0; page < count; ++page) pages.push_back(wire::PageNumber{page});
  Result<Bells::Ends> ends = Bells::MakeEnds(count, client);
  return {Bells(Side::kServer, client, *memory->Map(pages), std::move(ends->server)),
          Bells(Side::kClient, Peer::kTrusted, *memory->Map(pages), std::move(ends->client)),
          *memory->Map(pages)};
}

bool Has(const ChannelSet& set, std::uint32_t channel) {
  return (set[channel / 64] >> channel % 64 & 1) != 0;
}

// Each test with both kinds of client: one waits on the eventfd, a stranger on an epoll around it.
class BellsTest : public ::testing::TestWithParam<Peer> {};

TEST_P(BellsTest, FlagsStandWhereTheInterruptPageHasThem) {
  BellPair bells = MakeBells(GetParam(), 2);
  bells.server.MakeDoorbell(wire::ChannelId{9}, 0)->Ring();
  bells.client.MakeDoorbell(wire::ChannelId{2047}, 1)->Ring();
  EXPECT_EQ(bells.pages.base()[1], std::byte{0x02});
  EXPECT_EQ(bells.pages.base()[4096 + 2048 + 255], std::byte{0x80});
  std::size_t set_bytes = 0;
  for (std::size_t offset = 0; offset < bells.pages.bytes(); ++offset) {
    if (bells.pages.base()[offset] != std::byte{0}) ++set_bytes;
  }
  EXPECT_EQ(set_bytes, 2U);
}

TEST_P(BellsTest, ABellWakesOneInboxAndCollectTakesIt) {
  BellPair bells = MakeBells(GetParam(), 2);
  for (const bool to_server : {true, false}) {
    Bells& from = to_server ? bells.client : bells.server;
    Bells& to = to_server ? bells.server : bells.client;
    BellWatch other(to.inbox(0));
    BellWatch watch(to.inbox(1));
    EXPECT_FALSE(watch.Next(0));
    from.MakeDoorbell(kChannel, 1)->Ring();
    EXPECT_FALSE(other.Next(0));
    EXPECT_TRUE(watch.Next(0));
    const ChannelSet set = to.inbox(1).Collect();
    EXPECT_TRUE(Has(set, 77));
    EXPECT_EQ(set[0], 0U);
    EXPECT_FALSE(watch.Next(0));
    EXPECT_EQ(to.inbox(1).Collect(), ChannelSet{});
  }
}

TEST_P(BellsTest, ASetFlagIsNotRungAgain) {
  BellPair bells = MakeBells(GetParam());
  BellWatch watch(bells.client.inbox(0));
  const auto doorbell = bells.server.MakeDoorbell(kChannel, 0);
  doorbell->Ring();
  EXPECT_TRUE(watch.Next(0));
  for (int ring = 0; ring < 5; ++ring) doorbell->Ring();
  EXPECT_FALSE(watch.Next(0));
  EXPECT_TRUE(Has(bells.client.inbox(0).Collect(), 77));
}

TEST_P(BellsTest, EveryBellIsAnEdgeThoughNobodyReadsTheCounter) {
  BellPair bells = MakeBells(GetParam());
  BellWatch client(bells.client.inbox(0));
  BellWatch server(bells.server.inbox(0));
  const auto to_client = bells.server.MakeDoorbell(kChannel, 0);
  const auto to_server = bells.client.MakeDoorbell(kChannel, 0);
  for (int ring = 0; ring < 1000; ++ring) {
    to_client->Ring();
    to_server->Ring();
    ASSERT_TRUE(client.Next(0));
    ASSERT_TRUE(server.Next(0));
    ASSERT_TRUE(Has(bells.client.inbox(0).Collect(), 77));
    ASSERT_TRUE(Has(bells.server.inbox(0).Collect(), 77));
    ASSERT_FALSE(client.Next(0));
    ASSERT_FALSE(server.Next(0));
  }
}

TEST_P(BellsTest, ABellBetweenCollectAndTheNextWaitIsAnEdge) {
  BellPair bells = MakeBells(GetParam());
  BellInbox& inbox = bells.client.inbox(0);
  BellWatch watch(inbox);
  const auto first = bells.server.MakeDoorbell(kChannel, 0);
  const auto second = bells.server.MakeDoorbell(wire::ChannelId{5}, 0);
  for (int round = 0; round < 100; ++round) {
    first->Ring();
    ASSERT_TRUE(watch.Next(0));
    ASSERT_TRUE(Has(inbox.Collect(), 77));
    second->Ring();
    ASSERT_TRUE(watch.Next(0));
    ASSERT_TRUE(Has(inbox.Collect(), 5));
  }
}

TEST_P(BellsTest, ABellBetweenTheWaitAndCollectIsTakenAndItsEdgeFindsNothing) {
  BellPair bells = MakeBells(GetParam());
  BellInbox& inbox = bells.client.inbox(0);
  BellWatch watch(inbox);
  bells.server.MakeDoorbell(kChannel, 0)->Ring();
  ASSERT_TRUE(watch.Next(0));
  bells.server.MakeDoorbell(wire::ChannelId{5}, 0)->Ring();
  const ChannelSet set = inbox.Collect();
  EXPECT_TRUE(Has(set, 77));
  EXPECT_TRUE(Has(set, 5));
  EXPECT_TRUE(watch.Next(0));
  EXPECT_EQ(inbox.Collect(), ChannelSet{});
  EXPECT_FALSE(watch.Next(0));
}

TEST_P(BellsTest, ABellThatRangBeforeAnybodyWatchedIsSeen) {
  BellPair bells = MakeBells(GetParam());
  bells.server.MakeDoorbell(kChannel, 0)->Ring();
  BellWatch watch(bells.client.inbox(0));
  EXPECT_TRUE(watch.Next(0));
  EXPECT_TRUE(Has(bells.client.inbox(0).Collect(), 77));
}

TEST_P(BellsTest, APollerNeedsNoWait) {
  BellPair bells = MakeBells(GetParam());
  const auto doorbell = bells.server.MakeDoorbell(kChannel, 0);
  for (int ring = 0; ring < 5000; ++ring) {
    doorbell->Ring();
    ASSERT_TRUE(Has(bells.client.inbox(0).Collect(), 77));
  }
  // All those edges are one when somebody waits again.
  BellWatch watch(bells.client.inbox(0));
  EXPECT_TRUE(watch.Next(0));
  EXPECT_FALSE(watch.Next(0));
}

TEST_P(BellsTest, AnEndThatIsGoneLeavesTheOtherQuietAndFreeToRing) {
  BellPair bells = MakeBells(GetParam());
  BellWatch watch(bells.server.inbox(0));
  bells.client = Bells();
  EXPECT_FALSE(watch.Next(0));
  bells.server.MakeDoorbell(kChannel, 0)->Ring();
  bells.server.MakeDoorbell(wire::ChannelId{1}, 0)->Ring();
  EXPECT_FALSE(watch.Next(0));
}

TEST(BellEndsTest, OnlyAnEpollAndAnEventfdAreAClientsEnds) {
  const auto ends = [](int wait, int ring) {
    std::vector<Descriptor> descriptors;
    descriptors.emplace_back(wait);
    if (ring >= 0) descriptors.emplace_back(ring);
    return Bells::AreEnds(descriptors);
  };
  const auto event = [] { return eventfd(0, EFD_CLOEXEC); };
  const auto epoll = [] { return epoll_create1(EPOLL_CLOEXEC); };
  EXPECT_TRUE(ends(epoll(), event()));
  EXPECT_FALSE(ends(event(), epoll()));
  EXPECT_FALSE(ends(event(), event()));
  EXPECT_FALSE(ends(epoll(), epoll()));
  EXPECT_FALSE(ends(epoll(), -1));
  EXPECT_FALSE(ends(dup(STDIN_FILENO), event()));
  EXPECT_TRUE(Bells::AreEnds(Bells::MakeEnds(2, Peer::kStranger)->client));
}

// Ringers count up and ring; the collector must see every count, or all of them wait for ever.
// Every `burst` rounds a ringer waits: the end of a burst is where a bell gets lost.
void RunStress(Bells& from, Bells& to, std::uint32_t ringer_count, std::uint32_t burst) {
  constexpr std::uint32_t kRounds = 64 * 150;
  std::vector<std::atomic<std::uint32_t>> published(ringer_count);
  std::vector<std::atomic<std::uint32_t>> seen(ringer_count);

  std::vector<std::thread> ringers;
  for (std::uint32_t ringer = 0; ringer < ringer_count; ++ringer) {
    ringers.emplace_back([&, ringer] {
      const auto doorbell = from.MakeDoorbell(wire::ChannelId{ringer + 1}, 0);
      std::uint32_t random = ringer;
      for (std::uint32_t round = 1; round <= kRounds; ++round) {
        published[ringer].store(round, std::memory_order_relaxed);
        // At no fixed distance from the collector's steps.
        random = random * 1664525U + 1013904223U;
        for (volatile std::uint32_t spin = random >> 20; spin > 0;) spin = spin - 1;
        doorbell->Ring();
        if (round % burst == 0) {
          while (seen[ringer].load(std::memory_order_acquire) != round) std::this_thread::yield();
        }
      }
    });
  }

  BellInbox& inbox = to.inbox(0);
  BellWatch watch(inbox);
  std::uint32_t finished = 0;
  const auto serve = [&](const ChannelSet& set) {
    for (std::uint32_t ringer = 0; ringer < ringer_count; ++ringer) {
      if (!Has(set, ringer + 1)) continue;
      const std::uint32_t count = published[ringer].load(std::memory_order_relaxed);
      if (count == kRounds && seen[ringer].load(std::memory_order_relaxed) != kRounds) ++finished;
      seen[ringer].store(count, std::memory_order_release);
    }
  };
  while (finished != ringer_count) {
    // Sleeping several times in a row: what one Collect loses, the next wait misses.
    for (int sleeps = 0; sleeps < 4 && finished != ringer_count; ++sleeps) {
      if (!watch.Next()) {
        ADD_FAILURE() << "a bell was lost";
        std::abort();  // the ringers wait and cannot be stopped
      }
      serve(inbox.Collect());
    }
    // Polling leaves edges behind that find nothing, or a flag that is about to be set.
    for (int polls = 0; polls < 20 && finished != ringer_count;) {
      const ChannelSet set = inbox.Collect();
      if (set == ChannelSet{}) {
        std::this_thread::yield();  // on a busy machine the ringers may share our processor
        continue;
      }
      serve(set);
      ++polls;
    }
  }
  for (std::thread& ringer : ringers) ringer.join();
}

TEST_P(BellsTest, NoBellIsLostInLockStep) {
  BellPair bells = MakeBells(GetParam());
  RunStress(bells.client, bells.server, 1, 1);
  RunStress(bells.server, bells.client, 1, 1);
}

TEST_P(BellsTest, NoBellIsLostInBurstsOfMany) {
  BellPair bells = MakeBells(GetParam());
  RunStress(bells.client, bells.server, 3, 64);
  RunStress(bells.server, bells.client, 3, 64);
}

INSTANTIATE_TEST_SUITE_P(Clients, BellsTest, ::testing::Values(Peer::kTrusted, Peer::kStranger),
                         [](const auto& chosen) {
                           return chosen.param == Peer::kTrusted ? "trusted" : "stranger";
                         });

}  // namespace
}  // namespace kmcl::transport
