// What a channel costs beside others: transactions on one of N open channels, or on all of them;
// how long a request waits beside a channel that floods its threads; and what N open channels cost
// that carry nothing, in time and in memory.
#include <malloc.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <semaphore>

#include "kmcl_bus.h"

namespace kmcl::bench {
namespace {

constexpr std::size_t kBytes = 64;
constexpr ULONG kMany = 1024;

BusShape Shape(ULONG channels, Wait wait) {
  return {.wait = wait, .channels = channels, .largest_packet = kBytes, .ring_pages = 5};
}

VOID Echo(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes, UINT32) {
  if (AnsweredHello(packet, buffer, bytes)) return;
  VmbChannelPacketComplete(packet, buffer, bytes);
}

// Transactions, 32 in flight on each busy channel; a completion routine sends the next.
class Busy final : public Pair {
 public:
  Busy(ULONG channels, ULONG busy, Wait wait, bool local)
      : shape_(Shape(channels, wait)), busy_(busy), local_(local) {}
  void Open(Stage&) override { address_ = NewAddress(local_); }

  void Near(Stage& stage) override {
    stage_ = &stage;
    stage.Meet();
    const BusClient bus(stage, address_, shape_, this);
    std::vector<Slot> slots(busy_ * kInFlight);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      Slot& slot = slots[i];
      slot.owner = this;
      slot.packet = VmbPacketAllocate(bus.channel(i % busy_));
      if (slot.packet == nullptr) stage.Fail("no packets");
      VmbPacketSetPointer(slot.packet, &slot);
      VmbPacketSetCompletionRoutine(slot.packet, OnCompletion);
    }
    left_.store(slots.size());
    for (Slot& slot : slots) Send(slot);
    // All of them are under way: the time begins.
    begun_at_.store(Nanoseconds(), std::memory_order_release);
    done_.acquire();
    stage.findings().messages = total_;
    stage.findings().per_second =
        static_cast<double>(total_) * 1e9 / static_cast<double>(ended_ - measured_from_);
    stage.Meet();
    for (const Slot& slot : slots) VmbPacketFree(slot.packet);
  }
  void Far(Stage& stage) override {
    const BusServer bus(stage, address_, shape_, this, Echo);
    stage.Meet();
    stage.MeetAsleep();
  }

 private:
  static constexpr std::size_t kInFlight = 32;
  struct Slot {
    Busy* owner = nullptr;
    VMBPACKET packet = nullptr;
    std::uint64_t number = 0;
  };

  void Send(Slot& slot) {
    ++slot.number;
    alignas(8) std::byte payload[kBytes] = {};
    std::memcpy(payload, &slot.number, sizeof(slot.number));
    Require(*stage_,
            VmbPacketSend(slot.packet, payload, kBytes, nullptr,
                          VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION),
            "VmbPacketSend");
  }
  static VOID OnCompletion(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes) {
    Slot& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
    slot.owner->Complete(slot, status, buffer, bytes);
  }
  // On the one dispatch thread.
  void Complete(Slot& slot, NTSTATUS status, const void* buffer, UINT32 bytes) {
    if (!NT_SUCCESS(status) || bytes < kBytes || ReadMessage(buffer, kBytes) != slot.number) {
      stage_->Fail("an answer was wrong");
    }
    if (++counted_ % 64 == 0 && !over_) LookAtTheClock();
    if (!over_) return Send(slot);
    if (left_.fetch_sub(1) == 1) done_.release();
  }
  void LookAtTheClock() {
    const std::uint64_t begun = begun_at_.load(std::memory_order_acquire);
    const std::uint64_t now = Nanoseconds();
    if (begun == 0 || now < begun + stage_->plan().warm_nanoseconds) return;
    if (measured_from_ == 0) {
      stage_->BeginDelays();
      measured_from_ = Nanoseconds();
      counted_ = 0;
    } else if (now - measured_from_ > stage_->plan().nanoseconds) {
      stage_->NoteDelays();
      total_ = counted_;
      ended_ = now;
      over_ = true;
    }
  }

  const BusShape shape_;
  const ULONG busy_;
  const bool local_;
  std::string address_;
  Stage* stage_ = nullptr;
  std::atomic<std::uint64_t> begun_at_{0};
  std::uint64_t counted_ = 0, total_ = 0, measured_from_ = 0, ended_ = 0;
  bool over_ = false;
  std::atomic<std::size_t> left_{0};
  std::binary_semaphore done_{0};
};

// Requests one by one, some time apart, on a channel that has the threads for itself, or shares
// them with one that always has 64 transactions under way.
class QuietChannel final : public Pair {
 public:
  QuietChannel(bool flooded, bool local) : flooded_(flooded), local_(local) {}
  void Open(Stage&) override { address_ = NewAddress(local_); }

