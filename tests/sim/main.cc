// kmcl_sim: runs the library in simulated worlds, one for each seed.
//
//   kmcl_sim [--from SEED] [--runs COUNT] [--seconds SECONDS]   many seeds; stops at a failure
//   kmcl_sim --seed SEED [--notes LINES]                         one, with what happened in it
#include <sys/personality.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "run.h"
#include "shrink.h"

namespace {

using namespace kmcl::sim;

struct Options {
  std::uint64_t from = 1;
  std::uint64_t runs = 0;
  std::uint64_t seconds = 0;
  std::uint64_t seed = 0;
  std::size_t notes = 400;
  bool shrink = true;
  bool keep_going = false;
};

double RealSeconds() {
  // The program's own clock is the simulated one.
  timespec now{};
  RealClock(&now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// What the processor has done for the runs: others may have the machine, too.
double ProcessorSeconds() {
  rusage children{}, own{};
  getrusage(RUSAGE_CHILDREN, &children);
  getrusage(RUSAGE_SELF, &own);
  double seconds = 0;
  for (const timeval& each : {children.ru_utime, children.ru_stime, own.ru_utime, own.ru_stime}) {
    seconds += static_cast<double>(each.tv_sec) + static_cast<double>(each.tv_usec) / 1e6;
  }
  return seconds;
}

Options ReadOptions(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    const auto value = [&] {
      if (i + 1 == count) {
        std::fprintf(stderr, "%s wants a number\n", name.c_str());
        std::exit(2);
      }
      return std::strtoull(arguments[++i], nullptr, 10);
    };
    if (name == "--from") {
      options.from = value();
    } else if (name == "--runs") {
      options.runs = value();
    } else if (name == "--seconds") {
      options.seconds = value();
    } else if (name == "--seed") {
      options.seed = value();
    } else if (name == "--notes") {
      options.notes = value();
    } else if (name == "--no-shrink") {
      options.shrink = false;
    } else if (name == "--keep-going") {
      options.keep_going = true;
    } else {
      std::fprintf(stderr,
                   "usage: kmcl_sim [--from SEED] [--runs COUNT] [--seconds SECONDS] "
                   "[--no-shrink] [--keep-going]\n"
                   "       kmcl_sim --seed SEED [--notes LINES]\n");
      std::exit(2);
    }
  }
  return options;
}

int RunOne(const Options& options) {
  const Plan plan = MakePlan(options.seed);
  const Schedule schedule = MakeSchedule(options.seed);
  std::printf("seed %" PRIu64 ": %s; %s\n", options.seed, Describe(plan).c_str(),
              Describe(schedule).c_str());
  for (const Action& action : plan.actions) std::printf("  %s\n", Describe(action).c_str());
  const Report run = RunInChild(plan, schedule, options.notes);
  std::printf("%s: %" PRIu64 " packets, %" PRIu64 " steps, %" PRIu64
              " switches, %.3f ms, hash %016" PRIx64 "\n%s\n",
              run.failed ? "FAILED" : "well", run.packets, run.steps, run.switches,
              static_cast<double>(run.virtual_ns) / 1e6, run.hash, run.text);
  return run.failed ? 1 : 0;
}

int RunMany(const Options& options) {
  const double begun = RealSeconds();
  struct {
    std::uint64_t runs = 0, packets = 0, steps = 0, switches = 0;
    std::uint64_t most_bytes = 0, described = 0, successions = 0, restored = 0, in_place = 0,
                  handovers = 0, orphaned = 0, shared = 0, worked_on = 0, in_batches = 0,
                  faults = 0;
  } sum;
  std::uint64_t failures = 0;
  double elapsed = 0;
  for (std::uint64_t seed = options.from;; ++seed) {
    elapsed = RealSeconds() - begun;
    if (options.runs != 0 && sum.runs == options.runs) break;
    if (options.seconds != 0 && elapsed >= static_cast<double>(options.seconds)) break;
    const Plan plan = MakePlan(seed);
    const Schedule schedule = MakeSchedule(seed);
    const Report run = RunInChild(plan, schedule, 0);
    ++sum.runs;
    sum.packets += run.packets;
    sum.steps += run.steps;
    sum.switches += run.switches;
    sum.most_bytes = std::max(sum.most_bytes, run.most_bytes);
    sum.described += run.described;
    sum.successions += run.successions;
    sum.restored += run.restored;
    sum.in_place += run.in_place;
    sum.handovers += run.handovers;
    sum.orphaned += run.orphaned;
    sum.shared += run.shared;
    sum.worked_on += run.worked_on;
    sum.in_batches += run.in_batches;
    sum.faults += run.faults;
    if (sum.runs % 256 == 0 && !run.failed) {
      // The same seed is the same run: the promise that all others lean on.
      const Report again = RunInChild(plan, schedule, 0);
      if (again.hash != run.hash) {
        std::printf("seed %" PRIu64 " is not the same run twice: %016" PRIx64 ", %016" PRIx64 "\n",
                    seed, run.hash, again.hash);
        return 1;
      }
    }
    if (!run.failed) continue;
    ++failures;
    std::printf("seed %" PRIu64 " fails after %.1f s and %" PRIu64 " runs:\n%s\n", seed,
                RealSeconds() - begun, sum.runs, run.text);
    std::fflush(stdout);
    if (options.keep_going) continue;
    if (options.shrink) PrintShrunk(plan, schedule, run);
    std::printf("once more:  kmcl_sim --seed %" PRIu64 "\n", seed);
    return 1;
  }
  const double processor = ProcessorSeconds();
  const auto rate = [&](double seconds) { return static_cast<double>(sum.packets) / seconds; };
  std::printf("%" PRIu64 " seeds from %" PRIu64 " in %.1f s: %" PRIu64 " failures; %" PRIu64
              " packets (%.0f per second, %.0f per second of the processor), %" PRIu64
              " with memory, %" PRIu64 " channels saved with %" PRIu64 " packets, %" PRIu64
              " by raw channels, %" PRIu64 " in batches, %" PRIu64 " memories shared and %" PRIu64
              " times worked on, %" PRIu64 " handovers and %" PRIu64
              " with the death of the new process, %" PRIu64 " refusals, at most %" PRIu64
              " bytes of heap in a process, %" PRIu64 " steps, %" PRIu64 " switches\n",
              sum.runs, options.from, elapsed, failures, sum.packets, rate(elapsed),
              rate(processor), sum.described, sum.successions, sum.restored, sum.in_place,
              sum.in_batches, sum.shared, sum.worked_on, sum.handovers, sum.orphaned, sum.faults,
              sum.most_bytes, sum.steps, sum.switches);
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  // Addresses that are drawn anew for each process would order some things anew.
  if (const int before = personality(0xFFFFFFFF); (before & ADDR_NO_RANDOMIZE) == 0) {
    if (personality(static_cast<unsigned long>(before) | ADDR_NO_RANDOMIZE) >= 0) {
      execv("/proc/self/exe", arguments);
    }
  }
  const Options options = ReadOptions(count, arguments);
  PrepareRuns();
  return options.seed != 0 ? RunOne(options) : RunMany(options);
}
