#include "endpoint/client_channel.h"

#include "endpoint/client.h"

namespace kmcl::endpoint {

ClientChannel::ClientChannel(Client& client, channel::Handler& handler, PassivePool& pool)
    : ChannelEnd(channel::Side::kClient, handler, pool), client_(client) {}

Result<void> ClientChannel::Enable() {
  if (!setup_.interface_type) {
    return std::unexpected(engine().is_disabled() ? Error::kNotConfigured : Error::kNotDisabled);
  }
  if (auto enabled = engine().Enable(); !enabled) return enabled;
  SetBinding({.instance = setup_.instance.value_or(wire::Guid{}), .mmio_megabytes = 0});
  const auto self = std::static_pointer_cast<ClientChannel>(shared_from_this());
  auto added = client_.Add(self);
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
      return;  // the server has opened long ago
    case channel::BusRequest::kSayClose:
      client_.SayClose(*this);
      return;
    case channel::BusRequest::kRejectOpen:
    case channel::BusRequest::kDetach:
    case channel::BusRequest::kLeave:
      break;
  }
  EndDispatch();
  client_.Release(*this);
  MutexLock lock(mutex_);
  while (!off_bus_) changed_.Wait(mutex_);
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
