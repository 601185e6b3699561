// The states of bus::Client: of a channel, of a GPADL, and of the connection. Private to the
// machine; docs/bus-protocol.md draws them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <variant>

#include "bus/offer.h"
#include "wire/ids.h"
#include "wire/version.h"

namespace kmcl::bus::client {

// A GPADL's states carry no data.
enum class GpadlState : std::uint8_t {
  kCreating,     // described to the server; GPADL_CREATED is to come
  kCreated,      // the server may use the pages
  kTearingDown,  // asked back; GPADL_TORNDOWN is to come
};

namespace channel_state {

// We know of it and may open it.
struct Offered {
  friend bool operator==(const Offered&, const Offered&) = default;
};
// OPEN_CHANNEL_RESULT is to come.
struct Opening {
  wire::OpenId open{};
  wire::GpadlId ring{};
  wire::ProcessorIndex target_vp{};
  friend bool operator==(const Opening&, const Opening&) = default;
};
// Both ends may use the rings.
struct Open {
  wire::GpadlId ring{};
  bool interrupts_enabled = false;
  bool modifying = false;  // MODIFY_CHANNEL_RESPONSE is to come
  friend bool operator==(const Open&, const Open&) = default;
};
// The offer is withdrawn; we have still to close (OnClose) what was open.
struct RescindedOpen {
  friend bool operator==(const RescindedOpen&, const RescindedOpen&) = default;
};
// The offer is withdrawn; we have still to give the id back (OnReleaseChannel).
struct Rescinded {
  friend bool operator==(const Rescinded&, const Rescinded&) = default;
};

}  // namespace channel_state

using ChannelState =
    std::variant<channel_state::Offered, channel_state::Opening, channel_state::Open,
                 channel_state::RescindedOpen, channel_state::Rescinded>;

struct Channel {
  OfferKey key;
  wire::ConnectionId connection{};  // of the offer; what we signal
  ChannelState state;
  std::map<wire::GpadlId, GpadlState> gpadls;
  friend bool operator==(const Channel&, const Channel&) = default;
};

namespace connection_state {

// Not connected: never yet, no more since an unload, or refused.
struct Idle {
  friend bool operator==(const Idle&, const Idle&) = default;
};
// VERSION_RESPONSE is to come.
struct Negotiating {
  wire::Version version{};  // asked for
  bool reconnect = false;   // this version or none; what else arrives belongs to the time before
  friend bool operator==(const Negotiating&, const Negotiating&) = default;
};
// A version is agreed on, and offers were requested.
struct Connected {
  wire::Version version{};
  wire::FeatureFlags features;
  bool offers_delivered = false;
  friend bool operator==(const Connected&, const Connected&) = default;
};
// UNLOAD_COMPLETE is to come; the server may still use what we lent it.
struct Unloading {
  wire::Version version{};
  wire::FeatureFlags features;
  friend bool operator==(const Unloading&, const Unloading&) = default;
};
// The server broke a rule that ends the connection; OnPeerGone is to come.
struct Broken {
  bool was_negotiating = false;  // ConnectRefused is owed
  bool was_unloading = false;    // Unloaded is owed
  friend bool operator==(const Broken&, const Broken&) = default;
};
// The server is gone for good.
struct Gone {
  friend bool operator==(const Gone&, const Gone&) = default;
};

}  // namespace connection_state

using ConnectionState =
    std::variant<connection_state::Idle, connection_state::Negotiating, connection_state::Connected,
                 connection_state::Unloading, connection_state::Broken, connection_state::Gone>;

}  // namespace kmcl::bus::client
