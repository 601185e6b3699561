// The real server and the real client against each other, with queues between them and random
// interleavings of messages, device answers and wishes of both sides.
//
// Both are correct peers, so neither may refuse anything but what crossed on the way; memory never
// comes back to the client while the device has it; and once the wishes stop, everything that was
// asked is answered.
#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>

#include "bus/match.h"
#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

class World {
 public:
  explicit World(std::uint32_t seed) : random_(seed) {
    options_.newest = AnyVersion();
    options_.features = wire::kKnownFeatures;
    options_.client_id.data1 = 0x1234;
    ServerLimits limits;
    limits.newest = AnyVersion();
    limits.features = wire::kKnownFeatures;
    server_ = Server(limits);
    // Half of the walks begin where it is interesting.
    if (seed % 2 == 0) return;
    for (std::uint32_t device = 0; device < 3; ++device) {
      const auto outcome = server_.OnOffer(Device(device)).value();
      offered_.insert(outcome.channel);
    }
    waiting_connect_ = true;
    Run(client_.OnConnect(options_).value());
    Drain();
    for (const wire::ChannelId id : known_) CreateGpadl(id);
  }

  void Step() {
    switch (Below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return DeliverToServer();
      case 4:
      case 5:
      case 6:
      case 7:
        return DeliverToClient();
      case 8:
      case 9:
      case 10:
        return DeviceAnswers();
      case 11:
        return ServerWishes();
      default:
        return ClientWishes();
    }
  }

  // No new wishes; everything under way comes to its end.
  void Drain() {
    for (int round = 0; round < 100'000; ++round) {
      if (to_server_.empty() && to_client_.empty() && owed_.empty()) return;
      switch (Below(3)) {
        case 0:
          DeliverToServer();
          break;
        case 1:
          DeliverToClient();
          break;
        default:
          DeviceAnswers();
          break;
      }
    }
    ADD_FAILURE() << "it does not come to rest";
  }

  void ExpectNobodyWaits() {
    EXPECT_EQ(waiting_opens_, 0) << "OnOpen without OpenResult";
    EXPECT_EQ(waiting_modifies_, 0) << "OnModify without ModifyResult";
    EXPECT_TRUE(waiting_gpadls_.empty()) << "OnCreateGpadl without GpadlResult";
    EXPECT_TRUE(waiting_teardowns_.empty()) << "OnTeardownGpadl without GpadlTornDown";
    EXPECT_FALSE(waiting_connect_);
    EXPECT_FALSE(waiting_unload_);
  }

  void End() {
    to_server_.clear();
    to_client_.clear();
    Run(server_.OnPeerGone());
    Run(client_.OnPeerGone());
    while (!owed_.empty()) DeviceAnswers();
    EXPECT_TRUE(server_.finished());
    EXPECT_TRUE(device_open_.empty());
    EXPECT_TRUE(mapped_.empty());
    ExpectNobodyWaits();
  }

  bool ever_open() const { return ever_open_; }

 private:
  using Rings = std::map<wire::ChannelId, wire::GpadlId>;

  std::uint32_t Below(std::size_t end) {
    return static_cast<std::uint32_t>(random_() % static_cast<std::uint32_t>(end));
  }
  wire::Version AnyVersion() {
    // Mostly the newer ones: the older ones know less.
    const std::uint32_t count = Below(3) == 0 ? wire::kVersionsNewestFirst.size() : 3;
    return wire::kVersionsNewestFirst[Below(count)];
  }

  void DeliverToServer() {
    if (to_server_.empty()) return;
    const auto bytes = to_server_.front();
    to_server_.pop_front();
    Run(server_.OnMessage(bytes));
  }

  void DeliverToClient() {
    if (to_client_.empty()) return;
    const auto bytes = to_client_.front();
    to_client_.pop_front();
    Run(client_.OnMessage(bytes));
  }

  // ---- The device at the server

  struct Owed {
    enum class Kind { kOpen, kClose, kMap, kUnmap, kModify } kind;
    wire::ChannelId channel{};
    wire::GpadlId gpadl{};
  };

  void Run(const ServerActions& actions) {
    for (const ServerAction& action : actions) {
      std::visit([this](const auto& a) { Do(a); }, action);
    }
  }

