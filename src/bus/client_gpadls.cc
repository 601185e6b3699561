// GPADLs: described to the server, and asked back (VMBus reference 3.5).
#include "bus/client_event.h"
#include "bus/match.h"

namespace kmcl::bus {

using namespace client::channel_state;

Result<wire::GpadlId> Client::Event::OnCreateGpadl(wire::ChannelId id,
                                                   const wire::GpaRangeList& ranges,
                                                   GpadlAccess access) {
  const auto found = Find(id);
  if (!found) return std::unexpected(found.error());
  client::Channel& channel = (*found)->second;
  if (client::IsRescinded(channel.state)) return std::unexpected(Error::kChannelState);

  const std::uint32_t bit = access == GpadlAccess::kReadOnly ? wire::kReadOnlyGpadlBit : 0;
  std::uint32_t number = client_.next_gpadl_;
  const auto is_taken = [&] {
    return number == 0 || client_.gpadl_owners_.contains(wire::GpadlId{number | bit});
  };
  while (is_taken()) number = (number + 1) & ~wire::kReadOnlyGpadlBit;
  const wire::GpadlId gpadl_id{number | bit};
  const auto messages = wire::FragmentGpadl(id, gpadl_id, ranges);
  if (!messages) return std::unexpected(messages.error());

  client_.next_gpadl_ = (number + 1) & ~wire::kReadOnlyGpadlBit;
  channel.gpadls.emplace(gpadl_id, client::GpadlState::kCreating);
  client_.gpadl_owners_.emplace(gpadl_id, id);
  Send(messages->header);
  for (const wire::GpadlBody& body : messages->bodies) Send(body);
  return gpadl_id;
}

void Client::Event::On(const wire::GpadlCreated& message) {
  const auto channel = client_.channels_.find(message.channel_id);
  if (channel == client_.channels_.end()) return RefuseCrossing(Error::kChannelUnknown);
  const auto gpadl = channel->second.gpadls.find(message.gpadl_id);
  if (gpadl == channel->second.gpadls.end()) return RefuseCrossing(Error::kGpadlUnknown);
  if (gpadl->second != client::GpadlState::kCreating) {
    return RefuseCrossing(Error::kAnswerUnexpected);
  }
  if (message.status == wire::kStatusSuccess) {
    gpadl->second = client::GpadlState::kCreated;
  } else {
    Erase(channel->second, gpadl);
  }
  actions_.push_back(client::GpadlResult{message.channel_id, message.gpadl_id, message.status});
}

Result<void> Client::Event::OnTeardownGpadl(wire::ChannelId id, wire::GpadlId gpadl_id) {
  const auto found = Find(id);
  if (!found) return std::unexpected(found.error());
  client::Channel& channel = (*found)->second;
  const auto gpadl = channel.gpadls.find(gpadl_id);
  if (gpadl == channel.gpadls.end()) return std::unexpected(Error::kGpadlUnknown);
  if (gpadl->second == client::GpadlState::kCreating) {
    return std::unexpected(Error::kRequestPending);
  }
  if (gpadl->second == client::GpadlState::kTearingDown) {
    return std::unexpected(Error::kGpadlState);
  }
  const auto ask_back = [&]() -> Result<void> {
    Send(wire::GpadlTeardown{id, gpadl_id});
    gpadl->second = client::GpadlState::kTearingDown;
    return {};
  };
  return std::visit(Match{[&](const Offered&) { return ask_back(); },
                          // The server would not let go of the ring before the channel is closed.
                          [&](const OneOf<Opening, Open> auto& in_use) -> Result<void> {
                            if (in_use.ring == gpadl_id) return std::unexpected(Error::kGpadlState);
                            return ask_back();
                          },
                          // No message: the server let go before it rescinded.
                          [&](const OneOf<RescindedOpen, Rescinded> auto&) -> Result<void> {
                            Erase(channel, gpadl);
                            actions_.push_back(client::GpadlTornDown{id, gpadl_id});
                            return {};
                          }},
                    channel.state);
}

void Client::Event::On(const wire::GpadlTorndown& message) {
  const auto owner = client_.gpadl_owners_.find(message.gpadl_id);
  if (owner == client_.gpadl_owners_.end()) return RefuseCrossing(Error::kGpadlUnknown);
  const wire::ChannelId id = owner->second;
  const auto channel = client_.channels_.find(id);
  KMCL_CHECK(channel != client_.channels_.end());
  const auto gpadl = channel->second.gpadls.find(message.gpadl_id);
  KMCL_CHECK(gpadl != channel->second.gpadls.end());
  if (gpadl->second != client::GpadlState::kTearingDown) {
    return RefuseCrossing(Error::kAnswerUnexpected);
  }
  Erase(channel->second, gpadl);
  actions_.push_back(client::GpadlTornDown{id, message.gpadl_id});
}

Client::Event::Gpadls::iterator Client::Event::Erase(client::Channel& channel,
                                                     Gpadls::iterator gpadl) {
  client_.gpadl_owners_.erase(gpadl->first);
  return channel.gpadls.erase(gpadl);
}

}  // namespace kmcl::bus