  void Near(Stage& stage) override {
    stage_ = &stage;
    stage.Meet();
    const BusClient bus(stage, address_, kShape, this);
    AskForShortSlices();
    if (flooded_) BeginFlood(bus.channel(0));
    const VMBPACKET packet = VmbPacketAllocate(bus.channel(1));
    if (packet == nullptr) stage.Fail("no packets");
    VmbPacketSetPointer(packet, this);
    VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS status, PVOID, UINT32) {
      auto& self = *static_cast<QuietChannel*>(VmbPacketGetPointer(done));
      Require(*self.stage_, status, "a request");
      self.answered_at_ = Nanoseconds();
      self.answered_.release();
    });
    std::vector<double> trips;
    const std::uint64_t begun = Nanoseconds();
    const std::uint64_t measured_from = begun + stage.plan().warm_nanoseconds;
    for (std::uint64_t now = begun; now < measured_from + stage.plan().nanoseconds;) {
      Stage::Nap(kApartNanoseconds);
      now = Nanoseconds();
      Send(packet);
      answered_.acquire();
      if (now >= measured_from) trips.push_back(static_cast<double>(answered_at_ - now));
    }
    if (flooded_) EndFlood();
    VmbPacketFree(packet);
    std::ranges::sort(trips);
    const auto at = [&](std::size_t percent) { return trips[(trips.size() - 1) * percent / 100]; };
    stage.findings().messages = trips.size();
    stage.Extra("p50_us", at(50) / 1000);
    stage.Extra("p99_us", at(99) / 1000);
    stage.Meet();
  }
  void Far(Stage& stage) override {
    const BusServer bus(stage, address_, kShape, this, Echo);
    stage.Meet();
    stage.MeetAsleep();
  }

 private:
  static constexpr std::size_t kFlood = 64;
  static constexpr long kApartNanoseconds = 200'000;
  static constexpr BusShape kShape{.wait = Wait::kAdaptive,
                                   .channels = 2,
                                   .largest_packet = kBytes,
                                   .ring_pages = 5};

  void Send(VMBPACKET packet) {
    const std::array<std::byte, kBytes> payload{};
    Require(*stage_,
            VmbPacketSend(packet, const_cast<std::byte*>(payload.data()), kBytes, nullptr,
                          VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION),
            "VmbPacketSend");
  }
  // The sender competes with two busy dispatch threads for two CPUs. What it waits for a CPU is
  // the system's doing; who wants to be quick asks for short slices, and so does it.
  static void AskForShortSlices() {
    // struct sched_attr, which no header has that goes with <sched.h>.
    struct {
      std::uint32_t size = 48, policy = SCHED_OTHER;
      std::uint64_t flags = 0;
      std::int32_t nice = 0;
      std::uint32_t priority = 0;
      std::uint64_t runtime = 100'000, deadline = 0, period = 0;
    } attributes;
    static_assert(sizeof(attributes) == 48);
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);  // an older system keeps its own
  }
  void BeginFlood(VMBCHANNEL channel) {
    left_.store(kFlood);
    for (VMBPACKET& packet : flood_) {
      packet = VmbPacketAllocate(channel);
      if (packet == nullptr) stage_->Fail("no packets");
      VmbPacketSetPointer(packet, this);
      VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS, PVOID, UINT32) {
        auto& self = *static_cast<QuietChannel*>(VmbPacketGetPointer(done));
        if (!self.over_.load(std::memory_order_relaxed)) return self.Send(done);
        if (self.left_.fetch_sub(1) == 1) self.flood_over_.release();
      });
    }
    for (VMBPACKET packet : flood_) Send(packet);
  }
  void EndFlood() {
    over_ = true;
    flood_over_.acquire();
    for (VMBPACKET packet : flood_) VmbPacketFree(packet);
  }

  const bool flooded_;
  const bool local_;
  std::string address_;
  Stage* stage_ = nullptr;
  std::array<VMBPACKET, kFlood> flood_{};
  std::atomic<bool> over_{false};
  std::atomic<std::size_t> left_{0};
  std::binary_semaphore flood_over_{0};
  std::uint64_t answered_at_ = 0;  // given by answered_
  std::binary_semaphore answered_{0};
};

// Silent channels: the server's CPU time.
class SilentChannels final : public Pair {
 public:
  SilentChannels(Wait wait, bool local) : shape_(Shape(kMany, wait)), local_(local) {}
  void Open(Stage&) override { address_ = NewAddress(local_); }

  void Near(Stage& stage) override {
    stage.Meet();
    const BusClient bus(stage, address_, shape_, this);
    stage.Meet();
    // As long as the server measures, and longer; a process that polled would be measured, too.
    Stage::Nap(kSettleNanoseconds);
    Stage::Nap(static_cast<long>(stage.plan().nanoseconds));
    stage.Meet();
  }
  void Far(Stage& stage) override {
    const BusServer bus(stage, address_, shape_, this, Echo);
    stage.Meet();
    stage.MeetAsleep();
    Stage::Nap(kSettleNanoseconds / 2);
    const std::uint64_t begun = Nanoseconds(), before = CpuNanoseconds();
    Stage::Nap(static_cast<long>(stage.plan().nanoseconds));
    const std::uint64_t used = CpuNanoseconds() - before;
    stage.Extra("cpu_percent",
                100 * static_cast<double>(used) / static_cast<double>(Nanoseconds() - begun));
    stage.Meet();
  }

