#include "transport/nonpaged_pool.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

// Filled with something that its neighbours are not.
void Fill(void* memory, std::size_t bytes, int value) { std::memset(memory, value, bytes); }

bool Holds(const void* memory, std::size_t bytes, int value) {
  const auto* const at = static_cast<const unsigned char*>(memory);
  for (std::size_t index = 0; index < bytes; ++index) {
    if (at[index] != static_cast<unsigned char>(value)) return false;
  }
  return true;
}

std::int64_t PoolBlocks() {
  const Result<Descriptor> pool = DuplicateNonPagedPool();
  struct stat status {};
  EXPECT_EQ(fstat(pool->get(), &status), 0);
  return status.st_blocks;
}

TEST(NonPagedPoolTest, EverySizeIsAlignedAndStaysOnItsPageIfItFits) {
  std::vector<void*> all;
  for (std::size_t bytes = 0; bytes <= 3 * 4096; bytes += bytes < 4200 ? 1 : 509) {
    void* const memory = AllocateNonPaged(bytes);
    ASSERT_NE(memory, nullptr);
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    EXPECT_EQ(address % 16, 0U);
    if (bytes >= 4096) {
      EXPECT_EQ(address % 4096, 0U);
    } else if (bytes > 0) {
      EXPECT_EQ(address / 4096, (address + bytes - 1) / 4096) << bytes;
    }
    EXPECT_GE(NonPagedBytes(memory), std::max<std::size_t>(bytes, 1));
    Fill(memory, bytes, static_cast<int>(bytes));
    all.push_back(memory);
  }
  std::size_t bytes = 0;
  for (void* const memory : all) {
    EXPECT_TRUE(Holds(memory, bytes, static_cast<int>(bytes)))
        << bytes << " bytes were overwritten";
    bytes += bytes < 4200 ? 1 : 509;
    FreeNonPaged(memory);
  }
}

TEST(NonPagedPoolTest, NoTwoAllocationsShareAByte) {
  constexpr int kCount = 5000;
  std::set<std::byte*> starts;
  for (int index = 0; index < kCount; ++index) {
    starts.insert(static_cast<std::byte*>(AllocateNonPaged(48)));
  }
  ASSERT_EQ(starts.size(), static_cast<std::size_t>(kCount));
  std::byte* end = nullptr;
  for (std::byte* const start : starts) {
    EXPECT_GE(start, end);
    end = start + 48;
  }
  for (std::byte* const start : starts) FreeNonPaged(start);
}

TEST(NonPagedPoolTest, PagesOfAnAllocationFollowEachOther) {
  auto* const memory = static_cast<std::byte*>(AllocateNonPaged(10 * 4096));
  const std::optional<wire::PageNumber> first = PageOfNonPaged(memory);
  ASSERT_TRUE(first.has_value());
  EXPECT_GE(std::to_underlying(*first), kPoolFirstPage);
  for (std::uint64_t page = 0; page < 10; ++page) {
    for (const std::size_t offset : {0, 4095}) {
      EXPECT_EQ(PageOfNonPaged(memory + page * 4096 + offset),
                wire::PageNumber{std::to_underlying(*first) + page});
    }
  }
  FreeNonPaged(memory);
}

TEST(NonPagedPoolTest, OtherMemoryIsNotOfThePool) {
  void* const pooled = AllocateNonPaged(100);
  int on_stack = 0;
  const auto on_heap = std::make_unique<int>();
  for (const void* const other :
       {static_cast<const void*>(&on_stack), static_cast<const void*>(on_heap.get()),
        static_cast<const void*>(nullptr), reinterpret_cast<const void*>(~std::uintptr_t{0})}) {
    EXPECT_EQ(PageOfNonPaged(other), std::nullopt);
    EXPECT_EQ(NonPagedBytes(other), 0U);
  }
  EXPECT_EQ(NonPagedBytes(static_cast<std::byte*>(pooled) + 16), 0U) << "not where it begins";
  FreeNonPaged(pooled);
  EXPECT_EQ(NonPagedBytes(pooled), 0U);
  FreeNonPaged(nullptr);
}

