// The memory of a virtual machine as its host sees it: slots, each a part of a shared file, with
// holes between them. A page number of the guest's is trusted only after it was found in a slot.
//
// A slot stays where it is for as long as this object lives; others may be added. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "mutex.h"
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

  // The slots as they are from now on. All that there were have to be among them: memory that is
  // used cannot be taken away, nor put elsewhere (kMemorySlotMoved). Nothing has changed after
  // that, nor after the errors of Create.
  [[nodiscard]] Result<void> Update(std::span<const MemorySlot> slots) KMCL_EXCLUDES(mutex_);

  // The first page that stands in no slot.
  std::optional<wire::PageNumber> FirstMissing(std::span<const wire::PageNumber> pages) const;

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
    // Which file it is, whatever descriptor names it.
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
  };
  using Slots = std::vector<std::shared_ptr<const Slot>>;  // by page number

  GuestMemory() = default;
  // nullptr: the page is nobody's.
  const Slot* Find(std::uint64_t page) const;
  Result<Mapping> MapSequence(std::span<const wire::PageNumber> sequence, Populate populate) const;

  static Result<std::shared_ptr<const Slot>> Make(const MemorySlot& slot);

  Mutex mutex_;
  // Readers take no lock: what they look at is never changed, and what was current stays.
  std::vector<std::unique_ptr<const Slots>> all_ KMCL_GUARDED_BY(mutex_);
  std::atomic<const Slots*> current_{nullptr};
  std::shared_ptr<AreaCount> areas_ = std::make_shared<AreaCount>();
};

}  // namespace kmcl::transport::kvm
