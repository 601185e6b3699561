// Every pair of state and event of the connection at the server. Channels have their own table;
// here one open channel stands for all of them.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>

#include "bus/test_support.h"
#include "bus/transition_table.h"

namespace kmcl::bus {
namespace {

constexpr wire::FeatureFlags kWanted =
    wire::Feature::kPauseResume | wire::Feature::kModifyConnection;

// A server whose connection is in the state.
const std::map<std::string, std::function<void(ServerHarness&)>> kStates = {
    {"Disconnected", [](ServerHarness& h) { h.Offer(Device(1)); }},
    {"Agreed",
     [](ServerHarness& h) {
       h.Offer(Device(1));
       h.Contact(wire::Version::kCopper, kWanted);
     }},
    {"Connected",
     [](ServerHarness& h) {
       kStates.at("Agreed")(h);
       h.Tell(wire::RequestOffers{});
       h.Open();
     }},
    {"Paused",
     [](ServerHarness& h) {
       kStates.at("Connected")(h);
       EXPECT_EQ(Describe(h.Tell(wire::Pause{})), "PauseResponse");
     }},
    {"ResetToUnload",
     [](ServerHarness& h) {
       kStates.at("Connected")(h);
       h.Tell(wire::Unload{});
     }},
    {"ResetToContact",
     [](ServerHarness& h) {
       kStates.at("Connected")(h);
       const auto rules = h.rules;
       h.Contact(wire::Version::kCopper, kWanted);
       h.rules = rules;
     }},
    {"ResetToFinish",
     [](ServerHarness& h) {
       kStates.at("Connected")(h);
       h.server.OnPeerGone();
     }},
    {"Broken",
     [](ServerHarness& h) {
       kStates.at("Connected")(h);
       for (std::uint32_t i = 0; i <= kMaximumRefusals; ++i) h.Tell(wire::RequestOffers{});
     }},
    {"Gone", [](ServerHarness& h) { h.server.OnPeerGone(); }},
};

template <typename M>
std::function<std::string(ServerHarness&)> Tells(const M& message) {
  return [message](ServerHarness& h) { return Describe(h.Tell(message)); };
}

wire::InitiateContact Asks(wire::Version version, bool odd_monitor_page = false) {
  wire::InitiateContact contact;
  contact.version = version;
  contact.target_info = wire::InitiateContact::TargetInfo(wire::kVmbusSint, 0, {});
  contact.child_to_parent_monitor_page = odd_monitor_page ? 0x1000 : 0;
  return contact;
}

std::string Outsider(ServerHarness& h, wire::MessageType type) {
  std::array<std::byte, 240> bytes{};
  std::memcpy(bytes.data(), &type, sizeof type);
  return Describe(h.server.OnMessage(bytes));
}

const std::map<std::string, std::function<std::string(ServerHarness&)>> kEvents = {
    {"REQUEST_OFFERS", Tells(wire::RequestOffers{})},
    {"OPEN", [](ServerHarness& h) { return Describe(h.TellOpen(kChannel)); }},
    {"CLOSE", Tells(wire::CloseChannel{wire::ChannelId{5}})},
    {"GPADL_HEADER",
     [](ServerHarness& h) { return Describe(h.TellGpadl(wire::ChannelId{5}, wire::GpadlId{8})); }},
    {"GPADL_BODY", Tells(wire::GpadlBody{})},
    {"GPADL_TEARDOWN", Tells(wire::GpadlTeardown{kChannel, wire::GpadlId{8}})},
    {"REL_ID_RELEASED", Tells(wire::RelIdReleased{wire::ChannelId{5}})},
    {"INITIATE_CONTACT", Tells(Asks(wire::Version::kIron))},
    {"INITIATE_CONTACT unknown version", Tells(Asks(wire::Version{0x50004}))},
    {"INITIATE_CONTACT odd pages", Tells(Asks(wire::Version::kIron, true))},
    {"UNLOAD", Tells(wire::Unload{})},
    {"OPEN_RESERVED", Tells(wire::OpenReservedChannel{.channel_id = wire::ChannelId{5}})},
    {"CLOSE_RESERVED", Tells(wire::CloseReservedChannel{.channel_id = kChannel})},
    {"CLOSE_RESERVED unknown", Tells(wire::CloseReservedChannel{.channel_id = wire::ChannelId{5}})},
    {"TL_CONNECT", Tells(wire::TlConnectRequest{})},
    {"MODIFY_CHANNEL", Tells(wire::ModifyChannel{wire::ChannelId{5}, {}})},
    {"MODIFY_CONNECTION", Tells(wire::ModifyConnection{0x1000, 0x2000})},
    {"MODIFY_CONNECTION odd", Tells(wire::ModifyConnection{0x1000, 0})},
    {"PAUSE", Tells(wire::Pause{})},
    {"RESUME", Tells(wire::Resume{})},
    {"server's number",
     [](ServerHarness& h) { return Outsider(h, wire::MessageType::kOfferChannel); }},
    {"unknown number", [](ServerHarness& h) { return Outsider(h, wire::MessageType{30}); }},
    {"no number", [](ServerHarness& h) { return Describe(h.server.OnMessage({})); }},
    {"offer",
     [](ServerHarness& h) {
       const auto outcome = h.server.OnOffer(Device(2));
       return outcome ? Describe(outcome->actions)
                      : std::string("error ") + ErrorName(outcome.error());
     }},
    {"tl connect failed",
     [](ServerHarness& h) {
       return Describe(h.server.OnTlConnectFailed({}, {}, wire::kStatusConnectionRefused));
     }},
    {"everything let go",
     [](ServerHarness& h) {
       const std::string first = Describe(h.server.OnCloseDone(kChannel));
       return first + " / " + Describe(h.server.OnGpadlReleased(kChannel, kRing));
     }},
    {"peer gone", [](ServerHarness& h) { return Describe(h.server.OnPeerGone()); }},
};

const std::vector<TransitionRow> kRows = {
    {"CLOSE", {"Agreed", "Connected"}, "=", "refused ChannelUnknown"},
    {"CLOSE", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"CLOSE", {"Disconnected", "ResetToContact", "ResetToUnload"}, "=", "refused NotConnected"},
    {"CLOSE", {"Paused"}, "=", "refused Paused"},
    {"CLOSE_RESERVED",
     {"Agreed", "Connected", "Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "CloseReservedResponse"},
    {"CLOSE_RESERVED", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"CLOSE_RESERVED", {"Paused"}, "=", "refused Paused"},
    {"CLOSE_RESERVED unknown",
     {"Agreed", "Connected", "Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused ChannelUnknown"},
    {"CLOSE_RESERVED unknown", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"CLOSE_RESERVED unknown", {"Paused"}, "=", "refused Paused"},
    {"GPADL_BODY", {"Agreed", "Connected"}, "=", "crossing GpadlUnknown"},
    {"GPADL_BODY", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"GPADL_BODY",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"GPADL_BODY", {"Paused"}, "=", "refused Paused"},
    {"GPADL_HEADER", {"Agreed", "Connected"}, "=", "GpadlCreated fail; refused ChannelUnknown"},
    {"GPADL_HEADER", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"GPADL_HEADER",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"GPADL_HEADER", {"Paused"}, "=", "refused Paused"},
    {"GPADL_TEARDOWN", {"Agreed"}, "=", "refused ChannelUnknown"},
    {"GPADL_TEARDOWN", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"GPADL_TEARDOWN", {"Connected"}, "=", "refused GpadlUnknown"},
    {"GPADL_TEARDOWN",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"GPADL_TEARDOWN", {"Paused"}, "=", "refused Paused"},
    {"INITIATE_CONTACT", {"Agreed"}, "=", "[reset]; VersionResponse ok; [agreed]"},
    {"INITIATE_CONTACT", {"Broken", "Gone", "ResetToContact", "ResetToFinish"}, "=", ""},
    {"INITIATE_CONTACT",
     {"Connected", "Paused"},
     "ResetToContact",
     "[reset]; [close]; [release gpadl]"},
    {"INITIATE_CONTACT", {"Disconnected"}, "Agreed", "VersionResponse ok; [agreed]"},
    {"INITIATE_CONTACT", {"ResetToUnload"}, "ResetToContact", ""},
    {"INITIATE_CONTACT odd pages", {"Agreed"}, "Disconnected", "[reset]; VersionResponse fail"},
    {"INITIATE_CONTACT odd pages", {"Broken", "Gone", "ResetToContact", "ResetToFinish"}, "=", ""},
    {"INITIATE_CONTACT odd pages",
     {"Connected", "Paused"},
     "ResetToContact",
     "[reset]; [close]; [release gpadl]"},
    {"INITIATE_CONTACT odd pages", {"Disconnected"}, "=", "VersionResponse fail"},
    {"INITIATE_CONTACT odd pages", {"ResetToUnload"}, "ResetToContact", ""},
    {"INITIATE_CONTACT unknown version", {"Agreed"}, "Disconnected", "[reset]; VersionResponse no"},
    {"INITIATE_CONTACT unknown version",
     {"Broken", "Gone", "ResetToContact", "ResetToFinish"},
     "=",
     ""},
    {"INITIATE_CONTACT unknown version",
     {"Connected", "Paused"},
     "ResetToContact",
     "[reset]; [close]; [release gpadl]"},
    {"INITIATE_CONTACT unknown version", {"Disconnected"}, "=", "VersionResponse no"},
    {"INITIATE_CONTACT unknown version", {"ResetToUnload"}, "ResetToContact", ""},
    {"MODIFY_CHANNEL",
     {"Agreed", "Connected"},
     "=",
     "ModifyChannelResponse fail; refused ChannelUnknown"},
    {"MODIFY_CHANNEL", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"MODIFY_CHANNEL",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"MODIFY_CHANNEL", {"Paused"}, "=", "refused Paused"},
    {"MODIFY_CONNECTION", {"Agreed", "Connected"}, "=", "ModifyConnectionResponse ok"},
    {"MODIFY_CONNECTION", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"MODIFY_CONNECTION",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"MODIFY_CONNECTION", {"Paused"}, "=", "refused Paused"},
    {"MODIFY_CONNECTION odd",
     {"Agreed", "Connected"},
     "=",
     "ModifyConnectionResponse fail; refused FieldOutOfRange"},
    {"MODIFY_CONNECTION odd", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"MODIFY_CONNECTION odd",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"MODIFY_CONNECTION odd", {"Paused"}, "=", "refused Paused"},
    {"OPEN", {"Agreed"}, "=", "refused ChannelUnknown"},
    {"OPEN", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"OPEN", {"Connected"}, "=", "refused ChannelState"},
    {"OPEN", {"Disconnected", "ResetToContact", "ResetToUnload"}, "=", "refused NotConnected"},
    {"OPEN", {"Paused"}, "=", "refused Paused"},
    {"OPEN_RESERVED", {"Agreed", "Connected"}, "=", "refused ChannelState"},
    {"OPEN_RESERVED", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"OPEN_RESERVED",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"OPEN_RESERVED", {"Paused"}, "=", "refused Paused"},
    {"PAUSE", {"Agreed", "Connected"}, "Paused", "PauseResponse"},
    {"PAUSE", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"PAUSE", {"Disconnected", "ResetToContact", "ResetToUnload"}, "=", "refused NotConnected"},
    {"PAUSE", {"Paused"}, "=", "refused Paused"},
    {"REL_ID_RELEASED", {"Agreed", "Connected"}, "=", "refused ChannelUnknown"},
    {"REL_ID_RELEASED",
     {"Broken", "Disconnected", "Gone", "ResetToContact", "ResetToFinish", "ResetToUnload"},
     "=",
     ""},
    {"REL_ID_RELEASED", {"Paused"}, "=", "refused Paused"},
    {"REQUEST_OFFERS", {"Agreed"}, "Connected", "OfferChannel; AllOffersDelivered"},
    {"REQUEST_OFFERS", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"REQUEST_OFFERS", {"Connected"}, "=", "refused RequestPending"},
    {"REQUEST_OFFERS",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"REQUEST_OFFERS", {"Paused"}, "=", "refused Paused"},
    {"RESUME", {"Agreed", "Connected"}, "=", "refused NotPaused"},
    {"RESUME", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"RESUME", {"Disconnected", "ResetToContact", "ResetToUnload"}, "=", "refused NotConnected"},
    {"RESUME", {"Paused"}, "Connected", ""},
    {"TL_CONNECT", {"Agreed", "Connected"}, "=", "[tl connect]"},
    {"TL_CONNECT", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"TL_CONNECT",
     {"Disconnected", "ResetToContact", "ResetToUnload"},
     "=",
     "refused NotConnected"},
    {"TL_CONNECT", {"Paused"}, "=", "refused Paused"},
    {"UNLOAD", {"Agreed"}, "Disconnected", "[reset]; UnloadComplete"},
    {"UNLOAD", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"UNLOAD", {"Connected", "Paused"}, "ResetToUnload", "[reset]; [close]; [release gpadl]"},
    {"UNLOAD", {"Disconnected", "ResetToContact", "ResetToUnload"}, "=", "refused NotConnected"},
    {"everything let go",
     {"Agreed", "Disconnected"},
     "=",
     "error ChannelState / error GpadlUnknown"},
    {"everything let go",
     {"Broken", "Connected", "Paused"},
     "=",
     "error ChannelState / error GpadlState"},
    {"everything let go", {"Gone"}, "=", "error ChannelUnknown / error ChannelUnknown"},
    {"everything let go", {"ResetToContact"}, "Agreed", " / VersionResponse ok; [agreed]"},
    {"everything let go", {"ResetToFinish"}, "Gone", " / [finished]"},
    {"everything let go", {"ResetToUnload"}, "Disconnected", " / UnloadComplete"},
    {"no number",
     {"Agreed", "Connected", "Disconnected", "Paused", "ResetToContact", "ResetToUnload"},
     "=",
     "refused MessageTooShort"},
    {"no number", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"offer", {"Agreed", "Disconnected", "Paused", "ResetToContact", "ResetToUnload"}, "=", ""},
    {"offer", {"Broken", "Gone", "ResetToFinish"}, "=", "error PeerGone"},
    {"offer", {"Connected"}, "=", "OfferChannel"},
    {"peer gone", {"Agreed", "Disconnected"}, "Gone", "[finished]"},
    {"peer gone", {"Broken", "Connected", "Paused"}, "ResetToFinish", "[close]; [release gpadl]"},
    {"peer gone", {"Gone", "ResetToFinish"}, "=", ""},
    {"peer gone", {"ResetToContact", "ResetToUnload"}, "ResetToFinish", ""},
    {"server's number",
     {"Agreed", "Connected", "Disconnected", "Paused", "ResetToContact", "ResetToUnload"},
     "=",
     "refused MessageWrongDirection"},
    {"server's number", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
    {"tl connect failed", {"Agreed", "Connected"}, "=", "TlConnectResult 3221226038"},
    {"tl connect failed",
     {"Broken", "Disconnected", "Gone", "ResetToContact", "ResetToFinish", "ResetToUnload"},
     "=",
     "error NotConnected"},
    {"tl connect failed", {"Paused"}, "=", ""},
    {"unknown number",
     {"Agreed", "Connected", "Disconnected", "Paused", "ResetToContact", "ResetToUnload"},
     "=",
     "refused MessageUnknown"},
    {"unknown number", {"Broken", "Gone", "ResetToFinish"}, "=", ""},
};

TEST(ServerConnectionTransitions, EveryEventInEveryStateDoesWhatTheTableSays) {
  CheckTransitions(Names(kStates), Names(kEvents), kRows,
                   [](const std::string& state, const std::string& event) {
                     ServerHarness harness;
                     kStates.at(state)(harness);
                     EXPECT_EQ(ConnectionStateName(harness.server), state);
                     const std::string actions = kEvents.at(event)(harness);
                     harness.server.CheckInvariants();
                     return Outcome{ConnectionStateName(harness.server), actions};
                   });
}

}  // namespace
}  // namespace kmcl::bus
