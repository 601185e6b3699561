// What the server answers to INITIATE_CONTACT, and what an offer looks like, in each version.
#include <gtest/gtest.h>

#include <cstring>

#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

using wire::Version;

struct VersionRow {
  Version version;
  std::size_t response_bytes;
  std::uint32_t field_at_12;  // the selected version, or the message connection
  bool names_connection;      // the offer has connection id and dedicated interrupt
  bool has_subchannels;
  std::uint32_t highest_channel;
  bool answers_unload;
};

// VMBus reference 3.1, 3.2, 3.4.
constexpr VersionRow kVersions[] = {
    {Version{0x0000000D}, 16, 0x0000000D, false, false, 255, false},
    {Version{0x00010001}, 16, 0x00010001, true, false, 255, true},
    {Version{0x00020004}, 16, 0x00020004, true, true, 2047, true},
    {Version{0x00030000}, 16, 0x00030000, true, true, 2047, true},
    {Version{0x00040000}, 16, 0x00040000, true, true, 2047, true},
    {Version{0x00040001}, 16, 0x00040001, true, true, 2047, true},
    {Version{0x00050000}, 16, 1, true, true, 2047, true},
    {Version{0x00050001}, 16, 1, true, true, 2047, true},
    {Version{0x00050002}, 16, 1, true, true, 2047, true},
    {Version{0x00050003}, 16, 1, true, true, 2047, true},
    {Version{0x00060000}, 20, 1, true, true, 2047, true},
};

std::uint32_t Word(const wire::MessageBytes& bytes, std::size_t offset) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data() + offset, sizeof word);
  return word;
}

wire::MessageBytes FirstBytes(const ServerActions& actions) {
  return First<server::SendMessage>(actions).bytes;
}

class ServerVersion : public ::testing::TestWithParam<VersionRow> {};

TEST_P(ServerVersion, IsAcceptedWithTheResponseOfItsTime) {
  ServerHarness h;
  const ServerActions actions = h.Contact(GetParam().version);
  ASSERT_EQ(Describe(actions), "VersionResponse ok; [agreed]");
  const wire::MessageBytes bytes = FirstBytes(actions);
  EXPECT_EQ(bytes.size(), GetParam().response_bytes);
  EXPECT_EQ(Word(bytes, 0), 15u);
  EXPECT_EQ(Word(bytes, 8), 1u);  // supported, state 0
  EXPECT_EQ(Word(bytes, 12), GetParam().field_at_12);
  EXPECT_EQ(First<server::VersionAgreed>(actions).version, GetParam().version);
  EXPECT_EQ(h.server.agreed().version, GetParam().version);
}

TEST_P(ServerVersion, OffersAsItsClientsUnderstand) {
  ServerHarness h;
  EXPECT_EQ(h.Offer(Device(1)), wire::ChannelId{1});
  EXPECT_EQ(h.Offer(Device(1, 1)), wire::ChannelId{2});
  h.Contact(GetParam().version);
  const ServerActions actions = h.Tell(wire::RequestOffers{});
  EXPECT_EQ(Describe(actions), GetParam().has_subchannels
                                   ? "OfferChannel; OfferChannel; AllOffersDelivered"
                                   : "OfferChannel; AllOffersDelivered");
  const wire::MessageBytes bytes = FirstBytes(actions);
  EXPECT_EQ(bytes.size(), 196u);
  EXPECT_EQ(Word(bytes, 56), 1u | 8u << 16);    // flags, mmio megabytes
  EXPECT_EQ(Word(bytes, 60), 0xABu);            // user_defined
  EXPECT_EQ(Word(bytes, 180), 0u | 16u << 16);  // sub-channel index, optional megabytes
  EXPECT_EQ(Word(bytes, 184), 1u);              // channel id
  EXPECT_EQ(Word(bytes, 188) & 0xFFFF, 0xFFu);  // no monitor
  EXPECT_EQ(Word(bytes, 188) >> 16, GetParam().names_connection ? 1u : 0u);
  EXPECT_EQ(Word(bytes, 192), GetParam().names_connection ? 0x2001u : 0u);
}

