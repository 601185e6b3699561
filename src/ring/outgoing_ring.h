// The producing end of a ring: writes packets, publishes them, and says whether to ring the bell.
// It does not ring, wait, allocate or make a system call; the channel does what is needed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "result.h"
#include "ring/control_page.h"
#include "ring/copy_bytes.h"
#include "ring/ring_math.h"
#include "ring/ring_pages.h"
#include "wire/ring_layout.h"

namespace kmcl::ring {

enum class WriteOutcome : std::uint8_t { kWritten, kFull };

// What a packet is made of. The spans are read during Write only.
struct PacketParts {
  wire::PacketType type{};
  std::uint16_t flags = 0;
  std::uint64_t transaction_id = 0;
  std::span<const std::byte> header{};  // type-specific, a multiple of 8 bytes
  std::span<const std::byte> prefix{};  // begins the payload (a pipe header), a multiple of 8 bytes
  std::span<const std::byte> payload{};  // any length; padded with zeros to a multiple of 8
};

// One thread at a time may call it; a channel with several senders holds its send lock. It borrows
// the pages. The peer, who may be hostile, can change every byte of them at any time: the write
// position is ours alone, and of what the peer writes only the read index is used, after it was
// validated.
class OutgoingRing {
 public:
  // A request for space names at least this part of the ring: a quarter.
  static constexpr std::uint32_t kSpaceBellShare = 4;

  // A ring that nobody has used yet, made by the side that owns the pages: sets the initial state
  // of the words that the producer uses (indices 0, feature bit set, no request for space).
  // kRingGeometry when `pages` do not form a ring.
  [[nodiscard]] static Result<OutgoingRing> Create(const RingPages& pages);
  // A ring that the peer made: goes on at the indices in the page, after validating them
  // (kRingIndexOutOfRange). Sets our feature bit and withdraws a request for space that stood
  // there.
  [[nodiscard]] static Result<OutgoingRing> Attach(const RingPages& pages);

  OutgoingRing(OutgoingRing&&) = default;
  OutgoingRing& operator=(OutgoingRing&&) = default;
  OutgoingRing(const OutgoingRing&) = delete;
  OutgoingRing& operator=(const OutgoingRing&) = delete;

  // Ring bytes that a packet takes, all included; `payload_bytes` counts prefix and payload. Sizes
  // that no ring can hold give a number that no ring can hold.
  static constexpr std::uint32_t PacketBytes(std::size_t header_bytes, std::size_t payload_bytes) {
    constexpr std::size_t kBeyondEveryRing = std::size_t{kMaximumDataBytes} + 1;
    return static_cast<std::uint32_t>(ring::PacketBytes(
        std::min(header_bytes, kBeyondEveryRing / 2), std::min(payload_bytes, kBeyondEveryRing)));
  }

  // Writes one packet behind those already written; the peer sees it after the next Publish.
  // kFull: does not fit now; nothing was written, and what was written before still wants Publish.
  // kPacketTooLong: never fits (more than maximum_packet_bytes()); the ring goes on.
  // kRingIndexOutOfRange: the peer's read index is not one that a correct peer writes. Final: the
  // ring answers nothing else from now on, and unpublished packets are dropped.
  [[nodiscard]] Result<WriteOutcome> Write(const PacketParts& parts);

  // Write for what most packets are: data or a completion without a header, of `bytes` of payload,
  // `kind` is PlainKind's. False: nothing was written, and Write knows more: whether there is room
  // by now, or ever. Requires an area that is mapped twice.
  static constexpr std::uint64_t PlainKind(wire::PacketType type, std::uint16_t flags) {
    return static_cast<std::uint64_t>(type) |
           std::uint64_t{wire::kPacketDescriptorBytes / wire::kRingUnitBytes} << 16 |
           std::uint64_t{flags} << 48;
  }
  // Length::kShort: `bytes` is at most kInlineCopyBytes. Then nothing in it is a call, and the
  // caller need not keep its registers for one. There is no ring in which such a packet is too
  // long.
  enum class Length : std::uint8_t { kAny, kShort };
  template <Length kLength = Length::kAny>
  [[nodiscard]] bool WritePlain(std::uint64_t kind, std::uint64_t transaction_id,
                                const std::byte* payload, std::uint32_t bytes);

  // Shows the peer everything written since the last call, with one store, and decides once.
  // kRing: signal the peer. Nothing new: kNone.
  [[nodiscard]] Bell Publish() { return has_unpublished() ? PublishWritten() : Bell::kNone; }
  // The same, when something has been written.
  [[nodiscard]] Bell PublishWritten();

