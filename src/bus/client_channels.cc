// One channel from offer to release: offered, opened, modified, closed, rescinded.
#include <algorithm>

#include "bus/client_event.h"
#include "bus/match.h"

namespace kmcl::bus {

using namespace client::channel_state;

bool client::IsRescinded(const ChannelState& state) {
  return std::visit(Match{[](const OneOf<Offered, Opening, Open> auto&) { return false; },
                          [](const OneOf<RescindedOpen, Rescinded> auto&) { return true; }},
                    state);
}

Result<Client::Event::Channels::iterator> Client::Event::Find(wire::ChannelId id) {
  const auto channel = client_.channels_.find(id);
  if (channel != client_.channels_.end()) {
    // Only what is rescinded has nothing to do with the server any more.
    if (connected() != nullptr || client::IsRescinded(channel->second.state)) return channel;
  }
  return std::unexpected(connected() == nullptr ? Error::kNotConnected : Error::kChannelUnknown);
}

// ---- Offers

void Client::Event::On(const wire::OfferChannel& message) {
  const std::uint32_t number = std::to_underlying(message.channel_id);
  if (number < 1 || number > wire::MaximumChannelId(connected()->version)) {
    return Refuse(Error::kFieldOutOfRange);
  }
  if (client_.channels_.contains(message.channel_id)) return Refuse(Error::kOfferDuplicate);
  const OfferKey key{message.interface_id, message.instance_id, message.subchannel_index};
  const auto stands = [&](const OfferKey& wanted) {
    return std::ranges::any_of(client_.channels_, [&](const auto& entry) {
      return entry.second.key == wanted && !client::IsRescinded(entry.second.state);
    });
  };
  if (stands(key)) return Refuse(Error::kOfferDuplicate);
  if (!key.IsPrimary() && !stands(key.Primary())) return Refuse(Error::kOfferWithoutPrimary);

  client_.channels_.emplace(message.channel_id,
                            client::Channel{key, message.connection_id, Offered{}, {}});
  actions_.push_back(client::OfferArrived{
      Offer{.channel = message.channel_id,
            .parameters = {.key = key,
                           .flags = message.flags,
                           .mmio_megabytes = message.mmio_megabytes,
                           .mmio_megabytes_optional = message.mmio_megabytes_optional,
                           .user_defined = message.user_defined},
            .connection = message.connection_id,
            .dedicated_interrupt = message.has_dedicated_interrupt(),
            .monitor_allocated = message.monitor_allocated(),
            .monitor_id = message.monitor_id}});
}

void Client::Event::On(const wire::RescindChannelOffer& message) {
  const auto channel = client_.channels_.find(message.channel_id);
  if (channel == client_.channels_.end()) return Refuse(Error::kChannelUnknown);
  if (client::IsRescinded(channel->second.state)) return Refuse(Error::kChannelState);
  Rescind(channel->first, channel->second);
}

void Client::Event::Rescind(wire::ChannelId id, client::Channel& channel) {
  // The server uses nothing of the channel any more, so nobody has to wait for it to say so.
  for (auto gpadl = channel.gpadls.begin(); gpadl != channel.gpadls.end();) {
    const wire::GpadlId gpadl_id = gpadl->first;
    switch (gpadl->second) {
      case client::GpadlState::kCreating:
        actions_.push_back(client::GpadlResult{id, gpadl_id, wire::kStatusFailure});
        gpadl = Erase(channel, gpadl);
        break;
      case client::GpadlState::kTearingDown:
        actions_.push_back(client::GpadlTornDown{id, gpadl_id});
        gpadl = Erase(channel, gpadl);
        break;
      case client::GpadlState::kCreated:
        ++gpadl;
        break;
    }
  }
  const bool was_open =
      std::visit(Match{[](const Offered&) { return false; },
                       [&](const Opening&) {
                         actions_.push_back(client::OpenResult{id, wire::kStatusFailure});
                         return false;
                       },
                       [&](const Open& open) {
                         if (open.modifying)
                           actions_.push_back(client::ModifyResult{id, wire::kStatusFailure});
                         return true;
                       },
                       [](const OneOf<RescindedOpen, Rescinded> auto&) {
                         KMCL_CHECK(!"a channel is rescinded once");
                         return false;
                       }},
                 channel.state);
  if (was_open) {
    channel.state = RescindedOpen{};
  } else {
    channel.state = Rescinded{};
  }
  actions_.push_back(client::OfferRescinded{id, was_open});
}

Result<void> Client::Event::OnReleaseChannel(wire::ChannelId id) {
  const auto found = Find(id);
  if (!found) return std::unexpected(found.error());
  return std::visit(
      Match{[&](const Rescinded&) -> Result<void> {
              Erase(*found);
              Send(wire::RelIdReleased{id});
              return {};
            },
            [](const OneOf<Offered, Opening, Open, RescindedOpen> auto&) -> Result<void> {
              return std::unexpected(Error::kChannelState);
            }},
      (*found)->second.state);
}

void Client::Event::Erase(Channels::iterator channel) {
  client::Channel& erased = channel->second;
  while (!erased.gpadls.empty()) Erase(erased, erased.gpadls.begin());
  client_.channels_.erase(channel);
}

// ---- Open and close

Result<void> Client::Event::OnOpen(wire::ChannelId id, const OpenRequest& request) {
  const auto found = Find(id);
  if (!found) return std::unexpected(found.error());
  client::Channel& channel = (*found)->second;
  return std::visit(
      Match{[&](const Offered&) -> Result<void> {
              const auto ring = channel.gpadls.find(request.ring);
              if (ring == channel.gpadls.end()) return std::unexpected(Error::kGpadlUnknown);
              if (ring->second != client::GpadlState::kCreated) {
                return std::unexpected(Error::kGpadlState);
              }
              const wire::OpenId open{client_.next_open_++};
              wire::OpenChannel message;
              message.channel_id = id;
              message.open_id = open;
              message.ring_gpadl_id = request.ring;
              message.target_vp = request.target_vp;
              message.downstream_page_offset = request.downstream_page;
              message.user_data = request.user_data;
              // Sent only if we asked to choose these ourselves, and then we choose the usual.
              message.connection_id = channel.connection;
              message.event_flag = static_cast<std::uint16_t>(std::to_underlying(id));
              Send(message);
              channel.state = Opening{open, request.ring, request.target_vp};
              return {};
            },
            [](const Opening&) -> Result<void> { return std::unexpected(Error::kRequestPending); },
            [](const OneOf<Open, RescindedOpen, Rescinded> auto&) -> Result<void> {
              return std::unexpected(Error::kChannelState);
            }},
      channel.state);
}

void Client::Event::On(const wire::OpenChannelResult& message) {
  const auto found = client_.channels_.find(message.channel_id);
  if (found == client_.channels_.end()) return RefuseCrossing(Error::kChannelUnknown);
  client::Channel& channel = found->second;
  const auto* opening = std::get_if<Opening>(&channel.state);
  if (opening == nullptr || opening->open != message.open_id) {
    return RefuseCrossing(Error::kAnswerUnexpected);
  }
  if (message.status == wire::kStatusSuccess) {
    channel.state = Open{opening->ring, opening->target_vp != wire::kNoInterrupt, false};
  } else {
    channel.state = Offered{};
  }
  actions_.push_back(client::OpenResult{message.channel_id, message.status});
}

Result<void> Client::Event::OnClose(wire::ChannelId id) {
  const auto found = Find(id);
  if (!found) return std::unexpected(found.error());
  client::Channel& channel = (*found)->second;
  return std::visit(
      Match{[&](const Open& open) -> Result<void> {
              if (open.modifying)
                actions_.push_back(client::ModifyResult{id, wire::kStatusFailure});
              Send(wire::CloseChannel{id});
              channel.state = Offered{};
              return {};
            },
            [&](const RescindedOpen&) -> Result<void> {
              Send(wire::CloseChannel{id});
              channel.state = Rescinded{};
              return {};
            },
            [](const Opening&) -> Result<void> { return std::unexpected(Error::kRequestPending); },
            [](const OneOf<Offered, Rescinded> auto&) -> Result<void> {
              return std::unexpected(Error::kChannelState);
            }},
      channel.state);
}

// ---- Modify

Result<void> Client::Event::OnModify(wire::ChannelId id, wire::ProcessorIndex target_vp) {
  const auto found = Find(id);
  if (!found) return std::unexpected(found.error());
  return std::visit(
      Match{[&](Open& open) -> Result<void> {
              if (!wire::HasModifyChannel(connected()->version)) {
                return std::unexpected(Error::kMessageNotInVersion);
              }
              if (target_vp == wire::kNoInterrupt) return std::unexpected(Error::kFieldOutOfRange);
              if (!open.interrupts_enabled) return std::unexpected(Error::kChannelState);
              if (open.modifying) return std::unexpected(Error::kRequestPending);
              Send(wire::ModifyChannel{id, target_vp});
              if (wire::HasModifyChannelResponse(connected()->version)) {
                open.modifying = true;
              } else {
                actions_.push_back(client::ModifyResult{id, wire::kStatusSuccess});
              }
              return {};
            },
            [](const OneOf<Offered, Opening, RescindedOpen, Rescinded> auto&) -> Result<void> {
              return std::unexpected(Error::kChannelState);
            }},
      (*found)->second.state);
}

void Client::Event::On(const wire::ModifyChannelResponse& message) {
  const auto found = client_.channels_.find(message.channel_id);
  if (found == client_.channels_.end()) return RefuseCrossing(Error::kChannelUnknown);
  auto* open = std::get_if<Open>(&found->second.state);
  if (open == nullptr || !open->modifying) return RefuseCrossing(Error::kAnswerUnexpected);
  open->modifying = false;
  actions_.push_back(client::ModifyResult{message.channel_id, message.status});
}

}  // namespace kmcl::bus
