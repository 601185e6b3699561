// A receiver for its tests, with a peer that writes whatever it likes.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "channel/receiver.h"
#include "channel/test_support.h"
#include "ring/outgoing_ring.h"

namespace kmcl::channel {

// A receiver on one side of a ring, and on the other a peer that writes whatever it likes.
class ReceiverTest : public ::testing::Test {
 protected:
  ReceiverTest()
      : memory_(8192, ring::Mapped::kTwice),
        channel_(Side::kServer, handler_, turns_),
        receiver_(handler_, turns_, sender_) {
    Configure({.packet_bytes = 256, .context_bytes = 0, .pipe = false});
  }
  ~ReceiverTest() override {
    for (IncomingPacket* packet : handler_.held) Complete(*packet);
    if (!attached_) return;
    receiver_.Stop();
    receiver_.Detach();
  }

  void Configure(const Receiver::Limits& limits) { receiver_.Configure(channel_, limits); }
  void Attach() {
    auto writer = ring::OutgoingRing::Create(memory_.pages());
    ASSERT_TRUE(writer);
    writer_.emplace(std::move(*writer));
    auto incoming = ring::IncomingRing::Attach(memory_.pages());
    ASSERT_TRUE(incoming);
    receiver_.Attach(std::move(*incoming), bell_);
    attached_ = true;
  }
  void Start() {
    Attach();
    receiver_.Start();
  }

  // The peer writes a packet. True if it has to ring.
  bool Write(const std::string& text, wire::PacketType type = wire::PacketType::kDataInBand,
             std::uint64_t id = 0, bool wants_completion = false,
             std::span<const std::byte> header = {}) {
    const auto written =
        writer_->Write({.type = type,
                        .flags = static_cast<std::uint16_t>(wants_completion ? 1 : 0),
                        .transaction_id = id,
                        .header = header,
                        .payload = BytesOf(text)});
    EXPECT_TRUE(written && *written == ring::WriteOutcome::kWritten);
    return writer_->Publish() == ring::Bell::kRing;
  }
  void WriteMany(int count) {
    for (int i = 0; i < count; ++i) Write("x");
  }

  Turn Deliver(Level level = Level::kDispatch, std::uint32_t spins = 0) {
    std::optional<Error> broken;
    const Turn turn = receiver_.Deliver(level, spins, broken);
    if (broken) handler_.Note(std::string("broken ") + ErrorName(*broken));
    return turn;
  }
  void Complete(IncomingPacket& packet) {
    if (!receiver_.Retire(packet)) return;
    receiver_.Recycle(packet);
    receiver_.CountRetired();
  }
  void CompleteEach() {
    handler_.on_packet = [this](IncomingPacket& packet) { Complete(packet); };
  }
  bool IsMasked() { return memory_.word(ring::RingMemory::kInterruptMask) != 0; }

  ring::RingMemory memory_;
  RecordingHandler handler_;
  RecordingTurns turns_;
  Channel channel_;
  std::shared_ptr<CountingBell> bell_ = std::make_shared<CountingBell>();
  Sender sender_;
  Receiver receiver_;
  std::optional<ring::OutgoingRing> writer_;
  bool attached_ = false;
};

}  // namespace kmcl::channel
