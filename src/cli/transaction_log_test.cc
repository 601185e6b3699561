#include "cli/transaction_log.h"

#include <gtest/gtest.h>

namespace kmcl::cli {
namespace {

TEST(TransactionLog, AddsUpHowTransactionsEnded) {
  TransactionLog log(5);
  for (std::uint64_t index = 0; index < 4; ++index) {
    log.OnSending(index);
  }
  log.OnEnded(0, true);
  log.OnEnded(1, true);
  log.OnEnded(2, false);
  const TransactionSums sums = log.Sums();
  EXPECT_EQ(sums.accepted, 4u);
  EXPECT_EQ(sums.completed, 2u);
  EXPECT_EQ(sums.cancelled, 1u);
  EXPECT_EQ(sums.unanswered, 1u);
  EXPECT_FALSE(sums.each_ended_once());
}

TEST(TransactionLog, NoticesASecondEnd) {
  TransactionLog log(1);
  log.OnSending(0);
  log.OnEnded(0, true);
  EXPECT_TRUE(log.Sums().each_ended_once());
  log.OnEnded(0, false);
  EXPECT_EQ(log.Sums().twice, 1u);
  EXPECT_FALSE(log.Sums().each_ended_once());
}

TEST(TransactionLog, NoticesTheEndOfATransactionThatWasNeverSent) {
  TransactionLog log(1);
  log.OnEnded(0, true);
  EXPECT_EQ(log.Sums().twice, 1u);
}

TEST(TransactionLog, ForgetsASendThatWasRefused) {
  TransactionLog log(1);
  log.OnSending(0);
  log.OnRefused(0);
  EXPECT_EQ(log.Sums().accepted, 0u);
  EXPECT_TRUE(log.Sums().each_ended_once());
}

}  // namespace
}  // namespace kmcl::cli
