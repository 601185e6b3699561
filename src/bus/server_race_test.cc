// Messages that cross, at the server: revokes, reopens, resets, pauses, and ids used again.
#include <gtest/gtest.h>

#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

TEST(ServerOffer, BeforeTheClientAsksIsOnlyRemembered) {
  ServerHarness h;
  h.Offer(Device(1));
  h.Contact(wire::Version::kIron);
  h.Offer(Device(2));
  EXPECT_EQ(Describe(h.Tell(wire::RequestOffers{})),
            "OfferChannel; OfferChannel; AllOffersDelivered");
}

TEST(ServerOffer, OfASubChannelFollowsItsPrimary) {
  ServerHarness h;
  const auto early = h.server.OnOffer(Device(1, 1));
  ASSERT_FALSE(early.has_value());
  EXPECT_EQ(early.error(), Error::kOfferWithoutPrimary);
  h.Offer(Device(2));
  const wire::ChannelId primary = h.Offer(Device(1));
  h.Offer(Device(1, 1));
  // The primary's place is taken over by a later one, which stands behind the sub-channel.
  h.Revoke(primary);
  h.Offer(Device(3));
  h.Offer(Device(1));
  h.Contact(wire::Version::kIron);
  const auto messages = Sent(h.Tell(wire::RequestOffers{}));
  std::vector<std::pair<std::uint32_t, int>> order;
  for (std::size_t i = 0; i + 1 < messages.size(); ++i) {
    const auto& offer = std::get<wire::OfferChannel>(messages[i]);
    order.emplace_back(offer.instance_id.data1, offer.subchannel_index);
  }
  EXPECT_EQ(order, (std::vector<std::pair<std::uint32_t, int>>{{2, 0}, {3, 0}, {1, 0}, {1, 1}}));
}

TEST(ServerOffer, TakesTheLowestFreeIdAndKeepsItOverReconnects) {
  ServerHarness h;
  for (std::uint32_t device = 1; device <= 3; ++device) h.Offer(Device(device));
  h.Connect();
  h.Revoke(wire::ChannelId{2});
  // The client has not let go of 2.
  EXPECT_EQ(h.Offer(Device(4)), wire::ChannelId{4});
  EXPECT_EQ(Describe(h.Tell(wire::RelIdReleased{wire::ChannelId{2}})), "[id free]");
  EXPECT_EQ(h.Offer(Device(5)), wire::ChannelId{2});
  h.Contact(wire::Version::kCopper);
  const auto messages = Sent(h.Tell(wire::RequestOffers{}));
  ASSERT_EQ(messages.size(), 5u);
  const std::uint32_t devices[] = {1, 5, 3, 4};
  for (std::uint32_t i = 0; i < 4; ++i) {
    const auto& offer = std::get<wire::OfferChannel>(messages[i]);
    EXPECT_EQ(offer.channel_id, wire::ChannelId{i + 1});
    EXPECT_EQ(offer.instance_id.data1, devices[i]);
  }
}

TEST(ServerOffer, HasNoMoreIdsThanTheProtocol) {
  ServerHarness h;
  h.Connect();
  for (std::uint32_t device = 1; device <= wire::kMaximumChannelId; ++device) {
    ASSERT_EQ(h.Offer(Device(device)), wire::ChannelId{device});
  }
  EXPECT_EQ(h.server.OnOffer(Device(5000)).error(), Error::kChannelIdsExhausted);
  h.Revoke(wire::ChannelId{1000});
  EXPECT_EQ(h.server.OnOffer(Device(5000)).error(), Error::kChannelIdsExhausted);
  h.Tell(wire::RelIdReleased{wire::ChannelId{1000}});
  EXPECT_EQ(h.Offer(Device(5000)), wire::ChannelId{1000});
  h.server.CheckInvariants();
}

TEST(ServerOffer, OfARevokedDeviceWaitsUntilTheOldIdIsBack) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  EXPECT_EQ(Describe(h.Revoke(kChannel)), "RescindChannelOffer");
  const auto again = h.server.OnOffer(Device(1)).value();
  EXPECT_EQ(again.channel, wire::ChannelId{2});
  EXPECT_EQ(Describe(again.actions), "");
  const ServerActions actions = h.Tell(wire::RelIdReleased{kChannel});
  EXPECT_EQ(Describe(actions), "[id free]; OfferChannel");
  EXPECT_EQ(First<wire::OfferChannel>(Sent(actions)).channel_id, wire::ChannelId{2});
}

