#include "api/verifier_channel.h"

#include <cstring>
#include <new>

#include "api/verifier_callback.h"
#include "api/verifier_registry.h"
#include "api/verifier_report.h"
#include "api/verifier_symbols.h"
#include "channel/channel.h"

namespace kmcl::api::verifier {
namespace {

template <typename Function>
const void* CodeOf(Function* function) {
  return reinterpret_cast<const void*>(function);
}

// What the driver gets in place of a received packet: a copy, never outstanding, so that the
// library asks what was meant. Its bytes are the driver's alone, and can be poisoned. nullptr
// without memory.
channel::IncomingPacket* CopyForDriver(const channel::IncomingPacket& real, std::size_t& bytes) {
  bytes = sizeof real + real.payload.size();
  void* const memory = ::operator new(bytes, kPacketAlignment, std::nothrow);
  if (memory == nullptr) return nullptr;
  auto* const copy = new (memory) channel::IncomingPacket;
  copy->kind = real.kind;
  copy->transaction_id = real.transaction_id;
  copy->channel = real.channel;
  copy->header = real.header;
  copy->payload = {copy->buffer(), real.payload.size()};
  copy->context = real.context;
  copy->capacity = static_cast<std::uint32_t>(real.payload.size());
  copy->wants_completion = real.wants_completion;
  copy->external_data = real.external_data;
  if (!real.payload.empty()) std::memcpy(copy->buffer(), real.payload.data(), real.payload.size());
  return copy;
}

const char* FunctionOf(channel::Handler::Retire as) {
  switch (as) {
    case channel::Handler::Retire::kComplete:
      return "VmbChannelPacketComplete";
    case channel::Handler::Retire::kDefer:
      return "VmbChannelPacketDeferToPassive";
    case channel::Handler::Retire::kFail:
      return "VmbChannelPacketFail";
  }
  return "";
}

// Called by the watchdog long after a Suspend.
void CheckDrained(std::uint64_t suspend) {
  const auto channel = Registry::Get().FindSuspend(suspend);
  if (!channel) return;
  const auto outstanding = Registry::Get().Outstanding(channel->object);
  if (outstanding.empty()) return;
  Violation violation(
      KmclCheckNotCompleted,
      Format("%zu received packets of %s are still outstanding %lld ms after EvtVmbChannelSuspend; "
             "the pause or close waits for them.",
             outstanding.size(), NameOf(channel->object->handle()).c_str(),
             static_cast<long long>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::steady_clock::now() - channel->suspended.at)
                                        .count())));
  violation.Channel(channel->object->handle());
  constexpr std::size_t kMostTold = 8;
  for (std::size_t i = 0; i < outstanding.size() && i < kMostTold; ++i) {
    const auto age = std::chrono::steady_clock::now() - outstanding[i].delivered.at;
    violation.Note(Format("Outstanding: delivered to %s %lld ms ago",
                          Describe(outstanding[i].function).c_str(),
                          static_cast<long long>(
                              std::chrono::duration_cast<std::chrono::milliseconds>(age).count())));
  }
  violation.Before("Delivered", outstanding.front().delivered);
  if (channel->stopping) violation.Now(channel->stopping_function, channel->stopping);
  violation.Report();
}

}  // namespace

std::string NameOf(VMBCHANNEL handle) {
  const ChannelObject& object = ChannelObject::From(handle);
  std::string name = object.is_server() ? "the server's channel" : "the client's channel";
  if (object.friendly_name.empty()) return name + Format(" %p", static_cast<void*>(handle));
  name += " \"";
  for (const char16_t letter : object.friendly_name) {
    name += letter >= ' ' && letter < 0x7F ? static_cast<char>(letter) : '?';
  }
  return name + '"';
}

