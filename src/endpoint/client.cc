#include "endpoint/client.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "log.h"
#include "wire/messages.h"

namespace kmcl::endpoint {
namespace {

// How long a leaving client waits for the server's word that it uses nothing any more. A server
// that is alive answers at once; one that is stopped shall not hold us.
constexpr auto kUnloadTime = std::chrono::seconds(2);

unsigned Number(wire::ChannelId id) { return static_cast<unsigned>(id); }

bool Matches(const ClientChannel::Setup& wanted, const bus::Offer& offer) {
  const bus::OfferKey& key = offer.parameters.key;
  return key.IsPrimary() && key.interface_type == *wanted.interface_type &&
         (!wanted.instance || key.instance == *wanted.instance);
}

}  // namespace

// ---- From the beginning to the end.

Result<std::unique_ptr<Client>> Client::Connect(const ClientOptions& options) {
  std::unique_ptr<Client> client(new Client(options));
  if (auto started = client->Start(); !started) return std::unexpected(started.error());
  if (auto offers = client->AwaitOffers(); !offers) return std::unexpected(offers.error());
  return client;
}

Result<void> Client::Start() {
  auto link = transport::Dial(options_.address, {.bell_count = options_.dispatch_threads,
                                                 .maximum_memory_bytes = options_.maximum_memory});
  if (!link) return std::unexpected(link.error());
  link_ = std::move(*link);
  auto pool = PassivePool::Create();
  if (!pool) return std::unexpected(pool.error());
  pool_ = std::move(*pool);
  for (std::uint32_t index = 0; index < options_.dispatch_threads; ++index) {
    auto dispatcher = Dispatcher::Create(OptionsOf(options_, index));
    if (!dispatcher) return std::unexpected(dispatcher.error());
    dispatchers_.push_back(std::move(*dispatcher));
    if (auto added = dispatchers_.back()->AddInbox(link_, index); !added) return added;
  }
  auto bus = BusThread::Create();
  if (!bus) return std::unexpected(bus.error());
  bus_ = std::move(*bus);

  const auto monitor_pages = MakeMonitorPages();
  if (!monitor_pages) return std::unexpected(monitor_pages.error());

  Result<void> result;
  bus_->Call([&] {
    port_ = std::make_unique<MessagePort>(
        *bus_, link_,
        MessagePort::Events{
            .on_ready = [] {},
            .on_message =
                [this](std::span<const std::byte> message) { Apply(machine_.OnMessage(message)); },
            .on_gone = [this] { OnGone(); }});
    result = port_->Open();
    if (!result) return;
    bus::ClientOptions wanted;
    wanted.newest = options_.newest;
    wanted.parent_to_child_monitor_page = std::to_underlying(*monitor_pages) * wire::kPageBytes;
    wanted.child_to_parent_monitor_page =
        (std::to_underlying(*monitor_pages) + 1) * wire::kPageBytes;
    auto actions = machine_.OnConnect(wanted);
    if (!actions) {
      result = std::unexpected(actions.error());
      return;
    }
    Apply(*actions);
  });
  return result;
}

Result<wire::PageNumber> Client::MakeMonitorPages() {
  const auto pages = link_->AllocatePages(2);
  if (!pages) return std::unexpected(pages.error());
  const wire::PageNumber ours{std::to_underlying(pages->first) + 1};
  auto mapping = link_->Map({&ours, 1});
  if (!mapping) return std::unexpected(mapping.error());
  monitor_page_ = std::make_shared<MonitorPage>(std::move(*mapping));
  return pages->first;
}

Result<void> Client::AwaitOffers() {
  const auto deadline = std::chrono::steady_clock::now() + options_.connect_time;
  MutexLock lock(mutex_);
  while (!connect_result_) {
    if (!changed_.WaitUntil(mutex_, deadline)) {
      Log(LogLevel::kWarning, "the server accepted the connection, but does not answer on it");
      return std::unexpected(Error::kNotConnected);
    }
  }
  return *connect_result_;
}

void Client::SettleConnect(Result<void> result) {
  MutexLock lock(mutex_);
  if (connect_result_) return;
  connect_result_ = result;
  changed_.NotifyAll();
}

Client::~Client() {
  if (bus_ != nullptr) {
    DisableLeftovers();
    Leave();
    bus_->Call([this] {
      OnGone();
      port_.reset();
    });
  }
  pool_.reset();
  for (std::uint32_t index = 0; index < dispatchers_.size(); ++index) {
    dispatchers_[index]->RemoveInbox(*link_, index);
  }
  dispatchers_.clear();
  bus_.reset();
}

void Client::Leave() {
  bool asked = false;
  bus_->Call([&] {
    if (gone_) return;
    auto actions = machine_.OnUnload();
    if (!actions) return;
    asked = true;
    Apply(*actions);
  });
  if (!asked) return;
  const auto deadline = std::chrono::steady_clock::now() + kUnloadTime;
  MutexLock lock(mutex_);
  while (!unloaded_ && is_connected()) {
    if (!changed_.WaitUntil(mutex_, deadline)) {
      Log(LogLevel::kWarning, "the server does not answer our leaving; leaving anyway");
      return;
    }
  }
}

void Client::DisableLeftovers() {
  std::list<std::weak_ptr<ClientChannel>> made;
  {
    MutexLock lock(mutex_);
    made.swap(made_);
  }
  for (const auto& each : made) {
    const auto channel = each.lock();
    if (channel == nullptr || channel->is_retired()) continue;
    Log(LogLevel::kError, "a client is destroyed before one of its channels was cleaned up");
    channel->engine().Disable();
    channel->Orphan();
  }
}

std::shared_ptr<ClientChannel> Client::MakeChannel(channel::Handler& handler) {
  auto channel = std::make_shared<ClientChannel>(*this, handler, *pool_);
  MutexLock lock(mutex_);
  made_.remove_if([](const std::weak_ptr<ClientChannel>& each) { return each.expired(); });
  made_.push_back(channel);
  return channel;
}

std::vector<OfferView> Client::Offers() {
  std::vector<OfferView> offers;
  bus_->Call([&] {
    for (const auto& [id, standing] : offers_) {
      if (standing.rescinded) continue;
      offers.push_back({.offer = standing.offer, .in_use = standing.bound != nullptr});
    }
  });
  return offers;
}

// ---- What channels want.

Result<void> Client::Add(const std::shared_ptr<ClientChannel>& channel) {
  Result<void> result;
  bus_->Call([&] {
    if (gone_) {
      result = std::unexpected(Error::kNoBus);
      return;
    }
    channel->stage_ = ClientChannel::Stage::kWaiting;
    channel->release_wanted_ = false;
    channel->SetOffBus(false);
    waiting_.push_back(channel);
    // The caller still has to hear of this success; the open begins behind it.
    bus_->Post([this] { BindWaiting(); });
  });
  return result;
}

// A sub-channel opens after its primary, also as the driver sees it.
void Client::SayOpened(ClientChannel& channel) {
  bus_->Call([&] {
    channel.has_opened_ = true;
    BindWaiting();
  });
}

void Client::SayClose(ClientChannel& channel) {
  bus_->Call([&] {
    if (channel.stage_ != ClientChannel::Stage::kOpen || channel.close_said_) return;
    channel.close_said_ = true;
    if (auto actions = machine_.OnClose(*channel.id_)) Apply(*actions);
  });
}

Result<std::uint16_t> Client::SetLatency(ClientChannel& channel, std::uint16_t latency) {
  Result<std::uint16_t> before;
  bus_->Call([&] {
    if (channel.stage_ != ClientChannel::Stage::kOpen) {
      before = std::unexpected(Error::kChannelState);
      return;
    }
    before = std::exchange(channel.latency_, latency);
    // A channel without a monitor rings at once, which is within any latency.
    if (channel.monitor_ && *before != latency) {
      channel.bell_->UseMonitor(channel.monitor_, latency);
    }
  });
  return before;
}

void Client::Release(ClientChannel& channel) {
  bus_->Call([&] {
    channel.release_wanted_ = true;
    Continue(channel);
  });
}

// ---- On the bus thread.

void Client::OnGone() {
  if (std::exchange(gone_, true)) return;
  if (port_ != nullptr) port_->Close();
  Apply(machine_.OnPeerGone());
  SettleConnect(std::unexpected(Error::kPeerGone));
  connected_.store(false, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  changed_.NotifyAll();
}

void Client::Apply(const bus::ClientActions& actions) {
  actions_.insert(actions_.end(), actions.begin(), actions.end());
  if (std::exchange(applying_, true)) return;
  while (!actions_.empty() || !failed_.empty()) {
    if (actions_.empty()) {
      const FailedOpen failed = std::move(failed_.back());
      failed_.pop_back();
      if (failed.channel->id_) FailOpen(*failed.channel, failed.error);
      continue;
    }
    bus::ClientAction action = actions_.front();
    actions_.pop_front();
    std::visit([this](auto& each) { Do(each); }, action);
  }
  applying_ = false;
}

ClientChannel* Client::BoundTo(wire::ChannelId id) {
  const auto found = offers_.find(id);
  return found == offers_.end() ? nullptr : found->second.bound.get();
}

void Client::BindWaiting() {
  if (gone_) return;
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    const auto offer = FindOffer(**next);
    if (offer == offers_.end()) {
      ++next;
      continue;
    }
    const auto channel = *next;
    next = waiting_.erase(next);
    Bind(offer->second, channel);
  }
}

std::map<wire::ChannelId, Client::StandingOffer>::iterator Client::FindOffer(
    const ClientChannel& channel) {
  const auto is_free = [](const StandingOffer& each) {
    return !each.rescinded && each.bound == nullptr;
  };
  if (!channel.is_subchannel()) {
    return std::ranges::find_if(offers_, [&](const auto& each) {
      return is_free(each.second) && Matches(channel.setup_, each.second.offer);
    });
  }
  const auto& primary = static_cast<const ClientChannel&>(*channel.primary());
  auto lowest = offers_.end();
  if (primary.stage_ != ClientChannel::Stage::kOpen || !primary.has_opened_ || primary.leaving_) {
    return lowest;
  }
  const bus::OfferKey wanted = offers_.at(*primary.id_).offer.parameters.key;
  for (auto each = offers_.begin(); each != offers_.end(); ++each) {
    const bus::OfferKey& key = each->second.offer.parameters.key;
    if (!is_free(each->second) || key.IsPrimary() || key.Primary() != wanted) continue;
    if (lowest == offers_.end() ||
        key.subchannel_index < lowest->second.offer.parameters.key.subchannel_index) {
      lowest = each;
    }
  }
  return lowest;
}

bool Client::IsPrimaryLeaving(const ClientChannel& channel) {
  return channel.is_subchannel() && static_cast<const ClientChannel&>(*channel.primary()).leaving_;
}

void Client::CloseSubchannels(ClientChannel& primary) {
  bus_->Call([&] {
    primary.leaving_ = true;
    for (auto sub = primary.SubchannelAfter(0); sub != nullptr;
         sub = primary.SubchannelAfter(sub->subchannel_index())) {
      // One that is on its way there finds out when its answer comes.
      auto& channel = static_cast<ClientChannel&>(*sub);
      if (channel.stage_ == ClientChannel::Stage::kOpen) channel.engine().OnClose();
    }
  });
}

void Client::Bind(StandingOffer& standing, const std::shared_ptr<ClientChannel>& channel) {
  standing.bound = channel;
  channel->id_ = standing.offer.channel;
  channel->close_said_ = false;
  channel->has_opened_ = false;
  channel->leaving_ = false;
  channel->SetBinding({.instance = standing.offer.parameters.key.instance,
                       .mmio_megabytes = standing.offer.parameters.mmio_megabytes,
                       .bound = true});
  // A pipe and a channel that is none would not understand each other (KMCL reference 12.56). Where
  // offers come without flags the driver has to know.
  const bool offered_as_pipe = (standing.offer.parameters.flags & wire::kOfferNamedPipeMode) != 0;
  Result<void> described = std::unexpected(Error::kNotConfigured);
  if (offered_as_pipe == channel->engine().config().pipe || !link_->shows_offer_flags()) {
    described = DescribeRings(*channel);
  }
  if (!described) FailOpen(*channel, described.error());
}

Result<void> Client::DescribeRings(ClientChannel& channel) {
  const auto& config = channel.engine().config();
  const std::uint32_t outgoing = channel::RingPages(config, channel.setup_.outgoing_pages);
  const std::uint32_t incoming = channel::RingPages(config, channel.setup_.incoming_pages);
  auto rings = link_->MakeRings(*channel.id_, outgoing, incoming);
  if (!rings) return std::unexpected(rings.error());
  channel.pages_ = rings->run;
  channel.downstream_page_ = rings->downstream_page;
  channel.rings_ = std::move(rings->mapping);
  channel.rings_in_use_ = rings->in_use;
  auto ranges = wire::GpaRangeList::OfPages(channel.pages_.first, channel.pages_.count);
  if (!ranges) return std::unexpected(ranges.error());
  auto created = machine_.OnCreateGpadl(*channel.id_, *ranges);
  if (!created) return std::unexpected(created.error());
  channel.ring_gpadl_ = created->gpadl;
  channel.stage_ = ClientChannel::Stage::kDescribing;
  Apply(created->actions);
  return {};
}

void Client::Do(bus::client::GpadlResult& action) {
  ClientChannel* const channel = BoundTo(action.channel);
  if (channel == nullptr) return;
  if (channel->ring_gpadl_ != action.gpadl) return OnDriverGpadlResult(*channel, action);
  if (channel->stage_ != ClientChannel::Stage::kDescribing) return;
  auto opened = action.status == wire::kStatusSuccess
                    ? OpenChannel(*channel)
                    : Result<void>(std::unexpected(Error::kDeviceRemoved));
  if (action.status != wire::kStatusSuccess) channel->ring_gpadl_.reset();
  if (!opened) failed_.push_back({offers_.at(action.channel).bound, opened.error()});
}

// The control pages are ready, and bells have somewhere to go, before the server hears of the
// rings.
Result<void> Client::OpenChannel(ClientChannel& channel) {
  if (channel.release_wanted_ || IsPrimaryLeaving(channel)) {
    return std::unexpected(Error::kDeviceRemoved);
  }
  channel.bell_ = std::make_shared<SwitchedBell>(link_, *channel.id_);
  channel.latency_ = 0;
  channel.monitor_ = {};
  const bus::Offer& offer = offers_.at(*channel.id_).offer;
  if (offer.monitor_allocated && offer.monitor_id < wire::kMonitorCount) {
    channel.monitor_ = {.page = monitor_page_, .id = offer.monitor_id};
  }
  const auto server_inbox =
      wire::ProcessorIndex{static_cast<std::uint32_t>(*channel.id_) % link_->bell_count()};
  if (auto target = channel.bell_->Switch(server_inbox); !target) return target;
  if (auto attached =
          channel.engine().AttachRings(channel.rings_,
                                       channel.rings_in_use_ ? channel::Channel::RingOrigin::kPeers
                                                             : channel::Channel::RingOrigin::kOurs,
                                       channel.bell_);
      !attached) {
    return attached;
  }
  const std::uint32_t processor =
      channel.setup_.processor ? *channel.setup_.processor : next_processor_++ % processor_count();
  channel.BeginDispatch(*dispatchers_[processor], link_, processor, *channel.id_);
  channel.stage_ = ClientChannel::Stage::kOpening;
  auto actions = machine_.OnOpen(*channel.id_, {.ring = *channel.ring_gpadl_,
                                                .downstream_page = channel.downstream_page_,
                                                .target_vp = wire::ProcessorIndex{processor}});
  if (!actions) return std::unexpected(actions.error());
  Apply(*actions);
  return {};
}

void Client::Do(bus::client::OpenResult& action) {
  ClientChannel* const channel = BoundTo(action.channel);
  if (channel == nullptr || channel->stage_ != ClientChannel::Stage::kOpening) return;
  if (action.status != wire::kStatusSuccess) {
    Log(LogLevel::kInfo, "the server refuses to open channel %u: status 0x%08x",
        Number(action.channel), action.status);
    failed_.push_back({offers_.at(action.channel).bound, Error::kDeviceRemoved});
    return;
  }
  channel->stage_ = ClientChannel::Stage::kOpen;
  if (channel->release_wanted_ || IsPrimaryLeaving(*channel)) {
    // Disabled, or left by its primary, while the server was being asked; the engine has not heard
    // of it.
    channel->wait_again_ = !channel->release_wanted_;
    channel->engine().DetachRings();
    channel->EndDispatch();
    TearDown(*channel);
    return;
  }
  channel->engine().OnOpen();
}

void Client::FailOpen(ClientChannel& channel, Error error) {
  if (channel.stage_ == ClientChannel::Stage::kOpening) {
    channel.engine().DetachRings();
    channel.EndDispatch();
  }
  // A rescinded offer is not a failure: the next one may come (C10). A lost connection is.
  // Nor is it the sub-channel's if its primary leaves.
  const bool rescinded = offers_.at(*channel.id_).rescinded;
  channel.wait_again_ = (rescinded || IsPrimaryLeaving(channel)) && !gone_;
  channel.close_said_ = true;  // the server does not have it open
  TearDown(channel);
  if (!channel.wait_again_ && !channel.release_wanted_) {
    channel.engine().OnConnectFailed(gone_ ? Error::kPeerGone : error);
  }
}

// Takes the next step of a channel that is to leave the bus.
void Client::Continue(ClientChannel& channel) {
  switch (channel.stage_) {
    case ClientChannel::Stage::kNone:
      channel.SetOffBus(true);
      return;
    case ClientChannel::Stage::kWaiting:
      waiting_.remove_if([&](const auto& each) { return each.get() == &channel; });
      channel.stage_ = ClientChannel::Stage::kNone;
      channel.SetOffBus(true);
      return;
    case ClientChannel::Stage::kDescribing:
    case ClientChannel::Stage::kOpening:
    case ClientChannel::Stage::kTearingDown:
      return;  // the answer is on its way
    case ClientChannel::Stage::kOpen:
      TearDown(channel);
      return;
  }
}

void Client::TearDown(ClientChannel& channel) {
  const wire::ChannelId id = *channel.id_;
  if (!std::exchange(channel.close_said_, true)) {
    if (auto actions = machine_.OnClose(id)) Apply(*actions);
  }
  if (channel.monitor_ && std::exchange(channel.latency_, 0) != 0) {
    channel.monitor_.page->SetLatency(channel.monitor_.id, 0);
  }
  channel.rings_ = {};
  channel.bell_.reset();
  channel.stage_ = ClientChannel::Stage::kTearingDown;
  bus::ClientActions actions;
  TakeBackLeftovers(channel, actions);
  if (channel.ring_gpadl_) {
    if (auto more = machine_.OnTeardownGpadl(id, *channel.ring_gpadl_)) {
      std::ranges::move(*more, std::back_inserter(actions));
    } else {
      channel.ring_gpadl_.reset();  // nobody knows of it any more
    }
  }
  Apply(actions);         // GpadlTornDown goes on, now or later
  UnbindIfDone(channel);  // nothing was described
}

void Client::Do(bus::client::GpadlTornDown& action) {
  ClientChannel* const channel = BoundTo(action.channel);
  if (channel == nullptr) return;
  if (channel->ring_gpadl_ == action.gpadl) {
    channel->ring_gpadl_.reset();
  } else {
    channel->ForgetGpadl(action.gpadl);
  }
  UnbindIfDone(*channel);
}

void Client::Unbind(ClientChannel& channel) {
  const wire::ChannelId id = *std::exchange(channel.id_, std::nullopt);
  channel.SetUnbound();
  channel.ring_gpadl_.reset();
  if (channel.pages_.count != 0) link_->FreePages(std::exchange(channel.pages_, {}));
  const auto found = offers_.find(id);
  KMCL_CHECK(found != offers_.end());
  const auto kept = std::exchange(found->second.bound, nullptr);
  if (found->second.rescinded) {
    offers_.erase(found);
    if (auto actions = machine_.OnReleaseChannel(id)) Apply(*actions);
  }
  if (std::exchange(channel.wait_again_, false) && !channel.release_wanted_) {
    channel.stage_ = ClientChannel::Stage::kWaiting;
    waiting_.push_back(kept);
  } else {
    channel.stage_ = ClientChannel::Stage::kNone;
    channel.SetOffBus(true);
  }
  // The offer may be for somebody else now.
  bus_->Post([this] { BindWaiting(); });
}

void Client::Do(bus::client::SendMessage& action) {
  if (port_ != nullptr) port_->Send(action.bytes);
}

void Client::Do(bus::client::Connected& action) {
  version_.store(static_cast<std::uint32_t>(action.version), std::memory_order_relaxed);
  connected_.store(true, std::memory_order_relaxed);
}

void Client::Do(bus::client::ConnectRefused& action) {
  SettleConnect(std::unexpected(action.reason));
}

void Client::Do(bus::client::OfferArrived& action) {
  offers_[action.offer.channel] = {.offer = action.offer, .bound = nullptr, .rescinded = false};
  BindWaiting();
}

void Client::Do(bus::client::OffersDelivered&) { SettleConnect({}); }

void Client::Do(bus::client::OfferRescinded& action) {
  const auto found = offers_.find(action.channel);
  if (found == offers_.end()) return;
  found->second.rescinded = true;
  ClientChannel* const channel = found->second.bound.get();
  if (channel == nullptr) {
    offers_.erase(found);
    if (auto actions = machine_.OnReleaseChannel(action.channel)) Apply(*actions);
    return;
  }
  if (channel->stage_ == ClientChannel::Stage::kOpen) channel->engine().OnClose();
}

void Client::Do(bus::client::ChannelForgotten&) {}
void Client::Do(bus::client::ModifyResult&) {}

void Client::Do(bus::client::TlConnectFailed& action) {
  if (refused_handler_) refused_handler_(action);
}

Result<void> Client::RequestConnect(const wire::Guid& endpoint, const wire::Guid& service,
                                    const wire::Guid& silo) {
  Result<void> outcome;
  bus_->Call([&] {
    auto actions = machine_.OnTlConnect(endpoint, service, silo);
    if (!actions) {
      outcome = std::unexpected(actions.error());
      return;
    }
    Apply(*actions);
  });
  return outcome;
}

void Client::SetRefusedHandler(RefusedHandler handler) {
  bus_->Call([&] { refused_handler_ = std::move(handler); });
}

void Client::Do(bus::client::Unloaded&) {
  MutexLock lock(mutex_);
  unloaded_ = true;
  changed_.NotifyAll();
}

void Client::Do(bus::Refused& action) {
  if (action.is_crossing) return;
  Log(LogLevel::kWarning, "server's message %u dropped (%s): channel %u, detail 0x%x",
      action.report.message_number, ErrorName(action.report.rule), action.report.channel,
      action.report.detail);
}

void Client::Do(bus::Broken& action) {
  Log(LogLevel::kWarning, "connection ended (%s): the server's message %u, channel %u, detail 0x%x",
      ErrorName(action.report.rule), action.report.message_number, action.report.channel,
      action.report.detail);
  OnGone();
}

}  // namespace kmcl::endpoint
