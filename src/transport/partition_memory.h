// The client's donated memory: one memfd whose pages both ends map. The client creates it, gives
// out runs of its pages and takes them back; the server adopts the descriptor after checking that
// nothing the client can do later makes a mapped page vanish.
//
// Page number n is byte n * 4096 of the memfd. The first pages are the bells' (bells.h).
//
// Map, MapNow and MapRings may be called from any thread; everything else belongs to the client's
// bus thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "transport/descriptor.h"
#include "transport/link.h"
#include "transport/page_allocator.h"

namespace kmcl::transport {

// Areas of address space that the mappings of one partition may take together. A list of scattered
// pages costs one area a page, and the kernel gives a process about 65,530 (vm.max_map_count),
// which all partitions share.
inline constexpr std::uint32_t kMaximumMappedAreas = 16384;

class PartitionMemory {
 public:
  // Client: a memfd of `reserved_pages` pages that are never given out, able to grow to
  // `maximum_bytes`. kOutOfMemory, kOutOfDescriptors, kSystemCall.
  [[nodiscard]] static Result<PartitionMemory> Create(std::uint32_t reserved_pages,
                                                      std::uint64_t maximum_bytes);

  // Server: takes a descriptor that came from a client.
  // kMemoryNotSealed: the memory could shrink, and a mapped page that is gone kills who touches it.
  // kMemoryKind: not a memfd of ordinary pages that we may write.
  // kPageOutOfRange: smaller than `reserved_pages`.
  [[nodiscard]] static Result<PartitionMemory> Adopt(Descriptor memory,
                                                     std::uint32_t reserved_pages);

  // Views of pages, contiguous in our address space; see Link. kPageOutOfRange for a page beyond
  // the memory's present end, kFieldOutOfRange for no pages, kLimitExceeded beyond
  // kMaximumMappedAreas, kRingGeometry, kMemoryKind when the client has forbidden writing,
  // kOutOfMemory.
  [[nodiscard]] Result<Mapping> Map(std::span<const wire::PageNumber> pages) const;
  // As Map, and every page is there: a page that the system cannot provide is kOutOfMemory.
  [[nodiscard]] Result<Mapping> MapNow(std::span<const wire::PageNumber> pages) const;
  [[nodiscard]] Result<RingMapping> MapRings(std::span<const wire::PageNumber> pages,
                                             std::uint32_t downstream_page) const;

  // Client: a run of zeroed pages. kFieldOutOfRange for none, kOutOfMemory beyond the limit.
  [[nodiscard]] Result<PageRun> Allocate(std::uint32_t count);
  // Client: gives the run's memory back to the system; its pages read as zeroes from now on.
  void Free(PageRun run);

  // Another descriptor of the same memory, to pass on. kOutOfDescriptors.
  [[nodiscard]] Result<Descriptor> Duplicate() const;

 private:
  // Counts the areas of one partition's mappings, which may outlive this object.
  struct AreaCount {
    std::atomic<std::uint32_t> in_use{0};
  };

  PartitionMemory(Descriptor memory, std::optional<PageAllocator> allocator)
      : memory_(std::move(memory)), allocator_(std::move(allocator)) {}

  enum class Populate : bool { kNo, kYes };
  Result<Mapping> MapSequence(std::span<const wire::PageNumber> sequence, Populate populate) const;

  Descriptor memory_;
  std::shared_ptr<AreaCount> areas_ = std::make_shared<AreaCount>();
  std::optional<PageAllocator> allocator_;  // client only
};

}  // namespace kmcl::transport
