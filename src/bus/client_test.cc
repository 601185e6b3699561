// The client: how it finds a version, what it accepts from a server, and what it sends.
#include <gtest/gtest.h>

#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

using wire::Version;

TEST(ClientConnect, AsksForEveryVersionFromTheNewestDown) {
  ClientHarness h;
  ClientActions actions = h.client.OnConnect({}).value();
  for (const Version version : wire::kVersionsNewestFirst) {
    const auto contact = First<wire::InitiateContact>(Sent(actions));
    EXPECT_EQ(contact.version, version);
    if (version >= Version::kWin10V5) {
      EXPECT_EQ(contact.sint(), wire::kVmbusSint);
    } else {
      EXPECT_EQ(contact.interrupt_page(), 0u);
    }
    EXPECT_EQ(contact.child_to_parent_monitor_page, 0u);
    actions = h.Tell(wire::VersionResponse{});
  }
  EXPECT_EQ(Describe(actions), "[no connection] VersionRefused");
  EXPECT_EQ(Describe(h.client.OnConnect({})), "InitiateContact");
}

TEST(ClientConnect, StaysWithinTheVersionsItWasGiven) {
  ClientHarness h;
  ClientOptions options;
  options.newest = Version::kIron;
  options.oldest = Version::kWin10Rs5;
  EXPECT_EQ(Describe(h.client.OnConnect(options)), "InitiateContact");
  EXPECT_EQ(Describe(h.Tell(wire::VersionResponse{})), "InitiateContact");
  EXPECT_EQ(Describe(h.Tell(wire::VersionResponse{})), "[no connection] VersionRefused");
}

TEST(ClientConnect, RefusesOptionsOutsideTheTable) {
  Client client;
  ClientOptions options;
  options.newest = Version{0x50004};
  EXPECT_EQ(Describe(client.OnConnect(options)), "error VersionUnknown");
  options.newest = Version::kWin8;
  options.oldest = Version::kWin10;
  EXPECT_EQ(Describe(client.OnConnect(options)), "error VersionUnknown");
}

TEST(ClientConnect, AgreesOnWhatBothHaveInEachVersion) {
  for (const Version version : wire::kVersionsNewestFirst) {
    ClientHarness h;
    ClientOptions options;
    options.newest = version;
    options.features = wire::Feature::kPauseResume | wire::Feature::kClientId;
    options.client_id.data1 = 7;
    options.vtl = 2;
    const auto contact = First<wire::InitiateContact>(Sent(h.client.OnConnect(options).value()));
    EXPECT_EQ(contact.features(),
              version >= Version::kCopper ? options.features : wire::FeatureFlags{});
    EXPECT_EQ(contact.vtl(), version >= Version::kWin10Rs4 ? 2 : 0);
    EXPECT_EQ(contact.client_id.data1, version >= Version::kCopper ? 7u : 0u);
    // A server that grants what nobody asked for, and always sends 240 bytes.
    wire::VersionResponse response;
    response.version_supported = 1;
    response.connection_id_or_version = 55;
    response.features = wire::FeatureFlags(0xFFFFFFFF);
    h.rules = {Version::kCopper, wire::FeatureFlags(0xFFFFFFFF)};
    const auto connected = First<client::Connected>(h.Tell(response));
    EXPECT_EQ(connected.version, version);
    EXPECT_EQ(connected.features,
              version >= Version::kCopper ? options.features : wire::FeatureFlags{});
    EXPECT_EQ(connected.message_connection,
              wire::ConnectionId{version >= Version::kWin10V5 ? 55u : 1u});
  }
}

TEST(ClientOffer, IsHandedOnAsItCame) {
  ClientHarness h;
  h.Connect();
  const auto offer = First<client::OfferArrived>(h.TellOffer(wire::ChannelId{9}, Device(3))).offer;
  EXPECT_EQ(offer.channel, wire::ChannelId{9});
  EXPECT_EQ(offer.parameters, Device(3));
  EXPECT_EQ(offer.connection, wire::ConnectionId{0x2009});
  EXPECT_TRUE(offer.dedicated_interrupt);
  EXPECT_FALSE(offer.monitor_allocated);
}

TEST(ClientOffer, HasAnIdThatTheVersionAllows) {
  for (const auto& [version, highest] :
       {std::pair(Version::kWin7, 255u), std::pair(Version::kWin8, 2047u)}) {
    ClientHarness h;
    h.Connect(version);
    EXPECT_EQ(Describe(h.TellOffer(wire::ChannelId{0}, Device(1))), "refused FieldOutOfRange");
    EXPECT_EQ(Describe(h.TellOffer(wire::ChannelId{highest + 1}, Device(1))),
              "refused FieldOutOfRange");
    EXPECT_EQ(Describe(h.TellOffer(wire::ChannelId{highest}, Device(1))), "[offer]");
  }
}

