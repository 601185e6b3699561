// Packets, outgoing and incoming (KMCL reference 10.5, 10.6).

#include <algorithm>
#include <chrono>
#include <optional>

#include "api/external_send.h"
#include "api/objects.h"
#include "api/status_map.h"
#include "api/verifier.h"
#include "log.h"
#include "wdk/clock.h"
#include "wdk/mdl.h"

// Not the way of a packet: a function of its own, whatever the compiler knows about its body.
#if __has_attribute(noipa)
#define KMCL_COLD __attribute__((noinline, cold, noipa))
#else
#define KMCL_COLD __attribute__((noinline, cold))
#endif

namespace kmcl::api {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kPacketAlignment = 16;

// The completion routine of a packet from VmbPacketAllocate until the driver sets its own.
VOID FreeWhenDone(VMBPACKET packet, NTSTATUS, PVOID, UINT32) { VmbPacketFree(packet); }

std::span<const std::byte> BytesOf(PVOID buffer, UINT32 length) {
  return {static_cast<const std::byte*>(buffer), length};
}

endpoint::ExternalSource WholeOf(PMDL chain) {
  return endpoint::ExternalSource::OfChain(chain, 0, wdk::SizeOf(chain).bytes);
}

// What VmbPacketSend and the synchronous request check alike, in the order of their parameters 2 to 5.
NTSTATUS CheckSend(ChannelObject& object, PVOID buffer, UINT32 length, UINT32 capacity, PMDL mdl,
                   UINT32 flags) {
  if (buffer == nullptr && length != 0) return STATUS_INVALID_PARAMETER_2;
  if (length > capacity) return STATUS_INVALID_PARAMETER_3;
  if (mdl != nullptr && (!MayDescribe(object) || !IsWithinLimits(object, WholeOf(mdl)))) {
    return STATUS_INVALID_PARAMETER_4;
  }
  if ((flags & ~UINT32{VMBUS_CHANNEL_FORMAT_FLAGS}) != 0) return STATUS_INVALID_PARAMETER_5;
  // What is described must be described until it is done with.
  if (mdl != nullptr && (flags & VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION) == 0) {
    return STATUS_INVALID_PARAMETER_5;
  }
  // A pipe carries no transactions.
  if ((flags & VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION) != 0 && object.engine().config().pipe) {
    return STATUS_INVALID_PARAMETER_5;
  }
  return STATUS_SUCCESS;
}

inline NTSTATUS CheckAndSend(channel::Packet& packet, PVOID buffer, UINT32 length, UINT32 capacity,
                             PMDL mdl, UINT32 flags) {
  const NTSTATUS checked =
      CheckSend(ChannelObject::From(*packet.channel), buffer, length, capacity, mdl, flags);
  if (checked != STATUS_SUCCESS) return checked;
  if (mdl != nullptr) {
    return SendDescribed(packet, BytesOf(buffer, length), WholeOf(mdl), STATUS_INVALID_PARAMETER_4);
  }
  const bool wait = (flags & VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION) != 0;
  const auto sent = packet.channel->Send(packet, BytesOf(buffer, length), wait);
  return sent ? STATUS_SUCCESS : StatusOf(sent.error());
}

// What the packet path leaves to others, so that the verifier's hooks do not weigh on it.

KMCL_COLD void RefuseNull(const char* function, const void* caller) {
  if (KMCL_VERIFIER_ON) verifier::NullPacket(function, caller);
}

KMCL_COLD void RefuseFree(VMBPACKET packet, const void* caller) {
  if (KMCL_VERIFIER_ON && PacketFrom(packet).send_limit == 0) return verifier::Free(packet, caller);
  Log(LogLevel::kError, "VmbPacketFree of a packet in the caller's own memory: ignored");
}

KMCL_COLD UINT32 CutCompletion(VMBPACKETCOMPLETION packet, UINT32 bytes, UINT32 limit,
                               const void* caller) {
  if (KMCL_VERIFIER_ON) verifier::CompletionTooLong(packet, bytes, limit, caller);
  Log(LogLevel::kError, "VmbChannelPacketComplete with %u bytes, the maximum is %u: cut", bytes,
      limit);
  return limit;
}

using Length = channel::Channel::Length;

// A packet without a completion that went the plain way.
inline NTSTATUS FinishPlain(channel::Packet& packet) {
  ChannelObject::CallRoutine(packet, STATUS_SUCCESS, {});
  return STATUS_SUCCESS;
}

[[gnu::noinline]] NTSTATUS SendUnusual(channel::Packet& packet, PVOID buffer, UINT32 length,
                                       PMDL mdl, UINT32 flags) {
  const auto* const bytes = static_cast<const std::byte*>(buffer);
  if (mdl == nullptr && buffer != nullptr) {
    if (flags == 0) {
      if (packet.channel->SendPlain<false, Length::kAny>(packet, bytes, length)) {
        return FinishPlain(packet);
      }
    } else if (flags == VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION &&
               packet.channel->SendPlain<true, Length::kAny>(packet, bytes, length)) {
      return STATUS_SUCCESS;
    }
  }
  return CheckAndSend(packet, buffer, length, UINT32_MAX, mdl, flags);
}

// What the short way could not place now.
[[gnu::noinline]] NTSTATUS SendPlainly(channel::Packet& packet, PVOID buffer, UINT32 length) {
  return CheckAndSend(packet, buffer, length, UINT32_MAX, nullptr, 0);
}

// A completion that takes more than giving the packet back.
[[gnu::noinline]] void CompletePacket(channel::IncomingPacket& packet, PVOID buffer, UINT32 bytes,
                                      const void* caller) {
  const UINT32 limit = packet.channel->config().maximum_packet_bytes;
  if (buffer == nullptr) bytes = 0;
  if (bytes > limit) {
    bytes = CutCompletion(reinterpret_cast<VMBPACKETCOMPLETION>(&packet), bytes, limit, caller);
  }
  if (!packet.channel->Complete(packet, BytesOf(buffer, bytes))) {
    Log(LogLevel::kError, "VmbChannelPacketComplete of a packet that is not outstanding: ignored");
  }
}

}  // namespace

