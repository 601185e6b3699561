#include "bus/pair_world.h"

#include <algorithm>
#include <concepts>
#include <type_traits>
#include <utility>

#include "bus/client_event.h"
#include "bus/server_snapshot.h"
#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

constexpr std::byte kUserData{0x33};

}  // namespace

void PairWorld::Require(bool holds, const char* what) {
  if (!holds && violation_.empty()) violation_ = what;
}

// ---- What can happen

bool PairWorld::at_rest() const {
  return to_server_.empty() && to_client_.empty() && owed_.empty() &&
         (!cut_ || (server_heard_ && client_heard_));
}

std::vector<PairWorld::Choice> PairWorld::Work() const {
  std::vector<Choice> work;
  if (!to_server_.empty()) work.push_back({.kind = Kind::kDeliverToServer});
  if (!to_client_.empty()) work.push_back({.kind = Kind::kDeliverToClient});
  if (cut_ && to_server_.empty() && !server_heard_) work.push_back({.kind = Kind::kServerHears});
  if (cut_ && to_client_.empty() && !client_heard_) work.push_back({.kind = Kind::kClientHears});
  // A device answers about one channel in order.
  std::set<wire::ChannelId> seen;
  for (const Debt& debt : owed_) {
    if (!seen.insert(debt.channel).second) continue;
    Choice choice{.kind = Kind::kDeviceAnswers, .channel = debt.channel, .gpadl = debt.gpadl};
    work.push_back(choice);
    if (debt.kind == Debt::Kind::kClose || debt.kind == Debt::Kind::kUnmap) continue;
    choice.detail = wire::kStatusFailure;
    work.push_back(choice);
  }
  return work;
}

std::vector<PairWorld::Choice> PairWorld::Wishes(std::uint32_t devices,
                                                 std::uint16_t subchannels) const {
  std::vector<Choice> wishes;
  for (std::uint32_t device = 0; device < devices; ++device) {
    for (std::uint32_t index = 0; index <= subchannels; ++index) {
      wishes.push_back({.kind = Kind::kOffer, .detail = device | index << 16});
    }
  }
  for (const wire::ChannelId id : offered_)
    wishes.push_back({.kind = Kind::kRevoke, .channel = id});
  if (!cut_) {
    wishes.push_back({.kind = Kind::kCut, .detail = 0});
    wishes.push_back({.kind = Kind::kCut, .detail = 1});
  }
  wishes.push_back({.kind = Kind::kConnect});
  wishes.push_back({.kind = Kind::kReconnect});
  wishes.push_back({.kind = Kind::kUnload});
  wishes.push_back({.kind = Kind::kTlConnect});
  for (const wire::ChannelId id : known_) {
    wishes.push_back({.kind = Kind::kCreateGpadl, .channel = id, .detail = 4});
    wishes.push_back({.kind = Kind::kCreateGpadl, .channel = id, .detail = 100});
    wishes.push_back({.kind = Kind::kClose, .channel = id});
    wishes.push_back({.kind = Kind::kModify, .channel = id, .detail = 1});
    wishes.push_back({.kind = Kind::kRelease, .channel = id});
    for (const auto& [gpadl, channel] : gpadls_) {
      wishes.push_back({.kind = Kind::kOpen, .channel = id, .gpadl = gpadl});
      wishes.push_back({.kind = Kind::kTeardown, .channel = id, .gpadl = gpadl});
    }
  }
  return wishes;
}

bool PairWorld::Take(const Choice& choice) {
  switch (choice.kind) {
    case Kind::kDeliverToServer: {
      const wire::MessageBytes bytes = to_server_.front();
      to_server_.erase(to_server_.begin());
      Run(server_.OnMessage(bytes));
      break;
    }
    case Kind::kDeliverToClient: {
      const wire::MessageBytes bytes = to_client_.front();
      to_client_.erase(to_client_.begin());
      Run(client_.OnMessage(bytes));
      break;
    }
    case Kind::kDeviceAnswers:
      Answer(choice);
      break;
    case Kind::kServerHears:
      server_heard_ = true;
      Run(server_.OnPeerGone());
      break;
    case Kind::kClientHears:
      client_heard_ = true;
      Run(client_.OnPeerGone());
      break;
    default:
      if (!Wish(choice)) return false;
  }
  server_.CheckInvariants();
  client_.CheckInvariants();
  return true;
}

