// What every transport promises, checked on each of them.
#include <unistd.h>

#include <cstring>

#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

class LinkContractTest : public ::testing::TestWithParam<const char*> {
 protected:
  LinkContractTest() {
    const bool local = std::strcmp(GetParam(), "local") == 0;
    const std::string address = local ? "local:contract" : "unix:" + directory_.Path("bus");
    Result<std::unique_ptr<Listener>> made = Listen(address);
    EXPECT_TRUE(made.has_value());
    listener = *std::move(made);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Listener> listener;
};

std::vector<wire::PageNumber> Numbers(std::initializer_list<std::uint64_t> numbers) {
  std::vector<wire::PageNumber> pages;
  for (const std::uint64_t number : numbers) pages.push_back(wire::PageNumber{number});
  return pages;
}

TEST_P(LinkContractTest, MessagesArriveInOrderBothWays) {
  const Connection c = Connect(*listener);
  for (Link* from : {static_cast<Link*>(c.client.get()), c.server.get()}) {
    Link& to = from == c.server.get() ? *c.client : *c.server;
    for (int index = 0; index < 50; ++index) {
      ASSERT_TRUE(from->Send(Bytes("message " + std::to_string(index))).has_value());
    }
    for (int index = 0; index < 50; ++index) {
      ASSERT_EQ(Next(to), "message " + std::to_string(index));
    }
    std::array<std::byte, kMaximumMessageBytes> buffer;
    EXPECT_EQ(to.Receive(buffer).status, ReceiveStatus::kNothing);
    EXPECT_FALSE(WaitFor(to.message_fd(), POLLIN, 0));
  }
}

TEST_P(LinkContractTest, AMessageHasOneTo240Bytes) {
  const Connection c = Connect(*listener);
  EXPECT_TRUE(c.client->Send(Bytes("x")).has_value());
  EXPECT_TRUE(c.client->Send(Bytes(std::string(240, 'y'))).has_value());
  EXPECT_EQ(c.client->Send(Bytes(std::string(241, 'z'))).error(), Error::kMessageTooLong);
  EXPECT_EQ(c.client->Send({}).error(), Error::kMessageTooShort);
  EXPECT_EQ(Next(*c.server), "x");
  EXPECT_EQ(Next(*c.server), std::string(240, 'y'));
}

TEST_P(LinkContractTest, ABurstIsQueuedAndFlushedInOrder) {
  constexpr int kMessages = 3000;
  const Connection c = Connect(*listener);
  for (int index = 0; index < kMessages; ++index) {
    ASSERT_TRUE(c.server->Send(Bytes(std::to_string(index))).has_value());
  }
  EXPECT_GT(c.server->unsent_messages(), 0U);
  EXPECT_FALSE(WaitFor(c.server->message_fd(), POLLOUT, 0));  // nobody has to spin

  std::array<std::byte, kMaximumMessageBytes> buffer;
  for (int index = 0; index < kMessages;) {
    const ReceivedMessage received = c.client->Receive(buffer);
    if (received.status == ReceiveStatus::kMessage) {
      ASSERT_EQ(Text(buffer, received.bytes), std::to_string(index));
      ++index;
      continue;
    }
    ASSERT_EQ(received.status, ReceiveStatus::kNothing);
    ASSERT_TRUE(WaitFor(c.server->message_fd(), POLLOUT));
    c.server->Flush();
  }
  EXPECT_EQ(c.server->unsent_messages(), 0U);
}

TEST_P(LinkContractTest, WhatIsSentLaterDoesNotOvertakeWhatWaits) {
  const Connection c = Connect(*listener);
  int sent = 0;
  const auto send = [&] { return c.server->Send(Bytes(std::to_string(sent++))).has_value(); };
  while (c.server->unsent_messages() < 10) ASSERT_TRUE(send());
  // Now there is room again, before the waiting ones have been flushed.
  int received = 0;
  for (; received < sent / 2; ++received) ASSERT_EQ(Next(*c.client), std::to_string(received));
  ASSERT_TRUE(send());
  c.server->Flush();
  for (; received < sent; ++received) ASSERT_EQ(Next(*c.client), std::to_string(received));
}

TEST_P(LinkContractTest, APeerThatReadsNothingIsDropped) {
  const Connection c = Connect(*listener);
  Result<void> sent;
  int count = 0;
  for (; sent && count < 100000; ++count) sent = c.server->Send(Bytes("offer"));
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error(), Error::kPeerGone);
  EXPECT_GT(count, 16384);
  EXPECT_EQ(c.server->unsent_messages(), 0U);
  EXPECT_TRUE(IsGone(*c.server));
}

