// GPADLs: received piece by piece, accepted, released (VMBus reference 3.5).
#include <algorithm>
#include <iterator>

#include "bus/match.h"
#include "bus/server_event.h"

namespace kmcl::bus {

using namespace server::gpadl_state;

namespace {

bool IsRevoked(const server::Channel& channel) {
  return std::holds_alternative<server::channel_state::Revoked>(channel.state);
}

// How many page numbers a header announces: every word that is not a range's own. 0 if it announces
// less than a page for each range, or something that is not words.
std::uint32_t AnnouncedPages(const wire::GpadlHeader& header) {
  const std::size_t list_bytes = wire::RangeListBytes(header);
  const auto words = static_cast<std::uint32_t>(list_bytes / 8);
  if (list_bytes % 8 != 0 || header.range_count == 0) return 0;
  const std::uint32_t pages = words > header.range_count ? words - header.range_count : 0;
  return pages >= header.range_count ? pages : 0;
}

}  // namespace

bool Server::Event::IsAccepted(const server::Channel& channel, wire::GpadlId id) {
  const auto gpadl = channel.gpadls.find(id);
  return gpadl != channel.gpadls.end() && std::holds_alternative<Accepted>(gpadl->second.state);
}

// ---- Arrival

Result<void> Server::Event::CheckHeader(const server::Channel& channel,
                                        const wire::GpadlHeader& message) const {
  const ServerLimits& limits = server_.limits_;
  const wire::GpadlId id = message.gpadl_id;
  if (id == wire::GpadlId{0}) return std::unexpected(Error::kFieldOutOfRange);
  // Bodies name no channel, so no two incomplete ones may share an id.
  if (channel.gpadls.contains(id) || server_.incomplete_.contains(id)) {
    return std::unexpected(Error::kGpadlDuplicate);
  }
  const std::uint32_t pages = AnnouncedPages(message);
  if (pages == 0) return std::unexpected(Error::kGpaRangeMalformed);
  const bool is_complete = message.range_bytes_size >= wire::RangeListBytes(message);
  if (channel.gpadls.size() >= limits.gpadls_per_channel || server_.gpadl_count_ >= limits.gpadls ||
      server_.gpadl_pages_ > limits.gpadl_pages ||
      limits.gpadl_pages - server_.gpadl_pages_ < pages ||
      (!is_complete && server_.incomplete_.size() >= limits.incomplete_gpadls)) {
    return std::unexpected(Error::kLimitExceeded);
  }
  return {};
}

void Server::Event::On(const wire::GpadlHeader& message) {
  const wire::ChannelId id = message.channel_id;
  const auto channel = FindKnown(id);
  const bool is_known = channel != server_.channels_.end();
  const Result<void> check =
      is_known ? CheckHeader(channel->second, message) : std::unexpected(Error::kChannelUnknown);
  if (!check) {
    AnswerGpadl(id, message.gpadl_id, wire::kStatusFailure);
    return Refuse(check.error());
  }
  const std::uint32_t pages = AnnouncedPages(message);
  const auto [gpadl, inserted] = channel->second.gpadls.emplace(
      message.gpadl_id,
      server::Gpadl{pages, Receiving{message.range_count, wire::RangeListBytes(message), {}}});
  KMCL_CHECK(inserted);
  server_.gpadl_pages_ += pages;
  ++server_.gpadl_count_;
  server_.incomplete_.emplace(message.gpadl_id, id);
  Receive(id, channel->second, gpadl, message.ranges());
}

void Server::Event::On(const wire::GpadlBody& message) {
  const auto owner = server_.incomplete_.find(message.gpadl_id);
  // Linux posts header and bodies without waiting, so a refused header is followed by all of
  // these; they say nothing about the client.
  if (owner == server_.incomplete_.end()) return RefuseCrossing(Error::kGpadlUnknown);
  const wire::ChannelId id = owner->second;
  const auto channel = server_.channels_.find(id);
  KMCL_CHECK(channel != server_.channels_.end());
  const auto gpadl = channel->second.gpadls.find(message.gpadl_id);
  KMCL_CHECK(gpadl != channel->second.gpadls.end());
  report_.channel = std::to_underlying(id);
  Receive(id, channel->second, gpadl, message.ranges());
}

void Server::Event::Receive(wire::ChannelId id, server::Channel& channel, Gpadls::iterator gpadl,
                            std::span<const std::byte> ranges) {
  auto& receiving = std::get<Receiving>(gpadl->second.state);
  const std::size_t missing = receiving.expected_bytes - receiving.bytes.size();
  const auto used = ranges.first(std::min(ranges.size(), missing));
  receiving.bytes.insert(receiving.bytes.end(), used.begin(), used.end());
  if (used.size() == missing) Complete(id, channel, gpadl);
}

void Server::Event::Complete(wire::ChannelId id, server::Channel& channel, Gpadls::iterator gpadl) {
  const auto& receiving = std::get<Receiving>(gpadl->second.state);
  Result<wire::GpaRangeList> ranges =
      wire::GpaRangeList::Parse(receiving.bytes, receiving.range_count);
  const wire::GpadlId gpadl_id = gpadl->first;
  if (!ranges) {
    Erase(channel, gpadl);
    AnswerGpadl(id, gpadl_id, wire::kStatusFailure);
    return Refuse(ranges.error());
  }
  server_.incomplete_.erase(gpadl_id);
  if (IsRevoked(channel)) {
    // Nobody will use it; the client is only told that its request is done.
    gpadl->second.state = Orphaned{};
    return AnswerGpadl(id, gpadl_id, wire::kStatusSuccess);
  }
  gpadl->second.state = Offered{};
  actions_.push_back(server::GpadlComplete{id, gpadl_id, std::move(*ranges)});
}

Result<void> Server::Event::OnGpadlResult(wire::ChannelId id, wire::GpadlId gpadl_id,
                                          std::uint32_t status) {
  const auto channel = server_.channels_.find(id);
  if (channel == server_.channels_.end()) return std::unexpected(Error::kChannelUnknown);
  const auto gpadl = channel->second.gpadls.find(gpadl_id);
  if (gpadl == channel->second.gpadls.end()) return std::unexpected(Error::kGpadlUnknown);
  const bool is_accepted = status == wire::kStatusSuccess;
  return std::visit(
      Match{[&](const Offered&) -> Result<void> {
              AnswerGpadl(id, gpadl_id, status);
              if (is_accepted) {
                gpadl->second.state = Accepted{};
              } else {
                Erase(channel->second, gpadl);
              }
              return {};
            },
            [&](const OfferedReleased&) -> Result<void> {
              if (is_accepted) {
                actions_.push_back(server::ReleaseGpadl{id, gpadl_id});
                gpadl->second.state = ReleasingSilently{};
              } else {
                Erase(channel->second, gpadl);
                ResetAnswered(1);
              }
              return {};
            },
            [](const OneOf<Receiving, Accepted, Releasing, ReleasingSilently, Orphaned> auto&)
                -> Result<void> { return std::unexpected(Error::kGpadlState); }},
      gpadl->second.state);
}

void Server::Event::AnswerGpadl(wire::ChannelId id, wire::GpadlId gpadl_id, std::uint32_t status) {
  Send(wire::GpadlCreated{id, gpadl_id, status});
}

// ---- Departure

void Server::Event::On(const wire::GpadlTeardown& message) {
  const auto channel = FindKnown(message.channel_id);
  if (channel == server_.channels_.end()) return Refuse(Error::kChannelUnknown);
  const auto gpadl = channel->second.gpadls.find(message.gpadl_id);
  if (gpadl == channel->second.gpadls.end()) return Refuse(Error::kGpadlUnknown);
  std::visit(Match{[&](const Accepted&) {
                     actions_.push_back(server::ReleaseGpadl{message.channel_id, message.gpadl_id});
                     gpadl->second.state = Releasing{};
                   },
                   [&](const Orphaned&) {
                     Erase(channel->second, gpadl);
                     Send(wire::GpadlTorndown{message.gpadl_id});
                   },
                   [&](const OneOf<Receiving, Offered, OfferedReleased, Releasing,
                                   ReleasingSilently> auto&) { Refuse(Error::kGpadlState); }},
             gpadl->second.state);
}

Result<void> Server::Event::OnGpadlReleased(wire::ChannelId id, wire::GpadlId gpadl_id) {
  const auto channel = server_.channels_.find(id);
  if (channel == server_.channels_.end()) return std::unexpected(Error::kChannelUnknown);
  const auto gpadl = channel->second.gpadls.find(gpadl_id);
  if (gpadl == channel->second.gpadls.end()) return std::unexpected(Error::kGpadlUnknown);
  return std::visit(
      Match{[&](const Releasing&) -> Result<void> {
              Erase(channel->second, gpadl);
              Send(wire::GpadlTorndown{gpadl_id});
              return {};
            },
            [&](const ReleasingSilently&) -> Result<void> {
              Erase(channel->second, gpadl);
              ResetAnswered(1);
              return {};
            },
            [](const OneOf<Receiving, Offered, OfferedReleased, Accepted, Orphaned> auto&)
                -> Result<void> { return std::unexpected(Error::kGpadlState); }},
      gpadl->second.state);
}

Server::Event::Gpadls::iterator Server::Event::Erase(server::Channel& channel,
                                                     Gpadls::iterator gpadl) {
  if (std::holds_alternative<Receiving>(gpadl->second.state)) {
    server_.incomplete_.erase(gpadl->first);
  }
  server_.gpadl_pages_ -= gpadl->second.page_count;
  --server_.gpadl_count_;
  return channel.gpadls.erase(gpadl);
}

Server::Event::Gpadls::iterator Server::Event::LetGo(wire::ChannelId id, server::Channel& channel,
                                                     Gpadls::iterator gpadl) {
  server::GpadlState& state = gpadl->second.state;
  return std::visit(
      Match{
          [&](const OneOf<Receiving, Orphaned> auto&) { return Erase(channel, gpadl); },
          [&](const Offered&) {
            state = OfferedReleased{};
            return std::next(gpadl);
          },
          [&](const Accepted&) {
            actions_.push_back(server::ReleaseGpadl{id, gpadl->first});
            state = ReleasingSilently{};
            return std::next(gpadl);
          },
          [&](const Releasing&) {
            state = ReleasingSilently{};
            return std::next(gpadl);
          },
          [&](const OneOf<OfferedReleased, ReleasingSilently> auto&) { return std::next(gpadl); }},
      state);
}

void Server::Event::Orphan(wire::ChannelId id, server::Channel& channel) {
  for (auto gpadl = channel.gpadls.begin(); gpadl != channel.gpadls.end();) {
    const auto current = gpadl++;
    const wire::GpadlId gpadl_id = current->first;
    std::visit(Match{[&](const Offered&) {
                       Erase(channel, current);
                       AnswerGpadl(id, gpadl_id, wire::kStatusFailure);
                     },
                     [&](const Releasing&) {
                       Erase(channel, current);
                       Send(wire::GpadlTorndown{gpadl_id});
                     },
                     [&](const Accepted&) { current->second.state = Orphaned{}; },
                     [&](const OneOf<OfferedReleased, ReleasingSilently> auto&) {
                       Erase(channel, current);
                     },
                     // Its bodies are still on their way.
                     [](const OneOf<Receiving, Orphaned> auto&) {}},
               current->second.state);
  }
}

}  // namespace kmcl::bus