TEST(ServerReopen, FailsIfTheRingWasTornDownMeanwhile) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Open();
  h.Tell(wire::CloseChannel{kChannel});
  EXPECT_EQ(Describe(h.TellOpen(kChannel)), "");
  EXPECT_EQ(Describe(h.Tell(wire::GpadlTeardown{kChannel, kRing})), "[release gpadl]");
  EXPECT_EQ(Describe(h.server.OnCloseDone(kChannel)), "OpenChannelResult fail");
  EXPECT_EQ(ChannelStateName(h.server, kChannel), "Offered");
}

TEST(ServerRevoke, AnswersWhateverIsPendingFirst) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Share(kChannel, wire::GpadlId{1});
  h.Share(kChannel, wire::GpadlId{2});
  h.TellGpadl(kChannel, wire::GpadlId{3});
  h.Tell(wire::GpadlTeardown{kChannel, wire::GpadlId{2}});
  h.TellOpen(kChannel, wire::GpadlId{1});
  const auto incomplete = wire::FragmentGpadl(kChannel, wire::GpadlId{4}, Pages(40)).value();
  h.Tell(incomplete.header);
  EXPECT_EQ(Describe(h.Revoke(kChannel)),
            "OpenChannelResult fail; GpadlTorndown; GpadlCreated fail; RescindChannelOffer");
  // What was under way meanwhile.
  EXPECT_EQ(Describe(h.Tell(incomplete.bodies[0])), "GpadlCreated ok");
  EXPECT_EQ(Describe(h.Tell(wire::GpadlTeardown{kChannel, wire::GpadlId{1}})), "GpadlTorndown");
  EXPECT_EQ(Describe(h.Tell(wire::CloseChannel{kChannel})), "");
  // Late answers of the device have no place.
  EXPECT_EQ(Describe(h.server.OnOpenResult(kChannel, 0)), "error ChannelState");
  EXPECT_EQ(Describe(h.server.OnGpadlResult(kChannel, wire::GpadlId{3}, 0)), "error GpadlUnknown");
  EXPECT_EQ(Describe(h.Tell(wire::RelIdReleased{kChannel})), "[id free]");
  EXPECT_EQ(ServerTestPeer::gpadl_count(h.server), 0u);
}

TEST(ServerReset, ByContactAnswersOnlyTheLastContact) {
  ServerHarness h;
  h.Connect(wire::Version::kIron);
  h.Offer(Device(1));
  h.Open();
  EXPECT_EQ(Describe(h.Contact(wire::Version::kWin10)), "[reset]; [close]; [release gpadl]");
  EXPECT_EQ(Describe(h.Contact(wire::Version{0x77})), "");
  EXPECT_EQ(Describe(h.Contact(wire::Version::kWin8)), "");
  EXPECT_EQ(Describe(h.server.OnCloseDone(kChannel)), "");
  EXPECT_EQ(Describe(h.server.OnGpadlReleased(kChannel, kRing)), "VersionResponse ok; [agreed]");
  EXPECT_EQ(h.server.agreed().version, wire::Version::kWin8);
}

TEST(ServerReset, ByContactDuringAnUnloadForgetsTheUnload) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Open();
  h.Tell(wire::Unload{});
  EXPECT_EQ(Describe(h.Contact(wire::Version::kIron)), "");
  EXPECT_EQ(Describe(h.server.OnGpadlReleased(kChannel, kRing)), "");
  EXPECT_EQ(Describe(h.server.OnCloseDone(kChannel)), "VersionResponse ok; [agreed]");
}

TEST(ServerReset, WaitsForADeviceThatIsJustOpening) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Share(kChannel);
  h.TellOpen(kChannel);
  EXPECT_EQ(Describe(h.Tell(wire::Unload{})), "[reset]; [release gpadl]");
  EXPECT_EQ(Describe(h.server.OnOpenResult(kChannel, 0)), "[close]");
  EXPECT_EQ(Describe(h.server.OnCloseDone(kChannel)), "");
  EXPECT_EQ(Describe(h.server.OnGpadlReleased(kChannel, kRing)), "UnloadComplete");
  EXPECT_EQ(Describe(h.Tell(wire::RelIdReleased{kChannel})), "");
  h.rules = {};
  h.Connect();
  EXPECT_EQ(ChannelStateName(h.server, kChannel), "Offered");
}

