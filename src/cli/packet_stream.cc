#include "cli/packet_stream.h"

#include <algorithm>
#include <array>
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

// Packets that take turns. They are placed in the ring in the order they were sent in, but their
// completion routines may overtake each other (one runs in the send, another on the dispatch
// thread), so each says for itself whether it is free.
class Pipeline {
 public:
  explicit Pipeline(ClientChannel& channel) : channel_(channel) {
    for (Turn& turn : turns_) {
      turn.owner = this;
      turn.packet.reset(VmbPacketAllocate(channel.handle()));
      if (turn.packet) {
        VmbPacketSetPointer(turn.packet.get(), &turn);
        VmbPacketSetCompletionRoutine(turn.packet.get(), OnPlaced);
      }
    }
  }

  bool ready() const {
    return std::ranges::all_of(turns_, [](const Turn& turn) { return turn.packet != nullptr; });
  }
  std::uint64_t sent() const { return sent_; }

  NTSTATUS Send(std::vector<std::byte>& payload) {
    Turn& turn = turns_[sent_ % kPackets];
    if (!turn.free.load(std::memory_order_acquire)) {
      WaitFor(turn);
      if (!turn.free.load(std::memory_order_acquire)) {
        return channel_.lost() ? STATUS_DEVICE_REMOVED : STATUS_CANCELLED;
      }
    }
    turn.free.store(false, std::memory_order_relaxed);
    const NTSTATUS status = VmbPacketSend(turn.packet.get(), payload.data(),
                                          static_cast<UINT32>(payload.size()), nullptr, 0);
    if (NT_SUCCESS(status)) {
      ++sent_;
    } else {
      turn.free.store(true, std::memory_order_relaxed);
    }
    return status;
  }

 private:
  struct Turn {
    Pipeline* owner = nullptr;
    PacketHandle packet;
    std::atomic<bool> free{true};
  };

  static VOID OnPlaced(VMBPACKET packet, NTSTATUS status, PVOID, UINT32) {
    auto& turn = *static_cast<Turn*>(VmbPacketGetPointer(packet));
    turn.owner->channel_.NoteStatus(status);
    Pipeline& self = *turn.owner;
    turn.free.store(true, std::memory_order_seq_cst);
    if (self.waiting_.load(std::memory_order_seq_cst)) {
      MainWait::Get().Wake();
    }
  }

  // Sequentially consistent with OnPlaced: either it sees the flag, or we see that its packet is
  // free. Waits for one half-way round as well: a sender that woke up for each packet would do
  // little else.
  void WaitFor(const Turn& turn) {
    const Turn& half_way = turns_[(sent_ + kPackets / 2) % kPackets];
    waiting_.store(true, std::memory_order_seq_cst);
    MainWait::Get().Until([&] {
      return (turn.free.load(std::memory_order_seq_cst) &&
              half_way.free.load(std::memory_order_seq_cst)) ||
             channel_.lost();
    });
    waiting_.store(false, std::memory_order_relaxed);
  }

  ClientChannel& channel_;
  std::array<Turn, kPackets> turns_;
  std::uint64_t sent_ = 0;  // the main thread's
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
  if (!NT_SUCCESS(status)) {
    channel.Close();  // ends the packets that still wait, before they are freed
    if (channel.lost()) {
      return Fail(kExitLost, "the other end has gone", STATUS_DEVICE_REMOVED);
    }
    if (MainWait::Get().interrupted()) {
      return Fail(kExitInterrupted, "interrupted");
    }
    return Fail(kExitFailure, "cannot send", status);
  }
  // FIFO: the device answers after it has counted the last packet.
  const auto after = QueryCounts(channel);
  StreamResult result;
  result.packets = pipeline.sent();
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  channel.Close();  // and the last completion routine has run, before the packets are freed
  if (!after) {
    return std::unexpected(after.error());
  }
  if (after->packets - before->packets != result.packets ||
      after->bytes - before->bytes != result.packets * packet_bytes) {
    return Fail(kExitFailure, "the echo device counted other packets than were sent");
  }
  return result;
}

}  // namespace kmcl::cli
