#include "transport/memory_region.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <utility>

#include "errno_text.h"
#include "log.h"
#include "transport/descriptor_passing.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace kmcl::transport {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;

// The least that a window has room for, so that a young memory is not mapped over and over.
constexpr std::uint64_t kLeastWindowPages = 1024;

}  // namespace

Error MemoryErrorFromErrno(const char* what) {
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
      Log(LogLevel::kError, "transport: %s of donated memory: %s", what, ErrnoText(error).words());
      return Error::kSystemCall;
  }
}

Result<std::unique_ptr<MemoryRegion>> MemoryRegion::Create(const char* name) {
  Descriptor memory(memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL));
  if (!memory && errno == EINVAL) {  // before Linux 6.3
    memory = Descriptor(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  }
  if (!memory) return std::unexpected(MemoryErrorFromErrno("memfd_create"));
  if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return std::unexpected(MemoryErrorFromErrno("sealing"));
  }
  return std::unique_ptr<MemoryRegion>(new MemoryRegion(std::move(memory)));
}

Result<std::unique_ptr<MemoryRegion>> MemoryRegion::Adopt(Descriptor memory,
                                                          std::uint64_t minimum_pages) {
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
  if (fstatfs(memory.get(), &file_system) != 0) {
    return std::unexpected(MemoryErrorFromErrno("fstatfs"));
  }
  if (static_cast<unsigned long>(file_system.f_type) != TMPFS_MAGIC) {
    return std::unexpected(Error::kMemoryKind);
  }
  const int mode = fcntl(memory.get(), F_GETFL);
  if (mode < 0 || (mode & O_ACCMODE) != O_RDWR) return std::unexpected(Error::kMemoryKind);

  std::unique_ptr<MemoryRegion> region(new MemoryRegion(std::move(memory)));
  const Result<std::uint64_t> pages = region->PageCount();
  if (!pages) return std::unexpected(pages.error());
  if (*pages < minimum_pages) return std::unexpected(Error::kPageOutOfRange);
  return region;
}

Result<std::uint64_t> MemoryRegion::PageCount() const {
  struct stat status {};
  if (fstat(memory_.get(), &status) != 0) return std::unexpected(MemoryErrorFromErrno("fstat"));
  return static_cast<std::uint64_t>(std::max<off_t>(status.st_size, 0)) / kPageBytes;
}

Result<void> MemoryRegion::Grow(std::uint64_t pages) {
  const Result<std::uint64_t> before = PageCount();
  if (!before) return std::unexpected(before.error());
  if (*before >= pages) return {};
  if (ftruncate(memory_.get(), static_cast<off_t>(pages * kPageBytes)) == 0) return {};
  // Another thread may have made it longer than we wanted, and then ours would have been a
  // shrinking, which the seal refuses.
  const Error error = MemoryErrorFromErrno("ftruncate");
  const Result<std::uint64_t> now = PageCount();
  if (now && *now >= pages) return {};
  return std::unexpected(error);
}

bool MemoryRegion::Punch(std::uint64_t first, std::uint64_t count) {
  if (fallocate(memory_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(first * kPageBytes),
                static_cast<off_t>(count * kPageBytes)) == 0) {
    return true;
  }
  Log(LogLevel::kError, "transport: %llu donated pages are lost: fallocate: %s",
      static_cast<unsigned long long>(count), ErrnoText(errno).words());
  return false;
}

std::byte* MemoryRegion::Window(std::uint64_t first, std::uint64_t count) {
  if (count == 0 || first >= kMaximumWindowPages || count > kMaximumWindowPages - first) {
    return nullptr;
  }
  // Acquire pairs with the release in Widen: who sees the number of pages sees a window that has
  // them, that one or a later one.
  if (first + count > window_pages_.load(std::memory_order_acquire) && !Widen(first + count)) {
    return nullptr;
  }
  return window_.load(std::memory_order_relaxed) + first * kPageBytes;
}

bool MemoryRegion::Widen(std::uint64_t pages) try {
  const Result<std::uint64_t> present = PageCount();
  if (!present || *present < pages) return false;
  const std::uint64_t usable = std::min(*present, kMaximumWindowPages);

  MutexLock lock(mutex_);
  if (window_pages_.load(std::memory_order_relaxed) >= usable) return true;
  // Each mapping reaches beyond the end of the memory, so that it serves until the memory has
  // doubled. What lies beyond the end is never handed out.
  if (mappings_.empty() || mappings_.back().bytes() / kPageBytes < usable) {
    const std::uint64_t bytes = std::bit_ceil(std::max(usable, kLeastWindowPages)) * kPageBytes;
    mappings_.reserve(mappings_.size() + 1);  // before it is mapped: nobody would own it
    void* const base =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory_.get(), 0);
    if (base == MAP_FAILED) return false;
    // A core dump would otherwise look at every page of it.
    (void)madvise(base, bytes, MADV_DONTDUMP);
    mappings_.emplace_back(static_cast<std::byte*>(base), bytes);
    window_.store(mappings_.back().base(), std::memory_order_relaxed);
  }
  window_pages_.store(usable, std::memory_order_release);
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

Result<Descriptor> MemoryRegion::Duplicate() const {
  Descriptor duplicate(fcntl(memory_.get(), F_DUPFD_CLOEXEC, 0));
  if (!duplicate) return std::unexpected(MemoryErrorFromErrno("duplicating"));
  return duplicate;
}

}  // namespace kmcl::transport