// Also a send that the first look refuses: the true reason, or what the verifier says.
KMCL_COLD NTSTATUS SendAnyPacket(VMBPACKET packet, PVOID buffer, UINT32 length, PMDL mdl,
                                 UINT32 flags, const void* caller) {
  if (packet == nullptr) {
    if (KMCL_VERIFIER_ON) verifier::NullPacket("VmbPacketSend", caller);
    return STATUS_INVALID_PARAMETER_1;
  }
  if (KMCL_VERIFIER_ON && PacketFrom(packet).send_limit == 0) {
    return verifier::Send(
        packet, flags, "VmbPacketSend",
        [=] { return SendPacket(PacketFrom(packet), buffer, length, mdl, flags); }, caller);
  }
  if (PacketFrom(packet).routine == nullptr) return STATUS_INVALID_PARAMETER_1;
  return SendPacket(PacketFrom(packet), buffer, length, mdl, flags);
}

NTSTATUS SendPacket(channel::Packet& packet, PVOID buffer, UINT32 length, PMDL mdl, UINT32 flags) {
  return CheckAndSend(packet, buffer, length, packet.capacity, mdl, flags);
}

}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

VMBPACKET VmbPacketAllocate(VMBCHANNEL Channel) {
  if (Channel == nullptr) return nullptr;
  channel::Packet* const packet = ChannelObject::From(Channel).engine().AllocatePacket();
  if (packet == nullptr) return nullptr;
  packet->routine = reinterpret_cast<void (*)()>(&FreeWhenDone);
  return HandleOf(*packet);
}

VOID VmbPacketFree(VMBPACKET VmbPacket) {
  if (VmbPacket == nullptr) return;
  channel::Packet& packet = PacketFrom(VmbPacket);
  if (packet.in_caller_memory) {
    RefuseFree(VmbPacket, KMCL_CALLER);
  } else if (packet.state.load(std::memory_order_relaxed) != channel::Packet::State::kIdle) {
    Log(LogLevel::kError, "VmbPacketFree of a packet that is in flight: ignored");
  } else {
    packet.channel->FreePacket(packet);
  }
}