TEST_P(ServerVersion, IsOfferedNoIdThatItCannotUse) {
  ServerHarness h;
  for (std::uint32_t device = 0; device < wire::kMaximumChannelId; ++device) {
    ASSERT_TRUE(h.server.OnOffer(Device(device)).has_value());
  }
  h.Contact(GetParam().version);
  const auto messages = Sent(h.Tell(wire::RequestOffers{}));
  ASSERT_EQ(messages.size(), GetParam().highest_channel + 1);
  std::uint32_t expected_id = 1;
  for (std::size_t i = 0; i + 1 < messages.size(); ++i) {
    EXPECT_EQ(std::get<wire::OfferChannel>(messages[i]).channel_id, wire::ChannelId{expected_id++});
  }
  EXPECT_TRUE(std::holds_alternative<wire::AllOffersDelivered>(messages.back()));
}

TEST_P(ServerVersion, AnswersUnloadIfItsClientsKnowTheAnswer) {
  ServerHarness h;
  h.Connect(GetParam().version);
  EXPECT_EQ(Describe(h.Tell(wire::Unload{})),
            GetParam().answers_unload ? "[reset]; UnloadComplete" : "[reset]");
}

TEST_P(ServerVersion, IsRefusedOutsideTheConfiguredVersions) {
  for (const VersionRow& limit : kVersions) {
    ServerHarness newest({.newest = limit.version});
    EXPECT_EQ(Describe(newest.Contact(GetParam().version)), GetParam().version <= limit.version
                                                                ? "VersionResponse ok; [agreed]"
                                                                : "VersionResponse no");
    ServerHarness oldest({.oldest = limit.version});
    EXPECT_EQ(Describe(oldest.Contact(GetParam().version)), GetParam().version >= limit.version
                                                                ? "VersionResponse ok; [agreed]"
                                                                : "VersionResponse no");
  }
}

TEST_P(ServerVersion, KnowsModifyChannelFrom41AndAnswersItFrom53) {
  ServerHarness h;
  h.Connect(GetParam().version);
  h.Offer(Device(1));
  h.Open();
  const auto modify = [&](std::uint32_t processor) {
    return Describe(h.Tell(wire::ModifyChannel{kChannel, wire::ProcessorIndex{processor}}));
  };
  if (GetParam().version < Version{0x00040001}) {
    EXPECT_EQ(modify(1), "refused MessageNotInVersion");
    return;
  }
  const bool answers = GetParam().version >= Version{0x00050003};
  EXPECT_EQ(modify(1), "[modify]");
  // A second one meanwhile: from 5.3 an error, before that the latest counts.
  EXPECT_EQ(modify(2), answers ? "refused RequestPending" : "");
  EXPECT_EQ(modify(3), answers ? "refused RequestPending" : "");
  const auto done = h.server.OnModifyDone(kChannel, 0);
  EXPECT_EQ(Describe(done), answers ? "ModifyChannelResponse ok" : "[modify]");
  if (!answers) {
    EXPECT_EQ(First<server::ModifyChannel>(*done).target_vp, wire::ProcessorIndex{3});
    EXPECT_EQ(Describe(h.server.OnModifyDone(kChannel, 0)), "");
  }
  EXPECT_EQ(ChannelStateName(h.server, kChannel), "Open");
  EXPECT_EQ(
      Describe(h.Tell(wire::ModifyChannel{kChannel, wire::kNoInterrupt})),
      answers ? "ModifyChannelResponse fail; refused FieldOutOfRange" : "refused FieldOutOfRange");
}

