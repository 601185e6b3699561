// The client's donated memory: two memfds whose pages both ends map. The client creates them, and
// the server adopts the descriptors after checking that nothing the client can do later makes a
// mapped page vanish.
//
// Region 0 belongs to this client: page number n is byte n * 4096 of its memfd, the first pages are
// the bells' (bells.h), and the client gives out runs of the others and takes them back. Region 1
// is the process's nonpaged pool (nonpaged_pool.h), from page number kPoolFirstPage on.
//
// Any thread, once it has been made.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "mutex.h"
#include "transport/descriptor.h"
#include "transport/link.h"
#include "transport/memory_region.h"
#include "transport/page_allocator.h"
#include "transport/page_mapping.h"

namespace kmcl::transport {

// Freed buffers that a client keeps for the next user.
inline constexpr std::uint32_t kMaximumKeptPages = 1024;

class PartitionMemory {
 public:
  // What is passed on to a server.
  struct Descriptors {
    Descriptor memory;
    Descriptor pool;
  };

  // Client: a memfd of `reserved_pages` pages that are never given out, able to grow to
  // `maximum_bytes`, and the process's pool. kOutOfMemory, kOutOfDescriptors, kSystemCall.
  [[nodiscard]] static Result<PartitionMemory> Create(std::uint32_t reserved_pages,
                                                      std::uint64_t maximum_bytes);

  // Server: takes descriptors that came from a client. Errors as MemoryRegion::Adopt;
  // kPageOutOfRange: the memory is smaller than `reserved_pages`. The pool may be empty.
  [[nodiscard]] static Result<PartitionMemory> Adopt(Descriptors donated,
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
  // See Link.
  std::byte* Window(wire::PageNumber first, std::uint64_t count) const;

  // Client: a run of zeroed pages. kFieldOutOfRange for none, kOutOfMemory beyond the limit.
  [[nodiscard]] Result<PageRun> Allocate(std::uint32_t count);
  // Client: gives the run's memory back to the system; its pages read as zeroes from now on.
  void Free(PageRun run);

  // Client: see ClientLink. Buffers come in powers of two of pages.
  [[nodiscard]] Result<DonatedBuffer> AllocateBuffer(std::size_t bytes);
  void FreeBuffer(const DonatedBuffer& buffer);

  // More descriptors of the same memory, to pass on. kOutOfDescriptors.
  [[nodiscard]] Result<Descriptors> Duplicate() const;

 private:
  // Which of the client's pages are taken.
  struct Allocation {
    explicit Allocation(PageAllocator free_pages) : allocator(std::move(free_pages)) {}

    Mutex mutex;
    PageAllocator allocator KMCL_GUARDED_BY(mutex);
    // Buffers that nobody uses, by the logarithm of their page count.
    std::array<std::vector<DonatedBuffer>, 32> kept KMCL_GUARDED_BY(mutex);
    std::uint32_t kept_pages KMCL_GUARDED_BY(mutex) = 0;
  };

  PartitionMemory(std::unique_ptr<MemoryRegion> memory, std::unique_ptr<MemoryRegion> pool,
                  std::unique_ptr<Allocation> allocation)
      : memory_(std::move(memory)), pool_(std::move(pool)), allocation_(std::move(allocation)) {}

  Result<Mapping> MapSequence(std::span<const wire::PageNumber> sequence, Populate populate) const;

  std::unique_ptr<MemoryRegion> memory_;
  std::unique_ptr<MemoryRegion> pool_;
  std::shared_ptr<AreaCount> areas_ = std::make_shared<AreaCount>();
  std::unique_ptr<Allocation> allocation_;  // client only
};

}  // namespace kmcl::transport
