// A server on a real socket: clients that keep to the rules, clients that break them, and clients
// that die, while others are served.
#include "endpoint/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "endpoint/test_support.h"
#include "transport/address.h"
#include "transport/descriptor_passing.h"
#include "transport/handshake.h"

namespace kmcl::endpoint {
namespace {

transport::Descriptor ConnectLater() {
  return transport::Descriptor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

void Connect(const transport::Descriptor& client, const std::string& address) {
  const auto name = transport::UnixAddress(address.substr(std::strlen("unix:")));
  ASSERT_TRUE(name);
  ASSERT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&*name), sizeof *name), 0);
}

// A client that has connected, and shaken no hands.
transport::Descriptor ConnectSilently(const std::string& address) {
  transport::Descriptor client = ConnectLater();
  Connect(client, address);
  return client;
}

// What a hello carries.
std::vector<transport::Descriptor> Donation() {
  std::vector<transport::Descriptor> memory;
  memory.emplace_back(memfd_create("kmcl-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(memory[0].get(), 64 * 4096), 0);
  EXPECT_EQ(fcntl(memory[0].get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  memory.emplace_back(dup(memory[0].get()));  // as the pool too
  return memory;
}

void SayHello(const transport::Descriptor& client,
              const std::vector<transport::Descriptor>& memory = Donation()) {
  const transport::Hello hello;
  const auto sent =
      transport::SendDatagram(client.get(), std::as_bytes(std::span(&hello, 1)), memory);
  // A server that has no more room may have hung up already.
  ASSERT_TRUE(sent || sent.error() == Error::kPeerGone) << ErrorName(sent.error());
}

TEST(ServerTest, AClientIsServedFromBeginningToEnd) {
  EchoServer server;
  {
    EchoClient client(server.address());
    EXPECT_TRUE(client.Works());
    EXPECT_TRUE(server.record.Await("Started"));
  }
  EXPECT_TRUE(server.record.Await("gone"));
  EXPECT_EQ(server.record.count("Closed"), 1);
}

TEST(ServerTest, AServerThatGoesTakesItsChannelsWithIt) {
  QuietLog quiet;
  auto server = std::make_unique<EchoServer>();
  EchoClient client(server->address());
  EXPECT_TRUE(client.Works());
  server.reset();
  EXPECT_TRUE(client.record.Await("Closed"));
  EXPECT_FALSE(client.Works());
  EXPECT_TRUE(transport::Eventually([&] { return !client.client().is_connected(); }));
}

TEST(ServerTest, NonsenseIsDroppedAndOthersAreServedAllTheWhile) {
  QuietLog quiet;
  EchoServer server;
  EchoClient good(server.address());
  EXPECT_TRUE(good.Works());

  std::vector<std::vector<std::byte>> nonsense;
  for (const std::size_t size : {1u, 4u, 7u, 8u, 9u, 20u, 240u}) {
    for (const unsigned fill : {0u, 0xFFu}) {
      nonsense.emplace_back(size, static_cast<std::byte>(fill));
    }
  }
  for (std::uint32_t number = 0; number < 40; ++number) {  // every number, with nothing behind it
    for (const std::size_t size : {8u, 240u}) {
      std::vector<std::byte> bytes(size, std::byte{0xFF});
      std::memcpy(bytes.data(), &number, sizeof number);
      nonsense.push_back(std::move(bytes));
    }
  }
  for (const auto& bytes : nonsense) {
    RawClient hostile(server.address());
    hostile.SendBytes(bytes);  // before any contact
    hostile.SendContact();
    hostile.SendBytes(bytes);
    hostile.SendBytes(bytes);
  }
  EXPECT_TRUE(good.Works());
  RawClient last(server.address());
  EXPECT_NO_FATAL_FAILURE(last.OpenFromTheStart());
}

TEST(ServerTest, AMessageBeyondTheMaximumEndsThatConnectionOnly) {
  QuietLog quiet;
  EchoServer server;
  EchoClient good(server.address());
  const transport::Descriptor hostile = ConnectSilently(server.address());
  ASSERT_NO_FATAL_FAILURE(SayHello(hostile));
  const std::vector<std::byte> bytes(4096, std::byte{1});
  EXPECT_EQ(send(hostile.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
  // The welcome, then the end.
  pollfd wait{hostile.get(), POLLRDHUP, 0};
  EXPECT_EQ(poll(&wait, 1, 10'000), 1);
  EXPECT_TRUE(good.Works());
}

TEST(ServerTest, AClientWaitsWhileManyFilesOfOthersAreBeingClosed) {
  QuietLog quiet;
  EchoServer server;
  EchoClient good(server.address());
  ASSERT_TRUE(transport::AwaitClosings());
  transport::HeldClosings closings;
  for (std::size_t held = 0; held < transport::kMostForeignClosings; ++held) {
    transport::CloseForeign(closings.Make());
  }
  const transport::Descriptor client = ConnectSilently(server.address());
  ASSERT_NO_FATAL_FAILURE(SayHello(client));
  EXPECT_TRUE(good.Works());
  EXPECT_FALSE(transport::WaitFor(client.get(), POLLIN, 0));

  closings.LetGo();
  ASSERT_TRUE(transport::WaitFor(client.get(), POLLIN));
  transport::Welcome welcome{};
  welcome.status = transport::WelcomeStatus::kRefused;
  EXPECT_EQ(recv(client.get(), &welcome, sizeof welcome, 0), static_cast<ssize_t>(sizeof welcome));
  EXPECT_EQ(welcome.status, transport::WelcomeStatus::kAccepted);
}

TEST(ServerTest, MessagesOutOfTurnAreRefusedAndTheClientGoesOn) {
  QuietLog quiet;
  EchoServer server;
  EchoClient good(server.address());
  RawClient client(server.address());
  client.Send(wire::RequestOffers{});  // before any contact
  client.SendOpenOf(wire::ChannelId{1});
  ASSERT_NO_FATAL_FAILURE(client.Contact());
  client.SendOpenOf(wire::ChannelId{1});  // before the offers
  ASSERT_NO_FATAL_FAILURE(client.FetchOffers());
  client.Send(wire::CloseChannel{client.channel()});                     // not open
  client.Send(wire::GpadlTeardown{client.channel(), wire::GpadlId{3}});  // never described
  client.Send(wire::CloseChannel{wire::ChannelId{2000}});                // no such channel
  client.Send(wire::RelIdReleased{wire::ChannelId{2001}});               // likewise

  // An open on memory that was never described is answered.
  client.SendOpenOf(client.channel());
  auto result = client.Await<wire::OpenChannelResult>();
  ASSERT_TRUE(result);
  EXPECT_NE(result->status, wire::kStatusSuccess);

  ASSERT_NO_FATAL_FAILURE(client.ShareRings());
  client.SendOpenOf(client.channel(), 100);  // the second ring would lie beyond the memory
  result = client.Await<wire::OpenChannelResult>();
  ASSERT_TRUE(result);
  EXPECT_NE(result->status, wire::kStatusSuccess);

  ASSERT_NO_FATAL_FAILURE(client.Open());
  client.SendOpenOf(client.channel(), 2);                                // it is open
  client.Send(wire::RelIdReleased{client.channel()});                    // not rescinded
  client.Send(wire::GpadlTeardown{client.channel(), RawClient::kRing});  // in use
  client.Close();
  client.Close();
  client.Send(wire::Unload{});
  EXPECT_TRUE(client.Await<wire::UnloadComplete>());
  EXPECT_TRUE(good.Works());
}

TEST(ServerTest, AFloodOfRefusedMessagesDoesNotKeepOthersOut) {
  QuietLog quiet;
  EchoServer server;
  EchoClient good(server.address());
  std::atomic<bool> stopping{false};
  std::thread flood([&] {
    while (!stopping) {
      RawClient hostile(server.address());
      hostile.SendContact();
      for (int i = 0; i < 300 && !stopping; ++i) {
        hostile.Send(wire::CloseChannel{wire::ChannelId{2000}});
        hostile.Send(wire::RequestOffers{});
      }
    }
  });
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(good.Works());
  EchoClient late(server.address());
  EXPECT_TRUE(late.Works());
  stopping = true;
  flood.join();
}

TEST(ServerTest, AClientThatBreaksItsRingLosesItsChannelOnly) {
  QuietLog quiet;
  EchoServer server;
  EchoClient good(server.address());
  RawClient hostile(server.address());
  ASSERT_NO_FATAL_FAILURE(hostile.OpenFromTheStart());
  const std::uint32_t nonsense = 5;
  std::memcpy(hostile.rings().client_to_server.control, &nonsense, sizeof nonsense);
  hostile.Ring();
  const auto rescinded = hostile.Await<wire::RescindChannelOffer>();
  ASSERT_TRUE(rescinded);
  EXPECT_EQ(rescinded->channel_id, hostile.channel());
  EXPECT_TRUE(server.record.Await("Closed"));
  EXPECT_TRUE(good.Works());
}

TEST(ServerTest, RingsAreOneRangeOfWholePages) {
  const QuietLog quiet;
  const EchoServer server;
  RawClient client(server.address());
  ASSERT_NO_FATAL_FAILURE(client.Contact());
  ASSERT_NO_FATAL_FAILURE(client.FetchOffers());
  const auto run = client.link().AllocatePages(6).value();
  std::vector<wire::PageNumber> pages;
  for (std::uint32_t i = 0; i < run.count; ++i) {
    pages.push_back(wire::PageNumber{std::to_underlying(run.first) + i});
  }
  const std::span<const wire::PageNumber> all(pages);
  wire::GpaRangeList in_the_middle, cut_off, two, whole;
  ASSERT_TRUE(in_the_middle.Append(5 * wire::kPageBytes, 8, all));
  ASSERT_TRUE(cut_off.Append(5 * wire::kPageBytes + 8, 0, all));
  ASSERT_TRUE(two.Append(3 * wire::kPageBytes, 0, all.first(3)));
  ASSERT_TRUE(two.Append(3 * wire::kPageBytes, 0, all.last(3)));
  ASSERT_TRUE(whole.Append(6 * wire::kPageBytes, 0, all));
  std::uint32_t number = 100;
  for (const auto* const ranges : {&in_the_middle, &cut_off, &two, &whole}) {
    const wire::GpadlId gpadl{number++};
    client.SendGpadlOf(*ranges, gpadl);
    const auto created = client.Await<wire::GpadlCreated>();
    ASSERT_TRUE(created && created->status == wire::kStatusSuccess);
    client.SendOpenOf(client.channel(), 3, gpadl);
    const auto result = client.Await<wire::OpenChannelResult>();
    ASSERT_TRUE(result);
    EXPECT_EQ(result->status == wire::kStatusSuccess, ranges == &whole) << number;
  }
}

TEST(ServerTest, AClientThatOpensAndClosesAllTheTimeIsServedEachTime) {
  EchoServer server;
  RawClient client(server.address());
  ASSERT_NO_FATAL_FAILURE(client.Contact());
  ASSERT_NO_FATAL_FAILURE(client.FetchOffers());
  ASSERT_NO_FATAL_FAILURE(client.ShareRings());
  for (int i = 1; i <= 50; ++i) {
    ASSERT_NO_FATAL_FAILURE(client.Open());
    ASSERT_TRUE(client.writer().Write({.type = wire::PacketType::kDataInBand}));
    (void)client.writer().Publish();
    client.Ring();
    client.Close();
    ASSERT_TRUE(server.record.Await("Closed", i));
  }
}

// Each step of a client's life, and its death after it.
TEST(ServerTest, AClientMayDieInEachStageOfAnOpen) {
  QuietLog quiet;
  using Stage = void (*)(RawClient&);
  const Stage stages[] = {
      [](RawClient&) {},
      [](RawClient& c) { c.SendContact(); },
      [](RawClient& c) { c.Contact(); },
      [](RawClient& c) {
        c.Contact();
        c.Send(wire::RequestOffers{});
      },
      [](RawClient& c) {
        c.Contact();
        c.FetchOffers();
      },
      [](RawClient& c) {
        c.Contact();
        c.FetchOffers();
        c.SendGpadl();
      },
      [](RawClient& c) {
        c.Contact();
        c.FetchOffers();
        c.ShareRings();
      },
      [](RawClient& c) {
        c.Contact();
        c.FetchOffers();
        c.ShareRings();
        c.SendOpen();
      },
      [](RawClient& c) { c.OpenFromTheStart(); },
      [](RawClient& c) {
        c.OpenFromTheStart();
        EXPECT_TRUE(c.writer().Write({.type = wire::PacketType::kDataInBand}));
        (void)c.writer().Publish();
        c.Ring();
      },
      [](RawClient& c) {
        c.OpenFromTheStart();
        c.Close();
      },
      [](RawClient& c) {
        c.OpenFromTheStart();
        c.Close();
        c.Send(wire::GpadlTeardown{c.channel(), RawClient::kRing});
      },
      [](RawClient& c) {
        c.OpenFromTheStart();
        c.Send(wire::Unload{});
      },
  };
  EchoServer server;
  EchoClient good(server.address());
  EXPECT_TRUE(good.Works());
  const std::size_t mappings = transport::PartitionMappingCount();
  for (int round = 0; round < 5; ++round) {
    for (const Stage stage : stages) {
      RawClient client(server.address());
      ASSERT_NO_FATAL_FAILURE(stage(client));
    }
  }
  EXPECT_TRUE(good.Works());
  // Whoever arrived is gone, but for the one that is alive; and nothing of their memory is left.
  EXPECT_TRUE(transport::Eventually(
      [&] { return server.record.count("gone") == server.record.count("arrived") - 1; }));
  EXPECT_TRUE(
      transport::Eventually([&] { return transport::PartitionMappingCount() == mappings; }));
}

// What a client takes back, or leaves behind, while the driver decides about its open is answered
// for also when the driver refuses.
TEST(ServerTest, AClientMayTakeItsRingBackOrLeaveWhileItsOpenIsBeingRefused) {
  QuietLog quiet;
  EchoServer server;
  int round = 0;
  server.accept = [&] {
    server.record.Await("refuse", round);
    return false;
  };
  for (const bool leaves : {false, true}) {
    ++round;
    RawClient client(server.address());
    ASSERT_NO_FATAL_FAILURE(client.Contact());
    ASSERT_NO_FATAL_FAILURE(client.FetchOffers());
    ASSERT_NO_FATAL_FAILURE(client.ShareRings());
    const std::size_t mappings = transport::PartitionMappingCount();
    client.SendOpen();
    ASSERT_TRUE(server.record.Await("Opened", round));
    if (leaves) {
      client.Send(wire::Unload{});
    } else {
      client.Send(wire::GpadlTeardown{client.channel(), RawClient::kRing});
    }
    // Answered at once, so that what was sent before it has been heard.
    client.Send(wire::CloseReservedChannel{.channel_id = client.channel()});
    ASSERT_TRUE(client.Await<wire::CloseReservedResponse>());
    server.record.Note("refuse");
    if (leaves) {
      EXPECT_TRUE(client.Await<wire::UnloadComplete>());
    } else {
      EXPECT_TRUE(client.Await<wire::GpadlTorndown>());
    }
    EXPECT_LT(transport::PartitionMappingCount(), mappings + 1);
  }
  EXPECT_TRUE(transport::Eventually([&] { return server.record.count("gone") == 2; }));
}

// ---- Too many of them.

TEST(ServerTest, SilentClientsMakeRoomForOthers) {
  QuietLog quiet;
  EchoServer server;
  std::vector<transport::Descriptor> silent;
  for (int i = 0; i < 150; ++i) silent.push_back(ConnectSilently(server.address()));
  EchoClient good(server.address());
  EXPECT_TRUE(good.Works());
  // The oldest were sent away.
  pollfd wait{silent.front().get(), POLLRDHUP, 0};
  EXPECT_EQ(poll(&wait, 1, 10'000), 1);
}

TEST(ServerTest, AClientThatWasThereBeforeTheDescriptorsIsServedAsSoonAsThereAreSome) {
  static std::atomic<bool> refused;
  refused = false;
  SetLogSink(
      [](void*, LogLevel, const char* line) {
        if (std::strstr(line, "cannot accept a client") != nullptr) {
          refused = true;
          refused.notify_all();
        }
      },
      nullptr);
  {
    EchoServer server;
    EchoClient good(server.address());  // somebody whose leaving is not waited for
    EXPECT_TRUE(good.Works());
    const auto socket = ConnectLater();
    const auto memory = Donation();

    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{0, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    Connect(socket, server.address());
    SayHello(socket, memory);
    refused.wait(false);
    EXPECT_TRUE(good.Works());
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);

    pollfd wait{socket.get(), POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 10'000), 1);
    transport::Welcome welcome;
    ASSERT_EQ(recv(socket.get(), &welcome, sizeof welcome, 0), ssize_t{sizeof welcome});
    EXPECT_EQ(welcome.status, transport::WelcomeStatus::kAccepted);
    EXPECT_TRUE(good.Works());
  }
  SetLogSink(nullptr, nullptr);
}

TEST(ServerTest, MoreClientsThanMayBeAreRefusedUntilOneLeaves) {
  QuietLog quiet;
  ServerOptions options;
  options.maximum_partitions = 2;
  EchoServer server(options);
  auto first = std::make_unique<EchoClient>(server.address());
  EchoClient second(server.address());
  EXPECT_TRUE(first->Works());
  EXPECT_TRUE(second.Works());
  EchoClient third(server.address());
  EXPECT_EQ(third.error, Error::kHandshakeRefused);
  EXPECT_TRUE(second.Works());
  first.reset();
  EXPECT_TRUE(server.record.Await("gone"));
  EchoClient fourth(server.address());
  EXPECT_TRUE(fourth.Works());
}

TEST(ServerTest, TheLimitHoldsForClientsThatConnectAtTheSameTime) {
  QuietLog quiet;
  ServerOptions options;
  options.maximum_partitions = 1;
  EchoServer server(options);
  std::vector<transport::Descriptor> clients;
  constexpr std::size_t kClients = 8;
  for (std::size_t i = 0; i < kClients; ++i) clients.push_back(ConnectSilently(server.address()));
  // All of them may be known to the server as silent by now: nobody was refused for the limit.
  for (const auto& client : clients) ASSERT_NO_FATAL_FAILURE(SayHello(client));
  const auto ended = [&] {
    std::size_t count = 0;
    for (const auto& client : clients) {
      pollfd look{client.get(), POLLRDHUP, 0};
      count += poll(&look, 1, 0) == 1 ? 1u : 0u;
    }
    return count;
  };
  EXPECT_TRUE(transport::Eventually([&] { return ended() == kClients - 1; })) << ended();
  clients.clear();
}

// ---- Races with the server's own driver.

TEST(ServerTest, AnOpenThatMeetsADisableLeavesNothingBehind) {
  QuietLog quiet;
  EchoServer server;
  for (int round = 1; round <= 100; ++round) {
    RawClient client(server.address());
    ASSERT_NO_FATAL_FAILURE(client.Contact());
    ASSERT_NO_FATAL_FAILURE(client.FetchOffers());
    ASSERT_NO_FATAL_FAILURE(client.ShareRings());
    const std::size_t mappings = transport::PartitionMappingCount();
    auto channel = server.channel(static_cast<std::uint64_t>(round));
    std::thread driver([&] { channel->engine().Disable(); });
    client.SendOpen();
    driver.join();
    EXPECT_TRUE(channel->engine().is_disabled());
    channel.reset();
    // Accepted and then withdrawn, or not accepted at all; in the end the offer is gone, and the
    // server has let go of the rings.
    EXPECT_TRUE(client.Await<wire::RescindChannelOffer>());
    EXPECT_TRUE(
        transport::Eventually([&] { return transport::PartitionMappingCount() <= mappings; }));
  }
}

}  // namespace
}  // namespace kmcl::endpoint