bool PairWorld::Wish(const Choice& choice) {
  switch (choice.kind) {
    case Kind::kOffer:
      return Offer(choice);
    case Kind::kRevoke:
      return Revoke(choice);
    case Kind::kCut:
      cut_ = true;
      if (choice.detail != 0) {
        to_server_.clear();
        to_client_.clear();
      }
      return true;
    case Kind::kConnect: {
      const bool before = std::exchange(waiting_connect_, true);
      if (Try([&] { return client_.OnConnect(options_); })) return true;
      waiting_connect_ = before;
      return false;
    }
    case Kind::kReconnect:
      if (!Try([&] { return client_.OnReconnect(); })) return false;
      waiting_connect_ = true;
      waiting_unload_ = false;
      return true;
    case Kind::kUnload: {
      // V1 has no answer to wait for: Unloaded is among the actions.
      const bool before = std::exchange(waiting_unload_, true);
      if (Try([&] { return client_.OnUnload(); })) return true;
      waiting_unload_ = before;
      return false;
    }
    case Kind::kTlConnect:
      return Try([&] { return client_.OnTlConnect({}, {}, std::nullopt); });
    case Kind::kCreateGpadl:
      return CreateGpadl(choice);
    case Kind::kOpen:
      return Open(choice);
    case Kind::kTeardown:
      return Teardown(choice);
    case Kind::kClose:
      return Try([&] { return client_.OnClose(choice.channel); });
    case Kind::kModify:
      ++waiting_modifies_;
      if (Try([&] {
            return client_.OnModify(choice.channel, wire::ProcessorIndex{choice.detail});
          })) {
        return true;
      }
      --waiting_modifies_;
      return false;
    case Kind::kRelease:
      if (!Try([&] { return client_.OnReleaseChannel(choice.channel); })) return false;
      Forget(choice.channel);
      return true;
    default:
      Require(false, "a wish of no kind");
      return false;
  }
}

// ---- The device at the server

void PairWorld::Run(const ServerActions& actions) {
  for (const ServerAction& action : actions) {
    std::visit([this](const auto& a) { Do(a); }, action);
  }
}

void PairWorld::Do(const server::SendMessage& send) {
  if (!cut_) to_client_.push_back(send.bytes);
}
void PairWorld::Do(const server::VersionAgreed&) {
  Require(device_open_.empty(), "a version is agreed on while a channel is open");
  Require(mapped_.empty(), "a version is agreed on while memory is mapped");
}
void PairWorld::Do(const server::OpenChannel& open) {
  Require(!device_open_.contains(open.channel), "an open channel is to be opened");
  Require(mapped_.contains(open.ring), "a channel is to be opened with a ring that is not mapped");
  Require(open.user_data[3] == kUserData, "the opener's data has changed");
  owed_.push_back({Debt::Kind::kOpen, open.channel, open.ring});
}
void PairWorld::Do(const server::CloseChannel& close) {
  Require(device_open_.contains(close.channel), "a channel is to be closed that is not open");
  owed_.push_back({Debt::Kind::kClose, close.channel, {}});
}
void PairWorld::Do(const server::GpadlComplete& complete) {
  Require(!mapped_.contains(complete.gpadl), "memory is to be mapped twice");
  Require(complete.ranges.pages().size() == sizes_.at(complete.gpadl), "a GPADL has lost pages");
  owed_.push_back({Debt::Kind::kMap, complete.channel, complete.gpadl});
}
void PairWorld::Do(const server::ReleaseGpadl& release) {
  Require(mapped_.contains(release.gpadl), "memory is to be released that is not mapped");
  owed_.push_back({Debt::Kind::kUnmap, release.channel, release.gpadl});
}
void PairWorld::Do(const server::ModifyChannel& modify) {
  Require(device_open_.contains(modify.channel), "a channel is to be modified that is not open");
  owed_.push_back({Debt::Kind::kModify, modify.channel, {}});
}
void PairWorld::Do(const server::ChannelReleased& released) {
  Require(!device_open_.contains(released.channel), "the id of an open channel is free");
  offered_.erase(released.channel);
}
void PairWorld::Do(const server::TlConnect& connect) {
  Run(server_
          .OnTlConnectFailed(connect.endpoint_id, connect.service_id,
                             wire::kStatusConnectionRefused)
          .value());
}
void PairWorld::Do(const Refused& refused) {
  if (refused.is_crossing || !violation_.empty()) return;
  violation_ = std::string("refused: ") + ErrorName(refused.report.rule) + ", message " +
               std::to_string(refused.report.message_number);
}
void PairWorld::Do(const Broken& broken) {
  if (violation_.empty()) violation_ = std::string("broken: ") + ErrorName(broken.report.rule);
}

