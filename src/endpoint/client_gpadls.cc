// GPADLs that a channel's driver makes at the client: described, confirmed, taken back. The ring's
// own is in client.cc.
//
// The memory is the server's to use until GpadlTornDown. A channel therefore leaves its offer only
// when all of them are back: those that the driver left behind are taken back then. A server that
// lets go of nothing holds up the Disable of its client, as it does with the ring.
#include <algorithm>
#include <iterator>

#include "endpoint/client.h"
#include "log.h"
#include "wire/messages.h"

namespace kmcl::endpoint {

// ---- For the channel.

Result<wire::GpadlId> Client::Describe(ClientChannel& channel, const wire::GpaRangeList& ranges,
                                       bus::GpadlAccess access) {
  if (!link_->shares_memory()) return std::unexpected(Error::kMemoryNotShared);
  Result<wire::GpadlId> result = std::unexpected(Error::kChannelState);
  bus_->Call([&] {
    if (channel.stage_ != ClientChannel::Stage::kOpen) return;
    if (!HasOpen(channel)) {
      // Closing by our own will is a state; everything else is a loss.
      const bool leaving = !gone_ && !offers_.at(*channel.id_).rescinded;
      result = std::unexpected(leaving ? Error::kChannelState : Error::kDeviceRemoved);
      return;
    }
    auto created = machine_.OnCreateGpadl(*channel.id_, ranges, access);
    if (!created) {
      result = std::unexpected(created.error());
      return;
    }
    result = created->gpadl;
    channel.SetGpadl(created->gpadl, ClientChannel::GpadlStage::kCreating);
    Apply(created->actions);
  });
  return result;
}

Result<void> Client::TakeBack(ClientChannel& channel, wire::GpadlId gpadl) {
  Result<void> result = std::unexpected(Error::kGpadlUnknown);
  bus_->Call([&] {
    const ClientChannel::Gpadls gpadls = channel.gpadls();
    const auto found = gpadls.find(gpadl);
    if (found == gpadls.end() || !channel.id_) return;
    if (found->second != ClientChannel::GpadlStage::kCreated) {
      result = std::unexpected(Error::kGpadlState);
      return;
    }
    auto actions = machine_.OnTeardownGpadl(*channel.id_, gpadl);
    if (!actions) {
      result = std::unexpected(actions.error());
      return;
    }
    result = {};
    channel.SetGpadl(gpadl, ClientChannel::GpadlStage::kDeleting);
    Apply(*actions);
  });
  return result;
}

bool Client::IsOpen(ClientChannel& channel) {
  bool open = false;
  bus_->Call([&] { open = HasOpen(channel); });
  return open;
}

// ---- On the bus thread.

bool Client::HasOpen(const ClientChannel& channel) const {
  return !gone_ && channel.stage_ == ClientChannel::Stage::kOpen && !channel.close_said_ &&
         !channel.release_wanted_ && !offers_.at(*channel.id_).rescinded;
}

void Client::OnDriverGpadlResult(ClientChannel& channel, const bus::client::GpadlResult& result) {
  if (result.status != wire::kStatusSuccess) {
    channel.ForgetGpadl(result.gpadl);
    return UnbindIfDone(channel);
  }
  if (HasOpen(channel)) {
    return channel.SetGpadl(result.gpadl, ClientChannel::GpadlStage::kCreated);
  }
  // Its maker waits for it, but it could not be told before EvtChannelClosed any more.
  auto actions = machine_.OnTeardownGpadl(*channel.id_, result.gpadl);
  if (!actions) {
    channel.ForgetGpadl(result.gpadl);
    return UnbindIfDone(channel);
  }
  channel.SetGpadl(result.gpadl, ClientChannel::GpadlStage::kDeleting);
  Apply(*actions);
}

void Client::TakeBackLeftovers(ClientChannel& channel, bus::ClientActions& actions) {
  std::size_t left = 0;
  for (const auto& [gpadl, stage] : channel.gpadls()) {
    if (stage != ClientChannel::GpadlStage::kCreated) continue;  // an answer is on its way
    ++left;
    auto more = machine_.OnTeardownGpadl(*channel.id_, gpadl);
    if (!more) {
      channel.ForgetGpadl(gpadl);
      continue;
    }
    channel.SetGpadl(gpadl, ClientChannel::GpadlStage::kDeleting);
    std::ranges::move(*more, std::back_inserter(actions));
  }
  if (left != 0) {
    Log(LogLevel::kError, "channel %u: %zu GPADLs were left when it was closed: deleted",
        static_cast<unsigned>(*channel.id_), left);
  }
}

void Client::UnbindIfDone(ClientChannel& channel) {
  if (channel.stage_ != ClientChannel::Stage::kTearingDown || channel.ring_gpadl_ ||
      !channel.gpadls().empty()) {
    return;
  }
  Unbind(channel);
}

}  // namespace kmcl::endpoint
