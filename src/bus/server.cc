#include "bus/server.h"

#include <set>
#include <utility>

#include "bus/match.h"
#include "bus/server_event.h"

namespace kmcl::bus {

namespace {

namespace channel_state = server::channel_state;
namespace connection_state = server::connection_state;
namespace gpadl_state = server::gpadl_state;

// An event that changed nothing leads to no actions.
template <typename Event>
Result<ServerActions> Outcome(Event& event, const Result<void>& result) {
  ServerActions actions = event.TakeActions();
  if (!result) {
    KMCL_CHECK(actions.empty());
    return std::unexpected(result.error());
  }
  return actions;
}

}  // namespace

Server::Server(const ServerLimits& limits) : limits_(limits) {
  KMCL_CHECK(limits.channels >= 1 && limits.channels <= wire::kMaximumChannelId);
  KMCL_CHECK(wire::IsKnown(limits.newest) && wire::IsKnown(limits.oldest));
  KMCL_CHECK(limits.oldest <= limits.newest);
}

ServerActions Server::OnMessage(std::span<const std::byte> bytes) {
  Event event(*this);
  event.OnMessage(bytes);
  return event.TakeActions();
}

ServerActions Server::OnPeerGone() {
  Event event(*this);
  event.OnPeerGone();
  return event.TakeActions();
}

Result<Server::OfferOutcome> Server::OnOffer(const OfferParameters& parameters) {
  Event event(*this);
  const Result<wire::ChannelId> channel = event.OnOffer(parameters);
  if (!channel) return std::unexpected(channel.error());
  return OfferOutcome{*channel, event.TakeActions()};
}

Result<ServerActions> Server::OnRevoke(wire::ChannelId channel) {
  Event event(*this);
  return Outcome(event, event.OnRevoke(channel));
}

Result<ServerActions> Server::OnOpenResult(wire::ChannelId channel, std::uint32_t status) {
  Event event(*this);
  return Outcome(event, event.OnOpenResult(channel, status));
}

Result<ServerActions> Server::OnCloseDone(wire::ChannelId channel) {
  Event event(*this);
  return Outcome(event, event.OnCloseDone(channel));
}

Result<ServerActions> Server::OnGpadlResult(wire::ChannelId channel, wire::GpadlId gpadl,
                                            std::uint32_t status) {
  Event event(*this);
  return Outcome(event, event.OnGpadlResult(channel, gpadl, status));
}

Result<ServerActions> Server::OnGpadlReleased(wire::ChannelId channel, wire::GpadlId gpadl) {
  Event event(*this);
  return Outcome(event, event.OnGpadlReleased(channel, gpadl));
}

Result<ServerActions> Server::OnModifyDone(wire::ChannelId channel, std::uint32_t status) {
  Event event(*this);
  return Outcome(event, event.OnModifyDone(channel, status));
}

Result<ServerActions> Server::OnTlConnectFailed(const wire::Guid& endpoint_id,
                                                const wire::Guid& service_id,
                                                std::uint32_t status) {
  Event event(*this);
  return Outcome(event, event.OnTlConnectFailed({endpoint_id, service_id, status}));
}

wire::Agreed Server::agreed() const {
  const auto* connected = std::get_if<connection_state::Connected>(&connection_);
  if (connected == nullptr) return {};
  return {connected->version, connected->features};
}

std::uint64_t Server::monitor_page() const {
  const auto* connected = std::get_if<server::connection_state::Connected>(&connection_);
  return connected == nullptr ? 0 : connected->monitor_page;
}

std::optional<std::uint8_t> Server::monitor(wire::ChannelId channel) const {
  const auto found = channels_.find(channel);
  if (found == channels_.end() || monitor_page() == 0) return std::nullopt;
  if (limits_.monitors == Monitors::kAsked &&
      (found->second.offer.flags & wire::kOfferRequestMonitoredNotification) == 0) {
    return std::nullopt;
  }
  return MonitorOf(channel);
}

bool Server::broken() const {
  return std::holds_alternative<connection_state::Broken>(connection_);
}

bool Server::finished() const {
  return std::holds_alternative<connection_state::Gone>(connection_);
}

// ---- Invariants

namespace {

// GPADLs that a channel may have in a state.
bool Fits(const server::ChannelState& channel, const server::GpadlState& gpadl) {
  using namespace gpadl_state;
  return std::visit(
      Match{// Nobody has told the client of the channel.
            [](const channel_state::Waiting&) { return false; },
            // The client has let go of everything.
            [&](const OneOf<channel_state::Released, channel_state::OpeningReleased,
                            channel_state::ClosingReleased> auto&) {
              return std::holds_alternative<OfferedReleased>(gpadl) ||
                     std::holds_alternative<Releasing>(gpadl) ||
                     std::holds_alternative<ReleasingSilently>(gpadl);
            },
            [&](const OneOf<channel_state::Offered, channel_state::Opening, channel_state::Open,
                            channel_state::Closing, channel_state::ClosingReopen> auto&) {
              return std::holds_alternative<Receiving>(gpadl) ||
                     std::holds_alternative<Offered>(gpadl) ||
                     std::holds_alternative<Accepted>(gpadl) ||
                     std::holds_alternative<Releasing>(gpadl);
            },
            // The device has let go of everything.
            [&](const channel_state::Revoked&) {
              return std::holds_alternative<Receiving>(gpadl) ||
                     std::holds_alternative<Orphaned>(gpadl);
            }},
      channel);
}

// Channels that may exist while the connection is in a state.
bool Fits(const server::ConnectionState& connection, const server::ChannelState& channel) {
  using namespace channel_state;
  return std::visit(
      Match{[&](const OneOf<connection_state::Disconnected, connection_state::Gone> auto&) {
              return std::holds_alternative<Waiting>(channel);
            },
            [&](const connection_state::Connected& connected) {
              return std::holds_alternative<Waiting>(channel) ||
                     (connected.offers_requested &&
                      !std::holds_alternative<OpeningReleased>(channel));
            },
            [&](const connection_state::Resetting&) {
              return std::holds_alternative<Waiting>(channel) ||
                     std::holds_alternative<Released>(channel) ||
                     std::holds_alternative<OpeningReleased>(channel) ||
                     std::holds_alternative<ClosingReleased>(channel);
            },
            // As the connection was when it broke.
            [](const connection_state::Broken&) { return true; }},
      connection);
}

}  // namespace

std::optional<std::source_location> Server::BrokenInvariant() const {
  using Here = std::source_location;
  if (!(channels_.size() <= limits_.channels)) return Here::current();
  std::uint64_t pages = 0;
  std::size_t gpadl_count = 0;
  std::size_t incomplete_count = 0;
  std::size_t owed = 0;
  std::set<OfferKey> standing;
  std::set<OfferKey> revoked;
  for (const auto& [id, channel] : channels_) {
    const std::uint32_t number = std::to_underlying(id);
    if (!(number >= 1 && number <= limits_.channels)) return Here::current();
    if (!(Fits(connection_, channel.state))) return Here::current();
    const bool is_revoked = std::holds_alternative<channel_state::Revoked>(channel.state);
    if (!((is_revoked ? revoked : standing).insert(channel.offer.key).second))
      return Here::current();
    if (!(channel.gpadls.size() <= limits_.gpadls_per_channel)) return Here::current();
    owed += server::AnswersOwed(channel);
    for (const auto& [gpadl_id, gpadl] : channel.gpadls) {
      if (!(Fits(channel.state, gpadl.state))) return Here::current();
      pages += gpadl.page_count;
      ++gpadl_count;
      if (const auto* receiving = std::get_if<gpadl_state::Receiving>(&gpadl.state)) {
        ++incomplete_count;
        if (!(receiving->bytes.size() < receiving->expected_bytes)) return Here::current();
        const auto owner = incomplete_.find(gpadl_id);
        if (!(owner != incomplete_.end() && owner->second == id)) return Here::current();
      }
    }
  }
  if (!(pages == gpadl_pages_ && pages <= limits_.gpadl_pages)) return Here::current();
  if (!(gpadl_count == gpadl_count_ && gpadl_count <= limits_.gpadls)) return Here::current();
  if (!(incomplete_count == incomplete_.size())) return Here::current();
  if (!(incomplete_count <= limits_.incomplete_gpadls)) return Here::current();
  if (const auto* resetting = std::get_if<connection_state::Resetting>(&connection_)) {
    // With nothing to wait for, the reset would be over.
    if (!(resetting->awaited > 0 && resetting->awaited == owed)) return Here::current();
  }
  return std::nullopt;
}

void Server::CheckInvariants() const {
  const auto broken = BrokenInvariant();
  if (broken) CheckFailed("an invariant", broken->file_name(), static_cast<int>(broken->line()));
}

}  // namespace kmcl::bus
