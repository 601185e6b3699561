#include "driver_channel.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "payload.h"

namespace kmcl::contract {

namespace {

std::string LevelDetail() { return "irql=" + std::to_string(KeGetCurrentIrql()); }

// Counts callbacks that run at the same time.
class Running {
 public:
  Running(std::atomic<int>& count, Recorder& recorder) : count_(count) {
    if (count_.fetch_add(1) != 0) {
      recorder.Record("overlap");
    }
  }
  ~Running() { count_.fetch_sub(1); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  std::atomic<int>& count_;
};

}  // namespace

void DriverChannel::set_handle(VMBCHANNEL handle) {
  handle_ = handle;
  if (handle != nullptr) {
    VmbChannelSetPointer(handle, this);
  }
}

DriverChannel& DriverChannel::Of(VMBCHANNEL channel) {
  return *static_cast<DriverChannel*>(VmbChannelGetPointer(channel));
}

void DriverChannel::State(const char* name, NTSTATUS answer) {
  const Running running(state_callbacks_running_, recorder_);
  recorder_.Record(name, LevelDetail() + " tid=" + std::to_string(syscall(SYS_gettid)) +
                             " answer=" + std::to_string(answer));
}

VMB_CHANNEL_STATE_CHANGE_CALLBACKS DriverChannel::StateCallbacks() {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = [](VMBCHANNEL channel) -> NTSTATUS {
    const NTSTATUS answer = Of(channel).opened_status_;
    Of(channel).State("Opened", answer);
    return answer;
  };
  callbacks.EvtChannelClosed = [](VMBCHANNEL channel) { Of(channel).State("Closed"); };
  callbacks.EvtChannelSuspend = [](VMBCHANNEL channel) { Of(channel).State("Suspend"); };
  callbacks.EvtChannelStarted = [](VMBCHANNEL channel) { Of(channel).State("Started"); };
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) { Of(channel).State("PostStarted"); };
  return callbacks;
}

void DriverChannel::PnpFailure(VMBCHANNEL channel, NTSTATUS status) {
  const Running running(Of(channel).state_callbacks_running_, Of(channel).recorder_);
  Of(channel).recorder_.Record("PnpFailure", LevelDetail() + " status=" + KmclStatusName(status));
}

void DriverChannel::ProcessPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                                  UINT32 bytes, UINT32 flags) {
  DriverChannel& self = Of(channel);
  const Running running(self.packet_callbacks_running_, self.recorder_);
  self.Deliver(packet, buffer, bytes, flags);
}

void DriverChannel::ProcessingComplete(VMBCHANNEL channel, UINT32 count) {
  DriverChannel& self = Of(channel);
  const Running running(self.packet_callbacks_running_, self.recorder_);
  self.recorder_.Record("batch " + std::to_string(count), LevelDetail());
}

std::string DriverChannel::ContextDetail(VMBPACKETCOMPLETION packet, std::uint32_t number) const {
  const std::uint32_t bytes = context_bytes_;
  auto* const context = static_cast<std::byte*>(VmbChannelPacketGetClientContext(packet));
  if (bytes == 0) {
    return context == nullptr ? " ctx=none" : " ctx=unexpected";
  }
  if (context == nullptr || reinterpret_cast<std::uintptr_t>(context) % 16 != 0) {
    return " ctx=misplaced";
  }
  // Zeroed, or filled by an earlier delivery of the same packet.
  std::string seen = " ctx=zero";
  const std::byte mark = static_cast<std::byte>(number % 255 + 1);
  for (std::uint32_t i = 0; i < bytes; ++i) {
    if (context[i] == mark && (i == 0 || seen == " ctx=kept")) {
      seen = " ctx=kept";
    } else if (context[i] != std::byte{0} || seen == " ctx=kept") {
      return " ctx=foreign";
    }
  }
  std::memset(context, std::to_integer<int>(mark), bytes);
  return seen;
}

