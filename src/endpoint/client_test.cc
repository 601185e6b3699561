// A client opposite a server that dies, or says what no server should.
#include "endpoint/client.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "endpoint/test_support.h"

namespace kmcl::endpoint {
namespace {

// A server made of a link and the answers that a test lets it give. It serves one client.
class RawServer {
 public:
  // Which message it dies of: instead of answering, it is gone. kNever answers everything.
  enum class DiesOf : std::uint8_t {
    kConnect,
    kContact,
    kRequestOffers,
    kGpadl,
    kOpen,
    kClose,
    kTeardown,
    kUnload,
    kNever,
  };
  struct Habits {
    DiesOf dies_of = DiesOf::kNever;
    std::vector<std::vector<std::byte>> nonsense;  // sent in front of each answer
    std::uint32_t open_status = wire::kStatusSuccess;
    std::uint32_t gpadl_status = wire::kStatusSuccess;
    bool rescinds_instead_of_opening = false;
    bool mute = false;  // reads, and says nothing
  };

  explicit RawServer(Habits habits)
      : habits_(std::move(habits)),
        listener_(transport::Listen("unix:" + directory_.Path("bus")).value()),
        thread_([this] { Serve(); }) {}
  ~RawServer() { Join(); }
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  std::string address() const { return listener_->address(); }

 private:
  void Serve() {
    auto link = transport::AcceptNext(*listener_);
    if (link == nullptr || habits_.dies_of == DiesOf::kConnect) return;
    if (!transport::ShakeHands(*link)) return;
    std::array<std::byte, transport::kMaximumMessageBytes> buffer;
    while (true) {
      const auto received = link->Receive(buffer);
      if (received.status == transport::ReceiveStatus::kGone) return;
      if (received.status == transport::ReceiveStatus::kNothing) {
        if (!transport::WaitFor(link->message_fd())) return;
        continue;
      }
      const auto message = wire::ParseClientMessage({buffer.data(), received.bytes}, agreed_);
      EXPECT_TRUE(message) << "the client sent what no client may send";
      if (!message) return;
      if (!std::visit([&](const auto& each) { return Answer(*link, each); }, *message)) return;
    }
  }

  template <typename M>
  bool Send(transport::Link& link, const M& message) {
    if (habits_.mute) return true;
    for (const auto& bytes : habits_.nonsense) (void)!link.Send(bytes);
    (void)!link.Send(wire::Encode(message, agreed_));
    return true;
  }
  bool DiesNow(DiesOf reason) const { return habits_.dies_of == reason; }

  template <typename M>
  bool Answer(transport::Link&, const M&) {
    return true;
  }
  bool Answer(transport::Link& link, const wire::InitiateContact& contact) {
    if (DiesNow(DiesOf::kContact)) return false;
    if (contact.version != wire::Version::kIron) return Send(link, wire::VersionResponse{});
    agreed_.version = contact.version;
    wire::VersionResponse response;
    response.version_supported = 1;
    response.connection_id_or_version = 4;
    return Send(link, response);
  }
  bool Answer(transport::Link& link, const wire::RequestOffers&) {
    if (DiesNow(DiesOf::kRequestOffers)) return false;
    wire::OfferChannel offer;
    offer.interface_id = kEchoInterface;
    offer.instance_id = wire::Guid{1, 0, 0, {}};
    offer.channel_id = wire::ChannelId{3};
    offer.connection_id = wire::ConnectionId{0x2003};
    Send(link, offer);
    return Send(link, wire::AllOffersDelivered{});
  }
  bool Answer(transport::Link& link, const wire::GpadlHeader& header) {
    if (DiesNow(DiesOf::kGpadl)) return false;
    return Send(link, wire::GpadlCreated{header.channel_id, header.gpadl_id, habits_.gpadl_status});
  }
  bool Answer(transport::Link& link, const wire::OpenChannel& open) {
    if (DiesNow(DiesOf::kOpen)) return false;
    if (habits_.rescinds_instead_of_opening) {
      Send(link, wire::OpenChannelResult{open.channel_id, open.open_id, wire::kStatusFailure});
      return Send(link, wire::RescindChannelOffer{open.channel_id});
    }
    return Send(link, wire::OpenChannelResult{open.channel_id, open.open_id, habits_.open_status});
  }
  bool Answer(transport::Link&, const wire::CloseChannel&) { return !DiesNow(DiesOf::kClose); }
  bool Answer(transport::Link& link, const wire::GpadlTeardown& teardown) {
    if (DiesNow(DiesOf::kTeardown)) return false;
    return Send(link, wire::GpadlTorndown{teardown.gpadl_id});
  }
  bool Answer(transport::Link& link, const wire::Unload&) {
    if (DiesNow(DiesOf::kUnload)) return false;
    return Send(link, wire::UnloadComplete{});
  }

