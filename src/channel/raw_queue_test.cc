// A raw channel's rings, opposite a channel in normal mode and opposite another raw one.
#include "channel/raw_queue.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "channel/test_support.h"

namespace kmcl::channel {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr RawQueue::Wish kIncoming{.incoming = true};

bool IsReadable(int fd) {
  pollfd look{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&look, 1, 0) == 1;
}

ring::PacketParts Data(const std::string& text, std::uint64_t id = 0, bool wants_answer = false) {
  return {.type = wire::PacketType::kDataInBand,
          .flags = wants_answer ? wire::kPacketFlagCompletionRequested : std::uint16_t{0},
          .transaction_id = id,
          .payload = BytesOf(text)};
}

// The server is raw.
class RawQueueTest : public testing::Test {
 protected:
  RawQueueTest() {
    EXPECT_TRUE(pair.server.channel->MakeRaw());
    pair.Start();
  }
  RawQueue& raw() { return *pair.server.channel->raw(); }
  void Write(const std::string& text) {
    const auto written = raw().Write(Data(text));
    ASSERT_TRUE(written);
    ASSERT_EQ(*written, ring::WriteOutcome::kWritten);
  }
  // The next packet as text, or what went wrong.
  std::string Read() {
    std::array<std::byte, 256> buffer;
    const auto packet = raw().Read(buffer);
    if (!packet) return ErrorName(packet.error());
    return *packet ? TextOf((*packet)->payload) : "empty";
  }

