// Our ring alone: the room src/ring, between two processes.
#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "ring/ring_test_memory.h"
#include "rows.h"

namespace kmcl::bench {
namespace {

using ring::IncomingRing;
using ring::Mapped;
using ring::OutgoingRing;
using ring::RingMemory;
using ring::WriteOutcome;

constexpr std::uint32_t kRingBytes = 256 * 1024;

constexpr std::uint64_t kKind = OutgoingRing::PlainKind(wire::PacketType::kDataInBand, 0);

ring::PacketParts Parts(std::span<const std::byte> payload) {
  return {
      .type = wire::PacketType::kDataInBand, .flags = 0, .transaction_id = 1, .payload = payload};
}

// The reader masks its bell for good and polls, so nothing here ever has to ring.
template <class T>
void MustBeQuiet(T&& bell) {
  Keep(static_cast<std::uint64_t>(bell));
}

// A stream. The writer publishes every `kBatch` packets.
template <int kBatch>
class RingStream final : public Pair {
 public:
  RingStream(std::size_t bytes, bool backs_off) : bytes_(bytes), backs_off_(backs_off) {}

  void Open(Stage&) override {
    out_.emplace(OutgoingRing::Create(memory_.pages()).value());
    in_.emplace(IncomingRing::Create(memory_.pages()).value());
  }

  void Near(Stage& stage) override {
    OutgoingRing ring = std::move(*out_);
    int held = 0;
    SendStream(
        stage, bytes_,
        [&](const std::byte* message) __attribute__((always_inline)) {
          // The short way for plain packets, as the channel's sender goes it.
          while (!ring.WritePlain(kKind, 1, message, static_cast<std::uint32_t>(bytes_))) {
            const auto outcome = ring.Write(Parts({message, bytes_}));
            if (!outcome) [[unlikely]]
              stage.Fail("the ring is broken");
            if (*outcome == WriteOutcome::kWritten) break;
            MustBeQuiet(ring.Publish());
            held = 0;
            Pause();
          }
          if (++held == kBatch) {
            MustBeQuiet(ring.Publish());
            held = 0;
          }
        },
        [&] { MustBeQuiet(ring.Publish()); });
  }

  void Far(Stage& stage) override {
    IncomingRing ring = std::move(*in_);
    std::vector<std::byte> buffer(bytes_ + 64);
    Backoff backoff(backs_off_);
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    const auto capacity = static_cast<std::uint32_t>(buffer.size());
    for (ring::PlainPacket packet;;) {
      switch (ring.ReadPlain(buffer.data(), capacity, packet)) {
        case IncomingRing::Plain::kRead:
          backoff.Took();
          if (!inflow.Take(buffer.data(), packet.payload_bytes)) return;
          if (ring.release_due()) MustBeQuiet(ring.Release());
          break;
        case IncomingRing::Plain::kEmpty:
          MustBeQuiet(ring.Release());
          backoff.Empty();
          break;
        case IncomingRing::Plain::kOther:  // nobody here sends what is not plain
          stage.Fail("the ring is broken");
      }
    }
  }

 private:
  const std::size_t bytes_;
  const bool backs_off_;
  RingMemory memory_{kRingBytes, Mapped::kTwice};
  std::optional<OutgoingRing> out_;
  std::optional<IncomingRing> in_;
};

// There and back, both ends polling.
template <bool kInPlace>
class RingRoundTrip final : public Pair {
 public:
  explicit RingRoundTrip(std::size_t bytes) : bytes_(bytes) {}

  void Open(Stage&) override {
    there_.Open();
    back_.Open();
  }
  void Near(Stage& stage) override {
    std::vector<std::byte> buffer(bytes_ + 64);
    OutgoingRing out = std::move(*there_.out);
    IncomingRing in = std::move(*back_.in);
    Ask(stage, bytes_, [&](const std::byte* message) {
      Send(stage, out, {message, bytes_});
      return Receive(stage, in, buffer, [](std::span<const std::byte>) {});
    });
  }
  void Far(Stage& stage) override {
    std::vector<std::byte> buffer(bytes_ + 64);
    OutgoingRing out = std::move(*back_.out);
    IncomingRing in = std::move(*there_.in);
    stage.Meet();
    const auto answer = [&](std::span<const std::byte> payload) { Send(stage, out, payload); };
    while ((Receive(stage, in, buffer, answer) & kLast) == 0) {
    }
  }

 private:
  struct Direction {
    RingMemory memory{kRingBytes, Mapped::kTwice};
    std::optional<OutgoingRing> out;
    std::optional<IncomingRing> in;
    void Open() {
      out.emplace(OutgoingRing::Create(memory.pages()).value());
      in.emplace(IncomingRing::Create(memory.pages()).value());
    }
  };

  static void Send(Stage& stage, OutgoingRing& ring, std::span<const std::byte> payload) {
    const auto outcome = ring.Write(Parts(payload));
    if (!outcome || *outcome != WriteOutcome::kWritten) stage.Fail("the ring is broken or full");
    MustBeQuiet(ring.Publish());
  }

  // Gives the space back after `then`, which answers: nobody waits for space.
  template <class Then>
  std::uint64_t Receive(Stage& stage, IncomingRing& ring, std::span<std::byte> buffer,
                        Then&& then) {
    while (ring.Empty()) {
    }
    const auto packet = kInPlace ? ring.PeekInPlace() : ring.Read(buffer);
    if (!packet || !*packet) stage.Fail("the ring is broken");
    const std::uint64_t number = ReadMessage((*packet)->payload.data(), bytes_);
    then((*packet)->payload);
    if constexpr (kInPlace) ring.Skip();
    if (ring.release_due()) MustBeQuiet(ring.Release());
    return number;
  }

  const std::size_t bytes_;
  Direction there_, back_;
};

}  // namespace

void AddRingRows(Registry& registry) {
  const auto add = [&](std::string_view kind, std::string_view contender, std::size_t bytes,
                       bool quick, std::function<std::unique_ptr<Pair>()> make) {
    registry.rows.push_back({.name = RowName(kind, contender, bytes),
                             .bytes = bytes,
                             .make = std::move(make),
                             .quick = quick});
  };
  for (const std::size_t bytes : {8u, 64u, 256u, 1024u, 4096u, 16384u}) {
    const bool quick = bytes == 64 || bytes == 4096;
    add("stream", "ring-batch32", bytes, quick,
        [=] { return std::make_unique<RingStream<32>>(bytes, true); });
    add("stream", "ring-each-adaptive", bytes, quick,
        [=] { return std::make_unique<RingStream<1>>(bytes, true); });
    add("stream", "ring-each-polling", bytes, bytes == 64,
        [=] { return std::make_unique<RingStream<1>>(bytes, false); });
  }
  for (const std::size_t bytes : {64u, 1024u, 4096u}) {
    add("roundtrip", "ring-in-place", bytes, bytes == 64,
        [=] { return std::make_unique<RingRoundTrip<true>>(bytes); });
    add("roundtrip", "ring-copied", bytes, bytes == 64,
        [=] { return std::make_unique<RingRoundTrip<false>>(bytes); });
  }
}

}  // namespace kmcl::bench
