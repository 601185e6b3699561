#include "channel/transactions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace kmcl::channel {
namespace {

wire::TransactionId Id(std::uint64_t number) { return wire::TransactionId{number}; }

TEST(TransactionsTest, IdsCountUpFromOneAndZeroIsNotUsed) {
  Transactions transactions;
  Packet first;
  Packet second;
  EXPECT_EQ(transactions.next_id(), Id(1));
  transactions.Enter(first);
  EXPECT_EQ(first.transaction_id, Id(1));
  EXPECT_EQ(transactions.next_id(), Id(2));
  transactions.Enter(second);
  EXPECT_EQ(second.transaction_id, Id(2));
  EXPECT_EQ(transactions.Take(Id(0)), nullptr);
  EXPECT_EQ(transactions.size(), 2u);
}

TEST(TransactionsTest, AnIdIsFoundOnceAndNeverUsedAgain) {
  Transactions transactions;
  Packet packet;
  transactions.Enter(packet);
  EXPECT_EQ(transactions.Take(Id(1)), &packet);
  EXPECT_EQ(transactions.Take(Id(1)), nullptr);
  EXPECT_EQ(transactions.size(), 0u);
  transactions.Enter(packet);
  EXPECT_EQ(packet.transaction_id, Id(2));
  EXPECT_EQ(transactions.Take(Id(1)), nullptr);
  EXPECT_EQ(transactions.Take(Id(2)), &packet);
}

TEST(TransactionsTest, InventedIdsFindNothing) {
  Transactions transactions;
  std::vector<Packet> packets(20);
  for (Packet& packet : packets) transactions.Enter(packet);
  // The last ones share buckets with packets that are there.
  for (const std::uint64_t id : {std::uint64_t{0}, std::uint64_t{21}, std::uint64_t{1} << 32 | 1,
                                 (std::uint64_t{1} << 63) + 8, ~std::uint64_t{0}}) {
    EXPECT_EQ(transactions.Take(Id(id)), nullptr) << id;
  }
  EXPECT_EQ(transactions.size(), 20u);
}

TEST(TransactionsTest, TheOldestIsTheOneThatWasSentFirst) {
  Transactions transactions;
  std::vector<Packet> packets(5);
  EXPECT_EQ(transactions.TakeOldest(), nullptr);
  for (Packet& packet : packets) transactions.Enter(packet);
  EXPECT_EQ(transactions.Take(Id(1)), packets.data());  // the oldest
  EXPECT_EQ(transactions.Take(Id(3)), &packets[2]);     // one in the middle
  EXPECT_EQ(transactions.Take(Id(5)), &packets[4]);     // the newest
  EXPECT_EQ(transactions.oldest(), &packets[1]);
  EXPECT_EQ(packets[1].newer, &packets[3]);
  EXPECT_EQ(transactions.TakeOldest(), &packets[1]);
  EXPECT_EQ(transactions.TakeOldest(), &packets[3]);
  EXPECT_EQ(transactions.TakeOldest(), nullptr);
  EXPECT_EQ(transactions.oldest(), nullptr);
}

TEST(TransactionsTest, EverythingIsFoundAgainAfterItGrew) {
  Transactions transactions;
  std::vector<Packet> packets(1000);
  std::uint64_t entered = 0;
  for (Packet& packet : packets) {
    transactions.Enter(packet);
    // Grows while chains are long, and now and then without need.
    if (++entered % 100 == 0) transactions.Reserve(static_cast<std::uint32_t>(entered));
  }
  for (std::uint64_t id = packets.size(); id > 0; --id) {
    ASSERT_EQ(transactions.Take(Id(id)), &packets[id - 1]);
  }
  EXPECT_EQ(transactions.size(), 0u);
}

TEST(TransactionsTest, MoreThanThereCanBeBucketsForIsHarmless) {
  Transactions transactions;
  transactions.Reserve(UINT32_MAX);
  Packet packet;
  transactions.Enter(packet);
  EXPECT_EQ(transactions.Take(Id(1)), &packet);
}

// Against a list in which everything is plain to see.
TEST(TransactionsTest, ThousandsInFlightBehaveAsAListWould) {
  std::mt19937 random(20260801);
  Transactions transactions;
  std::vector<Packet> packets(5000);
  std::vector<Packet*> idle;
  for (Packet& packet : packets) idle.push_back(&packet);
  std::deque<Packet*> model;
  for (int step = 0; step < 100'000; ++step) {
    const std::uint32_t choice = random() % 8;
    if (choice < 4 && !idle.empty()) {
      transactions.Enter(*idle.back());
      model.push_back(idle.back());
      idle.pop_back();
    } else if (choice < 7 && !model.empty()) {
      const auto taken = model.begin() + static_cast<std::ptrdiff_t>(random() % model.size());
      ASSERT_EQ(transactions.Take((*taken)->transaction_id), *taken);
      idle.push_back(*taken);
      model.erase(taken);
    } else if (choice == 7) {
      ASSERT_EQ(transactions.oldest(), model.empty() ? nullptr : model.front());
      transactions.Reserve(transactions.size());
    }
    ASSERT_EQ(transactions.size(), model.size());
  }
  for (Packet* packet : model) ASSERT_EQ(transactions.TakeOldest(), packet);
  EXPECT_EQ(transactions.TakeOldest(), nullptr);
}

}  // namespace
}  // namespace kmcl::channel