 private:
  static constexpr long kSettleNanoseconds = 400'000'000;
  // Of the whole process: with `local`, that is both ends.
  static std::uint64_t CpuNanoseconds() {
    timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return static_cast<std::uint64_t>(used.tv_sec) * 1'000'000'000u +
           static_cast<std::uint64_t>(used.tv_nsec);
  }
  const BusShape shape_;
  const bool local_;
  std::string address_;
};

// What a process has for itself. Rings are pages of a file, which both ends map: not counted.
class Memory {
 public:
  static std::int64_t PrivateBytes() {
    std::int64_t bytes = 0;
    std::ifstream smaps("/proc/self/smaps");
    for (std::string line; std::getline(smaps, line);) {
      // Anonymous, not Private: pages of the parent's turn private when they are written to.
      long long kilobytes = 0;
      if (std::sscanf(line.c_str(), "Anonymous: %lld", &kilobytes) == 1) bytes += kilobytes * 1024;
    }
    return bytes;
  }
};

// Open channels that have carried a packet: private memory of each end. A first bus pays for what
// comes once; the difference between a bus with few and one with many is the channels'.
class IdleMemory final : public Pair {
 public:
  void Open(Stage&) override {
    for (std::string& address : addresses_) address = NewAddress(false);
    mallopt(M_ARENA_MAX, 1);  // what malloc keeps for each thread is no channel's
  }
  void Near(Stage& stage) override {
    Run<BusClient>(stage, "client_kib", [&](std::size_t i) {
      stage.Meet();  // the server is there
      return std::make_unique<BusClient>(stage, addresses_[i], ShapeOf(i), this);
    });
  }
  void Far(Stage& stage) override {
    Run<BusServer>(stage, "server_kib", [&](std::size_t i) {
      auto server = std::make_unique<BusServer>(stage, addresses_[i], ShapeOf(i), this, Echo);
      stage.Meet();
      return server;
    });
    auto& extras = stage.findings().extras;
    stage.Extra("larger_kib", std::max(extras[0].value, extras[1].value));
  }

 private:
  static constexpr std::array<ULONG, 3> kChannels = {64, 64, 64 + kMany};

  static BusShape ShapeOf(std::size_t i) { return Shape(kChannels[i], Wait::kAdaptive); }

  template <class Bus, class Make>
  void Run(Stage& stage, std::string_view name, Make&& make) {
    std::array<std::unique_ptr<Bus>, kChannels.size()> buses;
    std::array<std::int64_t, kChannels.size()> bytes{};
    for (std::size_t i = 0; i < buses.size(); ++i) {
      const std::int64_t before = Memory::PrivateBytes();
      buses[i] = make(i);
      stage.Meet();  // all channels are open, and have carried a packet
      bytes[i] = Memory::PrivateBytes() - before;
      stage.Meet();
    }
    // One end after the other: they write to the same findings.
    const double each = static_cast<double>(bytes[2] - bytes[1]) / kMany;
    if (name == "server_kib") stage.Meet();
    stage.Extra(name, each / 1024);
    if (name != "server_kib") stage.Meet();
  }

  std::array<std::string, kChannels.size()> addresses_;
};

}  // namespace

void AddChannelRows(Registry& registry) {
  for (const bool local : {false, true}) {
    const std::string where = local ? "local" : "shm";
    const Ends ends = local ? Ends::kTwoThreads : Ends::kTwoProcesses;
    const auto busy = [&](ULONG channels, ULONG count, Wait wait, const std::string& name) {
      registry.rows.push_back(
          {.name = RowName("channels", name + "-" + where, channels),
           .bytes = kBytes,
           .make = [=] { return std::make_unique<Busy>(channels, count, wait, local); },
           .ends = ends,
           .quick = (channels == 1 || channels == kMany) && wait == Wait::kAdaptive});
    };
    for (const ULONG channels : {1u, 8u, 64u, 256u, kMany}) {
      busy(channels, 1, Wait::kAdaptive, "one-busy");
      if (channels != 1) busy(channels, channels, Wait::kAdaptive, "all-busy");
    }
    busy(1, 1, Wait::kPoll, "one-busy-poll");
    busy(kMany, 1, Wait::kPoll, "one-busy-poll");
    busy(kMany, kMany, Wait::kPoll, "all-busy-poll");
    for (const bool flooded : {false, true}) {
      registry.rows.push_back(
          {.name = RowName("quiet", (flooded ? "beside-a-flood-" : "alone-") + where, kBytes),
           .bytes = kBytes,
           .make = [=] { return std::make_unique<QuietChannel>(flooded, local); },
           .ends = ends,
           .times_as_long = 5,
           .may_be_delayed = 1,
           .pinned = false});
    }
    registry.rows.push_back(
        {.name = RowName("idle", "cpu-" + where, kMany),
         .make = [=] { return std::make_unique<SilentChannels>(Wait::kAdaptive, local); },
         .ends = ends,
         .times_as_long = 12,
         .most_cells = 2});
  }
  registry.rows.push_back({.name = RowName("idle", "memory-shm", kMany),
                           .make = [] { return std::make_unique<IdleMemory>(); },
                           .times_as_long = 0.01,
                           .most_cells = 2});
}

}  // namespace kmcl::bench
