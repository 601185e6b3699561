// The memory of a virtual machine as its host sees it: slots, each a part of a shared file, with
// holes between them. A page number of the guest's is trusted only after it was found in a slot.
//
// The slots stay as they are for as long as this object lives. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "result.h"
#include "transport/descriptor.h"
#include "transport/link.h"
#include "transport/page_mapping.h"

namespace kmcl::transport::kvm {

struct MemorySlot {
  std::uint64_t guest_address = 0;  // in pages, as are the others: multiples of 4096
  std::uint64_t bytes = 0;
  int fd = -1;  // borrowed
  std::uint64_t offset = 0;
};

class GuestMemory {
 public:
  // Duplicates the descriptors and maps every slot whole. kFieldOutOfRange: no slots, or one that
  // is empty, not in whole pages, beyond its file, or overlaps another one. kMemoryKind: not a file
  // of ordinary pages that may be written. kOutOfMemory, kOutOfDescriptors, kSystemCall.
  [[nodiscard]] static Result<std::unique_ptr<GuestMemory>> Create(
      std::span<const MemorySlot> slots);

  // See Link. kPageOutOfRange for a page that stands in no slot.
  [[nodiscard]] Result<Mapping> Map(std::span<const wire::PageNumber> pages) const;
  [[nodiscard]] Result<RingMapping> MapRings(std::span<const wire::PageNumber> pages,
                                             std::uint32_t downstream_page) const;
  // Pages in a row within one slot, where they stand for as long as this object lives; nullptr for
  // all others. The guest may write to them at any time.
  std::byte* Window(wire::PageNumber first, std::uint64_t count) const;

  // Copies what stands at a guest's address. False when not all of it is memory of one slot.
  bool Read(std::uint64_t address, std::span<std::byte> to) const;

 private:
  struct Slot {
    std::uint64_t first = 0;  // page number
    std::uint64_t count = 0;
    Descriptor file;
    std::uint64_t file_first = 0;  // page of the file
    Mapping window;
  };

  GuestMemory() = default;
  // nullptr: the page is nobody's.
  const Slot* Find(std::uint64_t page) const;
  Result<Mapping> MapSequence(std::span<const wire::PageNumber> sequence, Populate populate) const;

  std::vector<Slot> slots_;  // by page number
  std::shared_ptr<AreaCount> areas_ = std::make_shared<AreaCount>();
};

}  // namespace kmcl::transport::kvm
