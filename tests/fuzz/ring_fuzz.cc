// One ring with both of our ends on it, while the peer of each, which may write every shared byte,
// does so between any two calls. Pages that must not be touched stand around the ring's. Until the
// first byte is spoilt, every packet arrives as it was sent; from then on nothing leaves the pages,
// and an end that has failed stays failed.
#include <algorithm>
#include <deque>
#include <optional>
#include <vector>

#include "input.h"
#include "ring/incoming_ring.h"
#include "ring/outgoing_ring.h"
#include "ring/ring_test_memory.h"

namespace kmcl::ring {
namespace {

using fuzz::Input;

class World {
 public:
  explicit World(Input& input)
      : input_(input),
        memory_(4096 * (1 + input.Below(2)), input.Flag() ? Mapped::kTwice : Mapped::kOnce) {}

  void Run() {
    if (input_.Below(16) == 0) return NoRing();
    // A peer's ring may stand anywhere, also where no ring can.
    if (input_.Below(4) == 0) {
      Spoil();
      Spoil();
    } else {
      FUZZ_REQUIRE(input_.Flag() ? OutgoingRing::Create(memory_.pages()).has_value()
                                 : IncomingRing::Create(memory_.pages()).has_value());
      // Each walk would else begin far from the end of the area.
      const std::uint32_t at = input_.Below(2) * (memory_.data_bytes() - 64);
      memory_.set_indices(at, at);
    }
    auto out = OutgoingRing::Attach(memory_.pages());
    auto in = IncomingRing::Attach(memory_.pages());
    if (!out || !in) return;
    while (!input_.empty()) Step(*out, *in);
    FUZZ_REQUIRE(in->unreleased_bytes() <= memory_.data_bytes());
    FUZZ_REQUIRE(out->unpublished_bytes() <= memory_.data_bytes());
    FUZZ_REQUIRE(out->write_index() < out->data_bytes() && in->read_index() < in->data_bytes());
  }

 private:
  // Pages that cannot be a ring are none to any end.
  void NoRing() {
    RingPages pages = memory_.pages();
    switch (input_.Below(5)) {
      case 0:
        pages.control += 1 + input_.Below(7);
        break;
      case 1:
        pages.data = nullptr;
        break;
      case 2:
        pages.data_bytes = 0;
        break;
      case 3:
        pages.data_bytes += 8;
        break;
      default:
        pages.mapped_bytes += 4096 * 3;
        break;
    }
    FUZZ_REQUIRE(!OutgoingRing::Create(pages) && !OutgoingRing::Attach(pages));
    FUZZ_REQUIRE(!IncomingRing::Create(pages) && !IncomingRing::Attach(pages));
  }

  void Step(OutgoingRing& out, IncomingRing& in) {
    switch (input_.Below(14)) {
      case 0:
      case 1:
      case 2:
        return Write(out);
      case 3:
        (void)out.Publish();
        return;
      case 4:
      case 5:
        return Read(in);
      case 6:
        return Look(in);
      case 7:
        (void)in.Release();
        FUZZ_REQUIRE(in.unreleased_bytes() == 0 || failure_);
        return;
      case 8:
        return Sleep(in);
      case 9:
        if (!out.has_unpublished()) {
          const std::uint32_t wanted = input_.Number();
          const auto room = out.RequestSpaceBell(wanted);
          if (!room && room.error() != Error::kPacketTooLong) Broken(out);
          if (input_.Flag()) out.WithdrawSpaceBell();
        }
        (void)out.UntakenBytes();
        return;
      case 10:
        return WritePlain(out);
      case 11:
        return ReadPlain(in);
      default:
        return Spoil();
    }
  }