  // Asks the peer for a bell once there is room: for the packet, and at least a quarter of the
  // ring, so that the two sides do not hand each other single packets. Only for a peer that
  // promises it (IncomingRing::peer_promises_space_bells of the other ring); otherwise poll.
  // Requires that everything written was published.
  // true: `packet_bytes` are free now, and nothing is asked for any more.
  // false: sleep until the channel's bell rings, then ask again.
  // kPacketTooLong, kRingIndexOutOfRange: as Write.
  [[nodiscard]] Result<bool> RequestSpaceBell(std::uint32_t packet_bytes);
  // Gives up a request. Harmless when there is none.
  void WithdrawSpaceBell();

  // Published bytes whose space the peer has not given back. kRingIndexOutOfRange: as Write.
  [[nodiscard]] Result<std::uint32_t> UntakenBytes();

  std::uint32_t data_bytes() const { return data_bytes_; }
  bool is_mapped_twice() const { return mapped_bytes_ == 2 * data_bytes_; }
  std::uint32_t maximum_packet_bytes() const { return maximum_packet_bytes_; }
  std::uint32_t write_index() const { return write_; }  // ours; includes what is not published yet
  bool has_unpublished() const { return write_ != published_; }
  std::uint32_t unpublished_bytes() const { return Distance(published_, write_, data_bytes_); }
  bool has_failed() const { return failed_; }

 private:
  explicit OutgoingRing(const RingPages& pages);

  // W1 and P3: takes over the peer's read index. False: it is not one that a correct peer writes.
  bool AcceptReadIndex(std::uint32_t read);
  // The packet does not fit into the space we know of: looks again. True: it fits now.
  Result<bool> FindSpace(std::uint32_t packet_bytes);
  // Writes a packet that runs over the end of an area that is mapped once.
  [[gnu::noinline]] void WriteSplit(const PacketParts& parts, std::uint64_t descriptor);
  [[gnu::cold, gnu::noinline]] std::unexpected<Error> Fail();

  ControlPage control_;
  std::byte* data_;
  std::uint32_t data_bytes_;
  std::uint32_t mapped_bytes_;
  std::uint32_t maximum_packet_bytes_;

