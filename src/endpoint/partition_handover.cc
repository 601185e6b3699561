// A partition on its way to another process, and at its arrival there.
//
// Where it leaves: Freeze, then its channels are saved, then Export; after that Leave, or Resume as if
// nothing had been. Where it arrives: Import, then its channels are restored and enabled, then Begin;
// until then nothing of it reaches the client, who may still be served where it comes from.
#include <utility>

#include "endpoint/partition.h"
#include "log.h"
#include "wire/byte_stream.h"

namespace kmcl::endpoint {
namespace {

using wire::ByteReader;
using wire::ByteWriter;

template <typename Id>
Id GetId(ByteReader& in) {
  return Id{in.Get<std::underlying_type_t<Id>>()};
}

}  // namespace

void Partition::Freeze() { port_.Suspend(); }

Result<void> Partition::Export(transport::Transfer& transfer) {
  KMCL_CHECK(actions_.empty());
  for (auto& [id, offered] : channels_) {
    if (offered.channel == nullptr || offered.channel->engine().HoldSaved()) continue;
    Log(LogLevel::kError, "partition %llu: channel %u was not saved, so it cannot be handed over",
        static_cast<unsigned long long>(number_), static_cast<unsigned>(id));
    return std::unexpected(Error::kChannelState);
  }
  exported_ = true;
  ForEachInbox([this](Dispatcher& dispatcher, std::uint32_t index) {
    dispatcher.SuspendInbox(*link_, index);
  });
  auto link = link_->Export();
  if (!link) return std::unexpected(link.error());

  ByteWriter out;
  out.Put(number_);
  out.PutFlag(ready_);
  out.Put(version());
  out.PutBlock(bus::ServerSnapshot::Save(machine_));
  out.Put(static_cast<std::uint32_t>(channels_.size()));
  for (const auto& [id, offered] : channels_) {
    out.Put(std::to_underlying(id));
    out.PutGuid(offered.key.interface_type);
    out.PutGuid(offered.key.instance);
    out.Put(offered.key.subchannel_index);
    const auto gpadls = offered.gpadls->All();
    out.Put(static_cast<std::uint32_t>(gpadls.size()));
    for (const auto& [gpadl, ranges] : gpadls) {
      out.Put(std::to_underlying(gpadl));
      out.Put(static_cast<std::uint32_t>(ranges.range_count()));
      out.PutBlock(ranges.Encode());
    }
    // Mappings end here. There nobody needs to be waited for.
    const auto wanted_back = offered.gpadls->WantedBack();
    out.Put(static_cast<std::uint32_t>(wanted_back.size()));
    for (const wire::GpadlId gpadl : wanted_back) out.Put(std::to_underlying(gpadl));
    out.PutFlag(offered.rings.has_value());
    if (offered.rings) {
      out.Put(std::to_underlying(offered.rings->gpadl));
      out.Put(offered.rings->downstream_page);
      out.Put(std::to_underlying(offered.rings->target_vp));
    }
    out.PutFlag(offered.waiting_open.has_value());
    if (offered.waiting_open) {
      out.Put(std::to_underlying(offered.waiting_open->open));
      out.Put(std::to_underlying(offered.waiting_open->ring));
      out.Put(offered.waiting_open->downstream_page);
      out.Put(std::to_underlying(offered.waiting_open->target_vp));
    }
  }
  out.PutBlock(link->bytes);
  out.Put(static_cast<std::uint32_t>(link->descriptors.size()));
  transfer.bytes = out.Take();
  transfer.descriptors = std::move(link->descriptors);
  return {};
}

void Partition::Resume() {
  exported_ = false;
  for (const auto& gpadl : std::exchange(released_, {})) OnReleased(gpadl);
  for (auto& [id, offered] : channels_) {
    if (offered.channel != nullptr) offered.channel->engine().ReleaseHold();
  }
  ForEachInbox([this](Dispatcher& dispatcher, std::uint32_t index) {
    dispatcher.ResumeInbox(*link_, index);
  });
  if (!gone_ && !port_.Resume()) End("the server is out of memory");
}

void Partition::Leave() {
  if (std::exchange(gone_, true)) return;
  exported_ = true;
  port_.Close();
  ForEachInbox([this](Dispatcher& dispatcher, std::uint32_t index) {
    dispatcher.RemoveInbox(*link_, index);
  });
  bus::server::Finished finished;
  Do(finished);
}

Result<std::shared_ptr<Partition>> Partition::Import(BusThread& bus, transport::Transfer transfer,
                                                     const bus::ServerLimits& limits,
                                                     Events events) {
  ByteReader in(transfer.bytes);
  const auto number = in.Get<std::uint64_t>();
  const bool ready = in.GetFlag();
  const auto version = in.Get<std::uint32_t>();
  auto machine = bus::ServerSnapshot::Restore(in.GetBlock(), limits);
  if (!in.ok()) return std::unexpected(Error::kSaveMalformed);
  if (!machine) return std::unexpected(machine.error());

  std::map<wire::ChannelId, OfferedChannel> channels;
  std::vector<ServerGpadls::Released> wanted_back;
  const auto channel_count = in.Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < channel_count && in.ok(); ++i) {
    const auto id = GetId<wire::ChannelId>(in);
    OfferedChannel& offered = channels[id];
    offered.key.interface_type = in.GetGuid();
    offered.key.instance = in.GetGuid();
    offered.key.subchannel_index = in.Get<std::uint16_t>();
    const auto gpadl_count = in.Get<std::uint32_t>();
    for (std::uint32_t each = 0; each < gpadl_count && in.ok(); ++each) {
      const auto gpadl = GetId<wire::GpadlId>(in);
      const auto range_count = in.Get<std::uint32_t>();
      auto ranges = wire::GpaRangeList::Parse(in.GetBlock(), range_count);
      if (!ranges) return std::unexpected(Error::kSaveMalformed);
      offered.gpadls->Add(id, gpadl, *std::move(ranges));
    }
    const auto wanted_back_count = in.Get<std::uint32_t>();
    for (std::uint32_t each = 0; each < wanted_back_count && in.ok(); ++each) {
      wanted_back.push_back({id, GetId<wire::GpadlId>(in)});
    }
    if (in.GetFlag()) {
      OfferedChannel::Rings rings;
      rings.gpadl = GetId<wire::GpadlId>(in);
      rings.downstream_page = in.Get<std::uint32_t>();
      rings.target_vp = GetId<wire::ProcessorIndex>(in);
      offered.rings = rings;
    }
    if (in.GetFlag()) {
      bus::server::OpenChannel open{.channel = id};
      open.open = GetId<wire::OpenId>(in);
      open.ring = GetId<wire::GpadlId>(in);
      open.downstream_page = in.Get<std::uint32_t>();
      open.target_vp = GetId<wire::ProcessorIndex>(in);
      offered.waiting_open = open;
    }
  }
  const auto link_bytes = in.GetBlock();
  const auto descriptor_count = in.Get<std::uint32_t>();
  if (!in.AtEnd() || descriptor_count != transfer.descriptors.size()) {
    return std::unexpected(Error::kSaveMalformed);
  }
  auto link = transport::ImportLink({.bytes = {link_bytes.begin(), link_bytes.end()},
                                     .descriptors = std::move(transfer.descriptors)});
  if (!link) return std::unexpected(link.error());
  if ((*link)->ready() != ready) return std::unexpected(Error::kSaveMalformed);

