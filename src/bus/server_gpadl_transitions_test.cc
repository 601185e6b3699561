// Every pair of state and event of a GPADL at the server.
#include <gtest/gtest.h>

#include <functional>

#include "bus/test_support.h"
#include "bus/transition_table.h"

namespace kmcl::bus {
namespace {

constexpr wire::GpadlId kGpadl{8};

wire::GpadlMessages LongGpadl() { return wire::FragmentGpadl(kChannel, kGpadl, Pages(40)).value(); }

// A server whose channel 1 has GPADL 8 in the state.
const std::map<std::string, std::function<void(ServerHarness&)>> kStates = {
    {"none",
     [](ServerHarness& h) {
       h.Connect();
       h.Offer(Device(1));
     }},
    {"Receiving",
     [](ServerHarness& h) {
       kStates.at("none")(h);
       EXPECT_EQ(Describe(h.Tell(LongGpadl().header)), "");
     }},
    {"Offered",
     [](ServerHarness& h) {
       kStates.at("none")(h);
       h.TellGpadl(kChannel, kGpadl, 40);
     }},
    {"OfferedReleased",
     [](ServerHarness& h) {
       kStates.at("Offered")(h);
       h.Tell(wire::RelIdReleased{kChannel});
     }},
    {"Accepted",
     [](ServerHarness& h) {
       kStates.at("none")(h);
       h.Share(kChannel, kGpadl);
     }},
    {"Releasing",
     [](ServerHarness& h) {
       kStates.at("Accepted")(h);
       h.Tell(wire::GpadlTeardown{kChannel, kGpadl});
     }},
    {"ReleasingSilently",
     [](ServerHarness& h) {
       kStates.at("Accepted")(h);
       h.Tell(wire::RelIdReleased{kChannel});
     }},
    {"Orphaned",
     [](ServerHarness& h) {
       kStates.at("Accepted")(h);
       h.Revoke(kChannel);
     }},
};

const std::map<std::string, std::function<std::string(ServerHarness&)>> kEvents = {
    {"HEADER", [](ServerHarness& h) { return Describe(h.Tell(LongGpadl().header)); }},
    {"last BODY", [](ServerHarness& h) { return Describe(h.Tell(LongGpadl().bodies[0])); }},
    {"TEARDOWN",
     [](ServerHarness& h) {
       return Describe(h.Tell(wire::GpadlTeardown{kChannel, kGpadl}));
     }},
    {"OPEN with it as ring",
     [](ServerHarness& h) { return Describe(h.TellOpen(kChannel, kGpadl)); }},
    {"REL_ID_RELEASED",
     [](ServerHarness& h) { return Describe(h.Tell(wire::RelIdReleased{kChannel})); }},
    {"UNLOAD", [](ServerHarness& h) { return Describe(h.Tell(wire::Unload{})); }},
    {"accepted",
     [](ServerHarness& h) { return Describe(h.server.OnGpadlResult(kChannel, kGpadl, 0)); }},
    {"refused",
     [](ServerHarness& h) {
       return Describe(h.server.OnGpadlResult(kChannel, kGpadl, wire::kStatusFailure));
     }},
    {"released",
     [](ServerHarness& h) { return Describe(h.server.OnGpadlReleased(kChannel, kGpadl)); }},
    {"revoke", [](ServerHarness& h) { return Describe(h.server.OnRevoke(kChannel)); }},
    {"peer gone", [](ServerHarness& h) { return Describe(h.server.OnPeerGone()); }},
};

const std::vector<TransitionRow> kRows = {
    {"HEADER",
     {"Accepted", "Offered", "Orphaned", "Receiving", "Releasing"},
     "=",
     "GpadlCreated fail; refused GpadlDuplicate"},
    {"HEADER",
     {"OfferedReleased", "ReleasingSilently"},
     "=",
     "GpadlCreated fail; refused ChannelUnknown"},
    {"HEADER", {"none"}, "Receiving", ""},
    {"OPEN with it as ring", {"Accepted"}, "=", "[open]"},
    {"OPEN with it as ring",
     {"Offered", "Receiving", "Releasing", "none"},
     "=",
     "OpenChannelResult fail; refused GpadlState"},
    {"OPEN with it as ring",
     {"OfferedReleased", "ReleasingSilently"},
     "=",
     "refused ChannelUnknown"},
    {"OPEN with it as ring", {"Orphaned"}, "=", ""},
    {"REL_ID_RELEASED", {"Accepted"}, "ReleasingSilently", "[release gpadl]"},
    {"REL_ID_RELEASED", {"Offered"}, "OfferedReleased", ""},
    {"REL_ID_RELEASED", {"OfferedReleased", "ReleasingSilently"}, "=", "refused ChannelUnknown"},
    {"REL_ID_RELEASED", {"Orphaned"}, "none", "[id free]"},
    {"REL_ID_RELEASED", {"Receiving"}, "none", ""},
    {"REL_ID_RELEASED", {"Releasing", "none"}, "=", ""},
    {"TEARDOWN", {"Accepted"}, "Releasing", "[release gpadl]"},
    {"TEARDOWN", {"Offered", "Receiving", "Releasing"}, "=", "refused GpadlState"},
    {"TEARDOWN", {"OfferedReleased", "ReleasingSilently"}, "=", "refused ChannelUnknown"},
    {"TEARDOWN", {"Orphaned"}, "none", "GpadlTorndown"},
    {"TEARDOWN", {"none"}, "=", "refused GpadlUnknown"},
    {"UNLOAD", {"Accepted"}, "ReleasingSilently", "[reset]; [release gpadl]"},
    {"UNLOAD", {"Offered"}, "OfferedReleased", "[reset]"},
    {"UNLOAD", {"OfferedReleased", "ReleasingSilently"}, "=", "[reset]"},
    {"UNLOAD", {"Orphaned"}, "none", "[reset]; [id free]; UnloadComplete"},
    {"UNLOAD", {"Receiving"}, "none", "[reset]; UnloadComplete"},
    {"UNLOAD", {"Releasing"}, "ReleasingSilently", "[reset]"},
    {"UNLOAD", {"none"}, "=", "[reset]; UnloadComplete"},
    {"accepted",
     {"Accepted", "Orphaned", "Receiving", "Releasing", "ReleasingSilently"},
     "=",
     "error GpadlState"},
    {"accepted", {"Offered"}, "Accepted", "GpadlCreated ok"},
    {"accepted", {"OfferedReleased"}, "ReleasingSilently", "[release gpadl]"},
    {"accepted", {"none"}, "=", "error GpadlUnknown"},
    {"last BODY",
     {"Accepted", "Offered", "OfferedReleased", "Orphaned", "Releasing", "ReleasingSilently",
      "none"},
     "=",
     "crossing GpadlUnknown"},
    {"last BODY", {"Receiving"}, "Offered", "[gpadl]"},
    {"peer gone", {"Accepted"}, "ReleasingSilently", "[release gpadl]"},
    {"peer gone", {"Offered"}, "OfferedReleased", ""},
    {"peer gone", {"OfferedReleased", "ReleasingSilently"}, "=", ""},
    {"peer gone", {"Orphaned"}, "none", "[id free]; [finished]"},
    {"peer gone", {"Receiving"}, "none", "[finished]"},
    {"peer gone", {"Releasing"}, "ReleasingSilently", ""},
    {"peer gone", {"none"}, "=", "[finished]"},
    {"refused",
     {"Accepted", "Orphaned", "Receiving", "Releasing", "ReleasingSilently"},
     "=",
     "error GpadlState"},
    {"refused", {"Offered"}, "none", "GpadlCreated fail"},
    {"refused", {"OfferedReleased"}, "none", ""},
    {"refused", {"none"}, "=", "error GpadlUnknown"},
    {"released",
     {"Accepted", "Offered", "OfferedReleased", "Orphaned", "Receiving"},
     "=",
     "error GpadlState"},
    {"released", {"Releasing"}, "none", "GpadlTorndown"},
    {"released", {"ReleasingSilently"}, "none", ""},
    {"released", {"none"}, "=", "error GpadlUnknown"},
    {"revoke", {"Accepted"}, "Orphaned", "RescindChannelOffer"},
    {"revoke", {"Offered"}, "none", "GpadlCreated fail; RescindChannelOffer"},
    {"revoke", {"OfferedReleased", "ReleasingSilently"}, "none", "[id free]"},
    {"revoke", {"Orphaned"}, "=", "error ChannelState"},
    {"revoke", {"Receiving", "none"}, "=", "RescindChannelOffer"},
    {"revoke", {"Releasing"}, "none", "GpadlTorndown; RescindChannelOffer"},
};

TEST(ServerGpadlTransitions, EveryEventInEveryStateDoesWhatTheTableSays) {
  CheckTransitions(Names(kStates), Names(kEvents), kRows,
                   [](const std::string& state, const std::string& event) {
                     ServerHarness harness;
                     kStates.at(state)(harness);
                     EXPECT_EQ(GpadlStateName(harness.server, kChannel, kGpadl), state);
                     const std::string actions = kEvents.at(event)(harness);
                     harness.server.CheckInvariants();
                     return Outcome{GpadlStateName(harness.server, kChannel, kGpadl), actions};
                   });
}

}  // namespace
}  // namespace kmcl::bus
