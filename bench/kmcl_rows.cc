// The whole of kmcl, from VmbPacketSend to EvtVmbChannelProcessPacket and VmbChannelPacketComplete,
// and back to the completion routine: between two processes (shm) and between two threads (local).
#include <kmcl/batch.h>

#include <optional>
#include <semaphore>

#include "kmcl_bus.h"

namespace kmcl::bench {
namespace {

constexpr ULONG kWaitForCompletion = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;

// Packets without completion, one VmbPacketSend each, or `batch` in one KmclPacketSendBatch. A
// packet comes back when it stands in the ring.
class KmclStream final : public Pair {
 public:
  KmclStream(std::size_t bytes, bool local, std::size_t batch = 1)
      : bytes_(bytes), local_(local), batch_(batch) {}

  void Open(Stage&) override { address_ = NewAddress(local_); }

  void Near(Stage& stage) override {
    stage.Meet();
    // Nothing comes back, so there is nothing to poll for: its dispatch thread is to sleep.
    const BusClient bus(stage, address_, {.wait = Wait::kSleep}, this);
    std::vector<Turn> turns(kPackets);
    for (Turn& turn : turns) {
      turn.packet = VmbPacketAllocate(bus.channel());
      if (turn.packet == nullptr) stage.Fail("no packets");
      VmbPacketSetPointer(turn.packet, &turn);
      VmbPacketSetCompletionRoutine(turn.packet, OnPlaced);
    }
    std::size_t next = 0;
    const auto take = [&] {
      Turn& turn = turns[next++ % kPackets];
      while (!turn.free.load(std::memory_order_acquire)) sched_yield();
      turn.free.store(false, std::memory_order_relaxed);
      return turn.packet;
    };
    const auto await_all = [&] {
      for (const Turn& turn : turns) {
        while (!turn.free.load(std::memory_order_acquire)) sched_yield();
      }
    };
    if (batch_ == 1) {
      SendStream(
          stage, bytes_,
          [&](std::byte* message) {
            Require(stage, VmbPacketSend(take(), message, static_cast<UINT32>(bytes_), nullptr, 0),
                    "VmbPacketSend");
          },
          await_all);
    } else {
      Batch batch(stage, batch_, bytes_);
      SendStream(
          stage, bytes_, [&](const std::byte* message) { batch.Add(take(), message); },
          [&] {
            batch.Send();
            await_all();
          });
    }
    stage.Meet();
    for (const Turn& turn : turns) VmbPacketFree(turn.packet);
  }

  void Far(Stage& stage) override {
    inflow_.emplace(stage, bytes_);
    const BusServer bus(stage, address_, {.wait = Wait::kPoll}, this, OnPacket);
    stage.Meet();
    inflow_->Begin();
    done_.acquire();
    stage.Meet();
  }

 private:
  static constexpr std::size_t kPackets = 256;
  struct Turn {
    VMBPACKET packet = nullptr;
    std::atomic<bool> free{true};
  };

  // Packets and where their bytes are, until they are sent together.
  class Batch {
   public:
    Batch(Stage& stage, std::size_t count, std::size_t bytes)
        : stage_(stage), bytes_(bytes), memory_(count * bytes), packets_(count), lengths_(count) {
      std::ranges::fill(lengths_, static_cast<UINT32>(bytes));
      for (std::size_t i = 0; i < count; ++i) buffers_.push_back(memory_.data() + i * bytes);
    }
    void Add(VMBPACKET packet, const std::byte* message) {
      std::memcpy(buffers_[count_], message, bytes_);
      packets_[count_] = packet;
      if (++count_ == packets_.size()) Send();
    }
    void Send() {
      Require(stage_,
              KmclPacketSendBatch(packets_.data(), buffers_.data(), lengths_.data(),
                                  static_cast<UINT32>(count_), 0, nullptr),
              "KmclPacketSendBatch");
      count_ = 0;
    }

