#include "transport/page_allocator.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

namespace kmcl::transport {
namespace {

std::uint64_t First(const std::optional<PageRun>& run) { return std::to_underlying(run->first); }

TEST(PageAllocatorTest, RunsFollowEachOtherFromTheFirstPage) {
  PageAllocator allocator(2, 100);
  EXPECT_EQ(First(allocator.Allocate(3)), 2U);
  EXPECT_EQ(First(allocator.Allocate(1)), 5U);
  EXPECT_EQ(allocator.end(), 6U);
}

TEST(PageAllocatorTest, TheLastPageBelowTheLimitIsGivenOutAndNoMore) {
  PageAllocator allocator(1, 5);
  EXPECT_FALSE(allocator.Allocate(5).has_value());
  EXPECT_EQ(First(allocator.Allocate(4)), 1U);
  EXPECT_FALSE(allocator.Allocate(1).has_value());
  EXPECT_EQ(allocator.end(), 5U);
}

TEST(PageAllocatorTest, TheLowestRunThatFitsIsUsedAgain) {
  PageAllocator allocator(0, 100);
  const auto a = allocator.Allocate(2);
  const auto b = allocator.Allocate(1);
  const auto c = allocator.Allocate(4);
  const auto d = allocator.Allocate(1);
  allocator.Free(*a);
  allocator.Free(*c);
  EXPECT_EQ(First(allocator.Allocate(3)), First(c));
  EXPECT_EQ(First(allocator.Allocate(1)), First(a));
  EXPECT_EQ(First(b), 2U);
  EXPECT_EQ(First(d), 7U);
}

TEST(PageAllocatorTest, NeighboursMergeWhicheverIsFreedFirst) {
  const std::vector<std::vector<int>> orders = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}};
  for (const std::vector<int>& order : orders) {
    PageAllocator allocator(1, 100);
    const PageRun runs[] = {*allocator.Allocate(2), *allocator.Allocate(3), *allocator.Allocate(4)};
    for (const int index : order) allocator.Free(runs[index]);
    EXPECT_EQ(allocator.free_run_count(), 1U);
    EXPECT_EQ(First(allocator.Allocate(9)), 1U);
    EXPECT_EQ(allocator.end(), 10U);
  }
}

TEST(PageAllocatorTest, AFreeRunAtTheEndIsStretched) {
  PageAllocator allocator(0, 10);
  (void)allocator.Allocate(4);
  const auto tail = allocator.Allocate(4);
  allocator.Free(*tail);
  EXPECT_EQ(First(allocator.Allocate(6)), 4U);
  EXPECT_EQ(allocator.end(), 10U);
}

TEST(PageAllocatorTest, ARunMayComeBackInParts) {
  PageAllocator allocator(0, 10);
  (void)allocator.Allocate(6);
  allocator.Free({wire::PageNumber{2}, 2});
  EXPECT_EQ(First(allocator.Allocate(2)), 2U);
}

TEST(PageAllocatorTest, FreeingTwiceOrWhatWasNeverGivenEndsTheProgram) {
  PageAllocator allocator(1, 10);
  const auto run = allocator.Allocate(4);
  EXPECT_DEATH(allocator.Free({wire::PageNumber{0}, 1}), "internal error");
  EXPECT_DEATH(allocator.Free({wire::PageNumber{4}, 2}), "internal error");
  allocator.Free(*run);
  EXPECT_DEATH(allocator.Free(*run), "internal error");
}

TEST(PageAllocatorTest, RandomUseNeverGivesAPageTwice) {
  PageAllocator allocator(3, 400);
  std::vector<PageRun> held;
  std::set<std::uint64_t> pages;
  std::uint32_t random = 12345;
  const auto next = [&random] { return random = random * 1664525U + 1013904223U, random >> 16; };
  for (int step = 0; step < 20000; ++step) {
    if (next() % 2 == 0) {
      const auto run = allocator.Allocate(1 + next() % 20);
      if (!run) continue;
      for (std::uint64_t page = First(run); page < First(run) + run->count; ++page) {
        ASSERT_TRUE(page >= 3 && page < 400 && pages.insert(page).second);
      }
      held.push_back(*run);
    } else if (!held.empty()) {
      const std::size_t index = next() % held.size();
      const PageRun run = std::exchange(held[index], held.back());
      held.pop_back();
      for (std::uint32_t page = 0; page < run.count; ++page) {
        pages.erase(std::to_underlying(run.first) + page);
      }
      allocator.Free(run);
    }
  }
  for (const PageRun run : held) allocator.Free(run);
  EXPECT_EQ(allocator.free_run_count(), 1U);
}

}  // namespace
}  // namespace kmcl::transport