  auto partition = std::make_shared<Partition>(
      bus, std::shared_ptr<transport::Link>(*std::move(link)), number, limits, std::move(events));
  partition->machine_ = *std::move(machine);
  partition->channels_ = std::move(channels);
  partition->released_ = std::move(wanted_back);
  partition->ready_ = ready;
  partition->version_.store(version, std::memory_order_relaxed);
  partition->holding_ = true;
  return partition;
}

Result<void> Partition::Begin(std::span<const std::unique_ptr<Dispatcher>> dispatchers) {
  dispatchers_ = dispatchers;
  holding_ = false;
  Result<void> begun;
  ForEachInbox([&](Dispatcher& dispatcher, std::uint32_t index) {
    if (begun) begun = dispatcher.AddInbox(link_, index);
  });
  if (begun) begun = port_.Open(ready_ ? MessagePort::Ready::kKnown : MessagePort::Ready::kTold);
  if (!begun) return begun;
  std::vector<wire::ChannelId> ids;
  for (const auto& [id, offered] : channels_) ids.push_back(id);
  for (const wire::ChannelId id : ids) {
    const OfferedChannel* const offered = Find(id);
    if (offered == nullptr) continue;
    if (offered->channel != nullptr) {
      Reattach(id);
      continue;
    }
    Log(LogLevel::kWarning, "partition %llu: nobody serves channel %u any more: it is revoked",
        static_cast<unsigned long long>(number_), static_cast<unsigned>(id));
    Apply(machine_.OnRevoke(id));
    channels_.erase(id);
  }
  Apply(bus::ServerActions{});  // what was held back
  for (const auto& gpadl : std::exchange(released_, {})) OnReleased(gpadl);
  return {};
}

}  // namespace kmcl::endpoint
