// What happens once per ring, before sleeping, or at the ring's end; the rest is inline in the
// header.
#include "ring/incoming_ring.h"

#include <algorithm>

namespace kmcl::ring {

IncomingRing::IncomingRing(const RingPages& pages)
    : control_(pages.control),
      data_(pages.data),
      data_bytes_(pages.data_bytes),
      mapped_bytes_(pages.mapped_bytes),
      release_due_bytes_(pages.data_bytes / 8) {}

Result<IncomingRing> IncomingRing::Create(const RingPages& pages) {
  if (const auto geometry = CheckGeometry(pages); !geometry) {
    return std::unexpected(geometry.error());
  }
  IncomingRing ring(pages);
  // Release: whoever learns of the ring later (OPEN_CHANNEL, a message) finds it in this state. The
  // feature bit is the producer's promise; who makes the pages sets it for both (VMBus
  // reference 1.2).
  ring.control_.write_index().store(0, std::memory_order_release);
  ring.control_.read_index().store(0, std::memory_order_release);
  ring.control_.pending_send_bytes().store(0, std::memory_order_release);
  ring.control_.feature_bits().store(wire::kFeaturePendingSendSize, std::memory_order_release);
  ring.Mask();
  return ring;
}

Result<IncomingRing> IncomingRing::Attach(const RingPages& pages) {
  if (const auto geometry = CheckGeometry(pages); !geometry) {
    return std::unexpected(geometry.error());
  }
  IncomingRing ring(pages);
  // Acquire: pairs with the stores of whoever made the ring. The write index is only checked here;
  // Read fetches it again (R1).
  const std::uint32_t read = ring.control_.read_index().load(std::memory_order_acquire);
  const std::uint32_t write = ring.control_.write_index().load(std::memory_order_acquire);
  if (!IsIndex(read, pages.data_bytes) || !IsIndex(write, pages.data_bytes)) {
    return std::unexpected(Error::kRingIndexOutOfRange);
  }
  ring.read_ = ring.released_ = read;
  ring.Mask();
  return ring;
}

void IncomingRing::CopySplit(std::byte* to, std::uint32_t from, std::uint32_t bytes) const {
  //    0              from             S
  //    |second|........|.......|first|
  const std::uint32_t first = std::min(bytes, data_bytes_ - from);
  CopyBytes(to, data_ + from, first);
  CopyBytes(to + first, data_, bytes - first);
}

Result<bool> IncomingRing::UnmaskAndCheck() {
  // The writer decides by what it can see; what is not released would look like a reader still
  // busy.
  KMCL_CHECK(unreleased_bytes() == 0 || failure_);
  if (failure_) return std::unexpected(*failure_);
  if (available_ != 0) return false;
  // The other half of this handshake, and why it is safe, stands above OutgoingRing::Publish.
  masked_ = false;
  control_.interrupt_mask().store(0, std::memory_order_seq_cst);                       // L3
  const std::uint32_t write = control_.write_index().load(std::memory_order_seq_cst);  // L4
  if (!AcceptWriteIndex(write)) {
    Fail(Error::kRingIndexOutOfRange);
    return std::unexpected(*failure_);
  }
  return available_ == 0;
}

void IncomingRing::Fail(Error error) {
  failure_ = error;
  available_ = 0;  // so that every Read comes to the place where the failure is reported
  has_peeked_ = false;
}

}  // namespace kmcl::ring