TEST(ClientGpadl, IsFragmentedAsTheProtocolWants) {
  for (const std::uint32_t pages : {1u, 26u, 27u, 54u, 55u, 8190u, 8191u, 524288u}) {
    ClientHarness h;
    h.Connect();
    h.TellOffer(kChannel, Device(1));
    const auto outcome = h.client.OnCreateGpadl(kChannel, Pages(pages));
    ASSERT_TRUE(outcome.has_value());
    const auto messages = Sent(outcome->actions);
    ASSERT_EQ(messages.size(), 1 + (pages <= 26 ? 0 : (pages - 26 + 27) / 28)) << pages;
    const auto& header = std::get<wire::GpadlHeader>(messages[0]);
    EXPECT_EQ(header.gpadl_id, outcome->gpadl);
    EXPECT_EQ(header.range_list_bytes, 8 * (pages + 1) % 65536);
    EXPECT_EQ(header.range_count, 1);
  }
}

TEST(ClientGpadl, BeyondTheProtocolIsTheCallersFault) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  const Client before = h.client;
  EXPECT_EQ(h.client.OnCreateGpadl(kChannel, Pages(524289)).error(), Error::kGpadlTooLarge);
  EXPECT_EQ(h.client.OnCreateGpadl(kChannel, {}).error(), Error::kGpaRangeMalformed);
  EXPECT_TRUE(h.client == before);
}

TEST(ClientGpadl, SaysInItsIdWhetherItIsOnlyToBeRead) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  const auto read_only = h.client.OnCreateGpadl(kChannel, Pages(1), GpadlAccess::kReadOnly);
  ASSERT_TRUE(read_only.has_value());
  EXPECT_TRUE(wire::IsReadOnly(read_only->gpadl));
  const auto writable = h.client.OnCreateGpadl(kChannel, Pages(1));
  ASSERT_TRUE(writable.has_value());
  EXPECT_FALSE(wire::IsReadOnly(writable->gpadl));
  EXPECT_NE(std::to_underlying(writable->gpadl),
            std::to_underlying(read_only->gpadl) & ~wire::kReadOnlyGpadlBit);
  h.client.CheckInvariants();
}

TEST(ClientGpadl, NeverHasTheIdOfAnother) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  h.TellOffer(wire::ChannelId{2}, Device(2));
  const wire::GpadlId first = h.Create(kChannel);
  const wire::GpadlId second = h.Create(wire::ChannelId{2});
  EXPECT_NE(first, second);
  EXPECT_EQ(Describe(h.Tell(wire::GpadlCreated{kChannel, second, 0})), "crossing GpadlUnknown");
  h.Tell(wire::GpadlCreated{kChannel, first, wire::kStatusFailure});
  EXPECT_NE(h.Create(kChannel), first);
}

TEST(ClientOpen, SendsWhatItWasAsked) {
  ClientHarness h;
  h.Connect(Version::kCopper, wire::Feature::kGuestSpecifiedSignalParameters);
  h.TellOffer(kChannel, Device(1));
  OpenRequest request;
  request.ring = h.Share(kChannel);
  request.downstream_page = 5;
  request.target_vp = wire::ProcessorIndex{3};
  request.user_data[7] = std::byte{0x77};
  const auto message = First<wire::OpenChannel>(Sent(h.client.OnOpen(kChannel, request).value()));
  EXPECT_EQ(message.channel_id, kChannel);
  EXPECT_EQ(message.ring_gpadl_id, request.ring);
  EXPECT_EQ(message.downstream_page_offset, 5u);
  EXPECT_EQ(message.target_vp, wire::ProcessorIndex{3});
  EXPECT_EQ(message.user_data[7], std::byte{0x77});
  EXPECT_EQ(message.connection_id, wire::ConnectionId{0x2001});
  EXPECT_EQ(message.event_flag, 1);
}

TEST(ClientOpen, TellsTheResultsOfTwoOpensApart) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  const wire::GpadlId ring = h.Share(kChannel);
  const wire::OpenId first = h.StartOpen(kChannel, ring);
  h.Tell(wire::OpenChannelResult{kChannel, first, wire::kStatusFailure});
  const wire::OpenId second = h.StartOpen(kChannel, ring);
  EXPECT_EQ(Describe(h.Tell(wire::OpenChannelResult{kChannel, first, 0})),
            "crossing AnswerUnexpected");
  EXPECT_EQ(Describe(h.Tell(wire::OpenChannelResult{kChannel, second, 0})), "[open] ok");
}

TEST(ClientModify, IsDoneAtOnceWhereTheServerDoesNotAnswer) {
  for (const Version version : wire::kVersionsNewestFirst) {
    ClientHarness h;
    h.Connect(version);
    h.TellOffer(kChannel, Device(1));
    h.Open();
    EXPECT_EQ(Describe(h.client.OnModify(kChannel, wire::ProcessorIndex{1})),
              version >= Version::kIron       ? "ModifyChannel"
              : version >= Version::kWin10Rs3 ? "ModifyChannel; [modify] ok"
                                              : "error MessageNotInVersion");
  }
}