   private:
    Stage& stage_;
    const std::size_t bytes_;
    std::vector<std::byte> memory_;
    std::vector<VMBPACKET> packets_;
    std::vector<PVOID> buffers_;
    std::vector<UINT32> lengths_;
    std::size_t count_ = 0;
  };

  static VOID OnPlaced(VMBPACKET packet, NTSTATUS, PVOID, UINT32) {
    static_cast<Turn*>(VmbPacketGetPointer(packet))->free.store(true, std::memory_order_release);
  }
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes,
                       UINT32) {
    if (AnsweredHello(packet, buffer, bytes)) return;
    auto& self =
        *static_cast<KmclStream*>(static_cast<ChannelEnd*>(VmbChannelGetPointer(channel))->owner);
    const bool more = self.inflow_->Take(buffer, bytes);
    VmbChannelPacketComplete(packet, nullptr, 0);
    if (!more) self.done_.release();
  }

  const std::size_t bytes_;
  const bool local_;
  const std::size_t batch_;
  std::string address_;
  std::optional<Inflow> inflow_;
  std::binary_semaphore done_{0};
};

// The server of what follows: every request is answered with its own bytes.
VOID Echo(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes, UINT32) {
  if (AnsweredHello(packet, buffer, bytes)) return;
  VmbChannelPacketComplete(packet, buffer, bytes);
}

// Transactions: each completion routine checks the answer and sends the next request.
class KmclTransactions final : public Pair {
 public:
  KmclTransactions(std::size_t bytes, bool local, Wait wait, std::size_t in_flight)
      : bytes_(bytes), local_(local), shape_{.wait = wait}, in_flight_(in_flight) {}

  void Open(Stage&) override { address_ = NewAddress(local_); }

  void Near(Stage& stage) override {
    stage_ = &stage;
    stage.Meet();
    const BusClient bus(stage, address_, shape_, this);
    for (std::size_t i = 0; i < in_flight_; ++i) {
      Slot& slot = *slots_.emplace_back(std::make_unique<Slot>(this, bytes_));
      slot.packet = VmbPacketAllocate(bus.channel());
      if (slot.packet == nullptr) stage.Fail("no packets");
      VmbPacketSetPointer(slot.packet, &slot);
      VmbPacketSetCompletionRoutine(slot.packet, OnCompletion);
    }
    const std::uint64_t now = Nanoseconds();
    warm_until_ = now + stage.plan().warm_nanoseconds;
    end_ = warm_until_ + stage.plan().nanoseconds;
    left_.store(in_flight_);
    for (const auto& slot : slots_) Send(*slot);
    done_.acquire();
    if (in_flight_ == 1) {
      latencies_.Report(stage);
    } else {
      stage.findings().messages = counted_;
      stage.findings().per_second =
          static_cast<double>(counted_) * 1e9 / static_cast<double>(ended_ - begun_);
    }
    stage.Meet();
    for (const auto& slot : slots_) VmbPacketFree(slot->packet);
  }

  void Far(Stage& stage) override {
    const BusServer bus(stage, address_, shape_, this, Echo);
    stage.Meet();
    stage.MeetAsleep();
  }

 private:
  struct Slot {
    Slot(KmclTransactions* transactions, std::size_t bytes) : owner(transactions), message(bytes) {}
    KmclTransactions* owner;
    VMBPACKET packet = nullptr;
    Message message;
    std::uint64_t number = 0;
  };
  void Send(Slot& slot) {
    slot.number = next_++;
    slot.message.Stamp(slot.number);
    Require(*stage_,
            VmbPacketSend(slot.packet, slot.message.data(), static_cast<UINT32>(bytes_), nullptr,
                          kWaitForCompletion),
            "VmbPacketSend");
  }

  static VOID OnCompletion(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes) {
    Slot& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
    slot.owner->Complete(slot, status, buffer, bytes);
  }

