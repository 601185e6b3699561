#include "transport/partition_memory.h"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>
#include <vector>

#include "transport/descriptor_passing.h"
#include "transport/nonpaged_pool.h"

namespace kmcl::transport {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;

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

  std::vector<FilePages> pieces;
  for (const wire::PageNumber number : sequence) {
    const std::uint64_t page = std::to_underlying(number);
    const bool in_pool = page >= kPoolFirstPage;
    const int fd = in_pool ? pool_->fd() : memory_->fd();
    const std::uint64_t first = in_pool ? page - kPoolFirstPage : page;
    if (!pieces.empty() && pieces.back().fd == fd &&
        pieces.back().first + pieces.back().count == first) {
      ++pieces.back().count;
    } else {
      pieces.push_back({.fd = fd, .first = first, .count = 1});
    }
  }
  return MapFilePages(pieces, areas_, populate);
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
  const Result<RingLayout> layout = RingLayout::Of(pages, downstream_page);
  if (!layout) return std::unexpected(layout.error());
  Result<Mapping> mapping = MapSequence(layout->sequence(), Populate::kYes);
  if (!mapping) return std::unexpected(mapping.error());
  return layout->Views(*std::move(mapping));
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
