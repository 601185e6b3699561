// Every interleaving of the two machines (pair_world.h) in small worlds: one or two channels, and a
// few wishes of each kind that may come at any moment and in any order, each answer of a device a
// success or a failure, and the link cut anywhere.
//
// The search is depth first over worlds that have not been seen, so that it holds one path only. On
// each path it checks what every walk checks (pair_world.h), and beyond that
//   no dead end: a world in which nothing is under way is at rest, where nobody waits and both ends
//     are of one mind;
//   no endless run: nothing goes round in circles without a new wish.
// A failure prints the path that led to it. KMCL_EXPLORE_MORE=N gives each scenario N wishes more
// of each kind that it has: N = 1 takes minutes and gigabytes.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "bus/pair_world.h"
#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

using Kind = PairWorld::Kind;
using Choice = PairWorld::Choice;
using Budget = std::array<std::uint8_t, PairWorld::kKinds>;  // wishes left, by kind

struct Scenario {
  const char* name;
  wire::Version version;
  std::uint32_t devices = 1;
  std::uint16_t subchannels = 0;
  bool begins_connected = true;
  std::vector<std::pair<Kind, std::uint8_t>> wishes;
  // With sanitizers, which are ten times slower, a few will do: they look at memory.
  bool in_sanitizers = false;
};

// What stands for a world in the set of those that were seen. Two worlds that differ have the same
// one with a probability of 2^-128 for each pair.
struct Fingerprint {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};
struct FingerprintHash {
  std::size_t operator()(const Fingerprint& f) const { return f.low; }
};

Fingerprint FingerprintOf(const PairWorld& world, const Budget& budget) {
  std::string bytes = world.Encode();
  bytes.append(reinterpret_cast<const char*>(budget.data()), budget.size());
  const std::size_t length = bytes.size();
  bytes.resize((length + 7) / 8 * 8);
  const auto mix = [](std::uint64_t hash, std::uint64_t word, std::uint64_t factor) {
    hash = (hash ^ word) * factor;
    return hash ^ (hash >> 29);
  };
  Fingerprint print{length, ~length};
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    print.low = mix(print.low, word, 0x9E3779B97F4A7C15);
    print.high = mix(print.high, word, 0xC2B2AE3D27D4EB4F);
  }
  return print;
}

class Exploration {
 public:
  explicit Exploration(const Scenario& scenario) : scenario_(scenario) {}

  void Run() {
    PairWorld world(Options(), Limits());
    for (std::uint32_t device = 0; device < scenario_.devices; ++device) {
      world.Take({.kind = Kind::kOffer, .detail = device});
    }
    if (scenario_.begins_connected) {
      world.Take({.kind = Kind::kConnect});
      while (!world.at_rest()) world.Take(world.Work().front());
    }
    Budget budget{};
    for (const auto& [kind, count] : scenario_.wishes) {
      budget[static_cast<std::size_t>(kind)] = static_cast<std::uint8_t>(count + More());
    }
    // What a driver owes, and what only undoes something, needs no limit.
    budget[static_cast<std::size_t>(Kind::kRelease)] = kNoLimit;
    budget[static_cast<std::size_t>(Kind::kClose)] = kNoLimit;
    budget[static_cast<std::size_t>(Kind::kTeardown)] = kNoLimit;
    Enter(std::move(world), budget, {});
    while (!path_.empty() && !failed_) Advance();
  }

  std::size_t worlds() const { return seen_.size(); }
  std::size_t steps() const { return steps_; }
  std::size_t rests() const { return rests_; }
  std::size_t opened() const { return opened_; }

 private:
  static constexpr std::uint8_t kNoLimit = 0xFF;

  struct Place {
    PairWorld world;
    Budget budget;
    Fingerprint print;
    Choice by;  // that led here
    std::vector<Choice> choices;
    std::size_t next = 0;
  };

  static int More() {
    const char* const more = std::getenv("KMCL_EXPLORE_MORE");
    return more == nullptr ? 0 : std::atoi(more);
  }

  ClientOptions Options() const {
    ClientOptions options;
    options.newest = options.oldest = scenario_.version;
    options.features = wire::kKnownFeatures;
    return options;
  }
  ServerLimits Limits() const {
    ServerLimits limits;
    limits.newest = scenario_.version;
    limits.features = wire::kKnownFeatures;
    return limits;
  }

  void Advance() {
    Place& place = path_.back();
    if (place.next == place.choices.size()) {
      seen_[place.print] = true;
      path_.pop_back();
      return;
    }
    const Choice choice = place.choices[place.next++];
    Budget budget = place.budget;
    std::uint8_t& left = budget[static_cast<std::size_t>(choice.kind)];
    const bool is_wish = choice.kind > Kind::kClientHears;
    if (is_wish && left == 0) return;
    PairWorld world = place.world;
    if (!world.Take(choice)) return;
    ++steps_;
    if (is_wish && left != kNoLimit) --left;
    Enter(std::move(world), budget, choice);
  }