UINT32 VmbChannelSizeofPacket(VMBCHANNEL Channel) {
  return Channel == nullptr ? 0 : ChannelObject::From(Channel).engine().packet_object_bytes();
}

NTSTATUS VmbPacketInitialize(VMBCHANNEL Channel, VMBPACKET VmbPacket, UINT32 ByteCount) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (VmbPacket == nullptr || reinterpret_cast<std::uintptr_t>(VmbPacket) % kPacketAlignment != 0) {
    return STATUS_INVALID_PARAMETER_2;
  }
  channel::Channel& engine = ChannelObject::From(Channel).engine();
  if (ByteCount < engine.packet_object_bytes()) return STATUS_INVALID_PARAMETER_3;
  if (KMCL_VERIFIER_ON && engine.config().watched) {
    return verifier::Initialize(Channel, VmbPacket, KMCL_CALLER);
  }
  engine.InitializePacket(VmbPacket);
  return STATUS_SUCCESS;
}

VOID VmbPacketSetPointer(VMBPACKET PacketObject, PVOID Pointer) {
  PacketFrom(PacketObject).pointer = Pointer;
}

PVOID VmbPacketGetPointer(VMBPACKET PacketObject) { return PacketFrom(PacketObject).pointer; }

VMBCHANNEL VmbPacketGetChannel(VMBPACKET PacketObject) {
  return ChannelObject::From(*PacketFrom(PacketObject).channel).handle();
}

VOID VmbPacketSetCompletionRoutine(VMBPACKET PacketObject,
                                   PFN_VMB_PACKET_COMPLETION_ROUTINE CompletionRoutine) {
  PacketFrom(PacketObject).routine = reinterpret_cast<void (*)()>(CompletionRoutine);
}

NTSTATUS VmbPacketSend(VMBPACKET PacketObject, PVOID Buffer, UINT32 BufferLength,
                       PMDL ExternalDataMdl, UINT32 Flags) {
  // Each way out is a call in the last place, so that little is kept for it: on the short way the
  // registers are the compiler's. Without a routine, too long, or watched:
  if (PacketObject == nullptr || PacketFrom(PacketObject).routine == nullptr ||
      BufferLength >= PacketFrom(PacketObject).send_limit) [[unlikely]] {
    return SendAnyPacket(PacketObject, Buffer, BufferLength, ExternalDataMdl, Flags, KMCL_CALLER);
  }
  channel::Packet& packet = PacketFrom(PacketObject);
  // Too long for copying without a call, or nothing that everybody does.
  if ((reinterpret_cast<std::uintptr_t>(ExternalDataMdl) | Flags) != 0) [[unlikely]]
    return SendUnusual(packet, Buffer, BufferLength, ExternalDataMdl, Flags);
  if (BufferLength > channel::Channel::kShortBytes) [[unlikely]]
    return SendUnusual(packet, Buffer, BufferLength, ExternalDataMdl, Flags);
  if (Buffer == nullptr) [[unlikely]]
    return SendPlainly(packet, Buffer, BufferLength);
  if (!packet.channel->SendPlain<false, Length::kShort>(
          packet, static_cast<const std::byte*>(Buffer), BufferLength)) [[unlikely]] {
    return SendPlainly(packet, Buffer, BufferLength);
  }
  return FinishPlain(packet);
}