TEST(ClientModify, NeedsInterruptsAndAProcessor) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  h.Open(kChannel, wire::kNoInterrupt);
  EXPECT_EQ(Describe(h.client.OnModify(kChannel, {})), "error ChannelState");
  EXPECT_EQ(Describe(h.client.OnModify(kChannel, wire::kNoInterrupt)), "error FieldOutOfRange");
}

TEST(ClientRescind, LeavesOnlyLocalWork) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  const wire::GpadlId ring = h.Open();
  const wire::GpadlId buffer = h.Share(kChannel);
  h.Create(kChannel);
  EXPECT_EQ(Describe(h.Tell(wire::RescindChannelOffer{kChannel})),
            "[gpadl] fail; [rescinded, open]");
  EXPECT_EQ(Describe(h.client.OnReleaseChannel(kChannel)), "error ChannelState");
  EXPECT_EQ(Describe(h.client.OnClose(kChannel)), "CloseChannel");
  EXPECT_EQ(Describe(h.client.OnTeardownGpadl(kChannel, ring)), "[gpadl back]");
  EXPECT_EQ(Describe(h.client.OnReleaseChannel(kChannel)), "RelIdReleased");
  EXPECT_EQ(Describe(h.client.OnTeardownGpadl(kChannel, buffer)), "error ChannelUnknown");
  EXPECT_EQ(Describe(h.TellOffer(kChannel, Device(1))), "[offer]");
}

TEST(ClientEnd, LeavesTheSameLocalWorkWithoutMessages) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  const wire::GpadlId ring = h.Open();
  EXPECT_EQ(Describe(h.client.OnPeerGone()), "[rescinded, open]");
  EXPECT_EQ(Describe(h.client.OnClose(kChannel)), "");
  EXPECT_EQ(Describe(h.client.OnTeardownGpadl(kChannel, ring)), "[gpadl back]");
  EXPECT_EQ(Describe(h.client.OnReleaseChannel(kChannel)), "");
  EXPECT_EQ(Describe(h.client.OnReleaseChannel(kChannel)), "error NotConnected");
}

TEST(ClientUnload, IgnoresWhatCrossedIt) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  h.Create(kChannel);
  EXPECT_EQ(Describe(h.client.OnUnload()), "Unload");
  EXPECT_EQ(Describe(h.TellOffer(wire::ChannelId{2}, Device(2))), "crossing NotConnected");
  EXPECT_EQ(Describe(h.Tell(wire::UnloadComplete{})), "[gpadl] fail; [rescinded]; [unloaded]");
}

TEST(ClientUnload, IsNotAnsweredInTheFirstVersion) {
  ClientHarness h;
  h.Connect(Version::kV1);
  EXPECT_EQ(Describe(h.client.OnUnload()), "Unload; [unloaded]");
}

TEST(ClientUnload, ForgetsWhatWasLeftOverWithTheNextConnection) {
  ClientHarness h;
  h.Connect();
  h.TellOffer(kChannel, Device(1));
  EXPECT_EQ(Describe(h.client.OnUnload()), "Unload");
  EXPECT_EQ(Describe(h.Tell(wire::UnloadComplete{})), "[rescinded]; [unloaded]");
  ClientOptions options;
  options.newest = Version::kIron;
  EXPECT_EQ(Describe(h.client.OnConnect(options)), "InitiateContact");
  EXPECT_EQ(Describe(h.Accept()), "[forgotten]; [connected]; RequestOffers");
  EXPECT_EQ(Describe(h.TellOffer(kChannel, Device(1))), "[offer]");
}

TEST(ClientReconnect, AsksForTheVersionItHadOrNothing) {
  ClientHarness h;
  h.Connect(Version::kWin10);
  const ClientActions actions = h.client.OnReconnect().value();
  EXPECT_EQ(First<wire::InitiateContact>(Sent(actions)).version, Version::kWin10);
  EXPECT_EQ(Describe(h.Tell(wire::VersionResponse{})), "[no connection] VersionRefused");
}

TEST(ClientBroken, StillOwesItsAnswersUntilThePeerIsGone) {
  ClientHarness negotiating;
  ASSERT_TRUE(negotiating.client.OnConnect({}).has_value());
  ClientHarness unloading;
  unloading.Connect();
  ASSERT_TRUE(unloading.client.OnUnload().has_value());
  for (std::uint32_t i = 0; i <= kMaximumRefusals; ++i) {
    negotiating.client.OnMessage({});
    unloading.client.OnMessage({});
  }
  EXPECT_TRUE(negotiating.client.broken());
  EXPECT_EQ(Describe(negotiating.client.OnPeerGone()), "[no connection] PeerGone");
  EXPECT_EQ(Describe(unloading.client.OnPeerGone()), "[unloaded]");
}

}  // namespace
}  // namespace kmcl::bus
