#include "channel/sender.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "channel/incoming_pool.h"
#include "channel/synchronous_wait.h"
#include "channel/test_support.h"
#include "ring/incoming_ring.h"
#include "wire/pipe.h"

namespace kmcl::channel {
namespace {

constexpr std::uint32_t kCapacity = 8192;

// A packet object with a name.
class NamedPacket {
 public:
  explicit NamedPacket(const char* name)
      : memory_(::operator new (sizeof(Packet) + kCapacity, std::align_val_t{16})),
        packet_(new (memory_) Packet) {
    packet_->pointer = const_cast<char*>(name);
    packet_->capacity = kCapacity;
  }
  ~NamedPacket() {
    packet_->~Packet();
    ::operator delete (memory_, std::align_val_t{16});
  }
  NamedPacket(const NamedPacket&) = delete;
  NamedPacket& operator=(const NamedPacket&) = delete;
  Packet& packet() { return *packet_; }

 private:
  void* memory_;
  Packet* packet_;
};

// A sender on one side of a ring, and the peer's reading end on the other.
class SenderTest : public ::testing::Test {
 protected:
  explicit SenderTest(std::uint32_t data_bytes = 4096) : memory_(data_bytes, ring::Mapped::kTwice) {
    pool_.Configure(kCapacity, 0);
  }
  ~SenderTest() override {
    Sender::Effects effects;
    sender_.CancelAll(effects);
    Carry(effects);
  }

  void Attach(bool peer_rings_for_space = true) {
    auto outgoing = ring::OutgoingRing::Create(memory_.pages());
    ASSERT_TRUE(outgoing);
    auto incoming = ring::IncomingRing::Attach(memory_.pages());
    ASSERT_TRUE(incoming);
    reader_.emplace(std::move(*incoming));
    sender_.Attach(std::move(*outgoing), bell_, peer_rings_for_space);
  }
  Lines SetMode(Sender::Mode mode) {
    Sender::Effects effects;
    sender_.SetMode(mode, effects);
    return Carry(effects);
  }
  void Run() {
    Attach();
    SetMode(Sender::Mode::kHolding);
    SetMode(Sender::Mode::kRunning);
  }

  Packet& NewPacket(const char* name) { return packets_.emplace_back(name).packet(); }

  static const char* Name(const Outgoing* item) {
    return static_cast<const char*>(static_cast<const Packet*>(item)->pointer);
  }
  // What FinishPacket does before it tells the packet's owner.
  static void End(Outgoing& item) {
    auto& packet = static_cast<Packet&>(item);
    EXPECT_EQ(packet.state.load(), Packet::State::kEnding);
    packet.state = Packet::State::kIdle;
  }
  // What the caller is asked to do, in words.
  Lines Carry(Sender::Effects& effects) {
    Lines lines;
    if (effects.bell != nullptr) lines.push_back("bell");
    if (effects.poll) lines.push_back("poll");
    while (effects.retired != nullptr) {
      IncomingPacket* const packet = effects.retired;
      effects.retired = packet->next_free;
      pool_.Put(*packet);
      lines.push_back("retired");
    }
    while (Outgoing* item = effects.too_long.Pop()) {
      lines.push_back(std::string("too long ") + Name(item));
      End(*item);
    }
    while (Outgoing* item = effects.done.Pop()) {
      lines.push_back(std::string("done ") + Name(item) + " " + NameOf(effects.outcome));
      End(*item);
    }
    if (effects.broken) lines.push_back(std::string("broken ") + ErrorName(*effects.broken));
    return lines;
  }

