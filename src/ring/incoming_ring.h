// The consuming end of a ring: copies packets out, validates them, gives the space back, and says
// whether to ring the bell. It does not ring, wait, allocate or make a system call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "result.h"
#include "ring/control_page.h"
#include "ring/copy_bytes.h"
#include "ring/ring_math.h"
#include "ring/ring_pages.h"
#include "wire/packet.h"
#include "wire/ring_layout.h"

namespace kmcl::ring {

// A packet whose descriptor was checked. The spans lie in the buffer that was given to Read.
struct IncomingPacket {
  wire::PacketType type{};
  std::uint16_t flags = 0;
  std::uint64_t transaction_id = 0;
  std::span<std::byte> header;   // type-specific; its contents are not checked here
  std::span<std::byte> payload;  // with the sender's padding: a multiple of 8 bytes
};

// What ReadPlain has read. The payload stands at the beginning of the buffer.
struct PlainPacket {
  bool is_completion = false;  // or in-band data
  bool wants_completion = false;
  std::uint32_t payload_bytes = 0;  // with the sender's padding: a multiple of 8
  std::uint64_t transaction_id = 0;
};

// Belongs to one thread at a time. It borrows the pages.
//
// The peer, who may be hostile, can change every byte of them at any time. So the read position is
// ours alone, the write index and each descriptor are fetched once and validated before they are
// used, and everything else is copied before anybody looks at it. What breaks a rule is an Error
// and final: the ring answers the same from then on and leaves the pages alone.
class IncomingRing {
 public:
  // A ring that nobody has used yet, made by the side that owns the pages: sets the initial state
  // (indices 0, feature bit set, masked). The peer must not use the ring before.
  // kRingGeometry when `pages` do not form a ring.
  [[nodiscard]] static Result<IncomingRing> Create(const RingPages& pages);
  // A ring that the peer made: goes on at the indices in the page, after validating them
  // (kRingIndexOutOfRange). Masks it.
  [[nodiscard]] static Result<IncomingRing> Attach(const RingPages& pages);

  IncomingRing(IncomingRing&&) = default;
  IncomingRing& operator=(IncomingRing&&) = default;
  IncomingRing(const IncomingRing&) = delete;
  IncomingRing& operator=(const IncomingRing&) = delete;

  // Copies the next packet, header and payload, to the front of `buffer` (8-byte aligned is best,
  // not required). The space stays taken until Release. nullopt: the ring is empty. kPacketTooLong:
  // `buffer` is smaller than header and payload. Final, like the errors of wire::ParseDescriptor
  // and kRingIndexOutOfRange: ask PeekBytes first if that is not meant.
  [[nodiscard]] Result<std::optional<IncomingPacket>> Read(std::span<std::byte> buffer);

  // Buffer bytes that the next Read needs: header and payload, which may be 0 (a completion without
  // data). nullopt: the ring is empty. The descriptor is validated and kept; Read does not fetch it
  // again. Errors as Read.
  [[nodiscard]] Result<std::optional<std::uint32_t>> PeekBytes();

  // Read for what most packets are: data or a completion without a header, whose payload has at
  // most `capacity` bytes. Copies it to `buffer`. kOther: nothing was read or changed; PeekBytes
  // and Read say what there is. Requires an area that is mapped twice, and no packet that was
  // peeked at.
  enum class Plain : std::uint8_t { kRead, kEmpty, kOther };
  [[nodiscard]] Plain ReadPlain(std::byte* buffer, std::uint32_t capacity, PlainPacket& packet);
  bool is_mapped_twice() const { return mapped_bytes_ == 2 * data_bytes_; }
  // Bytes of packets that are known to be there: none, until the next look at the write index.
  std::uint32_t known_bytes() const { return available_; }

  // The next packet where it lies: for polling readers that cannot afford the copy. Only the
  // descriptor was copied and validated; the spans lie in shared memory, inside of it, and their
  // bytes can change at any time. The packet stays the next one until Skip, and its bytes stay the
  // reader's until Release. Requires an area that is mapped twice. Errors as PeekBytes.
  [[nodiscard]] Result<std::optional<IncomingPacket>> PeekInPlace();
  // Goes behind the packet that PeekBytes or PeekInPlace has shown last.
  void Skip();
  bool has_peeked() const { return has_peeked_; }

  // Ring bytes of packets that were read and not given back yet.
  std::uint32_t unreleased_bytes() const { return unreleased_; }
  // An eighth of the ring or more waits to be given back: time to Release, even if there is more to
  // read. Less would move the control words' cache line to and fro for little; a blocked writer
  // could use more.
  bool release_due() const { return unreleased_ >= release_due_bytes_; }
  // Gives back the space of everything read. kRing: signal the peer, who waits for space.
  [[nodiscard]] Bell Release();

