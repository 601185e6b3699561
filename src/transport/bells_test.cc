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

// Each ringer counts up and rings; the collector must see every count, or it waits for ever.
TEST(BellsTest, NoBellIsLostUnderStress) {
  constexpr std::uint32_t kRingers = 3;
  constexpr std::uint32_t kRounds = 20000;
  BellPair bells = MakeBells();
  std::array<std::atomic<std::uint32_t>, kRingers> published{};
  std::array<std::atomic<std::uint32_t>, kRingers> seen{};

  std::vector<std::thread> ringers;
  for (std::uint32_t ringer = 0; ringer < kRingers; ++ringer) {
    ringers.emplace_back([&, ringer] {
      const auto doorbell = bells.client.MakeDoorbell(wire::ChannelId{ringer + 1}, 0);
      for (std::uint32_t round = 1; round <= kRounds; ++round) {
        published[ringer].store(round, std::memory_order_relaxed);
        doorbell->Ring();
        // Every so often let the collector fall asleep: the end of a burst is where a bell gets
        // lost.
        if (round % 64 == 0) {
          while (seen[ringer].load(std::memory_order_acquire) != round) std::this_thread::yield();
        }
      }
    });
  }

  BellInbox& inbox = bells.server.inbox(0);
  bool peeks = false;
  std::array<std::uint32_t, kRingers> last{};
  const auto finished = [&last] {
    for (const std::uint32_t count : last) {
      if (count != kRounds) return false;
    }
    return true;
  };
  while (!finished()) {
    if (!WaitFor(inbox.fd())) {
      ADD_FAILURE() << "a bell was lost";
      std::abort();  // the ringers wait and cannot be stopped
    }
    peeks = !peeks;
    ChannelSet set = inbox.Collect();
    if (peeks) {
      const ChannelSet more = inbox.Peek();
      for (std::size_t word = 0; word < set.size(); ++word) set[word] |= more[word];
    }
    for (std::uint32_t ringer = 0; ringer < kRingers; ++ringer) {
      if (!Has(set, ringer + 1)) continue;
      last[ringer] = published[ringer].load(std::memory_order_relaxed);
      seen[ringer].store(last[ringer], std::memory_order_release);
    }
  }
  for (std::thread& ringer : ringers) ringer.join();
}

}  // namespace
}  // namespace kmcl::transport
