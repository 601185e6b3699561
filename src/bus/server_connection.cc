// The connection as a whole: contact, unload, pause, and the reset behind them.
#include <algorithm>

#include "bus/match.h"
#include "bus/server_event.h"

namespace kmcl::bus {

namespace connection_state = server::connection_state;

namespace {

bool IsLegalDuringPause(const wire::ClientMessage& message) {
  return std::holds_alternative<wire::Resume>(message) ||
         std::holds_alternative<wire::Unload>(message) ||
         std::holds_alternative<wire::InitiateContact>(message);
}

// Monitor pages come in pairs, or not at all.
template <typename M>
bool HasOddMonitorPage(const M& message) {
  return (message.parent_to_child_monitor_page != 0) != (message.child_to_parent_monitor_page != 0);
}

}  // namespace

void Server::Event::OnMessage(std::span<const std::byte> bytes) {
  // Nobody answers any more.
  if (server_.broken() || server_.finished()) return;
  const auto* resetting = std::get_if<connection_state::Resetting>(&server_.connection_);
  if (resetting != nullptr &&
      std::holds_alternative<connection_state::ThenFinished>(resetting->next)) {
    return;
  }

  report_ = Report{.message_number = wire::MessageNumber(bytes).value_or(0)};
  const Result<wire::ClientMessage> message = wire::ParseClientMessage(bytes, server_.agreed());
  if (!message) {
    // Linux gives every id back when its driver goes, even after an UNLOAD.
    if (message.error() == Error::kNotConnected &&
        report_.message_number == std::to_underlying(wire::MessageType::kRelIdReleased)) {
      return;
    }
    report_.detail = static_cast<std::uint32_t>(bytes.size());
    return Refuse(message.error());
  }
  std::visit(
      [&](const auto& m) {
        if constexpr (requires { m.channel_id; })
          report_.channel = std::to_underlying(m.channel_id);
        if constexpr (requires { m.gpadl_id; }) report_.detail = std::to_underlying(m.gpadl_id);
      },
      *message);
  if (connected() != nullptr && connected()->pause && !IsLegalDuringPause(*message)) {
    return Refuse(Error::kPaused);
  }
  std::visit([&](const auto& m) { On(m); }, *message);
}

void Server::Event::OnPeerGone() {
  std::visit(Match{[&](const OneOf<connection_state::Disconnected, connection_state::Connected,
                                   connection_state::Broken> auto&) {
                     BeginReset({.next = connection_state::ThenFinished{}});
                   },
                   [&](connection_state::Resetting& resetting) {
                     resetting.next = connection_state::ThenFinished{};
                   },
                   [](const connection_state::Gone&) {}},
             server_.connection_);
}

// ---- Contact

void Server::Event::On(const wire::InitiateContact& message) {
  std::visit(Match{[&](const connection_state::Disconnected&) { Contact(message); },
                   [&](const connection_state::Connected&) {
                     actions_.push_back(server::ConnectionReset{});
                     BeginReset({.next = connection_state::ThenContact{message}});
                   },
                   // The last one wins; only that one is answered.
                   [&](connection_state::Resetting& resetting) {
                     resetting.next = connection_state::ThenContact{message};
                   },
                   [](const OneOf<connection_state::Broken, connection_state::Gone> auto&) {
                     KMCL_CHECK(!"messages are dropped at the door");
                   }},
             server_.connection_);
}

void Server::Event::Contact(const wire::InitiateContact& request) {
  server_.connection_ = connection_state::Disconnected{};
  const wire::Version version = request.version;
  const ServerLimits& limits = server_.limits_;
  const bool is_supported =
      wire::IsKnown(version) && version >= limits.oldest && version <= limits.newest &&
      (!wire::HasMessageConnectionId(version) || request.sint() == wire::kVmbusSint) &&
      (!wire::HasTargetVtl(version) || request.vtl() == limits.vtl);
  // Clients below 2.4 do not read connection_state; to them "unsupported" is the only refusal.
  const bool is_odd = HasOddMonitorPage(request);
  if (!is_supported || (is_odd && !wire::HasConnectionState(version))) {
    return SendAside(wire::VersionResponse{}, {});
  }

  wire::VersionResponse response;
  response.version_supported = 1;
  response.connection_id_or_version = wire::HasMessageConnectionId(version)
                                          ? std::to_underlying(wire::kMessageConnection)
                                          : std::to_underlying(version);
  if (is_odd) {
    response.connection_state = wire::ConnectionState::kUnknownFailure;
    return SendAside(response, {version, {}});
  }
  response.features = (request.features() & limits.features & wire::kKnownFeatures)
                          .Without(wire::Feature::kServerSpecifiedMonitorPages);
  SendAside(response, {version, response.features});
  server_.connection_ = connection_state::Connected{
      version, response.features, false, std::nullopt,
      limits.monitors != Monitors::kNone ? request.child_to_parent_monitor_page : 0};
  actions_.push_back(server::VersionAgreed{
      version, response.features,
      response.features.Has(wire::Feature::kClientId) ? request.client_id : wire::Guid{}});
}

void Server::Event::On(const wire::Unload&) {
  KMCL_CHECK(connected() != nullptr);
  const bool answered = wire::HasDedicatedConnections(connected()->version);
  actions_.push_back(server::ConnectionReset{});
  BeginReset({.next = connection_state::ThenUnloadComplete{answered}});
}

// ---- Reset

void Server::Event::BeginReset(connection_state::Resetting next) {
  // Messages still held by a pause belong to the connection that ends here.
  server_.connection_ = connection_state::Disconnected{};
  for (auto channel = server_.channels_.begin(); channel != server_.channels_.end();) {
    const auto current = channel++;
    if (std::holds_alternative<server::channel_state::Revoked>(current->second.state)) {
      Erase(current);
    } else {
      next.awaited += Reset(current->first, current->second);
    }
  }
  server_.connection_ = next;
  ResetAnswered(0);
}

void Server::Event::ResetAnswered(std::size_t answers) {
  auto* resetting = std::get_if<connection_state::Resetting>(&server_.connection_);
  if (resetting == nullptr) return;
  KMCL_CHECK(resetting->awaited >= answers);
  resetting->awaited -= answers;
  if (resetting->awaited == 0) FinishReset();
}

void Server::Event::FinishReset() {
  for (auto& [id, channel] : server_.channels_) {
    KMCL_CHECK(std::holds_alternative<server::channel_state::Released>(channel.state) ||
               std::holds_alternative<server::channel_state::Waiting>(channel.state));
    KMCL_CHECK(channel.gpadls.empty());
    channel.state = server::channel_state::Waiting{};
  }
  const auto next = std::get<connection_state::Resetting>(server_.connection_).next;
  std::visit(Match{[&](const connection_state::ThenUnloadComplete& unload) {
                     server_.connection_ = connection_state::Disconnected{};
                     if (unload.answered) SendAside(wire::UnloadComplete{}, {});
                   },
                   [&](const connection_state::ThenContact& contact) { Contact(contact.request); },
                   [&](const connection_state::ThenFinished&) {
                     server_.connection_ = connection_state::Gone{};
                     actions_.push_back(server::Finished{});
                   }},
             next);
}

// ---- Pause

void Server::Event::On(const wire::Pause&) {
  Send(wire::PauseResponse{});
  connected()->pause.emplace();
}

void Server::Event::On(const wire::Resume&) {
  if (!connected()->pause) return Refuse(Error::kNotPaused);
  for (const wire::MessageBytes& held : connected()->pause->held) {
    actions_.push_back(server::SendMessage{held});
  }
  connected()->pause.reset();
}

// ---- The rest of what belongs to no channel

void Server::Event::On(const wire::ModifyConnection& message) {
  // Without monitors there is nothing to do with the pages. With them they stay where they are.
  const bool is_refused = HasOddMonitorPage(message) || connected()->monitor_page != 0;
  Send(wire::ModifyConnectionResponse{.connection_state =
                                          is_refused ? wire::ConnectionState::kUnknownFailure
                                                     : wire::ConnectionState::kSuccessful});
  if (is_refused) Refuse(Error::kFieldOutOfRange);
}

void Server::Event::On(const wire::TlConnectRequest& message) {
  actions_.push_back(server::TlConnect{message.endpoint_id, message.service_id, message.silo_id});
}

Result<void> Server::Event::OnTlConnectFailed(const wire::TlConnectResult& result) {
  if (connected() == nullptr) return std::unexpected(Error::kNotConnected);
  if (wire::HasTlConnectResult(connected()->version)) Send(result);
  return {};
}

// ---- Sending and refusing

void Server::Event::SendBytes(const wire::MessageBytes& bytes) {
  if (connected()->pause) {
    connected()->pause->held.push_back(bytes);
  } else {
    actions_.push_back(server::SendMessage{bytes});
  }
}

void Server::Event::Refuse(Error rule) {
  report_.rule = rule;
  actions_.push_back(Refused{.report = report_});
  const auto limit = server_.limits_.refusals;
  if (!limit || ++server_.refusals_ <= *limit) return;
  report_.rule = Error::kLimitExceeded;
  server_.connection_ = connection_state::Broken{};
  actions_.push_back(Broken{report_});
}

void Server::Event::RefuseCrossing(Error rule) {
  report_.rule = rule;
  actions_.push_back(Refused{.report = report_, .is_crossing = true});
}

}  // namespace kmcl::bus
