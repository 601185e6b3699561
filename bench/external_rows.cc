// A mebibyte at a time: described by a packet and read by the server where it lies, or copied
// through the ring. The server reads one word of each cache line either way.
//
// Rows without "fresh" send memory that stands there already, as a file's pages do: only its first
// word is new. In rows with "fresh" the client writes into each cache line first, and the server
// checks what it finds in each.
#include <kmcl/wdk/mdl.h>
#include <kmcl/wdk/pool.h>

#include <optional>
#include <semaphore>

#include "kmcl_bus.h"

namespace kmcl::bench {
namespace {

constexpr std::size_t kBlockBytes = 1 << 20;

// What both ends do with a block, or a part of one.
class Content {
 public:
  explicit Content(bool fresh) : fresh_(fresh) {}
  void Write(std::byte* block, std::size_t bytes, std::uint64_t number) const {
    std::memcpy(block, &number, sizeof(number));
    for (std::size_t at = kLineBytes; fresh_ && at < bytes; at += kLineBytes) {
      std::memcpy(block + at, &number, sizeof(number));
    }
  }
  // The number in it.
  std::uint64_t Read(Stage& stage, const void* block, std::size_t bytes) const {
    if (!fresh_) return ReadMessage(block, bytes);
    const auto* const data = static_cast<const std::byte*>(block);
    std::uint64_t number, different = 0;
    std::memcpy(&number, data, sizeof(number));
    for (std::size_t at = kLineBytes; at < bytes; at += kLineBytes) {
      std::uint64_t word;
      std::memcpy(&word, data + at, sizeof(word));
      different |= word ^ number;
    }
    if (different != 0) stage.Fail("a block was damaged");
    return number;
  }

 private:
  const bool fresh_;
};

class Meter {
 public:
  explicit Meter(Stage& stage) : stage_(stage) {
    warm_until_ = Nanoseconds() + stage.plan().warm_nanoseconds;
  }
  // One more block. False: the time is up, and all is recorded.
  bool Count() {
    const std::uint64_t now = Nanoseconds();
    if (begun_ == 0) {
      if (now < warm_until_) return true;
      stage_.BeginDelays();
      begun_ = Nanoseconds();
      return true;
    }
    ++count_;
    if (now - begun_ < stage_.plan().nanoseconds) return true;
    stage_.NoteDelays();
    stage_.findings().messages = count_;
    stage_.findings().per_second =
        static_cast<double>(count_) * 1e9 / static_cast<double>(now - begun_);
    return false;
  }

 private:
  Stage& stage_;
  std::uint64_t warm_until_ = 0, begun_ = 0, count_ = 0;
};

// By reference: as many requests under way as there are buffers, each of memory that the server
// maps where it is (ExAllocatePool2). A completion routine fills its buffer again and sends it.
class ByReference final : public Pair {
 public:
  ByReference(bool fresh, bool local) : content_(fresh), local_(local) {}
  void Open(Stage&) override { address_ = NewAddress(local_); }

  void Near(Stage& stage) override {
    stage_ = &stage;
    stage.Meet();
    const BusClient bus(stage, address_, kShape, this, [&](VMBCHANNEL channel) {
      Require(stage, VmbChannelInitSetMaximumExternalData(channel, kBlockBytes, 1),
              "SetMaximumExternalData");
    });
    for (Buffer& buffer : buffers_) {
      buffer.owner = this;
      buffer.bytes =
          static_cast<std::byte*>(ExAllocatePool2(POOL_FLAG_NON_PAGED, kBlockBytes, kTag));
      buffer.mdl = IoAllocateMdl(buffer.bytes, kBlockBytes, FALSE, FALSE, nullptr);
      buffer.packet = VmbPacketAllocate(bus.channel());
      if (buffer.bytes == nullptr || buffer.mdl == nullptr || buffer.packet == nullptr) {
        stage.Fail("no memory");
      }
      MmBuildMdlForNonPagedPool(buffer.mdl);
      VmbPacketSetPointer(buffer.packet, &buffer);
      VmbPacketSetCompletionRoutine(buffer.packet, OnCompletion);
    }
    meter_.emplace(stage);
    left_.store(kBuffers);
    for (Buffer& buffer : buffers_) Send(buffer);
    done_.acquire();
    stage.Meet();
    for (Buffer& buffer : buffers_) {
      VmbPacketFree(buffer.packet);
      IoFreeMdl(buffer.mdl);
      ExFreePoolWithTag(buffer.bytes, kTag);
    }
  }
  void Far(Stage& stage) override {
    stage_ = &stage;
    const BusServer bus(stage, address_, kShape, this, OnPacket, [&](VMBCHANNEL channel) {
      Require(stage, VmbChannelInitSetMaximumExternalData(channel, kBlockBytes, 1),
              "SetMaximumExternalData");
    });
    stage.Meet();
    stage.MeetAsleep();
  }

