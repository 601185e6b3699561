// What bus::Server asks of the endpoint. Actions are carried out in the order in which they stand.
//
// Where a comment names an On... function, the endpoint owes exactly one call of it, at once or
// later. It stops owing it when it calls OnRevoke for that channel.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "bus/report.h"
#include "wire/gpa_range.h"
#include "wire/guid.h"
#include "wire/ids.h"
#include "wire/message_codec.h"
#include "wire/version.h"

namespace kmcl::bus::server {

// Give it to the client.
struct SendMessage {
  wire::MessageBytes bytes;
};

// A version was agreed on; the client may ask for offers. Sent again after every reconnect.
struct VersionAgreed {
  wire::Version version{};
  wire::FeatureFlags features;
  wire::Guid client_id;  // zero unless the client named itself
};

// The client left (UNLOAD) or starts anew (INITIATE_CONTACT). The actions that follow close what
// was open; the client is answered when all of them have been reported done. Offers stand.
struct ConnectionReset {};

// The client wants the channel open. The endpoint checks the ring geometry and target_vp.
// Owed: OnOpenResult.
struct OpenChannel {
  wire::ChannelId channel{};
  wire::OpenId open{};
  wire::GpadlId ring{};  // accepted, and of this channel
  std::uint32_t downstream_page = 0;
  wire::ProcessorIndex target_vp{};
  wire::UserDefined user_data{};
  // What the client signals and what it is signalled by, if the client chose them itself
  // (feature kGuestSpecifiedSignalParameters).
  struct Signal {
    wire::ConnectionId connection{};
    std::uint16_t event_flag = 0;
  };
  std::optional<Signal> signal;
  bool redirect_interrupt = false;  // only with feature kChannelInterruptRedirection
};

// The client is done with the channel. Owed: OnCloseDone, once the rings are not touched any more.
struct CloseChannel {
  wire::ChannelId channel{};
};

// A GPADL is complete. The pages are the client's claim: nobody has compared them with its memory.
// Owed: OnGpadlResult.
struct GpadlComplete {
  wire::ChannelId channel{};
  wire::GpadlId gpadl{};
  wire::GpaRangeList ranges;
};

// The client wants its memory back. Owed: OnGpadlReleased, once the last view is gone; for the
// GPADL of an open ring that is after the channel was closed.
struct ReleaseGpadl {
  wire::ChannelId channel{};
  wire::GpadlId gpadl{};
};

// Interrupt the client on another processor from now on. Owed: OnModifyDone, before OnCloseDone.
struct ModifyChannel {
  wire::ChannelId channel{};
  wire::ProcessorIndex target_vp{};
};

// The id of a revoked channel is free: the client has let go, or never knew of it.
struct ChannelReleased {
  wire::ChannelId channel{};
};

// The client wants an hvsock channel. Answer by an offer with exactly these two ids, or with
// OnTlConnectFailed.
struct TlConnect {
  wire::Guid endpoint_id;
  wire::Guid service_id;
  wire::Guid silo_id;  // zero unless sent
};

// After OnPeerGone: the last device has let go. The machine may be thrown away.
struct Finished {};

}  // namespace kmcl::bus::server

namespace kmcl::bus {

using ServerAction =
    std::variant<server::SendMessage, server::VersionAgreed, server::ConnectionReset,
                 server::OpenChannel, server::CloseChannel, server::GpadlComplete,
                 server::ReleaseGpadl, server::ModifyChannel, server::ChannelReleased,
                 server::TlConnect, server::Finished, Refused, Broken>;
using ServerActions = std::vector<ServerAction>;

}  // namespace kmcl::bus