  Lines Send(Packet& packet, std::size_t bytes, bool wants_completion = false) {
    std::vector<std::byte> data(bytes, std::byte{'.'});
    const char* name = static_cast<const char*>(packet.pointer);
    if (bytes > 0) std::memcpy(data.data(), name, std::min(bytes, std::strlen(name)));
    Sender::Effects effects;
    const auto sent = sender_.Send(packet, data, wants_completion, effects);
    // What was handed in is consumed: nothing that waits may refer to it.
    std::fill(data.begin(), data.end(), std::byte{'!'});
    if (!sent) return {std::string("error ") + ErrorName(sent.error())};
    return Carry(effects);
  }
  Lines SendNow(Packet& packet, const std::string& text, bool wants_completion = false) {
    Sender::Effects effects;
    const auto sent = sender_.SendNow(packet, BytesOf(text), wants_completion, effects);
    Lines lines = Carry(effects);
    if (!sent) lines.push_back(std::string("error ") + ErrorName(sent.error()));
    return lines;
  }
  // Completes a received packet with this id; true in front if it was queued.
  Lines Complete(std::uint64_t id, const std::string& text) {
    IncomingPacket* const packet = pool_.Take(8);
    packet->transaction_id = wire::TransactionId{id};
    Sender::Effects effects;
    const bool kept = sender_.Complete(*packet, BytesOf(text), effects);
    Lines lines = Carry(effects);
    if (!kept) pool_.Put(*packet);
    if (kept) lines.insert(lines.begin(), "kept");
    return lines;
  }
  Lines Flush() {
    Sender::Effects effects;
    sender_.Flush(effects);
    return Carry(effects);
  }
  Lines CancelAll() {
    Sender::Effects effects;
    sender_.CancelAll(effects);
    return Carry(effects);
  }

  // The next packet in the ring: kind, id if there is one, text up to the first dot.
  std::string Next() {
    const auto read = reader_->Read(buffer_);
    if (!read) return std::string("error ") + ErrorName(read.error());
    if (!*read) return "";
    const ring::IncomingPacket& packet = **read;
    std::string line = packet.type == wire::PacketType::kDataInBand   ? "data"
                       : packet.type == wire::PacketType::kCompletion ? "completion"
                                                                      : "other";
    if ((packet.flags & wire::kPacketFlagCompletionRequested) != 0) line += "?";
    if (packet.transaction_id != 0) line += " #" + std::to_string(packet.transaction_id);
    const std::string text = TextOf(packet.payload);
    return line + " " + text.substr(0, text.find('.'));
  }
  // Reads everything and gives the space back; true if that rings the sender.
  Lines ReadAll(bool* rings = nullptr) {
    Lines lines;
    for (std::string line = Next(); !line.empty(); line = Next()) {
      lines.push_back(line);
      if (line.starts_with("error")) break;
    }
    const bool ring = reader_->Release() == ring::Bell::kRing;
    if (rings != nullptr) *rings = ring;
    return lines;
  }
  std::uint32_t SpaceWanted() { return memory_.word(ring::RingMemory::kPendingSend); }

