// The states of bus::Server: of a channel, of a GPADL, and of the connection. Private to the
// machine; docs/bus-protocol.md draws them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <variant>
#include <vector>

#include "bus/offer.h"
#include "wire/ids.h"
#include "wire/message_codec.h"
#include "wire/messages.h"

namespace kmcl::bus::server {

namespace gpadl_state {

// Its header has arrived, its pages not all of them yet.
struct Receiving {
  std::uint16_t range_count = 0;
  std::size_t expected_bytes = 0;
  std::vector<std::byte> bytes;
  friend bool operator==(const Receiving&, const Receiving&) = default;
};
// The device decides whether it maps it (OnGpadlResult).
struct Offered {
  friend bool operator==(const Offered&, const Offered&) = default;
};
// The client has let go of it while the device decides.
struct OfferedReleased {
  friend bool operator==(const OfferedReleased&, const OfferedReleased&) = default;
};
// Mapped; the client knows.
struct Accepted {
  friend bool operator==(const Accepted&, const Accepted&) = default;
};
// The device lets go of it (OnGpadlReleased); then the client gets GPADL_TORNDOWN.
struct Releasing {
  friend bool operator==(const Releasing&, const Releasing&) = default;
};
// The device lets go of it; nobody waits for an answer.
struct ReleasingSilently {
  friend bool operator==(const ReleasingSilently&, const ReleasingSilently&) = default;
};
// Its channel is revoked: nothing is mapped, the client may still tear it down.
struct Orphaned {
  friend bool operator==(const Orphaned&, const Orphaned&) = default;
};

}  // namespace gpadl_state

using GpadlState =
    std::variant<gpadl_state::Receiving, gpadl_state::Offered, gpadl_state::OfferedReleased,
                 gpadl_state::Accepted, gpadl_state::Releasing, gpadl_state::ReleasingSilently,
                 gpadl_state::Orphaned>;

struct Gpadl {
  std::uint32_t page_count = 0;  // as its header declares; counted against the limits
  GpadlState state;
  friend bool operator==(const Gpadl&, const Gpadl&) = default;
};

namespace channel_state {

// The client has not been told of it yet. It is told as soon as it may be.
struct Waiting {
  friend bool operator==(const Waiting&, const Waiting&) = default;
};
// The client gave the id back although the offer stands. It is told again on its next connection.
struct Released {
  friend bool operator==(const Released&, const Released&) = default;
};
// The client knows of it and may open it.
struct Offered {
  friend bool operator==(const Offered&, const Offered&) = default;
};
// The device decides whether it opens (OnOpenResult).
struct Opening {
  wire::OpenId open{};
  wire::ProcessorIndex target_vp{};
  friend bool operator==(const Opening&, const Opening&) = default;
};
// The connection was reset while the device decides.
struct OpeningReleased {
  friend bool operator==(const OpeningReleased&, const OpeningReleased&) = default;
};
// Whether the device is busy with MODIFY_CHANNEL (OnModifyDone), and what came in meanwhile.
struct Modification {
  std::optional<wire::ProcessorIndex> next;  // below 5.3: the latest request, to run afterwards
  friend bool operator==(const Modification&, const Modification&) = default;
};
// Both ends may use the rings.
struct Open {
  bool interrupts_enabled = false;
  std::optional<Modification> modification;
  friend bool operator==(const Open&, const Open&) = default;
};
// The client has closed it, the device is not done yet (OnCloseDone).
struct Closing {
  friend bool operator==(const Closing&, const Closing&) = default;
};
// The client has opened it again before the device was done closing.
struct ClosingReopen {
  wire::OpenChannel request;
  friend bool operator==(const ClosingReopen&, const ClosingReopen&) = default;
};
// The client gave the id back, or the connection was reset, before the device was done closing.
struct ClosingReleased {
  friend bool operator==(const ClosingReleased&, const ClosingReleased&) = default;
};
// The offer is gone; the client has not given the id back yet.
struct Revoked {
  friend bool operator==(const Revoked&, const Revoked&) = default;
};

}  // namespace channel_state

using ChannelState =
    std::variant<channel_state::Waiting, channel_state::Released, channel_state::Offered,
                 channel_state::Opening, channel_state::OpeningReleased, channel_state::Open,
                 channel_state::Closing, channel_state::ClosingReopen,
                 channel_state::ClosingReleased, channel_state::Revoked>;

struct Channel {
  OfferParameters offer;
  ChannelState state;
  std::map<wire::GpadlId, Gpadl> gpadls;
  friend bool operator==(const Channel&, const Channel&) = default;
};

namespace connection_state {

// No version is agreed on; nothing of the client is in use.
struct Disconnected {
  friend bool operator==(const Disconnected&, const Disconnected&) = default;
};
// The client asked us to hold every message until it resumes.
struct Pause {
  std::vector<wire::MessageBytes> held;
  friend bool operator==(const Pause&, const Pause&) = default;
};
// A version is agreed on.
struct Connected {
  wire::Version version{};
  wire::FeatureFlags features;
  bool offers_requested = false;
  std::optional<Pause> pause;
  std::uint64_t monitor_page = 0;  // client to server, an address; 0: offers have no monitors
  friend bool operator==(const Connected&, const Connected&) = default;
};

// What follows once everything of the client is closed and released.
struct ThenUnloadComplete {
  bool answered = false;  // V1 clients get no answer
  friend bool operator==(const ThenUnloadComplete&, const ThenUnloadComplete&) = default;
};
struct ThenContact {
  wire::InitiateContact request;
  friend bool operator==(const ThenContact&, const ThenContact&) = default;
};
struct ThenFinished {
  friend bool operator==(const ThenFinished&, const ThenFinished&) = default;
};
// The connection has ended; devices are still letting go.
struct Resetting {
  std::variant<ThenUnloadComplete, ThenContact, ThenFinished> next;
  std::size_t awaited = 0;  // answers that devices owe
  friend bool operator==(const Resetting&, const Resetting&) = default;
};
// The client broke a rule that ends the connection; OnPeerGone is to come.
struct Broken {
  friend bool operator==(const Broken&, const Broken&) = default;
};
// The client is gone for good and nothing of it is in use.
struct Gone {
  friend bool operator==(const Gone&, const Gone&) = default;
};

}  // namespace connection_state

using ConnectionState =
    std::variant<connection_state::Disconnected, connection_state::Connected,
                 connection_state::Resetting, connection_state::Broken, connection_state::Gone>;

}  // namespace kmcl::bus::server
