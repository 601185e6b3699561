#include "transport/partition_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "log.h"
#include "transport/descriptor_passing.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace kmcl::transport {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;

Error FromErrno(const char* what) {
  const int error = errno;
  switch (error) {
    case ENOMEM:
    case ENOSPC:
    case EFBIG:
      return Error::kOutOfMemory;
    case EMFILE:
    case ENFILE:
      return Error::kOutOfDescriptors;
    case EPERM:
    case EACCES:
      return Error::kMemoryKind;
    default:
      Log(LogLevel::kError, "transport: %s of donated memory: %s", what, std::strerror(error));
      return Error::kSystemCall;
  }
}

// A set of pages in a row, in the memfd and in our address space: one area.
struct Extent {
  std::uint64_t first;
  std::uint64_t count;
};

std::vector<Extent> Coalesce(std::span<const wire::PageNumber> sequence) {
  std::vector<Extent> extents;
  for (const wire::PageNumber number : sequence) {
    const std::uint64_t page = std::to_underlying(number);
    if (!extents.empty() && extents.back().first + extents.back().count == page) {
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
  const std::uint64_t limit_pages = maximum_bytes / kPageBytes;
  if (limit_pages < reserved_pages) return std::unexpected(Error::kOutOfMemory);

  Descriptor memory(memfd_create("kmcl-partition", MFD_CLOEXEC | MFD_NOEXEC_SEAL));
  if (!memory && errno == EINVAL) {  // before Linux 6.3
    memory = Descriptor(memfd_create("kmcl-partition", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  }
  if (!memory) return std::unexpected(FromErrno("memfd_create"));
  if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return std::unexpected(FromErrno("sealing"));
  }
  if (ftruncate(memory.get(), static_cast<off_t>(reserved_pages * kPageBytes)) != 0) {
    return std::unexpected(FromErrno("ftruncate"));
  }
  return PartitionMemory(std::move(memory), PageAllocator(reserved_pages, limit_pages));
}

Result<PartitionMemory> PartitionMemory::Adopt(Descriptor memory, std::uint32_t reserved_pages) {
  // The seals come first: asking for them reaches no file system, and fails for everything but
  // memory. fstat and fstatfs of a file in a FUSE file system would wait for whoever serves that
  // file.
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0) {
    CloseForeign(std::move(memory));
    return std::unexpected(Error::kMemoryKind);
  }
  // A file in a mounted tmpfs has seals too, but can get none added: F_SEAL_SHRINK means memfd.
  if ((seals & F_SEAL_SHRINK) == 0) return std::unexpected(Error::kMemoryNotSealed);
  if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) {
    return std::unexpected(Error::kMemoryKind);
  }
  // Huge pages come from a pool; touching one when the pool is empty is a SIGBUS.
  struct statfs file_system {};
  if (fstatfs(memory.get(), &file_system) != 0) return std::unexpected(FromErrno("fstatfs"));
  if (static_cast<unsigned long>(file_system.f_type) != TMPFS_MAGIC) {
    return std::unexpected(Error::kMemoryKind);
  }
  const int mode = fcntl(memory.get(), F_GETFL);
  if (mode < 0 || (mode & O_ACCMODE) != O_RDWR) return std::unexpected(Error::kMemoryKind);
  struct stat status {};
  if (fstat(memory.get(), &status) != 0) return std::unexpected(FromErrno("fstat"));
  if (status.st_size <= 0 ||
      static_cast<std::uint64_t>(status.st_size) / kPageBytes < reserved_pages) {
    return std::unexpected(Error::kPageOutOfRange);
  }
  return PartitionMemory(std::move(memory), std::nullopt);
}

Result<Mapping> PartitionMemory::MapSequence(std::span<const wire::PageNumber> sequence,
                                             Populate populate) const {
  struct stat status {};
  if (fstat(memory_.get(), &status) != 0) return std::unexpected(FromErrno("fstat"));
  // The memory may grow while we look, but it cannot shrink: what is inside now stays inside.
  const std::uint64_t page_count = static_cast<std::uint64_t>(status.st_size) / kPageBytes;
  for (const wire::PageNumber page : sequence) {
    if (std::to_underlying(page) >= page_count) return std::unexpected(Error::kPageOutOfRange);
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
  if (reserved == MAP_FAILED) return std::unexpected(FromErrno("mmap"));
  Mapping mapping(static_cast<std::byte*>(reserved), bytes, std::move(lease));
  std::byte* piece = mapping.base();
  for (const Extent& extent : extents) {
    if (mmap(piece, extent.count * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             memory_.get(), static_cast<off_t>(extent.first * kPageBytes)) == MAP_FAILED) {
      return std::unexpected(FromErrno("mmap"));
    }
    piece += extent.count * kPageBytes;
  }
  // Faults now cost time once; and a page that the system cannot provide is an error here, where it
  // would be a SIGBUS on first touch.
  if (populate == Populate::kYes && madvise(mapping.base(), bytes, MADV_POPULATE_WRITE) != 0) {
    return std::unexpected(errno == EFAULT ? Error::kOutOfMemory : FromErrno("populating"));
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

Result<Descriptor> PartitionMemory::Duplicate() const {
  Descriptor duplicate(fcntl(memory_.get(), F_DUPFD_CLOEXEC, 0));
  if (!duplicate) return std::unexpected(FromErrno("duplicating"));
  return duplicate;
}

Result<PageRun> PartitionMemory::Allocate(std::uint32_t count) {
  KMCL_CHECK(allocator_.has_value());
  if (count == 0) return std::unexpected(Error::kFieldOutOfRange);
  const std::optional<PageRun> run = allocator_->Allocate(count);
  if (!run) return std::unexpected(Error::kOutOfMemory);

  struct stat status {};
  const std::uint64_t needed_bytes = allocator_->end() * kPageBytes;
  if (fstat(memory_.get(), &status) != 0 ||
      (static_cast<std::uint64_t>(status.st_size) < needed_bytes &&
       ftruncate(memory_.get(), static_cast<off_t>(needed_bytes)) != 0)) {
    const Error error = FromErrno("ftruncate");
    allocator_->Free(*run);
    return std::unexpected(error);
  }
  return *run;
}

void PartitionMemory::Free(PageRun run) {
  KMCL_CHECK(allocator_.has_value());
  if (fallocate(memory_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(std::to_underlying(run.first) * kPageBytes),
                static_cast<off_t>(run.count * kPageBytes)) != 0) {
    // They still hold the last user's bytes, so nobody may get them again.
    Log(LogLevel::kError, "transport: %u donated pages are lost: fallocate: %s", run.count,
        std::strerror(errno));
    return;
  }
  allocator_->Free(run);
}

}  // namespace kmcl::transport