TEST(ServerReset, ThatTheRevokeOfTheLastBusyChannelEnds) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Open();
  h.TellGpadl(kChannel, wire::GpadlId{8});
  h.Tell(wire::Unload{});
  EXPECT_EQ(Describe(h.Revoke(kChannel)), "[id free]; UnloadComplete");
}

TEST(ServerPause, HoldsEveryMessageInOrderUntilResume) {
  ServerHarness h;
  h.Connect(wire::Version::kCopper, wire::Feature::kPauseResume);
  h.Offer(Device(1));
  h.TellGpadl(kChannel, kRing);
  EXPECT_EQ(Describe(h.Tell(wire::Pause{})), "PauseResponse");
  EXPECT_EQ(Describe(h.server.OnGpadlResult(kChannel, kRing, 0)), "");
  EXPECT_EQ(Describe(h.server.OnOffer(Device(2)).value().actions), "");
  EXPECT_EQ(Describe(h.Revoke(kChannel)), "");
  EXPECT_EQ(Describe(h.Tell(wire::CloseChannel{kChannel})), "refused Paused");
  EXPECT_EQ(Describe(h.Tell(wire::Resume{})), "GpadlCreated ok; OfferChannel; RescindChannelOffer");
  EXPECT_EQ(Describe(h.Tell(wire::CloseChannel{kChannel})), "");
}

// A client that never resumes: what a server's own driver offers and revokes meanwhile runs out of
// ids.
TEST(ServerPause, HoldsTwoMessagesForEachIdAtMost) {
  ServerHarness h({.channels = 4});
  h.Connect(wire::Version::kCopper, wire::Feature::kPauseResume);
  EXPECT_EQ(Describe(h.Tell(wire::Pause{})), "PauseResponse");
  for (std::uint32_t device = 1; device <= 4; ++device) h.Revoke(h.Offer(Device(device)));
  const auto another = h.server.OnOffer(Device(5));
  ASSERT_FALSE(another.has_value());
  EXPECT_EQ(another.error(), Error::kChannelIdsExhausted);
  // The client may not give one back either.
  EXPECT_EQ(Describe(h.Tell(wire::RelIdReleased{wire::ChannelId{1}})), "refused Paused");
  EXPECT_EQ(Sent(h.Tell(wire::Resume{})).size(), 8u);
}

TEST(ServerPause, EndsWithTheConnectionAndItsMessages) {
  ServerHarness h;
  h.Connect(wire::Version::kCopper, wire::Feature::kPauseResume);
  h.Tell(wire::Pause{});
  h.Offer(Device(1));
  EXPECT_EQ(Describe(h.Tell(wire::Unload{})), "[reset]; UnloadComplete");
  h.rules = {};
  EXPECT_EQ(Describe(h.Contact(wire::Version::kCopper)), "VersionResponse ok; [agreed]");
  EXPECT_EQ(Describe(h.Tell(wire::RequestOffers{})), "OfferChannel; AllOffersDelivered");
}

TEST(ServerModify, OfAChannelWithoutInterruptsIsRefused) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Open(kChannel, wire::kNoInterrupt);
  EXPECT_EQ(Describe(h.Tell(wire::ModifyChannel{kChannel, {}})),
            "ModifyChannelResponse fail; refused ChannelState");
}

TEST(ServerReport, NamesMessageChannelAndGpadl) {
  ServerHarness h;
  h.Connect();
  const auto refused =
      First<Refused>(h.Tell(wire::GpadlTeardown{wire::ChannelId{12}, wire::GpadlId{34}}));
  EXPECT_EQ(refused.report, (Report{Error::kChannelUnknown, 11, 12, 34}));
}

TEST(ServerCopy, IsEqualUntilSomethingHappensToIt) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Open();
  Server copy = h.server;
  EXPECT_TRUE(copy == h.server);
  h.Tell(wire::CloseChannel{kChannel});
  EXPECT_FALSE(copy == h.server);
  copy.OnMessage(wire::Encode(wire::CloseChannel{kChannel}, h.rules));
  EXPECT_TRUE(copy == h.server);
}

}  // namespace
}  // namespace kmcl::bus