void ReportDamage(const void* channel) {
  for (const Damage& damage : Registry::Get().TakeDamage(channel)) {
    Violation(KmclCheckWrittenAfterFree,
              damage.is_delivery
                  ? "The buffer of a received packet was written after the packet was retired."
                  : "A packet was written after it was freed (for example by VmbPacketSetPointer).")
        .Object(damage.object)
        .Before(damage.is_delivery ? "Retired" : "Freed", damage.freed)
        .Before(damage.is_delivery ? "Delivered" : "Allocated", damage.created)
        .Report();
  }
}

// ---- State callbacks.

bool VerifiedChannel::OnOpened() {
  Registry::Get().ChangeChannel(this, [](ChannelRecord& record) { record.suspended = {}; });
  CallbackScope scope(Callback::kOpened, handle(), CodeOf(state_callbacks.EvtChannelOpened));
  return ChannelObject::OnOpened();
}

void VerifiedChannel::OnClosed() {
  {
    CallbackScope scope(Callback::kClosed, handle(), CodeOf(state_callbacks.EvtChannelClosed));
    ChannelObject::OnClosed();
  }
  ReportGpadlsLeft(handle());
}

void VerifiedChannel::OnSuspend() {
  {
    CallbackScope scope(Callback::kSuspend, handle(), CodeOf(state_callbacks.EvtChannelSuspend));
    ChannelObject::OnSuspend();
  }
  const std::uint64_t number = Registry::Get().NumberSuspend();
  Registry::Get().ChangeChannel(this, [&](ChannelRecord& record) {
    record.suspends = number;
    record.suspended = Here(nullptr);
  });
  const ULONG limit = CurrentOptions().DrainMilliseconds;
  if (limit != 0 && !Registry::Get().Outstanding(this).empty()) {
    CallAt(std::chrono::steady_clock::now() + std::chrono::milliseconds(limit), &CheckDrained,
           number);
  }
}

void VerifiedChannel::OnStarted() {
  Registry::Get().ChangeChannel(this, [](ChannelRecord& record) { record.suspended = {}; });
  CallbackScope scope(Callback::kStarted, handle(), CodeOf(state_callbacks.EvtChannelStarted));
  ChannelObject::OnStarted();
}

void VerifiedChannel::OnPostStarted() {
  CallbackScope scope(Callback::kPostStarted, handle(),
                      CodeOf(state_callbacks.EvtChannelPostStarted));
  ChannelObject::OnPostStarted();
}

void VerifiedChannel::OnConnectFailed(Error error) {
  CallbackScope scope(Callback::kPnpFailure, handle(), CodeOf(pnp_failure));
  ChannelObject::OnConnectFailed(error);
}

// ---- Packet callbacks.

void VerifiedChannel::OnPacket(channel::IncomingPacket& packet) {
  std::size_t bytes = 0;
  channel::IncomingPacket* const copy = CopyForDriver(packet, bytes);
  CallbackScope scope(Callback::kProcessPacket, handle(), CodeOf(process_packet));
  if (copy == nullptr) {  // better not watched than not delivered
    ChannelObject::OnPacket(packet);
    return;
  }
  Registry::Get().AddDelivery(copy, {.real = &packet,
                                     .channel = this,
                                     .function = CodeOf(process_packet),
                                     .bytes = bytes,
                                     .delivered = Here(nullptr)});
  ChannelObject::OnPacket(*copy);
}

void VerifiedChannel::OnBatchEnd(std::uint32_t packets) {
  CallbackScope scope(Callback::kProcessingComplete, handle(), CodeOf(processing_complete));
  ChannelObject::OnBatchEnd(packets);
}

