// Raw mode (kmcl/raw.h): the owner's own threads work on the rings of an open channel, and no
// thread of the library stands between. Between two processes, and between two threads.
#include <kmcl/raw.h>

#include <semaphore>

#include "kmcl_bus.h"

namespace kmcl::bench {
namespace {

// Nothing sleeps here but the library's threads, which have nothing to do.
constexpr BusShape kShape{.wait = Wait::kSleep, .raw = true};

// One end, once its channel may be used.
class RawEnd {
 public:
  explicit RawEnd(Stage& stage) : stage_(stage) {}

  // For the Init window.
  void Prepare(VMBCHANNEL channel) {
    channel_ = channel;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelStarted = [](VMBCHANNEL started) {
      static_cast<RawEnd*>(static_cast<ChannelEnd*>(VmbChannelGetPointer(started))->owner)
          ->started_.release();
    };
    Require(stage_, VmbChannelInitSetStateChangeCallbacks(channel, &callbacks),
            "SetStateChangeCallbacks");
  }
  void AwaitStarted() { started_.acquire(); }

  // False: full.
  bool Write(std::byte* message, std::size_t bytes) {
    const NTSTATUS status =
        KmclRawWrite(channel_, KMCL_RAW_DATA, 0, 1, message, static_cast<UINT32>(bytes));
    if (status == STATUS_SUCCESS) [[likely]]
      return true;
    if (status != STATUS_BUFFER_OVERFLOW) stage_.Fail("KmclRawWrite failed");
    return false;
  }
  void Flush() { KmclRawFlush(channel_); }

  // False: empty.
  bool Peek(KMCL_RAW_PACKET& packet) { return Got(KmclRawPeek(channel_, &packet)); }
  bool Read(std::span<std::byte> buffer, KMCL_RAW_PACKET& packet) {
    return Got(KmclRawRead(channel_, buffer.data(), static_cast<UINT32>(buffer.size()), &packet));
  }
  void Skip() { KmclRawSkip(channel_); }
  void Release() { KmclRawRelease(channel_); }

 private:
  bool Got(NTSTATUS status) {
    if (status == STATUS_SUCCESS) [[likely]]
      return true;
    if (status != STATUS_NO_MORE_ENTRIES) stage_.Fail("KmclRawPeek or Read failed");
    return false;
  }

  Stage& stage_;
  VMBCHANNEL channel_ = nullptr;
  std::binary_semaphore started_{0};
};

// Both ends' way to an open channel and back. Derived say what they do in between.
class RawPair : public Pair {
 public:
  RawPair(std::size_t bytes, bool local) : bytes_(bytes), local_(local) {}
  void Open(Stage&) final { address_ = NewAddress(local_); }
  void Near(Stage& stage) final {
    RawEnd end(stage);
    stage.Meet();
    const BusClient bus(stage, address_, kShape, &end,
                        [&](VMBCHANNEL channel) { end.Prepare(channel); });
    end.AwaitStarted();
    Client(stage, end);
    stage.Meet();
  }
  void Far(Stage& stage) final {
    RawEnd end(stage);
    const BusServer bus(stage, address_, kShape, &end, nullptr,
                        [&](VMBCHANNEL channel) { end.Prepare(channel); });
    stage.Meet();
    end.AwaitStarted();
    Server(stage, end);
    stage.Meet();
  }

 protected:
  virtual void Client(Stage& stage, RawEnd& end) = 0;
  virtual void Server(Stage& stage, RawEnd& end) = 0;
  const std::size_t bytes_;

 private:
  const bool local_;
  std::string address_;
};

// Read in place, and published every `batch` packets.
class RawStream final : public RawPair {
 public:
  RawStream(std::size_t bytes, bool local, int batch) : RawPair(bytes, local), batch_(batch) {}

 protected:
  void Client(Stage& stage, RawEnd& end) override {
    int held = 0;
    SendStream(
        stage, bytes_,
        [&](std::byte* message) {
          while (!end.Write(message, bytes_)) {
            end.Flush();
            held = 0;
            Pause();
          }
          if (++held == batch_) {
            end.Flush();
            held = 0;
          }
        },
        [&] { end.Flush(); });
  }
  void Server(Stage& stage, RawEnd& end) override {
    constexpr std::size_t kReleaseBytes = 32 * 1024;  // an eighth of the ring
    Backoff backoff(true);
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    KMCL_RAW_PACKET packet;
    for (std::size_t unreleased = 0;;) {
      if (!end.Peek(packet)) {
        end.Release();
        unreleased = 0;
        backoff.Empty();
        continue;
      }
      backoff.Took();
      const bool more = inflow.Take(packet.Payload, packet.PayloadLength);
      end.Skip();
      if (!more) return;
      if ((unreleased += packet.PayloadLength + 24) >= kReleaseBytes) {
        end.Release();
        unreleased = 0;
      }
    }
  }

 private:
  const int batch_;
};

class RawRoundTrip final : public RawPair {
 public:
  RawRoundTrip(std::size_t bytes, bool local, bool in_place)
      : RawPair(bytes, local), in_place_(in_place) {}

 protected:
  void Client(Stage& stage, RawEnd& end) override {
    std::vector<std::byte> buffer(bytes_ + 64);
    Ask(stage, bytes_, [&](std::byte* message) {
      Send(stage, end, message);
      return Receive(end, buffer, [](void*) {});
    });
  }
  void Server(Stage& stage, RawEnd& end) override {
    std::vector<std::byte> buffer(bytes_ + 64);
    stage.Meet();
    const auto answer = [&](void* payload) { Send(stage, end, static_cast<std::byte*>(payload)); };
    while ((Receive(end, buffer, answer) & kLast) == 0) {
    }
  }

 private:
  void Send(Stage& stage, RawEnd& end, std::byte* message) {
    if (!end.Write(message, bytes_)) stage.Fail("the ring is full");
    end.Flush();
  }
  // Space is given back after `then`, which answers, and every 256 packets: nobody waits for it.
  template <class Then>
  std::uint64_t Receive(RawEnd& end, std::span<std::byte> buffer, Then&& then) {
    KMCL_RAW_PACKET packet;
    while (!(in_place_ ? end.Peek(packet) : end.Read(buffer, packet))) {
    }
    const std::uint64_t number = ReadMessage(packet.Payload, bytes_);
    then(packet.Payload);
    if (in_place_) end.Skip();
    if (number % 256 == 0) end.Release();
    return number;
  }

  const bool in_place_;
};

}  // namespace

void AddRawRows(Registry& registry) {
  for (const bool local : {false, true}) {
    const std::string where = local ? "raw-local" : "raw-shm";
    const auto add = [&](std::string_view kind, const std::string& contender, std::size_t bytes,
                         std::function<std::unique_ptr<Pair>()> make) {
      registry.rows.push_back({.name = RowName(kind, contender, bytes),
                               .bytes = bytes,
                               .make = std::move(make),
                               .ends = local ? Ends::kTwoThreads : Ends::kTwoProcesses,
                               .quick = bytes == 64});
    };
    for (const std::size_t bytes : {64u, 1024u, 4096u}) {
      add("stream", where + "-each", bytes,
          [=] { return std::make_unique<RawStream>(bytes, local, 1); });
      add("stream", where + "-batch32", bytes,
          [=] { return std::make_unique<RawStream>(bytes, local, 32); });
    }
    add("roundtrip", where + "-in-place", 64,
        [=] { return std::make_unique<RawRoundTrip>(64, local, true); });
    add("roundtrip", where + "-copied", 64,
        [=] { return std::make_unique<RawRoundTrip>(64, local, false); });
  }
}

}  // namespace kmcl::bench
