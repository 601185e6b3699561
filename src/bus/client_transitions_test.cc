// Every pair of state and event at the client: channels, GPADLs, the connection.
#include <gtest/gtest.h>

#include <functional>

#include "bus/test_support.h"
#include "bus/transition_table.h"

namespace kmcl::bus {
namespace {

// What a test has to remember about the channel it made.
struct Subject {
  ClientHarness h;
  wire::GpadlId ring{};
  wire::OpenId open{};
};

template <typename M>
std::function<std::string(Subject&)> Tells(const M& message) {
  return [message](Subject& s) { return Describe(s.h.Tell(message)); };
}

std::string DescribeCreation(const Result<Client::GpadlOutcome>& outcome) {
  return outcome ? Describe(outcome->actions) : std::string("error ") + ErrorName(outcome.error());
}

Result<ClientActions> Open(Subject& s, wire::GpadlId ring) {
  OpenRequest request;
  request.ring = ring;
  return s.h.client.OnOpen(kChannel, request);
}

// ---- Channels

const std::map<std::string, std::function<void(Subject&)>> kChannelStates = {
    {"none", [](Subject& s) { s.h.Connect(); }},
    {"Offered",
     [](Subject& s) {
       s.h.Connect();
       s.h.TellOffer(kChannel, Device(1));
       s.ring = s.h.Share(kChannel);
     }},
    {"Opening",
     [](Subject& s) {
       kChannelStates.at("Offered")(s);
       s.open = s.h.StartOpen(kChannel, s.ring);
     }},
    {"Open",
     [](Subject& s) {
       kChannelStates.at("Opening")(s);
       s.h.Tell(wire::OpenChannelResult{kChannel, s.open, 0});
     }},
    {"Modifying",
     [](Subject& s) {
       kChannelStates.at("Open")(s);
       EXPECT_EQ(Describe(s.h.client.OnModify(kChannel, wire::ProcessorIndex{2})), "ModifyChannel");
     }},
    {"RescindedOpen",
     [](Subject& s) {
       kChannelStates.at("Open")(s);
       s.h.Tell(wire::RescindChannelOffer{kChannel});
     }},
    {"Rescinded",
     [](Subject& s) {
       kChannelStates.at("Offered")(s);
       s.h.Tell(wire::RescindChannelOffer{kChannel});
     }},
};

const std::map<std::string, std::function<std::string(Subject&)>> kChannelEvents = {
    {"OFFER", [](Subject& s) { return Describe(s.h.TellOffer(kChannel, Device(1))); }},
    {"OFFER of the same device",
     [](Subject& s) { return Describe(s.h.TellOffer(wire::ChannelId{2}, Device(1))); }},
    {"OFFER of a sub-channel",
     [](Subject& s) { return Describe(s.h.TellOffer(wire::ChannelId{2}, Device(1, 1))); }},
    {"RESCIND", Tells(wire::RescindChannelOffer{kChannel})},
    {"OPEN_RESULT ok",
     [](Subject& s) {
       return Describe(s.h.Tell(wire::OpenChannelResult{kChannel, s.open, 0}));
     }},
    {"OPEN_RESULT fail",
     [](Subject& s) {
       return Describe(s.h.Tell(wire::OpenChannelResult{kChannel, s.open, wire::kStatusFailure}));
     }},
    {"OPEN_RESULT of another open",
     Tells(wire::OpenChannelResult{kChannel, wire::OpenId{12345}, 0})},
    {"MODIFY_RESPONSE", Tells(wire::ModifyChannelResponse{kChannel, 0})},
    {"open", [](Subject& s) { return Describe(Open(s, s.ring)); }},
    {"close", [](Subject& s) { return Describe(s.h.client.OnClose(kChannel)); }},
    {"modify",
     [](Subject& s) { return Describe(s.h.client.OnModify(kChannel, wire::ProcessorIndex{3})); }},
    {"release", [](Subject& s) { return Describe(s.h.client.OnReleaseChannel(kChannel)); }},
    {"create gpadl",
     [](Subject& s) { return DescribeCreation(s.h.client.OnCreateGpadl(kChannel, Pages(2))); }},
    {"tear the ring down",
     [](Subject& s) { return Describe(s.h.client.OnTeardownGpadl(kChannel, s.ring)); }},
    {"unload and UNLOAD_COMPLETE",
     [](Subject& s) {
       const std::string first = Describe(s.h.client.OnUnload());
       return first + " / " + Describe(s.h.Tell(wire::UnloadComplete{}));
     }},
    {"reconnect and VERSION_RESPONSE",
     [](Subject& s) {
       const std::string first = Describe(s.h.client.OnReconnect());
       return first + " / " + Describe(s.h.Accept());
     }},
    {"peer gone", [](Subject& s) { return Describe(s.h.client.OnPeerGone()); }},
};

const std::vector<TransitionRow> kChannelRows = {
    {"MODIFY_RESPONSE", {"Modifying"}, "Open", "[modify] ok"},
    {"MODIFY_RESPONSE",
     {"Offered", "Open", "Opening", "Rescinded", "RescindedOpen"},
     "=",
     "crossing AnswerUnexpected"},
    {"MODIFY_RESPONSE", {"none"}, "=", "crossing ChannelUnknown"},
    {"OFFER",
     {"Modifying", "Offered", "Open", "Opening", "Rescinded", "RescindedOpen"},
     "=",
     "refused OfferDuplicate"},
    {"OFFER", {"none"}, "Offered", "[offer]"},
    {"OFFER of a sub-channel", {"Modifying", "Offered", "Open", "Opening"}, "=", "[offer]"},
    {"OFFER of a sub-channel",
     {"Rescinded", "RescindedOpen", "none"},
     "=",
     "refused OfferWithoutPrimary"},
    {"OFFER of the same device",
     {"Modifying", "Offered", "Open", "Opening"},
     "=",
     "refused OfferDuplicate"},
    {"OFFER of the same device", {"Rescinded", "RescindedOpen", "none"}, "=", "[offer]"},
    {"OPEN_RESULT fail",
     {"Modifying", "Offered", "Open", "Rescinded", "RescindedOpen"},
     "=",
     "crossing AnswerUnexpected"},
    {"OPEN_RESULT fail", {"Opening"}, "Offered", "[open] fail"},
    {"OPEN_RESULT fail", {"none"}, "=", "crossing ChannelUnknown"},
    {"OPEN_RESULT of another open",
     {"Modifying", "Offered", "Open", "Opening", "Rescinded", "RescindedOpen"},
     "=",
     "crossing AnswerUnexpected"},
    {"OPEN_RESULT of another open", {"none"}, "=", "crossing ChannelUnknown"},
    {"OPEN_RESULT ok",
     {"Modifying", "Offered", "Open", "Rescinded", "RescindedOpen"},
     "=",
     "crossing AnswerUnexpected"},
    {"OPEN_RESULT ok", {"Opening"}, "Open", "[open] ok"},
    {"OPEN_RESULT ok", {"none"}, "=", "crossing ChannelUnknown"},
    {"RESCIND", {"Modifying"}, "RescindedOpen", "[modify] fail; [rescinded, open]"},
    {"RESCIND", {"Offered"}, "Rescinded", "[rescinded]"},
    {"RESCIND", {"Open"}, "RescindedOpen", "[rescinded, open]"},
    {"RESCIND", {"Opening"}, "Rescinded", "[open] fail; [rescinded]"},
    {"RESCIND", {"Rescinded", "RescindedOpen"}, "=", "refused ChannelState"},
    {"RESCIND", {"none"}, "=", "refused ChannelUnknown"},
    {"close", {"Modifying"}, "Offered", "[modify] fail; CloseChannel"},
    {"close", {"Offered", "Rescinded"}, "=", "error ChannelState"},
    {"close", {"Open"}, "Offered", "CloseChannel"},
    {"close", {"Opening"}, "=", "error RequestPending"},
    {"close", {"RescindedOpen"}, "Rescinded", "CloseChannel"},
    {"close", {"none"}, "=", "error ChannelUnknown"},
    {"create gpadl", {"Modifying", "Offered", "Open", "Opening"}, "=", "GpadlHeader"},
    {"create gpadl", {"Rescinded", "RescindedOpen"}, "=", "error ChannelState"},
    {"create gpadl", {"none"}, "=", "error ChannelUnknown"},
    {"modify", {"Modifying"}, "=", "error RequestPending"},
    {"modify", {"Offered", "Opening", "Rescinded", "RescindedOpen"}, "=", "error ChannelState"},
    {"modify", {"Open"}, "Modifying", "ModifyChannel"},
    {"modify", {"none"}, "=", "error ChannelUnknown"},
    {"open", {"Modifying", "Open", "Rescinded", "RescindedOpen"}, "=", "error ChannelState"},
    {"open", {"Offered"}, "Opening", "OpenChannel"},
    {"open", {"Opening"}, "=", "error RequestPending"},
    {"open", {"none"}, "=", "error ChannelUnknown"},
    {"peer gone", {"Modifying"}, "RescindedOpen", "[modify] fail; [rescinded, open]"},
    {"peer gone", {"Offered"}, "Rescinded", "[rescinded]"},
    {"peer gone", {"Open"}, "RescindedOpen", "[rescinded, open]"},
    {"peer gone", {"Opening"}, "Rescinded", "[open] fail; [rescinded]"},
    {"peer gone", {"Rescinded", "RescindedOpen", "none"}, "=", ""},
    {"reconnect and VERSION_RESPONSE",
     {"Modifying"},
     "none",
     "InitiateContact / [modify] fail; [rescinded, open]; [forgotten]; [connected]; RequestOffers"},
    {"reconnect and VERSION_RESPONSE",
     {"Offered"},
     "none",
     "InitiateContact / [rescinded]; [forgotten]; [connected]; RequestOffers"},
    {"reconnect and VERSION_RESPONSE",
     {"Open"},
     "none",
     "InitiateContact / [rescinded, open]; [forgotten]; [connected]; RequestOffers"},
    {"reconnect and VERSION_RESPONSE",
     {"Opening"},
     "none",
     "InitiateContact / [open] fail; [rescinded]; [forgotten]; [connected]; RequestOffers"},
    {"reconnect and VERSION_RESPONSE",
     {"Rescinded", "RescindedOpen"},
     "none",
     "InitiateContact / [forgotten]; [connected]; RequestOffers"},
    {"reconnect and VERSION_RESPONSE",
     {"none"},
     "=",
     "InitiateContact / [connected]; RequestOffers"},
    {"release",
     {"Modifying", "Offered", "Open", "Opening", "RescindedOpen"},
     "=",
     "error ChannelState"},
    {"release", {"Rescinded"}, "none", "RelIdReleased"},
    {"release", {"none"}, "=", "error ChannelUnknown"},
    {"tear the ring down", {"Modifying", "Open", "Opening"}, "=", "error GpadlState"},
    {"tear the ring down", {"Offered"}, "=", "GpadlTeardown"},
    {"tear the ring down", {"Rescinded", "RescindedOpen"}, "=", "[gpadl back]"},
    {"tear the ring down", {"none"}, "=", "error ChannelUnknown"},
    {"unload and UNLOAD_COMPLETE",
     {"Modifying"},
     "RescindedOpen",
     "Unload / [modify] fail; [rescinded, open]; [unloaded]"},
    {"unload and UNLOAD_COMPLETE", {"Offered"}, "Rescinded", "Unload / [rescinded]; [unloaded]"},
    {"unload and UNLOAD_COMPLETE",
     {"Open"},
     "RescindedOpen",
     "Unload / [rescinded, open]; [unloaded]"},
    {"unload and UNLOAD_COMPLETE",
     {"Opening"},
     "Rescinded",
     "Unload / [open] fail; [rescinded]; [unloaded]"},
    {"unload and UNLOAD_COMPLETE",
     {"Rescinded", "RescindedOpen", "none"},
     "=",
     "Unload / [unloaded]"},
};

TEST(ClientTransitions, AChannelDoesWhatTheTableSays) {
  CheckTransitions(Names(kChannelStates), Names(kChannelEvents), kChannelRows,
                   [](const std::string& state, const std::string& event) {
                     Subject subject;
                     kChannelStates.at(state)(subject);
                     EXPECT_EQ(ChannelStateName(subject.h.client, kChannel), state);
                     const std::string actions = kChannelEvents.at(event)(subject);
                     subject.h.client.CheckInvariants();
                     return Outcome{ChannelStateName(subject.h.client, kChannel), actions};
                   });
}

// ---- GPADLs

const std::map<std::string, std::function<void(Subject&)>> kGpadlStates = {
    {"none",
     [](Subject& s) {
       s.h.Connect();
       s.h.TellOffer(kChannel, Device(1));
       s.ring = wire::GpadlId{77};
     }},
    {"Creating",
     [](Subject& s) {
       kGpadlStates.at("none")(s);
       s.ring = s.h.Create(kChannel);
     }},
    {"Created",
     [](Subject& s) {
       kGpadlStates.at("none")(s);
       s.ring = s.h.Share(kChannel);
     }},
    {"TearingDown",
     [](Subject& s) {
       kGpadlStates.at("Created")(s);
       EXPECT_EQ(Describe(s.h.client.OnTeardownGpadl(kChannel, s.ring)), "GpadlTeardown");
     }},
};

const std::map<std::string, std::function<std::string(Subject&)>> kGpadlEvents = {
    {"CREATED ok",
     [](Subject& s) {
       return Describe(s.h.Tell(wire::GpadlCreated{kChannel, s.ring, 0}));
     }},
    {"CREATED fail",
     [](Subject& s) {
       return Describe(s.h.Tell(wire::GpadlCreated{kChannel, s.ring, wire::kStatusFailure}));
     }},
    {"CREATED of another channel",
     [](Subject& s) {
       return Describe(s.h.Tell(wire::GpadlCreated{wire::ChannelId{2}, s.ring, 0}));
     }},
    {"TORNDOWN", [](Subject& s) { return Describe(s.h.Tell(wire::GpadlTorndown{s.ring})); }},
    {"RESCIND", [](Subject& s) { return Describe(s.h.Tell(wire::RescindChannelOffer{kChannel})); }},
    {"tear down",
     [](Subject& s) { return Describe(s.h.client.OnTeardownGpadl(kChannel, s.ring)); }},
    {"open with it as ring", [](Subject& s) { return Describe(Open(s, s.ring)); }},
    {"RESCIND and release",
     [](Subject& s) {
       s.h.Tell(wire::RescindChannelOffer{kChannel});
       return Describe(s.h.client.OnReleaseChannel(kChannel));
     }},
    {"peer gone", [](Subject& s) { return Describe(s.h.client.OnPeerGone()); }},
};

const std::vector<TransitionRow> kGpadlRows = {
    {"CREATED fail", {"Created", "TearingDown"}, "=", "crossing AnswerUnexpected"},
    {"CREATED fail", {"Creating"}, "none", "[gpadl] fail"},
    {"CREATED fail", {"none"}, "=", "crossing GpadlUnknown"},
    {"CREATED of another channel",
     {"Created", "Creating", "TearingDown", "none"},
     "=",
     "crossing ChannelUnknown"},
    {"CREATED ok", {"Created", "TearingDown"}, "=", "crossing AnswerUnexpected"},
    {"CREATED ok", {"Creating"}, "Created", "[gpadl] ok"},
    {"CREATED ok", {"none"}, "=", "crossing GpadlUnknown"},
    {"RESCIND", {"Created", "none"}, "=", "[rescinded]"},
    {"RESCIND", {"Creating"}, "none", "[gpadl] fail; [rescinded]"},
    {"RESCIND", {"TearingDown"}, "none", "[gpadl back]; [rescinded]"},
    {"RESCIND and release", {"Created", "Creating", "TearingDown"}, "none", "RelIdReleased"},
    {"RESCIND and release", {"none"}, "=", "RelIdReleased"},
    {"TORNDOWN", {"Created", "Creating"}, "=", "crossing AnswerUnexpected"},
    {"TORNDOWN", {"TearingDown"}, "none", "[gpadl back]"},
    {"TORNDOWN", {"none"}, "=", "crossing GpadlUnknown"},
    {"open with it as ring", {"Created"}, "=", "OpenChannel"},
    {"open with it as ring", {"Creating", "TearingDown"}, "=", "error GpadlState"},
    {"open with it as ring", {"none"}, "=", "error GpadlUnknown"},
    {"peer gone", {"Created", "none"}, "=", "[rescinded]"},
    {"peer gone", {"Creating"}, "none", "[gpadl] fail; [rescinded]"},
    {"peer gone", {"TearingDown"}, "none", "[gpadl back]; [rescinded]"},
    {"tear down", {"Created"}, "TearingDown", "GpadlTeardown"},
    {"tear down", {"Creating"}, "=", "error RequestPending"},
    {"tear down", {"TearingDown"}, "=", "error GpadlState"},
    {"tear down", {"none"}, "=", "error GpadlUnknown"},
};

TEST(ClientTransitions, AGpadlDoesWhatTheTableSays) {
  CheckTransitions(
      Names(kGpadlStates), Names(kGpadlEvents), kGpadlRows,
      [](const std::string& state, const std::string& event) {
        Subject subject;
        kGpadlStates.at(state)(subject);
        EXPECT_EQ(GpadlStateName(subject.h.client, kChannel, subject.ring), state);
        const std::string actions = kGpadlEvents.at(event)(subject);
        subject.h.client.CheckInvariants();
        return Outcome{GpadlStateName(subject.h.client, kChannel, subject.ring), actions};
      });
}

}  // namespace
}  // namespace kmcl::bus