TEST_P(LinkContractTest, ClosingEndsTheOtherSideAfterWhatWasSent) {
  for (const bool client_closes : {true, false}) {
    Connection c = Connect(*listener);
    Link& closing = client_closes ? static_cast<Link&>(*c.client) : *c.server;
    Link& other = client_closes ? *c.server : static_cast<Link&>(*c.client);
    ASSERT_TRUE(other.Send(Bytes("never read")).has_value());
    ASSERT_TRUE(closing.Send(Bytes("last words")).has_value());
    if (client_closes) {
      c.client.reset();
    } else {
      c.server.reset();
    }
    EXPECT_TRUE(WaitFor(other.message_fd()));
    EXPECT_EQ(Next(other), "last words");
    EXPECT_TRUE(IsGone(other));
    EXPECT_TRUE(IsGone(other));
    EXPECT_EQ(other.Send(Bytes("too late")).error(), Error::kPeerGone);
    EXPECT_EQ(other.unsent_messages(), 0U);
  }
}

TEST_P(LinkContractTest, ASendThatFindsThePeerGoneLeavesItsMessagesReadable) {
  Connection c = Connect(*listener);
  ASSERT_TRUE(c.client->Send(Bytes("unload")).has_value());
  c.client.reset();
  EXPECT_EQ(c.server->Send(Bytes("offer")).error(), Error::kPeerGone);
  EXPECT_EQ(Next(*c.server), "unload");
  EXPECT_TRUE(IsGone(*c.server));
}

TEST_P(LinkContractTest, RefuseEndsTheLinkOfAConnectedClient) {
  const Connection c = Connect(*listener);
  c.server->Refuse("closing time");
  EXPECT_TRUE(IsGone(*c.server));
  EXPECT_TRUE(IsGone(*c.client));
}

TEST_P(LinkContractTest, BothEndsKnowWhoThePeerIs) {
  const Connection c = Connect(*listener);
  for (Link* link : {static_cast<Link*>(c.client.get()), c.server.get()}) {
    EXPECT_EQ(link->peer().pid, getpid());
    EXPECT_EQ(link->peer().uid, getuid());
    EXPECT_EQ(link->peer().gid, getgid());
  }
}

TEST_P(LinkContractTest, BothEndsSeeTheSamePages) {
  const Connection c = Connect(*listener);
  const Result<PageRun> run = c.client->AllocatePages(3);
  ASSERT_TRUE(run.has_value());
  const std::uint64_t first = std::to_underlying(run->first);
  const Result<Mapping> client = c.client->Map(Numbers({first, first + 2}));
  const Result<Mapping> server = c.server->Map(Numbers({first + 2, first}));
  ASSERT_TRUE(client.has_value() && server.has_value());
  client->base()[0] = std::byte{11};
  server->base()[4095] = std::byte{22};
  EXPECT_EQ(server->base()[4096], std::byte{11});
  EXPECT_EQ(client->base()[4096 + 4095], std::byte{22});
}

TEST_P(LinkContractTest, PagesThatTheClientDoesNotHaveAreRefused) {
  const Connection c = Connect(*listener, {.bell_count = 2});
  const Result<PageRun> run = c.client->AllocatePages(2);
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(std::to_underlying(run->first), 2U);  // the bells' pages are not given out
  EXPECT_TRUE(c.server->Map(Numbers({2, 3})).has_value());
  EXPECT_EQ(c.server->Map(Numbers({2, 4})).error(), Error::kPageOutOfRange);
  EXPECT_EQ(c.server->MapRings(Numbers({2, 3, 2, 1000}), 2).error(), Error::kPageOutOfRange);
}

