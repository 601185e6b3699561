#include <gtest/gtest.h>
#include <kmcl/wdk/pool.h>

#include <algorithm>
#include <cstdint>

#include "transport/nonpaged_pool.h"

namespace {

constexpr ULONG kTag = 0x74736554;  // 'tseT'

bool IsZero(const void* memory, std::size_t bytes) {
  const auto* const first = static_cast<const char*>(memory);
  return std::all_of(first, first + bytes, [](char byte) { return byte == 0; });
}

std::uintptr_t Misalignment(const void* memory, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(memory) % alignment;
}

TEST(PoolTest, NonPagedMemoryIsWhatServersCanSee) {
  void* const shared = ExAllocatePool2(POOL_FLAG_NON_PAGED, 100, kTag);
  void* const own = ExAllocatePool2(POOL_FLAG_PAGED, 100, kTag);
  ASSERT_NE(shared, nullptr);
  ASSERT_NE(own, nullptr);
  EXPECT_TRUE(kmcl::transport::PageOfNonPaged(shared).has_value());
  EXPECT_FALSE(kmcl::transport::PageOfNonPaged(own).has_value());
  EXPECT_EQ(Misalignment(shared, 16), 0u);
  EXPECT_EQ(Misalignment(own, 16), 0u);
  ExFreePoolWithTag(shared, kTag);
  ExFreePool(own);
}

TEST(PoolTest, EveryKindOfNonPagedPoolIsShared) {
  for (const POOL_TYPE type : {NonPagedPool, NonPagedPoolNx, NonPagedPoolNxCacheAligned}) {
    void* const memory = ExAllocatePoolWithTag(type, 5000, kTag);
    ASSERT_NE(memory, nullptr);
    EXPECT_TRUE(kmcl::transport::PageOfNonPaged(memory).has_value());
    EXPECT_EQ(Misalignment(memory, PAGE_SIZE), 0u);
    ExFreePool(memory);
  }
  void* const aligned = ExAllocatePoolWithTag(PagedPoolCacheAligned, 100, kTag);
  EXPECT_EQ(Misalignment(aligned, 64), 0u);
  EXPECT_FALSE(kmcl::transport::PageOfNonPaged(aligned).has_value());
  ExFreePool(aligned);
}

TEST(PoolTest, NewMemoryIsZeroedThoughTheOldWasNot) {
  for (int round = 0; round < 3; ++round) {
    void* const pool2 = ExAllocatePool2(POOL_FLAG_NON_PAGED, 3000, kTag);
    EXPECT_TRUE(IsZero(pool2, 3000));
    std::fill_n(static_cast<char*>(pool2), 3000, 'x');
    ExFreePoolWithTag(pool2, kTag);
    void* const zero = ExAllocatePoolZero(PagedPool, 3000, kTag);
    EXPECT_TRUE(IsZero(zero, 3000));
    std::fill_n(static_cast<char*>(zero), 3000, 'x');
    ExFreePoolWithTag(zero, kTag);
  }
}

TEST(PoolTest, ATagCountsItsBlocks) {
  SIZE_T blocks = 7;
  SIZE_T bytes = 7;
  KmclPoolQueryTag(kTag, &blocks, &bytes);
  EXPECT_EQ(blocks, 0u);
  void* const one = ExAllocatePool2(POOL_FLAG_NON_PAGED, 100, kTag);
  void* const two = ExAllocatePool2(POOL_FLAG_PAGED, 50, kTag);
  KmclPoolQueryTag(kTag, &blocks, &bytes);
  EXPECT_EQ(blocks, 2u);
  EXPECT_EQ(bytes, 150u);
  ExFreePool(one);
  ExFreePool(two);
}

TEST(PoolTest, ContradictoryFlagsAndImpossibleSizesGiveNothing) {
  EXPECT_EQ(ExAllocatePool2(0, 10, kTag), nullptr);
  EXPECT_EQ(ExAllocatePool2(POOL_FLAG_PAGED | POOL_FLAG_NON_PAGED, 10, kTag), nullptr);
  EXPECT_EQ(ExAllocatePool2(POOL_FLAG_PAGED, 10, 0), nullptr);
  EXPECT_EQ(ExAllocatePool2(POOL_FLAG_NON_PAGED, ~SIZE_T{0}, kTag), nullptr);
  EXPECT_EQ(ExAllocatePool2(POOL_FLAG_PAGED, ~SIZE_T{0}, kTag), nullptr);
}

TEST(PoolDeathTest, BadFreesAbort) {
  void* const memory = ExAllocatePool2(POOL_FLAG_PAGED, 100, kTag);
  EXPECT_DEATH(ExFreePoolWithTag(memory, kTag + 1), "another tag");
  ExFreePoolWithTag(memory, kTag);
  EXPECT_DEATH(ExFreePool(memory), "freed twice");
  EXPECT_DEATH(ExAllocatePool2(POOL_FLAG_PAGED | POOL_FLAG_RAISE_ON_FAILURE, ~SIZE_T{0}, kTag),
               "out of memory");
}

}  // namespace
