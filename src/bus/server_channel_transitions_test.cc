// Every pair of state and event of a channel at the server.
#include <gtest/gtest.h>

#include <functional>

#include "bus/test_support.h"
#include "bus/transition_table.h"

namespace kmcl::bus {
namespace {

// A server with one channel in the state; returns its id.
const std::map<std::string, std::function<wire::ChannelId(ServerHarness&)>> kStates = {
    {"Waiting",
     [](ServerHarness& h) {
       // Held back, because the client has still the id of the offer before.
       h.Connect();
       h.Revoke(h.Offer(Device(1)));
       return h.Offer(Device(1));
     }},
    {"Offered",
     [](ServerHarness& h) {
       h.Connect();
       h.Offer(Device(1));
       h.Share(kChannel);
       return kChannel;
     }},
    {"Released",
     [](ServerHarness& h) {
       const auto id = kStates.at("Offered")(h);
       h.Tell(wire::RelIdReleased{id});
       EXPECT_EQ(Describe(h.server.OnGpadlReleased(id, kRing)), "");
       return id;
     }},
    {"Opening",
     [](ServerHarness& h) {
       const auto id = kStates.at("Offered")(h);
       h.TellOpen(id);
       return id;
     }},
    {"OpeningReleased",
     [](ServerHarness& h) {
       const auto id = kStates.at("Opening")(h);
       h.Tell(wire::Unload{});
       EXPECT_EQ(Describe(h.server.OnGpadlReleased(id, kRing)), "");
       return id;
     }},
    {"Open",
     [](ServerHarness& h) {
       h.Connect();
       h.Offer(Device(1));
       h.Open();
       return kChannel;
     }},
    {"Modifying",
     [](ServerHarness& h) {
       const auto id = kStates.at("Open")(h);
       h.Tell(wire::ModifyChannel{id, wire::ProcessorIndex{1}});
       return id;
     }},
    {"Closing",
     [](ServerHarness& h) {
       const auto id = kStates.at("Open")(h);
       h.Tell(wire::CloseChannel{id});
       return id;
     }},
    {"ClosingReopen",
     [](ServerHarness& h) {
       const auto id = kStates.at("Closing")(h);
       h.TellOpen(id);
       return id;
     }},
    {"ClosingReleased",
     [](ServerHarness& h) {
       const auto id = kStates.at("Closing")(h);
       h.Tell(wire::RelIdReleased{id});
       EXPECT_EQ(Describe(h.server.OnGpadlReleased(id, kRing)), "");
       return id;
     }},
    {"Revoked",
     [](ServerHarness& h) {
       const auto id = kStates.at("Offered")(h);
       h.Revoke(id);
       return id;
     }},
};

const std::map<std::string, std::function<std::string(ServerHarness&, wire::ChannelId)>> kEvents = {
    {"OPEN", [](ServerHarness& h, wire::ChannelId id) { return Describe(h.TellOpen(id)); }},
    {"OPEN without ring",
     [](ServerHarness& h, wire::ChannelId id) {
       return Describe(h.TellOpen(id, wire::GpadlId{55}));
     }},
    {"CLOSE",
     [](ServerHarness& h, wire::ChannelId id) { return Describe(h.Tell(wire::CloseChannel{id})); }},
    {"REL_ID_RELEASED",
     [](ServerHarness& h, wire::ChannelId id) {
       return Describe(h.Tell(wire::RelIdReleased{id}));
     }},
    {"MODIFY",
     [](ServerHarness& h, wire::ChannelId id) {
       return Describe(h.Tell(wire::ModifyChannel{id, wire::ProcessorIndex{3}}));
     }},
    {"GPADL", [](ServerHarness& h,
                 wire::ChannelId id) { return Describe(h.TellGpadl(id, wire::GpadlId{8})); }},
    {"OPEN_RESERVED",
     [](ServerHarness& h, wire::ChannelId id) {
       return Describe(h.Tell(wire::OpenReservedChannel{.channel_id = id}));
     }},
    {"CLOSE_RESERVED",
     [](ServerHarness& h, wire::ChannelId id) {
       return Describe(h.Tell(wire::CloseReservedChannel{.channel_id = id}));
     }},
    {"UNLOAD", [](ServerHarness& h, wire::ChannelId) { return Describe(h.Tell(wire::Unload{})); }},
    {"INITIATE_CONTACT",
     [](ServerHarness& h, wire::ChannelId) { return Describe(h.Contact(wire::Version::kIron)); }},
    {"revoke",
     [](ServerHarness& h, wire::ChannelId id) { return Describe(h.server.OnRevoke(id)); }},
    {"open done",
     [](ServerHarness& h, wire::ChannelId id) { return Describe(h.server.OnOpenResult(id, 0)); }},
    {"open failed",
     [](ServerHarness& h, wire::ChannelId id) {
       return Describe(h.server.OnOpenResult(id, wire::kStatusFailure));
     }},
    {"close done",
     [](ServerHarness& h, wire::ChannelId id) { return Describe(h.server.OnCloseDone(id)); }},
    {"modify done",
     [](ServerHarness& h, wire::ChannelId id) { return Describe(h.server.OnModifyDone(id, 0)); }},
    {"same offer again",
     [](ServerHarness& h, wire::ChannelId) {
       const auto outcome = h.server.OnOffer(Device(1));
       return outcome ? Describe(outcome->actions)
                      : std::string("error ") + ErrorName(outcome.error());
     }},
    {"peer gone",
     [](ServerHarness& h, wire::ChannelId) { return Describe(h.server.OnPeerGone()); }},
};

const std::vector<TransitionRow> kRows = {
    {"CLOSE", {"Closing", "ClosingReopen", "Offered", "Opening"}, "=", "refused ChannelState"},
    {"CLOSE", {"ClosingReleased", "Released", "Waiting"}, "=", "refused ChannelUnknown"},
    {"CLOSE", {"Modifying"}, "Closing", "ModifyChannelResponse fail; [close]"},
    {"CLOSE", {"Open"}, "Closing", "[close]"},
    {"CLOSE", {"OpeningReleased"}, "=", "refused NotConnected"},
    {"CLOSE", {"Revoked"}, "=", ""},
    {"CLOSE_RESERVED",
     {"Closing", "ClosingReleased", "ClosingReopen", "Modifying", "Offered", "Open", "Opening",
      "OpeningReleased", "Released", "Revoked", "Waiting"},
     "=",
     "CloseReservedResponse"},
    {"GPADL",
     {"Closing", "ClosingReopen", "Modifying", "Offered", "Open", "Opening"},
     "=",
     "[gpadl]"},
    {"GPADL",
     {"ClosingReleased", "Released", "Waiting"},
     "=",
     "GpadlCreated fail; refused ChannelUnknown"},
    {"GPADL", {"OpeningReleased"}, "=", "refused NotConnected"},
    {"GPADL", {"Revoked"}, "=", "GpadlCreated ok"},
    {"INITIATE_CONTACT",
     {"Closing", "ClosingReopen"},
     "ClosingReleased",
     "[reset]; [release gpadl]"},
    {"INITIATE_CONTACT", {"ClosingReleased"}, "=", "[reset]"},
    {"INITIATE_CONTACT",
     {"Modifying", "Open"},
     "ClosingReleased",
     "[reset]; [close]; [release gpadl]"},
    {"INITIATE_CONTACT", {"Offered"}, "Released", "[reset]; [release gpadl]"},
    {"INITIATE_CONTACT", {"Opening"}, "OpeningReleased", "[reset]; [release gpadl]"},
    {"INITIATE_CONTACT", {"OpeningReleased"}, "=", ""},
    {"INITIATE_CONTACT", {"Released"}, "Waiting", "[reset]; VersionResponse ok; [agreed]"},
    {"INITIATE_CONTACT", {"Revoked"}, "none", "[reset]; [id free]; VersionResponse ok; [agreed]"},
    {"INITIATE_CONTACT", {"Waiting"}, "=", "[reset]; [id free]; VersionResponse ok; [agreed]"},
    {"MODIFY",
     {"Closing", "ClosingReopen", "Offered", "Opening"},
     "=",
     "ModifyChannelResponse fail; refused ChannelState"},
    {"MODIFY",
     {"ClosingReleased", "Released", "Waiting"},
     "=",
     "ModifyChannelResponse fail; refused ChannelUnknown"},
    {"MODIFY", {"Modifying"}, "=", "refused RequestPending"},
    {"MODIFY", {"Open"}, "Modifying", "[modify]"},
    {"MODIFY", {"OpeningReleased"}, "=", "refused NotConnected"},
    {"MODIFY", {"Revoked"}, "=", "ModifyChannelResponse fail"},
    {"OPEN", {"Closing"}, "ClosingReopen", ""},
    {"OPEN", {"ClosingReleased", "Released", "Waiting"}, "=", "refused ChannelUnknown"},
    {"OPEN", {"ClosingReopen", "Modifying", "Open", "Opening"}, "=", "refused ChannelState"},
    {"OPEN", {"Offered"}, "Opening", "[open]"},
    {"OPEN", {"OpeningReleased"}, "=", "refused NotConnected"},
    {"OPEN", {"Revoked"}, "=", ""},
    {"OPEN without ring",
     {"Closing", "Offered"},
     "=",
     "OpenChannelResult fail; refused GpadlState"},
    {"OPEN without ring",
     {"ClosingReleased", "Released", "Waiting"},
     "=",
     "refused ChannelUnknown"},
    {"OPEN without ring",
     {"ClosingReopen", "Modifying", "Open", "Opening"},
     "=",
     "refused ChannelState"},
    {"OPEN without ring", {"OpeningReleased"}, "=", "refused NotConnected"},
    {"OPEN without ring", {"Revoked"}, "=", ""},
    {"OPEN_RESERVED",
     {"Closing", "ClosingReopen", "Modifying", "Offered", "Open", "Opening", "Revoked"},
     "=",
     "OpenChannelResult fail; refused ChannelState"},
    {"OPEN_RESERVED", {"ClosingReleased", "Released", "Waiting"}, "=", "refused ChannelState"},
    {"OPEN_RESERVED", {"OpeningReleased"}, "=", "refused NotConnected"},
    {"REL_ID_RELEASED", {"Closing"}, "ClosingReleased", "[release gpadl]"},
    {"REL_ID_RELEASED", {"ClosingReleased", "Released", "Waiting"}, "=", "refused ChannelUnknown"},
    {"REL_ID_RELEASED",
     {"ClosingReopen", "Modifying", "Open", "Opening"},
     "=",
     "refused ChannelState"},
    {"REL_ID_RELEASED", {"Offered"}, "Released", "[release gpadl]"},
    {"REL_ID_RELEASED", {"OpeningReleased"}, "=", ""},
    {"REL_ID_RELEASED", {"Revoked"}, "none", "[id free]"},
    {"UNLOAD", {"Closing", "ClosingReopen"}, "ClosingReleased", "[reset]; [release gpadl]"},
    {"UNLOAD", {"ClosingReleased"}, "=", "[reset]"},
    {"UNLOAD", {"Modifying", "Open"}, "ClosingReleased", "[reset]; [close]; [release gpadl]"},
    {"UNLOAD", {"Offered"}, "Released", "[reset]; [release gpadl]"},
    {"UNLOAD", {"Opening"}, "OpeningReleased", "[reset]; [release gpadl]"},
    {"UNLOAD", {"OpeningReleased"}, "=", "refused NotConnected"},
    {"UNLOAD", {"Released"}, "Waiting", "[reset]; UnloadComplete"},
    {"UNLOAD", {"Revoked"}, "none", "[reset]; [id free]; UnloadComplete"},
    {"UNLOAD", {"Waiting"}, "=", "[reset]; [id free]; UnloadComplete"},
    {"close done", {"Closing"}, "Offered", ""},
    {"close done", {"ClosingReleased"}, "Released", ""},
    {"close done", {"ClosingReopen"}, "Opening", "[open]"},
    {"close done",
     {"Modifying", "Offered", "Open", "Opening", "OpeningReleased", "Released", "Revoked",
      "Waiting"},
     "=",
     "error ChannelState"},
    {"modify done",
     {"Closing", "ClosingReleased", "ClosingReopen", "Offered", "Open", "Opening",
      "OpeningReleased", "Released", "Revoked", "Waiting"},
     "=",
     "error ChannelState"},
    {"modify done", {"Modifying"}, "Open", "ModifyChannelResponse ok"},
    {"open done",
     {"Closing", "ClosingReleased", "ClosingReopen", "Modifying", "Offered", "Open", "Released",
      "Revoked", "Waiting"},
     "=",
     "error ChannelState"},
    {"open done", {"Opening"}, "Open", "OpenChannelResult ok"},
    {"open done", {"OpeningReleased"}, "ClosingReleased", "[close]"},
    {"open failed",
     {"Closing", "ClosingReleased", "ClosingReopen", "Modifying", "Offered", "Open", "Released",
      "Revoked", "Waiting"},
     "=",
     "error ChannelState"},
    {"open failed", {"Opening"}, "Offered", "OpenChannelResult fail"},
    {"open failed", {"OpeningReleased"}, "Waiting", "UnloadComplete"},
    {"peer gone", {"Closing", "ClosingReopen"}, "ClosingReleased", "[release gpadl]"},
    {"peer gone", {"ClosingReleased", "OpeningReleased"}, "=", ""},
    {"peer gone", {"Modifying", "Open"}, "ClosingReleased", "[close]; [release gpadl]"},
    {"peer gone", {"Offered"}, "Released", "[release gpadl]"},
    {"peer gone", {"Opening"}, "OpeningReleased", "[release gpadl]"},
    {"peer gone", {"Released"}, "Waiting", "[finished]"},
    {"peer gone", {"Revoked"}, "none", "[id free]; [finished]"},
    {"peer gone", {"Waiting"}, "=", "[id free]; [finished]"},
    {"revoke", {"Closing", "Offered", "Open"}, "Revoked", "RescindChannelOffer"},
    {"revoke", {"ClosingReleased", "Released", "Waiting"}, "none", "[id free]"},
    {"revoke",
     {"ClosingReopen", "Opening"},
     "Revoked",
     "OpenChannelResult fail; RescindChannelOffer"},
    {"revoke", {"Modifying"}, "Revoked", "ModifyChannelResponse fail; RescindChannelOffer"},
    {"revoke", {"OpeningReleased"}, "none", "[id free]; UnloadComplete"},
    {"revoke", {"Revoked"}, "=", "error ChannelState"},
    {"same offer again",
     {"Closing", "ClosingReleased", "ClosingReopen", "Modifying", "Offered", "Open", "Opening",
      "OpeningReleased", "Released", "Waiting"},
     "=",
     "error OfferDuplicate"},
    {"same offer again", {"Revoked"}, "=", ""},
};

TEST(ServerChannelTransitions, EveryEventInEveryStateDoesWhatTheTableSays) {
  CheckTransitions(Names(kStates), Names(kEvents), kRows,
                   [](const std::string& state, const std::string& event) {
                     ServerHarness harness;
                     const wire::ChannelId id = kStates.at(state)(harness);
                     EXPECT_EQ(ChannelStateName(harness.server, id), state);
                     const std::string actions = kEvents.at(event)(harness, id);
                     harness.server.CheckInvariants();
                     return Outcome{ChannelStateName(harness.server, id), actions};
                   });
}

}  // namespace
}  // namespace kmcl::bus
