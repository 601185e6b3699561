// One end of a channel, server's or client's, with a driver that does what it likes and a peer that
// writes any packet, with pipe headers or without, completes what was never sent, and changes what
// lies in the rings. Whatever comes: a packet that was accepted ends once, a packet that was
// delivered is no longer than agreed and is retired once, and the channel can be disabled.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "channel/channel.h"
#include "input.h"
#include "log.h"
#include "ring/ring_test_memory.h"
#include "wire/pipe.h"

namespace kmcl::channel {
namespace {

using fuzz::Input;

constexpr std::uint32_t kMostBytes = 256;

class Bell final : public transport::Doorbell {
 public:
  void Ring() override {}
};

class World final : public Handler, public Turns {
 public:
  explicit World(Input& input)
      : input_(input),
        side_(input.Flag() ? Side::kServer : Side::kClient),
        pipe_(input.Flag()),
        up_(4096 * (1 + input.Below(2)), ring::Mapped::kTwice),
        down_(4096, ring::Mapped::kTwice),
        channel_(side_, *this, *this) {}

  void Run() {
    Config& config = *channel_.config_in_init_window();
    config.maximum_packet_bytes = kMostBytes;
    config.pipe = pipe_;
    config.context_bytes = input_.Below(2) * 32;
    config.maximum_packets = input_.Below(4) * 4;
    FUZZ_REQUIRE(channel_.Enable().has_value());
    channel_.ConfirmEnable();
    Open();
    while (!input_.empty()) {
      Step();
      RunState();
    }
    for (IncomingPacket* packet : std::exchange(held_, {})) {
      FUZZ_REQUIRE(channel_.Complete(*packet, {}));
    }
    retiring_ = true;
    Settle([this] { channel_.Disable(); });
    FUZZ_REQUIRE(sent_ == done_);
    FUZZ_REQUIRE(held_.empty());
    FUZZ_REQUIRE(opened_ == closed_);
  }

  // ---- What the channel asks of its owner.
  bool OnOpened() override {
    const bool opens = retiring_ || input_.Below(8) != 1;
    if (opens) ++opened_;
    return opens;
  }
  void OnClosed() override { ++closed_; }
  void OnSuspend() override {}
  void OnStarted() override {}
  void OnPostStarted() override {}
  void OnConnectFailed(Error) override {}
  void OnPacket(IncomingPacket& packet) override {
    FUZZ_REQUIRE(packet.payload.size() <= kMostBytes);
    for (const std::byte each : packet.payload) sum_ += std::to_integer<unsigned>(each);
    for (const std::byte each : packet.header) sum_ += std::to_integer<unsigned>(each);
    switch (retiring_ ? 0 : input_.Below(8)) {
      case 1:
        FUZZ_REQUIRE(channel_.Defer(packet));
        FUZZ_REQUIRE(!channel_.Complete(packet, {}));
        return;
      case 2:
        FUZZ_REQUIRE(channel_.Fail(packet));
        return;
      case 3:
      case 4:
      case 5:
        held_.push_back(&packet);
        return;
      default:
        FUZZ_REQUIRE(channel_.Complete(packet, packet.payload));
        return;
    }
  }
  void OnBatchEnd(std::uint32_t packets) override { FUZZ_REQUIRE(packets > 0); }
  void OnPacketDone(Packet& packet, Outcome, std::span<std::byte> reply) override {
    for (const std::byte each : reply) sum_ += std::to_integer<unsigned>(each);
    ++done_;
    channel_.FreePacket(packet);
  }
  void RequestDispatch() override { wants_dispatch_ = true; }
  void RequestPassive() override { wants_passive_ = true; }
  void RequestState() override {
    wants_state_ = true;
    if (settling_) RunState();
  }

 private:
  void Step() {
    switch (input_.Below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return PeerWrites();
      case 4:
      case 5:
        return Turn();
      case 6:
        if (std::exchange(wants_passive_, false)) channel_.DeliverPassive();
        return;
      case 7: {
        if (held_.empty()) return;
        IncomingPacket& packet = Held();
        static const std::vector<std::byte> reply(kMostBytes);
        FUZZ_REQUIRE(
            channel_.Complete(packet, std::span(reply).first(input_.Number() % kMostBytes)));
        return;
      }
      case 8:
      case 9:
        return Send();
      case 10:
      case 11:
        return PeerReads();
      case 12:
        return Spoil();
      case 13:
        return Wish();
      case 14:
        if (!held_.empty()) FUZZ_REQUIRE(channel_.Fail(Held()));
        return;
      default:
        return Change();
    }
  }

