// A peer that writes anything, anywhere, at any time. Whatever it does, a call ends in an error or
// in a packet inside the caller's buffer; pages beside the ring cannot be touched
// (ring_test_memory.h), and the address sanitizer watches the buffer.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "ring/ring_test_memory.h"

#if defined(__SANITIZE_THREAD__)
#define KMCL_TEST_HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KMCL_TEST_HAS_TSAN 1
#endif
#endif

namespace kmcl::ring {
namespace {

class Scribbler {
 public:
  Scribbler(RingMemory& memory, std::uint32_t seed) : memory_(memory), random_(seed) {}

  std::uint32_t Below(std::uint32_t limit) { return static_cast<std::uint32_t>(random_() % limit); }

  // Mostly values at the edges, where mistakes are; sometimes any number.
  std::uint32_t Word() {
    const std::uint32_t size = memory_.data_bytes();
    switch (Below(6)) {
      case 0:
        return static_cast<std::uint32_t>(random_());
      case 1:
        return size - 16 + 4 * Below(9);
      case 2:
        return 0xFFFFFFF0 + Below(16);
      case 3:
        return Below(5) * 8;
      default:
        return Below(size / 8) * 8;
    }
  }

  // Stores as a peer does, one atomic word at a time.
  void Store(std::byte* at, std::uint32_t value) {
    std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(at))
        .store(value, std::memory_order_relaxed);
  }
  void ControlWord() {
    const std::size_t offsets[] = {RingMemory::kWriteIndex, RingMemory::kReadIndex,
                                   RingMemory::kInterruptMask, RingMemory::kPendingSend,
                                   RingMemory::kFeatureBits};
    Store(memory_.pages().control + offsets[Below(5)], Word());
  }
  // A descriptor that is nearly right.
  void Descriptor(std::uint32_t at) {
    const std::uint32_t size = memory_.data_bytes();
    const std::uint32_t longest = size / 8 + 2;
    const std::uint32_t type = Below(8) == 0 ? Below(0x10000) : 6 + Below(6);
    const std::uint32_t offset = Below(8) == 0 ? Below(0x10000) : 2 + Below(3);
    const std::uint32_t length = Below(8) == 0 ? Below(0x10000) : 2 + Below(longest);
    const std::uint32_t flags = Below(16) == 0 ? Below(0x10000) : Below(2);
    Store(memory_.data() + at % size, type | offset << 16);
    Store(memory_.data() + (at + 4) % size, length | flags << 16);
  }
  void Anything() {
    const std::uint32_t size = memory_.data_bytes();
    switch (Below(4)) {
      case 0:
        return ControlWord();
      case 1:
        return Store(memory_.data() + Below(size / 4) * 4, Word());
      default:
        return Descriptor(Below(size / 8) * 8);
    }
  }

