// Two real processes: a client that dies at any moment, and what its server is left with.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

constexpr wire::ChannelId kChannel{42};
constexpr std::uint32_t kCounterRounds = 20000;

// The child: connects, fills a page, says its number, and then echoes bells until it is killed.
[[noreturn]] void RunClient(const std::string& address) {
  alarm(60);  // should the test be killed first
  Result<std::unique_ptr<ClientLink>> link = Dial(address, {.bell_count = 2});
  if (!link) _exit(2);
  const Result<PageRun> run = (*link)->AllocatePages(4);
  if (!run) _exit(3);
  const auto pages = PagesOf(*run);
  const Result<RingMapping> rings = (*link)->MapRings(pages, 2);
  if (!rings) _exit(4);
  rings->client_to_server.data[17] = std::byte{99};
  if (!(*link)->Send(Bytes(std::to_string(std::to_underlying(run->first))))) _exit(5);
  const auto doorbell = (*link)->MakeDoorbell(kChannel, 1);
  BellInbox& inbox = (*link)->inbox(0);
  BellWatch watch(inbox);
  while (watch.Next()) {
    if (inbox.Collect() != ChannelSet{}) doorbell->Ring();
  }
  _exit(6);
}

TEST(ShmProcessTest, AKilledClientIsGoneAtOnceAndLeavesNothing) {
  const TemporaryDirectory directory;
  const Result<std::unique_ptr<Listener>> listener = Listen("unix:" + directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  const std::size_t descriptors = OpenDescriptorCount();
  const std::size_t mappings = PartitionMappingCount();

  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) RunClient((*listener)->address());
  {
    const std::unique_ptr<Link> link = AcceptNext(**listener);
    ASSERT_TRUE(ShakeHands(*link));
    EXPECT_EQ(link->peer().pid, child);
    EXPECT_EQ(link->bell_count(), 2U);

    const std::optional<std::string> number = Next(*link);
    ASSERT_TRUE(number.has_value());
    const auto pages = PagesOf({wire::PageNumber{std::stoull(*number)}, 4});
    const Result<RingMapping> rings = link->MapRings(pages, 2);
    ASSERT_TRUE(rings.has_value());
    EXPECT_EQ(rings->client_to_server.data[17 + 4096], std::byte{99});

    const auto doorbell = link->MakeDoorbell(kChannel, 0);
    BellWatch watch(link->inbox(1));
    for (int round = 0; round < 200; ++round) {
      doorbell->Ring();
      ChannelSet rung{};
      while (rung == ChannelSet{}) {  // the edge of a bell that was seen early finds nothing
        ASSERT_TRUE(watch.Next());
        rung = link->inbox(1).Collect();
      }
      ASSERT_EQ(rung[0], std::uint64_t{1} << 42);
    }

    ASSERT_EQ(kill(child, SIGKILL), 0);
    EXPECT_TRUE(WaitFor(link->message_fd()));
    EXPECT_TRUE(IsGone(*link));
    EXPECT_EQ(link->Send(Bytes("anyone?")).error(), Error::kPeerGone);
    // Everything of the dead client may still be touched.
    doorbell->Ring();
    EXPECT_EQ(rings->client_to_server.data[17], std::byte{99});
    EXPECT_EQ(link->inbox(0).Collect(), ChannelSet{});
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  EXPECT_EQ(OpenDescriptorCount(), descriptors);
  EXPECT_EQ(PartitionMappingCount(), mappings);
}

// Counts up in a shared page and rings; a bell that gets lost leaves both ends waiting.
[[noreturn]] void RunCounter(const std::string& address) {
  alarm(120);
  Result<std::unique_ptr<ClientLink>> link = Dial(address, {});
  if (!link) _exit(2);
  const Result<PageRun> run = (*link)->AllocatePages(1);
  const Result<Mapping> page = (*link)->Map(PagesOf(*run));
  if (!page) _exit(3);
  if (!(*link)->Send(Bytes(std::to_string(std::to_underlying(run->first))))) _exit(4);
  auto* const counts = reinterpret_cast<std::uint32_t*>(page->base());
  const auto doorbell = (*link)->MakeDoorbell(kChannel, 0);
  BellInbox& inbox = (*link)->inbox(0);
  BellWatch watch(inbox);
  for (std::uint32_t round = 1; round <= kCounterRounds; ++round) {
    std::atomic_ref(counts[0]).store(round, std::memory_order_relaxed);
    doorbell->Ring();
    if (round % 5 != 0) continue;  // bursts, so that bells meet set flags and running collectors
    while (std::atomic_ref(counts[1]).load(std::memory_order_relaxed) != round) {
      if (!watch.Next()) _exit(5);
      (void)inbox.Collect();
    }
  }
  _exit(0);
}

TEST(ShmProcessTest, NoBellIsLostBetweenTwoProcesses) {
  const TemporaryDirectory directory;
  const Result<std::unique_ptr<Listener>> listener = Listen("unix:" + directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) RunCounter((*listener)->address());

  const std::unique_ptr<Link> link = AcceptNext(**listener);
  ASSERT_TRUE(ShakeHands(*link));
  const std::optional<std::string> number = Next(*link);
  ASSERT_TRUE(number.has_value());
  const wire::PageNumber first{std::stoull(*number)};
  const Result<Mapping> page = link->Map(std::span(&first, 1));
  ASSERT_TRUE(page.has_value());
  auto* const counts = reinterpret_cast<std::uint32_t*>(page->base());
  const auto doorbell = link->MakeDoorbell(kChannel, 0);
  BellInbox& inbox = link->inbox(0);
  BellWatch watch(inbox);
  for (std::uint32_t seen = 0; seen != kCounterRounds;) {
    ASSERT_TRUE(watch.Next()) << "a bell was lost after " << seen;
    if (inbox.Collect() == ChannelSet{}) continue;
    // What was counted before the bell is visible once its flag is taken.
    seen = std::atomic_ref(counts[0]).load(std::memory_order_relaxed);
    std::atomic_ref(counts[1]).store(seen, std::memory_order_relaxed);
    doorbell->Ring();
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(ShmProcessTest, ManyClientsDieAndTheServerStaysAsItWas) {
  const TemporaryDirectory directory;
  const Result<std::unique_ptr<Listener>> listener = Listen("unix:" + directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  const std::size_t descriptors = OpenDescriptorCount();
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) RunClient((*listener)->address());
    const std::unique_ptr<Link> link = AcceptNext(**listener);
    if (round % 2 == 0) {  // else it dies in the handshake
      EXPECT_TRUE(ShakeHands(*link));
    }
    ASSERT_EQ(kill(child, SIGKILL), 0);
    while (Next(*link).has_value()) {
    }
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
  }
  EXPECT_EQ(OpenDescriptorCount(), descriptors);
  EXPECT_EQ(PartitionMappingCount(), 0U);
}

TEST(ShmProcessTest, AServerThatDiesIsSeenByItsClientAndLeavesAStaleSocket) {
  const TemporaryDirectory directory;
  const std::string address = "unix:" + directory.Path("bus");
  int started[2];
  ASSERT_EQ(pipe(started), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    const Result<std::unique_ptr<Listener>> listener = Listen(address);
    if (!listener || write(started[1], "", 1) != 1) _exit(2);
    const std::unique_ptr<Link> link = AcceptNext(**listener);
    if (!ShakeHands(*link)) _exit(3);
    pause();
    _exit(4);
  }
  char byte = 0;
  ASSERT_EQ(read(started[0], &byte, 1), 1);
  close(started[0]);
  close(started[1]);
  Result<std::unique_ptr<ClientLink>> client = Dial(address, {});
  ASSERT_TRUE(client.has_value());
  EXPECT_FALSE(WaitFor((*client)->message_fd(), POLLIN, 0));
  ASSERT_EQ(kill(child, SIGKILL), 0);
  EXPECT_TRUE(WaitFor((*client)->message_fd()));
  EXPECT_TRUE(IsGone(**client));
  ASSERT_EQ(waitpid(child, nullptr, 0), child);

  EXPECT_EQ(Dial(address, {}).error(), Error::kAddressUnreachable);
  EXPECT_TRUE(Listen(address).has_value());
}

}  // namespace
}  // namespace kmcl::transport