 private:
  static constexpr std::size_t kBuffers = 4;
  static constexpr ULONG kTag = 0x6b6d636c;
  static constexpr BusShape kShape{.wait = Wait::kPoll};
  struct Buffer {
    ByReference* owner = nullptr;
    std::byte* bytes = nullptr;
    PMDL mdl = nullptr;
    VMBPACKET packet = nullptr;
    std::uint64_t number = 0;
  };

  void Send(Buffer& buffer) {
    buffer.number = next_++;
    content_.Write(buffer.bytes, kBlockBytes, buffer.number);
    Require(*stage_,
            VmbPacketSend(buffer.packet, &buffer.number, sizeof(buffer.number), buffer.mdl,
                          VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION),
            "VmbPacketSend");
  }
  static VOID OnCompletion(VMBPACKET packet, NTSTATUS status, PVOID answer, UINT32 bytes) {
    Buffer& buffer = *static_cast<Buffer*>(VmbPacketGetPointer(packet));
    ByReference& self = *buffer.owner;
    if (!NT_SUCCESS(status) || bytes < sizeof(buffer.number) ||
        ReadMessage(answer, sizeof(buffer.number)) != buffer.number) {
      self.stage_->Fail("an answer was wrong");
    }
    if (!self.over_ && !self.meter_->Count()) self.over_ = true;
    if (!self.over_) return self.Send(buffer);
    if (self.left_.fetch_sub(1) == 1) self.done_.release();
  }

  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes,
                       UINT32) {
    if (AnsweredHello(packet, buffer, bytes)) return;
    const auto& self =
        *static_cast<ByReference*>(static_cast<ChannelEnd*>(VmbChannelGetPointer(channel))->owner);
    PMDL mdl = nullptr;
    Require(*self.stage_,
            VmbChannelPacketGetExternalData(
                packet, VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY, &mdl),
            "GetExternalData");
    const void* const block =
        MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority | MdlMappingNoWrite);
    if (block == nullptr || MmGetMdlByteCount(mdl) != kBlockBytes) self.stage_->Fail("no block");
    std::uint64_t number = self.content_.Read(*self.stage_, block, kBlockBytes);
    VmbChannelPacketComplete(packet, &number, sizeof(number));
  }

  const Content content_;
  const bool local_;
  std::string address_;
  Stage* stage_ = nullptr;  // of this end, if they are processes; else of both
  std::array<Buffer, kBuffers> buffers_;
  std::optional<Meter> meter_;
  std::atomic<std::uint64_t> next_{0};
  bool over_ = false;
  std::atomic<std::size_t> left_{0};
  std::binary_semaphore done_{0};
};

// Copied: a block goes in packets of so many bytes, without completions, through a ring of 1 MiB.
class Copied final : public Pair {
 public:
  Copied(std::size_t packet_bytes, bool fresh, bool local)
      : packet_bytes_(packet_bytes), content_(fresh), local_(local) {}
  void Open(Stage&) override { address_ = NewAddress(local_); }