  // Asks the peer for no bell: we are awake.
  void Mask();
  // The last step before sleeping: allows the bell, then looks once more.
  // Requires that everything read was released.
  // true: still empty; sleep until the bell rings. false: packets are there; Mask and go on
  // reading.
  [[nodiscard]] Result<bool> UnmaskAndCheck();

  // For polling: no packet is there, as far as one load can tell. A write index that no correct
  // peer writes is not empty; Read reports it. While the ring is empty it also asks for the memory
  // where the next packet will begin, so that it comes while the write index does and not after it.
  bool Empty() const;

  // The peer set the feature bit in this ring, which it produces into: it honours our requests for
  // space in the other one. Otherwise a blocked writer has to poll.
  bool peer_promises_space_bells() const;

  std::uint32_t data_bytes() const { return data_bytes_; }
  std::uint32_t read_index() const { return read_; }  // ours; includes what is not released yet

 private:
  explicit IncomingRing(const RingPages& pages);

  static constexpr std::uint32_t kCacheLineBytes = 64;

  // R1 and L4: takes over the peer's write index. False: it is not one that a correct peer writes.
  bool AcceptWriteIndex(std::uint32_t write);
  enum class Fetched : std::uint8_t { kPacket, kEmpty, kFailure };
  // Fetches and validates the descriptor at the read position. kFailure: failure_ says why.
  Fetched FetchDescriptor(wire::PacketShape& shape);
  // Goes behind the packet at `read`, which is read_.
  void Pass(std::uint32_t read, std::uint32_t packet_bytes) {
    read_ = Advance(read, packet_bytes, data_bytes_);
    available_ -= packet_bytes;
    unreleased_ += packet_bytes;
  }
  // Copies out of an area that is mapped once, over its end.
  void CopySplit(std::byte* to, std::uint32_t from, std::uint32_t bytes) const;
  // Out of line: nothing of it belongs into the caller's fast path.
  [[gnu::cold, gnu::noinline]] void Fail(Error error);

  ControlPage control_;
  std::byte* data_;
  std::uint32_t data_bytes_;
  std::uint32_t mapped_bytes_;
  std::uint32_t release_due_bytes_;