  void Write(OutgoingRing& out) {
    static constexpr std::size_t kMost = 9000;
    static const std::vector<std::byte> bytes = TestBytes(kMost);
    Sent sent;
    sent.id = next_id_++;
    sent.header_bytes = input_.Below(5) * 8;
    sent.wants_completion = input_.Flag();
    const std::uint32_t prefix_bytes = input_.Below(2) * 8;
    sent.payload_bytes = input_.Number() % kMost;
    const std::span<const std::byte> payload = std::span(bytes).first(sent.payload_bytes);
    sent.payload_bytes += prefix_bytes;
    const auto written =
        out.Write({.type = wire::PacketType::kDataInBand,
                   .flags = static_cast<std::uint16_t>(sent.wants_completion ? 1 : 0),
                   .transaction_id = sent.id,
                   .header = std::span(bytes).first(sent.header_bytes),
                   .prefix = std::span(bytes).first(prefix_bytes),
                   .payload = payload});
    if (!written) {
      if (written.error() != Error::kPacketTooLong) Broken(out);
    } else if (*written == WriteOutcome::kWritten) {
      sent_.push_back(sent);
    }
  }

  void WritePlain(OutgoingRing& out) {
    static constexpr std::uint32_t kMost = 1024;
    static const std::vector<std::byte> bytes = TestBytes(kMost);
    Sent sent;
    sent.id = next_id_++;
    sent.payload_bytes = input_.Number() % kMost;
    sent.is_completion = input_.Flag();
    sent.wants_completion = !sent.is_completion && input_.Flag();
    const std::uint64_t kind = OutgoingRing::PlainKind(
        sent.is_completion ? wire::PacketType::kCompletion : wire::PacketType::kDataInBand,
        sent.wants_completion ? wire::kPacketFlagCompletionRequested : 0);
    const std::uint32_t before = out.write_index();
    if (!out.is_mapped_twice() ||
        !out.WritePlain(kind, sent.id, bytes.data(), sent.payload_bytes)) {
      FUZZ_REQUIRE(out.write_index() == before);
      return;
    }
    FUZZ_REQUIRE(!out.has_failed());
    FUZZ_REQUIRE(OutgoingRing::PacketBytes(0, sent.payload_bytes) <= out.maximum_packet_bytes());
    sent_.push_back(sent);
  }

  void ReadPlain(IncomingRing& in) {
    if (!in.is_mapped_twice() || in.has_peeked()) return;
    const std::uint32_t capacity = input_.Number() % 1024;
    buffer_.resize(capacity);
    PlainPacket packet;
    const std::uint32_t before = in.read_index();
    const IncomingRing::Plain outcome = in.ReadPlain(buffer_.data(), capacity, packet);
    if (outcome != IncomingRing::Plain::kRead) {
      FUZZ_REQUIRE(in.read_index() == before);
      FUZZ_REQUIRE(!failure_ || outcome == IncomingRing::Plain::kOther);
      return;
    }
    FUZZ_REQUIRE(!failure_);
    FUZZ_REQUIRE(packet.payload_bytes <= capacity && packet.payload_bytes % 8 == 0);
    FUZZ_REQUIRE(in.known_bytes() + in.unreleased_bytes() <= in.data_bytes());
    (void)in.release_due();
    if (spoilt_) return;
    FUZZ_REQUIRE(!sent_.empty());
    FUZZ_REQUIRE(packet.is_completion == sent_.front().is_completion);
    FUZZ_REQUIRE(packet.wants_completion == sent_.front().wants_completion);
    Arrived({.transaction_id = packet.transaction_id,
             .header = {},
             .payload = std::span(buffer_).first(packet.payload_bytes)});
  }

  void Broken(const OutgoingRing& out) {
    FUZZ_REQUIRE(spoilt_);
    FUZZ_REQUIRE(out.has_failed());
    FUZZ_REQUIRE(!out.has_unpublished());
  }

