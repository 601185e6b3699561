#include "shrink.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <string>

#include "run.h"

namespace kmcl::sim {
namespace {

constexpr std::uint64_t kSchedules = 60;  // tried for each shorter plan
constexpr int kMostRuns = 6000;

// Failures are the same when they begin with the same words.
std::string KindOf(const Report& run) {
  std::string kind(run.text,
                   std::min<std::size_t>(std::string(run.text).find_first_of("0123456789\n"), 60));
  return kind;
}

class Shrinker {
 public:
  Shrinker(Plan plan, Schedule schedule, const Report& failure)
      : plan_(std::move(plan)), schedule_(schedule), kind_(KindOf(failure)) {}

  void Shrink() {
    for (bool better = true; better && runs_ < kMostRuns;) {
      better = false;
      for (std::size_t size = std::max<std::size_t>(1, plan_.actions.size() / 2); size > 0;
           size /= 2) {
        for (std::size_t at = 0; at < plan_.actions.size() && runs_ < kMostRuns;) {
          Plan shorter = plan_;
          const auto first = shorter.actions.begin() + static_cast<std::ptrdiff_t>(at);
          shorter.actions.erase(first, first + static_cast<std::ptrdiff_t>(
                                                   std::min(size, shorter.actions.size() - at)));
          if (Fails(shorter)) {
            better = true;
          } else {
            at += size;
          }
        }
      }
      better |=
          Simplify([](Plan& plan) { return plan.hostile_client == 0 && Set(plan.clients, 1u); });
      better |= Simplify([](Plan& plan) { return Set(plan.raw, 0u); });
      better |= Simplify([](Plan& plan) { return Set(plan.subchannels, 0u); });
      better |= Simplify([](Plan& plan) { return Set(plan.channels, 1u); });
      better |= Simplify([](Plan& plan) { return Set(plan.dispatch_threads, 1u); });
      better |= Simplify([](Plan& plan) { return Set(plan.slow_us, 0u); });
      better |= Simplify([](Plan& plan) { return Set(plan.spin_us, 0u); });
      better |= Simplify([](Plan& plan) { return Set(plan.slots, 1u); });
      better |= Simplify([](Plan& plan) { return Set(plan.retirement, Retirement::kInline); });
      better |= Simplify([](Plan& plan) {
        bool changed = false;
        for (Action& action : plan.actions) {
          if (action.verb == Verb::kSend && action.amount > 1) {
            action.amount /= 2;
            changed = true;
          }
        }
        return changed;
      });
    }
    // Fewer preemptions, while it still fails.
    for (const std::uint32_t interval : {10000u, 3000u, 1000u, 300u, 100u, 30u, 10u}) {
      if (interval <= schedule_.steps_between) break;
      if (TrySchedules(plan_, interval, 400)) break;
    }
  }

  const Plan& plan() const { return plan_; }
  const Schedule& schedule() const { return schedule_; }
  int runs() const { return runs_; }

 private:
  template <typename T>
  static bool Set(T& value, T simple) {
    if (value == simple) return false;
    value = simple;
    return true;
  }
  template <typename Change>
  bool Simplify(Change change) {
    Plan simpler = plan_;
    if (!change(simpler)) return false;
    std::erase_if(simpler.actions, [&](const Action& action) {
      return action.actor != kWorldActor && action.actor / 2 > simpler.clients;
    });
    for (Action& action : simpler.actions) {
      if (action.actor != kWorldActor) action.channel %= simpler.channels + simpler.subchannels;
    }
    return Fails(simpler);
  }
  bool Fails(const Plan& plan) { return TrySchedules(plan, schedule_.steps_between, kSchedules); }
  // Other schedules too: with a step less everything comes at another moment.
  bool TrySchedules(const Plan& plan, std::uint32_t interval, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      Schedule tried = schedule_;
      tried.steps_between = interval;
      tried.seed = i == 0 ? schedule_.seed : schedule_.seed * 1000 + i;
      ++runs_;
      const Report run = RunInChild(plan, tried, 0);
      if (!run.failed || KindOf(run) != kind_) continue;
      plan_ = plan;
      schedule_ = tried;
      return true;
    }
    return false;
  }

  Plan plan_;
  Schedule schedule_;
  const std::string kind_;
  int runs_ = 0;
};

}  // namespace

void PrintShrunk(Plan plan, Schedule schedule, const Report& failure) {
  const std::size_t before = plan.actions.size();
  Shrinker shrinker(std::move(plan), schedule, failure);
  shrinker.Shrink();
  std::printf("of %zu steps, %zu are enough (found in %d runs):\n  %s\n  %s\n", before,
              shrinker.plan().actions.size(), shrinker.runs(), Describe(shrinker.plan()).c_str(),
              Describe(shrinker.schedule()).c_str());
  for (const Action& action : shrinker.plan().actions) {
    std::printf("  %s\n", Describe(action).c_str());
  }
  std::fflush(stdout);
  const Report last = RunInChild(shrinker.plan(), shrinker.schedule(), 120);
  std::printf("%s\n", last.text);
}

}  // namespace kmcl::sim
