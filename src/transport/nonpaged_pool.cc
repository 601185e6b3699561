#include "transport/nonpaged_pool.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "log.h"
#include "mutex.h"
#include "transport/memory_region.h"
#include "transport/page_allocator.h"

namespace kmcl::transport {
namespace {

constexpr std::size_t kPageBytes = wire::kPageBytes;

// The memory grows by this much at least; a page that nobody touches costs nothing.
constexpr std::uint64_t kGrowthPages = 1024;

// Sizes below a page. As many as fit stand on one page; what is larger than the last gets pages.
constexpr std::array<std::uint16_t, 14> kClassBytes = {16,  32,  48,  64,  96,   128,  192,
                                                       256, 336, 512, 672, 1024, 1360, 2048};

std::size_t ClassOf(std::size_t bytes) {
  return static_cast<std::size_t>(std::ranges::lower_bound(kClassBytes, bytes) -
                                  kClassBytes.begin());
}

// A page that is cut into pieces of one class.
struct Slab {
  std::uint64_t page;
  std::uint8_t size_class;
  std::uint16_t used = 0;
  std::array<std::uint64_t, 4> free{};  // a bit for each piece
  Slab* previous = nullptr;             // among the slabs of the class that have free pieces
  Slab* next = nullptr;

  std::uint16_t piece_bytes() const { return kClassBytes[size_class]; }
  std::uint16_t capacity() const { return static_cast<std::uint16_t>(kPageBytes / piece_bytes()); }
};

// What begins on a page: a run of pages, a slab, or nothing.
struct PageUse {
  std::uint32_t run_pages = 0;
  Slab* slab = nullptr;
};

class Pool {
 public:
  // nullptr when the system lacks memory, descriptors or addresses.
  static Pool* Make() {
    Result<std::unique_ptr<MemoryRegion>> region = MemoryRegion::Create("kmcl-nonpaged-pool");
    if (!region) return nullptr;
    // Less where the process may not have so many addresses (ulimit -v).
    for (std::uint64_t pages = kMaximumPoolPages; pages >= kGrowthPages; pages /= 2) {
      void* const base = mmap(nullptr, pages * kPageBytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (base == MAP_FAILED) continue;
      void* const uses = mmap(nullptr, pages * sizeof(PageUse), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (uses != MAP_FAILED) {
        return new Pool(*std::move(region), static_cast<std::byte*>(base),
                        static_cast<PageUse*>(uses), pages);
      }
      munmap(base, pages * kPageBytes);
    }
    return nullptr;
  }

  ~Pool() {
    munmap(base_, limit_pages_ * kPageBytes);
    munmap(uses_, limit_pages_ * sizeof(PageUse));
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  void* Allocate(std::size_t bytes) KMCL_EXCLUDES(mutex_) {
    const std::size_t size_class = ClassOf(std::max<std::size_t>(bytes, 1));
    MutexLock lock(mutex_);
    if (size_class < kClassBytes.size()) return AllocatePiece(size_class);
    if (bytes > limit_pages_ * kPageBytes) return nullptr;
    const auto pages = static_cast<std::uint32_t>((bytes + kPageBytes - 1) / kPageBytes);
    const std::optional<std::uint64_t> first = AllocateRun(pages);
    if (!first) return nullptr;
    uses_[*first].run_pages = pages;
    return base_ + *first * kPageBytes;
  }

  void Free(void* memory) KMCL_EXCLUDES(mutex_) {
    std::uint64_t first = 0;
    std::uint32_t pages = 0;
    {
      MutexLock lock(mutex_);
      const std::optional<Found> found = Find(memory);
      if (!found) {
        Log(LogLevel::kError, "nonpaged pool: %p was freed, but is not allocated", memory);
        KMCL_CHECK(found.has_value());
      }
      first = found->page;
      if (found->slab != nullptr) {
        if (!FreePiece(found->slab, found->piece)) return;
        pages = 1;
      } else {
        pages = std::exchange(uses_[first].run_pages, 0);
      }
    }
    // Nobody else has these pages until the allocator does.
    if (!region_->Punch(first, pages)) return;
    MutexLock lock(mutex_);
    allocator_.Free({wire::PageNumber{first}, pages});
  }

  std::size_t Bytes(const void* memory) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const std::optional<Found> found = Find(memory);
    if (!found) return 0;
    if (found->slab != nullptr) return found->slab->piece_bytes();
    return std::size_t{uses_[found->page].run_pages} * kPageBytes;
  }

  std::optional<std::uint64_t> PageOf(const void* address) const {
    const auto offset = reinterpret_cast<std::uintptr_t>(address) -
                        reinterpret_cast<std::uintptr_t>(base_);  // wraps below the window
    const std::uint64_t page = offset / kPageBytes;
    // Relaxed: whoever has the address has it from an allocation that came after the growth.
    if (page >= present_pages_.load(std::memory_order_relaxed)) return std::nullopt;
    return page;
  }

  bool Reserves(const void* address) const {
    return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(base_) <
           limit_pages_ * kPageBytes;
  }

  Result<Descriptor> Duplicate() const { return region_->Duplicate(); }

  Pool* inherited = nullptr;  // the parent's, in a process that was forked

 private:
  struct Found {
    std::uint64_t page;
    Slab* slab;  // nullptr: a run
    std::uint16_t piece;
  };

  Pool(std::unique_ptr<MemoryRegion> region, std::byte* base, PageUse* uses, std::uint64_t pages)
      : region_(std::move(region)),
        base_(base),
        limit_pages_(pages),
        uses_(uses),
        allocator_(0, pages) {}

  // The allocation that begins at `memory`.
  std::optional<Found> Find(const void* memory) const KMCL_REQUIRES(mutex_) {
    const std::optional<std::uint64_t> page = PageOf(memory);
    if (!page) return std::nullopt;
    const auto offset =
        static_cast<std::size_t>(static_cast<const std::byte*>(memory) - base_) % kPageBytes;
    const PageUse& use = uses_[*page];
    if (use.run_pages != 0 && offset == 0) return Found{*page, nullptr, 0};
    if (use.slab == nullptr || offset % use.slab->piece_bytes() != 0) return std::nullopt;
    const auto piece = static_cast<std::uint16_t>(offset / use.slab->piece_bytes());
    if (piece >= use.slab->capacity() || (use.slab->free[piece / 64] >> (piece % 64) & 1) != 0) {
      return std::nullopt;
    }
    return Found{*page, use.slab, piece};
  }

  std::optional<std::uint64_t> AllocateRun(std::uint32_t pages) KMCL_REQUIRES(mutex_) {
    const std::optional<PageRun> run = allocator_.Allocate(pages);
    if (!run) return std::nullopt;
    if (!Reach(allocator_.end())) {
      allocator_.Free(*run);
      return std::nullopt;
    }
    return std::to_underlying(run->first);
  }

  // Makes the memory, and its part of the window, at least so long.
  bool Reach(std::uint64_t pages) KMCL_REQUIRES(mutex_) {
    const std::uint64_t present = present_pages_.load(std::memory_order_relaxed);
    if (pages <= present) return true;
    const std::uint64_t grown = std::min(limit_pages_, std::max(pages, present + kGrowthPages));
    if (!region_->Grow(grown)) return false;
    std::byte* const place = base_ + present * kPageBytes;
    if (mmap(place, (grown - present) * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             region_->fd(), static_cast<off_t>(present * kPageBytes)) == MAP_FAILED) {
      return false;
    }
    present_pages_.store(grown, std::memory_order_relaxed);
    return true;
  }

  void* AllocatePiece(std::size_t size_class) KMCL_REQUIRES(mutex_) {
    Slab* slab = partial_[size_class];
    if (slab == nullptr) {
      const std::optional<std::uint64_t> page = AllocateRun(1);
      if (!page) return nullptr;
      slab = new (std::nothrow)
          Slab{.page = *page, .size_class = static_cast<std::uint8_t>(size_class)};
      if (slab == nullptr) {
        allocator_.Free({wire::PageNumber{*page}, 1});
        return nullptr;
      }
      for (std::uint16_t piece = 0; piece < slab->capacity(); ++piece) {
        slab->free[piece / 64] |= std::uint64_t{1} << (piece % 64);
      }
      uses_[*page].slab = slab;
      Link(slab);
    }
    std::size_t word = 0;
    while (slab->free[word] == 0) ++word;
    const auto bit = static_cast<std::size_t>(std::countr_zero(slab->free[word]));
    slab->free[word] &= slab->free[word] - 1;
    if (++slab->used == slab->capacity()) Unlink(slab);
    return base_ + slab->page * kPageBytes + (word * 64 + bit) * slab->piece_bytes();
  }

  // True when the slab is no more and its page can go. One empty slab of a class stays, so that a
  // single packet does not cost a page each time.
  bool FreePiece(Slab* slab, std::uint16_t piece) KMCL_REQUIRES(mutex_) {
    slab->free[piece / 64] |= std::uint64_t{1} << (piece % 64);
    if (slab->used-- == slab->capacity()) Link(slab);
    const bool alone = slab->previous == nullptr && slab->next == nullptr;
    if (slab->used != 0 || alone) return false;
    Unlink(slab);
    uses_[slab->page].slab = nullptr;
    delete slab;
    return true;
  }

  void Link(Slab* slab) KMCL_REQUIRES(mutex_) {
    Slab*& head = partial_[slab->size_class];
    slab->next = head;
    if (head != nullptr) head->previous = slab;
    head = slab;
  }

  void Unlink(Slab* slab) KMCL_REQUIRES(mutex_) {
    (slab->previous != nullptr ? slab->previous->next : partial_[slab->size_class]) = slab->next;
    if (slab->next != nullptr) slab->next->previous = slab->previous;
    slab->previous = slab->next = nullptr;
  }

  const std::unique_ptr<MemoryRegion> region_;
  std::byte* const base_;  // limit_pages_ of address space
  const std::uint64_t limit_pages_;
  std::atomic<std::uint64_t> present_pages_{0};
  Mutex mutex_;
  PageUse* const uses_ KMCL_PT_GUARDED_BY(mutex_);  // one for each page
  PageAllocator allocator_ KMCL_GUARDED_BY(mutex_);
  std::array<Slab*, kClassBytes.size()> partial_ KMCL_GUARDED_BY(mutex_) = {};
};

// Never destroyed: objects that hold its memory may end after main.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<Pool*> inherited_pool{nullptr};

// In the child after a fork: the parent goes on using the pool, and we have only a picture of what
// it knows.
void LeavePoolToParent() {
  if (Pool* const pool = the_pool.exchange(nullptr)) inherited_pool.store(pool);
}

// The process's pool, or nullptr if it cannot be made.
Pool* ThePool() {
  Pool* pool = the_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return pool;
  static const int registered = pthread_atfork(nullptr, nullptr, LeavePoolToParent);
  (void)registered;
  Pool* made = nullptr;
  try {
    made = Pool::Make();
  } catch (const std::bad_alloc&) {
  }
  if (made == nullptr) return nullptr;
  made->inherited = inherited_pool.load();
  if (the_pool.compare_exchange_strong(pool, made, std::memory_order_acq_rel)) return made;
  delete made;
  return pool;
}

}  // namespace

void* AllocateNonPaged(std::size_t bytes) {
  Pool* const pool = ThePool();
  return pool == nullptr ? nullptr : pool->Allocate(bytes);
}

void FreeNonPaged(void* memory) {
  if (memory == nullptr) return;
  Pool* const pool = the_pool.load(std::memory_order_acquire);
  for (Pool* old = inherited_pool.load(); old != nullptr; old = old->inherited) {
    if (old->Reserves(memory)) return;
  }
  KMCL_CHECK(pool != nullptr);
  pool->Free(memory);
}

std::size_t NonPagedBytes(const void* memory) {
  Pool* const pool = the_pool.load(std::memory_order_acquire);
  return pool == nullptr ? 0 : pool->Bytes(memory);
}

std::optional<wire::PageNumber> PageOfNonPaged(const void* address) {
  const Pool* const pool = the_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return std::nullopt;
  const std::optional<std::uint64_t> page = pool->PageOf(address);
  if (!page) return std::nullopt;
  return wire::PageNumber{kPoolFirstPage + *page};
}

Result<Descriptor> DuplicateNonPagedPool() {
  const Pool* const pool = ThePool();
  if (pool == nullptr) return std::unexpected(Error::kOutOfMemory);
  return pool->Duplicate();
}

}  // namespace kmcl::transport
