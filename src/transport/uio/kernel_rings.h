// The two rings of a channel of the kernel's, shown as Link::MapRings shows rings; and made our own
// when the kernel takes the channel away.
//
// Linux frees the pages of a channel that its host rescinds, and leaves the mappings of them to the
// program. Whoever goes on writing there writes into somebody else's page. So the views are laid
// over with a private copy, under the hands of the threads that use them: they find what was there,
// and nobody at the other end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "result.h"
#include "transport/link.h"

namespace kmcl::transport::uio {

class KernelRings {
 public:
  // Two rings of so many pages that lie in `file`, one behind the other. Every mapping of the file
  // begins at its offset 0, as those of /dev/uioN do. `lease` is let go of after the unmapping.
  // kRingGeometry, kOutOfMemory, kMemoryKind.
  [[nodiscard]] static Result<std::shared_ptr<KernelRings>> Map(int file, std::uint32_t ring_pages,
                                                                std::shared_ptr<const void> lease);
  KernelRings(const KernelRings&) = delete;
  KernelRings& operator=(const KernelRings&) = delete;

  // Keeps `self` for as long as the mapping is held.
  static RingMapping Views(std::shared_ptr<KernelRings> self);

  // From now on the views are ours alone. Once; any thread, while others use them.
  void Detach();

 private:
  KernelRings(std::uint32_t ring_pages, Mapping mapping)
      : ring_pages_(ring_pages), mapping_(std::move(mapping)) {}

  std::size_t ring_bytes() const { return std::size_t{ring_pages_} * wire::kPageBytes; }
  std::size_t data_bytes() const { return ring_bytes() - wire::kPageBytes; }
  // Where the client's and the server's control pages are shown.
  std::byte* first() const { return mapping_.base(); }
  std::byte* second() const { return SecondStart() + ring_bytes(); }
  // The mapping whose second half is the server's ring.
  std::byte* SecondStart() const { return first() + ring_bytes() + data_bytes(); }

  const std::uint32_t ring_pages_;
  const Mapping mapping_;
};

}  // namespace kmcl::transport::uio