  Pair pair;
};

TEST_F(RawQueueTest, APacketOfANormalChannelIsAnsweredByItsId) {
  ASSERT_TRUE(pair.client.Send("question", true));
  const auto packet = raw().Peek();
  ASSERT_TRUE(packet && *packet);
  EXPECT_EQ(TextOf((*packet)->payload), "question");
  EXPECT_EQ((*packet)->flags, wire::kPacketFlagCompletionRequested);
  const std::string answer = "answer";
  ASSERT_TRUE(raw().Write({.type = wire::PacketType::kCompletion,
                           .transaction_id = (*packet)->transaction_id,
                           .payload = BytesOf(answer)}));
  ASSERT_TRUE(raw().Flush());
  ASSERT_TRUE(raw().Skip());
  ASSERT_TRUE(raw().Release());
  pair.client.Dispatch();
  EXPECT_EQ(pair.client.handler.Take(), Lines{"Done question success answer"});
  EXPECT_EQ(pair.server.handler.Take(), Lines{});  // no packet callback
  const Counters counters = pair.server.channel->counters();
  EXPECT_EQ(counters.receiver.packets, 1u);
  EXPECT_EQ(counters.sender.completions, 1u);
  EXPECT_EQ(counters.bells_rung, 1u);
}

TEST_F(RawQueueTest, PeekShowsTheSamePacketUntilSkip) {
  ASSERT_TRUE(pair.client.Send("first"));
  ASSERT_TRUE(pair.client.Send("second"));
  const auto once = raw().Peek();
  const auto again = raw().Peek();
  ASSERT_TRUE(once && *once && again && *again);
  EXPECT_EQ((*once)->payload.data(), (*again)->payload.data());
  ASSERT_TRUE(raw().Skip());
  EXPECT_EQ(raw().Skip().error(), Error::kRequestPending);
  EXPECT_EQ(Read(), "second");
  EXPECT_EQ(Read(), "empty");
}

TEST_F(RawQueueTest, APacketOverTheEndOfTheRingIsShownInOnePiece) {
  for (int i = 0; i < 100; ++i) {
    const std::string text = std::to_string(i) + std::string(200, '.');
    ASSERT_TRUE(pair.client.Send(text.c_str()));
    const auto packet = raw().Peek();
    ASSERT_TRUE(packet && *packet);
    ASSERT_EQ(TextOf((*packet)->payload), text);
    ASSERT_TRUE(raw().Skip());
    ASSERT_TRUE(raw().Release());
  }
}

TEST_F(RawQueueTest, ABufferTooSmallLeavesThePacketWhereItIs) {
  ASSERT_TRUE(pair.client.Send("longer than eight bytes"));
  std::array<std::byte, 8> small;
  EXPECT_EQ(raw().Read(small).error(), Error::kBufferTooSmall);
  EXPECT_EQ(Read(), "longer than eight bytes");
  EXPECT_FALSE(pair.server.channel->ring_broken());
}

TEST_F(RawQueueTest, NothingIsSeenBeforeFlushAndOneBellTellsOfABatch) {
  for (int i = 0; i < 5; ++i) Write("packet");
  pair.client.Dispatch();
  EXPECT_EQ(pair.client.handler.Take(), Lines{});
  ASSERT_TRUE(raw().Flush());
  ASSERT_TRUE(raw().Flush());
  EXPECT_EQ(pair.server.bell->count, 1);
  pair.client.Dispatch();
  EXPECT_EQ(pair.client.handler.Take().size(), 6u);  // five packets and their batch
  for (auto* packet : std::exchange(pair.client.handler.held, {})) {
    pair.client.channel->Complete(*packet, {});
  }
}

TEST_F(RawQueueTest, AFullRingSaysSoAndItsReaderRingsForSpace) {
  std::vector<std::byte> big(1000);
  std::size_t written = 0;
  for (;; ++written) {
    const auto outcome = raw().Write({.type = wire::PacketType::kDataInBand, .payload = big});
    ASSERT_TRUE(outcome);
    if (*outcome == ring::WriteOutcome::kFull) break;
  }
  EXPECT_GE(written, 3u);
  const auto armed = raw().Arm({.outgoing = true, .payload_bytes = big.size()});
  ASSERT_TRUE(armed);
  EXPECT_FALSE(*armed);
  EXPECT_FALSE(IsReadable(raw().outgoing_fd()));
  pair.client.handler.on_packet = [&](IncomingPacket& each) {
    pair.client.channel->Complete(each, {});
  };
  const int bells = pair.client.bell->count;
  pair.client.Dispatch();
  EXPECT_GT(pair.client.bell->count, bells);
  pair.server.channel->Dispatch(0);  // what the bell leads to
  EXPECT_TRUE(IsReadable(raw().outgoing_fd()));
  EXPECT_TRUE(raw().Arm({.outgoing = true, .payload_bytes = big.size()}).value());
  std::vector<std::byte> beyond(5000);
  const auto never = raw().Write({.type = wire::PacketType::kDataInBand, .payload = beyond});
  EXPECT_EQ(never.error(), Error::kPacketTooLong);
  EXPECT_EQ(raw().Arm({.outgoing = true, .payload_bytes = beyond.size()}).error(),
            Error::kPacketTooLong);
  EXPECT_FALSE(pair.server.channel->ring_broken());
}

TEST_F(RawQueueTest, WhileItPollsNobodyRingsAndOnceArmedABellWakesIt) {
  EXPECT_EQ(Read(), "empty");
  ASSERT_TRUE(pair.client.Send("unnoticed"));
  EXPECT_EQ(pair.client.bell->count, 0);
  EXPECT_TRUE(raw().Arm(kIncoming).value()) << "a packet is there";
  EXPECT_EQ(Read(), "unnoticed");
  EXPECT_FALSE(raw().Arm(kIncoming).value());
  ASSERT_TRUE(pair.client.Send("noticed"));
  EXPECT_EQ(pair.client.bell->count, 1);
  EXPECT_FALSE(IsReadable(raw().incoming_fd()));
  pair.server.channel->Dispatch(0);
  EXPECT_TRUE(IsReadable(raw().incoming_fd()));
  EXPECT_TRUE(raw().Wait(kIncoming, steady_clock::now()).value());
  EXPECT_EQ(Read(), "noticed");
  EXPECT_FALSE(raw().Wait(kIncoming, steady_clock::now() + milliseconds(1)).value());
}

TEST_F(RawQueueTest, APeerThatDoesNotAnnounceSpaceIsPolled) {
  auto queue = RawQueue::Create(pair.server.turns).value();
  TestRings rings;
  auto outgoing = ring::OutgoingRing::Create(rings.up.pages()).value();
  auto incoming = ring::IncomingRing::Create(rings.down.pages()).value();
  queue->Attach(std::move(incoming), std::move(outgoing), pair.server.bell, false);
  queue->Start();
  EXPECT_FALSE(queue->must_poll());
  std::vector<std::byte> big(3000);
  ASSERT_TRUE(queue->Write({.type = wire::PacketType::kDataInBand, .payload = big}));
  EXPECT_FALSE(queue->Arm({.outgoing = true, .payload_bytes = big.size()}).value());
  EXPECT_TRUE(queue->must_poll());
  EXPECT_TRUE(pair.server.turns.TakeDispatch());
  queue->OnBell();
  EXPECT_FALSE(queue->must_poll());
  EXPECT_TRUE(IsReadable(queue->outgoing_fd()));
  queue->StopIncoming();
  queue->StopOutgoing();
  queue->Detach();
}

TEST_F(RawQueueTest, SendsThroughTheQueueAreRefused) {
  EXPECT_EQ(pair.server.Send("packet").error(), Error::kDisabled);
  std::array<std::byte, 8> reply;
  EXPECT_EQ(pair.server.channel->RequestNow({}, false, reply).error(), Error::kDisabled);
}

TEST_F(RawQueueTest, InSuspendOnlyWritingGoesOnAndAfterItNothing) {
  bool in_suspend = false;
  pair.server.handler.on_suspend = [&] {
    in_suspend = true;
    EXPECT_EQ(raw().Peek().error(), Error::kDeviceRemoved);
    EXPECT_EQ(raw().Wait({.outgoing = true}, std::nullopt).error(), Error::kDeviceRemoved);
    Write("last words");
    EXPECT_TRUE(raw().Flush());
  };
  pair.server.Pause();
  EXPECT_TRUE(in_suspend);
  EXPECT_EQ(raw().Write(Data("too late")).error(), Error::kDeviceRemoved);
  EXPECT_EQ(raw().Flush().error(), Error::kDeviceRemoved);
  EXPECT_EQ(Read(), "DeviceRemoved");
  EXPECT_TRUE(IsReadable(raw().incoming_fd()) && IsReadable(raw().outgoing_fd()));
  ASSERT_TRUE(pair.client.Send("waits"));
  pair.server.channel->Start();
  pair.server.RunState();
  EXPECT_FALSE(IsReadable(raw().incoming_fd()) || IsReadable(raw().outgoing_fd()));
  EXPECT_EQ(Read(), "waits");
  pair.server.handler.on_suspend = nullptr;
}

TEST_F(RawQueueTest, ACorruptRingIsAnErrorAndClosesTheChannel) {
  const LogLines log;
  pair.rings.up.set_indices(12, 0);  // not a multiple of 8
  const auto packet = raw().Peek();
  ASSERT_FALSE(packet);
  EXPECT_TRUE(RawQueue::IsCorrupt(packet.error()));
  pair.server.channel->OnRawError(packet.error());
  EXPECT_TRUE(pair.server.channel->ring_broken());
  EXPECT_EQ(raw().Peek().error(), packet.error());
  pair.server.RunState();
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Suspend", "Closed", "bus Detach"}));
  EXPECT_EQ(raw().Peek().error(), Error::kDeviceRemoved);
}

TEST_F(RawQueueTest, ASleeperIsWokenBySuspend) {
  std::thread owner(
      [&] { EXPECT_EQ(raw().Wait(kIncoming, std::nullopt).error(), Error::kDeviceRemoved); });
  std::thread writer([&] {
    std::vector<std::byte> big(1000);
    for (;;) {
      const auto written = raw().Write({.type = wire::PacketType::kDataInBand, .payload = big});
      ASSERT_TRUE(written);
      if (*written == ring::WriteOutcome::kFull) break;
    }
    EXPECT_EQ(raw().Wait({.outgoing = true, .payload_bytes = 1000}, std::nullopt).error(),
              Error::kDeviceRemoved);
  });
  pair.server.handler.on_suspend = [&] {
    owner.join();
    writer.join();
  };
  // The writer may not have filled the ring before the pause begins.
  while (pair.server.channel->counters().sender.ring_full == 0) std::this_thread::yield();
  pair.server.Pause();
  pair.server.handler.on_suspend = nullptr;
}

// Two raw ends on two threads, closed in the middle of it again and again.
TEST(RawQueueThreadsTest, TeardownWaitsForTheCallThatRuns) {
  Pair pair;
  ASSERT_TRUE(pair.client.channel->MakeRaw());
  ASSERT_TRUE(pair.server.channel->MakeRaw());
  pair.client.Enable();
  pair.server.Enable();
  pair.server.channel->Start();
  for (int round = 0; round < 50; ++round) {
    if (round > 0) {  // a client is disabled by each close, a server only stopped
      pair.client.Enable();
    }
    pair.OpenAgain();
    pair.server.RunState();
    std::atomic<std::uint64_t> received{0};
    std::atomic<bool> in_order{true};
    std::thread sender([&] {
      RawQueue& raw = *pair.client.channel->raw();
      for (std::uint64_t id = 0;;) {
        const auto written = raw.Write(Data("payload", id));
        if (!written) return;
        if (*written == ring::WriteOutcome::kWritten) {
          ++id;
        } else if (!raw.Flush()) {
          return;
        }
      }
    });
    std::thread receiver([&] {
      RawQueue& raw = *pair.server.channel->raw();
      for (std::uint64_t expected = 0;;) {
        const auto packet = raw.Peek();
        if (!packet) return;
        if (!*packet) continue;
        if ((*packet)->transaction_id != expected++) in_order = false;
        if (!raw.Skip() || !raw.Release()) return;
        received.fetch_add(1, std::memory_order_relaxed);
      }
    });
    while (received.load(std::memory_order_relaxed) < 500) std::this_thread::yield();
    pair.client.channel->OnClose();
    pair.client.RunState();
    pair.server.channel->OnClose();
    pair.server.RunState();
    sender.join();
    receiver.join();
    EXPECT_TRUE(in_order);
  }
}

}  // namespace
}  // namespace kmcl::channel
