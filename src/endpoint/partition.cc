#include "endpoint/partition.h"

#include <utility>

#include "log.h"
#include "wire/messages.h"

namespace kmcl::endpoint {
namespace {

template <typename Id>
unsigned Number(Id id) {
  return static_cast<unsigned>(id);
}

}  // namespace

Partition::Partition(BusThread& bus, std::shared_ptr<transport::Link> link, std::uint64_t number,
                     const bus::ServerLimits& limits, Events events)
    : bus_(bus),
      number_(number),
      peer_(link->peer()),
      events_(std::move(events)),
      pages_(link),
      link_(std::move(link)),
      port_(bus, link_,
            {.on_ready = [this] { OnReady(); },
             .on_message = [this](std::span<const std::byte> message) { OnMessage(message); },
             .on_gone = [this] { OnGone(); }}),
      machine_(limits),
      monitor_pace_(limits.monitors == bus::Monitors::kAsked ? MonitorPace::kUnannounced
                                                             : MonitorPace::kAnnounced) {}

Result<void> Partition::Open(std::span<const std::unique_ptr<Dispatcher>> dispatchers) {
  dispatchers_ = dispatchers;
  return port_.Open();
}

void Partition::OnReady() {
  ready_ = true;
  for (std::uint32_t index = 0; index < link_->bell_count(); ++index) {
    Dispatcher& dispatcher = *dispatchers_[(number_ + index) % dispatchers_.size()];
    if (!dispatcher.AddInbox(link_, index)) return End("the server is out of memory");
  }
  events_.on_ready(*this);
}

void Partition::End(const char* reason) {
  if (gone_) return;
  link_->Refuse(reason);
  OnGone();
}

void Partition::OnGone() {
  if (std::exchange(gone_, true)) return;
  port_.Close();
  ForEachInbox([this](Dispatcher& dispatcher, std::uint32_t index) {
    dispatcher.RemoveInbox(*link_, index);
  });
  RefuseWaitingOpens();
  Apply(machine_.OnPeerGone());
}

Partition::OfferedChannel* Partition::Find(wire::ChannelId id) {
  const auto found = channels_.find(id);
  return found == channels_.end() ? nullptr : &found->second;
}

// ---- What channels want.

Result<void> Partition::Offer(const std::shared_ptr<ServerChannel>& channel) {
  if (gone_ || exported_) return std::unexpected(Error::kNoBus);
  channel::Channel& engine = channel->engine();
  const auto vacant = FindVacant(channel->setup_.offer.key);
  if (vacant && !channel->setup_.force_new) {
    Occupy(*vacant, channel);
    return {};
  }
  // Our clients run in trust level 0; an offer to another one is seen by nobody.
  if (channel->setup_.target_vtl != 0) return {};
  if (vacant) {
    Apply(machine_.OnRevoke(*vacant));
    channels_.erase(*vacant);
  }
  auto outcome = machine_.OnOffer(channel->setup_.offer);
  if (!outcome) return std::unexpected(outcome.error());
  channel->id_ = outcome->channel;
  OfferedChannel& offered = channels_[outcome->channel];
  offered.channel = channel;
  offered.key = channel->setup_.offer.key;
  // No rings of the client's belong to it: only what had not been sent when it was saved is of use.
  if (const auto restored = engine.restored()) {
    if (restored->open || channel->setup_.force_new) {
      engine.AbandonRestored();
    } else {
      engine.QueueRestored();
    }
  }
  Apply(std::move(outcome->actions));
  return {};
}

void Partition::CarryOut(ServerChannel& channel, channel::BusRequest request) {
  if (!channel.id_) return;
  if (exported_) return LetGo(channel, request);
  const wire::ChannelId id = *channel.id_;
  switch (request) {
    case channel::BusRequest::kAcceptOpen:
      if (std::exchange(channel.reattaching_, false)) return;  // the client knows nothing of it
      Apply(machine_.OnOpenResult(id, wire::kStatusSuccess));
      return;
    case channel::BusRequest::kSayClose:
      return;  // a client's
    case channel::BusRequest::kRejectOpen:
      if (!channel.reattaching_ || !channel.closed_meanwhile_) {
        EndMappings(channel);
        const auto owed = Detached(channel);
        if (std::exchange(channel.reattaching_, false)) return Renew(id);
        Apply(machine_.OnOpenResult(id, wire::kStatusFailure));
        // The client may have asked for its ring, or left, while the driver decided.
        if (owed) GiveBack(id, *owed);
        return;
      }
      // What was to be reattached has been closed by the client: it ends like anything open.
      channel.reattaching_ = false;
      if (channel.engine().restored()) channel.engine().AbandonRestored();
      [[fallthrough]];
    case channel::BusRequest::kDetach: {
      EndMappings(channel);
      if (channel.engine().is_saved() && !gone_) {
        // The client's rings stay as they are, for the channel that follows.
        channel.rings_ = {};
        channel.bell_.reset();
        const auto gpadl = std::exchange(channel.ring_gpadl_, std::nullopt);
        if (std::exchange(channel.ring_release_owed_, false)) GiveBack(id, *gpadl);
        return;
      }
      const auto owed = Detached(channel);
      if (channel.engine().ring_broken()) {
        // The client must learn that this channel is finished; the driver may offer it anew.
        Log(LogLevel::kWarning, "partition %llu: channel %u is revoked, its ring is corrupt",
            static_cast<unsigned long long>(number_), Number(id));
        Apply(machine_.OnRevoke(id));
        channels_.erase(id);
        channel.id_.reset();
        return;
      }
      // Not owed when this server closed the channel by itself; the machine says so, and revoke follows.
      Apply(machine_.OnCloseDone(id));
      if (owed) GiveBack(id, *owed);
      return;
    }
    case channel::BusRequest::kLeave:
      // An open that was on its way in while the channel was already leaving: nobody else ends it.
      if (channel.ring_gpadl_) {
        channel.engine().DetachRings();
        channel.EndDispatch();
        EndMappings(channel);
        (void)Detached(channel);  // the revoke answers for it
      }
      if (channel.engine().is_saved() && !gone_) return Vacate(channel);
      Apply(machine_.OnRevoke(id));
      channel.id_.reset();
      channels_.erase(id);  // the caller keeps the channel
      return;
  }
}

std::optional<wire::GpadlId> Partition::Detached(ServerChannel& channel) {
  channel.rings_ = {};
  channel.bell_.reset();
  if (OfferedChannel* offered = channel.id_ ? Find(*channel.id_) : nullptr) offered->rings.reset();
  const auto ring = std::exchange(channel.ring_gpadl_, std::nullopt);
  return std::exchange(channel.ring_release_owed_, false) ? ring : std::nullopt;
}

void Partition::GiveBack(wire::ChannelId id, wire::GpadlId ring) {
  if (OfferedChannel* offered = Find(id)) (void)offered->gpadls->Release(ring);
  Apply(machine_.OnGpadlReleased(id, ring));
}

void Partition::EndMappings(ServerChannel& channel) {
  const auto gpadls = channel.gpadls();
  channel.SetGpadls(nullptr);
  if (gpadls == nullptr) return;
  const ServerGpadls::Leftovers left = gpadls->Close();
  if (left.mapped != 0) {
    Log(LogLevel::kError, "channel %u: %u GPADLs were still mapped when it was closed: unmapped",
        channel.id_ ? Number(*channel.id_) : 0, left.mapped);
  }
  for (const ServerGpadls::Released& released : left.released) OnReleased(released);
}

void Partition::OnReleased(const ServerGpadls::Released& gpadl) {
  if (exported_) return released_.push_back(gpadl);
  if (OfferedChannel* offered = Find(gpadl.channel)) (void)offered->gpadls->Release(gpadl.gpadl);
  Apply(machine_.OnGpadlReleased(gpadl.channel, gpadl.gpadl));
}

void Partition::OnMessage(std::span<const std::byte> message) {
  // Before it is answered: the answer goes where the client says. It says so from 3.0 on.
  if (const auto parsed = wire::ParseClientMessage(message, {}); parsed) {
    if (const auto* contact = std::get_if<wire::InitiateContact>(&*parsed)) {
      const bool has_target = wire::HonoursTargetMessageVp(contact->version);
      link_->OnContact(has_target ? contact->target_message_vp : wire::ProcessorIndex{0});
    }
  }
  Apply(machine_.OnMessage(message));
}

// ---- What the machine wants.

void Partition::Apply(Result<bus::ServerActions> actions) {
  // An answer that is not owed any more, because the client closed or left meanwhile.
  if (actions) Apply(std::move(*actions));
}

void Partition::Apply(bus::ServerActions actions) {
  for (auto& action : actions) actions_.push_back(std::move(action));
  if (holding_ || std::exchange(applying_, true)) return;
  while (!actions_.empty()) {
    bus::ServerAction action = std::move(actions_.front());
    actions_.pop_front();
    std::visit([this](auto& each) { Do(each); }, action);
  }
  applying_ = false;
}

void Partition::Do(bus::server::SendMessage& action) { port_.Send(action.bytes); }

void Partition::Do(bus::server::VersionAgreed& action) {
  const bool first = !has_arrived();
  version_.store(static_cast<std::uint32_t>(action.version), std::memory_order_relaxed);
  if (first) events_.on_arrived(*this);
}

void Partition::Do(bus::server::ConnectionReset&) {
  if (const auto resets = resets_.Count()) {
    Log(LogLevel::kInfo, "partition %llu: the client resets its connection; %llu times so far",
        static_cast<unsigned long long>(number_), static_cast<unsigned long long>(*resets));
  }
  RefuseWaitingOpens();
}

void Partition::Do(bus::server::OpenChannel& action) {
  if (OfferedChannel* offered = Find(action.channel); offered != nullptr && !offered->channel) {
    offered->waiting_open = action;
    return;
  }
  const auto opened = TryOpen(action);
  if (opened) return;
  if (const auto refused = refused_opens_.Count()) {
    Log(LogLevel::kWarning,
        "partition %llu: open of channel %u refused (%s): ring gpadl 0x%x, downstream page %u, "
        "target vp %u; %llu refused so far",
        static_cast<unsigned long long>(number_), Number(action.channel), ErrorName(opened.error()),
        Number(action.ring), action.downstream_page, Number(action.target_vp),
        static_cast<unsigned long long>(*refused));
  }
  Apply(machine_.OnOpenResult(action.channel, wire::kStatusFailure));
}

Result<void> Partition::TryOpen(const bus::server::OpenChannel& open) {
  OfferedChannel* const offered = Find(open.channel);
  if (offered == nullptr || gone_) return std::unexpected(Error::kChannelUnknown);
  return Attach(open.channel, *offered,
                {.gpadl = open.ring,
                 .downstream_page = open.downstream_page,
                 .target_vp = open.target_vp},
                Attachment::kOpen);
}

Result<void> Partition::Attach(wire::ChannelId id, OfferedChannel& offered,
                               const OfferedChannel::Rings& rings, Attachment attachment) {
  const wire::GpaRangeList* const gpadl = offered.gpadls->Find(rings.gpadl);
  if (gpadl == nullptr) return std::unexpected(Error::kGpadlUnknown);
  // VMBus reference 1.1: one range of whole pages.
  const wire::GpaRangeList& ranges = *gpadl;
  if (ranges.range_count() != 1 || ranges.range(0).byte_offset != 0 ||
      ranges.byte_count() % wire::kPageBytes != 0) {
    return std::unexpected(Error::kRingGeometry);
  }
  auto mapped = link_->MapRings(ranges.pages(), rings.downstream_page);
  if (!mapped) return std::unexpected(mapped.error());
  auto bell = std::make_shared<SwitchedBell>(link_, id);
  if (auto target = bell->Switch(rings.target_vp); !target) return target;

  ServerChannel& channel = *offered.channel;
  const channel::RingName name{.gpadl = Number(rings.gpadl),
                               .downstream_page = rings.downstream_page};
  auto attached = attachment == Attachment::kRestored
                      ? channel.engine().AttachRestored(*mapped, bell, name)
                      : channel.engine().AttachRings(
                            *mapped, channel::Channel::RingOrigin::kPeers, bell, name);
  if (!attached) return attached;
  channel.rings_ = std::move(*mapped);
  channel.bell_ = std::move(bell);
  channel.ring_gpadl_ = rings.gpadl;
  channel.ring_release_owed_ = false;
  channel.reattaching_ = attachment == Attachment::kRestored;
  channel.closed_meanwhile_ = false;
  offered.rings = rings;
  const std::uint32_t inbox = Number(id) % link_->bell_count();
  offered.gpadls->Open(rings.gpadl);
  channel.SetGpadls(offered.gpadls);
  channel.BeginDispatch(*dispatchers_[(number_ + inbox) % dispatchers_.size()], link_, inbox, id,
                        MonitorFor(id));
  channel.engine().OnOpen();
  return {};
}

// No monitor when the client's page cannot be had: then nobody looks at its bits, which is its own fault.
Monitor Partition::MonitorFor(wire::ChannelId id) {
  const std::uint64_t address = machine_.monitor_page();
  const auto monitor = machine_.monitor(id);
  if (!monitor) return {};
  if (monitor_page_ == nullptr || monitor_address_ != address) {
    const wire::PageNumber page{address / wire::kPageBytes};
    auto mapping = link_->Map({&page, 1});
    if (!mapping || address % wire::kPageBytes != 0) {
      Log(LogLevel::kWarning, "partition %llu: its monitor page at 0x%llx is none of its memory",
          static_cast<unsigned long long>(number_), static_cast<unsigned long long>(address));
      return {};
    }
    monitor_page_ = std::make_shared<MonitorPage>(std::move(*mapping));
    monitor_address_ = address;
  }
  return {.page = monitor_page_, .id = *monitor, .pace = monitor_pace_};
}

void Partition::Do(bus::server::CloseChannel& action) {
  OfferedChannel* const offered = Find(action.channel);
  if (offered == nullptr) return;
  if (!offered->IsAttended()) return CloseUnattended(action.channel, *offered);
  offered->channel->closed_meanwhile_ = true;
  offered->channel->engine().OnClose();
}

void Partition::Do(bus::server::GpadlComplete& action) {
  OfferedChannel* const offered = Find(action.channel);
  if (offered == nullptr) return;
  const auto missing = link_ == nullptr ? std::nullopt : link_->FirstMissing(action.ranges.pages());
  if (missing) {
    if (const auto refused = refused_gpadls_.Count()) {
      Log(LogLevel::kWarning,
          "partition %llu: gpadl 0x%x of channel %u refused: its page 0x%llx is none of the "
          "client's memory; %llu refused so far",
          static_cast<unsigned long long>(number_), Number(action.gpadl), Number(action.channel),
          static_cast<unsigned long long>(*missing), static_cast<unsigned long long>(*refused));
    }
    return Apply(machine_.OnGpadlResult(action.channel, action.gpadl, wire::kStatusFailure));
  }
  offered->gpadls->Add(action.channel, action.gpadl, std::move(action.ranges));
  Apply(machine_.OnGpadlResult(action.channel, action.gpadl, wire::kStatusSuccess));
}

void Partition::Do(bus::server::ReleaseGpadl& action) {
  OfferedChannel* const offered = Find(action.channel);
  if (offered == nullptr) return;
  if (offered->IsAttended() && offered->channel->ring_gpadl_ == action.gpadl) {
    offered->channel->ring_release_owed_ = true;  // once the rings are not used any more
    return;
  }
  if (!offered->gpadls->Release(action.gpadl)) return;  // once the driver has unmapped it
  Apply(machine_.OnGpadlReleased(action.channel, action.gpadl));
}

void Partition::Do(bus::server::ModifyChannel& action) {
  OfferedChannel* const offered = Find(action.channel);
  if (offered == nullptr) return;
  Result<void> switched = std::unexpected(Error::kChannelState);
  if (offered->IsAttended()) {
    switched = offered->channel->bell_->Switch(action.target_vp);
  } else if (Number(action.target_vp) < link_->bell_count()) {
    switched = {};
  }
  if (switched && offered->rings) offered->rings->target_vp = action.target_vp;
  Apply(machine_.OnModifyDone(action.channel,
                              switched ? wire::kStatusSuccess : wire::kStatusFailure));
}

void Partition::Do(bus::server::ChannelReleased&) {}

void Partition::Do(bus::server::TlConnect& action) {
  const bool admitted = connect_gate_.Admit(ConnectGate::Clock::now());
  if (admitted && connect_handler_ && !exported_ && connect_handler_(action)) return;
  if (const auto refused = admitted ? std::nullopt : refused_connects_.Count()) {
    Log(LogLevel::kWarning,
        "partition %llu: more than %u connections asked for in a second: %llu refused so far",
        static_cast<unsigned long long>(number_), ConnectGate::kPerSecond,
        static_cast<unsigned long long>(*refused));
  }
  (void)RefuseConnect(action.endpoint_id, action.service_id);
}

Result<void> Partition::RefuseConnect(const wire::Guid& endpoint, const wire::Guid& service) {
  auto actions = machine_.OnTlConnectFailed(endpoint, service, wire::kStatusConnectionRefused);
  if (!actions) return std::unexpected(actions.error());
  Apply(std::move(*actions));
  return {};
}

void Partition::Do(bus::server::Finished&) {
  // The last one to know; what is ours goes after the actions have been carried out.
  bus_.Post([self = shared_from_this()] {
    self->pages_.Close();
    self->link_.reset();
    self->events_.on_finished(*self);
  });
}

void Partition::Do(bus::Refused& action) {
  if (action.is_crossing) return;  // it crossed ours; a correct client cannot avoid that
  const auto refused = refused_.Count();
  if (!refused) return;
  Log(LogLevel::kWarning,
      "partition %llu (pid %d): message %u refused (%s): channel %u, detail 0x%x; %llu refused so "
      "far",
      static_cast<unsigned long long>(number_), static_cast<int>(peer_.pid),
      action.report.message_number, ErrorName(action.report.rule), action.report.channel,
      action.report.detail, static_cast<unsigned long long>(*refused));
}

void Partition::Do(bus::Broken& action) {
  Log(LogLevel::kWarning,
      "partition %llu (pid %d): connection ended (%s): message %u, channel %u, detail 0x%x",
      static_cast<unsigned long long>(number_), static_cast<int>(peer_.pid),
      ErrorName(action.report.rule), action.report.message_number, action.report.channel,
      action.report.detail);
  End("the client broke the protocol");
}

}  // namespace kmcl::endpoint