  // Ours alone; never read back from the page.
  std::uint32_t read_ = 0;       // where the next packet begins
  std::uint32_t released_ = 0;   // what the peer can see in read_index
  std::uint32_t unreleased_ = 0;  // from released_ to read_
  std::uint32_t available_ = 0;  // behind read_, by the last write index that we looked at
  bool masked_ = false;  // interrupt_mask is already 1, unless the peer or a driver changed it
  bool has_peeked_ = false;
  wire::PacketShape peeked_;
  std::optional<Error> failure_;
};

[[gnu::always_inline]] inline bool IncomingRing::AcceptWriteIndex(std::uint32_t write) {
  if (!IsIndex(write, data_bytes_)) return false;
  //    0      released      read       write             S
  //    |.........|~~~~~~~~~~~|###########|...............|   ~ read, not given back  # to be read
  //  A writer may stand anywhere from read on, as far as the place before released; not in ~.
  //  From read on it would have to go around the end and past released to get there.
  const std::uint32_t available = Distance(read_, write, data_bytes_);
  if (available + unreleased_ >= data_bytes_) return false;
  available_ = available;
  return true;
}

// Read and what it is made of are always inlined: a call, and results that travel through memory,
// would cost as much as the rest (docs/ring.md, "What it costs").
[[gnu::always_inline]] inline IncomingRing::Fetched IncomingRing::FetchDescriptor(
    wire::PacketShape& shape) {
  if (available_ == 0) {
    if (failure_) [[unlikely]]
      return Fetched::kFailure;
    // R1, acquire: the packets' bytes were stored before the peer showed this index (its W3).
    const std::uint32_t write = control_.write_index().load(std::memory_order_acquire);
    if (write == read_) return Fetched::kEmpty;
    if (!AcceptWriteIndex(write)) [[unlikely]] {
      Fail(Error::kRingIndexOutOfRange);
      return Fetched::kFailure;
    }
  }
  // Writers publish whole packets, so fewer bytes than a descriptor are never on their way.
  if (available_ < wire::kPacketDescriptorBytes) [[unlikely]] {
    Fail(Error::kPacketLengthOutOfRange);
    return Fetched::kFailure;
  }

  // The second word of a descriptor may stand at the beginning of the area:
  //    0                                           read   S
  //    |id|...........................................|type|
  const std::uint64_t first = LoadWordOnce(data_ + read_);
  const std::uint64_t second = LoadWordOnce(data_ + Advance(read_, 8, data_bytes_));
  const wire::PacketDescriptor descriptor{
      .type = static_cast<std::uint16_t>(first),
      .data_offset8 = static_cast<std::uint16_t>(first >> 16),
      .length8 = static_cast<std::uint16_t>(first >> 32),
      .flags = static_cast<std::uint16_t>(first >> 48),
      .transaction_id = second,
  };
  const Result<wire::PacketShape> parsed = wire::ParseDescriptor(descriptor, available_);
  if (!parsed) [[unlikely]] {
    Fail(parsed.error());
    return Fetched::kFailure;
  }
  shape = *parsed;
  return Fetched::kPacket;
}

inline Result<std::optional<std::uint32_t>> IncomingRing::PeekBytes() {
  if (!has_peeked_) {
    const Fetched fetched = FetchDescriptor(peeked_);
    if (fetched == Fetched::kFailure) [[unlikely]]
      return std::unexpected(*failure_);
    if (fetched == Fetched::kEmpty) return std::nullopt;
    has_peeked_ = true;
  }
  return peeked_.header_bytes + peeked_.payload_bytes;
}

inline Result<std::optional<IncomingPacket>> IncomingRing::PeekInPlace() {
  KMCL_CHECK(mapped_bytes_ == 2 * data_bytes_);
  const auto body_bytes = PeekBytes();
  if (!body_bytes) [[unlikely]]
    return std::unexpected(body_bytes.error());
  if (!*body_bytes) return std::nullopt;
  //  0                read             S                                2 * S
  //  |body |..........|D|header|payload|body |..........|D|header|payload|
  const std::span<std::byte> body(data_ + read_ + wire::kPacketDescriptorBytes, **body_bytes);
  return IncomingPacket{
      .type = peeked_.type,
      .flags = peeked_.flags,
      .transaction_id = peeked_.transaction_id,
      .header = body.first(peeked_.header_bytes),
      .payload = body.subspan(peeked_.header_bytes),
  };
}

inline void IncomingRing::Skip() {
  KMCL_CHECK(has_peeked_);
  has_peeked_ = false;
  Pass(read_, peeked_.ring_bytes());
}

[[gnu::always_inline]] inline Result<std::optional<IncomingPacket>> IncomingRing::Read(
    std::span<std::byte> buffer) {
  wire::PacketShape shape;
  if (has_peeked_) {
    shape = peeked_;
    has_peeked_ = false;
  } else {
    const Fetched fetched = FetchDescriptor(shape);
    if (fetched == Fetched::kFailure) [[unlikely]]
      return std::unexpected(*failure_);
    if (fetched == Fetched::kEmpty) return std::nullopt;
  }
  const std::uint32_t body_bytes = shape.header_bytes + shape.payload_bytes;
  if (body_bytes > buffer.size()) [[unlikely]] {
    Fail(Error::kPacketTooLong);
    return std::unexpected(Error::kPacketTooLong);
  }

  const std::uint32_t body =
      read_ + wire::kPacketDescriptorBytes;  // may be S or more in a mirrored area
  if (body + body_bytes <= mapped_bytes_) [[likely]] {
    CopyBytes(buffer.data(), data_ + body, body_bytes);
  } else {
    CopySplit(buffer.data(), Advance(read_, wire::kPacketDescriptorBytes, data_bytes_), body_bytes);
  }
  ForgetSharedSource();
  Pass(read_, shape.ring_bytes());
  return IncomingPacket{
      .type = shape.type,
      .flags = shape.flags,
      .transaction_id = shape.transaction_id,
      .header = buffer.first(shape.header_bytes),
      .payload = buffer.subspan(shape.header_bytes, shape.payload_bytes),
  };
}

[[gnu::always_inline]] inline IncomingRing::Plain IncomingRing::ReadPlain(std::byte* buffer,
                                                                          std::uint32_t capacity,
                                                                          PlainPacket& packet) {
  if (available_ == 0) {
    // R1, as FetchDescriptor. A failed ring has nothing available, and says so there.
    const std::uint32_t write = control_.write_index().load(std::memory_order_acquire);
    if (failure_) [[unlikely]]
      return Plain::kOther;
    if (write == read_) return Plain::kEmpty;
    if (!AcceptWriteIndex(write)) [[unlikely]]
      return Plain::kOther;
  }
  // The descriptor's first word, loaded once and taken apart here: type, offset of the payload,
  // length, flags, 16 bits each. Each check is one of wire::ParseDescriptor's, or stricter. If one
  // fails the word is forgotten, and the general way loads and judges the descriptor anew.
  const std::uint32_t read = read_;
  std::byte* const from = data_ + read;
  const std::uint64_t first = LoadWordOnce(from);
  constexpr std::uint64_t kLengthAndFlag = 0x0001'FFFF'0000'0000;
  constexpr auto kNoHeader = std::uint64_t{wire::kPacketDescriptorBytes / wire::kRingUnitBytes}
                             << 16;
  constexpr std::uint64_t kData =
      kNoHeader | static_cast<std::uint64_t>(wire::PacketType::kDataInBand);
  constexpr std::uint64_t kCompletion =
      kNoHeader | static_cast<std::uint64_t>(wire::PacketType::kCompletion);
  static_assert(wire::kKnownPacketFlags == 1 && wire::kRingUnitBytes == 8);
  const auto length = static_cast<std::uint32_t>(first >> 29 & 0x7'FFF8);
  // A length below the descriptor's becomes a payload beyond every buffer.
  const std::uint32_t payload_bytes = length - wire::kPacketDescriptorBytes;
  const std::uint32_t packet_bytes = length + wire::kPacketTrailerBytes;
  if (payload_bytes > capacity || packet_bytes > available_) [[unlikely]]
    return Plain::kOther;
  if ((first & ~kLengthAndFlag) != kData) [[unlikely]] {
    if ((first & ~kLengthAndFlag) != kCompletion) return Plain::kOther;
    packet.is_completion = true;
  } else {
    packet.is_completion = false;
  }
  packet.wants_completion = (first >> 48 & wire::kPacketFlagCompletionRequested) != 0;
  packet.payload_bytes = payload_bytes;
  packet.transaction_id = LoadWordOnce(from + sizeof(std::uint64_t));
  CopyBytes(buffer, from + wire::kPacketDescriptorBytes, payload_bytes);
  ForgetSharedSource();
  Pass(read, packet_bytes);
  return Plain::kRead;
}

// When to ring (VMBus reference 1.7, 1.8, 1.9).
//
// A blocked writer promises: it stores how many free bytes it wants (P1) and then looks at the read
// index once more (P3). If there is room, it does not sleep.
// We promise: the read index is in the page (R2) before we look at the request (R5), and we ring
// when this release is the one with which the free space reaches the request.
//
//   we      R2 read_index = new         R5 request?    R7 write_index?
//   writer  P1 request = p              P3 read_index?
//
// Each side stores first and loads afterwards. All these accesses are sequentially consistent, so
// they have one order, and in it either our R2 comes before the writer's P3: it sees the space and
// stays awake; or P3 comes before R2, then P1 comes before R5: we see the request, and ring if it
// is met. Were the load allowed to overtake the store on either side, both could see the old value:
// a ring with room, writer asleep, bell silent.
//
// Only the step from too little to enough rings: before it the writer would find nothing, and after
// it it was told, or saw the space at P3. So a request that its writer never withdraws costs one
// bell each time the space crosses it, and not one per release. Such a writer sets no P1 when it
// blocks; its W3 stands in for it, and that is why R7 is sequentially consistent as well.
//
// The mask has no part in this: it belongs to the other direction.
inline Bell IncomingRing::Release() {
  const std::uint32_t old_read = released_;
  if (read_ == old_read || failure_) return Bell::kNone;
  released_ = read_;
  unreleased_ = 0;
  // R2. Also half of the other handshake: it precedes L4, as the writer's W3 precedes its W7.
  control_.read_index().store(read_, std::memory_order_seq_cst);
  if (!peer_promises_space_bells()) return Bell::kNone;  // R3
  const std::uint32_t wanted =                           // R4, R5; some writers ask for odd numbers
      control_.pending_send_bytes().load(std::memory_order_seq_cst) & ~(wire::kRingUnitBytes - 1);
  if (wanted == 0) return Bell::kNone;
  const std::uint32_t write = control_.write_index().load(std::memory_order_seq_cst);  // R6, R7
  if (!IsIndex(write, data_bytes_)) return Bell::kNone;  // the next Read reports it
  const bool was_enough = FreeBytes(write, old_read, data_bytes_) >= wanted;
  const bool is_enough = FreeBytes(write, read_, data_bytes_) >= wanted;
  return !was_enough && is_enough ? Bell::kRing : Bell::kNone;  // R8
}

inline bool IncomingRing::Empty() const {
  if (available_ != 0 || failure_) return false;
  if (control_.write_index().load(std::memory_order_acquire) != read_) return false;  // R1, with W3
  // A hint to the processor, which no program can see: beyond the area's end it is harmless.
  __builtin_prefetch(data_ + read_);
  __builtin_prefetch(data_ + read_ + kCacheLineBytes);
  return true;
}

inline void IncomingRing::Mask() {
  if (masked_) return;
  masked_ = true;
  // L1, release, read by W5. If the peer sees it late, it rings once in vain.
  control_.interrupt_mask().store(1, std::memory_order_release);
}

inline bool IncomingRing::peer_promises_space_bells() const {
  // Acquire, pairs with the release store when the peer made or attached its end.
  return (control_.feature_bits().load(std::memory_order_acquire) &
          wire::kFeaturePendingSendSize) != 0;
}

}  // namespace kmcl::ring