bool VerifiedChannel::OnNotOutstanding(channel::IncomingPacket& packet, Retire as,
                                       std::span<const std::byte> reply) {
  // A true packet, that this function itself has tried to defer. The driver's copies are never
  // outstanding.
  if (packet.outstanding.load(std::memory_order_relaxed)) return false;
  const Site site = Here(nullptr);
  const auto delivery = Registry::Get().TakeDelivery(&packet, as, site);
  if (!delivery) {
    Violation(KmclCheckHandle, Format("%s was called with %p, which is not a received packet.",
                                      FunctionOf(as), static_cast<void*>(&packet)))
        .Channel(handle())
        .Object(&packet)
        .Now(FunctionOf(as), site)
        .Report();
    return true;
  }
  if (delivery->real == nullptr) {
    Violation(KmclCheckCompletedTwice,
              Format("%s was called for a packet of %s that had been retired already, by %s.",
                     FunctionOf(as), NameOf(handle()).c_str(), FunctionOf(delivery->retired_as)))
        .Channel(handle())
        .Object(&packet)
        .Note("Delivered to: " + Describe(delivery->function))
        .Before(as == Retire::kComplete && delivery->retired_as == Retire::kComplete
                    ? "First completed"
                    : "First retired",
                delivery->retired)
        .Now("Now retired again", site)
        .Report();
    return true;
  }
  bool retired = false;
  switch (as) {
    case Retire::kComplete:
      retired = engine().Complete(*delivery->real, reply);
      break;
    case Retire::kFail:
      retired = engine().Fail(*delivery->real);
      break;
    case Retire::kDefer:
      retired = engine().Defer(*delivery->real);
      break;
  }
  if (!retired && as == Retire::kDefer) {
    Registry::Get().UntakeDelivery(&packet, *delivery);
    Violation(KmclCheckDeferred,
              Format("VmbChannelPacketDeferToPassive was called outside of the "
                     "EvtVmbChannelProcessPacket that the packet was delivered to (%s).",
                     Describe(delivery->function).c_str()))
        .Channel(handle())
        .Object(&packet)
        .Before("Delivered", delivery->delivered)
        .Now("Deferred", site)
        .Report();
    return true;
  }
  Registry::Get().RetireDelivery(packet);
  ReportDamage(nullptr);
  return true;
}

void VerifiedChannel::OnPacketDone(channel::Packet& packet, channel::Outcome outcome,
                                   std::span<std::byte> reply) {
  Site sent;
  bool changed = false;
  Registry::Get().ChangePacket(&packet, [&](PacketRecord& record) {
    changed = record.state == PacketRecord::State::kInFlight && record.routine != packet.routine;
    record.state = PacketRecord::State::kHeld;
    sent = record.sent;
  });
  const auto routine = CodeOf(packet.routine);
  if (changed) {
    Violation(KmclCheckRoutineChanged,
              Format("The completion routine of a packet of %s was changed while the packet was in "
                     "flight, to %s.",
                     NameOf(handle()).c_str(), Describe(routine).c_str()))
        .Channel(handle())
        .Object(&packet)
        .Before("Sent", sent)
        .Report();
    if (packet.routine == nullptr) return;
  }
  CallbackScope scope(Callback::kCompletionRoutine, handle(), routine);
  ChannelObject::OnPacketDone(packet, outcome, reply);
}

channel::Packet* VerifiedChannel::OnAllocatePacket() {
  const Site site = Here(nullptr);
  const auto channel = Registry::Get().FindChannel(this);
  if (channel && channel->cleaned_up) {
    Violation(KmclCheckChannelFreed,
              "VmbPacketAllocate was called for a channel that was cleaned up.")
        .Channel(handle())
        .Object(this)
        .Before("Cleaned up", channel->cleaned_up)
        .Before("Allocated", channel->allocated)
        .Now("Used", site)
        .Report();
    return nullptr;
  }
  const std::size_t bytes = engine().packet_object_bytes();
  void* const memory = ::operator new(bytes, kPacketAlignment, std::nothrow);
  if (memory == nullptr) return nullptr;
  channel::Packet* const packet = engine().InitializePacket(memory);
  packet->send_limit = 0;
  Registry::Get().AddPacket(
      packet, {.is_allocated = true, .channel = this, .bytes = bytes, .created = site});
  return packet;
}

}  // namespace kmcl::api::verifier