  const Habits habits_;
  wire::Agreed agreed_;
  transport::TemporaryDirectory directory_;
  std::unique_ptr<transport::Listener> listener_;
  std::thread thread_;
};

using DiesOf = RawServer::DiesOf;

ClientOptions OptionsFor(const RawServer& server) {
  ClientOptions options;
  options.address = server.address();
  options.newest = wire::Version::kIron;
  return options;
}

TEST(ClientTest, ConnectFailsWhenTheServerDiesBeforeTheOffersCame) {
  QuietLog quiet;
  for (const DiesOf stage : {DiesOf::kConnect, DiesOf::kContact, DiesOf::kRequestOffers}) {
    RawServer server({.dies_of = stage});
    const auto client = Client::Connect(OptionsFor(server));
    ASSERT_FALSE(client);
    EXPECT_EQ(client.error(), Error::kPeerGone) << static_cast<int>(stage);
  }
}

TEST(ClientTest, ConnectGivesUpOnAServerThatNeverAnswers) {
  QuietLog quiet;
  RawServer server({.mute = true});
  ClientOptions options = OptionsFor(server);
  options.connect_time = std::chrono::milliseconds(50);
  const auto client = Client::Connect(options);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error(), Error::kNotConnected);
}

TEST(ClientTest, AChannelEndsWheneverTheServerDies) {
  QuietLog quiet;
  for (const DiesOf stage : {DiesOf::kGpadl, DiesOf::kOpen, DiesOf::kClose, DiesOf::kTeardown,
                             DiesOf::kUnload, DiesOf::kNever}) {
    RawServer server({.dies_of = stage});
    Record record;
    EchoHandler handler(record);
    auto client = Client::Connect(OptionsFor(server)).value();
    auto channel = client->MakeChannel(handler);
    channel->setup().interface_type = kEchoInterface;
    ASSERT_TRUE(channel->Enable());
    if (stage == DiesOf::kGpadl || stage == DiesOf::kOpen) {
      EXPECT_TRUE(record.Await("ConnectFailed PeerGone"));
      EXPECT_EQ(record.count("Opened"), 0);
      EXPECT_TRUE(transport::Eventually([&] { return !client->is_connected(); }));
      EXPECT_TRUE(transport::Eventually([&] { return channel->engine().is_disabled(); }));
      EXPECT_EQ(channel->Enable().error(), Error::kNoBus);
    } else {
      EXPECT_TRUE(record.Await("PostStarted"));
      channel->engine().Disable();  // says close, then takes its memory back
      EXPECT_EQ(record.count("Closed"), 1);
      EXPECT_EQ(record.count("Suspend"), 1);
    }
    EXPECT_TRUE(channel->engine().is_disabled());
    channel->Retire();
    channel.reset();
    client.reset();
  }
  EXPECT_EQ(transport::PartitionMappingCount(), 0u);
}

TEST(ClientTest, ARefusedOpenIsToldAndTheChannelMayBeEnabledAgain) {
  QuietLog quiet;
  for (const bool gpadl : {false, true}) {
    RawServer::Habits habits;
    (gpadl ? habits.gpadl_status : habits.open_status) = wire::kStatusFailure;
    RawServer server(habits);
    Record record;
    EchoHandler handler(record);
    auto client = Client::Connect(OptionsFor(server)).value();
    auto channel = client->MakeChannel(handler);
    channel->setup().interface_type = kEchoInterface;
    for (int round = 1; round <= 3; ++round) {
      ASSERT_TRUE(channel->Enable());
      EXPECT_TRUE(record.Await("ConnectFailed DeviceRemoved", round));
      EXPECT_TRUE(transport::Eventually([&] { return channel->engine().is_disabled(); }));
    }
    EXPECT_EQ(record.count("Opened"), 0);
    channel->Retire();
  }
}

TEST(ClientTest, AnOfferThatIsWithdrawnBeforeTheOpenIsNoFailure) {
  QuietLog quiet;
  RawServer::Habits habits;
  habits.rescinds_instead_of_opening = true;
  RawServer server(habits);
  Record record;
  EchoHandler handler(record);
  auto client = Client::Connect(OptionsFor(server)).value();
  auto channel = client->MakeChannel(handler);
  channel->setup().interface_type = kEchoInterface;
  ASSERT_TRUE(channel->Enable());
  EXPECT_TRUE(transport::Eventually([&] { return client->Offers().empty(); }));
  channel->engine().Disable();
  EXPECT_EQ(record.count("Opened"), 0);
  channel->Retire();
}

TEST(ClientTest, WhatNoServerSaysIsDropped) {
  QuietLog quiet;
  RawServer::Habits habits;
  for (const std::size_t size : {1u, 7u, 8u, 20u, 240u}) {
    habits.nonsense.emplace_back(size, std::byte{0xFF});
    habits.nonsense.emplace_back(size, std::byte{0});
  }
  const std::uint32_t ours = 5;  // OPEN_CHANNEL, which only a client may send
  std::vector<std::byte> wrong_direction(148);
  std::memcpy(wrong_direction.data(), &ours, sizeof ours);
  habits.nonsense.push_back(wrong_direction);
  RawServer server(habits);
  Record record;
  EchoHandler handler(record);
  auto client = Client::Connect(OptionsFor(server));
  ASSERT_TRUE(client) << ErrorName(client.error());
  auto channel = (*client)->MakeChannel(handler);
  channel->setup().interface_type = kEchoInterface;
  ASSERT_TRUE(channel->Enable());
  EXPECT_TRUE(record.Await("PostStarted"));
  channel->engine().Disable();
  EXPECT_EQ(record.count("Closed"), 1);
  channel->Retire();
}

TEST(ClientTest, AClientWithoutAServerSaysSo) {
  const transport::TemporaryDirectory directory;
  ClientOptions options;
  options.address = "unix:" + directory.Path("nobody");
  EXPECT_EQ(Client::Connect(options).error(), Error::kAddressUnreachable);
  options.address = "nonsense";
  EXPECT_EQ(Client::Connect(options).error(), Error::kAddressMalformed);
}

TEST(ClientTest, AChannelThatItsOwnerForgotIsDisabledWithTheClient) {
  QuietLog quiet;
  EchoServer server;
  Record record;
  EchoHandler handler(record);
  auto client = Client::Connect({.address = server.address()}).value();
  const auto channel = client->MakeChannel(handler);
  channel->setup().interface_type = kEchoInterface;
  ASSERT_TRUE(channel->Enable());
  EXPECT_TRUE(record.Await("PostStarted"));
  client.reset();
  EXPECT_EQ(record.count("Closed"), 1);
  EXPECT_TRUE(channel->engine().is_disabled());
}

}  // namespace
}  // namespace kmcl::endpoint