  ring::RingMemory& Incoming() { return side_ == Side::kServer ? up_ : down_; }
  ring::RingMemory& Outgoing() { return side_ == Side::kServer ? down_ : up_; }

  // Any one of what the driver has and has not retired.
  IncomingPacket& Held() {
    const std::size_t index = input_.Below(256) % held_.size();
    IncomingPacket& packet = *held_[index];
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
    return packet;
  }

  static transport::RingMapping::View View(const ring::RingMemory& memory) {
    return {.control = memory.pages().control,
            .data = memory.data(),
            .data_bytes = memory.data_bytes()};
  }

  // The peer of a server makes the rings, and makes them as it likes.
  void Open() {
    if (channel_.is_open()) return;
    const auto make_peer = [this](bool creates) {
      auto writer = creates ? ring::OutgoingRing::Create(Incoming().pages())
                            : ring::OutgoingRing::Attach(Incoming().pages());
      auto reader = creates ? ring::IncomingRing::Create(Outgoing().pages())
                            : ring::IncomingRing::Attach(Outgoing().pages());
      if (!writer || !reader) return;
      writer_.emplace(std::move(*writer));
      reader_.emplace(std::move(*reader));
    };
    writer_.reset();
    reader_.reset();
    if (side_ == Side::kServer) {
      make_peer(true);
      if (input_.Below(8) == 0) Spoil();
    }
    transport::RingMapping rings;
    rings.client_to_server = View(up_);
    rings.server_to_client = View(down_);
    if (!channel_.AttachRings(
            rings,
            side_ == Side::kServer ? Channel::RingOrigin::kPeers : Channel::RingOrigin::kOurs,
            std::make_shared<Bell>())) {
      return;
    }
    if (side_ == Side::kClient) make_peer(false);
    channel_.OnOpen();
    RunState();
    if (side_ == Side::kServer) channel_.Start();
    RunState();
  }

  void PeerWrites() {
    if (!writer_) return;
    static constexpr wire::PacketType kTypes[] = {
        wire::PacketType::kDataInBand,         wire::PacketType::kDataInBand,
        wire::PacketType::kCompletion,         wire::PacketType::kCompletion,
        wire::PacketType::kDataUsingGpaDirect, wire::PacketType::kDataUsingTransferPages,
        wire::PacketType::kDataUsingGpadl};
    const std::uint32_t which = input_.Below(16);
    const auto type = which < std::size(kTypes) ? kTypes[which]
                      : which < 14              ? wire::PacketType::kDataInBand
                                                : static_cast<wire::PacketType>(input_.Byte());
    const auto header = input_.Below(4) == 0 ? input_.Bytes(64) : std::span<const std::byte>{};
    std::vector<std::byte> payload;
    if (pipe_ && input_.Below(8) != 0) {
      const wire::PipeHeader pipe{.type = input_.Below(8) == 0
                                              ? static_cast<wire::PipePacketType>(input_.Number())
                                              : wire::PipePacketType::kData,
                                  .len = input_.Number()};
      payload.resize(sizeof pipe + (input_.Flag() ? pipe.len % 400 : input_.Byte()));
      std::memcpy(payload.data(), &pipe, sizeof pipe);
    } else {
      payload.resize(input_.Number() % 400);
    }
    const auto written =
        writer_->Write({.type = type,
                        .flags = static_cast<std::uint16_t>(input_.Below(8) == 0 ? input_.Byte()
                                                                                 : input_.Below(2)),
                        .transaction_id = input_.Flag() ? last_id_ : input_.Number(),
                        .header = header.first(header.size() / 8 * 8),
                        .payload = payload});
    (void)written;  // the peer's own affair
    (void)writer_->Publish();
  }

  void PeerReads() {
    if (!reader_) return;
    std::vector<std::byte> buffer(Outgoing().data_bytes());
    const auto packet = reader_->Read(buffer);
    if (!packet || !*packet) return;
    // What the channel writes keeps the rules, unless the peer has spoilt it.
    FUZZ_REQUIRE(spoilt_ || (*packet)->payload.size() <= kMostBytes + sizeof(wire::PipeHeader) + 8);
    last_id_ = (*packet)->transaction_id;
    if (input_.Flag()) (void)reader_->Release();
  }

