#include "api/bounce_buffers.h"

#include <kmcl/wdk/pool.h>

#include <cstring>
#include <new>

namespace kmcl::api {
namespace {

constexpr ULONG kTag = 0x636E7542;  // "Bunc", as pool tags read

}  // namespace

std::unique_ptr<BounceBuffers> BounceBuffers::Create(std::uint32_t bytes, std::uint32_t count) {
  const std::size_t stride = ROUND_TO_PAGES(std::size_t{bytes});
  const std::size_t all = stride * count;
  auto* const memory = static_cast<std::byte*>(ExAllocatePool2(POOL_FLAG_NON_PAGED, all, kTag));
  if (memory == nullptr) return nullptr;
  std::unique_ptr<BounceBuffers> buffers(new (std::nothrow) BounceBuffers(memory, stride, count));
  if (buffers == nullptr) ExFreePoolWithTag(memory, kTag);
  return buffers;
}

BounceBuffers::~BounceBuffers() { ExFreePoolWithTag(memory_, kTag); }

void* BounceBuffers::Take() {
  std::uint32_t taken = taken_.load(std::memory_order_relaxed);
  do {
    if (taken == count_) return nullptr;
  } while (!taken_.compare_exchange_weak(taken, taken + 1, std::memory_order_relaxed));
  return memory_ + taken * stride_;
}

}  // namespace kmcl::api
