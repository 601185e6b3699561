// One end is killed in the middle of a copy: the other is told, and nothing is lost or told twice.
#include <gtest/gtest.h>

#include <csignal>

#include "process.h"

namespace kmcl::tests {
namespace {

class VmbusLoss : public testing::Test {
 protected:
  VmbusLoss() { WriteSparseFile(path_, std::uint64_t{8} << 30); }
  std::vector<std::string> CopyArguments() const {
    return {"copy", "--bus", bus_.address(), path_, "--progress-fd", "3", "--json"};
  }
  TemporaryDirectory files_;
  const std::string path_ = files_.File("huge");
  ServedBus bus_;
};

TEST_F(VmbusLoss, WhenTheServerIsKilledEveryTransactionInFlightEndsByAnErrorOnce) {
  Process copy(CopyArguments());
  ASSERT_TRUE(copy.MakesProgress());
  // Stopped first, until the window is full: then it is known how many are in flight.
  bus_.server().Signal(SIGSTOP);
  std::string line = copy.NextLine();
  while (line.starts_with("progress ")) {
    line = copy.NextLine();
  }
  ASSERT_EQ(line, "stalled 32");
  bus_.server().Signal(SIGKILL);
  const Finished finished = copy.Wait();
  EXPECT_EQ(finished.exit_code, 3) << finished.out << finished.error;
  const auto object = finished.Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["error"]["status"], "STATUS_DEVICE_REMOVED");
  const auto& sums = object["transactions"];
  EXPECT_EQ(sums["cancelled"], 32);
  EXPECT_EQ(sums["accepted"].get<int>(),
            sums["completed"].get<int>() + sums["cancelled"].get<int>());
  EXPECT_EQ(sums["unanswered"], 0);
  EXPECT_EQ(sums["completed_twice"], 0);
  EXPECT_EQ(object["counters_agree"], true) << object;
  EXPECT_EQ(object["lost"]["in_flight"], sums["cancelled"]);
}

TEST_F(VmbusLoss, WhenTheServerIsKilledInFullFlightNothingIsLostEither) {
  Process copy(CopyArguments());
  ASSERT_TRUE(copy.MakesProgress());
  bus_.server().Signal(SIGKILL);
  const Finished finished = copy.Wait();
  EXPECT_EQ(finished.exit_code, 3) << finished.out << finished.error;
  const auto object = finished.Json();
  EXPECT_EQ(object["transactions"]["unanswered"], 0);
  EXPECT_EQ(object["transactions"]["completed_twice"], 0);
  EXPECT_EQ(object["counters_agree"], true) << object;
}

TEST_F(VmbusLoss, WhenTheServerStopsTheClientIsToldToo) {
  Process copy(CopyArguments());
  ASSERT_TRUE(copy.MakesProgress());
  bus_.Stop();
  const Finished finished = copy.Wait();
  EXPECT_EQ(finished.exit_code, 3) << finished.out << finished.error;
  const auto object = finished.Json();
  EXPECT_EQ(object["transactions"]["unanswered"], 0);
  EXPECT_EQ(object["counters_agree"], true) << object;
  EXPECT_TRUE(bus_.received().Entries().empty());
}

TEST_F(VmbusLoss, WhenTheClientIsKilledTheServerDropsItsHalfFileAndGoesOn) {
  Process copy(CopyArguments());
  ASSERT_TRUE(copy.MakesProgress());
  copy.Signal(SIGKILL);
  EXPECT_EQ(copy.Wait().exit_code, -SIGKILL);
  EXPECT_EQ(RunVmbus({"ping", "--bus", bus_.address(), "--count", "100"}).exit_code, 0);
  bus_.Stop();
  EXPECT_TRUE(bus_.received().Entries().empty());
}

}  // namespace
}  // namespace kmcl::tests
