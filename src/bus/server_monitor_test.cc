// Monitors in offers (VMBus reference 3.8).
#include <gtest/gtest.h>

#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

wire::InitiateContact Contact(std::uint64_t parent_to_child, std::uint64_t child_to_parent) {
  wire::InitiateContact contact;
  contact.version = wire::Version::kCopper;
  contact.target_info =
      wire::InitiateContact::TargetInfo(wire::kVmbusSint, 0, wire::Feature::kModifyConnection);
  contact.parent_to_child_monitor_page = parent_to_child;
  contact.child_to_parent_monitor_page = child_to_parent;
  return contact;
}

// The offer of one device to a client that gives these pages.
wire::OfferChannel OfferTo(ServerHarness& h, std::uint64_t first, std::uint64_t second) {
  h.Tell(Contact(first, second));
  h.rules = h.server.agreed();
  h.Tell(wire::RequestOffers{});
  auto outcome = h.server.OnOffer(Device(1));
  EXPECT_TRUE(outcome.has_value());
  const auto messages = Sent(outcome->actions);
  return First<wire::OfferChannel>(messages);
}

TEST(ServerMonitors, AreGivenToAClientThatHasBothPages) {
  ServerHarness h({.monitors = Monitors::kAll});
  const wire::OfferChannel offer = OfferTo(h, 0x1000, 0x2000);
  EXPECT_TRUE(offer.monitor_allocated());
  EXPECT_EQ(offer.monitor_id, 0);
  EXPECT_EQ(h.server.monitor_page(), 0x2000u);
}

TEST(ServerMonitors, AreNotGivenToOthersNorUnlessWanted) {
  ServerHarness without_pages({.monitors = Monitors::kAll});
  EXPECT_FALSE(OfferTo(without_pages, 0, 0).monitor_allocated());
  EXPECT_EQ(without_pages.server.monitor_page(), 0u);
  ServerHarness unwanted;
  const wire::OfferChannel offer = OfferTo(unwanted, 0x1000, 0x2000);
  EXPECT_FALSE(offer.monitor_allocated());
  EXPECT_EQ(offer.monitor_id, wire::kNoMonitorId);
  EXPECT_EQ(unwanted.server.monitor_page(), 0u);
}

TEST(ServerMonitors, AreOneForEachOfTheFirstChannels) {
  ServerHarness h({.monitors = Monitors::kAll});
  h.Tell(Contact(0x1000, 0x2000));
  h.rules = h.server.agreed();
  h.Tell(wire::RequestOffers{});
  for (std::uint32_t i = 1; i <= wire::kMonitorCount + 1; ++i) {
    auto outcome = h.server.OnOffer(Device(i));
    ASSERT_TRUE(outcome.has_value());
    const auto messages = Sent(outcome->actions);
    const auto offer = First<wire::OfferChannel>(messages);
    EXPECT_EQ(offer.monitor_allocated(), i <= wire::kMonitorCount);
    if (offer.monitor_allocated()) {
      EXPECT_EQ(offer.monitor_id, i - 1);
    } else {
      EXPECT_EQ(offer.monitor_id, wire::kNoMonitorId);
    }
  }
}

TEST(ServerMonitors, AreGivenToThoseThatAsk) {
  ServerHarness h({.monitors = Monitors::kAsked});
  const wire::OfferChannel plain = OfferTo(h, 0x1000, 0x2000);
  EXPECT_FALSE(plain.monitor_allocated());
  EXPECT_EQ(h.server.monitor(plain.channel_id), std::nullopt);
  OfferParameters asking = Device(2);
  asking.flags = wire::kOfferRequestMonitoredNotification;
  auto outcome = h.server.OnOffer(asking);
  ASSERT_TRUE(outcome.has_value());
  const auto messages = Sent(outcome->actions);
  const auto offer = First<wire::OfferChannel>(messages);
  EXPECT_TRUE(offer.monitor_allocated());
  EXPECT_EQ(offer.monitor_id, h.server.monitor(offer.channel_id));
}

TEST(ServerMonitors, KeepTheirPagesWhileConnected) {
  ServerHarness h({.monitors = Monitors::kAll});
  OfferTo(h, 0x1000, 0x2000);
  const auto actions = h.Tell(wire::ModifyConnection{.parent_to_child_monitor_page = 0x3000,
                                                     .child_to_parent_monitor_page = 0x4000});
  EXPECT_EQ(First<wire::ModifyConnectionResponse>(Sent(actions)).connection_state,
            wire::ConnectionState::kUnknownFailure);
  EXPECT_EQ(h.server.monitor_page(), 0x2000u);
  h.Tell(wire::Unload{});
  EXPECT_EQ(h.server.monitor_page(), 0u);
}

}  // namespace
}  // namespace kmcl::bus