TEST_P(LinkContractTest, FreedPagesAreZeroedAndGivenOutAgain) {
  const Connection c = Connect(*listener);
  const PageRun run = *c.client->AllocatePages(2);
  {
    const Result<Mapping> mapping = c.server->Map(PagesOf(run));
    std::memset(mapping->base(), 0x5A, mapping->bytes());
  }
  c.client->FreePages(run);
  const PageRun again = *c.client->AllocatePages(2);
  EXPECT_EQ(again.first, run.first);
  const Result<Mapping> mapping = c.client->Map(PagesOf(again));
  for (std::size_t offset = 0; offset < mapping->bytes(); ++offset) {
    ASSERT_EQ(mapping->base()[offset], std::byte{0});
  }
}

TEST_P(LinkContractTest, RingsAreMirroredAndStandWhereBothEndsExpectThem) {
  const Connection c = Connect(*listener);
  const PageRun run = *c.client->AllocatePages(8);
  // Scattered on purpose: [control, 2 data] up, [control, 4 data] down.
  const std::uint64_t first = std::to_underlying(run.first);
  const auto pages =
      Numbers({first + 7, first, first + 3, first + 5, first + 1, first + 2, first + 4, first + 6});
  const Result<RingMapping> client = c.client->MapRings(pages, 3);
  const Result<RingMapping> server = c.server->MapRings(pages, 3);
  ASSERT_TRUE(client.has_value() && server.has_value());
  EXPECT_EQ(client->client_to_server.data_bytes, 2U * 4096);
  EXPECT_EQ(client->server_to_client.data_bytes, 4U * 4096);

  const std::pair<const RingMapping::View*, const RingMapping::View*> ways[] = {
      {&client->client_to_server, &server->client_to_server},
      {&server->server_to_client, &client->server_to_client}};
  for (const auto& [writer, reader] : ways) {
    EXPECT_EQ(reader->data - reader->control, 4096);
    writer->control[4095] = std::byte{0x11};
    EXPECT_EQ(reader->control[4095], std::byte{0x11});
    // One write across the end of the data, read back at both places.
    std::memset(writer->data + writer->data_bytes - 8, 0x22, 16);
    EXPECT_EQ(reader->data[0], std::byte{0x22});
    EXPECT_EQ(reader->data[7], std::byte{0x22});
    EXPECT_EQ(reader->data[8], std::byte{0});
    EXPECT_EQ(reader->data[2 * reader->data_bytes - 1], std::byte{0x22});
    EXPECT_EQ(reader->data[2 * reader->data_bytes - 9], std::byte{0});
    std::memset(writer->data + writer->data_bytes - 8, 0, 16);
  }
}

TEST_P(LinkContractTest, WhatIsNotTwoRingsIsRefused) {
  const Connection c = Connect(*listener);
  const auto pages = PagesOf(*c.client->AllocatePages(6));
  EXPECT_TRUE(c.server->MapRings(pages, 2).has_value());
  EXPECT_TRUE(c.server->MapRings(pages, 4).has_value());
  for (const std::uint32_t cut : {0U, 1U, 5U, 6U, 7U, 0xFFFFFFFFU}) {
    const Result<RingMapping> rings = c.server->MapRings(pages, cut);
    ASSERT_FALSE(rings.has_value()) << cut;
    EXPECT_EQ(rings.error(), Error::kRingGeometry);
  }
  EXPECT_EQ(c.server->MapRings({}, 0).error(), Error::kRingGeometry);
  EXPECT_EQ(c.server->MapRings(std::span(pages).first(3), 2).error(), Error::kRingGeometry);
}

TEST_P(LinkContractTest, TheClientsMemoryEndsAtItsLimit) {
  const Connection c = Connect(*listener, {.maximum_memory_bytes = 10 * 4096});
  EXPECT_EQ(c.client->AllocatePages(10).error(), Error::kOutOfMemory);
  EXPECT_TRUE(c.client->AllocatePages(9).has_value());
  EXPECT_EQ(c.client->AllocatePages(1).error(), Error::kOutOfMemory);
}

