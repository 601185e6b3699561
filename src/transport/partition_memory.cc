#include "transport/partition_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <utility>
#include <vector>

#include "transport/descriptor_passing.h"
#include "transport/nonpaged_pool.h"

namespace kmcl::transport {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;

// A set of pages in a row, in one memfd and in our address space: one area.
struct Extent {
  std::uint64_t first;
  std::uint64_t count;
};

std::vector<Extent> Coalesce(std::span<const wire::PageNumber> sequence) {
  std::vector<Extent> extents;
  for (const wire::PageNumber number : sequence) {
    const std::uint64_t page = std::to_underlying(number);
    if (!extents.empty() && extents.back().first + extents.back().count == page &&
        page != kPoolFirstPage) {
      ++extents.back().count;
    } else {
      extents.push_back({page, 1});
    }
  }
  return extents;
}

}  // namespace

Result<PartitionMemory> PartitionMemory::Create(std::uint32_t reserved_pages,
                                                std::uint64_t maximum_bytes) {
  const std::uint64_t limit_pages = std::min(maximum_bytes / kPageBytes, kPoolFirstPage);
  if (limit_pages < reserved_pages) return std::unexpected(Error::kOutOfMemory);

  auto memory = MemoryRegion::Create("kmcl-partition");
  if (!memory) return std::unexpected(memory.error());
  const Result<void> grown = (*memory)->Grow(reserved_pages);
  if (!grown) return std::unexpected(grown.error());
  Result<Descriptor> pool = DuplicateNonPagedPool();
  if (!pool) return std::unexpected(pool.error());
  auto adopted = MemoryRegion::Adopt(*std::move(pool), 0);
  if (!adopted) return std::unexpected(adopted.error());
  return PartitionMemory(*std::move(memory), *std::move(adopted),
                         std::make_unique<Allocation>(PageAllocator(reserved_pages, limit_pages)));
}

Result<PartitionMemory> PartitionMemory::Adopt(Descriptors donated, std::uint32_t reserved_pages) {
  auto memory = MemoryRegion::Adopt(std::move(donated.memory), reserved_pages);
  if (!memory) {
    CloseForeign(std::move(donated.pool));
    return std::unexpected(memory.error());
  }
  auto pool = MemoryRegion::Adopt(std::move(donated.pool), 0);
  if (!pool) return std::unexpected(pool.error());
  return PartitionMemory(*std::move(memory), *std::move(pool), nullptr);
}

Result<Mapping> PartitionMemory::MapSequence(std::span<const wire::PageNumber> sequence,
                                             Populate populate) const {
  // The memory may grow while we look, but it cannot shrink: what is inside now stays inside.
  const Result<std::uint64_t> memory_pages = memory_->PageCount();
  if (!memory_pages) return std::unexpected(memory_pages.error());
  const Result<std::uint64_t> pool_pages = pool_->PageCount();
  if (!pool_pages) return std::unexpected(pool_pages.error());
  for (const wire::PageNumber number : sequence) {
    const std::uint64_t page = std::to_underlying(number);
    if (page < kPoolFirstPage ? page >= *memory_pages
                              : page - kPoolFirstPage >= std::min(*pool_pages, kMaximumPoolPages)) {
      return std::unexpected(Error::kPageOutOfRange);
    }
  }

  const std::vector<Extent> extents = Coalesce(sequence);
  const auto area_count = static_cast<std::uint32_t>(extents.size());
  if (extents.size() > kMaximumMappedAreas) return std::unexpected(Error::kLimitExceeded);
  const std::uint32_t before =
      areas_->in_use.fetch_add(area_count, std::memory_order_relaxed);  // a count, orders nothing
  std::shared_ptr<const void> lease(
      static_cast<const void*>(nullptr), [areas = areas_, area_count](const void*) {
        areas->in_use.fetch_sub(area_count, std::memory_order_relaxed);
      });
  if (before > kMaximumMappedAreas - area_count) return std::unexpected(Error::kLimitExceeded);

  // Reserve the addresses first, so that the pieces cannot land on somebody else's.
  const std::size_t bytes = sequence.size() * kPageBytes;
  void* const reserved =
      mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return std::unexpected(MemoryErrorFromErrno("mmap"));
  Mapping mapping(static_cast<std::byte*>(reserved), bytes, std::move(lease));
  std::byte* piece = mapping.base();
  for (const Extent& extent : extents) {
    const bool in_pool = extent.first >= kPoolFirstPage;
    const int fd = in_pool ? pool_->fd() : memory_->fd();
    const std::uint64_t first = in_pool ? extent.first - kPoolFirstPage : extent.first;
    if (mmap(piece, extent.count * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
             static_cast<off_t>(first * kPageBytes)) == MAP_FAILED) {
      return std::unexpected(MemoryErrorFromErrno("mmap"));
    }
    piece += extent.count * kPageBytes;
  }
  // Faults now cost time once; and a page that the system cannot provide is an error here, where it
  // would be a SIGBUS on first touch.
  if (populate == Populate::kYes && madvise(mapping.base(), bytes, MADV_POPULATE_WRITE) != 0) {
    return std::unexpected(errno == EFAULT ? Error::kOutOfMemory
                                           : MemoryErrorFromErrno("populating"));
  }
  return mapping;
}

Result<Mapping> PartitionMemory::Map(std::span<const wire::PageNumber> pages) const {
  if (pages.empty()) return std::unexpected(Error::kFieldOutOfRange);
  return MapSequence(pages, Populate::kNo);
}

