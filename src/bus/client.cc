#include "bus/client.h"

#include <set>
#include <utility>

#include "bus/client_event.h"
#include "bus/match.h"

namespace kmcl::bus {

namespace {

namespace channel_state = client::channel_state;
namespace connection_state = client::connection_state;

// An event that changed nothing leads to no actions.
template <typename Event>
Result<ClientActions> Outcome(Event& event, const Result<void>& result) {
  ClientActions actions = event.TakeActions();
  if (!result) {
    KMCL_CHECK(actions.empty());
    return std::unexpected(result.error());
  }
  return actions;
}

}  // namespace

ClientActions Client::OnMessage(std::span<const std::byte> bytes) {
  Event event(*this);
  event.OnMessage(bytes);
  return event.TakeActions();
}

ClientActions Client::OnPeerGone() {
  Event event(*this);
  event.OnPeerGone();
  return event.TakeActions();
}

Result<ClientActions> Client::OnConnect(const ClientOptions& options) {
  Event event(*this);
  return Outcome(event, event.OnConnect(options));
}

Result<ClientActions> Client::OnReconnect() {
  Event event(*this);
  return Outcome(event, event.OnReconnect());
}

Result<ClientActions> Client::OnUnload() {
  Event event(*this);
  return Outcome(event, event.OnUnload());
}

Result<Client::GpadlOutcome> Client::OnCreateGpadl(wire::ChannelId channel,
                                                   const wire::GpaRangeList& ranges,
                                                   GpadlAccess access) {
  Event event(*this);
  const Result<wire::GpadlId> gpadl = event.OnCreateGpadl(channel, ranges, access);
  if (!gpadl) return std::unexpected(gpadl.error());
  return GpadlOutcome{*gpadl, event.TakeActions()};
}

Result<ClientActions> Client::OnTeardownGpadl(wire::ChannelId channel, wire::GpadlId gpadl) {
  Event event(*this);
  return Outcome(event, event.OnTeardownGpadl(channel, gpadl));
}

Result<ClientActions> Client::OnOpen(wire::ChannelId channel, const OpenRequest& request) {
  Event event(*this);
  return Outcome(event, event.OnOpen(channel, request));
}

Result<ClientActions> Client::OnClose(wire::ChannelId channel) {
  Event event(*this);
  return Outcome(event, event.OnClose(channel));
}

Result<ClientActions> Client::OnModify(wire::ChannelId channel, wire::ProcessorIndex target_vp) {
  Event event(*this);
  return Outcome(event, event.OnModify(channel, target_vp));
}

Result<ClientActions> Client::OnReleaseChannel(wire::ChannelId channel) {
  Event event(*this);
  return Outcome(event, event.OnReleaseChannel(channel));
}

Result<ClientActions> Client::OnTlConnect(const wire::Guid& endpoint_id,
                                          const wire::Guid& service_id,
                                          const std::optional<wire::Guid>& silo_id) {
  Event event(*this);
  return Outcome(event,
                 event.OnTlConnect({endpoint_id, service_id, silo_id.value_or(wire::Guid{})}));
}

wire::Agreed Client::agreed() const {
  const auto* connected = std::get_if<connection_state::Connected>(&connection_);
  if (connected == nullptr) return {};
  return {connected->version, connected->features};
}

bool Client::broken() const {
  return std::holds_alternative<connection_state::Broken>(connection_);
}

// ---- Invariants

namespace {

// Whether channels may exist that are not rescinded.
bool MayHaveOffers(const client::ConnectionState& connection) {
  return std::visit(
      Match{[](const OneOf<connection_state::Idle, connection_state::Gone> auto&) { return false; },
            // Those of the time before, until the server says that it has let go.
            [](const connection_state::Negotiating& negotiating) { return negotiating.reconnect; },
            [](const OneOf<connection_state::Connected, connection_state::Unloading,
                           connection_state::Broken> auto&) { return true; }},
      connection);
}

// The ring of an open channel, or one that is being opened.
std::optional<wire::GpadlId> RingInUse(const client::ChannelState& state) {
  return std::visit(
      Match{[](const OneOf<channel_state::Opening, channel_state::Open> auto& in_use)
                -> std::optional<wire::GpadlId> { return in_use.ring; },
            [](const OneOf<channel_state::Offered, channel_state::RescindedOpen,
                           channel_state::Rescinded> auto&) -> std::optional<wire::GpadlId> {
              return std::nullopt;
            }},
      state);
}

}  // namespace

void Client::CheckInvariants() const {
  std::size_t gpadl_count = 0;
  std::set<OfferKey> standing;
  for (const auto& [id, channel] : channels_) {
    KMCL_CHECK(std::to_underlying(id) >= 1 && std::to_underlying(id) <= wire::kMaximumChannelId);
    const bool is_rescinded = client::IsRescinded(channel.state);
    KMCL_CHECK(is_rescinded || MayHaveOffers(connection_));
    KMCL_CHECK(is_rescinded || standing.insert(channel.key).second);
    for (const auto& [gpadl_id, state] : channel.gpadls) {
      ++gpadl_count;
      // A rescind has answered everybody.
      KMCL_CHECK(!is_rescinded || state == client::GpadlState::kCreated);
      const auto owner = gpadl_owners_.find(gpadl_id);
      KMCL_CHECK(owner != gpadl_owners_.end() && owner->second == id);
    }
    if (const auto ring = RingInUse(channel.state)) {
      const auto gpadl = channel.gpadls.find(*ring);
      KMCL_CHECK(gpadl != channel.gpadls.end() && gpadl->second == client::GpadlState::kCreated);
    }
  }
  KMCL_CHECK(gpadl_count == gpadl_owners_.size());
}

}  // namespace kmcl::bus