void DriverChannel::Deliver(VMBPACKETCOMPLETION packet, const void* buffer, UINT32 bytes,
                            UINT32 flags) {
  const std::span payload(static_cast<const std::byte*>(buffer), bytes);
  const std::uint32_t number = PayloadNumber(payload);
  const std::string detail = "len=" + std::to_string(bytes) + " " + LevelDetail() +
                             " flags=" + std::to_string(flags) + ContextDetail(packet, number) +
                             " tid=" + std::to_string(syscall(SYS_gettid));
  const auto busy_until = std::chrono::steady_clock::now() + std::chrono::microseconds(burn_us_);
  while (burn_us_ != 0 && std::chrono::steady_clock::now() < busy_until) {
  }
  if (!PayloadIsIntact(payload)) {
    recorder_.Record("corrupt", detail);
  }
  if (((flags & VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA) != 0 || external_always_) &&
      !LookAtExternalData(packet, number)) {
    return;
  }
  bool defer = false;
  bool fail = false;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = deferrals_.find(number); found != deferrals_.end()) {
      deferrals_.erase(found);
      defer = true;
    } else if (failures_.contains(number)) {
      fail = true;
    } else if (hold_) {
      held_[number] = {packet, payload};  // before the event: who sees it may complete the packet
      packet = nullptr;
    }
  }
  if (defer) {
    recorder_.Record("deferred " + std::to_string(number), detail);
    VmbChannelPacketDeferToPassive(packet);
    return;
  }
  recorder_.Record("packet " + std::to_string(number), detail);
  if (fail) {
    VmbChannelPacketFail(packet);
    recorder_.Record("failed " + std::to_string(number));
  } else if (packet != nullptr) {
    Retire(packet, number);
  }
}

void DriverChannel::Retire(VMBPACKETCOMPLETION packet, std::uint32_t number) {
  std::vector<std::byte> answer = MakePayload(number, answer_bytes_);
  VmbChannelPacketComplete(packet, answer.empty() ? nullptr : answer.data(),
                           static_cast<UINT32>(answer.size()));
}

void DriverChannel::CheckHeld(std::uint32_t number, const Held& held) {
  if (!PayloadIsIntact(held.payload) || PayloadNumber(held.payload) != number) {
    recorder_.Record("corrupt", "held packet " + std::to_string(number));
  }
}

VMBPACKETCOMPLETION DriverChannel::Take(std::uint32_t number) {
  Held held;
  {
    const std::lock_guard lock(mutex_);
    const auto found = held_.find(number);
    if (found == held_.end()) {
      return nullptr;
    }
    held = found->second;
    held_.erase(found);
  }
  CheckHeld(number, held);
  return held.packet;
}

bool DriverChannel::Complete(std::uint32_t number) {
  VMBPACKETCOMPLETION const packet = Take(number);
  if (packet == nullptr) {
    return false;
  }
  recorder_.Record("completing " + std::to_string(number));
  Retire(packet, number);
  return true;
}

bool DriverChannel::Fail(std::uint32_t number) {
  VMBPACKETCOMPLETION const packet = Take(number);
  if (packet == nullptr) {
    return false;
  }
  VmbChannelPacketFail(packet);
  return true;
}

void DriverChannel::CompleteAll() {
  std::map<std::uint32_t, Held> held;
  {
    const std::lock_guard lock(mutex_);
    hold_ = false;
    held.swap(held_);
  }
  for (const auto& [number, kept] : held) {
    CheckHeld(number, kept);
    Retire(kept.packet, number);
  }
}

void DriverChannel::DeferOnce(std::uint32_t number) {
  const std::lock_guard lock(mutex_);
  deferrals_.insert(number);
}

void DriverChannel::FailAt(std::uint32_t number) {
  const std::lock_guard lock(mutex_);
  failures_.insert(number);
}

void DriverChannel::PacketDone(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes) {
  auto* const self = static_cast<DriverPacket*>(VmbPacketGetPointer(packet));
  DriverChannel& channel = *self->channel;
  const std::span answer(static_cast<const std::byte*>(buffer), bytes);
  std::string detail = "len=" + std::to_string(bytes) + " " + LevelDetail();
  if (buffer != nullptr) {
    const bool ours =
        PayloadIsIntact(answer) && (bytes == 0 || PayloadNumber(answer) == self->number);
    detail += ours ? " answer=intact" : " answer=wrong";
  } else {
    detail += " answer=none";
  }
  const std::string name = "done " + std::to_string(self->number) + " " + KmclStatusName(status);
  const bool frees_itself = self->frees_itself;
  channel.recorder_.Record(name, detail);
  // Otherwise the packet may have been sent again by now, and is not ours any more.
  if (frees_itself) {
    VmbPacketFree(packet);
    delete self;
  }
}

}  // namespace kmcl::contract
