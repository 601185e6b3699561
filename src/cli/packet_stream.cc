#include "cli/packet_stream.h"

#include <cstring>

#include "cli/main_wait.h"
#include "devices/echo_protocol.h"

namespace kmcl::cli {
namespace {

using devices::EchoCounts;
using devices::EchoHeader;
using devices::EchoKind;
using Clock = std::chrono::steady_clock;

// A packet whose completion is the ring's having room for it: so many may wait while the ring is
// full.
constexpr std::size_t kPackets = 64;
// How many packets between two looks at the clock.
constexpr std::uint64_t kClockEvery = 256;

// The packets complete in the order they were sent in (they are placed in the ring in that order),
// so one counter says which of them are free.
class Pipeline {
 public:
  explicit Pipeline(ClientChannel& channel) : channel_(channel) {
    for (std::size_t i = 0; i < kPackets; ++i) {
      PacketHandle packet(VmbPacketAllocate(channel.handle()));
      if (!packet) {
        return;
      }
      VmbPacketSetPointer(packet.get(), this);
      VmbPacketSetCompletionRoutine(packet.get(), OnPlaced);
      packets_.push_back(std::move(packet));
    }
  }

  bool ready() const { return packets_.size() == kPackets; }
  std::uint64_t sent() const { return sent_; }

  NTSTATUS Send(std::vector<std::byte>& payload) {
    if (sent_ - placed_.load(std::memory_order_acquire) == kPackets) {
      WaitForRoom();
      if (channel_.lost()) {
        return STATUS_DEVICE_REMOVED;
      }
    }
    const NTSTATUS status = VmbPacketSend(packets_[sent_ % kPackets].get(), payload.data(),
                                          static_cast<UINT32>(payload.size()), nullptr, 0);
    if (NT_SUCCESS(status)) {
      ++sent_;
    }
    return status;
  }

 private:
  static VOID OnPlaced(VMBPACKET packet, NTSTATUS status, PVOID, UINT32) {
    auto& self = *static_cast<Pipeline*>(VmbPacketGetPointer(packet));
    self.channel_.NoteStatus(status);
    self.placed_.fetch_add(1, std::memory_order_seq_cst);
    if (self.waiting_.load(std::memory_order_seq_cst)) {
      MainWait::Get().Wake();
    }
  }

  // Sequentially consistent with OnPlaced: either it sees the flag, or we see its count.
  void WaitForRoom() {
    waiting_.store(true, std::memory_order_seq_cst);
    MainWait::Get().Until([this] {
      return sent_ - placed_.load(std::memory_order_seq_cst) <= kPackets / 2 || channel_.lost();
    });
    waiting_.store(false, std::memory_order_relaxed);
  }

  ClientChannel& channel_;
  std::vector<PacketHandle> packets_;
  std::uint64_t sent_ = 0;  // the main thread's
  std::atomic<std::uint64_t> placed_{0};
  std::atomic<bool> waiting_{false};
};

Outcome<EchoCounts> QueryCounts(ClientChannel& channel) {
  EchoHeader query{static_cast<std::uint32_t>(EchoKind::kCount), 0};
  EchoCounts counts;
  UINT32 answer_bytes = sizeof(counts);
  const NTSTATUS status = VmbChannelSendSynchronousRequest(
      channel.handle(), &query, sizeof(query), nullptr,
      VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, &counts, &answer_bytes, nullptr);
  if (!NT_SUCCESS(status)) {
    return Fail(status == STATUS_DEVICE_REMOVED ? kExitLost : kExitFailure,
                "the echo device does not say what it counted", status);
  }
  if (answer_bytes != sizeof(counts) ||
      counts.header.kind != static_cast<std::uint32_t>(EchoKind::kCount)) {
    return Fail(kExitFailure, "the echo device gave an answer that is none");
  }
  return counts;
}

}  // namespace

Outcome<StreamResult> StreamPackets(ClientChannel& channel, std::uint32_t packet_bytes,
                                    std::chrono::nanoseconds duration) {
  const auto before = QueryCounts(channel);
  if (!before) {
    return std::unexpected(before.error());
  }
  std::vector<std::byte> payload(packet_bytes);
  const EchoHeader header{static_cast<std::uint32_t>(EchoKind::kData),
                          packet_bytes - static_cast<std::uint32_t>(sizeof(EchoHeader))};
  std::memcpy(payload.data(), &header, sizeof(header));

  Pipeline pipeline(channel);
  if (!pipeline.ready()) {
    return Fail(kExitFailure, "no memory for packets", STATUS_INSUFFICIENT_RESOURCES);
  }
  const Clock::time_point begin = Clock::now();
  NTSTATUS status = STATUS_SUCCESS;
  while (NT_SUCCESS(status) && !MainWait::Get().interrupted() && Clock::now() - begin < duration) {
    for (std::uint64_t i = 0; i < kClockEvery && NT_SUCCESS(status); ++i) {
      status = pipeline.Send(payload);
    }
  }
  // FIFO: the answer comes after the last packet was counted, and so every packet is free again.
  const auto after =
      NT_SUCCESS(status)
          ? QueryCounts(channel)
          : Outcome<EchoCounts>(Fail(kExitLost, "the other end has gone", STATUS_DEVICE_REMOVED));
  StreamResult result;
  result.packets = pipeline.sent();
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  if (!after) {
    channel.Close();  // ends the packets that still wait, before they are freed
    return std::unexpected(after.error());
  }
  if (after->packets - before->packets != result.packets ||
      after->bytes - before->bytes != result.packets * packet_bytes) {
    return Fail(kExitFailure, "the echo device counted other packets than were sent");
  }
  return result;
}

}  // namespace kmcl::cli