  void Do(const server::SendMessage& send) { to_client_.push_back(send.bytes); }
  void Do(const server::VersionAgreed&) {
    EXPECT_TRUE(device_open_.empty());
    EXPECT_TRUE(mapped_.empty());
  }
  void Do(const server::ConnectionReset&) {}
  void Do(const server::OpenChannel& open) {
    EXPECT_FALSE(device_open_.contains(open.channel));
    EXPECT_TRUE(mapped_.contains(open.ring));
    EXPECT_TRUE(open.user_data[3] == std::byte{0x33});
    opening_[open.channel] = open.ring;
    owed_.push_back({Owed::Kind::kOpen, open.channel, open.ring});
  }
  void Do(const server::CloseChannel& close) {
    EXPECT_TRUE(device_open_.contains(close.channel));
    owed_.push_back({Owed::Kind::kClose, close.channel, {}});
  }
  void Do(const server::GpadlComplete& complete) {
    EXPECT_FALSE(mapped_.contains(complete.gpadl));
    EXPECT_EQ(complete.ranges.pages().size(), sizes_.at(complete.gpadl));
    owed_.push_back({Owed::Kind::kMap, complete.channel, complete.gpadl});
  }
  void Do(const server::ReleaseGpadl& release) {
    EXPECT_TRUE(mapped_.contains(release.gpadl));
    owed_.push_back({Owed::Kind::kUnmap, release.channel, release.gpadl});
  }
  void Do(const server::ModifyChannel& modify) {
    EXPECT_TRUE(device_open_.contains(modify.channel));
    owed_.push_back({Owed::Kind::kModify, modify.channel, {}});
  }
  void Do(const server::ChannelReleased& released) {
    EXPECT_FALSE(device_open_.contains(released.channel));
    offered_.erase(released.channel);
  }
  void Do(const server::TlConnect& connect) {
    Run(server_
            .OnTlConnectFailed(connect.endpoint_id, connect.service_id,
                               wire::kStatusConnectionRefused)
            .value());
  }
  void Do(const server::Finished&) {}
  void Do(const Refused& refused) {
    EXPECT_TRUE(refused.is_crossing)
        << ErrorName(refused.report.rule) << ", message " << refused.report.message_number;
  }
  void Do(const Broken& broken) { ADD_FAILURE() << ErrorName(broken.report.rule); }

  // One of the answers that the device owes. It answers about one channel in order.
  void DeviceAnswers() {
    if (owed_.empty()) return;
    const std::size_t index = Below(owed_.size());
    const Owed owed = owed_[index];
    for (std::size_t i = 0; i < index; ++i) {
      if (owed_[i].channel == owed.channel) return;
    }
    owed_.erase(owed_.begin() + index);
    const std::uint32_t status = Below(8) == 0 ? wire::kStatusFailure : wire::kStatusSuccess;
    switch (owed.kind) {
      case Owed::Kind::kOpen:
        opening_.erase(owed.channel);
        if (status == wire::kStatusSuccess) device_open_[owed.channel] = owed.gpadl;
        return Run(server_.OnOpenResult(owed.channel, status).value());
      case Owed::Kind::kClose:
        device_open_.erase(owed.channel);
        Run(server_.OnCloseDone(owed.channel).value());
        return;
      case Owed::Kind::kMap:
        if (status == wire::kStatusSuccess) mapped_[owed.gpadl] = owed.channel;
        return Run(server_.OnGpadlResult(owed.channel, owed.gpadl, status).value());
      case Owed::Kind::kUnmap:
        mapped_.erase(owed.gpadl);
        return Run(server_.OnGpadlReleased(owed.channel, owed.gpadl).value());
      case Owed::Kind::kModify: {
        // The channel may have been closed since.
        const auto result = server_.OnModifyDone(owed.channel, status);
        if (result) Run(*result);
        return;
      }
    }
  }

  void ServerWishes() {
    if (Below(2) == 0) {
      const auto outcome = server_.OnOffer(Device(Below(4), static_cast<std::uint16_t>(Below(2))));
      if (!outcome) return;
      offered_.insert(outcome->channel);
      return Run(outcome->actions);
    }
    if (offered_.empty() || Below(3) != 0) return;
    const wire::ChannelId id = Any(offered_);
    // The device lets go of everything before it revokes.
    const auto before = owed_;
    owed_.clear();
    for (const Owed& owed : before) {
      if (owed.channel != id) owed_.push_back(owed);
    }
    if (ChannelStateName(server_, id) != "Revoked") {
      device_open_.erase(id);
      opening_.erase(id);
      std::erase_if(mapped_, [&](const auto& entry) { return entry.second == id; });
    }
    const auto result = server_.OnRevoke(id);
    if (result) {
      Run(*result);
    } else {
      EXPECT_EQ(result.error(), Error::kChannelState);
    }
  }

