#include "endpoint/client_channel.h"

#include "endpoint/client.h"

namespace kmcl::endpoint {

ClientChannel::ClientChannel(Client& client, channel::Handler& handler, PassivePool& pool)
    : ChannelEnd(channel::Side::kClient, handler, pool), client_(client) {}

Result<void> ClientChannel::Enable() {
  if (primary() != nullptr ? primary()->engine().is_disabled() : !setup_.interface_type) {
    return std::unexpected(engine().is_disabled() ? Error::kNotConfigured : Error::kNotDisabled);
  }
  if (auto enabled = engine().Enable(); !enabled) return enabled;
  SetBinding({.instance = setup_.instance.value_or(wire::Guid{})});
  const auto self = std::static_pointer_cast<ClientChannel>(shared_from_this());
  const Result<void> added = client_.Add(self);
  if (added) {
    engine().ConfirmEnable();
  } else {
    engine().UndoEnable();
  }
  return added;
}

void ClientChannel::CarryOut(channel::BusRequest request) {
  switch (request) {
    case channel::BusRequest::kAcceptOpen:
      return client_.SayOpened(*this);  // the server has opened long ago
    case channel::BusRequest::kSayClose:
      CloseSubchannels();
      client_.SayClose(*this);
      return;
    case channel::BusRequest::kRejectOpen:
    case channel::BusRequest::kDetach:
    case channel::BusRequest::kLeave:
      break;
  }
  CloseSubchannels();
  EndDispatch();
  client_.Release(*this);
  MutexLock lock(mutex_);
  while (!off_bus_) changed_.Wait(mutex_);
}

std::optional<wire::PageNumber> ClientChannel::PageOf(const void* address) const {
  return client_.PageOf(address);
}

Result<wire::GpadlId> ClientChannel::CreateGpadl(const wire::GpaRangeList& ranges,
                                                 bus::GpadlAccess access) {
  const auto gpadl = client_.Describe(*this, ranges, access);
  if (!gpadl) return gpadl;
  {
    MutexLock lock(mutex_);
    auto found = gpadls_.find(*gpadl);
    while (found != gpadls_.end() && found->second == GpadlStage::kCreating) {
      changed_.Wait(mutex_);
      found = gpadls_.find(*gpadl);
    }
    if (found != gpadls_.end() && found->second == GpadlStage::kCreated) return gpadl;
  }
  return std::unexpected(client_.IsOpen(*this) ? Error::kLimitExceeded : Error::kDeviceRemoved);
}

Result<void> ClientChannel::DeleteGpadl(wire::GpadlId gpadl) {
  if (auto taken = client_.TakeBack(*this, gpadl); !taken) return taken;
  MutexLock lock(mutex_);
  while (gpadls_.contains(gpadl)) changed_.Wait(mutex_);
  return {};
}

void ClientChannel::SetGpadl(wire::GpadlId gpadl, GpadlStage stage) {
  MutexLock lock(mutex_);
  gpadls_[gpadl] = stage;
  changed_.NotifyAll();
}

void ClientChannel::ForgetGpadl(wire::GpadlId gpadl) {
  MutexLock lock(mutex_);
  gpadls_.erase(gpadl);
  changed_.NotifyAll();
}

ClientChannel::Gpadls ClientChannel::gpadls() const {
  MutexLock lock(mutex_);
  return gpadls_;
}

const std::shared_ptr<transport::ClientLink>& ClientChannel::link() const { return client_.link(); }

Result<std::uint16_t> ClientChannel::SetLatency(std::uint16_t latency) {
  return client_.SetLatency(*this, latency);
}

void ClientChannel::CloseSubchannels() {
  if (is_subchannel()) return;
  auto sub = SubchannelAfter(0);
  if (sub == nullptr) return;
  client_.CloseSubchannels(*this);
  for (; sub != nullptr; sub = SubchannelAfter(sub->subchannel_index())) {
    static_cast<ClientChannel&>(*sub).AwaitUnbound();
  }
}

void ClientChannel::AwaitUnbound() {
  MutexLock lock(mutex_);
  while (binding_.bound) changed_.Wait(mutex_);
}

void ClientChannel::SetUnbound() {
  MutexLock lock(mutex_);
  binding_.bound = false;
  changed_.NotifyAll();
}

ClientChannel::Binding ClientChannel::binding() const {
  MutexLock lock(mutex_);
  return binding_;
}

void ClientChannel::SetBinding(const Binding& binding) {
  MutexLock lock(mutex_);
  binding_ = binding;
}

void ClientChannel::SetOffBus(bool off_bus) {
  MutexLock lock(mutex_);
  off_bus_ = off_bus;
  changed_.NotifyAll();
}

}  // namespace kmcl::endpoint
