#include "endpoint/connect_gate.h"

#include <gtest/gtest.h>

namespace kmcl::endpoint {
namespace {

using std::chrono::milliseconds;

std::uint32_t Admitted(ConnectGate& gate, ConnectGate::Clock::time_point now, std::uint32_t tries) {
  std::uint32_t admitted = 0;
  for (std::uint32_t i = 0; i < tries; ++i) admitted += gate.Admit(now) ? 1 : 0;
  return admitted;
}

TEST(ConnectGate, LetsASecondsShareThroughAtOnceAndNoMore) {
  ConnectGate gate;
  const ConnectGate::Clock::time_point start{milliseconds(50'000)};
  EXPECT_EQ(Admitted(gate, start, 5000), ConnectGate::kPerSecond);
}

TEST(ConnectGate, OpensAgainAtItsRate) {
  ConnectGate gate;
  const ConnectGate::Clock::time_point start{milliseconds(50'000)};
  Admitted(gate, start, 5000);
  EXPECT_EQ(Admitted(gate, start + milliseconds(250), 5000), ConnectGate::kPerSecond / 4);
  EXPECT_EQ(Admitted(gate, start + milliseconds(250), 5000), 0U);
  // A long rest earns no more than a second's share.
  EXPECT_EQ(Admitted(gate, start + milliseconds(60'000), 5000), ConnectGate::kPerSecond);
}

TEST(ConnectGate, NeverMindsAModestRate) {
  ConnectGate gate;
  ConnectGate::Clock::time_point now{milliseconds(1)};
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_TRUE(gate.Admit(now));
    now += milliseconds(1);
  }
}

}  // namespace
}  // namespace kmcl::endpoint