 private:
  RingMemory& memory_;
  std::mt19937 random_;
};

struct Outcomes {
  int packets = 0, errors = 0, empties = 0, written = 0, full = 0;
};

// The short way: what it reads lies in the buffer, and what it does not read it leaves to the
// others.
void ReadPlainly(IncomingRing& ring, std::vector<std::byte>& buffer, Outcomes& outcomes) {
  const std::uint32_t before = ring.read_index();
  const std::uint32_t capacity = outcomes.packets % 2 == 0 ? 64 : ring.data_bytes();
  PlainPacket packet;
  if (ring.ReadPlain(buffer.data(), capacity, packet) != IncomingRing::Plain::kRead) {
    ASSERT_EQ(ring.read_index(), before);
    return;
  }
  ASSERT_TRUE(IsIndex(ring.read_index(), ring.data_bytes()));
  ASSERT_EQ(Distance(before, ring.read_index(), ring.data_bytes()), packet.payload_bytes + 24);
  ASSERT_LE(packet.payload_bytes, capacity);
  ASSERT_LE(packet.payload_bytes, ring.data_bytes() - 8 - 24);
}

void ReadSome(IncomingRing& ring, std::vector<std::byte>& buffer, Outcomes& outcomes) {
  if (ring.is_mapped_twice()) ReadPlainly(ring, buffer, outcomes);
  const auto wanted = ring.PeekBytes();
  const auto packet = ring.Read(buffer);
  ASSERT_TRUE(IsIndex(ring.read_index(), ring.data_bytes()));
  if (!packet) {
    ++outcomes.errors;
    ASSERT_FALSE(ring.Read(buffer).has_value()) << "final";
    return;
  }
  if (!*packet) {
    ++outcomes.empties;
    return;
  }
  ++outcomes.packets;
  const auto bytes = (*packet)->header.size() + (*packet)->payload.size();
  ASSERT_LE(bytes, ring.data_bytes() - 8 - 24);
  ASSERT_EQ((*packet)->header.data(), buffer.data());
  ASSERT_EQ((*packet)->payload.data(), buffer.data() + (*packet)->header.size());
  // A peer that scribbles meanwhile may have published between the two calls.
  if (wanted.value().has_value()) {
    ASSERT_EQ(**wanted, bytes);
  }
}

void WriteSome(OutgoingRing& ring, const std::vector<std::byte>& payload, Outcomes& outcomes) {
  if (ring.is_mapped_twice() &&
      ring.WritePlain(OutgoingRing::PlainKind(wire::PacketType::kCompletion, 0), 2, payload.data(),
                      static_cast<std::uint32_t>(payload.size()))) {
    ASSERT_TRUE(IsIndex(ring.write_index(), ring.data_bytes()));
    ++outcomes.written;
  }
  const auto outcome =
      ring.Write({.type = wire::PacketType::kDataInBand, .transaction_id = 1, .payload = payload});
  ASSERT_TRUE(IsIndex(ring.write_index(), ring.data_bytes()));
  if (!outcome) {
    ++outcomes.errors;
    ASSERT_TRUE(ring.has_failed());
  } else if (*outcome == WriteOutcome::kFull) {
    ++outcomes.full;
  } else {
    ++outcomes.written;
  }
}

class RingHostileTest : public testing::TestWithParam<std::tuple<std::uint32_t, Mapped>> {};

INSTANTIATE_TEST_SUITE_P(, RingHostileTest,
                         testing::Combine(testing::Values(4096, 3 * 4096),
                                          testing::Values(Mapped::kOnce, Mapped::kTwice)),
                         [](const auto& param) {
                           return "S" + std::to_string(std::get<0>(param.param)) +
                                  (std::get<1>(param.param) == Mapped::kOnce ? "Once" : "Twice");
                         });

TEST_P(RingHostileTest, AReaderEndsInAnErrorOrAPacketInsideBounds) {
  const auto [data_bytes, mapped] = GetParam();
  RingMemory memory(data_bytes, mapped);
  Scribbler scribbler(memory, 7 + data_bytes);
  std::vector<std::byte> buffer(data_bytes);
  buffer.shrink_to_fit();
  Outcomes outcomes;
  for (int round = 0; round < 25000; ++round) {
    for (int i = 0; i < 4; ++i) scribbler.Anything();
    memory.set_word(RingMemory::kWriteIndex, scribbler.Word());
    memory.set_word(RingMemory::kReadIndex, scribbler.Word());
    auto ring = IncomingRing::Attach(memory.pages());
    if (!ring) {
      ASSERT_EQ(ring.error(), Error::kRingIndexOutOfRange);
      continue;
    }
    for (int step = 0; step < 12; ++step) {
      if (scribbler.Below(2) == 0) scribbler.Descriptor(ring->read_index());
      if (scribbler.Below(4) == 0) scribbler.Anything();
      ReadSome(*ring, buffer, outcomes);
      ASSERT_FALSE(HasFatalFailure());
      if (scribbler.Below(2) == 0 || !ring->release_due()) static_cast<void>(ring->Release());
      if (scribbler.Below(4) == 0 && ring->unreleased_bytes() == 0) {
        static_cast<void>(ring->UnmaskAndCheck());
        ring->Mask();
      }
      static_cast<void>(ring->Empty());
    }
  }
  EXPECT_GT(outcomes.packets, 1000);
  EXPECT_GT(outcomes.errors, 1000);
  EXPECT_GT(outcomes.empties, 10);
}

TEST_P(RingHostileTest, AWriterEndsInAnErrorOrWritesInsideBounds) {
  const auto [data_bytes, mapped] = GetParam();
  RingMemory memory(data_bytes, mapped);
  Scribbler scribbler(memory, 11 + data_bytes);
  Outcomes outcomes;
  for (int round = 0; round < 25000; ++round) {
    memory.set_word(RingMemory::kWriteIndex, scribbler.Word());
    memory.set_word(RingMemory::kReadIndex, scribbler.Word());
    auto ring = OutgoingRing::Attach(memory.pages());
    if (!ring) {
      ASSERT_EQ(ring.error(), Error::kRingIndexOutOfRange);
      continue;
    }
    for (int step = 0; step < 12; ++step) {
      if (scribbler.Below(3) == 0) scribbler.ControlWord();
      const std::uint32_t payload_bytes =
          scribbler.Below(scribbler.Below(4) == 0 ? ring->maximum_packet_bytes() - 24 : 200);
      WriteSome(*ring, TestBytes(payload_bytes), outcomes);
      ASSERT_FALSE(HasFatalFailure());
      if (scribbler.Below(2) == 0) static_cast<void>(ring->Publish());
      if (scribbler.Below(4) == 0) {
        static_cast<void>(ring->Publish());
        static_cast<void>(ring->RequestSpaceBell(OutgoingRing::PacketBytes(0, payload_bytes)));
      }
    }
  }
  EXPECT_GT(outcomes.written, 1000);
  EXPECT_GT(outcomes.errors, 1000);
  EXPECT_GT(outcomes.full, 100);
}

TEST_P(RingHostileTest, APeerThatScribblesWhileWeReadAndWriteHarmsNobody) {
#if defined(KMCL_TEST_HAS_TSAN)
  GTEST_SKIP() << "a hostile peer races by design; the thread sanitizer would only say so";
#endif
  const auto [data_bytes, mapped] = GetParam();
  RingMemory memory(data_bytes, mapped);
  std::atomic<bool> done = false;
  std::atomic<int> scribbles = 0;
  std::thread peer([&] {
    Scribbler scribbler(memory, 13 + data_bytes);
    while (!done.load(std::memory_order_relaxed)) {
      scribbler.Anything();
      scribbles.fetch_add(1, std::memory_order_relaxed);
    }
  });
  std::vector<std::byte> buffer(data_bytes);
  const std::vector<std::byte> payload = TestBytes(100);
  Outcomes outcomes;
  // On a busy machine our rounds may be over before the peer gets a processor.
  const auto enough = [&](int round) {
    return round >= 30000 && scribbles.load(std::memory_order_relaxed) >= 10000 &&
           outcomes.packets + outcomes.errors > 0;
  };
  for (int round = 0; !enough(round) && !HasFatalFailure(); ++round) {
    if (auto incoming = IncomingRing::Attach(memory.pages())) {
      for (int step = 0; step < 8; ++step) ReadSome(*incoming, buffer, outcomes);
      static_cast<void>(incoming->Release());
    }
    if (auto outgoing = OutgoingRing::Attach(memory.pages())) {
      for (int step = 0; step < 8; ++step) WriteSome(*outgoing, payload, outcomes);
      static_cast<void>(outgoing->Publish());
    }
  }
  done.store(true, std::memory_order_relaxed);
  peer.join();
}

}  // namespace
}  // namespace kmcl::ring
