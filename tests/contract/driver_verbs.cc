// The driver's verbs for channels and packets.
#include <kmcl/raw.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "driver.h"
#include "payload.h"

namespace kmcl::contract {

namespace {

std::string Text(NTSTATUS status) { return std::to_string(status); }

UINT32 Number(const Words& words, std::size_t index) {
  return static_cast<UINT32>(std::stoul(words.at(index)));
}

// Numbers stand for GUIDs, so that lines stay short; bus_fixture.h has the same function.
GUID GuidOf(UINT32 number) { return GUID{number, 0x4b4d, 0x434c, {0x80, 0, 0, 0, 0, 0, 0, 1}}; }

}  // namespace

std::string Driver::Allocate(const Words& words) {
  const bool is_server = words.at(1) == "server";
  PDEVICE_OBJECT device = nullptr;
  if (is_server) {
    device = KmclServerDeviceObject(server_);
  } else {
    device = KmclClientDeviceObject(clients_.at(std::stoi(words.at(2))));
  }
  auto channel = std::make_unique<DriverChannel>(is_server);
  VMBCHANNEL handle = nullptr;
  const NTSTATUS status = VmbChannelAllocate(device, is_server ? TRUE : FALSE, &handle);
  channel->set_handle(handle);
  const std::lock_guard lock(mutex_);
  channels_.push_back(std::move(channel));
  return Text(status) + " " + std::to_string(channels_.size() - 1);
}

std::string Driver::Init(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  VMBCHANNEL const handle = channel->handle();
  const std::string& what = words.at(2);
  if (what == "states") {
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks = DriverChannel::StateCallbacks();
    return Text(VmbChannelInitSetStateChangeCallbacks(handle, &callbacks));
  }
  if (what == "packets") {
    return Text(VmbChannelInitSetProcessPacketCallbacks(handle, DriverChannel::ProcessPacket,
                                                        DriverChannel::ProcessingComplete));
  }
  if (what == "packets-without-batch") {
    return Text(
        VmbChannelInitSetProcessPacketCallbacks(handle, DriverChannel::ProcessPacket, nullptr));
  }
  if (what == "interface") {
    return Text(VmbServerChannelInitSetTargetInterfaceId(handle, GuidOf(Number(words, 3)),
                                                         GuidOf(Number(words, 4))));
  }
  if (what == "partition") {
    HANDLE kernel = nullptr;
    NTSTATUS status = VmbConvertVmbusHandleToKernelHandle(Partition(Number(words, 3)), &kernel);
    if (NT_SUCCESS(status)) {
      status = VmbServerChannelInitSetVmbusHandle(handle, kernel);
      ZwClose(kernel);
    }
    return Text(status);
  }
  if (what == "target") {
    const GUID type = GuidOf(Number(words, 3));
    const bool any = words.at(4) == "any";
    const GUID instance = any ? GUID{} : GuidOf(Number(words, 4));
    return Text(VmbClientChannelInitSetTargetPnp(handle, &type, any ? nullptr : &instance,
                                                 DriverChannel::PnpFailure));
  }
  if (what == "maximum") {
    return Text(VmbChannelInitSetMaximumPacketSize(handle, Number(words, 3)));
  }
  if (what == "pages") {
    return Text(
        VmbClientChannelInitSetRingBufferPageCount(handle, Number(words, 3), Number(words, 4)));
  }
  if (what == "context") {
    channel->set_context_bytes(Number(words, 3));
    return Text(VmbChannelInitSetClientContextSize(handle, Number(words, 3)));
  }
  if (what == "external") {
    return Text(VmbChannelInitSetMaximumExternalData(handle, Number(words, 3), Number(words, 4)));
  }
  if (what == "flags") {
    return Text(VmbChannelInitSetFlags(handle, Number(words, 3)));
  }
  if (what == "server-flags") {
    return Text(VmbServerChannelInitSetFlags(handle, Number(words, 3)));
  }
  if (what == "save-packets") {
    return Text(VmbServerChannelInitSetSaveRestorePacketCallbacks(
        handle, DriverChannel::SavePacket, DriverChannel::RestorePacket));
  }
  if (what == "vtl") {
    return Text(VmbServerChannelInitSetTargetVtl(handle, static_cast<UINT8>(Number(words, 3))));
  }
  if (what == "mmio") {
    return Text(VmbServerChannelInitSetMmioMegabytes(handle, static_cast<UINT16>(Number(words, 3)),
                                                     static_cast<UINT16>(Number(words, 4))));
  }
  if (what == "raw") return Text(KmclChannelInitSetRaw(handle));
  if (what == "primary") {
    return Text(VmbChannelInitSetPrimaryChannel(handle, Find(words.at(3))->handle()));
  }
  if (what == "processor") {
    return Text(VmbClientChannelInitSetTargetProcessorIndex(handle, Number(words, 3)));
  }
  return "unknown init " + what;
}

std::string Driver::Enable(const Words& words) {
  return Text(VmbChannelEnable(Find(words.at(1))->handle()));
}

std::string Driver::Disable(const Words& words) {
  VmbChannelDisable(Find(words.at(1))->handle());
  return "ok";
}

std::string Driver::Start(const Words& words) {
  VmbChannelStart(Find(words.at(1))->handle());
  return "ok";
}

std::string Driver::Pause(const Words& words) {
  VmbChannelPause(Find(words.at(1))->handle());
  return "ok";
}

std::string Driver::Cleanup(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  VMBCHANNEL const handle = channel->handle();
  channel->set_handle(nullptr);
  VmbChannelCleanup(handle);
  return "ok";
}

std::string Driver::Set(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  const std::string& what = words.at(2);
  const UINT32 value = static_cast<UINT32>(std::stoll(words.at(3)));
  if (what == "hold") {
    channel->set_hold(value != 0);
  } else if (what == "answer") {
    channel->set_answer_bytes(value);
  } else if (what == "save-status") {
    channel->set_save_status(static_cast<NTSTATUS>(value));
  } else if (what == "restore-status") {
    channel->set_restore_status(static_cast<NTSTATUS>(value));
  } else if (what == "opened-status") {
    channel->set_opened_status(static_cast<NTSTATUS>(value));
  } else if (what == "defer") {
    channel->DeferOnce(value);
  } else if (what == "fail") {
    channel->FailAt(value);
  } else if (what == "external-read-only") {
    channel->set_external_read_only(value != 0);
  } else if (what == "external-always") {
    channel->set_external_always(value != 0);
  } else if (what == "external-pending") {
    KmclChannelForceExternalDataPending(channel->handle(), value);
  } else if (what == "quota") {
    VmbChannelSetTransactionQuota(channel->handle(), value);
  } else if (what == "share") {
    VmbChannelSetAllowableDpcCpuUsage(channel->handle(), value);
  } else if (what == "burn") {
    channel->set_burn_us(value);
  } else if (what == "passive") {
    VmbChannelSetIncomingProcessingAtPassive(channel->handle(), value != 0 ? TRUE : FALSE);
  } else {
    return "unknown set " + what;
  }
  return "ok";
}

std::string Driver::Get(const Words& words) {
  VMBCHANNEL const handle = Find(words.at(1))->handle();
  const std::string& what = words.at(2);
  if (what == "counters") {
    KMCL_CHANNEL_COUNTERS counters{};
    counters.Size = sizeof(counters);
    const NTSTATUS status = KmclChannelQueryCounters(handle, &counters);
    std::string text = Text(status);
    for (const UINT64 count :
         {counters.PacketsSent, counters.BytesSent, counters.CompletionsSent,
          counters.PacketsReceived, counters.BytesReceived, counters.CompletionsReceived,
          counters.CompletionsUnexpected, counters.Batches, counters.BellsRung,
          counters.BellsReceived, counters.RingFull, counters.TransactionsStarted,
          counters.TransactionsCompleted, counters.TransactionsCancelled, counters.Outstanding,
          counters.Queued}) {
      text += " " + std::to_string(count);
    }
    return text;
  }
  if (what == "instance") {
    GUID instance{};
    VmbChannelGetInterfaceInstance(handle, &instance);
    return std::to_string(instance.Data1);
  }
  if (what == "mmio") {
    UINT64 address = 1;
    UINT64 bytes = 1;
    VmbChannelGetMmioSpace(handle, &address, &bytes);
    return std::to_string(address) + " " + std::to_string(bytes);
  }
  if (what == "latency") {  // sets, and says what was
    UINT16 before = 0;
    const NTSTATUS status =
        VmbChannelSetInterruptLatency(handle, static_cast<UINT16>(Number(words, 3)), &before);
    return Text(status) + " " + std::to_string(before);
  }
  if (what == "target-device") {
    return VmbChannelGetTargetDeviceObject(handle) == nullptr                               ? "none"
           : VmbChannelGetTargetDeviceObject(handle) == VmbChannelGetParentDeviceObject(handle)
               ? "parent"
               : "other";
  }
  if (what == "pointer") {
    return VmbChannelGetPointer(handle) == Find(words.at(1)) ? "1" : "0";
  }
  return "unknown get " + what;
}

std::string Driver::Packet(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  auto packet = std::make_unique<DriverPacket>();
  packet->channel = channel;
  if (words.at(2) == "initialize") {
    const UINT32 bytes = VmbChannelSizeofPacket(channel->handle());
    packet->memory = std::make_unique<std::byte[]>(bytes);  // operator new aligns to 16
    packet->handle = reinterpret_cast<VMBPACKET>(packet->memory.get());
    if (!NT_SUCCESS(VmbPacketInitialize(channel->handle(), packet->handle, bytes))) {
      return "failed";
    }
  } else {
    packet->handle = VmbPacketAllocate(channel->handle());
    if (packet->handle == nullptr) {
      return "failed";
    }
  }
  VmbPacketSetPointer(packet->handle, packet.get());
  VmbPacketSetCompletionRoutine(packet->handle, DriverChannel::PacketDone);
  const std::lock_guard lock(mutex_);
  const int id = next_id_++;
  packets_[id] = std::move(packet);
  return std::to_string(id);
}

std::string Driver::Send(const Words& words) {
  DriverPacket* packet = nullptr;
  {
    const std::lock_guard lock(mutex_);
    packet = packets_.at(std::stoi(words.at(1))).get();
  }
  std::vector<std::byte> payload = MakePayload(Number(words, 2), Number(words, 3));
  const std::uint32_t before = packet->number.exchange(Number(words, 2));
  const NTSTATUS status =
      VmbPacketSend(packet->handle, payload.empty() ? nullptr : payload.data(),
                    static_cast<UINT32>(payload.size()), nullptr, Number(words, 4));
  if (!NT_SUCCESS(status)) {
    packet->number = before;
  }
  return Text(status);
}

std::string Driver::Post(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  auto packet = std::make_unique<DriverPacket>();
  packet->channel = channel;
  packet->number = Number(words, 2);
  packet->frees_itself = true;
  packet->handle = VmbPacketAllocate(channel->handle());
  if (packet->handle == nullptr) {
    return Text(STATUS_INSUFFICIENT_RESOURCES);
  }
  VmbPacketSetPointer(packet->handle, packet.get());
  VmbPacketSetCompletionRoutine(packet->handle, DriverChannel::PacketDone);
  std::vector<std::byte> payload = MakePayload(packet->number, Number(words, 3));
  // The routine may run, and free the packet, before the send returns.
  DriverPacket* const sent = packet.release();
  const NTSTATUS status =
      VmbPacketSend(sent->handle, payload.empty() ? nullptr : payload.data(),
                    static_cast<UINT32>(payload.size()), nullptr, Number(words, 4));
  // The buffer was taken over: whatever it holds from here on must not arrive.
  std::fill(payload.begin(), payload.end(), std::byte{0xEE});
  if (!NT_SUCCESS(status)) {
    VmbPacketFree(sent->handle);
    delete sent;
  }
  return Text(status);
}

std::string Driver::Plain(const Words& words) {
  VMBPACKET const packet = VmbPacketAllocate(Find(words.at(1))->handle());
  std::vector<std::byte> payload = MakePayload(Number(words, 2), Number(words, 3));
  const NTSTATUS status =
      VmbPacketSend(packet, payload.data(), static_cast<UINT32>(payload.size()), nullptr, 0);
  if (!NT_SUCCESS(status)) {
    VmbPacketFree(packet);
  }
  return Text(status);
}

std::string Driver::Synchronous(const Words& words) {
  std::vector<std::byte> payload = MakePayload(Number(words, 2), Number(words, 3));
  LARGE_INTEGER timeout{};
  const bool unlimited = words.at(5) == "none";
  if (!unlimited) {
    timeout.QuadPart = std::stoll(words.at(5));
  }
  UINT32 capacity = Number(words, 6);
  std::vector<std::byte> answer(capacity + 8, std::byte{0xEE});
  const NTSTATUS status = VmbChannelSendSynchronousRequest(
      Find(words.at(1))->handle(), payload.empty() ? nullptr : payload.data(),
      static_cast<UINT32>(payload.size()), nullptr, Number(words, 4),
      capacity == 0 ? nullptr : answer.data(), capacity == 0 ? nullptr : &capacity,
      unlimited ? nullptr : &timeout);
  std::string text = Text(status) + " " + std::to_string(capacity);
  const std::span written(answer.data(), std::min<std::size_t>(capacity, answer.size()));
  for (std::size_t i = answer.size() - 8; i < answer.size(); ++i) {
    if (answer[i] != std::byte{0xEE}) {
      text += " overrun";
    }
  }
  if (NT_SUCCESS(status) && !written.empty()) {
    const bool ours = PayloadNumber(written) == Number(words, 2) && PayloadIsIntact(written);
    text += ours ? " intact" : " wrong";
  }
  return text;
}

std::string Driver::Complete(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  if (words.at(2) == "all") {
    channel->CompleteAll();
    return "ok";
  }
  return channel->Complete(Number(words, 2)) ? "ok" : "not held";
}

std::string Driver::Fail(const Words& words) {
  return Find(words.at(1))->Fail(Number(words, 2)) ? "ok" : "not held";
}

}  // namespace kmcl::contract
