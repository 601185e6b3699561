// The control words of a ring, as atomics and in no other way (VMBus reference 1.2).
//
// Every access names its order; the comments beside the accesses say what each one pairs with, by
// the labels of the reference (W: producing, P: waiting for space, R: consuming, L: before
// sleeping). The two wake-up handshakes are sequentially consistent operations, everything else is
// acquire or release. There are no fences: the thread sanitizer does not see them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "wire/ring_layout.h"

namespace kmcl::ring {

class ControlPage {
 public:
  using Word = std::atomic_ref<std::uint32_t>;
  static_assert(Word::is_always_lock_free, "the peer is another process, or another machine");
  static_assert(Word::required_alignment == alignof(std::uint32_t));

  explicit ControlPage(std::byte* page) : page_(page) {}

  Word write_index() const { return At(offsetof(wire::ControlPage, write_index)); }
  Word read_index() const { return At(offsetof(wire::ControlPage, read_index)); }
  Word interrupt_mask() const { return At(offsetof(wire::ControlPage, interrupt_mask)); }
  Word pending_send_bytes() const { return At(offsetof(wire::ControlPage, pending_send_sz)); }
  Word feature_bits() const { return At(offsetof(wire::ControlPage, feature_bits)); }

 private:
  Word At(std::size_t offset) const {
    return Word(*reinterpret_cast<std::uint32_t*>(page_ + offset));
  }

  std::byte* page_;
};

}  // namespace kmcl::ring
