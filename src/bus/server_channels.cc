// One channel between offer and revoke: open, close, modify.
#include "bus/match.h"
#include "bus/server_event.h"

namespace kmcl::bus {

using namespace server::channel_state;

// ---- Open

void Server::Event::On(const wire::OpenChannel& message) {
  const auto found = FindKnown(message.channel_id);
  if (found == server_.channels_.end()) return Refuse(Error::kChannelUnknown);
  server::Channel& channel = found->second;
  const bool has_ring = IsAccepted(channel, message.ring_gpadl_id);
  report_.detail = std::to_underlying(message.ring_gpadl_id);
  const auto refuse_ring = [&] {
    AnswerOpen(message.channel_id, message.open_id, wire::kStatusFailure);
    Refuse(Error::kGpadlState);
  };
  std::visit(
      Match{[&](const Offered&) {
              if (!has_ring) return refuse_ring();
              AskToOpen(channel, message);
            },
            [&](const Closing&) {
              if (!has_ring) return refuse_ring();
              channel.state = ClosingReopen{message};
            },
            // Its waiter was woken by the rescind, which crossed the request.
            [](const Revoked&) {},
            [&](const OneOf<Opening, Open, ClosingReopen> auto&) { Refuse(Error::kChannelState); },
            [](const OneOf<Waiting, Released, OpeningReleased, ClosingReleased> auto&) {
              KMCL_CHECK(!"the client does not know the channel");
            }},
      channel.state);
}

void Server::Event::AskToOpen(server::Channel& channel, const wire::OpenChannel& request) {
  const wire::FeatureFlags features = connected()->features;
  server::OpenChannel action{
      .channel = request.channel_id,
      .open = request.open_id,
      .ring = request.ring_gpadl_id,
      .downstream_page = request.downstream_page_offset,
      .target_vp = request.target_vp,
      .user_data = request.user_data,
      .signal = std::nullopt,
      .redirect_interrupt = (request.flags & wire::kOpenRedirectInterrupt) != 0};
  if (features.Has(wire::Feature::kGuestSpecifiedSignalParameters)) {
    action.signal = server::OpenChannel::Signal{request.connection_id, request.event_flag};
  }
  actions_.push_back(action);
  channel.state = Opening{request.open_id, request.target_vp};
}

void Server::Event::AnswerOpen(wire::ChannelId id, wire::OpenId open, std::uint32_t status) {
  Send(wire::OpenChannelResult{id, open, status});
}

Result<void> Server::Event::OnOpenResult(wire::ChannelId id, std::uint32_t status) {
  const auto found = server_.channels_.find(id);
  if (found == server_.channels_.end()) return std::unexpected(Error::kChannelUnknown);
  server::Channel& channel = found->second;
  const bool is_open = status == wire::kStatusSuccess;
  return std::visit(
      Match{[&](const Opening& opening) -> Result<void> {
              AnswerOpen(id, opening.open, status);
              if (is_open) {
                channel.state = Open{opening.target_vp != wire::kNoInterrupt, std::nullopt};
              } else {
                channel.state = Offered{};
              }
              return {};
            },
            [&](const OpeningReleased&) -> Result<void> {
              if (is_open) {
                actions_.push_back(server::CloseChannel{id});
                channel.state = ClosingReleased{};
              } else {
                channel.state = Released{};
                ResetAnswered(1);
              }
              return {};
            },
            [](const OneOf<Waiting, Released, Offered, Open, Closing, ClosingReopen,
                           ClosingReleased, Revoked> auto&) -> Result<void> {
              return std::unexpected(Error::kChannelState);
            }},
      channel.state);
}

void Server::Event::On(const wire::OpenReservedChannel& message) {
  // Channels that survive a disconnect are not offered over this bus. The request has no id of its
  // own to answer with.
  if (FindKnown(message.channel_id) != server_.channels_.end()) {
    AnswerOpen(message.channel_id, wire::OpenId{0}, wire::kStatusFailure);
  }
  Refuse(Error::kChannelState);
}

// ---- Close

void Server::Event::On(const wire::CloseChannel& message) {
  const auto found = FindKnown(message.channel_id);
  if (found == server_.channels_.end()) return Refuse(Error::kChannelUnknown);
  server::Channel& channel = found->second;
  std::visit(Match{[&](const Open& open) {
                     if (open.modification) AnswerModify(message.channel_id, wire::kStatusFailure);
                     actions_.push_back(server::CloseChannel{message.channel_id});
                     channel.state = Closing{};
                   },
                   // It crossed the rescind.
                   [](const Revoked&) {},
                   [&](const OneOf<Offered, Opening, Closing, ClosingReopen> auto&) {
                     Refuse(Error::kChannelState);
                   },
                   [](const OneOf<Waiting, Released, OpeningReleased, ClosingReleased> auto&) {
                     KMCL_CHECK(!"the client does not know the channel");
                   }},
             channel.state);
}

Result<void> Server::Event::OnCloseDone(wire::ChannelId id) {
  const auto found = server_.channels_.find(id);
  if (found == server_.channels_.end()) return std::unexpected(Error::kChannelUnknown);
  server::Channel& channel = found->second;
  return std::visit(
      Match{
          [&](const Closing&) -> Result<void> {
            channel.state = Offered{};
            return {};
          },
          [&](const ClosingReopen& reopen) -> Result<void> {
            const wire::OpenChannel request = reopen.request;
            // The ring may have been torn down since. And without a connection nobody wants it
            // open.
            if (connected() != nullptr && IsAccepted(channel, request.ring_gpadl_id)) {
              AskToOpen(channel, request);
            } else {
              AnswerOpen(id, request.open_id, wire::kStatusFailure);
              channel.state = Offered{};
            }
            return {};
          },
          [&](const ClosingReleased&) -> Result<void> {
            channel.state = Released{};
            ResetAnswered(1);
            return {};
          },
          [](const OneOf<Waiting, Released, Offered, Opening, OpeningReleased, Open, Revoked> auto&)
              -> Result<void> { return std::unexpected(Error::kChannelState); }},
      channel.state);
}

void Server::Event::On(const wire::CloseReservedChannel& message) {
  // Never open, so closed: a debugger's client must not hang. Legal without a connection too.
  if (!server_.channels_.contains(message.channel_id)) return Refuse(Error::kChannelUnknown);
  SendAside(wire::CloseReservedResponse{message.channel_id}, server_.agreed());
}

// ---- Modify

void Server::Event::On(const wire::ModifyChannel& message) {
  const auto refuse = [&](Error rule) {
    AnswerModify(message.channel_id, wire::kStatusFailure);
    Refuse(rule);
  };
  const auto found = FindKnown(message.channel_id);
  if (found == server_.channels_.end()) return refuse(Error::kChannelUnknown);
  std::visit(
      Match{[&](Open& open) {
              if (message.target_vp == wire::kNoInterrupt) return refuse(Error::kFieldOutOfRange);
              if (!open.interrupts_enabled) return refuse(Error::kChannelState);
              if (!open.modification) {
                open.modification.emplace();
                actions_.push_back(server::ModifyChannel{message.channel_id, message.target_vp});
              } else if (Has(wire::HasModifyChannelResponse)) {
                // An answer would be taken for that of the first request.
                Refuse(Error::kRequestPending);
              } else {
                open.modification->next = message.target_vp;
              }
            },
            // It crossed the rescind, but no rescind wakes its waiter.
            [&](const Revoked&) { AnswerModify(message.channel_id, wire::kStatusFailure); },
            [&](const OneOf<Offered, Opening, Closing, ClosingReopen> auto&) {
              refuse(Error::kChannelState);
            },
            [](const OneOf<Waiting, Released, OpeningReleased, ClosingReleased> auto&) {
              KMCL_CHECK(!"the client does not know the channel");
            }},
      found->second.state);
}

void Server::Event::AnswerModify(wire::ChannelId id, std::uint32_t status) {
  if (Has(wire::HasModifyChannelResponse)) Send(wire::ModifyChannelResponse{id, status});
}

Result<void> Server::Event::OnModifyDone(wire::ChannelId id, std::uint32_t status) {
  const auto found = server_.channels_.find(id);
  if (found == server_.channels_.end()) return std::unexpected(Error::kChannelUnknown);
  auto* open = std::get_if<Open>(&found->second.state);
  if (open == nullptr || !open->modification) return std::unexpected(Error::kChannelState);
  AnswerModify(id, status);
  if (const auto next = open->modification->next) {
    open->modification->next.reset();
    actions_.push_back(server::ModifyChannel{id, *next});
  } else {
    open->modification.reset();
  }
  return {};
}

}  // namespace kmcl::bus