void PairWorld::Answer(const Choice& choice) {
  const auto oldest = std::ranges::find(owed_, choice.channel, &Debt::channel);
  if (oldest == owed_.end()) return Require(false, "an answer that is not owed");
  const Debt debt = *oldest;
  owed_.erase(oldest);
  const bool success = choice.detail == wire::kStatusSuccess;
  switch (debt.kind) {
    case Debt::Kind::kOpen:
      if (success) device_open_[debt.channel] = debt.gpadl;
      return Run(server_.OnOpenResult(debt.channel, choice.detail).value());
    case Debt::Kind::kClose:
      device_open_.erase(debt.channel);
      return Run(server_.OnCloseDone(debt.channel).value());
    case Debt::Kind::kMap:
      if (success) mapped_[debt.gpadl] = debt.channel;
      return Run(server_.OnGpadlResult(debt.channel, debt.gpadl, choice.detail).value());
    case Debt::Kind::kUnmap:
      mapped_.erase(debt.gpadl);
      return Run(server_.OnGpadlReleased(debt.channel, debt.gpadl).value());
    case Debt::Kind::kModify:
      // The channel may have been closed since.
      if (const auto result = server_.OnModifyDone(debt.channel, choice.detail)) Run(*result);
      return;
  }
}

bool PairWorld::Offer(const Choice& choice) {
  const auto index = static_cast<std::uint16_t>(choice.detail >> 16);
  const auto outcome = server_.OnOffer(Device(choice.detail & 0xFFFF, index));
  if (!outcome) return false;
  offered_.insert(outcome->channel);
  Run(outcome->actions);
  return true;
}

bool PairWorld::Revoke(const Choice& choice) {
  const bool is_revoked = ChannelStateName(server_, choice.channel) == "Revoked";
  if (!is_revoked) {
    // The device lets go of everything before it revokes.
    std::erase_if(owed_, [&](const Debt& debt) { return debt.channel == choice.channel; });
    device_open_.erase(choice.channel);
    std::erase_if(mapped_, [&](const auto& entry) { return entry.second == choice.channel; });
  }
  const auto result = server_.OnRevoke(choice.channel);
  if (!result) {
    Require(is_revoked && result.error() == Error::kChannelState, "a revoke was refused");
    return false;
  }
  Run(*result);
  return true;
}

// ---- The driver at the client

void PairWorld::Run(const ClientActions& actions) {
  for (const ClientAction& action : actions) {
    std::visit([this](const auto& a) { Do(a); }, action);
  }
}

void PairWorld::Do(const client::SendMessage& send) {
  if (!cut_) to_server_.push_back(send.bytes);
}
void PairWorld::Do(const client::Connected& connected) {
  unload_is_answered_ = wire::HasDedicatedConnections(connected.version);
  Require(std::exchange(waiting_connect_, false), "connected, and nobody asked");
  Require(mapped_.empty(), "connected while the server has memory mapped");
}
void PairWorld::Do(const client::ConnectRefused&) {
  Require(std::exchange(waiting_connect_, false), "refused, and nobody asked");
}
void PairWorld::Do(const client::OfferArrived& arrived) {
  Require(known_.insert(arrived.offer.channel).second, "an offer came twice");
}
void PairWorld::Do(const client::OfferRescinded& rescinded) {
  Require(!MemoryIsSafe() || !device_open_.contains(rescinded.channel),
          "rescinded while the device has the channel open");
}
void PairWorld::Do(const client::ChannelForgotten& forgotten) { Forget(forgotten.channel); }
void PairWorld::Do(const client::OpenResult& result) {
  Require(--waiting_opens_ >= 0, "an open was answered twice");
  ever_open_ |= result.status == wire::kStatusSuccess;
}
void PairWorld::Do(const client::GpadlResult& result) {
  Require(waiting_gpadls_.erase(result.gpadl) == 1, "a GPADL was answered twice");
  if (result.status != wire::kStatusSuccess) ComesBack(result.gpadl);
}
void PairWorld::Do(const client::GpadlTornDown& torn_down) {
  Require(waiting_teardowns_.erase(torn_down.gpadl) == 1, "a GPADL came back twice");
  ComesBack(torn_down.gpadl);
}
void PairWorld::Do(const client::ModifyResult&) {
  Require(--waiting_modifies_ >= 0, "a modification was answered twice");
}
void PairWorld::Do(const client::Unloaded&) {
  Require(std::exchange(waiting_unload_, false), "unloaded, and nobody asked");
  Require(!MemoryIsSafe() || mapped_.empty(), "unloaded while the server has memory mapped");
}