TEST_P(ServerVersion, KnowsHvsockFrom40AndRefusesItFrom41) {
  ServerHarness h;
  h.Connect(GetParam().version);
  wire::TlConnectRequest request;
  request.service_id.data1 = 5;
  const std::string asked = Describe(h.Tell(request));
  EXPECT_EQ(asked, GetParam().version >= Version{0x00040000} ? "[tl connect]"
                                                             : "refused MessageNotInVersion");
  EXPECT_EQ(Describe(h.server.OnTlConnectFailed({}, request.service_id, wire::kStatusFailure)),
            GetParam().version >= Version{0x00040001} ? "TlConnectResult fail" : "");
}

INSTANTIATE_TEST_SUITE_P(AllVersions, ServerVersion, ::testing::ValuesIn(kVersions),
                         [](const auto& row) {
                           return std::string(wire::NameOf(row.param.version));
                         });

TEST(ServerContact, KnowsNoVersionThatIsNotInTheTable) {
  for (const std::uint32_t number : {0u, 1u, 0xDu + 1, 0x10000u, 0x20000u, 0x20005u, 0x50004u,
                                     0x60001u, 0x70000u, 0xFFFFFFFFu}) {
    ServerHarness h;
    const ServerActions actions = h.Contact(wire::Version{number});
    ASSERT_EQ(Describe(actions), "VersionResponse no") << number;
    // The shortest form, all zero.
    EXPECT_EQ(FirstBytes(actions).size(), 16u);
    EXPECT_EQ(Word(FirstBytes(actions), 8), 0u);
    EXPECT_EQ(Word(FirstBytes(actions), 12), 0u);
    EXPECT_FALSE(h.server.agreed().version.has_value());
  }
}

wire::InitiateContact Asks(Version version, std::uint8_t sint, std::uint8_t vtl) {
  wire::InitiateContact contact;
  contact.version = version;
  contact.target_info = wire::InitiateContact::TargetInfo(sint, vtl, {});
  return contact;
}

TEST(ServerContact, HasOnlyTheVmbusSintFrom50) {
  ServerHarness h;
  EXPECT_EQ(Describe(h.Tell(Asks(Version::kWin10V5, 7, 0))), "VersionResponse no");
  EXPECT_EQ(Describe(h.Tell(Asks(Version::kWin10V5, 2, 0))), "VersionResponse ok; [agreed]");
}

TEST(ServerContact, TakesTheSameBytesForAPageBelow50) {
  ServerHarness h;
  EXPECT_EQ(Describe(h.Tell(Asks(Version::kWin10Rs3, 7, 9))), "VersionResponse ok; [agreed]");
}

TEST(ServerContact, ServesOneTrustLevelFrom51) {
  ServerHarness h({.vtl = 2});
  EXPECT_EQ(Describe(h.Tell(Asks(Version::kIron, 2, 0))), "VersionResponse no");
  EXPECT_EQ(Describe(h.Tell(Asks(Version::kIron, 2, 2))), "VersionResponse ok; [agreed]");
  // 5.0 does not say.
  EXPECT_EQ(Describe(h.Tell(Asks(Version::kWin10V5, 2, 1))),
            "[reset]; VersionResponse ok; [agreed]");
}

TEST(ServerContact, FailsOnOneMonitorPageWithoutTheOther) {
  for (const VersionRow& row : kVersions) {
    for (const bool parent : {false, true}) {
      ServerHarness h;
      wire::InitiateContact contact = Asks(row.version, 2, 0);
      (parent ? contact.parent_to_child_monitor_page : contact.child_to_parent_monitor_page) =
          0x5000;
      // Below 2.4 there is no state to fail with.
      EXPECT_EQ(Describe(h.Tell(contact)),
                row.version >= Version::kWin8 ? "VersionResponse fail" : "VersionResponse no");
      EXPECT_FALSE(h.server.agreed().version.has_value());
    }
  }
}