  // On the one dispatch thread. The first requests are sent by another, which then only waits.
  void Complete(Slot& slot, NTSTATUS status, const void* buffer, UINT32 bytes) {
    if (!NT_SUCCESS(status) || bytes < bytes_ || ReadMessage(buffer, bytes) != slot.number) {
      stage_->Fail("an answer was wrong");
    }
    if (in_flight_ == 1) {
      if (!Time()) return Finish();
    } else if (++counted_ % 64 == 0 && !Count()) {
      over_ = true;
    }
    if (over_) return Finish();
    Send(slot);
  }

  // Each round trip from completion to completion: what the driver does itself is in it.
  bool Time() {
    const std::uint64_t now = Ticks();
    if (started_ != 0) {
      latencies_.Record(now - started_);
      if (++together_ == kTogether) {
        latencies_.RecordTogether(now - group_started_, kTogether);
        together_ = 0;
      }
    }
    if (together_ == 0) {
      const std::uint64_t clock = Nanoseconds();
      if (clock > end_) return false;
      if (clock < warm_until_) {
        started_ = 0;
        return true;
      }
      if (started_ == 0) stage_->BeginDelays();
      group_started_ = started_ = Ticks();
      return true;
    }
    started_ = now;
    return true;
  }

  bool Count() {
    const std::uint64_t now = Nanoseconds();
    if (begun_ == 0 && now > warm_until_) {
      stage_->BeginDelays();
      begun_ = Nanoseconds();
      counted_ = 0;
    }
    ended_ = now;
    return now < end_;
  }

  void Finish() {
    if (left_.fetch_sub(1) != 1) return;
    stage_->NoteDelays();
    done_.release();
  }

  static constexpr int kTogether = 16;
  const std::size_t bytes_;
  const bool local_;
  const BusShape shape_;
  const std::size_t in_flight_;
  std::string address_;
  Stage* stage_ = nullptr;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::uint64_t warm_until_ = 0, end_ = 0;
  std::atomic<std::uint64_t> next_{0};
  std::uint64_t counted_ = 0, begun_ = 0, ended_ = 0;
  std::uint64_t started_ = 0, group_started_ = 0;
  int together_ = 0;
  bool over_ = false;
  Latencies latencies_;
  std::atomic<std::size_t> left_{0};
  std::binary_semaphore done_{0};
};

}  // namespace

void AddKmclRows(Registry& registry) {
  for (const bool local : {false, true}) {
    const std::string where = local ? "kmcl-local" : "kmcl-shm";
    const Ends ends = local ? Ends::kTwoThreads : Ends::kTwoProcesses;
    const auto add = [&](std::string_view kind, const std::string& contender, std::size_t bytes,
                         std::function<std::unique_ptr<Pair>()> make) {
      registry.rows.push_back(
          {.name = RowName(kind, contender, bytes),
           .bytes = bytes,
           .make = std::move(make),
           .ends = ends,
           .quick = bytes == 64,
           // A sender whose ring is full gives its CPU to its own dispatch thread.
           .may_be_delayed = kind == "stream" ? 0.15 : 0.04});
    };
    for (const std::size_t bytes : {8u, 64u, 256u, 1024u, 4096u}) {
      add("stream", where, bytes, [=] { return std::make_unique<KmclStream>(bytes, local); });
      add("stream", where + "-batch32", bytes,
          [=] { return std::make_unique<KmclStream>(bytes, local, 32); });
    }
    add("transactions", where, 64,
        [=] { return std::make_unique<KmclTransactions>(64, local, Wait::kPoll, 32); });
    add("transactions", where + "-adaptive", 64,
        [=] { return std::make_unique<KmclTransactions>(64, local, Wait::kAdaptive, 32); });
    for (const auto& [wait, name] : {std::pair{Wait::kPoll, "-poll"},
                                     {Wait::kSleep, "-sleep"},
                                     {Wait::kWindow, "-window"},
                                     {Wait::kAdaptive, "-adaptive"}}) {
      add("roundtrip", where + name, 64,
          [=] { return std::make_unique<KmclTransactions>(64, local, wait, 1); });
    }
  }
}

}  // namespace kmcl::bench