TEST_P(LinkContractTest, BellsReachTheirInboxes) {
  const Connection c = Connect(*listener, {.bell_count = 16});
  ASSERT_EQ(c.client->bell_count(), 16U);
  ASSERT_EQ(c.server->bell_count(), 16U);
  for (std::uint32_t index = 0; index < 16; ++index) {
    const wire::ChannelId up{index + 1};
    const wire::ChannelId down{2047 - index};
    BellWatch server(c.server->inbox(index));
    BellWatch client(c.client->inbox(index));
    c.client->MakeDoorbell(up, index)->Ring();
    c.server->MakeDoorbell(down, index)->Ring();
    ASSERT_TRUE(server.Next());
    ASSERT_TRUE(client.Next());
    ChannelSet expected{};
    expected[0] = std::uint64_t{1} << (index + 1);
    EXPECT_EQ(c.server->inbox(index).Collect(), expected);
    expected = {};
    expected[31] = std::uint64_t{1} << (63 - index);
    EXPECT_EQ(c.client->inbox(index).Collect(), expected);
  }
}

TEST_P(LinkContractTest, ABellReachesASleeper) {
  const Connection c = Connect(*listener);
  constexpr int kRounds = 2000;
  const auto ping_pong = [](Link& link, bool starts) {
    const auto doorbell = link.MakeDoorbell(wire::ChannelId{3}, 0);
    BellWatch watch(link.inbox(0));
    if (starts) doorbell->Ring();
    for (int round = 0; round < kRounds;) {
      if (!watch.Next()) return false;
      if (link.inbox(0).Collect()[0] == 0) continue;
      ++round;
      if (round < kRounds || !starts) doorbell->Ring();
    }
    return true;
  };
  bool server_done = false;
  std::thread server([&] { server_done = ping_pong(*c.server, false); });
  EXPECT_TRUE(ping_pong(*c.client, true));
  server.join();
  EXPECT_TRUE(server_done);
}

TEST_P(LinkContractTest, ManyClientsAreKeptApart) {
  std::vector<Connection> connections;
  for (int index = 0; index < 20; ++index) connections.push_back(Connect(*listener));
  for (std::size_t index = 0; index < connections.size(); ++index) {
    ASSERT_TRUE(connections[index].client->Send(Bytes(std::to_string(index))).has_value());
    connections[index].client->MakeDoorbell(wire::ChannelId{1}, 0)->Ring();
  }
  for (std::size_t index = 0; index < connections.size(); ++index) {
    EXPECT_EQ(Next(*connections[index].server), std::to_string(index));
    EXPECT_EQ(connections[index].server->inbox(0).Collect()[0], 2U);
  }
}

TEST_P(LinkContractTest, NothingIsLeftWhenBothEndsAreGone) {
  { const Connection first = Connect(*listener); }  // whatever is made once, is made
  const std::size_t descriptors = OpenDescriptorCount();
  const std::size_t mappings = PartitionMappingCount();
  {
    const Connection c = Connect(*listener, {.bell_count = 4});
    const auto pages = PagesOf(*c.client->AllocatePages(8));
    const Result<RingMapping> client = c.client->MapRings(pages, 4);
    const Result<RingMapping> server = c.server->MapRings(pages, 4);
    EXPECT_GT(OpenDescriptorCount(), descriptors);
    EXPECT_GT(PartitionMappingCount(), mappings);
  }
  EXPECT_EQ(OpenDescriptorCount(), descriptors);
  EXPECT_EQ(PartitionMappingCount(), mappings);
}

TEST_P(LinkContractTest, AnAddressHasOneServerAtATime) {
  const std::string address = listener->address();
  EXPECT_EQ(Listen(address).error(), Error::kAddressInUse);
  { const Connection c = Connect(*listener); }  // the attempt did no harm
  listener.reset();
  EXPECT_EQ(Dial(address, {}).error(), Error::kAddressUnreachable);
  const Result<std::unique_ptr<Listener>> again = Listen(address);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ((*again)->address(), address);
}

TEST_P(LinkContractTest, AnIdleListenerIsQuiet) {
  EXPECT_FALSE(WaitFor(listener->fd(), POLLIN, 0));
  const Connection c = Connect(*listener);
  const Result<std::unique_ptr<Link>> none = listener->Accept();
  ASSERT_TRUE(none.has_value());
  EXPECT_EQ(*none, nullptr);
  EXPECT_FALSE(WaitFor(listener->fd(), POLLIN, 0));
}

INSTANTIATE_TEST_SUITE_P(Transports, LinkContractTest, ::testing::Values("local", "shm"),
                         [](const auto& chosen) { return std::string(chosen.param); });

}  // namespace
}  // namespace kmcl::transport