// Memory is the client's again: the device must not have it.
void PairWorld::ComesBack(wire::GpadlId gpadl) {
  gpadls_.erase(gpadl);
  Require(!MemoryIsSafe() || !mapped_.contains(gpadl), "memory came back that is still mapped");
}

void PairWorld::Forget(wire::ChannelId channel) {
  known_.erase(channel);
  std::erase_if(gpadls_, [&](const auto& entry) { return entry.second == channel; });
}

template <typename F>
bool PairWorld::Try(F wish) {
  const Client before = client_;
  auto result = wish();
  if (result) {
    Run(*result);
    return true;
  }
  Require(client_ == before, "a wish that was refused has changed the client");
  return false;
}

bool PairWorld::CreateGpadl(const Choice& choice) {
  auto outcome = client_.OnCreateGpadl(choice.channel, Pages(choice.detail));
  if (!outcome) return false;
  Require(gpadls_.emplace(outcome->gpadl, choice.channel).second, "a GPADL id in use is given out");
  sizes_[outcome->gpadl] = choice.detail;
  waiting_gpadls_.insert(outcome->gpadl);
  Run(outcome->actions);
  return true;
}

bool PairWorld::Open(const Choice& choice) {
  OpenRequest request;
  request.ring = choice.gpadl;
  request.user_data[3] = kUserData;
  if (!Try([&] { return client_.OnOpen(choice.channel, request); })) return false;
  ++waiting_opens_;
  return true;
}

bool PairWorld::Teardown(const Choice& choice) {
  // It may come back at once.
  const bool is_new = waiting_teardowns_.insert(choice.gpadl).second;
  if (Try([&] { return client_.OnTeardownGpadl(choice.channel, choice.gpadl); })) return true;
  if (is_new) waiting_teardowns_.erase(choice.gpadl);
  return false;
}

// ---- At rest

void PairWorld::CheckRest() {
  Require(waiting_opens_ == 0, "an open was never answered");
  Require(waiting_modifies_ == 0, "a modification was never answered");
  Require(waiting_gpadls_.empty(), "a GPADL was never answered");
  Require(waiting_teardowns_.empty(), "a GPADL never came back");
  Require(!waiting_connect_, "neither connected nor refused");
  Require(!waiting_unload_, "never unloaded");
  if (cut_) {
    Require(server_.finished(), "the server does not finish");
    Require(device_open_.empty(), "a channel stays open without a client");
    Require(mapped_.empty(), "memory stays mapped without a client");
  } else if (ConnectionStateName(client_) == "Delivered") {
    CheckAgreement();
  }
}

void PairWorld::CheckAgreement() {
  Require(ConnectionStateName(server_) == "Connected", "only the client is connected");
  Require(server_.agreed().version == client_.agreed().version, "two versions are agreed on");
  for (const auto& [id, channel] : ServerTestPeer::channels(server_)) {
    const std::string here = ChannelStateName(server_, id);
    const std::string there = ChannelStateName(client_, id);
    const bool same = here == "Revoked"   ? there == "Rescinded" || there == "RescindedOpen"
                      : here == "Offered" ? there == "Offered"
                      : here == "Open"    ? there == "Open"
                      : here == "Waiting"
                          ? there == "none" || there == "Rescinded" || there == "RescindedOpen"
                          : there == "none" && here == "Released";
    if (!same && violation_.empty()) {
      violation_.append("at rest the server's channel is ").append(here);
      violation_.append(", the client's ").append(there);
    }
    for (const auto& [gpadl, state] : channel.gpadls) {
      const std::string mine = GpadlStateName(server_, id, gpadl);
      const std::string yours = GpadlStateName(client_, id, gpadl);
      if (((mine == "Accepted" && yours == "Created") || mine == "Orphaned")) continue;
      if (violation_.empty()) {
        violation_.append("at rest the server's GPADL is ").append(mine);
        violation_.append(", the client's ").append(yours);
      }
    }
  }
  for (const auto& [id, channel] : ClientTestPeer::channels(client_)) {
    Require(ChannelStateName(server_, id) != "none" || client::IsRescinded(channel.state),
            "the client knows a channel that does not exist");
  }
}

