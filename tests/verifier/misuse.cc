#include "misuse.h"

#include <kmcl/gpadl.h>
#include <kmcl/wdk/pool.h>

#include <cstdlib>
#include <thread>
#include <tuple>

#include "bus.h"

namespace kmcl::verifier_test {
namespace {

// ---- Received packets.

void CompleteTwice() {
  Bus bus;
  bus.on_packet = [](VMBPACKETCOMPLETION packet, PVOID) {
    VmbChannelPacketComplete(packet, nullptr, 0);
    VmbChannelPacketComplete(packet, nullptr, 0);
  };
  bus.Open();
  bus.Send(true);
  bus.done.Wait();
  bus.received.Wait();
}

void CompleteAfterFail() {
  Bus bus;
  bus.on_packet = [](VMBPACKETCOMPLETION packet, PVOID) {
    VmbChannelPacketFail(packet);
    VmbChannelPacketComplete(packet, nullptr, 0);
  };
  bus.Open();
  bus.Send(false);
  bus.received.Wait();
}

void CompleteNothing() {
  Bus bus;
  VmbChannelPacketComplete(nullptr, nullptr, 0);
}

void KeepThroughPause() {
  Bus bus;
  bus.Open();
  bus.Send(true);
  bus.received.Wait();
  std::thread pause([&] { VmbChannelPause(bus.server_channel); });
  bus.reported.Wait();
  VmbChannelPacketComplete(bus.TakeKept(), nullptr, 0);
  pause.join();
}

void DeferLater() {
  Bus bus;
  bus.Open();
  bus.Send(true);
  bus.received.Wait();
  const VMBPACKETCOMPLETION packet = bus.TakeKept();
  VmbChannelPacketDeferToPassive(packet);
  VmbChannelPacketComplete(packet, nullptr, 0);
}

void AnswerTooMuch() {
  Bus bus;
  bus.on_packet = [](VMBPACKETCOMPLETION packet, PVOID) {
    static char answer[8192];
    VmbChannelPacketComplete(packet, answer, sizeof answer);
  };
  bus.Open();
  bus.Send(true);
  bus.done.Wait();
  bus.received.Wait();
}

void WriteIntoCompleted() {
  Bus bus;
  bus.on_packet = [](VMBPACKETCOMPLETION packet, PVOID buffer) {
    VmbChannelPacketComplete(packet, nullptr, 0);
    static_cast<volatile char*>(buffer)[0] = 1;
  };
  bus.Open();
  bus.Send(true);
  bus.done.Wait();
  bus.received.Wait();
}

// ---- Packets to send.

void SendAfterFree() {
  Bus bus;
  bus.Open();
  VMBPACKET const packet = VmbPacketAllocate(bus.client_channel);
  VmbPacketFree(packet);
  VmbPacketSend(packet, nullptr, 0, nullptr, 0);
}

void FreeTwice() {
  Bus bus;
  VMBPACKET const packet = VmbPacketAllocate(bus.client_channel);
  VmbPacketFree(packet);
  VmbPacketFree(packet);
}

void FreeAfterDefaultRoutine() {
  Bus bus;
  bus.Open();
  VMBPACKET const packet = VmbPacketAllocate(bus.client_channel);
  VmbPacketSend(packet, nullptr, 0, nullptr, 0);  // its default routine frees it
  VmbPacketFree(packet);
}

void FreeInFlight() {
  Bus bus;
  bus.Open();
  VMBPACKET const packet = bus.Send(true);
  VmbPacketFree(packet);
}

void SendInFlight() {
  Bus bus;
  bus.Open();
  VMBPACKET const packet = bus.Send(true);
  VmbPacketSend(packet, nullptr, 0, nullptr, 0);
}

struct OwnPacket {
  explicit OwnPacket(Bus& bus) : bytes(VmbChannelSizeofPacket(bus.client_channel)) {
    memory = std::aligned_alloc(16, (bytes + 15) / 16 * 16);
    VmbPacketInitialize(bus.client_channel, handle(), bytes);
  }
  ~OwnPacket() { std::free(memory); }
  VMBPACKET handle() const { return static_cast<VMBPACKET>(memory); }
  UINT32 bytes;
  void* memory;
};

void SendWithoutRoutine() {
  Bus bus;
  bus.Open();
  OwnPacket packet(bus);
  VmbPacketSend(packet.handle(), nullptr, 0, nullptr, 0);
}

void FreeOwnPacket() {
  Bus bus;
  OwnPacket packet(bus);
  VmbPacketFree(packet.handle());
}

void InitializeInFlight() {
  Bus bus;
  bus.Open();
  OwnPacket packet(bus);
  VmbPacketSetCompletionRoutine(packet.handle(), [](VMBPACKET, NTSTATUS, PVOID, UINT32) {});
  VmbPacketSend(packet.handle(), nullptr, 0, nullptr,
                VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION);
  VmbPacketInitialize(bus.client_channel, packet.handle(), packet.bytes);
  bus.received.Wait();
  bus.Close();  // before its memory goes
}

void ChangeRoutine() {
  Bus bus;
  bus.Open();
  VMBPACKET const packet = bus.Send(true);
  bus.received.Wait();
  VmbPacketSetCompletionRoutine(
      packet, [](VMBPACKET done, NTSTATUS, PVOID, UINT32) { VmbPacketFree(done); });
}

void SetPointerAfterFree() {
  Bus bus;
  VMBPACKET const packet = VmbPacketAllocate(bus.client_channel);
  VmbPacketFree(packet);
  VmbPacketSetPointer(packet, &bus);
}

void LeakPacket() {
  Bus bus;
  VmbPacketAllocate(bus.client_channel);
}

void SendNull() {
  Bus bus;
  VmbPacketSend(nullptr, nullptr, 0, nullptr, 0);
}

void SendChannel() {
  Bus bus;
  VMBPACKET const packet = VmbPacketAllocate(bus.client_channel);
  VmbChannelPause(reinterpret_cast<VMBCHANNEL>(packet));
  VmbPacketFree(packet);
}

void SendAfterSuspend() {
  Bus bus;
  bus.Open();
  VmbChannelPause(bus.client_channel);
  bus.Send(false);
}

// ---- Channels.

void EnableAfterCleanup() {
  Bus bus;
  VMBCHANNEL const stale = bus.client_channel;
  bus.CleanUp(bus.client_channel);
  if (VmbChannelEnable(stale) == STATUS_SUCCESS) std::abort();
}

void AllocateAfterCleanup() {
  Bus bus;
  VMBCHANNEL const stale = bus.client_channel;
  bus.CleanUp(bus.client_channel);
  if (VmbPacketAllocate(stale) != nullptr) std::abort();
}

void PauseGarbage() {
  Bus bus;
  long nothing[4] = {};
  VmbChannelPause(reinterpret_cast<VMBCHANNEL>(nothing));
}

void PauseAtDispatch() {
  Bus bus;
  bus.Open();
  KIRQL level = 0;
  KeRaiseIrql(DISPATCH_LEVEL, &level);
  VmbChannelPause(bus.client_channel);
  KeLowerIrql(level);
}

void RequestAtDispatch() {
  Bus bus;
  bus.Open();
  KIRQL level = 0;
  KeRaiseIrql(DISPATCH_LEVEL, &level);
  LARGE_INTEGER timeout;
  timeout.QuadPart = -10'000;
  VmbChannelSendSynchronousRequest(bus.client_channel, nullptr, 0, nullptr, 0, nullptr, nullptr,
                                   &timeout);
  KeLowerIrql(level);
}

void DisableInProcessPacket() {
  Bus bus;
  bus.on_packet = [&](VMBPACKETCOMPLETION packet, PVOID) {
    VmbChannelDisable(bus.server_channel);
    VmbChannelPacketComplete(packet, nullptr, 0);
  };
  bus.Open();
  bus.Send(true);
  bus.received.Wait();
}

void PauseInStarted() {
  Bus bus;
  bus.on_started = [&] { VmbChannelPause(bus.client_channel); };
  bus.Open();
}

void DestroyInCallback() {
  Bus bus;
  bus.on_started = [&] { KmclClientDestroy(bus.client); };
  bus.Open();
}

void RequestInStarted() {
  Bus bus;
  bus.on_started = [&] {
    VmbChannelSendSynchronousRequest(bus.client_channel, nullptr, 0, nullptr, 0, nullptr, nullptr,
                                     nullptr);
  };
  bus.Open();
}

void DisableInCompletionRoutine() {
  Bus bus;
  bus.on_done = [&](VMBPACKET packet) {
    VmbChannelDisable(bus.client_channel);
    VmbPacketFree(packet);
  };
  bus.Open();
  bus.Send(false);
}

void ConfigureEnabled() {
  Bus bus;
  bus.Open();
  VmbChannelInitSetMaximumPacketSize(bus.client_channel, 64);
}

void ConfigureWrongEnd() {
  Bus bus;
  VmbServerChannelInitSetFlags(bus.client_channel, 0);
}

void CleanUpEnabled() {
  Bus bus;
  bus.Open();
  VmbChannelCleanup(bus.client_channel);
  bus.client_channel = nullptr;
}

void DestroyWithChannel() {
  Bus bus;
  KmclClientDestroy(bus.client);
  bus.client = nullptr;
  bus.CleanUp(bus.client_channel);
}

void BeSlow() {
  Bus bus;
  bus.on_packet = [&](VMBPACKETCOMPLETION packet, PVOID) {
    bus.reported.Wait();
    VmbChannelPacketComplete(packet, nullptr, 0);
  };
  bus.Open();
  bus.Send(true);
  bus.received.Wait();
}

void ReturnRaised() {
  Bus bus;
  bus.on_started = [] {
    KIRQL level = 0;
    KeRaiseIrql(DISPATCH_LEVEL, &level);
  };
  bus.Open();
}

// ---- GPADLs.

struct Shared {
  explicit Shared(Bus& on)
      : bus(on), memory(ExAllocatePool2(POOL_FLAG_NON_PAGED, 4096, 0x74736574)) {
    std::ignore = VmbChannelCreateGpadlFromBuffer(bus.client_channel, 0, memory, 4096, &gpadl);
  }
  ~Shared() { ExFreePool(memory); }
  Bus& bus;
  PVOID memory;
  UINT32 gpadl = 0;
};

void LeaveGpadl() {
  Bus bus;
  bus.Open();
  Shared shared(bus);
  bus.Close();
}

void LeaveMapped() {
  Bus bus;
  bus.Open();
  Shared shared(bus);
  PMDL mdl = nullptr;
  std::ignore = VmbChannelMapGpadl(bus.server_channel, 0, shared.gpadl, &mdl);
  Event deleted;
  bus.on_closed = [&] {
    VmbChannelDeleteGpadl(bus.client_channel, shared.gpadl);
    deleted.Set();
  };
  bus.CleanUp(bus.server_channel);
  deleted.Wait();
}

void MapTwice() {
  Bus bus;
  bus.Open();
  Shared shared(bus);
  PMDL mdl = nullptr;
  std::ignore = VmbChannelMapGpadl(bus.server_channel, 0, shared.gpadl, &mdl);
  std::ignore = VmbChannelMapGpadl(bus.server_channel, 0, shared.gpadl, &mdl);
  VmbChannelUnmapGpadl(bus.server_channel, shared.gpadl);
  VmbChannelDeleteGpadl(bus.client_channel, shared.gpadl);
}

void UnmapTwice() {
  Bus bus;
  bus.Open();
  Shared shared(bus);
  PMDL mdl = nullptr;
  std::ignore = VmbChannelMapGpadl(bus.server_channel, 0, shared.gpadl, &mdl);
  VmbChannelUnmapGpadl(bus.server_channel, shared.gpadl);
  VmbChannelUnmapGpadl(bus.server_channel, shared.gpadl);
  VmbChannelDeleteGpadl(bus.client_channel, shared.gpadl);
}

void CreateAtDispatch() {
  Bus bus;
  bus.Open();
  KIRQL level = 0;
  KeRaiseIrql(DISPATCH_LEVEL, &level);
  Shared shared(bus);
  KeLowerIrql(level);
}

void MapAtDispatch() {
  Bus bus;
  bus.Open();
  Shared shared(bus);
  PMDL mdl = nullptr;
  KIRQL level = 0;
  KeRaiseIrql(DISPATCH_LEVEL, &level);
  std::ignore = VmbChannelMapGpadl(bus.server_channel, 0, shared.gpadl, &mdl);
  KeLowerIrql(level);
  VmbChannelDeleteGpadl(bus.client_channel, shared.gpadl);
}

constexpr Misuse kMisuse[] = {
    {"CompleteTwice", KmclCheckCompletedTwice, &CompleteTwice, "had been retired already",
     "First completed: ", "CompleteTwice", ""},
    {"CompleteAfterFail", KmclCheckCompletedTwice, &CompleteAfterFail, "by VmbChannelPacketFail",
     "First retired: ", "CompleteAfterFail", ""},
    {"KeepThroughPause", KmclCheckNotCompleted, &KeepThroughPause,
     "1 received packets of the server's channel", "Outstanding: delivered to ", "KeepThroughPause",
     "drain=100"},
    {"SendAfterFree", KmclCheckPacketFreed, &SendAfterFree,
     "VmbPacketSend was called for a packet that had been freed", "Freed: ", "SendAfterFree", ""},
    {"FreeTwice", KmclCheckPacketFreed, &FreeTwice,
     "VmbPacketFree was called for a packet that had been freed", "Freed: ", "FreeTwice", ""},
    {"FreeAfterDefaultRoutine", KmclCheckPacketFreed, &FreeAfterDefaultRoutine,
     "VmbPacketFree was called for a packet that had been freed",
     "Freed: ", "FreeAfterDefaultRoutine", ""},
    {"EnableAfterCleanup", KmclCheckChannelFreed, &EnableAfterCleanup,
     "VmbChannelEnable was called for a channel that was cleaned up",
     "Cleaned up: ", "EnableAfterCleanup", ""},
    {"AllocateAfterCleanup", KmclCheckChannelFreed, &AllocateAfterCleanup,
     "VmbPacketAllocate was called for a channel that was cleaned up",
     "Cleaned up: ", "AllocateAfterCleanup", ""},
    {"FreeInFlight", KmclCheckFreedInFlight, &FreeInFlight, "freed while it was in flight",
     "Sent: ", "FreeInFlight", ""},
    {"SendInFlight", KmclCheckSentInFlight, &SendInFlight, "sent while it was in flight",
     "First sent: ", "SendInFlight", ""},
    {"SendWithoutRoutine", KmclCheckNoRoutine, &SendWithoutRoutine, "without a completion routine",
     "Initialized: ", "SendWithoutRoutine", ""},
    {"PauseAtDispatch", KmclCheckLevel, &PauseAtDispatch,
     "VmbChannelPause is for PASSIVE_LEVEL, and was called at level 2", nullptr, "PauseAtDispatch",
     ""},
    {"RequestAtDispatch", KmclCheckLevel, &RequestAtDispatch,
     "VmbChannelSendSynchronousRequest is for PASSIVE_LEVEL", nullptr, "RequestAtDispatch", ""},
    {"DisableInProcessPacket", KmclCheckInCallback, &DisableInProcessPacket,
     "VmbChannelDisable was called from EvtVmbChannelProcessPacket", nullptr,
     "DisableInProcessPacket", ""},
    {"PauseInStarted", KmclCheckInCallback, &PauseInStarted,
     "VmbChannelPause was called from EvtVmbChannelStarted", nullptr, "PauseInStarted", ""},
    {"DestroyInCallback", KmclCheckInCallback, &DestroyInCallback,
     "KmclClientDestroy was called from EvtVmbChannelStarted", nullptr, "DestroyInCallback", ""},
    {"RequestInStarted", KmclCheckInCallback, &RequestInStarted,
     "VmbChannelSendSynchronousRequest was called from EvtVmbChannelStarted", nullptr,
     "RequestInStarted", ""},
    {"DisableInCompletionRoutine", KmclCheckInCallback, &DisableInCompletionRoutine,
     "VmbChannelDisable was called from EvtVmbPacketCompletionRoutine", nullptr,
     "DisableInCompletionRoutine", ""},
    {"ConfigureEnabled", KmclCheckInitWindow, &ConfigureEnabled, "after it had been enabled",
     "Last enabled: ", "ConfigureEnabled", ""},
    {"LeaveGpadl", KmclCheckGpadlLeft, &LeaveGpadl, "1 GPADLs of the client's channel",
     "Created: ", "LeaveGpadl", ""},
    {"LeaveMapped", KmclCheckGpadlLeft, &LeaveMapped, "1 GPADLs of the server's channel",
     "Mapped: ", "LeaveMapped", "-V14"},
    {"MapTwice", KmclCheckGpadlUnbalanced, &MapTwice, "which is mapped already",
     "Mapped: ", "MapTwice", ""},
    {"UnmapTwice", KmclCheckGpadlUnbalanced, &UnmapTwice, "which is not there, or not mapped",
     nullptr, "UnmapTwice", ""},
    {"CreateAtDispatch", KmclCheckLevel, &CreateAtDispatch,
     "VmbChannelCreateGpadl is for PASSIVE_LEVEL", nullptr, "CreateAtDispatch", ""},
    {"MapAtDispatch", KmclCheckLevel, &MapAtDispatch, "VmbChannelMapGpadl is for PASSIVE_LEVEL",
     nullptr, "MapAtDispatch", ""},
    {"BeSlow", KmclCheckSlowCallback, &BeSlow, "EvtVmbChannelProcessPacket", nullptr, "BeSlow",
     "callback=100"},
    {"SendAfterSuspend", KmclCheckSendAfterSuspend, &SendAfterSuspend,
     "after EvtVmbChannelSuspend had returned", "Suspended: ", nullptr, ""},
    {"LeakPacket", KmclCheckPacketLeaked, &LeakPacket, "1 of its packets had not been freed",
     "Allocated: ", "LeakPacket", ""},
    {"FreeOwnPacket", KmclCheckFreeOfCallers, &FreeOwnPacket, "in the caller's own memory",
     "Initialized: ", "FreeOwnPacket", ""},
    {"InitializeInFlight", KmclCheckInitializeInFlight, &InitializeInFlight,
     "over a packet that is in flight", "Sent: ", "InitializeInFlight", ""},
    {"ChangeRoutine", KmclCheckRoutineChanged, &ChangeRoutine,
     "was changed while the packet was in", "Sent: ", "ChangeRoutine", ""},
    {"ReturnRaised", KmclCheckLevelChanged, &ReturnRaised,
     "was entered at level 0 and has returned at level 2", nullptr, nullptr, ""},
    {"CompleteNothing", KmclCheckHandle, &CompleteNothing,
     "VmbChannelPacketComplete was called with NULL", nullptr, "CompleteNothing", ""},
    {"SendNull", KmclCheckHandle, &SendNull, "VmbPacketSend was called with NULL", nullptr,
     "SendNull", ""},
    {"SendChannel", KmclCheckHandle, &SendChannel, "which is a packet, not a channel", nullptr,
     "SendChannel", ""},
    {"PauseGarbage", KmclCheckHandle, &PauseGarbage, "no handle that the library gave out", nullptr,
     "PauseGarbage", ""},
    {"ConfigureWrongEnd", KmclCheckHandle, &ConfigureWrongEnd,
     "A VmbServerChannelInitSet function was called for a client's channel",
     "Allocated: ", "ConfigureWrongEnd", ""},
    {"SetPointerAfterFree", KmclCheckWrittenAfterFree, &SetPointerAfterFree,
     "A packet was written after it was freed", "Freed: ", "SetPointerAfterFree", ""},
    {"WriteIntoCompleted", KmclCheckWrittenAfterFree, &WriteIntoCompleted,
     "The buffer of a received packet was written", "Retired: ", "WriteIntoCompleted", ""},
    {"DeferLater", KmclCheckDeferred, &DeferLater, "outside of the EvtVmbChannelProcessPacket",
     "Delivered: ", "DeferLater", ""},
    {"AnswerTooMuch", KmclCheckCompletionTooLong, &AnswerTooMuch,
     "with 8192 bytes; the maximum packet size is 4096", nullptr, "AnswerTooMuch", ""},
    {"CleanUpEnabled", KmclCheckCleanupEnabled, &CleanUpEnabled, "which is not Disabled",
     "Enabled: ", "CleanUpEnabled", ""},
    {"DestroyWithChannel", KmclCheckEndpointInUse, &DestroyWithChannel,
     "KmclClientDestroy was called while 1 of its channels", "Allocated: ", "DestroyWithChannel",
     ""},
};

}  // namespace

std::span<const Misuse> AllMisuse() { return kMisuse; }

void RunWithoutMisuse() {
  Bus bus;
  bus.on_packet = [](VMBPACKETCOMPLETION packet, PVOID buffer) {
    VmbChannelPacketComplete(packet, buffer, 8);
  };
  bus.Open();
  bus.Send(true);
  bus.done.Wait();
  bus.received.Wait();
  VmbChannelPause(bus.client_channel);
  VmbChannelStart(bus.client_channel);
}

}  // namespace kmcl::verifier_test
