#include "survivor.h"

#include <kmcl/wdk/pool.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "roles.h"
#include "seeds.h"

namespace kmcl::kill {
namespace {

constexpr unsigned kLongestRunSeconds = 60;
char current_run[512];

// Only what a signal handler may do.
void OnHang(int) {
  (void)!write(STDERR_FILENO, current_run, strlen(current_run));
  abort();
}

}  // namespace

void SurvivorTest::SetUp() {
  char directory[] = "/tmp/kmcl-kill-XXXXXX";
  ASSERT_NE(mkdtemp(directory), nullptr);
  directory_ = directory;
  address_ = "unix:" + directory_ + "/bus";
  page_ = MakeSharedPage();
  ASSERT_NE(page_, nullptr);
  around_.emplace();
  around_->killed_ns = &page_->killed_ns;
  // The process's nonpaged pool, once made, keeps its descriptor.
  void* const first = ExAllocatePool2(POOL_FLAG_NON_PAGED, PAGE_SIZE, 0x6c6c696b);
  ASSERT_NE(first, nullptr);
  ExFreePool(first);
  signal(SIGALRM, OnHang);
  // Peers that die are no news. What the library calls an error is a fault: a leak, or misuse.
  KmclSetLogSink(
      [](PVOID faults, KMCL_LOG_LEVEL level, const char* line) {
        if (level == KmclLogError) static_cast<Faults*>(faults)->Add(line);
      },
      &around_->faults);
}

void SurvivorTest::TearDown() {
  alarm(0);
  KmclSetLogSink(nullptr, nullptr);
  unlink((directory_ + "/bus").c_str());  // a server that was killed has left it
  unlink((directory_ + "/bus.lock").c_str());
  EXPECT_EQ(rmdir(directory_.c_str()), 0) << directory_ << ": " << strerror(errno);
}

std::vector<Plan> SurvivorTest::PlansFor(Victim victim) {
  std::vector<Plan> plans;
  for (std::uint64_t seed = Seeds().first; seed <= Seeds().last; ++seed) {
    const Plan plan = MakePlan(seed);
    if (plan.victim == victim) plans.push_back(plan);
  }
  return plans;
}

void SurvivorTest::BeginRun(const Plan& plan) {
  snprintf(current_run, sizeof current_run, "this run hangs: %s\n", plan.Describe().c_str());
  alarm(kLongestRunSeconds);
  page_->killed_ns = 0;
  page_->ledger.Clear();
  around_->ledger = plan.victim == Victim::kBoth ? nullptr : &page_->ledger;
  around_->noticed_ns = 0;
}

void SurvivorTest::ExpectKilled(Child& victim) {
  const std::optional<int> status = victim.Wait();
  ASSERT_TRUE(status) << "the victim lives on";
  EXPECT_TRUE(WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL)
      << "the victim ended by itself, wait status " << *status;
}

void SurvivorTest::ExpectCensus(const Census& before, int patience_ms) {
  Census now = TakeCensus();
  for (int waited_ms = 0; now != before && waited_ms < patience_ms; ++waited_ms) {
    poll(nullptr, 0, 1);
    now = TakeCensus();
  }
  EXPECT_EQ(now.descriptors, before.descriptors) << "descriptors are left";
  EXPECT_EQ(now.shared_mappings, before.shared_mappings) << "shared mappings are left";
}

void SurvivorTest::ExpectNextServer() {
  std::optional<Child> next = Child::Start(EchoServerRole(address(), DescriptorsAtStart()));
  ASSERT_TRUE(next);
  ASSERT_EQ(next->Hear(), kReady) << "no server can follow the one that was killed";
  const NTSTATUS status = Visit(address());
  EXPECT_EQ(status, STATUS_SUCCESS) << KmclStatusName(status);
}

void SurvivorTest::EndRun(const Plan& plan) {
  around_->kill_switch.Disarm();
  EXPECT_EQ(around_->faults.Take(), "");
  // While channels come and go by themselves, one may be suspended without having noticed anything.
  if (around_->noticed_ns != 0 && !plan.cycles) {
    notice_ns_.push_back(around_->noticed_ns - page_->killed_ns);
  }
}

void SurvivorTest::Report(std::size_t run_count, std::uint64_t accepted, std::uint64_t cancelled) {
  printf("%zu runs survived; of %llu transactions accepted, %llu were cancelled.\n", run_count,
         static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(cancelled));
  if (notice_ns_.empty()) return;
  std::sort(notice_ns_.begin(), notice_ns_.end());
  const auto microseconds = [&](std::size_t rank) {
    return static_cast<double>(notice_ns_[rank]) / 1e3;
  };
  const std::size_t runs = notice_ns_.size();
  printf(
      "From the kill to EvtVmbChannelSuspend, in %zu runs: median %.0f us, 99 of 100 within %.0f "
      "us, "
      "longest %.0f us.\n",
      runs, microseconds(runs / 2), microseconds(runs * 99 / 100), microseconds(runs - 1));
}

}  // namespace kmcl::kill