  // ---- The driver at the client

  void Run(const ClientActions& actions) {
    for (const ClientAction& action : actions) {
      std::visit([this](const auto& a) { Do(a); }, action);
    }
  }

  void Do(const client::SendMessage& send) { to_server_.push_back(send.bytes); }
  void Do(const client::Connected& connected) {
    unload_is_answered_ = wire::HasDedicatedConnections(connected.version);
    EXPECT_TRUE(waiting_connect_);
    waiting_connect_ = false;
    EXPECT_TRUE(mapped_.empty());
  }
  void Do(const client::ConnectRefused&) {
    EXPECT_TRUE(waiting_connect_);
    waiting_connect_ = false;
  }
  void Do(const client::OfferArrived& arrived) {
    EXPECT_TRUE(known_.insert(arrived.offer.channel).second);
  }
  void Do(const client::OffersDelivered&) {}
  void Do(const client::OfferRescinded& rescinded) {
    EXPECT_TRUE(leaving_ || !unload_is_answered_ || !device_open_.contains(rescinded.channel));
  }
  void Do(const client::ChannelForgotten& forgotten) {
    known_.erase(forgotten.channel);
    std::erase_if(gpadls_, [&](const auto& e) { return e.second == forgotten.channel; });
  }
  void Do(const client::OpenResult& result) {
    --waiting_opens_;
    ever_open_ |= result.status == wire::kStatusSuccess;
  }
  void Do(const client::GpadlResult& result) {
    EXPECT_EQ(waiting_gpadls_.erase(result.gpadl), 1u);
    if (result.status != wire::kStatusSuccess) ComesBack(result.gpadl);
  }
  void Do(const client::GpadlTornDown& torn_down) {
    EXPECT_EQ(waiting_teardowns_.erase(torn_down.gpadl), 1u);
    ComesBack(torn_down.gpadl);
  }
  void Do(const client::ModifyResult&) { --waiting_modifies_; }
  void Do(const client::TlConnectFailed&) {}
  void Do(const client::Unloaded&) {
    EXPECT_TRUE(waiting_unload_);
    waiting_unload_ = false;
    EXPECT_TRUE(leaving_ || !unload_is_answered_ || mapped_.empty());
  }

  // Memory is the client's again: the device must not have it. Except when the link died.
  void ComesBack(wire::GpadlId gpadl) {
    gpadls_.erase(gpadl);
    EXPECT_TRUE(leaving_ || !unload_is_answered_ || !mapped_.contains(gpadl));
  }

  // Runs a wish. One that is refused leaves the client as it was.
  template <typename Wish>
  bool Try(Wish wish) {
    const Client before = client_;
    auto result = wish();
    if (result) {
      Run(*result);
      return true;
    }
    EXPECT_TRUE(client_ == before) << ErrorName(result.error());
    return false;
  }

