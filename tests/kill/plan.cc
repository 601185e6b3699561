#include "plan.h"

namespace kmcl::kill {

std::uint64_t Random::Next() {
  std::uint64_t mixed = (state_ += 0x9E3779B97F4A7C15);
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB;
  return mixed ^ (mixed >> 31);
}

std::uint32_t Random::Between(std::uint32_t low, std::uint32_t high) {
  return low + static_cast<std::uint32_t>(Next() % (std::uint64_t{high} - low + 1));
}

Plan MakePlan(std::uint64_t seed) {
  constexpr std::uint32_t kPayloads[] = {64, 1000, 4096};
  Random random(seed);
  Plan plan;
  plan.seed = seed;
  plan.victim = static_cast<Victim>(random.Between(0, 3));
  // Every second run by the clock: it alone meets connecting, opening, closing and half-made
  // writes.
  const std::uint32_t moment = random.Between(0, 7);
  plan.moment = moment < 4 ? static_cast<Moment>(moment) : Moment::kTimer;
  plan.event_count = random.Between(1, random.Between(0, 3) == 0 ? 8 : 400);
  plan.timer_us = random.Between(0, random.Between(0, 3) == 0 ? 8000 : 2500);
  plan.channel_count = random.Between(1, 3);
  plan.ring_pages = random.Between(3, 12);
  plan.longest_payload_bytes = kPayloads[random.Between(0, 2)];
  plan.transactions_per_channel = random.Between(1, 24);
  plan.plain_per_channel = random.Between(0, 4);
  plan.client_dispatch_threads = random.Between(1, 2);
  plan.client_spin_us = random.Between(0, 3) == 0 ? 20 : 0;
  plan.cycles = random.Between(0, 3) == 0;
  plan.packets_per_cycle = random.Between(1, 30);
  plan.cleans_up_late = random.Between(0, 1) == 0;
  plan.other_timer_us = random.Between(0, random.Between(0, 3) == 0 ? 8000 : 2500);
  if (plan.victim == Victim::kHandover) {
    const std::uint32_t step = random.Between(0, 9);  // every second one by the clock
    plan.step = static_cast<Step>(step < 5 ? step : 5 + (step - 5) % 3);
    plan.moment = Moment::kTimer;
    plan.cycles =
        false;  // a client that closes while it is handed over is the contract tests' business
  }
  return plan;
}

Plan EchoPlan() {
  Plan plan;
  plan.transactions_per_channel = 0;
  return plan;
}

std::string Plan::Describe() const {
  static constexpr const char* kMoments[] = {"the survivor's packets", "the survivor's completions",
                                             "the victim's packets", "the victim's completions",
                                             "microseconds"};
  static constexpr const char* kVictims[] = {"a client is killed", "a server is killed",
                                             "a server and a client are killed",
                                             "a handover is hit"};
  static constexpr const char* kSteps[] = {
      "where Save begins",   "where Save ends",   "where Restore begins", "where Restore ends",
      "where Resume begins", "in the old server", "in the new server",    "in both servers"};
  const std::uint32_t count = moment == Moment::kTimer ? timer_us : event_count;
  return "seed " + std::to_string(seed) + ": " + kVictims[static_cast<int>(victim)] +
         (victim == Victim::kHandover ? std::string(" ") + kSteps[static_cast<int>(step)] : "") +
         " after " + std::to_string(count) + " of " + kMoments[static_cast<int>(moment)] +
         (victim == Victim::kBoth || step == Step::kBothByClock
              ? ", the other one after " + std::to_string(other_timer_us)
              : "") +
         "; " + std::to_string(channel_count) + " channels of " + std::to_string(ring_pages) +
         " ring pages, " + std::to_string(transactions_per_channel) + "+" +
         std::to_string(plain_per_channel) + " packets of up to " +
         std::to_string(longest_payload_bytes) + " bytes each way" +
         (cycles ? ", opened and closed again and again" : "");
}

}  // namespace kmcl::kill
