// Offers: made, announced, revoked, and their ids given back.
#include <algorithm>
#include <set>

#include "bus/match.h"
#include "bus/server_event.h"

namespace kmcl::bus {

using namespace server::channel_state;

namespace {

// The client has been told of the channel, and neither gave it back nor lost it by a revoke.
bool IsWithClient(const server::ChannelState& state) {
  return std::visit(
      Match{[](const OneOf<Offered, Opening, Open, Closing, ClosingReopen> auto&) { return true; },
            [](const OneOf<Waiting, Released, OpeningReleased, ClosingReleased, Revoked> auto&) {
              return false;
            }},
      state);
}

}  // namespace

Server::Event::Channels::iterator Server::Event::FindKnown(wire::ChannelId id) {
  const auto channel = server_.channels_.find(id);
  if (channel == server_.channels_.end()) return channel;
  const server::ChannelState& state = channel->second.state;
  return IsWithClient(state) || std::holds_alternative<Revoked>(state) ? channel
                                                                       : server_.channels_.end();
}

// ---- Making offers known

Result<wire::ChannelId> Server::Event::OnOffer(const OfferParameters& parameters) {
  Channels& channels = server_.channels_;
  const bool is_leaving = std::visit(
      Match{
          [](const OneOf<server::connection_state::Disconnected,
                         server::connection_state::Connected> auto&) { return false; },
          [](const server::connection_state::Resetting& resetting) {
            return std::holds_alternative<server::connection_state::ThenFinished>(resetting.next);
          },
          [](const OneOf<server::connection_state::Broken, server::connection_state::Gone> auto&) {
            return true;
          }},
      server_.connection_);
  if (is_leaving) return std::unexpected(Error::kPeerGone);

  const auto stands = [&](const OfferKey& key) {
    return std::ranges::any_of(channels, [&](const auto& entry) {
      return entry.second.offer.key == key && !std::holds_alternative<Revoked>(entry.second.state);
    });
  };
  if (stands(parameters.key)) return std::unexpected(Error::kOfferDuplicate);
  if (!parameters.key.IsPrimary() && !stands(parameters.key.Primary())) {
    return std::unexpected(Error::kOfferWithoutPrimary);
  }

  // The lowest id that no channel has: ids stand in order, so it is the first one out of step.
  std::uint32_t id = 1;
  for (const auto& [taken, channel] : channels) {
    if (std::to_underlying(taken) != id) break;
    ++id;
  }
  if (id > server_.limits_.channels) return std::unexpected(Error::kChannelIdsExhausted);
  channels.emplace(wire::ChannelId{id},
                   server::Channel{.offer = parameters, .state = Waiting{}, .gpadls = {}});
  AnnounceWaiting();
  return wire::ChannelId{id};
}

void Server::Event::On(const wire::RequestOffers&) {
  if (connected()->offers_requested) return Refuse(Error::kRequestPending);
  connected()->offers_requested = true;
  AnnounceWaiting();
  Send(wire::AllOffersDelivered{});
}

void Server::Event::AnnounceWaiting() {
  if (connected() == nullptr || !connected()->offers_requested) return;
  const wire::Version version = connected()->version;

  std::set<OfferKey> with_client;  // a sub-channel follows its primary
  std::set<OfferKey> still_held;   // the client has not given the revoked offer's id back
  for (const auto& [id, channel] : server_.channels_) {
    if (IsWithClient(channel.state)) with_client.insert(channel.offer.key);
    if (std::holds_alternative<Revoked>(channel.state)) still_held.insert(channel.offer.key);
  }
  for (const bool primaries : {true, false}) {
    for (auto& [id, channel] : server_.channels_) {
      const OfferKey& key = channel.offer.key;
      if (!std::holds_alternative<Waiting>(channel.state) || key.IsPrimary() != primaries) continue;
      if (std::to_underlying(id) > wire::MaximumChannelId(version)) continue;
      if (still_held.contains(key)) continue;
      // Sub-channels came with the event flags of 2.4.
      if (!primaries &&
          (!wire::HasEventFlagPerChannel(version) || !with_client.contains(key.Primary()))) {
        continue;
      }
      Announce(id, channel);
      with_client.insert(key);
    }
  }
}

void Server::Event::Announce(wire::ChannelId id, server::Channel& channel) {
  const OfferParameters& offer = channel.offer;
  wire::OfferChannel message;
  message.interface_id = offer.key.interface_type;
  message.instance_id = offer.key.instance;
  message.flags = wire::OfferFlagsFor(offer.flags, connected()->features);
  message.mmio_megabytes = offer.mmio_megabytes;
  message.user_defined = offer.user_defined;
  message.subchannel_index = offer.key.subchannel_index;
  message.mmio_megabytes_optional = offer.mmio_megabytes_optional;
  message.channel_id = id;
  message.connection_id = wire::EventConnection(id);
  if (const auto monitor = server_.monitor(id)) {
    message.monitor_id = *monitor;
    message.monitor_flags = wire::kOfferMonitorAllocated;
  }
  Send(message);
  channel.state = Offered{};
}

// ---- Taking offers back

Result<void> Server::Event::OnRevoke(wire::ChannelId id) {
  const auto channel = server_.channels_.find(id);
  if (channel == server_.channels_.end()) return std::unexpected(Error::kChannelUnknown);
  const server::ChannelState& state = channel->second.state;
  if (std::holds_alternative<Revoked>(state)) return std::unexpected(Error::kChannelState);

  if (!IsWithClient(state) || connected() == nullptr) {
    const std::size_t owed = server::AnswersOwed(channel->second);
    if (connected() != nullptr) Orphan(id, channel->second);
    Erase(channel);
    ResetAnswered(owed);
    return {};
  }

  // Whatever the client waits for is answered before the offer goes.
  std::visit(
      Match{[&](const Open& open) {
              if (open.modification) AnswerModify(id, wire::kStatusFailure);
            },
            [&](const Opening& opening) { AnswerOpen(id, opening.open, wire::kStatusFailure); },
            [&](const ClosingReopen& reopen) {
              AnswerOpen(id, reopen.request.open_id, wire::kStatusFailure);
            },
            [](const OneOf<Offered, Closing> auto&) {},
            [](const OneOf<Waiting, Released, OpeningReleased, ClosingReleased, Revoked> auto&) {
              KMCL_CHECK(!"the channel is with the client");
            }},
      state);
  Orphan(id, channel->second);
  channel->second.state = Revoked{};
  Send(wire::RescindChannelOffer{id});
  return {};
}

void Server::Event::Erase(Channels::iterator channel) {
  for (auto gpadl = channel->second.gpadls.begin(); gpadl != channel->second.gpadls.end();) {
    gpadl = Erase(channel->second, gpadl);
  }
  actions_.push_back(server::ChannelReleased{channel->first});
  server_.channels_.erase(channel);
}

void Server::Event::On(const wire::RelIdReleased& message) {
  const auto found = FindKnown(message.channel_id);
  if (found == server_.channels_.end()) return Refuse(Error::kChannelUnknown);
  server::Channel& channel = found->second;
  std::visit(
      Match{[&](const Offered&) {
              LetGo(found->first, channel);
              channel.state = Released{};
            },
            [&](const Closing&) {
              LetGo(found->first, channel);
              channel.state = ClosingReleased{};
            },
            [&](const Revoked&) {
              Erase(found);
              // The same device may be waiting to be offered again.
              AnnounceWaiting();
            },
            [&](const OneOf<Opening, Open, ClosingReopen> auto&) { Refuse(Error::kChannelState); },
            [](const OneOf<Waiting, Released, OpeningReleased, ClosingReleased> auto&) {
              KMCL_CHECK(!"the client does not know the channel");
            }},
      channel.state);
}

void Server::Event::LetGo(wire::ChannelId id, server::Channel& channel) {
  for (auto gpadl = channel.gpadls.begin(); gpadl != channel.gpadls.end();) {
    // One that is being torn down keeps its answer.
    if (std::holds_alternative<server::gpadl_state::Releasing>(gpadl->second.state)) {
      ++gpadl;
    } else {
      gpadl = LetGo(id, channel, gpadl);
    }
  }
}

std::size_t Server::Event::Reset(wire::ChannelId id, server::Channel& channel) {
  channel.state = std::visit(
      Match{[](const OneOf<Waiting, Released, OpeningReleased, ClosingReleased> auto& state)
                -> server::ChannelState { return state; },
            [](const Offered&) -> server::ChannelState { return Released{}; },
            [](const Opening&) -> server::ChannelState { return OpeningReleased{}; },
            [&](const Open&) -> server::ChannelState {
              actions_.push_back(server::CloseChannel{id});
              return ClosingReleased{};
            },
            [](const OneOf<Closing, ClosingReopen> auto&) -> server::ChannelState {
              return ClosingReleased{};
            },
            [](const Revoked&) -> server::ChannelState {
              KMCL_CHECK(!"a reset erases revoked channels");
              return Revoked{};
            }},
      channel.state);
  for (auto gpadl = channel.gpadls.begin(); gpadl != channel.gpadls.end();) {
    gpadl = LetGo(id, channel, gpadl);
  }
  return server::AnswersOwed(channel);
}

std::size_t server::AnswersOwed(const Channel& channel) {
  const bool channel_owes = std::holds_alternative<OpeningReleased>(channel.state) ||
                            std::holds_alternative<ClosingReleased>(channel.state);
  return (channel_owes ? 1 : 0) +
         static_cast<std::size_t>(std::ranges::count_if(channel.gpadls, [](const auto& entry) {
           return std::holds_alternative<gpadl_state::OfferedReleased>(entry.second.state) ||
                  std::holds_alternative<gpadl_state::Releasing>(entry.second.state) ||
                  std::holds_alternative<gpadl_state::ReleasingSilently>(entry.second.state);
         }));
}

}  // namespace kmcl::bus