  void ClientWishes() {
    switch (Below(24)) {
      case 0:
        // V1 has no answer to wait for: Unloaded is among the actions.
        if (Below(5) == 0) {
          const bool before = std::exchange(waiting_unload_, true);
          if (!Try([&] { return client_.OnUnload(); })) waiting_unload_ = before;
        }
        return;
      case 1:
        if (Below(5) == 0 && Try([&] { return client_.OnReconnect(); })) {
          waiting_connect_ = true;
          waiting_unload_ = false;
        }
        return;
      case 2:
      case 3:
      case 4:
        if (Try([&] { return client_.OnConnect(options_); })) waiting_connect_ = true;
        return;
      case 5:
        Try([&] { return client_.OnTlConnect({}, {}, std::nullopt); });
        return;
      default:
        break;
    }
    if (known_.empty()) return;
    const wire::ChannelId id = Any(known_);
    switch (Below(7)) {
      case 0:
        return CreateGpadl(id);
      case 1:
      case 2: {
        OpenRequest request;
        request.ring = gpadls_.empty() ? wire::GpadlId{0} : AnyGpadl(id);
        request.user_data[3] = std::byte{0x33};
        if (Try([&] { return client_.OnOpen(id, request); })) ++waiting_opens_;
        return;
      }
      case 3:
        Try([&] { return client_.OnClose(id); });
        return;
      case 4: {
        if (gpadls_.empty()) return;
        const wire::GpadlId gpadl = AnyGpadl(id);
        // It may come back at once.
        const bool is_new = waiting_teardowns_.insert(gpadl).second;
        if (!Try([&] { return client_.OnTeardownGpadl(id, gpadl); }) && is_new) {
          waiting_teardowns_.erase(gpadl);
        }
        return;
      }
      case 5:
        ++waiting_modifies_;
        if (!Try([&] { return client_.OnModify(id, wire::ProcessorIndex{Below(4)}); })) {
          --waiting_modifies_;
        }
        return;
      default:
        if (Try([&] { return client_.OnReleaseChannel(id); })) {
          known_.erase(id);
          std::erase_if(gpadls_, [&](const auto& e) { return e.second == id; });
        }
        return;
    }
  }

  void CreateGpadl(wire::ChannelId id) {
    const std::uint32_t pages = Below(4) == 0 ? 100 : 4;
    auto outcome = client_.OnCreateGpadl(id, Pages(pages));
    if (!outcome) return;
    EXPECT_TRUE(gpadls_.emplace(outcome->gpadl, id).second);
    sizes_[outcome->gpadl] = pages;
    waiting_gpadls_.insert(outcome->gpadl);
    Run(outcome->actions);
  }

  wire::GpadlId AnyGpadl(wire::ChannelId id) {
    std::set<wire::GpadlId> own;
    for (const auto& [gpadl, channel] : gpadls_) {
      if (channel == id) own.insert(gpadl);
    }
    return own.empty() ? gpadls_.begin()->first : Any(own);
  }

  template <typename Id>
  Id Any(const std::set<Id>& ids) {
    return *std::next(ids.begin(), Below(ids.size()));
  }

 public:
  // From here on the link is dead, and memory comes back whatever the device does.
  void Leave() { leaving_ = true; }

 private:
  std::mt19937 random_;
  ClientOptions options_;
  Server server_{ServerLimits{}};
  Client client_;
  std::deque<wire::MessageBytes> to_server_;
  std::deque<wire::MessageBytes> to_client_;

  // The device.
  std::vector<Owed> owed_;
  std::set<wire::ChannelId> offered_;
  Rings opening_;
  Rings device_open_;
  std::map<wire::GpadlId, wire::ChannelId> mapped_;

  // The driver.
  std::set<wire::ChannelId> known_;
  std::map<wire::GpadlId, wire::ChannelId> gpadls_;
  std::map<wire::GpadlId, std::size_t> sizes_;  // of every GPADL that ever was
  std::set<wire::GpadlId> waiting_gpadls_;
  std::set<wire::GpadlId> waiting_teardowns_;
  int waiting_opens_ = 0;
  int waiting_modifies_ = 0;
  bool waiting_connect_ = false;
  bool waiting_unload_ = false;
  bool ever_open_ = false;
  // A V1 client is not told when the server has let go: there only the end of the link helps.
  bool unload_is_answered_ = true;
  bool leaving_ = false;
};

TEST(Pair, AnyInterleavingOfCorrectPeersIsAnsweredAndRefusesNothing) {
  constexpr std::uint32_t kSeeds = 10'000;
  std::uint32_t worlds_with_open_channels = 0;
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed);
    const int steps = seed % 10 == 0 ? 600 : 100;
    for (int step = 0; step < steps; ++step) world.Step();
    world.Drain();
    world.ExpectNobodyWaits();
    world.Leave();
    world.End();
    if (world.ever_open()) ++worlds_with_open_channels;
    ASSERT_FALSE(::testing::Test::HasFailure()) << "seed " << seed;
  }
  // Otherwise the walks do not go where it is interesting.
  EXPECT_GT(worlds_with_open_channels, kSeeds / 3);
  RecordProperty("worlds_with_open_channels", static_cast<int>(worlds_with_open_channels));
}

}  // namespace
}  // namespace kmcl::bus
