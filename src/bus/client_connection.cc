// The connection as a whole: contact, unload, reconnect, and the end.
#include <algorithm>

#include "bus/client_event.h"
#include "bus/match.h"

namespace kmcl::bus {

using namespace client::connection_state;

namespace {

// The next version to ask for, if there is one.
std::optional<wire::Version> NextLower(wire::Version version, wire::Version oldest) {
  for (const wire::Version candidate : wire::kVersionsNewestFirst) {
    if (candidate < version && candidate >= oldest) return candidate;
  }
  return std::nullopt;
}

}  // namespace

wire::Agreed Client::Event::ReadingRules() const {
  return std::visit(
      Match{[](const OneOf<Connected, Unloading> auto& state) {
              return wire::Agreed{state.version, state.features};
            },
            [](const OneOf<Idle, Negotiating, client::connection_state::Broken, Gone> auto&) {
              return wire::Agreed{};
            }},
      client_.connection_);
}

void Client::Event::OnMessage(std::span<const std::byte> bytes) {
  // Nobody listens any more.
  if (client_.broken() || std::holds_alternative<Gone>(client_.connection_)) return;

  report_ = Report{};
  report_.message_number = wire::MessageNumber(bytes).value_or(0);
  const Result<wire::ServerMessage> message = wire::ParseServerMessage(bytes, ReadingRules());
  if (!message) {
    // What the server sent before it heard that we start anew, or after our own unload.
    if (message.error() == Error::kNotConnected) return RefuseCrossing(message.error());
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
  // What the server sent before it heard that we leave.
  if (std::holds_alternative<Unloading>(client_.connection_) &&
      !std::holds_alternative<wire::UnloadComplete>(*message)) {
    return RefuseCrossing(Error::kNotConnected);
  }
  std::visit([&](const auto& m) { On(m); }, *message);
}

// ---- Connecting

Result<void> Client::Event::OnConnect(const ClientOptions& options) {
  if (!std::holds_alternative<Idle>(client_.connection_)) {
    return std::unexpected(Error::kAlreadyConnected);
  }
  if (!wire::IsKnown(options.newest) || !wire::IsKnown(options.oldest) ||
      options.newest < options.oldest) {
    return std::unexpected(Error::kVersionUnknown);
  }
  client_.options_ = options;
  Contact(options.newest, false);
  return {};
}

Result<void> Client::Event::OnReconnect() {
  return std::visit(
      Match{[&](const OneOf<Connected, Unloading> auto& state) -> Result<void> {
              Contact(state.version, true);
              return {};
            },
            [](const Negotiating&) -> Result<void> {
              return std::unexpected(Error::kRequestPending);
            },
            [](const OneOf<Idle, client::connection_state::Broken, Gone> auto&) -> Result<void> {
              return std::unexpected(Error::kNotConnected);
            }},
      client_.connection_);
}

void Client::Event::Contact(wire::Version version, bool reconnect) {
  const ClientOptions& options = client_.options_;
  wire::InitiateContact message;
  message.version = version;
  message.target_message_vp = options.target_message_vp;
  message.parent_to_child_monitor_page = options.parent_to_child_monitor_page;
  message.child_to_parent_monitor_page = options.child_to_parent_monitor_page;
  if (wire::HasMessageConnectionId(version)) {
    const wire::FeatureFlags wanted =
        wire::HasFeatureFlags(version) ? options.features : wire::FeatureFlags{};
    const std::uint8_t vtl = wire::HasTargetVtl(version) ? options.vtl : 0;
    message.target_info = wire::InitiateContact::TargetInfo(wire::kVmbusSint, vtl, wanted);
    if (wanted.Has(wire::Feature::kClientId)) message.client_id = options.client_id;
  }
  client_.connection_ = Negotiating{version, reconnect};
  actions_.push_back(client::SendMessage{wire::Encode(message, {})});
}

void Client::Event::On(const wire::VersionResponse& message) {
  const auto* negotiating = std::get_if<Negotiating>(&client_.connection_);
  if (negotiating == nullptr) return Refuse(Error::kAnswerUnexpected);
  const auto [version, reconnect] = *negotiating;
  if (message.version_supported == 0) {
    const auto next = NextLower(version, client_.options_.oldest);
    if (next && !reconnect) return Contact(*next, false);
    return ContactRefused(Error::kVersionRefused);
  }
  if (wire::HasConnectionState(version) &&
      message.connection_state != wire::ConnectionState::kSuccessful) {
    return ContactRefused(Error::kNotConnected);
  }
  // The server has let go of whatever there was before.
  ForgetAll();
  const wire::FeatureFlags features = wire::HasFeatureFlags(version)
                                          ? message.features & client_.options_.features
                                          : wire::FeatureFlags{};
  client_.connection_ = Connected{version, features, false};
  const wire::ConnectionId message_connection =
      wire::HasMessageConnectionId(version) ? wire::ConnectionId{message.connection_id_or_version}
                                            : wire::kMessageConnection;
  actions_.push_back(client::Connected{version, features, message_connection});
  Send(wire::RequestOffers{});
}

void Client::Event::ContactRefused(Error reason) {
  ForgetAll();
  client_.connection_ = Idle{};
  actions_.push_back(client::ConnectRefused{reason});
}

void Client::Event::On(const wire::AllOffersDelivered&) {
  if (connected() == nullptr || connected()->offers_delivered) {
    return Refuse(Error::kAnswerUnexpected);
  }
  connected()->offers_delivered = true;
  actions_.push_back(client::OffersDelivered{});
}

// ---- Leaving

Result<void> Client::Event::OnUnload() {
  return std::visit(
      Match{[&](const Connected& state) -> Result<void> {
              Send(wire::Unload{});
              if (wire::HasDedicatedConnections(state.version)) {
                client_.connection_ = Unloading{state.version, state.features};
              } else {
                // 0.13 has no UNLOAD_COMPLETE.
                RescindAll();
                client_.connection_ = Idle{};
                actions_.push_back(client::Unloaded{});
              }
              return {};
            },
            [](const OneOf<Negotiating, Unloading> auto&) -> Result<void> {
              return std::unexpected(Error::kRequestPending);
            },
            [](const OneOf<Idle, client::connection_state::Broken, Gone> auto&) -> Result<void> {
              return std::unexpected(Error::kNotConnected);
            }},
      client_.connection_);
}

void Client::Event::On(const wire::UnloadComplete&) {
  if (!std::holds_alternative<Unloading>(client_.connection_)) {
    return Refuse(Error::kAnswerUnexpected);
  }
  RescindAll();
  client_.connection_ = Idle{};
  actions_.push_back(client::Unloaded{});
}

void Client::Event::OnPeerGone() {
  const auto before = client_.connection_;
  if (std::holds_alternative<Gone>(before)) return;
  RescindAll();
  client_.connection_ = Gone{};
  const auto connect_refused = [&] {
    actions_.push_back(client::ConnectRefused{Error::kPeerGone});
  };
  const auto unloaded = [&] { actions_.push_back(client::Unloaded{}); };
  std::visit(
      Match{[&](const Negotiating&) { connect_refused(); }, [&](const Unloading&) { unloaded(); },
            [&](const client::connection_state::Broken& broken) {
              if (broken.was_negotiating) connect_refused();
              if (broken.was_unloading) unloaded();
            },
            [](const OneOf<Idle, Connected, Gone> auto&) {}},
      before);
}

void Client::Event::RescindAll() {
  for (auto& [id, channel] : client_.channels_) {
    if (!client::IsRescinded(channel.state)) Rescind(id, channel);
  }
}

void Client::Event::ForgetAll() {
  RescindAll();
  while (!client_.channels_.empty()) {
    const auto channel = client_.channels_.begin();
    actions_.push_back(client::ChannelForgotten{channel->first});
    Erase(channel);
  }
}

// ---- The rest of what belongs to no channel

Result<void> Client::Event::OnTlConnect(const wire::TlConnectRequest& request) {
  if (connected() == nullptr) return std::unexpected(Error::kNotConnected);
  if (!wire::HasTlConnect(connected()->version)) {
    return std::unexpected(Error::kMessageNotInVersion);
  }
  Send(request);
  return {};
}

void Client::Event::On(const wire::TlConnectResult& message) {
  // A success is an offer, and nothing besides.
  if (message.status == wire::kStatusSuccess) return Refuse(Error::kFieldOutOfRange);
  actions_.push_back(
      client::TlConnectFailed{message.endpoint_id, message.service_id, message.status});
}

// We make none of these requests.
void Client::Event::On(const wire::CloseReservedResponse&) { Refuse(Error::kAnswerUnexpected); }
void Client::Event::On(const wire::ModifyConnectionResponse&) { Refuse(Error::kAnswerUnexpected); }
void Client::Event::On(const wire::PauseResponse&) { Refuse(Error::kAnswerUnexpected); }

void Client::Event::Refuse(Error rule) {
  report_.rule = rule;
  actions_.push_back(Refused{.report = report_});
  if (++client_.refusals_ <= kMaximumRefusals) return;
  report_.rule = Error::kLimitExceeded;
  client_.connection_ = client::connection_state::Broken{
      .was_negotiating = std::holds_alternative<Negotiating>(client_.connection_),
      .was_unloading = std::holds_alternative<Unloading>(client_.connection_)};
  actions_.push_back(bus::Broken{report_});
}

void Client::Event::RefuseCrossing(Error rule) {
  report_.rule = rule;
  actions_.push_back(Refused{.report = report_, .is_crossing = true});
}

}  // namespace kmcl::bus
