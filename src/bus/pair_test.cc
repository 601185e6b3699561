// The real server and the real client against each other (pair_world.h), on random walks: messages,
// device answers and wishes of both sides in any order, long ones, with several devices and their
// sub-channels. What one walk cannot see, exploration_test.cc looks for in small worlds.
#include <gtest/gtest.h>

#include <random>

#include "bus/pair_world.h"
#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

using Kind = PairWorld::Kind;
using Choice = PairWorld::Choice;

class Walk {
 public:
  explicit Walk(std::uint32_t seed) : random_(seed), world_(Options(), Limits()) {
    // Half of the walks begin where it is interesting.
    if (seed % 2 == 0) return;
    for (std::uint32_t device = 0; device < 3; ++device) {
      world_.Take({.kind = Kind::kOffer, .detail = device});
    }
    world_.Take({.kind = Kind::kConnect});
    Drain();
    for (const wire::ChannelId id : world_.known()) {
      world_.Take({.kind = Kind::kCreateGpadl, .channel = id, .detail = 4});
    }
  }

  void Step() {
    if (Below(16) < 11) {
      Work();
    } else {
      Wish();
    }
  }

  // No new wishes; everything under way comes to its end.
  void Drain() {
    for (int round = 0; round < 100'000 && !world_.at_rest(); ++round) Work();
    if (!world_.at_rest()) ADD_FAILURE() << "it does not come to rest";
    world_.CheckRest();
  }

  void Cut() {
    world_.Take({.kind = Kind::kCut, .detail = Below(2)});
    Drain();
  }

  const PairWorld& world() const { return world_; }

 private:
  std::uint32_t Below(std::size_t end) {
    return static_cast<std::uint32_t>(random_() % static_cast<std::uint32_t>(end));
  }
  wire::Version AnyVersion() {
    // Mostly the newer ones: the older ones know less.
    const std::uint32_t count = Below(3) == 0 ? wire::kVersionsNewestFirst.size() : 3;
    return wire::kVersionsNewestFirst[Below(count)];
  }
  ClientOptions Options() {
    ClientOptions options;
    options.newest = AnyVersion();
    options.features = wire::kKnownFeatures;
    options.client_id.data1 = 0x1234;
    return options;
  }
  ServerLimits Limits() {
    ServerLimits limits;
    limits.newest = AnyVersion();
    limits.features = wire::kKnownFeatures;
    return limits;
  }

  void Work() {
    const std::vector<Choice> work = world_.Work();
    if (work.empty()) return;
    const Choice choice = work[Below(work.size())];
    // Answers mostly succeed, or nothing would ever be open.
    if (choice.kind == Kind::kDeviceAnswers && choice.detail != 0 && Below(4) != 0) return;
    world_.Take(choice);
  }

  void Wish() {
    const std::vector<Choice> wishes = world_.Wishes(4, 1);
    const Choice choice = wishes[Below(wishes.size())];
    switch (choice.kind) {
      case Kind::kCut:
        return;  // the last thing to happen: Cut()
      case Kind::kUnload:
      case Kind::kReconnect:
      case Kind::kRevoke:
        if (Below(4) != 0) return;
        break;
      default:
        break;
    }
    world_.Take(choice);
  }

  std::mt19937 random_;
  PairWorld world_;
};

TEST(Pair, AnyInterleavingOfCorrectPeersIsAnsweredAndRefusesNothing) {
  constexpr std::uint32_t kSeeds = 10'000;
  std::uint32_t walks_with_open_channels = 0;
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    Walk walk(seed);
    const int steps = seed % 10 == 0 ? 600 : 100;
    for (int step = 0; step < steps; ++step) walk.Step();
    walk.Drain();
    walk.Cut();
    if (walk.world().ever_open()) ++walks_with_open_channels;
    ASSERT_EQ(walk.world().violation(), "") << "seed " << seed;
    ASSERT_FALSE(::testing::Test::HasFailure()) << "seed " << seed;
  }
  // Otherwise the walks do not go where it is interesting.
  EXPECT_GT(walks_with_open_channels, kSeeds / 3);
  RecordProperty("walks_with_open_channels", static_cast<int>(walks_with_open_channels));
}

}  // namespace
}  // namespace kmcl::bus