  void Read(IncomingRing& in) {
    buffer_.resize(input_.Flag() ? memory_.data_bytes() : input_.Number() % 5000);
    // Whoever asks first, learns what the packet needs.
    if (input_.Flag()) {
      const auto needed = in.PeekBytes();
      if (!needed) return Failed(needed.error());
      if (*needed && **needed > buffer_.size()) buffer_.resize(**needed);
    }
    const auto packet = in.Read(buffer_);
    if (!packet) return Failed(packet.error());
    FUZZ_REQUIRE(!failure_);
    if (!*packet) return;
    const std::span<std::byte> header = (*packet)->header;
    const std::span<std::byte> payload = (*packet)->payload;
    FUZZ_REQUIRE(header.data() == buffer_.data());
    FUZZ_REQUIRE(payload.data() == header.data() + header.size());
    FUZZ_REQUIRE(header.size() + payload.size() <= buffer_.size());
    Arrived(**packet);
  }

  // As a polling reader does, where the area allows it.
  void Look(IncomingRing& in) {
    if (memory_.pages().mapped_bytes == memory_.pages().data_bytes) return;
    const auto packet = in.PeekInPlace();
    if (!packet) return Failed(packet.error());
    if (!*packet) return;
    const std::byte* const begin = memory_.data();
    const std::byte* const end = begin + 2 * memory_.data_bytes();
    for (const auto part : {(*packet)->header, (*packet)->payload}) {
      FUZZ_REQUIRE(part.data() >= begin && part.data() + part.size() <= end);
      for (const std::byte each : part) sum_ += std::to_integer<unsigned>(each);
    }
    if (input_.Flag()) return;
    Arrived(**packet);
    in.Skip();
  }

  void Sleep(IncomingRing& in) {
    (void)in.Release();
    (void)in.Empty();
    const auto empty = in.UnmaskAndCheck();
    if (!empty) return Failed(empty.error());
    in.Mask();
  }

  void Arrived(const IncomingPacket& packet) {
    if (spoilt_) return;
    FUZZ_REQUIRE(!sent_.empty());
    const Sent sent = sent_.front();
    sent_.pop_front();
    FUZZ_REQUIRE(packet.transaction_id == sent.id);
    FUZZ_REQUIRE(packet.header.size() == sent.header_bytes);
    FUZZ_REQUIRE(packet.payload.size() == (sent.payload_bytes + 7) / 8 * 8);
  }

  void Failed(Error error) {
    // A buffer that is too small is the reader's own doing; all else is the peer's.
    FUZZ_REQUIRE(spoilt_ || error == Error::kPacketTooLong || failure_ == error);
    FUZZ_REQUIRE(!failure_ || *failure_ == error);
    failure_ = error;
  }

  void Spoil() {
    spoilt_ = true;
    static constexpr std::size_t kWords[] = {RingMemory::kWriteIndex, RingMemory::kReadIndex,
                                             RingMemory::kInterruptMask, RingMemory::kPendingSend,
                                             RingMemory::kFeatureBits};
    const std::uint32_t which = input_.Below(8);
    if (which < 5) {
      // Often what a correct peer could write: a place in the ring.
      const std::uint32_t value = input_.Flag()
                                      ? input_.Get<std::uint32_t>()
                                      : input_.Get<std::uint16_t>() % memory_.data_bytes() / 8 * 8;
      return memory_.set_word(kWords[which], value);
    }
    const std::uint32_t at = input_.Get<std::uint16_t>() % memory_.data_bytes();
    const auto bytes = input_.Bytes(32);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      memory_.data()[(at + i) % memory_.data_bytes()] = bytes[i];
    }
  }

  struct Sent {
    std::uint64_t id = 0;
    std::uint32_t header_bytes = 0;
    std::uint32_t payload_bytes = 0;
    bool is_completion = false;
    bool wants_completion = false;
  };

  Input& input_;
  RingMemory memory_;
  std::deque<Sent> sent_;
  std::uint64_t next_id_ = 1;
  std::vector<std::byte> buffer_;
  std::optional<Error> failure_;
  bool spoilt_ = false;
  unsigned sum_ = 0;
};

}  // namespace
}  // namespace kmcl::ring

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::Input input(data, size);
  kmcl::ring::World(input).Run();
  return 0;
}
