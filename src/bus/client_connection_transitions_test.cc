// Every pair of state and event of the connection at the client. Channels have their own table;
// here one open channel stands for all of them.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>

#include "bus/test_support.h"
#include "bus/transition_table.h"

namespace kmcl::bus {
namespace {

const std::map<std::string, std::function<void(ClientHarness&)>> kStates = {
    {"Idle", [](ClientHarness&) {}},
    {"Negotiating",
     [](ClientHarness& h) {
       h.rules = {wire::Version::kIron, {}};
       EXPECT_EQ(Describe(h.client.OnConnect({.newest = wire::Version::kIron,
                                              .oldest = wire::Version::kWin10Rs5,
                                              .features = {},
                                              .client_id = {},
                                              .target_message_vp = {},
                                              .vtl = 0})),
                 "InitiateContact");
     }},
    {"Connected",
     [](ClientHarness& h) {
       h.Connect();
       h.TellOffer(kChannel, Device(1));
       h.Open();
     }},
    {"Delivered",
     [](ClientHarness& h) {
       kStates.at("Connected")(h);
       EXPECT_EQ(Describe(h.Tell(wire::AllOffersDelivered{})), "[offers delivered]");
     }},
    {"Unloading",
     [](ClientHarness& h) {
       kStates.at("Connected")(h);
       EXPECT_EQ(Describe(h.client.OnUnload()), "Unload");
     }},
    {"Reconnecting",
     [](ClientHarness& h) {
       kStates.at("Connected")(h);
       EXPECT_EQ(Describe(h.client.OnReconnect()), "InitiateContact");
     }},
    {"Broken",
     [](ClientHarness& h) {
       kStates.at("Connected")(h);
       for (std::uint32_t i = 0; i <= kMaximumRefusals; ++i) h.Tell(wire::PauseResponse{});
     }},
    {"Gone", [](ClientHarness& h) { h.client.OnPeerGone(); }},
};

template <typename M>
std::function<std::string(ClientHarness&)> Tells(const M& message) {
  return [message](ClientHarness& h) { return Describe(h.Tell(message)); };
}

std::string Outsider(ClientHarness& h, wire::MessageType type) {
  std::array<std::byte, 240> bytes{};
  std::memcpy(bytes.data(), &type, sizeof type);
  return Describe(h.client.OnMessage(bytes));
}

const std::map<std::string, std::function<std::string(ClientHarness&)>> kEvents = {
    {"VERSION_RESPONSE ok", [](ClientHarness& h) { return Describe(h.Accept()); }},
    {"VERSION_RESPONSE no", Tells(wire::VersionResponse{})},
    {"VERSION_RESPONSE low resources",
     [](ClientHarness& h) {
       wire::VersionResponse response;
       response.version_supported = 1;
       response.connection_state = wire::ConnectionState::kLowResources;
       return Describe(h.Tell(response));
     }},
    {"OFFER",
     [](ClientHarness& h) { return Describe(h.TellOffer(wire::ChannelId{2}, Device(2))); }},
    {"RESCIND unknown", Tells(wire::RescindChannelOffer{wire::ChannelId{9}})},
    {"ALL_OFFERS", Tells(wire::AllOffersDelivered{})},
    {"OPEN_RESULT unknown", Tells(wire::OpenChannelResult{wire::ChannelId{9}, {}, 0})},
    {"CREATED unknown", Tells(wire::GpadlCreated{wire::ChannelId{9}, wire::GpadlId{3}, 0})},
    {"TORNDOWN unknown", Tells(wire::GpadlTorndown{wire::GpadlId{1234}})},
    {"UNLOAD_COMPLETE", Tells(wire::UnloadComplete{})},
    {"CLOSE_RESERVED_RESPONSE", Tells(wire::CloseReservedResponse{kChannel})},
    {"TL_CONNECT_RESULT", Tells(wire::TlConnectResult{{}, {}, wire::kStatusConnectionRefused})},
    {"TL_CONNECT_RESULT ok", Tells(wire::TlConnectResult{})},
    {"MODIFY_RESPONSE unknown", Tells(wire::ModifyChannelResponse{wire::ChannelId{9}, 0})},
    {"MODIFY_CONNECTION_RESPONSE", Tells(wire::ModifyConnectionResponse{})},
    {"PAUSE_RESPONSE", Tells(wire::PauseResponse{})},
    {"client's number",
     [](ClientHarness& h) { return Outsider(h, wire::MessageType::kOpenChannel); }},
    {"unknown number", [](ClientHarness& h) { return Outsider(h, wire::MessageType{30}); }},
    {"no number", [](ClientHarness& h) { return Describe(h.client.OnMessage({})); }},
    {"connect", [](ClientHarness& h) { return Describe(h.client.OnConnect({})); }},
    {"reconnect", [](ClientHarness& h) { return Describe(h.client.OnReconnect()); }},
    {"unload", [](ClientHarness& h) { return Describe(h.client.OnUnload()); }},
    {"close", [](ClientHarness& h) { return Describe(h.client.OnClose(kChannel)); }},
    {"tl connect",
     [](ClientHarness& h) { return Describe(h.client.OnTlConnect({}, {}, std::nullopt)); }},
    {"peer gone", [](ClientHarness& h) { return Describe(h.client.OnPeerGone()); }},
};

const std::vector<TransitionRow> kRows = {
    {"ALL_OFFERS", {"Broken", "Gone"}, "=", ""},
    {"ALL_OFFERS", {"Connected"}, "Delivered", "[offers delivered]"},
    {"ALL_OFFERS", {"Delivered"}, "=", "refused AnswerUnexpected"},
    {"ALL_OFFERS",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"CLOSE_RESERVED_RESPONSE", {"Broken", "Gone"}, "=", ""},
    {"CLOSE_RESERVED_RESPONSE",
     {"Connected", "Delivered", "Idle", "Negotiating", "Reconnecting"},
     "=",
     "refused AnswerUnexpected"},
    {"CLOSE_RESERVED_RESPONSE", {"Unloading"}, "=", "crossing NotConnected"},
    {"CREATED unknown", {"Broken", "Gone"}, "=", ""},
    {"CREATED unknown", {"Connected", "Delivered"}, "=", "crossing ChannelUnknown"},
    {"CREATED unknown",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"MODIFY_CONNECTION_RESPONSE", {"Broken", "Gone"}, "=", ""},
    {"MODIFY_CONNECTION_RESPONSE",
     {"Connected", "Delivered", "Unloading"},
     "=",
     "refused MessageNotInVersion"},
    {"MODIFY_CONNECTION_RESPONSE",
     {"Idle", "Negotiating", "Reconnecting"},
     "=",
     "crossing NotConnected"},
    {"MODIFY_RESPONSE unknown", {"Broken", "Gone"}, "=", ""},
    {"MODIFY_RESPONSE unknown", {"Connected", "Delivered"}, "=", "crossing ChannelUnknown"},
    {"MODIFY_RESPONSE unknown",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"OFFER", {"Broken", "Gone"}, "=", ""},
    {"OFFER", {"Connected", "Delivered"}, "=", "[offer]"},
    {"OFFER", {"Idle", "Negotiating", "Reconnecting", "Unloading"}, "=", "crossing NotConnected"},
    {"OPEN_RESULT unknown", {"Broken", "Gone"}, "=", ""},
    {"OPEN_RESULT unknown", {"Connected", "Delivered"}, "=", "crossing ChannelUnknown"},
    {"OPEN_RESULT unknown",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"PAUSE_RESPONSE", {"Broken", "Gone"}, "=", ""},
    {"PAUSE_RESPONSE", {"Connected", "Delivered", "Unloading"}, "=", "refused MessageNotInVersion"},
    {"PAUSE_RESPONSE", {"Idle", "Negotiating", "Reconnecting"}, "=", "crossing NotConnected"},
    {"RESCIND unknown", {"Broken", "Gone"}, "=", ""},
    {"RESCIND unknown", {"Connected", "Delivered"}, "=", "refused ChannelUnknown"},
    {"RESCIND unknown",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"TL_CONNECT_RESULT", {"Broken", "Gone"}, "=", ""},
    {"TL_CONNECT_RESULT", {"Connected", "Delivered"}, "=", "[tl connect] 3221226038"},
    {"TL_CONNECT_RESULT",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"TL_CONNECT_RESULT ok", {"Broken", "Gone"}, "=", ""},
    {"TL_CONNECT_RESULT ok", {"Connected", "Delivered"}, "=", "refused FieldOutOfRange"},
    {"TL_CONNECT_RESULT ok",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"TORNDOWN unknown", {"Broken", "Gone"}, "=", ""},
    {"TORNDOWN unknown", {"Connected", "Delivered"}, "=", "crossing GpadlUnknown"},
    {"TORNDOWN unknown",
     {"Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "crossing NotConnected"},
    {"UNLOAD_COMPLETE", {"Broken", "Gone"}, "=", ""},
    {"UNLOAD_COMPLETE", {"Connected", "Delivered"}, "=", "refused AnswerUnexpected"},
    {"UNLOAD_COMPLETE", {"Idle", "Negotiating", "Reconnecting"}, "=", "crossing NotConnected"},
    {"UNLOAD_COMPLETE", {"Unloading"}, "Idle", "[rescinded, open]; [unloaded]"},
    {"VERSION_RESPONSE low resources", {"Broken", "Gone"}, "=", ""},
    {"VERSION_RESPONSE low resources",
     {"Connected", "Delivered", "Idle"},
     "=",
     "refused AnswerUnexpected"},
    {"VERSION_RESPONSE low resources", {"Negotiating"}, "Idle", "[no connection] NotConnected"},
    {"VERSION_RESPONSE low resources",
     {"Reconnecting"},
     "Idle",
     "[rescinded, open]; [forgotten]; [no connection] NotConnected"},
    {"VERSION_RESPONSE low resources", {"Unloading"}, "=", "crossing NotConnected"},
    {"VERSION_RESPONSE no", {"Broken", "Gone"}, "=", ""},
    {"VERSION_RESPONSE no", {"Connected", "Delivered", "Idle"}, "=", "refused AnswerUnexpected"},
    {"VERSION_RESPONSE no", {"Negotiating"}, "=", "InitiateContact"},
    {"VERSION_RESPONSE no",
     {"Reconnecting"},
     "Idle",
     "[rescinded, open]; [forgotten]; [no connection] VersionRefused"},
    {"VERSION_RESPONSE no", {"Unloading"}, "=", "crossing NotConnected"},
    {"VERSION_RESPONSE ok", {"Broken", "Gone"}, "=", ""},
    {"VERSION_RESPONSE ok", {"Connected", "Delivered", "Idle"}, "=", "refused AnswerUnexpected"},
    {"VERSION_RESPONSE ok", {"Negotiating"}, "Connected", "[connected]; RequestOffers"},
    {"VERSION_RESPONSE ok",
     {"Reconnecting"},
     "Connected",
     "[rescinded, open]; [forgotten]; [connected]; RequestOffers"},
    {"VERSION_RESPONSE ok", {"Unloading"}, "=", "crossing NotConnected"},
    {"client's number", {"Broken", "Gone"}, "=", ""},
    {"client's number",
     {"Connected", "Delivered", "Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "refused MessageWrongDirection"},
    {"close",
     {"Broken", "Gone", "Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "error NotConnected"},
    {"close", {"Connected", "Delivered"}, "=", "CloseChannel"},
    {"connect",
     {"Broken", "Connected", "Delivered", "Gone", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "error AlreadyConnected"},
    {"connect", {"Idle"}, "Negotiating", "InitiateContact"},
    {"no number", {"Broken", "Gone"}, "=", ""},
    {"no number",
     {"Connected", "Delivered", "Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "refused MessageTooShort"},
    {"peer gone", {"Broken", "Connected", "Delivered"}, "Gone", "[rescinded, open]"},
    {"peer gone", {"Gone"}, "=", ""},
    {"peer gone", {"Idle"}, "Gone", ""},
    {"peer gone", {"Negotiating"}, "Gone", "[no connection] PeerGone"},
    {"peer gone", {"Reconnecting"}, "Gone", "[rescinded, open]; [no connection] PeerGone"},
    {"peer gone", {"Unloading"}, "Gone", "[rescinded, open]; [unloaded]"},
    {"reconnect", {"Broken", "Gone", "Idle"}, "=", "error NotConnected"},
    {"reconnect", {"Connected", "Delivered", "Unloading"}, "Reconnecting", "InitiateContact"},
    {"reconnect", {"Negotiating", "Reconnecting"}, "=", "error RequestPending"},
    {"tl connect",
     {"Broken", "Gone", "Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "error NotConnected"},
    {"tl connect", {"Connected", "Delivered"}, "=", "TlConnectRequest"},
    {"unknown number", {"Broken", "Gone"}, "=", ""},
    {"unknown number",
     {"Connected", "Delivered", "Idle", "Negotiating", "Reconnecting", "Unloading"},
     "=",
     "refused MessageUnknown"},
    {"unload", {"Broken", "Gone", "Idle"}, "=", "error NotConnected"},
    {"unload", {"Connected", "Delivered"}, "Unloading", "Unload"},
    {"unload", {"Negotiating", "Reconnecting", "Unloading"}, "=", "error RequestPending"},
};

TEST(ClientConnectionTransitions, EveryEventInEveryStateDoesWhatTheTableSays) {
  CheckTransitions(Names(kStates), Names(kEvents), kRows,
                   [](const std::string& state, const std::string& event) {
                     ClientHarness harness;
                     kStates.at(state)(harness);
                     EXPECT_EQ(ConnectionStateName(harness.client), state);
                     const std::string actions = kEvents.at(event)(harness);
                     harness.client.CheckInvariants();
                     return Outcome{ConnectionStateName(harness.client), actions};
                   });
}

}  // namespace
}  // namespace kmcl::bus
