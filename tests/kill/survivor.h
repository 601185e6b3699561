// What both surviving sides of the test have in common: a place to meet, what the library logs, the
// wait for a victim's end, the count of descriptors and mappings, and the figures of all runs.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "busy_ends.h"
#include "child.h"
#include "plan.h"

namespace kmcl::kill {

class SurvivorTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  const std::string& address() const { return address_; }
  Surroundings& around() { return *around_; }

  // The plans of the seeds whose victim is `victim`.
  static std::vector<Plan> PlansFor(Victim victim);
  std::atomic<std::int64_t>* killed_ns() { return &page_->killed_ns; }
  // Clears what the run before has left. A run that never ends is ended, and named.
  void BeginRun(const Plan& plan);
  // The victim dies within ten seconds, of the kill and of nothing else.
  static void ExpectKilled(Child& victim);
  // Nothing that was added since `before` is left. The library lets go of a client's last
  // descriptors on a thread of its own right after PartitionGone, which no event tells; hence
  // `patience_ms`.
  static void ExpectCensus(const Census& before, int patience_ms);
  // A new server takes the dead one's address, and serves.
  void ExpectNextServer();
  void EndRun(const Plan& plan);

  // Calls `run` for each plan, stops after the first that failed, and prints the figures.
  template <typename Run>
  void ForEach(const std::vector<Plan>& plans, Run run) {
    const std::uint64_t accepted = BusyChannel::total_accepted();
    const std::uint64_t cancelled = BusyChannel::total_cancelled();
    for (const Plan& plan : plans) {
      SCOPED_TRACE(plan.Describe() + "\nagain with: kill_test --seed " + std::to_string(plan.seed));
      BeginRun(plan);
      run(plan);
      EndRun(plan);
      if (HasFailure()) return;
    }
    Report(plans.size(), BusyChannel::total_accepted() - accepted,
           BusyChannel::total_cancelled() - cancelled);
  }

 private:
  void Report(std::size_t run_count, std::uint64_t accepted, std::uint64_t cancelled);

  std::string directory_;
  std::string address_;
  SharedPage* page_ = nullptr;
  std::optional<Surroundings> around_;
  std::vector<std::int64_t> notice_ns_;
};

}  // namespace kmcl::kill
