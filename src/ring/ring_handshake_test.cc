// The two wake-up handshakes, each raced at its narrowest place: both threads start together, one
// stores and looks, the other stores and looks. Whoever is late must see the other; if neither
// does, a thread would sleep for good. On a machine that lets a load overtake a store, an order
// that is too weak shows here within some thousand rounds.
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <thread>
#include <vector>

#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "ring/ring_test_memory.h"

namespace kmcl::ring {
namespace {

constexpr std::uint32_t kS = 4096;
constexpr int kRoundCount = 30000;

// Two threads meet; the second to come sets both free at once.
class Meeting {
 public:
  void Meet() {
    const int turn = turn_.load();
    if (waiting_.fetch_add(1) == 1) {
      waiting_.store(0);
      turn_.store(turn + 1);
      return;
    }
    for (int spins = 0; turn_.load() == turn; ++spins) {
      if (spins > 2000) sched_yield();
    }
  }

 private:
  alignas(64) std::atomic<int> waiting_ = 0;
  alignas(64) std::atomic<int> turn_ = 0;
};

class RingHandshakeTest : public testing::Test {
 protected:
  // Each round: prepare() on this thread alone, then writer() and reader() at the same time on two.
  // reader() runs here; it is followed by check(), again alone.
  template <typename Prepare, typename Writer, typename Reader, typename Check>
  void Race(Prepare prepare, Writer writer, Reader reader, Check check) {
    Meeting prepared, start, end;
    std::thread other([&] {
      for (int round = 0; round < kRoundCount; ++round) {
        prepared.Meet();
        if (round % 2 == 0) OwnTheLine();
        start.Meet();
        Delay(round * 37 % 512);
        writer();
        end.Meet();
      }
    });
    for (int round = 0; round < kRoundCount; ++round) {
      prepare();
      prepared.Meet();
      start.Meet();
      Delay(round * 101 % 512);
      reader();
      end.Meet();
      check();
    }
    other.join();
  }

  // Who leaves a meeting first depends on the machine, so all differences of some 100 ns are tried.
  static void Delay(int steps) {
    for (int i = 0; i < steps; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
  }

  // The side whose processor does not own the control words' cache line stores slowly, and only a
  // slow store is overtaken. prepare() leaves the line with the reader's side; this takes it away.
  void OwnTheLine() {
    constexpr std::size_t kReservedWord = 0x20;
    std::atomic_ref<std::uint32_t>(
        *reinterpret_cast<std::uint32_t*>(memory_.pages().control + kReservedWord))
        .fetch_add(1);
  }

  void Write(std::size_t payload_bytes) {
    const auto outcome = outgoing_.Write({.type = wire::PacketType::kDataInBand,
                                          .payload = std::span(payload_).first(payload_bytes)});
    ASSERT_EQ(outcome, WriteOutcome::kWritten);
  }
  void Read() { ASSERT_TRUE(incoming_.Read(buffer_).value().has_value()); }

  RingMemory memory_{kS, Mapped::kOnce};
  OutgoingRing outgoing_ = OutgoingRing::Create(memory_.pages()).value();
  IncomingRing incoming_ = IncomingRing::Create(memory_.pages()).value();
  std::vector<std::byte> payload_ = TestBytes(kS);
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kS);
};

TEST_F(RingHandshakeTest, APublisherRingsOrTheReaderStaysAwake) {
  Bell bell = Bell::kNone;
  bool would_sleep = false;
  int lost = 0, rung = 0, stayed_awake = 0;
  Race([&] { Write(8); }, [&] { bell = outgoing_.Publish(); },
       [&] { would_sleep = incoming_.UnmaskAndCheck().value(); },
       [&] {
         if (bell == Bell::kRing) ++rung;
         if (!would_sleep) ++stayed_awake;
         if (bell == Bell::kNone && would_sleep) ++lost;
         incoming_.Mask();
         Read();
         EXPECT_EQ(incoming_.Release(), Bell::kNone);
       });
  EXPECT_EQ(lost, 0) << "of " << kRoundCount;
  EXPECT_GE(rung + stayed_awake, kRoundCount);
}

TEST_F(RingHandshakeTest, AReaderThatReleasesRingsOrTheWriterStaysAwake) {
  Bell bell = Bell::kNone;
  bool has_room = false;
  int lost = 0, rung = 0, stayed_awake = 0;
  Race(
      [&] {
        Write(kS - 16 - 24);
        static_cast<void>(outgoing_.Publish());
        Read();
      },
      [&] { has_room = outgoing_.RequestSpaceBell(64).value(); },
      [&] { bell = incoming_.Release(); },
      [&] {
        if (bell == Bell::kRing) ++rung;
        if (has_room) ++stayed_awake;
        if (bell == Bell::kNone && !has_room) ++lost;
        outgoing_.WithdrawSpaceBell();
      });
  EXPECT_EQ(lost, 0) << "of " << kRoundCount;
  EXPECT_GE(rung + stayed_awake, kRoundCount);
}

// The reader releases what it has read and then goes to sleep; the writer publishes more meanwhile
// and decides by the read index. (Pair B of VMBus reference 1.9.)
TEST_F(RingHandshakeTest, AWriterThatSeesAnOldReadIndexKeepsTheReaderAwake) {
  Bell bell = Bell::kNone;
  bool would_sleep = false;
  int lost = 0;
  Race(
      [&] {
        Write(8);
        static_cast<void>(outgoing_.Publish());
        Read();
        Write(8);
      },
      [&] { bell = outgoing_.Publish(); },
      [&] {
        static_cast<void>(incoming_.Release());
        would_sleep = incoming_.UnmaskAndCheck().value();
      },
      [&] {
        if (bell == Bell::kNone && would_sleep) ++lost;
        incoming_.Mask();
        Read();
        static_cast<void>(incoming_.Release());
      });
  EXPECT_EQ(lost, 0) << "of " << kRoundCount;
}

}  // namespace
}  // namespace kmcl::ring