  void Turn() {
    wants_dispatch_ = false;
    for (int i = 0; i < 64; ++i) {
      const auto turn = channel_.Dispatch(input_.Below(8) == 0 ? 1 : 0);
      if (turn != channel::Turn::kMore && !std::exchange(wants_dispatch_, false)) return;
    }
  }

  void Send() {
    static const std::vector<std::byte> bytes(2 * kMostBytes);
    const auto data = std::span(bytes).first(input_.Number() % bytes.size());
    const bool wants_completion = input_.Flag();
    if (input_.Below(4) == 0) {
      std::vector<std::byte> reply(input_.Number() % kMostBytes);
      (void)channel_.RequestNow(data, wants_completion, reply);
      return;
    }
    Packet* const packet = channel_.AllocatePacket();
    if (packet == nullptr) return;
    ++sent_;
    if (const auto sent = channel_.Send(*packet, data, wants_completion); !sent) {
      --sent_;
      channel_.FreePacket(*packet);
    }
  }

  void Wish() {
    switch (input_.Below(4)) {
      case 0:
        // A pause waits for what the driver has.
        for (IncomingPacket* packet : std::exchange(held_, {})) channel_.Complete(*packet, {});
        return Settle([this] { channel_.Pause(); });
      case 1:
        return channel_.Start();
      case 2:
        channel_.OnClose();
        return;
      default:
        return Open();
    }
  }

  void Change() {
    switch (input_.Below(3)) {
      case 0:
        return channel_.SetQuota(input_.Flag() ? UINT32_MAX : 1 + input_.Below(4));
      case 1:
        return channel_.SetPassive(input_.Flag());
      default:
        (void)channel_.counters();
        (void)channel_.must_poll();
        return;
    }
  }

  void Spoil() {
    spoilt_ = true;
    ring::RingMemory& memory = input_.Flag() ? Incoming() : Outgoing();
    static constexpr std::size_t kWords[] = {
        ring::RingMemory::kWriteIndex, ring::RingMemory::kReadIndex,
        ring::RingMemory::kInterruptMask, ring::RingMemory::kPendingSend,
        ring::RingMemory::kFeatureBits};
    const std::uint32_t which = input_.Below(8);
    if (which < std::size(kWords)) {
      return memory.set_word(
          kWords[which], input_.Flag() ? input_.Get<std::uint32_t>()
                                       : input_.Get<std::uint16_t>() % memory.data_bytes() / 8 * 8);
    }
    const std::uint32_t at = input_.Get<std::uint16_t>() % memory.data_bytes();
    const auto bytes = input_.Bytes(32);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      memory.data()[(at + i) % memory.data_bytes()] = bytes[i];
    }
  }

  // For calls that wait for the state worker, who is this thread.
  template <typename Call>
  void Settle(Call call) {
    settling_ = true;
    call();
    settling_ = false;
  }
  void RunState() {
    if (running_) return;
    running_ = true;
    while (std::exchange(wants_state_, false)) {
      while (channel_.RunState()) {
      }
    }
    running_ = false;
  }

  Input& input_;
  const Side side_;
  const bool pipe_;
  ring::RingMemory up_;
  ring::RingMemory down_;
  std::vector<IncomingPacket*> held_;
  std::optional<ring::OutgoingRing> writer_;  // the peer's
  std::optional<ring::IncomingRing> reader_;
  std::uint64_t last_id_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t done_ = 0;
  int opened_ = 0;
  int closed_ = 0;
  unsigned sum_ = 0;
  bool spoilt_ = false;
  bool wants_dispatch_ = false;
  bool wants_passive_ = false;
  bool wants_state_ = false;
  bool settling_ = false;
  bool running_ = false;
  bool retiring_ = false;
  Channel channel_;
};

}  // namespace
}  // namespace kmcl::channel

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::SetLogSink([](void*, kmcl::LogLevel, const char*) {}, nullptr);
  kmcl::fuzz::Input input(data, size);
  kmcl::channel::World(input).Run();
  return 0;
}
