#include "plan.h"

#include <algorithm>

#include "random.h"

namespace kmcl::sim {
namespace {

Action MakeAction(Random& random, const Plan& plan, std::uint32_t actor) {
  Action action{.actor = actor, .channel = random.Between(0, plan.channels + plan.subchannels - 1)};
  const bool client = actor / 2 != 0;
  switch (random.Between(0, 19)) {
    case 0:
    case 1:
      action.verb = Verb::kSleep;
      action.amount = random.Between(0, random.OneIn(4) ? 3000 : 60);
      break;
    case 2:
      action.verb = Verb::kSettle;
      break;
    case 3:
      action.verb = Verb::kPause;
      action.amount = random.Between(0, 50);
      break;
    case 4:
      action.verb = Verb::kReopen;
      break;
    case 5:
      action.verb = random.OneIn(3) ? Verb::kReconnect : Verb::kReopen;
      break;
    case 6:
      action.verb = Verb::kQuota;
      action.amount = random.OneIn(2) ? 0xFFFFFFFF : random.Between(1, 6);
      break;
    case 7:
      action.verb = Verb::kPassive;
      action.amount = random.Between(0, 1);
      break;
    case 8:
    case 9:
      action.verb = client ? Verb::kSync : Verb::kSend;
      action.amount = client ? random.Between(0, 200) : random.Between(1, 60);
      break;
    case 10:
    case 11:
      action.verb = client ? Verb::kSend : Verb::kSave;
      action.amount = random.Between(1, 20);
      break;
    default:
      action.verb = Verb::kSend;
      action.amount = random.Between(1, random.OneIn(4) ? 500 : 60);
  }
  // Whole connections are the business of a client's first actor.
  if (action.verb == Verb::kReconnect && (!client || actor % 2 != 0)) action.verb = Verb::kReopen;
  return action;
}

// What goes wrong, in one run of two.
void AddTrouble(Random& random, Plan& plan) {
  const auto sleep = [&] {
    plan.actions.push_back({.actor = kWorldActor,
                            .verb = Verb::kSleep,
                            .channel = 0,
                            .amount = random.Between(0, random.OneIn(2) ? 2000 : 200)});
  };
  const auto add = [&](Verb verb, std::uint32_t channel, std::uint32_t amount) {
    sleep();
    plan.actions.push_back(
        {.actor = kWorldActor, .verb = verb, .channel = channel, .amount = amount});
  };
  switch (random.Between(0, 7)) {
    case 0:
    case 1: {
      plan.local = false;
      const std::uint32_t deaths = random.Between(1, 2);
      for (std::uint32_t i = 0; i < deaths; ++i)
        add(Verb::kDie, random.Between(0, plan.clients), 0);
      return;
    }
    case 2:
    case 3: {
      plan.local = false;
      plan.hostile_client = random.Between(1, plan.clients);
      const std::uint32_t attacks = random.Between(1, 6);
      for (std::uint32_t i = 0; i < attacks; ++i) {
        add(random.OneIn(3) ? Verb::kForge : Verb::kCorrupt, plan.hostile_client - 1,
            random.Between(1, 20));
      }
      return;
    }
    case 4: {
      plan.refusals = true;
      const std::uint32_t times = random.Between(1, 6);
      for (std::uint32_t i = 0; i < times; ++i) {
        // So many calls are let through first, and so many are refused.
        const std::uint32_t skip = random.Between(0, random.OneIn(2) ? 60 : 6);
        // Memory in the program's own calls only: what the library's threads need of it is not
        // optional (docs/decisions/006).
        add(Verb::kRefuse, random.Between(0, 3), skip * 8 + random.Between(1, 3));
      }
      return;
    }
    case 5: {
      plan.local = false;
      const std::uint32_t times = random.Between(1, 4);
      for (std::uint32_t i = 0; i < times; ++i) add(Verb::kKnock, 0, random.Between(1, 6));
      return;
    }
    default:
      return;
  }
}

// Calls that are rarer than the others, between these.
void AddRareCalls(Random& random, Plan& plan) {
  for (std::uint32_t times = random.Between(2, 8); times > 0; --times) {
    Action action{.actor = random.Between(0, 2 * plan.clients + 1),
                  .channel = random.Between(0, plan.channels + plan.subchannels - 1)};
    const bool client = action.actor / 2 != 0;
    switch (random.Between(0, 11)) {
      case 0:
      case 1:
        action.verb = Verb::kNow;
        break;
      case 2:
      case 3:
      case 4:
        action.verb = Verb::kBatch;
        action.amount = random.Between(1, random.OneIn(3) ? 60 : 6);
        break;
      case 5:
      case 6:
      case 7:
        action.verb = client ? Verb::kShare : Verb::kAsk;
        action.amount = random.Between(0, random.OneIn(3) ? 60 : 2000);
        break;
      case 8:
        action.verb = Verb::kAsk;
        break;
      case 9:
        action.verb = client ? Verb::kLatency : Verb::kAsk;
        action.amount = random.OneIn(3) ? 0 : random.Between(1, 2000);
        break;
      case 10:
        action.verb = Verb::kBudget;
        action.amount = random.Between(1, random.OneIn(2) ? 100 : 5);
        break;
      default:
        action.verb = Verb::kSpoil;
        action.amount = random.Between(0, 500);
    }
    // Several in a row, or one.
    for (std::uint32_t again = random.OneIn(2) ? 1 : random.Between(2, 6); again > 0; --again) {
      const auto place = random.Between(0, static_cast<std::uint32_t>(plan.actions.size()));
      plan.actions.insert(plan.actions.begin() + place, action);
    }
  }
}

}  // namespace

Plan MakePlan(std::uint64_t seed) {
  constexpr std::uint32_t kPayloads[] = {64, 64, 1000, 4096};
  constexpr std::uint32_t kSpins[] = {0, 0, 20, 0xFFFFFFFE};
  Random random(seed);
  Plan plan;
  plan.seed = seed;
  plan.local = random.OneIn(2);
  plan.clients = random.OneIn(3) ? 2 : 1;
  plan.channels = random.OneIn(3) ? 2 : 1;
  plan.ring_pages = random.Between(3, random.OneIn(3) ? 12 : 4);
  plan.payload_bytes = kPayloads[random.Between(0, 3)];
  plan.slots = random.Between(1, 24);
  // Without completions nothing else wakes a writer that waits for space.
  plan.transactions = random.OneIn(3) ? 0 : random.Between(0, 100);
  plan.external = random.OneIn(4) ? random.Between(1, 100) : 0;
  plan.dispatch_threads = random.OneIn(3) ? 2 : 1;
  plan.spin_us = kSpins[random.Between(0, 3)];
  plan.retirement = static_cast<Retirement>(random.Between(0, 3));
  plan.slow_us = random.OneIn(3) ? random.Between(1, 300) : 0;
  // What came later has numbers of its own, so that runs without it are as they were.
  Random later(seed ^ 0x1A7E'21A7E);
  plan.subchannels = later.OneIn(6) ? later.Between(1, 2) : 0;
  plan.raw = later.OneIn(5) ? later.Between(1, 3) : 0;
  const std::uint32_t steps = random.Between(3, 14);
  for (std::uint32_t actor = 0; actor < 2 * (plan.clients + 1); ++actor) {
    // Second threads are rare enough that most failures need only the first.
    if (actor % 2 != 0 && !random.OneIn(4)) continue;
    for (std::uint32_t i = 0; i < steps; ++i) {
      plan.actions.push_back(MakeAction(random, plan, actor));
    }
  }
  AddTrouble(random, plan);
  // Raw channels cannot be saved.
  const bool troubled = std::ranges::any_of(
      plan.actions, [](const Action& action) { return action.actor == kWorldActor; });
  if (!troubled && (plan.raw & 1) == 0 && later.OneIn(3)) {
    plan.local = false;
    for (std::uint32_t times = later.Between(1, 3); times > 0; --times) {
      plan.actions.push_back({.actor = kWorldActor,
                              .verb = Verb::kSleep,
                              .channel = 0,
                              .amount = later.Between(0, later.OneIn(2) ? 2000 : 200)});
      plan.actions.push_back({.actor = kWorldActor,
                              .verb = Verb::kHandOver,
                              .channel = 0,
                              .amount = later.OneIn(3) ? later.Between(1, 4) : 0});
    }
  }
  Random latest(seed ^ 0x9A4E'CA11);
  if (latest.OneIn(3)) AddRareCalls(latest, plan);
  return plan;
}

std::string Describe(const Action& action) {
  static constexpr const char* kNames[] = {"send",      "request synchronously",
                                           "sleep",     "settle",
                                           "pause",     "reopen",
                                           "reconnect", "quota",
                                           "passive",   "save",
                                           "refuse",    "die",
                                           "corrupt",   "forge",
                                           "knock",     "hand over",
                                           "send now",  "send a batch",
                                           "share",     "ask",
                                           "latency",   "budget",
                                           "spoil"};
  static_assert(std::size(kNames) == kVerbs);
  const std::uint32_t process = action.actor / 2;
  if (action.actor == kWorldActor) {
    return std::string("the world: ") + kNames[static_cast<std::size_t>(action.verb)] + " (" +
           std::to_string(action.channel) + ", " + std::to_string(action.amount) + ")";
  }
  return (process == 0 ? std::string("server") : "client " + std::to_string(process)) +
         (action.actor % 2 != 0 ? ", second thread" : "") + ": " +
         kNames[static_cast<std::size_t>(action.verb)] + " (channel " +
         std::to_string(action.channel) + ", " + std::to_string(action.amount) + ")";
}

std::string Describe(const Plan& plan) {
  static constexpr const char* kRetirements[] = {"at once", "deferred", "later", "in all manners"};
  return std::string(plan.local ? "in one process" : "over a socket") + ", " +
         std::to_string(plan.clients) + " clients of " + std::to_string(plan.channels) +
         " channels" +
         (plan.subchannels != 0 ? " and " + std::to_string(plan.subchannels) + " sub-channels"
                                : "") +
         (plan.raw == 0   ? ""
          : plan.raw == 1 ? " (the last raw at the server)"
          : plan.raw == 2 ? " (the last raw at the client)"
                          : " (the last raw at both ends)") +
         " of " + std::to_string(plan.ring_pages) + " ring pages, payloads up to " +
         std::to_string(plan.payload_bytes) + " bytes, " + std::to_string(plan.slots) +
         " packets in flight, " + std::to_string(plan.transactions) + " % with completion, " +
         (plan.external != 0 ? std::to_string(plan.external) + " % of them with memory, " : "") +
         std::to_string(plan.dispatch_threads) + " dispatch threads, spinning " +
         (plan.spin_us == 0xFFFFFFFE ? "adaptively" : std::to_string(plan.spin_us) + " us") +
         ", retired " + kRetirements[static_cast<std::size_t>(plan.retirement)] +
         ", callbacks of up to " + std::to_string(plan.slow_us) + " us";
}

}  // namespace kmcl::sim