Result<Mapping> PartitionMemory::MapNow(std::span<const wire::PageNumber> pages) const {
  if (pages.empty()) return std::unexpected(Error::kFieldOutOfRange);
  return MapSequence(pages, Populate::kYes);
}

Result<RingMapping> PartitionMemory::MapRings(std::span<const wire::PageNumber> pages,
                                              std::uint32_t downstream_page) const {
  // A control page and at least one page of data on both sides of the cut; and data_bytes, as well
  // as an index into the doubled data, has to fit into 32 bits.
  constexpr std::size_t kMaximumDataPages = (std::size_t{1} << 31) / kPageBytes - 1;
  if (downstream_page < 2 || downstream_page >= pages.size() ||
      pages.size() - downstream_page < 2 || downstream_page - 1 > kMaximumDataPages ||
      pages.size() - downstream_page - 1 > kMaximumDataPages) {
    return std::unexpected(Error::kRingGeometry);
  }
  const auto upstream = pages.first(downstream_page);
  const auto downstream = pages.subspan(downstream_page);

  std::vector<wire::PageNumber> sequence;
  sequence.reserve(2 * pages.size());
  for (const auto& ring : {upstream, downstream}) {
    sequence.insert(sequence.end(), ring.begin(), ring.end());
    sequence.insert(sequence.end(), ring.begin() + 1, ring.end());
  }
  Result<Mapping> mapping = MapSequence(sequence, Populate::kYes);
  if (!mapping) return std::unexpected(mapping.error());

  const auto view_of = [](std::byte* base, std::size_t ring_pages) {
    return RingMapping::View{base, base + kPageBytes,
                             static_cast<std::uint32_t>((ring_pages - 1) * kPageBytes)};
  };
  std::byte* const base = mapping->base();
  RingMapping rings;
  rings.client_to_server = view_of(base, upstream.size());
  rings.server_to_client =
      view_of(base + (2 * upstream.size() - 1) * kPageBytes, downstream.size());
  rings.mapping = *std::move(mapping);
  return rings;
}

std::byte* PartitionMemory::Window(wire::PageNumber first, std::uint64_t count) const {
  const std::uint64_t page = std::to_underlying(first);
  if (page >= kPoolFirstPage) return pool_->Window(page - kPoolFirstPage, count);
  return memory_->Window(page, count);
}

Result<PartitionMemory::Descriptors> PartitionMemory::Duplicate() const {
  Result<Descriptor> memory = memory_->Duplicate();
  if (!memory) return std::unexpected(memory.error());
  Result<Descriptor> pool = pool_->Duplicate();
  if (!pool) return std::unexpected(pool.error());
  return Descriptors{*std::move(memory), *std::move(pool)};
}

Result<PageRun> PartitionMemory::Allocate(std::uint32_t count) {
  KMCL_CHECK(allocation_ != nullptr);
  if (count == 0) return std::unexpected(Error::kFieldOutOfRange);
  MutexLock lock(allocation_->mutex);
  const std::optional<PageRun> run = allocation_->allocator.Allocate(count);
  if (!run) return std::unexpected(Error::kOutOfMemory);
  const Result<void> grown = memory_->Grow(allocation_->allocator.end());
  if (!grown) {
    allocation_->allocator.Free(*run);
    return std::unexpected(grown.error());
  }
  return *run;
}

void PartitionMemory::Free(PageRun run) {
  KMCL_CHECK(allocation_ != nullptr);
  // Pages that still hold the last user's bytes are for nobody.
  if (!memory_->Punch(std::to_underlying(run.first), run.count)) return;
  MutexLock lock(allocation_->mutex);
  allocation_->allocator.Free(run);
}

Result<DonatedBuffer> PartitionMemory::AllocateBuffer(std::size_t bytes) {
  KMCL_CHECK(allocation_ != nullptr);
  if (bytes == 0) return std::unexpected(Error::kFieldOutOfRange);
  if (bytes > kMaximumWindowPages * kPageBytes) return std::unexpected(Error::kOutOfMemory);
  const std::uint64_t pages = std::bit_ceil((bytes + kPageBytes - 1) / kPageBytes);
  {
    MutexLock lock(allocation_->mutex);
    auto& kept = allocation_->kept[static_cast<std::size_t>(std::countr_zero(pages))];
    if (!kept.empty()) {
      const DonatedBuffer buffer = kept.back();
      kept.pop_back();
      allocation_->kept_pages -= buffer.run.count;
      return buffer;
    }
  }
  const Result<PageRun> run = Allocate(static_cast<std::uint32_t>(pages));
  if (!run) return std::unexpected(run.error());
  std::byte* const address = Window(run->first, run->count);
  if (address == nullptr) {
    Free(*run);
    return std::unexpected(Error::kOutOfMemory);
  }
  return DonatedBuffer{address, *run};
}

void PartitionMemory::FreeBuffer(const DonatedBuffer& buffer) try {
  KMCL_CHECK(allocation_ != nullptr);
  {
    MutexLock lock(allocation_->mutex);
    if (buffer.run.count <= kMaximumKeptPages - allocation_->kept_pages) {
      allocation_->kept[static_cast<std::size_t>(std::countr_zero(buffer.run.count))].push_back(
          buffer);
      allocation_->kept_pages += buffer.run.count;
      return;
    }
  }
  Free(buffer.run);
} catch (const std::bad_alloc&) {
  // Giving back cannot fail. Without memory to note it, the pages stay taken.
}

}  // namespace kmcl::transport
