// The pools. What is allocated under which tag stands beside, where neither an overrun nor a peer
// reaches it.

#include <kmcl/wdk/pool.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <unordered_map>

#include "mutex.h"
#include "transport/nonpaged_pool.h"
#include "wdk/misuse.h"

namespace kmcl::wdk {
namespace {

constexpr std::size_t kAlignment = 16;
constexpr std::size_t kLargest = std::size_t{64}
                                 << 30;  // of the nonpaged pool, and enough for both

enum class Kind : bool { kNonPaged, kPaged };

struct Block {
  ULONG tag = 0;
  std::size_t bytes = 0;
  Kind kind = Kind::kNonPaged;
};

// The table, in parts that different threads mostly do not meet in.
struct Part {
  Mutex mutex;
  std::unordered_map<const void*, Block> blocks KMCL_GUARDED_BY(mutex);
};
using Table = std::array<Part, 16>;

// Never destroyed: memory may be freed while the process exits.
Table& Blocks() {
  static auto* const table = new Table;
  return *table;
}

Part& PartOf(const void* address) {
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  return Blocks()[((number >> 4) ^ (number >> 12)) % std::tuple_size_v<Table>];
}

void* AllocateMemory(Kind kind, std::size_t bytes) {
  if (kind == Kind::kNonPaged) return transport::AllocateNonPaged(bytes);
  const std::size_t alignment = bytes >= PAGE_SIZE ? PAGE_SIZE : kAlignment;
  return ::operator new (bytes, std::align_val_t{alignment}, std::nothrow);
}

void FreeMemory(const Block& block, void* address) {
  if (block.kind == Kind::kNonPaged) return transport::FreeNonPaged(address);
  const std::size_t alignment = block.bytes >= PAGE_SIZE ? PAGE_SIZE : kAlignment;
  ::operator delete (address, std::align_val_t{alignment});
}

void* Allocate(Kind kind, std::size_t bytes, bool cache_aligned, bool zeroed, ULONG tag) {
  if (bytes > kLargest) return nullptr;
  if (bytes == 0) bytes = 1;
  // Only whole pages are aligned to more than 16.
  if (cache_aligned && bytes < PAGE_SIZE) bytes = PAGE_SIZE;
  const Block block{.tag = tag, .bytes = bytes, .kind = kind};
  void* const address = AllocateMemory(kind, bytes);
  if (address == nullptr) return nullptr;
  try {
    Part& part = PartOf(address);
    MutexLock lock(part.mutex);
    part.blocks.emplace(address, block);
  } catch (const std::bad_alloc&) {
    FreeMemory(block, address);
    return nullptr;
  }
  if (zeroed) std::memset(address, 0, bytes);
  return address;
}

Kind KindOf(POOL_TYPE type) { return (type & PagedPool) != 0 ? Kind::kPaged : Kind::kNonPaged; }

bool IsCacheAligned(POOL_TYPE type) { return (type & NonPagedPoolCacheAligned) != 0; }

void Free(void* address, ULONG tag, const char* function) {
  Block block;
  {
    Part& part = PartOf(address);
    MutexLock lock(part.mutex);
    const auto found = part.blocks.find(address);
    Require(found != part.blocks.end(), function, "not an allocated block (freed twice?)");
    Require(tag == 0 || found->second.tag == tag, function, "the block has another tag");
    block = found->second;
    part.blocks.erase(found);
  }
  FreeMemory(block, address);
}

}  // namespace
}  // namespace kmcl::wdk

using namespace kmcl;
using namespace kmcl::wdk;

PVOID ExAllocatePool2(POOL_FLAGS Flags, SIZE_T NumberOfBytes, ULONG Tag) {
  constexpr POOL_FLAGS kNonPaged = POOL_FLAG_NON_PAGED | POOL_FLAG_NON_PAGED_EXECUTE;
  const bool paged = (Flags & POOL_FLAG_PAGED) != 0;
  if (Tag == 0 || paged == ((Flags & kNonPaged) != 0)) return nullptr;
  void* const address =
      Allocate(paged ? Kind::kPaged : Kind::kNonPaged, NumberOfBytes,
               (Flags & POOL_FLAG_CACHE_ALIGNED) != 0, (Flags & POOL_FLAG_UNINITIALIZED) == 0, Tag);
  Require(address != nullptr || (Flags & POOL_FLAG_RAISE_ON_FAILURE) == 0, "ExAllocatePool2",
          "out of memory, and POOL_FLAG_RAISE_ON_FAILURE is set");
  return address;
}

PVOID ExAllocatePoolWithTag(POOL_TYPE PoolType, SIZE_T NumberOfBytes, ULONG Tag) {
  return Allocate(KindOf(PoolType), NumberOfBytes, IsCacheAligned(PoolType), false, Tag);
}

PVOID ExAllocatePoolUninitialized(POOL_TYPE PoolType, SIZE_T NumberOfBytes, ULONG Tag) {
  return ExAllocatePoolWithTag(PoolType, NumberOfBytes, Tag);
}

PVOID ExAllocatePool(POOL_TYPE PoolType, SIZE_T NumberOfBytes) {
  return ExAllocatePoolWithTag(PoolType, NumberOfBytes, 0);
}

PVOID ExAllocatePoolZero(POOL_TYPE PoolType, SIZE_T NumberOfBytes, ULONG Tag) {
  return Allocate(KindOf(PoolType), NumberOfBytes, IsCacheAligned(PoolType), true, Tag);
}

VOID ExFreePool(PVOID P) { Free(P, 0, "ExFreePool"); }

VOID ExFreePoolWithTag(PVOID P, ULONG Tag) { Free(P, Tag, "ExFreePoolWithTag"); }

VOID KmclPoolQueryTag(ULONG Tag, SIZE_T* Blocks, SIZE_T* Bytes) {
  SIZE_T blocks = 0;
  SIZE_T bytes = 0;
  for (Part& part : kmcl::wdk::Blocks()) {
    MutexLock lock(part.mutex);
    for (const auto& [address, block] : part.blocks) {
      if (block.tag != Tag) continue;
      ++blocks;
      bytes += block.bytes;
    }
  }
  if (Blocks != nullptr) *Blocks = blocks;
  if (Bytes != nullptr) *Bytes = bytes;
}