TEST(NonPagedPoolTest, FreedRunsGoBackToTheSystemAndComeBackZeroed) {
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  const std::int64_t before = PoolBlocks();
  void* const memory = AllocateNonPaged(kBytes);
  Fill(memory, kBytes, 0xEE);
  EXPECT_GE(PoolBlocks() - before, static_cast<std::int64_t>(kBytes / 512));
  FreeNonPaged(memory);
  EXPECT_EQ(PoolBlocks(), before);
  void* const again = AllocateNonPaged(kBytes);
  EXPECT_EQ(again, memory);
  EXPECT_TRUE(Holds(again, kBytes, 0));
  FreeNonPaged(again);
}

TEST(NonPagedPoolTest, SmallPiecesGiveTheirPagesBackToo) {
  const auto churn = [] {
    std::vector<void*> all;
    for (int index = 0; index < 10000; ++index) {
      all.push_back(AllocateNonPaged(256));
      Fill(all.back(), 256, index);
    }
    for (void* const memory : all) FreeNonPaged(memory);
  };
  churn();
  const std::int64_t before = PoolBlocks();
  churn();
  EXPECT_LE(PoolBlocks(), before);
  EXPECT_LE(before, 10000 / 16 * 8 / 2) << "what was freed is still there";
}

TEST(NonPagedPoolTest, WhatDoesNotFitIsRefused) {
  EXPECT_EQ(AllocateNonPaged(kMaximumPoolPages * 4096 + 1), nullptr);
  EXPECT_EQ(AllocateNonPaged(~std::size_t{0}), nullptr);
  // Nothing was used up by the attempts, and a sparse giant costs nothing.
  void* const half = AllocateNonPaged(kMaximumPoolPages / 2 * 4096);
  ASSERT_NE(half, nullptr);
  EXPECT_EQ(AllocateNonPaged(kMaximumPoolPages / 2 * 4096 + 4096), nullptr);
  FreeNonPaged(half);
}

TEST(NonPagedPoolTest, ThreadsShareIt) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([thread] {
      std::vector<std::pair<void*, std::size_t>> mine;
      std::uint32_t random = 12345 + static_cast<std::uint32_t>(thread);
      for (int round = 0; round < 5000; ++round) {
        random = random * 1664525 + 1013904223;
        const std::size_t bytes = 1 + (random >> 16) % 6000;
        mine.emplace_back(AllocateNonPaged(bytes), bytes);
        ASSERT_NE(mine.back().first, nullptr);
        Fill(mine.back().first, bytes, thread);
        if (mine.size() < 50) continue;
        const std::size_t victim = (random >> 8) % mine.size();
        ASSERT_TRUE(Holds(mine[victim].first, mine[victim].second, thread));
        FreeNonPaged(mine[victim].first);
        mine[victim] = mine.back();
        mine.pop_back();
      }
      for (const auto& [memory, bytes] : mine) {
        ASSERT_TRUE(Holds(memory, bytes, thread));
        FreeNonPaged(memory);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(NonPagedPoolTest, AForkedChildHasAPoolOfItsOwn) {
  void* const inherited = AllocateNonPaged(64);
  Fill(inherited, 64, 1);
  const pid_t child = fork();
  if (child == 0) {
    FreeNonPaged(inherited);  // the parent's: nothing happens
    void* const own = AllocateNonPaged(64);
    Fill(own, 64, 2);
    const bool good = own != nullptr && NonPagedBytes(inherited) == 0 && Holds(inherited, 64, 1);
    FreeNonPaged(own);
    _exit(good ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_GE(NonPagedBytes(inherited), 64U);
  EXPECT_TRUE(Holds(inherited, 64, 1));
  FreeNonPaged(inherited);
}

TEST(NonPagedPoolDeathTest, AWrongPointerEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a forked child would have another pool
  auto* const memory = static_cast<std::byte*>(AllocateNonPaged(64));
  EXPECT_DEATH(FreeNonPaged(memory + 16), "");
  int on_stack = 0;
  EXPECT_DEATH(FreeNonPaged(&on_stack), "");
  FreeNonPaged(memory);
  EXPECT_DEATH(FreeNonPaged(memory), "");
}

}  // namespace
}  // namespace kmcl::transport
