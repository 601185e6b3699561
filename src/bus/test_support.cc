#include "bus/test_support.h"

#include <gtest/gtest.h>

#include "bus/match.h"

namespace kmcl::bus {

namespace {

// Reads everything: the newest version with all features.
constexpr wire::Agreed kEverything{wire::Version::kCopper, wire::kKnownFeatures};

std::string Status(std::uint32_t status) {
  if (status == wire::kStatusSuccess) return " ok";
  if (status == wire::kStatusFailure) return " fail";
  return " " + std::to_string(status);
}

template <typename M>
std::string DescribeMessage(const M& message) {
  std::string text = wire::NameOf(M::kType);
  if constexpr (requires { message.status; }) text += Status(message.status);
  if constexpr (std::is_same_v<M, wire::VersionResponse>) {
    text += message.version_supported == 0                                   ? " no"
            : message.connection_state == wire::ConnectionState::kSuccessful ? " ok"
                                                                             : " fail";
  }
  if constexpr (std::is_same_v<M, wire::ModifyConnectionResponse>) {
    text += message.connection_state == wire::ConnectionState::kSuccessful ? " ok" : " fail";
  }
  return text;
}

std::string DescribeReport(const char* what, const Report& report) {
  return std::string(what) + " " + ErrorName(report.rule);
}

std::string Refusal(const Refused& refused) {
  return DescribeReport(refused.is_crossing ? "crossing" : "refused", refused.report);
}

template <typename Actions, typename F>
std::string Join(const Actions& actions, F describe) {
  std::string text;
  for (const auto& action : actions) {
    if (!text.empty()) text += "; ";
    text += std::visit(describe, action);
  }
  return text;
}

template <typename Variant>
Variant Read(const wire::MessageBytes& bytes) {
  if constexpr (std::is_same_v<Variant, wire::ServerMessage>) {
    return wire::ParseServerMessage(bytes, kEverything).value();
  } else {
    // In the short form of OPEN_CHANNEL the features are missing.
    const auto message = wire::ParseClientMessage(bytes, kEverything);
    return message ? *message
                   : wire::ParseClientMessage(bytes, {wire::Version::kCopper, {}}).value();
  }
}

template <typename Variant>
std::string DescribeBytes(const wire::MessageBytes& bytes) {
  return std::visit([](const auto& m) { return DescribeMessage(m); }, Read<Variant>(bytes));
}

template <typename Message, typename Send, typename Actions>
std::vector<Message> ReadAll(const Actions& actions) {
  std::vector<Message> messages;
  for (const auto& action : actions) {
    if (const auto* send = std::get_if<Send>(&action))
      messages.push_back(Read<Message>(send->bytes));
  }
  return messages;
}

}  // namespace

std::string Describe(const ServerActions& actions) {
  using namespace server;
  return Join(
      actions,
      Match{[](const SendMessage& send) { return DescribeBytes<wire::ServerMessage>(send.bytes); },
            [](const VersionAgreed&) { return std::string("[agreed]"); },
            [](const ConnectionReset&) { return std::string("[reset]"); },
            [](const OpenChannel&) { return std::string("[open]"); },
            [](const CloseChannel&) { return std::string("[close]"); },
            [](const GpadlComplete&) { return std::string("[gpadl]"); },
            [](const ReleaseGpadl&) { return std::string("[release gpadl]"); },
            [](const ModifyChannel&) { return std::string("[modify]"); },
            [](const ChannelReleased&) { return std::string("[id free]"); },
            [](const TlConnect&) { return std::string("[tl connect]"); },
            [](const Finished&) { return std::string("[finished]"); },
            [](const Refused& refused) { return Refusal(refused); },
            [](const bus::Broken& broken) { return DescribeReport("broken", broken.report); }});
}

std::string Describe(const ClientActions& actions) {
  using namespace client;
  return Join(
      actions,
      Match{[](const SendMessage& send) { return DescribeBytes<wire::ClientMessage>(send.bytes); },
            [](const client::Connected&) { return std::string("[connected]"); },
            [](const ConnectRefused& refused) {
              return std::string("[no connection] ") + ErrorName(refused.reason);
            },
            [](const OfferArrived&) { return std::string("[offer]"); },
            [](const OffersDelivered&) { return std::string("[offers delivered]"); },
            [](const OfferRescinded& rescinded) {
              return std::string(rescinded.was_open ? "[rescinded, open]" : "[rescinded]");
            },
            [](const ChannelForgotten&) { return std::string("[forgotten]"); },
            [](const OpenResult& r) { return "[open]" + Status(r.status); },
            [](const GpadlResult& r) { return "[gpadl]" + Status(r.status); },
            [](const GpadlTornDown&) { return std::string("[gpadl back]"); },
            [](const ModifyResult& r) { return "[modify]" + Status(r.status); },
            [](const TlConnectFailed& r) { return "[tl connect]" + Status(r.status); },
            [](const Unloaded&) { return std::string("[unloaded]"); },
            [](const Refused& refused) { return Refusal(refused); },
            [](const bus::Broken& broken) { return DescribeReport("broken", broken.report); }});
}

// ---- States by name

std::string ConnectionStateName(const Server& server) {
  using namespace server::connection_state;
  return std::visit(
      Match{[](const Disconnected&) { return std::string("Disconnected"); },
            [](const Connected& connected) {
              return std::string(connected.pause              ? "Paused"
                                 : connected.offers_requested ? "Connected"
                                                              : "Agreed");
            },
            [](const Resetting& resetting) {
              return std::visit(
                  Match{[](const ThenUnloadComplete&) { return std::string("ResetToUnload"); },
                        [](const ThenContact&) { return std::string("ResetToContact"); },
                        [](const ThenFinished&) { return std::string("ResetToFinish"); }},
                  resetting.next);
            },
            [](const server::connection_state::Broken&) { return std::string("Broken"); },
            [](const Gone&) { return std::string("Gone"); }},
      ServerTestPeer::connection(server));
}

std::string ChannelStateName(const Server& server, wire::ChannelId id) {
  using namespace server::channel_state;
  const auto& channels = ServerTestPeer::channels(server);
  const auto channel = channels.find(id);
  if (channel == channels.end()) return "none";
  return std::visit(
      Match{[](const Waiting&) { return std::string("Waiting"); },
            [](const Released&) { return std::string("Released"); },
            [](const Offered&) { return std::string("Offered"); },
            [](const Opening&) { return std::string("Opening"); },
            [](const OpeningReleased&) { return std::string("OpeningReleased"); },
            [](const Open& open) { return std::string(open.modification ? "Modifying" : "Open"); },
            [](const Closing&) { return std::string("Closing"); },
            [](const ClosingReopen&) { return std::string("ClosingReopen"); },
            [](const ClosingReleased&) { return std::string("ClosingReleased"); },
            [](const Revoked&) { return std::string("Revoked"); }},
      channel->second.state);
}

std::string GpadlStateName(const Server& server, wire::ChannelId id, wire::GpadlId gpadl_id) {
  using namespace server::gpadl_state;
  const auto& channels = ServerTestPeer::channels(server);
  const auto channel = channels.find(id);
  if (channel == channels.end()) return "none";
  const auto gpadl = channel->second.gpadls.find(gpadl_id);
  if (gpadl == channel->second.gpadls.end()) return "none";
  return std::visit(Match{[](const Receiving&) { return std::string("Receiving"); },
                          [](const Offered&) { return std::string("Offered"); },
                          [](const OfferedReleased&) { return std::string("OfferedReleased"); },
                          [](const Accepted&) { return std::string("Accepted"); },
                          [](const Releasing&) { return std::string("Releasing"); },
                          [](const ReleasingSilently&) { return std::string("ReleasingSilently"); },
                          [](const Orphaned&) { return std::string("Orphaned"); }},
                    gpadl->second.state);
}

std::string ConnectionStateName(const Client& client) {
  using namespace client::connection_state;
  return std::visit(
      Match{[](const Idle&) { return std::string("Idle"); },
            [](const Negotiating& n) {
              return std::string(n.reconnect ? "Reconnecting" : "Negotiating");
            },
            [](const Connected& c) {
              return std::string(c.offers_delivered ? "Delivered" : "Connected");
            },
            [](const Unloading&) { return std::string("Unloading"); },
            [](const client::connection_state::Broken&) { return std::string("Broken"); },
            [](const Gone&) { return std::string("Gone"); }},
      ClientTestPeer::connection(client));
}

std::string ChannelStateName(const Client& client, wire::ChannelId id) {
  using namespace client::channel_state;
  const auto& channels = ClientTestPeer::channels(client);
  const auto channel = channels.find(id);
  if (channel == channels.end()) return "none";
  return std::visit(
      Match{[](const Offered&) { return std::string("Offered"); },
            [](const Opening&) { return std::string("Opening"); },
            [](const Open& open) { return std::string(open.modifying ? "Modifying" : "Open"); },
            [](const RescindedOpen&) { return std::string("RescindedOpen"); },
            [](const Rescinded&) { return std::string("Rescinded"); }},
      channel->second.state);
}

std::string GpadlStateName(const Client& client, wire::ChannelId id, wire::GpadlId gpadl_id) {
  const auto& channels = ClientTestPeer::channels(client);
  const auto channel = channels.find(id);
  if (channel == channels.end()) return "none";
  const auto gpadl = channel->second.gpadls.find(gpadl_id);
  if (gpadl == channel->second.gpadls.end()) return "none";
  switch (gpadl->second) {
    case client::GpadlState::kCreating:
      return "Creating";
    case client::GpadlState::kCreated:
      return "Created";
    case client::GpadlState::kTearingDown:
      return "TearingDown";
  }
  return "unknown";
}

std::vector<wire::ServerMessage> Sent(const ServerActions& actions) {
  return ReadAll<wire::ServerMessage, server::SendMessage>(actions);
}

std::vector<wire::ClientMessage> Sent(const ClientActions& actions) {
  return ReadAll<wire::ClientMessage, client::SendMessage>(actions);
}

// ---- Shorthands

OfferParameters Device(std::uint32_t number, std::uint16_t subchannel_index) {
  OfferParameters device;
  device.key.interface_type.data1 = 0xC1A55;
  device.key.instance.data1 = number;
  device.key.subchannel_index = subchannel_index;
  device.flags = wire::kOfferEnumerateDeviceInterface;
  device.mmio_megabytes = 8;
  device.mmio_megabytes_optional = 16;
  device.user_defined[0] = std::byte{0xAB};
  return device;
}

wire::GpaRangeList Pages(std::uint32_t page_count) {
  return wire::GpaRangeList::OfPages(wire::PageNumber{0x1000}, page_count).value();
}

ServerActions ServerHarness::Contact(wire::Version version, wire::FeatureFlags wanted) {
  wire::InitiateContact contact;
  contact.version = version;
  if (wire::HasMessageConnectionId(version)) {
    contact.target_info = wire::InitiateContact::TargetInfo(
        wire::kVmbusSint, 0, wire::HasFeatureFlags(version) ? wanted : wire::FeatureFlags{});
  }
  ServerActions actions = Tell(contact);
  rules = server.agreed();
  return actions;
}

void ServerHarness::Connect(wire::Version version, wire::FeatureFlags wanted) {
  EXPECT_EQ(Describe(Contact(version, wanted)), "VersionResponse ok; [agreed]");
  Tell(wire::RequestOffers{});
}

ServerActions ServerHarness::TellGpadl(wire::ChannelId channel, wire::GpadlId gpadl,
                                       std::uint32_t pages) {
  const auto messages = wire::FragmentGpadl(channel, gpadl, Pages(pages)).value();
  ServerActions actions = Tell(messages.header);
  for (const wire::GpadlBody& body : messages.bodies) {
    for (const ServerAction& action : Tell(body)) actions.push_back(action);
  }
  return actions;
}

ServerActions ServerHarness::TellOpen(wire::ChannelId channel, wire::GpadlId ring,
                                      wire::ProcessorIndex target_vp) {
  wire::OpenChannel open;
  open.channel_id = channel;
  open.open_id = kOpenId;
  open.ring_gpadl_id = ring;
  open.target_vp = target_vp;
  open.downstream_page_offset = 2;
  open.user_data[5] = std::byte{0x5A};
  return Tell(open);
}

wire::ChannelId ServerHarness::Offer(const OfferParameters& parameters) {
  const auto outcome = server.OnOffer(parameters);
  EXPECT_TRUE(outcome.has_value());
  return outcome ? outcome->channel : wire::ChannelId{0};
}

ServerActions ServerHarness::Revoke(wire::ChannelId channel) {
  const auto actions = server.OnRevoke(channel);
  EXPECT_TRUE(actions.has_value());
  return actions.value_or(ServerActions{});
}

void ServerHarness::Share(wire::ChannelId channel, wire::GpadlId gpadl) {
  EXPECT_EQ(Describe(TellGpadl(channel, gpadl)), "[gpadl]");
  EXPECT_EQ(Describe(server.OnGpadlResult(channel, gpadl, 0)), "GpadlCreated ok");
}

void ServerHarness::Open(wire::ChannelId channel, wire::ProcessorIndex target_vp) {
  Share(channel);
  EXPECT_EQ(Describe(TellOpen(channel, kRing, target_vp)), "[open]");
  EXPECT_EQ(Describe(server.OnOpenResult(channel, 0)), "OpenChannelResult ok");
}

ClientActions ClientHarness::Accept() {
  wire::VersionResponse response;
  response.version_supported = 1;
  response.connection_id_or_version = 1;
  response.features = rules.features;
  return Tell(response);
}

void ClientHarness::Connect(wire::Version version, wire::FeatureFlags wanted) {
  rules = {version, wanted};
  ClientOptions options;
  options.newest = version;
  options.features = wanted;
  EXPECT_EQ(Describe(client.OnConnect(options)), "InitiateContact");
  EXPECT_EQ(Describe(Accept()), "[connected]; RequestOffers");
}

ClientActions ClientHarness::TellOffer(wire::ChannelId channel, const OfferParameters& parameters) {
  wire::OfferChannel offer;
  offer.interface_id = parameters.key.interface_type;
  offer.instance_id = parameters.key.instance;
  offer.subchannel_index = parameters.key.subchannel_index;
  offer.flags = parameters.flags;
  offer.mmio_megabytes = parameters.mmio_megabytes;
  offer.mmio_megabytes_optional = parameters.mmio_megabytes_optional;
  offer.user_defined = parameters.user_defined;
  offer.channel_id = channel;
  offer.connection_id = wire::ConnectionId{0x2000 | std::to_underlying(channel)};
  return Tell(offer);
}

wire::GpadlId ClientHarness::Create(wire::ChannelId channel) {
  const auto outcome = client.OnCreateGpadl(channel, Pages(4));
  EXPECT_TRUE(outcome.has_value());
  return outcome ? outcome->gpadl : wire::GpadlId{0};
}

wire::GpadlId ClientHarness::Share(wire::ChannelId channel) {
  const wire::GpadlId gpadl = Create(channel);
  EXPECT_EQ(Describe(Tell(wire::GpadlCreated{channel, gpadl, 0})), "[gpadl] ok");
  return gpadl;
}

wire::OpenId ClientHarness::StartOpen(wire::ChannelId channel, wire::GpadlId ring,
                                      wire::ProcessorIndex target_vp) {
  OpenRequest request;
  request.ring = ring;
  request.target_vp = target_vp;
  request.downstream_page = 2;
  const auto actions = client.OnOpen(channel, request);
  EXPECT_EQ(Describe(actions), "OpenChannel");
  return actions ? First<wire::OpenChannel>(Sent(*actions)).open_id : wire::OpenId{0};
}

wire::GpadlId ClientHarness::Open(wire::ChannelId channel, wire::ProcessorIndex target_vp) {
  const wire::GpadlId ring = Share(channel);
  const wire::OpenId open = StartOpen(channel, ring, target_vp);
  EXPECT_EQ(Describe(Tell(wire::OpenChannelResult{channel, open, 0})), "[open] ok");
  return ring;
}

}  // namespace kmcl::bus
