// What happens once per ring, when it is full, or at its end; the rest is inline in the header.
#include "ring/outgoing_ring.h"

namespace kmcl::ring {
namespace {

// Goes on behind `at`, from the beginning of the area when its end is reached.
class SplitWriter {
 public:
  SplitWriter(std::byte* data, std::uint32_t data_bytes, std::uint32_t at)
      : data_(data), data_bytes_(data_bytes), at_(at) {}

  void Word(std::uint64_t word) {
    StoreWord(data_ + at_, word);  // aligned, and S is a multiple of 8: a word is never split
    at_ = Advance(at_, sizeof(word), data_bytes_);
  }

  void Bytes(std::span<const std::byte> bytes) {
    //    0              at               S
    //    |second|........|.......|first|
    const std::size_t first = std::min<std::size_t>(bytes.size(), data_bytes_ - at_);
    CopyBytes(data_ + at_, bytes.data(), first);
    CopyBytes(data_, bytes.data() + first, bytes.size() - first);
    at_ = Advance(at_, static_cast<std::uint32_t>(bytes.size()), data_bytes_);
  }

  void PadToUnit() {
    while (!IsUnitMultiple(at_)) data_[at_++] = std::byte{0};
    if (at_ == data_bytes_) at_ = 0;
  }

 private:
  std::byte* data_;
  std::uint32_t data_bytes_;
  std::uint32_t at_;
};

}  // namespace

OutgoingRing::OutgoingRing(const RingPages& pages)
    : control_(pages.control),
      data_(pages.data),
      data_bytes_(pages.data_bytes),
      mapped_bytes_(pages.mapped_bytes),
      maximum_packet_bytes_(MaximumPacketBytes(pages.data_bytes)) {}

Result<OutgoingRing> OutgoingRing::Create(const RingPages& pages) {
  if (const auto geometry = CheckGeometry(pages); !geometry) {
    return std::unexpected(geometry.error());
  }
  OutgoingRing ring(pages);
  ring.free_bytes_ = pages.data_bytes - kUnusedBytes;
  // Release: whoever learns of the ring later (OPEN_CHANNEL, a message) finds it in this state.
  ring.control_.write_index().store(0, std::memory_order_release);
  ring.control_.read_index().store(0, std::memory_order_release);
  ring.control_.pending_send_bytes().store(0, std::memory_order_release);
  ring.control_.feature_bits().store(wire::kFeaturePendingSendSize, std::memory_order_release);
  return ring;
}

Result<OutgoingRing> OutgoingRing::Attach(const RingPages& pages) {
  if (const auto geometry = CheckGeometry(pages); !geometry) {
    return std::unexpected(geometry.error());
  }
  OutgoingRing ring(pages);
  // Acquire: pairs with the stores of whoever made the ring, and with the peer's R2.
  const std::uint32_t write = ring.control_.write_index().load(std::memory_order_acquire);
  const std::uint32_t read = ring.control_.read_index().load(std::memory_order_acquire);
  if (!IsIndex(write, pages.data_bytes) || !IsIndex(read, pages.data_bytes)) {
    return std::unexpected(Error::kRingIndexOutOfRange);
  }
  ring.write_ = ring.published_ = write;
  ring.free_bytes_ = FreeBytes(write, read, pages.data_bytes);
  // Release: pairs with R3 and R5, and with the peer's look at our promise.
  ring.control_.pending_send_bytes().store(0, std::memory_order_release);
  ring.control_.feature_bits().store(wire::kFeaturePendingSendSize, std::memory_order_release);
  return ring;
}

void OutgoingRing::WriteSplit(const PacketParts& parts, std::uint64_t descriptor) {
  SplitWriter writer(data_, data_bytes_, write_);
  writer.Word(descriptor);
  writer.Word(parts.transaction_id);
  writer.Bytes(parts.header);
  writer.Bytes(parts.prefix);
  writer.Bytes(parts.payload);
  writer.PadToUnit();
  writer.Word(static_cast<std::uint64_t>(write_) << 32);
}

Result<bool> OutgoingRing::RequestSpaceBell(std::uint32_t packet_bytes) {
  // The peer decides by what it can see; what is not published would be space to it.
  KMCL_CHECK(!has_unpublished());
  if (packet_bytes > maximum_packet_bytes_) return std::unexpected(Error::kPacketTooLong);
  if (failed_) return std::unexpected(Error::kRingIndexOutOfRange);
  const auto wanted = static_cast<std::uint32_t>(
      RoundUpToUnit(std::max(packet_bytes, data_bytes_ / kSpaceBellShare)));
  // The other half of this handshake, and why it is safe, stands above IncomingRing::Release.
  space_requested_ = true;
  control_.pending_send_bytes().store(wanted, std::memory_order_seq_cst);            // P1, P2
  const std::uint32_t read = control_.read_index().load(std::memory_order_seq_cst);  // P3
  if (!AcceptReadIndex(read)) return Fail();
  if (packet_bytes > free_bytes_) return false;  // P4 is the caller's
  WithdrawSpaceBell();                           // P5
  return true;
}

Result<std::uint32_t> OutgoingRing::UntakenBytes() {
  const Result<bool> looked = FindSpace(0);
  if (!looked) return std::unexpected(looked.error());
  const std::uint32_t unpublished = Distance(published_, write_, data_bytes_);
  return data_bytes_ - kUnusedBytes - unpublished - free_bytes_;
}

void OutgoingRing::WithdrawSpaceBell() {
  if (!space_requested_) return;
  space_requested_ = false;
  // Release, read by R5. If the peer sees it late, it rings once in vain.
  control_.pending_send_bytes().store(0, std::memory_order_release);
}

std::unexpected<Error> OutgoingRing::Fail() {
  failed_ = true;
  free_bytes_ = 0;      // so that every Write comes here, and WritePlain writes nothing
  write_ = published_;  // so that Publish leaves the page alone
  return std::unexpected(Error::kRingIndexOutOfRange);
}

}  // namespace kmcl::ring