  void Near(Stage& stage) override {
    stage.Meet();
    const BusClient bus(stage, address_, Shape(Wait::kSleep), this);
    std::vector<Turn> turns(2 * kBlockBytes / packet_bytes_);
    for (Turn& turn : turns) {
      turn.packet = VmbPacketAllocate(bus.channel());
      if (turn.packet == nullptr) stage.Fail("no packets");
      VmbPacketSetPointer(turn.packet, &turn);
      VmbPacketSetCompletionRoutine(turn.packet, [](VMBPACKET packet, NTSTATUS, PVOID, UINT32) {
        static_cast<Turn*>(VmbPacketGetPointer(packet))
            ->free.store(true, std::memory_order_release);
      });
    }
    std::vector<std::byte> block(kBlockBytes);
    std::size_t next = 0;
    stage.Meet();
    for (std::uint64_t number = 0; !stage.over(); ++number) {
      // Each packet has the block's number at its beginning.
      content_.Write(block.data(), kBlockBytes, number);
      for (std::size_t at = 0; at < kBlockBytes; at += packet_bytes_) {
        std::memcpy(block.data() + at, &number, sizeof(number));
        Turn& turn = turns[next++ % turns.size()];
        while (!turn.free.load(std::memory_order_acquire)) sched_yield();
        turn.free.store(false, std::memory_order_relaxed);
        Require(stage,
                VmbPacketSend(turn.packet, block.data() + at, static_cast<UINT32>(packet_bytes_),
                              nullptr, 0),
                "VmbPacketSend");
      }
    }
    for (const Turn& turn : turns) {
      while (!turn.free.load(std::memory_order_acquire)) sched_yield();
    }
    stage.Meet();
    for (const Turn& turn : turns) VmbPacketFree(turn.packet);
  }
  void Far(Stage& stage) override {
    stage_ = &stage;
    const BusServer bus(stage, address_, Shape(Wait::kPoll), this, OnPacket);
    stage.Meet();
    stage.Meet();
    done_.acquire();
    stage.CallOver();
    stage.Meet();
  }

 private:
  struct Turn {
    VMBPACKET packet = nullptr;
    std::atomic<bool> free{true};
  };
  BusShape Shape(Wait wait) const {
    return {.wait = wait, .largest_packet = static_cast<UINT32>(packet_bytes_), .ring_pages = 257};
  }

  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes,
                       UINT32) {
    if (AnsweredHello(packet, buffer, bytes)) return;
    auto& self =
        *static_cast<Copied*>(static_cast<ChannelEnd*>(VmbChannelGetPointer(channel))->owner);
    Stage& stage = *self.stage_;
    if (bytes < self.packet_bytes_ ||
        self.content_.Read(stage, buffer, self.packet_bytes_) != self.block_) {
      stage.Fail("a packet was lost or damaged");
    }
    VmbChannelPacketComplete(packet, nullptr, 0);
    if ((self.in_block_ += self.packet_bytes_) != kBlockBytes) return;
    self.in_block_ = 0;
    ++self.block_;
    if (!self.meter_) self.meter_.emplace(stage);
    if (!self.measured_ && !self.meter_->Count()) {
      self.measured_ = true;
      self.done_.release();
    }
  }

  const std::size_t packet_bytes_;
  const Content content_;
  const bool local_;
  std::string address_;
  Stage* stage_ = nullptr;
  std::uint64_t block_ = 0;
  std::size_t in_block_ = 0;
  std::optional<Meter> meter_;
  bool measured_ = false;
  std::binary_semaphore done_{0};
};

}  // namespace

void AddExternalRows(Registry& registry) {
  for (const bool local : {false, true}) {
    for (const bool fresh : {false, true}) {
      const std::string where = std::string(local ? "local" : "shm") + (fresh ? "-fresh" : "");
      const auto add = [&](const std::string& contender,
                           std::function<std::unique_ptr<Pair>()> make) {
        registry.rows.push_back({.name = RowName("blocks", contender, kBlockBytes),
                                 .bytes = kBlockBytes,
                                 .make = std::move(make),
                                 .ends = local ? Ends::kTwoThreads : Ends::kTwoProcesses,
                                 .may_be_delayed = 0.15});
      };
      add("reference-" + where, [=] { return std::make_unique<ByReference>(fresh, local); });
      for (const std::size_t bytes : {4096u, 65536u}) {
        add("copy" + std::to_string(bytes / 1024) + "k-" + where,
            [=] { return std::make_unique<Copied>(bytes, fresh, local); });
      }
    }
  }
}

}  // namespace kmcl::bench