  void Enter(PairWorld world, const Budget& budget, const Choice& by) {
    if (world.at_rest()) {
      ++rests_;
      world.CheckRest();
    }
    const Fingerprint print = FingerprintOf(world, budget);
    const auto [entry, is_new] = seen_.try_emplace(print, false);
    if (!is_new && entry->second && world.violation().empty()) return;
    const bool is_circle = !is_new && !entry->second;
    const std::string violation = world.violation();
    if (is_new && world.ever_open()) ++opened_;
    std::vector<Choice> choices = world.Work();
    for (const Choice& wish : world.Wishes(scenario_.devices, scenario_.subchannels)) {
      if (budget[static_cast<std::size_t>(wish.kind)] != 0) choices.push_back(wish);
    }
    path_.push_back({std::move(world), budget, print, by, std::move(choices)});
    if (!violation.empty()) Fail(violation);
    if (is_circle) Fail("it goes round in a circle");
  }

  void Fail(const std::string& what) {
    failed_ = true;
    std::string path;
    for (std::size_t i = 1; i < path_.size(); ++i) {
      path += "  " + std::to_string(i) + ". " + PairWorld::Describe(path_[i].by) + "\n";
    }
    ADD_FAILURE() << what << ", after\n" << path;
  }

  const Scenario& scenario_;
  // Whether everything that follows was seen, too; otherwise it is on the path.
  std::unordered_map<Fingerprint, bool, FingerprintHash> seen_;
  std::vector<Place> path_;
  std::size_t steps_ = 0;
  std::size_t rests_ = 0;
  std::size_t opened_ = 0;
  bool failed_ = false;
};

class Explore : public testing::TestWithParam<Scenario> {};

TEST_P(Explore, EveryInterleaving) {
#ifdef KMCL_SANITIZED
  if (!GetParam().in_sanitizers) GTEST_SKIP() << "too long with a sanitizer";
#endif
  Exploration exploration(GetParam());
  exploration.Run();
  EXPECT_GT(exploration.opened(), 0u) << "no channel was ever open";
  EXPECT_GT(exploration.rests(), 0u);
  std::printf("%s: %zu worlds, %zu steps, %zu times at rest\n", GetParam().name,
              exploration.worlds(), exploration.steps(), exploration.rests());
  RecordProperty("worlds", static_cast<int>(exploration.worlds()));
}

using enum Kind;
const Scenario kScenarios[] = {
    {"OpenCloseReopen",
     wire::Version::kCopper,
     1,
     0,
     true,
     {{kCreateGpadl, 3}, {kOpen, 3}, {kRevoke, 1}}},
    {"LinkCut",
     wire::Version::kCopper,
     1,
     0,
     false,
     {{kConnect, 1}, {kCreateGpadl, 2}, {kOpen, 2}, {kModify, 1}, {kRevoke, 1}, {kCut, 1}}},
    {"Reconnect",
     wire::Version::kCopper,
     1,
     0,
     true,
     {{kCreateGpadl, 2}, {kOpen, 2}, {kReconnect, 2}, {kRevoke, 1}},
     true},
    {"UnloadAndConnect",
     wire::Version::kIron,
     1,
     0,
     false,
     {{kConnect, 2}, {kReconnect, 1}, {kUnload, 2}, {kCreateGpadl, 2}, {kOpen, 2}}},
    {"OfferAgain",
     wire::Version::kIron,
     1,
     0,
     true,
     {{kCreateGpadl, 2}, {kOpen, 2}, {kOffer, 2}, {kRevoke, 3}},
     true},
    {"Modify",
     wire::Version::kIron,
     1,
     0,
     true,
     {{kCreateGpadl, 2}, {kOpen, 2}, {kModify, 3}, {kRevoke, 1}}},
    {"ModifyUnanswered",
     wire::Version::kWin10Rs3,
     1,
     0,
     true,
     {{kCreateGpadl, 2}, {kOpen, 2}, {kModify, 3}, {kRevoke, 1}}},
    {"Subchannel",
     wire::Version::kIron,
     1,
     1,
     true,
     {{kCreateGpadl, 2}, {kOpen, 2}, {kOffer, 1}, {kRevoke, 2}}},
    {"SubchannelAndTheEnd",
     wire::Version::kIron,
     1,
     1,
     true,
     {{kCreateGpadl, 2}, {kOpen, 2}, {kOffer, 1}, {kCut, 1}}},
    {"TwoDevices", wire::Version::kIron, 2, 0, true, {{kCreateGpadl, 2}, {kOpen, 2}, {kRevoke, 1}}},
    {"OldestVersion",
     wire::Version::kV1,
     1,
     0,
     false,
     {{kConnect, 2}, {kUnload, 1}, {kCreateGpadl, 2}, {kOpen, 2}, {kRevoke, 1}}},
    {"BeforeIdsCameBack",
     wire::Version::kWin8,
     1,
     0,
     true,
     {{kCreateGpadl, 2}, {kOpen, 2}, {kOffer, 1}, {kRevoke, 2}, {kUnload, 1}, {kConnect, 1}}},
};

INSTANTIATE_TEST_SUITE_P(Bus, Explore, testing::ValuesIn(kScenarios),
                         [](const auto& of) { return std::string(of.param.name); });

}  // namespace
}  // namespace kmcl::bus
