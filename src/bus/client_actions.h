// What bus::Client asks of, or tells, the endpoint. Actions are carried out in the order in which
// they stand.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "bus/offer.h"
#include "bus/report.h"
#include "wire/guid.h"
#include "wire/ids.h"
#include "wire/message_codec.h"
#include "wire/version.h"

namespace kmcl::bus::client {

// Give it to the server.
struct SendMessage {
  wire::MessageBytes bytes;
};

// A version was agreed on; offers have been requested.
struct Connected {
  wire::Version version{};
  wire::FeatureFlags features;
  wire::ConnectionId message_connection{};  // for every later message; 1 below 5.0
};

// No connection came about. kVersionRefused: no common version; kNotConnected: the server has no
// resources for us; kPeerGone: it went away. OnConnect may be called again, except after kPeerGone.
struct ConnectRefused {
  Error reason{};
};

struct OfferArrived {
  Offer offer;
};

// Every offer that stood when we connected has arrived. Once per connection.
struct OffersDelivered {};

// The offer is withdrawn; whoever waited on this channel was answered by the actions before this
// one. The server has stopped using the rings and GPADLs. Owed: OnClose if was_open, then
// OnReleaseChannel.
struct OfferRescinded {
  wire::ChannelId channel{};
  bool was_open = false;
};

// The connection was made anew (OnReconnect, or OnConnect after an unload) while this channel,
// rescinded by then, had not been released. Its id means nothing any more, and nothing is owed for
// it.
struct ChannelForgotten {
  wire::ChannelId channel{};
};

// Answers OnOpen. 0: the channel is open, and the server may signal.
struct OpenResult {
  wire::ChannelId channel{};
  std::uint32_t status = 0;
};

// Answers OnCreateGpadl. 0: created. Otherwise the id is gone.
struct GpadlResult {
  wire::ChannelId channel{};
  wire::GpadlId gpadl{};
  std::uint32_t status = 0;
};

// Answers OnTeardownGpadl: the memory is ours again, and the id is gone.
struct GpadlTornDown {
  wire::ChannelId channel{};
  wire::GpadlId gpadl{};
};

// Answers OnModify.
struct ModifyResult {
  wire::ChannelId channel{};
  std::uint32_t status = 0;
};

// Answers OnTlConnect, if the server would not offer a channel. It does not have to say so.
struct TlConnectFailed {
  wire::Guid endpoint_id;
  wire::Guid service_id;
  std::uint32_t status = 0;
};

// Answers OnUnload: the server uses nothing of ours any more. Every channel was rescinded before.
struct Unloaded {};

}  // namespace kmcl::bus::client

namespace kmcl::bus {

using ClientAction =
    std::variant<client::SendMessage, client::Connected, client::ConnectRefused,
                 client::OfferArrived, client::OffersDelivered, client::OfferRescinded,
                 client::ChannelForgotten, client::OpenResult, client::GpadlResult,
                 client::GpadlTornDown, client::ModifyResult, client::TlConnectFailed,
                 client::Unloaded, Refused, Broken>;
using ClientActions = std::vector<ClientAction>;

}  // namespace kmcl::bus