NTSTATUS VmbChannelSendSynchronousRequest(VMBCHANNEL Channel, PVOID Buffer, UINT32 BufferSize,
                                          PMDL ExternalDataMdl, UINT32 Flags,
                                          PVOID CompletionBuffer, PUINT32 CompletionBufferSize,
                                          PLARGE_INTEGER Timeout) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  ChannelObject& object = ChannelObject::From(Channel);
  const NTSTATUS checked =
      CheckSend(object, Buffer, BufferSize, object.engine().config().maximum_packet_bytes,
                ExternalDataMdl, Flags);
  if (checked != STATUS_SUCCESS) return checked;
  const bool wait = (Flags & VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION) != 0;
  const bool now = Timeout != nullptr && Timeout->QuadPart == 0;
  if (KMCL_VERIFIER_ON &&
      !verifier::MaySendSynchronously(
          Channel, now && !wait ? verifier::Blocks::kNo : verifier::Blocks::kYes, KMCL_CALLER)) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  if (object.is_server() && wait) return STATUS_INVALID_PARAMETER_5;
  if (CompletionBufferSize != nullptr && *CompletionBufferSize % 8 != 0) {
    return STATUS_INVALID_PARAMETER_7;
  }
  if (object.is_server() && !now) return STATUS_INVALID_PARAMETER_8;

  const std::size_t capacity =
      CompletionBuffer == nullptr || CompletionBufferSize == nullptr ? 0 : *CompletionBufferSize;
  const std::span<std::byte> reply(static_cast<std::byte*>(CompletionBuffer), capacity);
  const auto data = BytesOf(Buffer, BufferSize);
  std::optional<steady_clock::time_point> deadline;
  if (Timeout != nullptr) deadline = wdk::DeadlineOf(Timeout->QuadPart);
  endpoint::Transfers::Description description;
  channel::ExternalData external;
  if (ExternalDataMdl != nullptr) {
    const NTSTATUS described =
        Describe(object, WholeOf(ExternalDataMdl), {}, STATUS_INVALID_PARAMETER_4, description);
    if (described != STATUS_SUCCESS) return described;
    external = {.header = description.header, .transfer = description.transfer.get()};
  }
  channel::ExternalData* const along = ExternalDataMdl == nullptr ? nullptr : &external;
  const auto replied = now ? object.engine().RequestNow(data, wait, reply, along)
                           : object.engine().Request(data, wait, reply, deadline, along);
  if (external.accepted) static_cast<void>(description.transfer.release());
  if (!replied) {
    return along != nullptr && replied.error() == Error::kPacketTooLong ? STATUS_INVALID_PARAMETER_4
                                                                        : StatusOf(replied.error());
  }
  if (CompletionBufferSize != nullptr) {
    *CompletionBufferSize = static_cast<UINT32>(std::min(*replied, capacity));
  }
  return *replied > capacity && CompletionBuffer != nullptr ? STATUS_BUFFER_TOO_SMALL
                                                            : STATUS_SUCCESS;
}

VOID VmbChannelPacketComplete(VMBPACKETCOMPLETION PacketCompletionContext,
                              PVOID PacketCompletionBuffer, UINT32 BufSize) {
  if (PacketCompletionContext == nullptr) return RefuseNull("VmbChannelPacketComplete", KMCL_CALLER);
  channel::IncomingPacket& packet = IncomingFrom(PacketCompletionContext);
  channel::Channel& channel = *packet.channel;
  if (BufSize <= channel.config().maximum_packet_bytes && channel.CompletePlain(packet)) return;
  CompletePacket(packet, PacketCompletionBuffer, BufSize, KMCL_CALLER);
}

VOID VmbChannelPacketDeferToPassive(VMBPACKETCOMPLETION PacketCompletionContext) {
  if (PacketCompletionContext == nullptr) return RefuseNull("VmbChannelPacketDeferToPassive", KMCL_CALLER);
  channel::IncomingPacket& packet = IncomingFrom(PacketCompletionContext);
  if (!packet.channel->Defer(packet)) {
    Log(LogLevel::kError,
        "VmbChannelPacketDeferToPassive outside of the packet's EvtVmbChannelProcessPacket: "
        "ignored");
  }
}

VOID VmbChannelPacketFail(VMBPACKETCOMPLETION PacketCompletionContext) {
  if (PacketCompletionContext == nullptr) return RefuseNull("VmbChannelPacketFail", KMCL_CALLER);
  channel::IncomingPacket& packet = IncomingFrom(PacketCompletionContext);
  if (!packet.channel->Fail(packet)) {
    Log(LogLevel::kError, "VmbChannelPacketFail of a packet that is not outstanding: ignored");
  }
}

PVOID VmbChannelPacketGetClientContext(VMBPACKETCOMPLETION PacketCompletionContext) {
  return PacketCompletionContext == nullptr ? nullptr
                                            : IncomingFrom(PacketCompletionContext).context;
}
