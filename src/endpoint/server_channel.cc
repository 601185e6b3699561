#include "endpoint/server_channel.h"

#include "endpoint/partition.h"

namespace kmcl::endpoint {

ServerChannel::ServerChannel(channel::Handler& handler, PassivePool& pool)
    : ChannelEnd(channel::Side::kServer, handler, pool) {}

Result<void> ServerChannel::Enable() {
  if (primary() != nullptr && engine().is_disabled()) {
    if (primary()->engine().is_disabled()) return std::unexpected(Error::kNotConfigured);
    const auto& setup = static_cast<ServerChannel&>(*primary()).setup_;
    setup_.offer.key = setup.offer.key;
    setup_.offer.key.subchannel_index = subchannel_index();
    setup_.has_offer = true;
    setup_.partition = setup.partition;
  }
  if (!setup_.has_offer || setup_.partition == nullptr) {
    return std::unexpected(engine().is_disabled() ? Error::kNotConfigured : Error::kNotDisabled);
  }
  if (auto enabled = engine().Enable(); !enabled) return enabled;
  Result<void> offered = std::unexpected(Error::kOfferWithoutPrimary);
  if (primary() == nullptr || static_cast<ServerChannel&>(*primary()).disablers_.load() == 0) {
    setup_.partition->bus().Call([&] {
      // Disabled with its primary meanwhile, it may have left before it was offered: nobody would
      // revoke the offer.
      if (!engine().is_enabled()) return;
      offered =
          setup_.partition->Offer(std::static_pointer_cast<ServerChannel>(shared_from_this()));
    });
  }
  if (offered) {
    engine().ConfirmEnable();
  } else {
    engine().UndoEnable();
  }
  // Its primary has left meanwhile, or is leaving.
  if (!offered && offered.error() == Error::kOfferWithoutPrimary) {
    return std::unexpected(Error::kNotConfigured);
  }
  return offered;
}

void ServerChannel::Disable() {
  disablers_.fetch_add(1);
  for (auto sub = SubchannelAfter(0); sub != nullptr;
       sub = SubchannelAfter(sub->subchannel_index())) {
    sub->engine().Disable();
  }
  engine().Disable();
  disablers_.fetch_sub(1);
}

channel::ChannelName ServerChannel::name() const {
  const bus::OfferKey& key = primary() == nullptr
                                 ? setup_.offer.key
                                 : static_cast<ServerChannel&>(*primary()).setup_.offer.key;
  return {.interface_type = key.interface_type,
          .instance = key.instance,
          .subchannel_index = subchannel_index()};
}

std::expected<channel::Channel::Restored, channel::SaveFailure> ServerChannel::Restore(
    std::span<const std::byte> buffer) {
  const auto restored = engine().Restore(name(), buffer);
  if (restored && *restored == channel::Channel::Restored::kComplete &&
      setup_.partition != nullptr && !engine().is_disabled()) {
    setup_.partition->bus().Call([&] { setup_.partition->OnRestored(*this); });
  }
  return restored;
}

void ServerChannel::SetGpadls(std::shared_ptr<ServerGpadls> gpadls) {
  MutexLock lock(mutex_);
  gpadls_.swap(gpadls);
}

std::shared_ptr<ServerGpadls> ServerChannel::gpadls() {
  MutexLock lock(mutex_);
  return gpadls_;
}

Result<PMDL> ServerChannel::MapGpadl(wire::GpadlId gpadl, wdk::Access access) {
  const auto table = gpadls();
  if (table == nullptr || !engine().is_open()) return std::unexpected(Error::kChannelState);
  return table->Map(setup_.partition->pages(), gpadl, access,
                    [this](const ServerGpadls::Released& released) {
                      return std::make_unique<BusThread::Prepared>(
                          [partition = std::weak_ptr(setup_.partition), released] {
                            if (const auto alive = partition.lock()) alive->OnReleased(released);
                          });
                    });
}

Result<void> ServerChannel::UnmapGpadl(wire::GpadlId gpadl) {
  const auto table = gpadls();
  if (table == nullptr) return std::unexpected(Error::kGpadlUnknown);
  auto unmapped = table->Unmap(gpadl);
  if (!unmapped) return std::unexpected(unmapped.error());
  if (*unmapped != nullptr) setup_.partition->bus().Post(*std::move(unmapped));
  return {};
}

void ServerChannel::CarryOut(channel::BusRequest request) {
  if (request == channel::BusRequest::kRejectOpen || request == channel::BusRequest::kDetach) {
    EndDispatch();
  }
  setup_.partition->bus().Call([&] { setup_.partition->CarryOut(*this, request); });
}

}  // namespace kmcl::endpoint
