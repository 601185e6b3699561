#include "transport/bells.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>

#include "transport/partition_memory.h"
#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

constexpr wire::ChannelId kChannel{77};

struct BellPair {
  Bells server;
  Bells client;
  Mapping pages;  // for a look at the bytes
  int client_socket = -1;
};

BellPair MakeBells(std::uint32_t count = 1) {
  Result<PartitionMemory> memory = PartitionMemory::Create(count, std::uint64_t{1} << 20);
  std::vector<wire::PageNumber> pages;
  for (std::uint64_t page = 0; page < count; ++page) pages.push_back(wire::PageNumber{page});
  Result<Bells::Sockets> sockets = Bells::MakeSockets(count);
  const int client_socket = sockets->client[0].get();
  return {Bells(Side::kServer, *memory->Map(pages), std::move(sockets->server)),
          Bells(Side::kClient, *memory->Map(pages), std::move(sockets->client)),
          *memory->Map(pages), client_socket};
}

bool Has(const ChannelSet& set, std::uint32_t channel) {
  return (set[channel / 64] >> channel % 64 & 1) != 0;
}

bool IsReadable(const BellInbox& inbox) { return WaitFor(inbox.fd(), POLLIN, 0); }

TEST(BellsTest, FlagsStandWhereTheInterruptPageHasThem) {
  BellPair bells = MakeBells(2);
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

TEST(BellsTest, ABellMakesOneInboxReadableAndCollectTakesIt) {
  BellPair bells = MakeBells(2);
  bells.client.MakeDoorbell(kChannel, 1)->Ring();
  EXPECT_FALSE(IsReadable(bells.server.inbox(0)));
  EXPECT_TRUE(IsReadable(bells.server.inbox(1)));
  const ChannelSet set = bells.server.inbox(1).Collect();
  EXPECT_TRUE(Has(set, 77));
  EXPECT_EQ(set[0], 0U);
  EXPECT_FALSE(IsReadable(bells.server.inbox(1)));
  EXPECT_EQ(bells.server.inbox(1).Collect(), ChannelSet{});
}

TEST(BellsTest, ASetFlagIsNotRungAgain) {
  BellPair bells = MakeBells();
  const auto doorbell = bells.client.MakeDoorbell(kChannel, 0);
  for (int ring = 0; ring < 5; ++ring) doorbell->Ring();
  EXPECT_TRUE(Has(bells.server.inbox(0).Collect(), 77));
  EXPECT_FALSE(IsReadable(bells.server.inbox(0)));
}

TEST(BellsTest, PeekTakesTheFlagsAndLeavesTheDescriptor) {
  BellPair bells = MakeBells();
  bells.server.MakeDoorbell(kChannel, 0)->Ring();
  EXPECT_TRUE(Has(bells.client.inbox(0).Peek(), 77));
  EXPECT_EQ(bells.client.inbox(0).Peek(), ChannelSet{});
  EXPECT_TRUE(IsReadable(bells.client.inbox(0)));
  EXPECT_EQ(bells.client.inbox(0).Collect(), ChannelSet{});
  EXPECT_FALSE(IsReadable(bells.client.inbox(0)));
}

TEST(BellsTest, AFullSocketBlocksNobodyAndLosesNoBell) {
  BellPair bells = MakeBells();
  // A polling collector leaves a datagram for each ring until the socket holds no more.
  const auto doorbell = bells.client.MakeDoorbell(kChannel, 0);
  for (int ring = 0; ring < 5000; ++ring) {
    doorbell->Ring();
    ASSERT_TRUE(Has(bells.server.inbox(0).Peek(), 77));
  }
  EXPECT_EQ(send(bells.client_socket, "", 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  bells.client.MakeDoorbell(wire::ChannelId{5}, 0)->Ring();
  ASSERT_TRUE(IsReadable(bells.server.inbox(0)));
  EXPECT_TRUE(Has(bells.server.inbox(0).Collect(), 5));
  // The rest of the backlog goes in a few steps.
  int steps = 0;
  while (IsReadable(bells.server.inbox(0))) {
    EXPECT_EQ(bells.server.inbox(0).Collect(), ChannelSet{});
    ASSERT_LT(++steps, 20);
  }
}

TEST(BellsTest, AHostilePeerCannotMakeRingOrCollectWait) {
  BellPair bells = MakeBells();
  // Everything a client can do to its own socket: make it blocking, fill ours, shut it down.
  ASSERT_EQ(fcntl(bells.client_socket, F_SETFL, 0), 0);
  while (send(bells.client_socket, "", 1, MSG_DONTWAIT) >= 0) {
  }
  const auto doorbell = bells.server.MakeDoorbell(kChannel, 0);
  for (int ring = 0; ring < 2000; ++ring) {
    doorbell->Ring();
    (void)bells.client.inbox(0).Peek();
  }
  for (int step = 0; step < 20; ++step) (void)bells.server.inbox(0).Collect();
  ASSERT_EQ(shutdown(bells.client_socket, SHUT_RDWR), 0);
  doorbell->Ring();
  EXPECT_EQ(bells.server.inbox(0).Collect(), ChannelSet{});
}

TEST(BellsTest, ClosedSocketsDoNotKeepTheOtherEndAwake) {
  BellPair bells = MakeBells();
  bells.client = Bells();
  EXPECT_FALSE(IsReadable(bells.server.inbox(0)));
  bells.server.MakeDoorbell(kChannel, 0)->Ring();
  bells.server.MakeDoorbell(wire::ChannelId{1}, 0)->Ring();
  EXPECT_FALSE(IsReadable(bells.server.inbox(0)));
}

TEST(BellsTest, OnlyDatagramSocketsServeAsBells) {
  std::vector<Descriptor> descriptors;
  descriptors.emplace_back(eventfd(0, EFD_CLOEXEC));
  EXPECT_FALSE(Bells::AreSockets(descriptors));
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const Descriptor other(pair[1]);
  descriptors[0] = Descriptor(pair[0]);
  EXPECT_FALSE(Bells::AreSockets(descriptors));
  EXPECT_TRUE(Bells::AreSockets(Bells::MakeSockets(2)->client));
}

// Ringers count up and ring; the collector must see every count, or all of them wait for ever.
// Every `burst` rounds a ringer waits: the end of a burst is where a bell gets lost.
void RunStress(std::uint32_t ringer_count, std::uint32_t burst) {
  constexpr std::uint32_t kRounds = 64 * 150;
  BellPair bells = MakeBells();
  std::vector<std::atomic<std::uint32_t>> published(ringer_count);
  std::vector<std::atomic<std::uint32_t>> seen(ringer_count);

  std::vector<std::thread> ringers;
  for (std::uint32_t ringer = 0; ringer < ringer_count; ++ringer) {
    ringers.emplace_back([&, ringer] {
      const auto doorbell = bells.client.MakeDoorbell(wire::ChannelId{ringer + 1}, 0);
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

  BellInbox& inbox = bells.server.inbox(0);
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
      if (!WaitFor(inbox.fd())) {
        ADD_FAILURE() << "a bell was lost";
        std::abort();  // the ringers wait and cannot be stopped
      }
      serve(inbox.Collect());
    }
    // Polling leaves datagrams behind, so that Collect meets a backlog and takes its time.
    for (int polls = 0; polls < 20 && finished != ringer_count;) {
      const ChannelSet set = inbox.Peek();
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

TEST(BellsTest, NoBellIsLostInLockStep) { RunStress(1, 1); }

TEST(BellsTest, NoBellIsLostInBurstsOfMany) { RunStress(3, 64); }

}  // namespace
}  // namespace kmcl::transport