// ---- In words and bytes

std::string PairWorld::Describe(const Choice& choice) {
  static constexpr std::array<const char*, kKinds> kNames = {"deliver to server",
                                                             "deliver to client",
                                                             "device answers",
                                                             "server hears of the end",
                                                             "client hears of the end",
                                                             "offer",
                                                             "revoke",
                                                             "cut the link",
                                                             "connect",
                                                             "reconnect",
                                                             "unload",
                                                             "connect by name",
                                                             "create GPADL",
                                                             "tear down",
                                                             "open",
                                                             "close",
                                                             "modify",
                                                             "release"};
  std::string text = kNames[static_cast<std::size_t>(choice.kind)];
  if (choice.channel != wire::ChannelId{}) {
    text += ", channel " + std::to_string(std::to_underlying(choice.channel));
  }
  if (choice.gpadl != wire::GpadlId{}) {
    text += ", GPADL " + std::to_string(std::to_underlying(choice.gpadl));
  }
  if (choice.detail != 0) text += ", " + std::to_string(choice.detail);
  return text;
}

namespace {

class Bytes {
 public:
  template <typename Number>
    requires std::integral<Number> || std::is_enum_v<Number>
  void Add(Number number) {
    text_.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  void Add(std::span<const std::byte> bytes) {
    Add(bytes.size());
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  template <typename... Parts>
  void operator()(const Parts&... parts) {
    (Add(parts), ...);
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

void EncodeClient(const Client& machine, Bytes& out) {
  using namespace client;
  const auto& connection = ClientTestPeer::connection(machine);
  out(connection.index(), ClientTestPeer::next_gpadl(machine), ClientTestPeer::next_open(machine));
  if (const auto* n = std::get_if<connection_state::Negotiating>(&connection)) {
    out(n->version, n->reconnect);
  } else if (const auto* c = std::get_if<connection_state::Connected>(&connection)) {
    out(c->version, c->offers_delivered);
  } else if (const auto* u = std::get_if<connection_state::Unloading>(&connection)) {
    out(u->version);
  } else if (const auto* b = std::get_if<connection_state::Broken>(&connection)) {
    out(b->was_negotiating, b->was_unloading);
  }
  const auto& channels = ClientTestPeer::channels(machine);
  out(channels.size());
  for (const auto& [id, channel] : channels) {
    out(id, channel.key.instance.data1, channel.key.subchannel_index, channel.state.index());
    if (const auto* opening = std::get_if<channel_state::Opening>(&channel.state)) {
      out(opening->open, opening->ring, opening->target_vp);
    } else if (const auto* open = std::get_if<channel_state::Open>(&channel.state)) {
      out(open->ring, open->interrupts_enabled, open->modifying);
    }
    out(channel.gpadls.size());
    for (const auto& [gpadl, state] : channel.gpadls) out(gpadl, state);
  }
}

}  // namespace

std::string PairWorld::Encode() const {
  Bytes out;
  out(std::span<const std::byte>(ServerSnapshot::Save(server_)));
  EncodeClient(client_, out);
  for (const auto* queue : {&to_server_, &to_client_}) {
    out(queue->size());
    for (const wire::MessageBytes& message : *queue) out(message.span());
  }
  out(cut_, server_heard_, client_heard_, owed_.size());
  for (const Debt& debt : owed_) out(debt.kind, debt.channel, debt.gpadl);
  out(offered_.size());
  for (const wire::ChannelId id : offered_) out(id);
  out(device_open_.size());
  for (const auto& [id, ring] : device_open_) out(id, ring);
  out(mapped_.size());
  for (const auto& [gpadl, id] : mapped_) out(gpadl, id);
  out(known_.size());
  for (const wire::ChannelId id : known_) out(id);
  out(gpadls_.size());
  for (const auto& [gpadl, id] : gpadls_) out(gpadl, id);
  for (const auto* waiting : {&waiting_gpadls_, &waiting_teardowns_}) {
    out(waiting->size());
    for (const wire::GpadlId gpadl : *waiting) out(gpadl);
  }
  out(waiting_opens_, waiting_modifies_, waiting_connect_, waiting_unload_, unload_is_answered_);
  return out.Take();
}

}  // namespace kmcl::bus
