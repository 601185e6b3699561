// Offers whose channel was saved and disabled: they stand vacant, with the client's rings as they are,
// until the next channel of the same name takes them over (KMCL reference 9.7).
#include <utility>

#include "endpoint/partition.h"
#include "log.h"
#include "wire/messages.h"

namespace kmcl::endpoint {

std::optional<wire::ChannelId> Partition::FindVacant(const bus::OfferKey& key) const {
  for (const auto& [id, offered] : channels_) {
    if (offered.channel == nullptr && offered.key == key) return id;
  }
  return std::nullopt;
}

void Partition::Vacate(ServerChannel& channel) {
  OfferedChannel* const offered = Find(*channel.id_);
  channel.id_.reset();
  offered->channel = nullptr;  // the caller keeps it
}

// A channel that was handed over ends here, without a word to the client or to the machine.
void Partition::LetGo(ServerChannel& channel, channel::BusRequest request) {
  switch (request) {
    case channel::BusRequest::kAcceptOpen:
    case channel::BusRequest::kSayClose:
      return;
    case channel::BusRequest::kRejectOpen:
    case channel::BusRequest::kDetach:
      EndMappings(channel);
      channel.rings_ = {};
      channel.bell_.reset();
      channel.ring_gpadl_.reset();
      return;
    case channel::BusRequest::kLeave:
      return Vacate(channel);
  }
}

void Partition::Occupy(wire::ChannelId id, const std::shared_ptr<ServerChannel>& channel) {
  OfferedChannel& offered = *Find(id);
  offered.channel = channel;
  channel->id_ = id;
  Reattach(id);
}

void Partition::OnRestored(ServerChannel& channel) {
  if (channel.id_) Reattach(*channel.id_);
}

// Gives an offer's new channel what the client has open, as far as both are ready.
void Partition::Reattach(wire::ChannelId id) {
  if (holding_) return;  // Begin comes back to it
  OfferedChannel& offered = *Find(id);
  channel::Channel& engine = offered.channel->engine();
  if (offered.waiting_open) {
    // The client has closed what was saved, and opened anew.
    bus::server::OpenChannel open = *std::exchange(offered.waiting_open, std::nullopt);
    return Do(open);
  }
  const auto restored = engine.restored();
  if (!restored) return;
  if (!restored->open) return engine.QueueRestored();
  const channel::RingName rings =
      offered.rings ? channel::RingName{.gpadl = std::to_underlying(offered.rings->gpadl),
                                        .downstream_page = offered.rings->downstream_page}
                    : channel::RingName{};
  if (!offered.rings || rings != restored->rings) {
    Log(LogLevel::kInfo, "partition %llu: channel %u was closed since it was saved",
        static_cast<unsigned long long>(number_), static_cast<unsigned>(id));
    return engine.AbandonRestored();
  }
  const OfferedChannel::Rings open = *offered.rings;
  if (const auto attached = Attach(id, offered, open, Attachment::kRestored); !attached) {
    Log(LogLevel::kWarning, "partition %llu: channel %u cannot be restored (%s): offered anew",
        static_cast<unsigned long long>(number_), static_cast<unsigned>(id),
        ErrorName(attached.error()));
    engine.AbandonRestored();
    Renew(id);
  }
}

// The client's rings are of no use to the channel any more: the client is told so, and may open it
// again.
void Partition::Renew(wire::ChannelId id) {
  const std::shared_ptr<ServerChannel> channel = Find(id)->channel;
  channel->id_.reset();
  Apply(machine_.OnRevoke(id));
  channels_.erase(id);
  if (const auto offered = Offer(channel); !offered) {
    Log(LogLevel::kError, "partition %llu: a channel is not offered any more (%s)",
        static_cast<unsigned long long>(number_), ErrorName(offered.error()));
  }
}

// Nobody uses the rings.
void Partition::CloseUnattended(wire::ChannelId id, OfferedChannel& offered) {
  offered.rings.reset();
  // One that waits for its rings need not wait any longer.
  if (offered.channel != nullptr) offered.channel->engine().AbandonRestored();
  Apply(machine_.OnCloseDone(id));
}

// The client does not wait for them any more, but the machine does for their answers.
void Partition::RefuseWaitingOpens() {
  std::vector<wire::ChannelId> waiting;
  for (auto& [id, offered] : channels_) {
    if (std::exchange(offered.waiting_open, std::nullopt)) waiting.push_back(id);
  }
  for (const wire::ChannelId id : waiting) {
    Apply(machine_.OnOpenResult(id, wire::kStatusFailure));
  }
}

}  // namespace kmcl::endpoint
