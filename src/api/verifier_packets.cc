// The packets that a driver sends, watched.

#include "api/verifier.h"
#include "api/verifier_channel.h"
#include "api/verifier_registry.h"
#include "api/verifier_report.h"
#include "channel/channel.h"

namespace kmcl::api::verifier {
namespace {

// V20, V03 and V04. nullopt: told.
std::optional<PacketRecord> CheckPacket(VMBPACKET packet, const char* function, const Site& site) {
  const auto record = Registry::Get().FindPacket(packet);
  if (!record) {
    Violation(KmclCheckHandle,
              Format("%s was called with %p, which is %s.", function, static_cast<void*>(packet),
                     Registry::Get().FindChannel(packet)    ? "a channel, not a packet"
                     : Registry::Get().FindDelivery(packet) ? "a received packet, not one to send"
                                                            : "no packet"))
        .Object(packet)
        .Now(function, site)
        .Report();
    return std::nullopt;
  }
  const auto channel = Registry::Get().FindChannel(record->channel);
  const auto handle = static_cast<VMBCHANNEL>(const_cast<void*>(record->channel));
  if (record->state == PacketRecord::State::kFreed) {
    Violation(KmclCheckPacketFreed,
              Format("%s was called for a packet that had been freed.", function))
        .Channel(handle)
        .Object(packet)
        .Before("Freed", record->freed)
        .Before("Allocated", record->created)
        .Now(function, site)
        .Report();
    return std::nullopt;
  }
  if (channel && channel->cleaned_up) {
    Violation(KmclCheckChannelFreed,
              Format("%s was called for a packet of a channel that was cleaned up.", function))
        .Channel(handle)
        .Object(packet)
        .Before("Cleaned up", channel->cleaned_up)
        .Before("Made", record->created)
        .Now(function, site)
        .Report();
    return std::nullopt;
  }
  return record;
}

bool IsInFlight(VMBPACKET handle, const PacketRecord& record) {
  return record.state == PacketRecord::State::kInFlight ||
         PacketFrom(handle).state.load(std::memory_order_relaxed) != channel::Packet::State::kIdle;
}

}  // namespace

void NullPacket(const char* function, const void* caller) {
  Violation(KmclCheckHandle, Format("%s was called with NULL.", function))
      .Now(function, Here(caller))
      .Report();
}

NTSTATUS Send(VMBPACKET packet, UINT32 flags, const char* function,
              const std::function<NTSTATUS()>& send, const void* caller) {
  const Site site = Here(caller);
  const auto record = CheckPacket(packet, function, site);
  if (!record) return STATUS_INVALID_PARAMETER_1;
  channel::Packet& object = PacketFrom(packet);
  const VMBCHANNEL channel = ChannelObject::From(*object.channel).handle();
  if (IsInFlight(packet, *record)) {
    Violation(KmclCheckSentInFlight,
              Format("A packet of %s was sent while it was in flight.", NameOf(channel).c_str()))
        .Channel(channel)
        .Object(packet)
        .Before("First sent", record->sent)
        .Now("Sent again", site)
        .Report();
    return STATUS_INVALID_DEVICE_STATE;
  }
  if (object.routine == nullptr) {
    Violation(KmclCheckNoRoutine, Format("A packet of %s was sent without a completion routine.",
                                         NameOf(channel).c_str()))
        .Channel(channel)
        .Object(packet)
        .Before(record->is_allocated ? "Allocated" : "Initialized", record->created)
        .Now(function, site)
        .Report();
    return STATUS_INVALID_PARAMETER_1;
  }
  const auto owner = Registry::Get().FindChannel(record->channel);
  if (owner && owner->suspended) {
    Violation(KmclCheckSendAfterSuspend,
              Format("A packet was sent on %s after EvtVmbChannelSuspend had returned.",
                     NameOf(channel).c_str()))
        .Channel(channel)
        .Object(packet)
        .Before("Suspended", owner->suspended)
        .Now(function, site)
        .Report();
  }
  if ((flags & VMBUS_CHANNEL_FORMAT_FLAG_PAGED_BUFFER) != 0 &&
      KeGetCurrentIrql() >= DISPATCH_LEVEL) {
    Violation(KmclCheckLevel,
              "A packet with VMBUS_CHANNEL_FORMAT_FLAG_PAGED_BUFFER was sent at "
              "DISPATCH_LEVEL, where the buffer may not be in memory.")
        .Channel(channel)
        .Object(packet)
        .Now(function, site)
        .Report();
  }
  // Before the send: the completion routine may run inside of it.
  Registry::Get().ChangePacket(packet, [&](PacketRecord& changed) {
    changed.state = PacketRecord::State::kInFlight;
    changed.sent = site;
    changed.routine = object.routine;
  });
  const NTSTATUS status = send();
  if (status != STATUS_SUCCESS) {
    Registry::Get().ChangePacket(
        packet, [](PacketRecord& changed) { changed.state = PacketRecord::State::kHeld; });
  }
  return status;
}

void Free(VMBPACKET packet, const void* caller) {
  constexpr const char* kFunction = "VmbPacketFree";
  const Site site = Here(caller);
  const auto record = CheckPacket(packet, kFunction, site);
  if (!record) return;
  const VMBCHANNEL channel = ChannelObject::From(*PacketFrom(packet).channel).handle();
  if (!record->is_allocated) {
    Violation(KmclCheckFreeOfCallers,
              Format("VmbPacketFree was called for a packet of %s in the caller's own memory.",
                     NameOf(channel).c_str()))
        .Channel(channel)
        .Object(packet)
        .Before("Initialized", record->created)
        .Now(kFunction, site)
        .Report();
    return;
  }
  if (IsInFlight(packet, *record)) {
    Violation(KmclCheckFreedInFlight,
              Format("A packet of %s was freed while it was in flight.", NameOf(channel).c_str()))
        .Channel(channel)
        .Object(packet)
        .Before("Sent", record->sent)
        .Now("Freed", site)
        .Report();
    return;
  }
  PacketFrom(packet).channel->ForgetPacket(PacketFrom(packet));
  Registry::Get().RetirePacket(PacketFrom(packet), site);
  ReportDamage(nullptr);
}

NTSTATUS Initialize(VMBCHANNEL channel, VMBPACKET memory, const void* caller) {
  constexpr const char* kFunction = "VmbPacketInitialize";
  const Site site = Here(caller);
  const auto before = Registry::Get().FindPacket(memory);
  if (before && (before->state == PacketRecord::State::kInFlight ||
                 (before->is_allocated && before->state == PacketRecord::State::kHeld))) {
    const bool in_flight = before->state == PacketRecord::State::kInFlight;
    Violation(
        KmclCheckInitializeInFlight,
        Format("VmbPacketInitialize was called for %s, over a packet that %s.",
               NameOf(channel).c_str(), in_flight ? "is in flight" : "is one of VmbPacketAllocate"))
        .Channel(channel)
        .Object(memory)
        .Before(in_flight ? "Sent" : "Allocated", in_flight ? before->sent : before->created)
        .Now(kFunction, site)
        .Report();
    return STATUS_INVALID_DEVICE_STATE;
  }
  channel::Packet* const packet = ChannelObject::From(channel).engine().InitializePacket(memory);
  packet->send_limit = 0;
  Registry::Get().AddPacket(
      memory, {.is_allocated = false, .channel = channel, .bytes = 0, .created = site});
  return STATUS_SUCCESS;
}

channel::IncomingPacket* Delivered(VMBPACKETCOMPLETION packet, const char* function,
                                   const void* caller) {
  const auto delivery = Registry::Get().FindDelivery(packet);
  if (delivery && delivery->real != nullptr) return delivery->real;
  Violation violation(
      KmclCheckHandle,
      Format("%s was called with %p, which is %s.", function, static_cast<void*>(packet),
             delivery ? "a packet that had been retired already" : "not a received packet"));
  violation.Object(packet);
  if (delivery) violation.Before("Retired", delivery->retired);
  violation.Now(function, Here(caller)).Report();
  return nullptr;
}

void Restored(VMBPACKET packet, const void* caller) {
  const Site site = Here(caller);
  Registry::Get().ChangePacket(packet, [&](PacketRecord& changed) {
    changed.state = PacketRecord::State::kInFlight;
    changed.sent = site;
    changed.routine = PacketFrom(packet).routine;
  });
}

void CompletionTooLong(VMBPACKETCOMPLETION packet, UINT32 bytes, UINT32 limit, const void* caller) {
  Violation(KmclCheckCompletionTooLong,
            Format("VmbChannelPacketComplete was called with %u bytes; the maximum packet size is "
                   "%u. The answer is cut.",
                   bytes, limit))
      .Object(packet)
      .Now("VmbChannelPacketComplete", Here(caller))
      .Report();
}

}  // namespace kmcl::api::verifier