  ring::RingMemory memory_;
  IncomingPool pool_;
  std::deque<NamedPacket> packets_;
  std::shared_ptr<CountingBell> bell_ = std::make_shared<CountingBell>();
  std::optional<ring::IncomingRing> reader_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(65536);
  Sender sender_;
};

TEST_F(SenderTest, ADisabledChannelTakesNothing) {
  Packet& packet = NewPacket("a");
  EXPECT_EQ(Send(packet, 8), Lines{"error Disabled"});
  EXPECT_EQ(SendNow(packet, "a"), Lines{"error Disabled"});
  EXPECT_EQ(packet.state.load(), Packet::State::kIdle);
  EXPECT_EQ(Complete(1, "x"), Lines{});
  EXPECT_EQ(sender_.counters().queued, 0u);
}

TEST_F(SenderTest, APacketGoesIntoTheRingAndIsDoneAtOnceUnlessItWaitsForACompletion) {
  Run();
  Packet& plain = NewPacket("plain");
  Packet& asking = NewPacket("asking");
  EXPECT_EQ(Send(plain, 8), Lines{"done plain success"});
  EXPECT_EQ(plain.state.load(), Packet::State::kIdle);
  EXPECT_EQ(Send(asking, 8, true), Lines{});
  EXPECT_EQ(asking.state.load(), Packet::State::kInFlight);
  EXPECT_EQ(ReadAll(), (Lines{"data plain", "data? #1 asking"}));
  EXPECT_EQ(sender_.TakeCompleted(wire::TransactionId{1}), &asking);
  EXPECT_EQ(asking.state.load(), Packet::State::kEnding);
  const SenderCounters counters = sender_.counters();
  EXPECT_EQ(counters.packets, 2u);
  EXPECT_EQ(counters.bytes, 16u);
  EXPECT_EQ(counters.transactions_started, 1u);
  EXPECT_EQ(counters.transactions_completed, 1u);
}

TEST_F(SenderTest, ABellIsHandedBackOnlyWhenThePeerAllowsIt) {
  Run();
  Packet& packet = NewPacket("a");
  EXPECT_EQ(Send(packet, 8), Lines{"done a success"});  // masked: the peer polls
  ReadAll();
  ASSERT_TRUE(reader_->UnmaskAndCheck().value());
  EXPECT_EQ(Send(packet, 8), (Lines{"bell", "done a success"}));
  EXPECT_EQ(Send(packet, 8), Lines{"done a success"});  // it has not come to the last one yet
  EXPECT_EQ(bell_->count, 0);                           // the caller rings
  EXPECT_EQ(sender_.counters().bells, 1u);
}

TEST_F(SenderTest, PacketsWaitForTheChannelToRunAndKeepTheirOrder) {
  SetMode(Sender::Mode::kHolding);
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Packet& c = NewPacket("c");
  EXPECT_EQ(Send(a, 8), Lines{});
  EXPECT_EQ(Send(b, 100, true), Lines{});
  Attach();
  EXPECT_EQ(Send(c, 8), Lines{});
  EXPECT_EQ(sender_.counters().queued, 3u);
  EXPECT_EQ(ReadAll(), Lines{});
  EXPECT_EQ(SetMode(Sender::Mode::kRunning), (Lines{"done a success", "done c success"}));
  EXPECT_EQ(ReadAll(), (Lines{"data a", "data? #1 b", "data c"}));
  EXPECT_FALSE(sender_.has_queued());
}

TEST_F(SenderTest, APacketThatIsOnItsWayIsNotTakenTwice) {
  Run();
  Packet& packet = NewPacket("a");
  EXPECT_EQ(Send(packet, 8, true), Lines{});
  EXPECT_EQ(Send(packet, 8), Lines{"error PacketInFlight"});
  SetMode(Sender::Mode::kPaused);
  Packet& queued = NewPacket("b");
  EXPECT_EQ(Send(queued, 8), Lines{});
  EXPECT_EQ(Send(queued, 8), Lines{"error PacketInFlight"});
  EXPECT_EQ(SendNow(queued, "b"), Lines{"error PacketInFlight"});
}

TEST_F(SenderTest, AFullRingQueuesAsksForABellAndGoesOnInOrder) {
  Run();
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Packet& c = NewPacket("c");
  Packet& d = NewPacket("d");
  EXPECT_EQ(Send(a, 2000), Lines{"done a success"});
  EXPECT_EQ(Send(b, 1900), Lines{"done b success"});
  EXPECT_EQ(Send(c, 3000), Lines{});
  EXPECT_EQ(sender_.counters().ring_full, 1u);
  EXPECT_EQ(SpaceWanted(), 3024u);
  // It would fit, but nothing overtakes.
  EXPECT_EQ(Send(d, 8), Lines{});
  EXPECT_EQ(Complete(77, "e"), Lines{"kept"});
  EXPECT_EQ(sender_.counters().queued, 3u);
  EXPECT_EQ(Flush(), Lines{});

  bool rings = false;
  EXPECT_EQ(ReadAll(&rings), (Lines{"data a", "data b"}));
  EXPECT_TRUE(rings);
  EXPECT_EQ(Flush(), (Lines{"retired", "done c success", "done d success"}));
  EXPECT_EQ(SpaceWanted(), 0u);
  EXPECT_EQ(ReadAll(), (Lines{"data c", "data d", "completion #77 e"}));
}

TEST_F(SenderTest, WhatFitsIsShownBeforeTheRestWaits) {
  Run();
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Packet& c = NewPacket("c");
  Send(a, 3000);
  EXPECT_EQ(Send(b, 2000), Lines{});
  EXPECT_EQ(Send(c, 3000), Lines{});
  EXPECT_EQ(ReadAll(), Lines{"data a"});
  // The peer frees the space for c only when it has seen b.
  EXPECT_EQ(Flush(), Lines{"done b success"});
  EXPECT_EQ(ReadAll(), Lines{"data b"});
  EXPECT_EQ(Flush(), Lines{"done c success"});
  EXPECT_EQ(ReadAll(), Lines{"data c"});
}

TEST_F(SenderTest, SpaceThatCameMeanwhileIsUsedAtOnce) {
  Run();
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  EXPECT_EQ(Send(a, 3000), Lines{"done a success"});
  SetMode(Sender::Mode::kPaused);
  EXPECT_EQ(Send(b, 3000), Lines{});
  ReadAll();
  EXPECT_EQ(SetMode(Sender::Mode::kRunning), Lines{"done b success"});
  EXPECT_EQ(SpaceWanted(), 0u);
}

TEST_F(SenderTest, APausedChannelLetsCompletionsPassAndKeepsTheirOrder) {
  Run();
  Packet& filler = NewPacket("filler");
  Send(filler, 3900);
  SetMode(Sender::Mode::kPaused);
  Packet& data = NewPacket("data");
  EXPECT_EQ(Send(data, 8), Lines{});
  EXPECT_EQ(Complete(1, std::string(600, 'x')), Lines{"kept"});  // no room
  EXPECT_EQ(Complete(2, "y"), Lines{"kept"});                    // behind the other one
  ReadAll();
  // There is room now, but the first two have not been flushed yet.
  EXPECT_EQ(Complete(3, "z"), (Lines{"kept", "retired", "retired", "retired"}));
  EXPECT_EQ(ReadAll(), (Lines{"completion #1 " + std::string(600, 'x'), "completion #2 y",
                              "completion #3 z"}));
  EXPECT_EQ(sender_.counters().queued, 1u);
  EXPECT_EQ(SetMode(Sender::Mode::kRunning), Lines{"done data success"});
  EXPECT_EQ(ReadAll(), Lines{"data data"});
}

TEST_F(SenderTest, CompletionsAreDroppedWhenTheRingIsAboutToGo) {
  Run();
  SetMode(Sender::Mode::kHolding);
  EXPECT_EQ(Complete(1, "x"), Lines{});
  EXPECT_EQ(ReadAll(), Lines{});
  EXPECT_EQ(sender_.counters().completions, 0u);
}

TEST_F(SenderTest, ACompletionMayBeMadeOfThePacketItself) {
  Run();
  Packet& filler = NewPacket("filler");
  Send(filler, 4040);
  IncomingPacket* const packet = pool_.Take(64);
  packet->transaction_id = wire::TransactionId{5};
  std::memcpy(packet->buffer() + 3, "abcdefgh", 8);
  Sender::Effects effects;
  // It is queued: the reply moves to the front of the buffer that it stands in.
  EXPECT_TRUE(sender_.Complete(*packet, {packet->buffer() + 3, 8}, effects));
  ReadAll();
  EXPECT_EQ(Flush(), Lines{"retired"});
  EXPECT_EQ(ReadAll(), Lines{"completion #5 abcdefgh"});
}

TEST_F(SenderTest, EverythingIsCancelledInTheOrderInWhichItWasSent) {
  Run();
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Packet& c = NewPacket("c");
  Packet& d = NewPacket("d");
  Packet& e = NewPacket("e");
  Send(a, 1000, true);
  Send(b, 1000, true);
  Send(c, 1000, true);
  Send(d, 2000, true);  // waits
  Complete(9, "x");     // waits
  Send(e, 8);           // waits
  EXPECT_EQ(sender_.TakeCompleted(wire::TransactionId{2}), &b);
  SetMode(Sender::Mode::kHolding);
  EXPECT_EQ(CancelAll(), (Lines{"retired", "done a removed", "done c removed", "done d removed",
                                "done e removed"}));
  EXPECT_FALSE(sender_.has_queued());
  EXPECT_EQ(CancelAll(), Lines{});
  EXPECT_EQ(sender_.counters().transactions_started, 4u);
  EXPECT_EQ(sender_.counters().transactions_cancelled, 3u);
  // What the peer says about them later finds nothing.
  EXPECT_EQ(sender_.TakeCompleted(wire::TransactionId{1}), nullptr);
  EXPECT_EQ(sender_.counters().unexpected_completions, 1u);
}

TEST_F(SenderTest, OnlySynchronousPacketsAreAborted) {
  Run();
  SynchronousWait wait({});
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Packet& c = NewPacket("c");
  Packet& d = NewPacket("d");
  b.waiter = d.waiter = &wait;
  Send(a, 1500, true);
  Send(b, 1500, true);
  Send(c, 3000, true);  // waits
  Send(d, 8);           // waits
  Sender::Effects effects;
  sender_.AbortSynchronous(effects);
  EXPECT_EQ(Carry(effects), (Lines{"done b removed", "done d removed"}));
  EXPECT_EQ(sender_.counters().queued, 1u);
  EXPECT_EQ(Send(b, 8), Lines{"error DeviceRemoved"});
  EXPECT_EQ(SendNow(b, "b"), Lines{"error DeviceRemoved"});
  ReadAll();
  Flush();
  EXPECT_EQ(ReadAll(), Lines{"data? #3 c"});
  sender_.AllowSynchronous();
  EXPECT_EQ(Send(b, 8), Lines{"done b success"});
  // Its answer comes too late, and nobody ends it for the second time.
  EXPECT_EQ(sender_.TakeCompleted(wire::TransactionId{2}), nullptr);
  SetMode(Sender::Mode::kHolding);
  EXPECT_EQ(CancelAll(), (Lines{"done a removed", "done c removed"}));
}

TEST_F(SenderTest, AbortingTheLastOneThatWaitedLeavesNothingToFlush) {
  SetMode(Sender::Mode::kHolding);
  SynchronousWait wait({});
  Packet& a = NewPacket("a");
  a.waiter = &wait;
  Send(a, 8);
  EXPECT_TRUE(sender_.has_queued());
  Sender::Effects effects;
  sender_.AbortSynchronous(effects);
  EXPECT_EQ(Carry(effects), Lines{"done a removed"});
  EXPECT_FALSE(sender_.has_queued());
}

TEST_F(SenderTest, OnePacketIsCancelledWhereverItIs) {
  Run();
  Packet& in_flight = NewPacket("in flight");
  Packet& filler = NewPacket("filler");
  Packet& queued = NewPacket("queued");
  Packet& behind = NewPacket("behind");
  Send(in_flight, 8, true);
  Send(filler, 3900);
  Send(queued, 1000, true);
  Send(behind, 8);
  EXPECT_FALSE(sender_.Cancel(filler));  // it is done
  EXPECT_TRUE(sender_.Cancel(in_flight));
  EXPECT_TRUE(sender_.Cancel(queued));
  EXPECT_FALSE(sender_.Cancel(queued));
  EXPECT_EQ(sender_.TakeCompleted(wire::TransactionId{1}), nullptr);  // late
  EXPECT_EQ(sender_.counters().transactions_cancelled, 2u);
  ReadAll();
  EXPECT_EQ(Flush(), Lines{"done behind success"});
  EXPECT_EQ(ReadAll(), Lines{"data behind"});
}

TEST_F(SenderTest, WhatTheRingCanNeverHoldIsRefusedOrGivenBack) {
  LogLines log;
  Packet& early = NewPacket("early");
  SetMode(Sender::Mode::kHolding);
  EXPECT_EQ(Send(early, 5000, true), Lines{});  // no ring yet to compare with
  Attach();
  Packet& behind = NewPacket("behind");
  Send(behind, 8);
  EXPECT_EQ(SetMode(Sender::Mode::kRunning), (Lines{"too long early", "done behind success"}));
  EXPECT_EQ(early.state.load(), Packet::State::kIdle);
  EXPECT_EQ(Send(early, 5000, true), Lines{"error PacketTooLong"});
  EXPECT_EQ(SendNow(early, std::string(5000, 'x')), Lines{"error PacketTooLong"});
  // A transaction must end: its completion goes out without data.
  EXPECT_EQ(Complete(3, std::string(5000, 'x')), Lines{});
  EXPECT_EQ(ReadAll(), (Lines{"data behind", "completion #3 "}));
  EXPECT_EQ(log.count(), 1);
  const SenderCounters counters = sender_.counters();
  EXPECT_EQ(counters.transactions_started,
            counters.transactions_completed + counters.transactions_cancelled);
}

TEST_F(SenderTest, SendNowNeverWaits) {
  SetMode(Sender::Mode::kHolding);
  Packet& packet = NewPacket("a");
  EXPECT_EQ(SendNow(packet, "a"), Lines{"error WouldBlock"});
  Attach();
  SetMode(Sender::Mode::kPaused);
  EXPECT_EQ(SendNow(packet, "a"), Lines{"error WouldBlock"});
  SetMode(Sender::Mode::kRunning);
  EXPECT_EQ(SendNow(packet, "a"), Lines{"done a success"});
  EXPECT_EQ(SendNow(packet, "a", true), Lines{});
  Packet& other = NewPacket("b");
  EXPECT_EQ(SendNow(other, std::string(4050, 'x')), Lines{"error WouldBlock"});  // full
  EXPECT_EQ(SpaceWanted(), 0u);
  Send(other, 4050);  // queued
  Packet& small = NewPacket("c");
  EXPECT_EQ(SendNow(small, "c"), Lines{"error WouldBlock"});  // would overtake
  EXPECT_EQ(sender_.counters().transactions_started, 1u);
}

TEST_F(SenderTest, ACorruptRingIsReportedOnceAndUsedNoMore) {
  for (const std::uint32_t read : {4096u, 4u, 0xFFFFFFF8u, 2048u}) {
    Run();
    Packet& a = NewPacket("a");
    Packet& b = NewPacket("b");
    Packet& c = NewPacket("c");
    Send(a, 2000, true);
    Send(b, 2000, true);  // the ring is nearly full: the next one has to look at the read index
    memory_.set_word(ring::RingMemory::kReadIndex, read == 2048u ? 4088u : read);
    EXPECT_EQ(Send(c, 2000, true), Lines{"broken RingIndexOutOfRange"}) << read;
    EXPECT_EQ(Flush(), Lines{});
    EXPECT_EQ(Complete(1, "x"), Lines{});
    Packet& d = NewPacket("d");
    EXPECT_EQ(SendNow(d, "d"), Lines{"error WouldBlock"});
    EXPECT_EQ(Send(d, 8), Lines{});
    SetMode(Sender::Mode::kHolding);
    EXPECT_EQ(CancelAll(),
              (Lines{"done a removed", "done b removed", "done c removed", "done d removed"}));
    sender_.Detach();
  }
}

TEST_F(SenderTest, ACorruptRingFoundBySendNowIsReported) {
  Run();
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Send(a, 3000);
  memory_.set_word(ring::RingMemory::kReadIndex, 5000);
  EXPECT_EQ(SendNow(b, std::string(3000, 'x')),
            (Lines{"broken RingIndexOutOfRange", "error WouldBlock"}));
}

TEST_F(SenderTest, ACorruptRingFoundWhileAskingForSpaceIsReported) {
  Run();
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Send(a, 3000);
  Send(b, 3000);
  memory_.set_word(ring::RingMemory::kReadIndex, 12);
  EXPECT_EQ(Flush(), Lines{"broken RingIndexOutOfRange"});
  EXPECT_EQ(Flush(), Lines{});
}

TEST_F(SenderTest, ANewRingIsUsedAfterACorruptOne) {
  Run();
  Packet& a = NewPacket("a");
  Send(a, 3000);
  memory_.set_word(ring::RingMemory::kReadIndex, 5000);
  Send(a, 3000);
  SetMode(Sender::Mode::kHolding);
  CancelAll();
  sender_.Detach();
  Run();
  EXPECT_EQ(Send(a, 8), Lines{"done a success"});
  EXPECT_EQ(ReadAll(), Lines{"data a"});
}

TEST_F(SenderTest, APeerThatDoesNotRingForSpaceIsPolled) {
  Attach(false);
  SetMode(Sender::Mode::kRunning);
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Send(a, 3000);
  EXPECT_FALSE(sender_.must_poll());
  EXPECT_EQ(Send(b, 3000), Lines{"poll"});
  EXPECT_TRUE(sender_.must_poll());
  EXPECT_EQ(SpaceWanted(), 0u);
  EXPECT_EQ(Flush(), Lines{"poll"});
  ReadAll();
  EXPECT_EQ(Flush(), Lines{"done b success"});
  EXPECT_FALSE(sender_.must_poll());
}

TEST_F(SenderTest, ReleasingASpaceBellTwiceIsNotNeeded) {
  Run();
  Packet& a = NewPacket("a");
  Packet& b = NewPacket("b");
  Send(a, 3000);
  Send(b, 3000);
  EXPECT_NE(SpaceWanted(), 0u);
  EXPECT_TRUE(sender_.Cancel(b));
  EXPECT_EQ(Flush(), Lines{});  // nothing waits any more
  EXPECT_EQ(SpaceWanted(), 0u);
  EXPECT_FALSE(sender_.has_queued());
}

TEST_F(SenderTest, APipeFramesItsDataAndNotItsCompletions) {
  sender_.set_pipe(true);
  Run();
  Packet& packet = NewPacket("hello");
  Send(packet, 5);
  const auto read = reader_->Read(buffer_);
  ASSERT_TRUE(read && *read);
  ASSERT_EQ((*read)->payload.size(), 16u);
  const auto data = wire::ParsePipePacket((*read)->payload);
  ASSERT_TRUE(data);
  EXPECT_EQ(TextOf(*data), "hello");
  EXPECT_EQ(data->size(), 5u);
  EXPECT_EQ((*read)->transaction_id, 0u);
  (void)reader_->Release();
  Complete(4, "x");
  EXPECT_EQ(ReadAll(), Lines{"completion #4 x"});
}

TEST_F(SenderTest, EmptyAndOddLengthsArrivePaddedWithZeros) {
  Run();
  Packet& packet = NewPacket("abcdefghijk");
  Send(packet, 0);
  Send(packet, 11);
  auto read = reader_->Read(buffer_);
  ASSERT_TRUE(read && *read);
  EXPECT_EQ((*read)->payload.size(), 0u);
  read = reader_->Read(buffer_);
  ASSERT_TRUE(read && *read);
  ASSERT_EQ((*read)->payload.size(), 16u);
  EXPECT_EQ(TextOf((*read)->payload), "abcdefghijk");
}

TEST(SynchronousWaitTest, TheReplyIsCutToTheBufferAndItsLengthIsTold) {
  RecordingHandler handler;
  Packet packet;
  std::array<std::byte, 4> buffer{};
  SynchronousWait wait(buffer);
  packet.waiter = &wait;
  EXPECT_FALSE(wait.IsDone());
  EXPECT_FALSE(wait.Wait(std::chrono::steady_clock::now()));
  std::string reply = "abcdefgh";
  FinishPacket(handler, packet, Outcome::kSuccess, std::as_writable_bytes(std::span(reply)));
  EXPECT_TRUE(wait.IsDone());
  EXPECT_TRUE(wait.Wait(std::nullopt));
  EXPECT_TRUE(wait.Wait(std::chrono::steady_clock::now()));
  EXPECT_EQ(wait.reply_bytes, 8u);
  EXPECT_EQ(TextOf(buffer), "abcd");
  EXPECT_EQ(handler.Take(), Lines{});  // nobody else is told
}

TEST(SynchronousWaitTest, APacketWithoutWaiterGoesToItsOwner) {
  RecordingHandler handler;
  Packet packet;
  packet.pointer = const_cast<char*>("a");
  FinishPacket(handler, packet, Outcome::kCancelled, {});
  EXPECT_EQ(handler.Take(), Lines{"Done a cancelled"});
}

}  // namespace
}  // namespace kmcl::channel
