#include "stage.h"

#include <unistd.h>

#include <fstream>
#include <string>

namespace kmcl::bench {

void Stage::Fail(std::string_view why) {
  if (failed_.exchange(1, std::memory_order_acq_rel) == 0) {
    std::snprintf(failure_, sizeof(failure_), "%.*s", static_cast<int>(why.size()), why.data());
  }
  _exit(1);
}

namespace {

// Nanoseconds that the calling thread was ready and did not run, since it began.
std::uint64_t Delay() {
  std::ifstream file("/proc/thread-self/schedstat");
  std::uint64_t ran = 0, waited = 0;
  file >> ran >> waited;
  return waited;
}

thread_local std::uint64_t t_delay_before = 0;

}  // namespace

void Stage::BeginDelays() { t_delay_before = Delay(); }

void Stage::NoteDelays() {
  const std::uint64_t during = Delay() - t_delay_before;
  std::uint64_t longest = delayed_.load(std::memory_order_relaxed);
  while (during > longest && !delayed_.compare_exchange_weak(longest, during)) {
  }
}

bool Inflow::OddMessage(std::uint64_t number, std::size_t bytes) {
  if (number != (next_ | kLast) || bytes < bytes_) stage_.Fail("a message was lost or damaged");
  const std::uint64_t now = Nanoseconds();
  stage_.NoteDelays();
  if (begun_ == 0) stage_.Fail("too slow: the warm-up took all of the time");
  Findings& findings = stage_.findings();
  findings.messages = next_ - counted_from_;
  findings.per_second =
      static_cast<double>(findings.messages) * 1e9 / static_cast<double>(now - begun_);
  return false;
}

void Latencies::Report(Stage& stage) {
  if (count_ == 0) stage.Fail("no round trip was finished in time");
  Findings& findings = stage.findings();
  const auto samples = std::span(samples_).first(count_);
  std::ranges::sort(samples);
  for (std::size_t i = 0; i < kQuantiles.size(); ++i) {
    const auto at = static_cast<std::size_t>(kQuantiles[i] * static_cast<double>(count_ - 1));
    findings.nanoseconds[i] = samples[at] * stage.plan().nanoseconds_per_tick;
  }
  if (!means_.empty()) {
    const auto middle = means_.begin() + static_cast<std::ptrdiff_t>(means_.size() / 2);
    std::ranges::nth_element(means_, middle);
    findings.median_nanoseconds = *middle * stage.plan().nanoseconds_per_tick;
  } else {
    findings.median_nanoseconds = findings.nanoseconds[4];
  }
  findings.messages = count_;
  findings.has_latencies = true;
}

}  // namespace kmcl::bench
