#include <gtest/gtest.h>
#include <kmcl/wdk/lists.h>

#include <atomic>
#include <thread>
#include <vector>

namespace {

struct Item {
  LIST_ENTRY link;
  int number = 0;
};

int NumberOf(PLIST_ENTRY entry) { return CONTAINING_RECORD(entry, Item, link)->number; }

TEST(ListTest, EntriesComeOutWhereTheyWerePut) {
  LIST_ENTRY head;
  InitializeListHead(&head);
  EXPECT_NE(IsListEmpty(&head), FALSE);
  Item one{.link = {}, .number = 1};
  Item two{.link = {}, .number = 2};
  Item three{.link = {}, .number = 3};
  InsertTailList(&head, &two.link);
  InsertTailList(&head, &three.link);
  InsertHeadList(&head, &one.link);
  EXPECT_EQ(RemoveEntryList(&two.link), FALSE);
  EXPECT_EQ(NumberOf(RemoveTailList(&head)), 3);
  EXPECT_EQ(NumberOf(RemoveHeadList(&head)), 1);
  EXPECT_NE(IsListEmpty(&head), FALSE);
}

TEST(ListTest, AnotherListIsAppended) {
  LIST_ENTRY head;
  InitializeListHead(&head);
  Item items[3];
  for (int i = 0; i < 3; ++i) items[i].number = i;
  InsertTailList(&head, &items[0].link);
  InitializeListHead(&items[1].link);
  InsertTailList(&items[1].link, &items[2].link);
  AppendTailList(&head, &items[1].link);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(NumberOf(RemoveHeadList(&head)), i);
  EXPECT_NE(IsListEmpty(&head), FALSE);
}

TEST(ListTest, InterlockedOnesTellWhatWasThere) {
  LIST_ENTRY head;
  InitializeListHead(&head);
  KSPIN_LOCK lock = 0;
  Item one;
  Item two;
  EXPECT_EQ(ExInterlockedInsertTailList(&head, &one.link, &lock), nullptr);
  EXPECT_EQ(ExInterlockedInsertHeadList(&head, &two.link, &lock), &one.link);
  EXPECT_EQ(ExInterlockedRemoveHeadList(&head, &lock), &two.link);
  EXPECT_EQ(ExInterlockedRemoveHeadList(&head, &lock), &one.link);
  EXPECT_EQ(ExInterlockedRemoveHeadList(&head, &lock), nullptr);
}

TEST(ListDeathTest, ACorruptListEndsTheProgram) {
  LIST_ENTRY head;
  InitializeListHead(&head);
  Item one;
  InsertTailList(&head, &one.link);
  RemoveEntryList(&one.link);
  EXPECT_DEATH(RemoveEntryList(&one.link), "");
}

TEST(SingleListTest, LastInFirstOut) {
  SINGLE_LIST_ENTRY head{};
  SINGLE_LIST_ENTRY one{};
  SINGLE_LIST_ENTRY two{};
  EXPECT_EQ(PopEntryList(&head), nullptr);
  PushEntryList(&head, &one);
  PushEntryList(&head, &two);
  EXPECT_EQ(PopEntryList(&head), &two);
  EXPECT_EQ(PopEntryList(&head), &one);
}

TEST(SListTest, LastInFirstOutWithADepth) {
  SLIST_HEADER head;
  InitializeSListHead(&head);
  SLIST_ENTRY entries[3];
  EXPECT_EQ(InterlockedPopEntrySList(&head), nullptr);
  EXPECT_EQ(InterlockedPushEntrySList(&head, &entries[0]), nullptr);
  EXPECT_EQ(InterlockedPushEntrySList(&head, &entries[1]), &entries[0]);
  EXPECT_EQ(QueryDepthSList(&head), 2);
  EXPECT_EQ(InterlockedPopEntrySList(&head), &entries[1]);
  InterlockedPushEntrySList(&head, &entries[2]);
  const PSLIST_ENTRY all = InterlockedFlushSList(&head);
  EXPECT_EQ(all, &entries[2]);
  EXPECT_EQ(all->Next, &entries[0]);
  EXPECT_EQ(all->Next->Next, nullptr);
  EXPECT_EQ(QueryDepthSList(&head), 0);
  EXPECT_EQ(InterlockedFlushSList(&head), nullptr);
}

// Every entry has one owner at a time, whoever pops and pushes it.
TEST(SListTest, ThreadsNeverShareAnEntry) {
  struct alignas(16) Owned {
    SLIST_ENTRY link;
    std::atomic<int> owners{0};
  };
  SLIST_HEADER head;
  InitializeSListHead(&head);
  std::vector<Owned> entries(8);
  for (Owned& entry : entries) InterlockedPushEntrySList(&head, &entry.link);
  std::atomic<int> shared{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int n = 0; n < 20'000; ++n) {
          const PSLIST_ENTRY link = InterlockedPopEntrySList(&head);
          if (link == nullptr) continue;
          auto* const entry = reinterpret_cast<Owned*>(link);
          if (entry->owners.fetch_add(1) != 0) ++shared;
          entry->owners.fetch_sub(1);
          InterlockedPushEntrySList(&head, link);
        }
      });
    }
  }
  EXPECT_EQ(shared, 0);
  EXPECT_EQ(QueryDepthSList(&head), 8);
  int count = 0;
  for (PSLIST_ENTRY link = InterlockedFlushSList(&head); link != nullptr; link = link->Next)
    ++count;
  EXPECT_EQ(count, 8);
}

}  // namespace