  // Ours alone; never read back from the page.
  std::uint32_t write_ = 0;       // where the next packet goes
  std::uint32_t published_ = 0;   // what the peer can see in write_index
  std::uint32_t free_bytes_ = 0;  // behind write_, by the last read index that we looked at
  bool space_requested_ = false;
  bool failed_ = false;
};

inline bool OutgoingRing::AcceptReadIndex(std::uint32_t read) {
  if (!IsIndex(read, data_bytes_)) return false;
  // A reader only moves forwards, and not past what it was shown:
  //    0     published    write       last read   S
  //    |#####|~~~~~~~~~~~~|...........|###########|   read may stand in # or at published
  const std::uint32_t free = FreeBytes(write_, read, data_bytes_);
  const std::uint32_t unpublished = Distance(published_, write_, data_bytes_);
  if (free < free_bytes_ || free > data_bytes_ - kUnusedBytes - unpublished) return false;
  free_bytes_ = free;
  return true;
}

inline Result<bool> OutgoingRing::FindSpace(std::uint32_t packet_bytes) {
  if (failed_) return std::unexpected(Error::kRingIndexOutOfRange);
  // W1, acquire: our stores into the space stay behind the peer's loads from it (its R2).
  if (!AcceptReadIndex(control_.read_index().load(std::memory_order_acquire))) return Fail();
  return packet_bytes <= free_bytes_;
}

// Always inlined: a call per packet, with its parts passed through memory, would cost as much as
// the rest (docs/ring.md, "What it costs").
[[gnu::always_inline]] inline Result<WriteOutcome> OutgoingRing::Write(const PacketParts& parts) {
  KMCL_CHECK(IsUnitMultiple(parts.header.size() | parts.prefix.size()));
  const std::size_t wanted =
      ring::PacketBytes(parts.header.size(), parts.prefix.size() + parts.payload.size());
  if (wanted > maximum_packet_bytes_) [[unlikely]] {
    return std::unexpected(Error::kPacketTooLong);
  }
  const auto packet_bytes = static_cast<std::uint32_t>(wanted);
  if (packet_bytes > free_bytes_) [[unlikely]] {
    const Result<bool> found = FindSpace(packet_bytes);
    if (!found) return std::unexpected(found.error());
    if (!*found) return WriteOutcome::kFull;
  }

  // W2. Two words and not four fields: the peer may look at any time, and two stores are cheaper.
  const std::uint32_t start = write_;
  const std::uint32_t length = packet_bytes - wire::kPacketTrailerBytes;
  const std::uint64_t descriptor =
      static_cast<std::uint64_t>(parts.type) |
      static_cast<std::uint64_t>((wire::kPacketDescriptorBytes + parts.header.size()) /
                                 wire::kRingUnitBytes)
          << 16 |
      static_cast<std::uint64_t>(length / wire::kRingUnitBytes) << 32 |
      static_cast<std::uint64_t>(parts.flags) << 48;
  if (start + packet_bytes <= mapped_bytes_) [[likely]] {
    //  0       start                          S (or 2 * S, mapped twice)
    //  |........|D|header|payload|0|T|........|
    std::byte* const packet = data_ + start;
    StoreWord(packet, descriptor);
    StoreWord(packet + 8, parts.transaction_id);
    std::byte* to = packet + wire::kPacketDescriptorBytes;
    if (parts.header.size() + parts.prefix.size() != 0) {
      CopyUnits(to, parts.header.data(), parts.header.size());
      to += parts.header.size();
      CopyUnits(to, parts.prefix.data(), parts.prefix.size());
      to += parts.prefix.size();
    }
    if (!IsUnitMultiple(parts.payload.size())) StoreWord(packet + length - wire::kRingUnitBytes, 0);
    CopyFreshBytes(to, parts.payload.data(), parts.payload.size());
    StoreWord(packet + length, static_cast<std::uint64_t>(start) << 32);
    AskForLineToWrite(packet + length + kBytesAhead);
  } else {
    WriteSplit(parts, descriptor);
  }
  write_ = Advance(start, packet_bytes, data_bytes_);
  free_bytes_ -= packet_bytes;
  return WriteOutcome::kWritten;
}

template <OutgoingRing::Length kLength>
[[gnu::always_inline]] inline bool OutgoingRing::WritePlain(std::uint64_t kind,
                                                            std::uint64_t transaction_id,
                                                            const std::byte* payload,
                                                            std::uint32_t bytes) {
  const std::uint64_t wanted = ring::PacketBytes(0, bytes);
  static_assert(ring::PacketBytes(0, kInlineCopyBytes) <= MaximumPacketBytes(wire::kPageBytes));
  if (wanted > free_bytes_ || (kLength == Length::kAny && wanted > maximum_packet_bytes_))
      [[unlikely]]
    return false;
  const auto packet_bytes = static_cast<std::uint32_t>(wanted);
  const std::uint32_t start = write_;
  const std::uint32_t length = packet_bytes - wire::kPacketTrailerBytes;
  // W2, as Write. The length is a multiple of 8, and stands in the descriptor in units of 8.
  std::byte* const packet = data_ + start;
  StoreWord(packet, kind | std::uint64_t{length} << 29);
  StoreWord(packet + 8, transaction_id);
  if (!IsUnitMultiple(bytes)) StoreWord(packet + length - wire::kRingUnitBytes, 0);
  if constexpr (kLength == Length::kShort) {
    CopyFreshShort(packet + wire::kPacketDescriptorBytes, payload, bytes);
  } else {
    CopyFreshBytes(packet + wire::kPacketDescriptorBytes, payload, bytes);
  }
  StoreWord(packet + length, static_cast<std::uint64_t>(start) << 32);
  AskForLineToWrite(packet + length + kBytesAhead);
  write_ = Advance(start, packet_bytes, data_bytes_);
  free_bytes_ -= packet_bytes;
  return true;
}

// When to ring (VMBus reference 1.6, 1.9).
//
// The reader promises: after it has shown its read index (R2) and before it sleeps, it clears the
// mask (L3) and then looks at the write index once more (L4). If it finds packets, it does not
// sleep. We promise: the write index is in the page (W3) before we look at the mask (W5) and at the
// read index (W7), and we ring if the reader had emptied the ring up to the place where this batch
// begins.
//
//   we      W3 write_index = new        W5 mask?   W7 read_index == base?
//   reader  R2 read_index = base        L3 mask = 0        L4 write_index?
//
// Each side stores first and loads afterwards. All these accesses are sequentially consistent, so
// they have one order, and in it either our W3 comes before the reader's L4: it sees the batch and
// stays awake; or L4 comes before W3, then R2 and L3 come before W5 and W7: the mask is clear, the
// read index is base, and we ring. Were the load allowed to overtake the store on either side, both
// could see the old value: packets in the ring, reader asleep, bell silent.
//
// A reader that has not come to `base` yet is awake and will find the batch; it gets no bell. A
// mask that is set says that the reader polls. Whether the ring was empty when we began to write
// does not matter: the reader may have drained it since.
inline Bell OutgoingRing::PublishWritten() {
  const std::uint32_t base = published_;
  const ControlPage control = control_;  // in a register: it does not change with the page
  published_ = write_;
  control.write_index().store(write_, std::memory_order_seq_cst);                         // W3, W4
  if (control.interrupt_mask().load(std::memory_order_seq_cst) != 0) return Bell::kNone;  // W5, W6
  // A number for comparison only: nothing is addressed by it, so it needs no validation.
  const std::uint32_t read = control.read_index().load(std::memory_order_seq_cst);  // W7
  return read == base ? Bell::kRing : Bell::kNone;
}

}  // namespace kmcl::ring