TEST(ServerContact, GrantsTheFeaturesThatBothHave) {
  ServerHarness h;
  const ServerActions actions = h.Contact(Version::kCopper, wire::FeatureFlags(0xFFFFFFFF));
  // modify_connection 0x4, client_id 0x8, pause_resume 0x20.
  EXPECT_EQ(Word(FirstBytes(actions), 16), 0x2Cu);
  EXPECT_EQ(h.server.agreed().features, wire::FeatureFlags(0x2C));

  ServerHarness everything({.features = wire::FeatureFlags(0xFFFFFFFF)});
  everything.Contact(Version::kCopper, wire::FeatureFlags(0xFFFFFFFF));
  // Never monitor pages of ours (0x40), nor bits without a meaning.
  EXPECT_EQ(everything.server.agreed().features, wire::FeatureFlags(0xBF));
}

TEST(ServerContact, PassesTheClientsIdOn) {
  ServerHarness h;
  wire::InitiateContact contact;
  contact.version = Version::kCopper;
  contact.target_info =
      wire::InitiateContact::TargetInfo(wire::kVmbusSint, 0, wire::Feature::kClientId);
  contact.client_id.data1 = 0xC11E;
  const ServerActions actions = h.Tell(contact);
  EXPECT_EQ(First<server::VersionAgreed>(actions).client_id, contact.client_id);
}

TEST(ServerOffer, SaysOnlyFlagsThatMeanSomethingOnTheConnection) {
  OfferParameters device = Device(1);
  device.flags = 0xFFFF;
  ServerHarness plain;
  plain.Contact(Version::kIron);
  plain.Tell(wire::RequestOffers{});
  const auto offer = plain.server.OnOffer(device);
  EXPECT_EQ(First<wire::OfferChannel>(Sent(offer->actions)).flags, 0x2711);

  ServerHarness features({.features = wire::kKnownFeatures});
  features.Contact(Version::kCopper, wire::kKnownFeatures);
  features.Tell(wire::RequestOffers{});
  const auto full = features.server.OnOffer(device);
  EXPECT_EQ(First<wire::OfferChannel>(Sent(full->actions)).flags, 0x271F);
}

TEST(ServerOpen, PassesTheRequestOn) {
  ServerHarness h;
  h.Connect();
  h.Offer(Device(1));
  h.Share(kChannel);
  const auto open =
      First<server::OpenChannel>(h.TellOpen(kChannel, kRing, wire::ProcessorIndex{3}));
  EXPECT_EQ(open.channel, kChannel);
  EXPECT_EQ(open.open, kOpenId);
  EXPECT_EQ(open.ring, kRing);
  EXPECT_EQ(open.downstream_page, 2u);
  EXPECT_EQ(open.target_vp, wire::ProcessorIndex{3});
  EXPECT_EQ(open.user_data[5], std::byte{0x5A});
  EXPECT_FALSE(open.signal.has_value());
  EXPECT_FALSE(open.redirect_interrupt);
}

TEST(ServerOpen, PassesTheClientsOwnSignalOnIfThatWasAgreed) {
  ServerHarness h({.features = wire::kKnownFeatures});
  h.Connect(Version::kCopper, wire::Feature::kGuestSpecifiedSignalParameters |
                                  wire::Feature::kChannelInterruptRedirection);
  h.Offer(Device(1));
  h.Share(kChannel);
  wire::OpenChannel message;
  message.channel_id = kChannel;
  message.ring_gpadl_id = kRing;
  message.connection_id = wire::ConnectionId{0x1234};
  message.event_flag = 77;
  message.flags = 1;
  const auto open = First<server::OpenChannel>(h.Tell(message));
  ASSERT_TRUE(open.signal.has_value());
  EXPECT_EQ(open.signal->connection, wire::ConnectionId{0x1234});
  EXPECT_EQ(open.signal->event_flag, 77);
  EXPECT_TRUE(open.redirect_interrupt);
}

}  // namespace
}  // namespace kmcl::bus
