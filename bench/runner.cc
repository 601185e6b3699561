#include "runner.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <set>
#include <thread>

#include "cache_line.h"

namespace kmcl::bench {
namespace {

// Two probes that differ by more tell that the machine was not the same all the time.
constexpr double kProbesMayDiffer = 0.25;
// An end that was ready to run and did not, because something else had its CPU, for more than this
// part of the time: somebody else was measured too.
constexpr double kMayBeDelayed = 0.04;
// The same for rows whose own threads take turns on a CPU, as they do by themselves.
constexpr double kSharingMayBeDelayed = 0.15;
constexpr int kCellTimeoutMilliseconds = 20'000;

double NanosecondsPerTick() {
  const std::uint64_t begin = Nanoseconds(), begin_ticks = Ticks();
  while (Nanoseconds() - begin < 20'000'000) {
  }
  return static_cast<double>(Nanoseconds() - begin) / static_cast<double>(Ticks() - begin_ticks);
}

pid_t Fork() {
  std::fflush(nullptr);
  return fork();
}

// A child that has ended well. Waits until `deadline`, then kills it.
bool Reap(pid_t child, std::uint64_t deadline, bool& timed_out) {
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  const std::uint64_t now = Nanoseconds();
  const int wait = deadline > now ? static_cast<int>((deadline - now) / 1'000'000) + 1 : 0;
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  if (poll(&waiting, 1, wait) != 1) {
    timed_out = true;
    kill(child, SIGKILL);
  }
  close(fd);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void RunEnd(Stage& stage, Pair& pair, bool near) {
  PinTo(near ? stage.plan().near_cpu : stage.plan().far_cpu);
  near ? pair.Near(stage) : pair.Far(stage);
}

// A process of its own for everything that a row does, so that what breaks there breaks nothing
// else. It forks the other end, or starts it as a thread.
void RunCell(const Row& row, Stage& stage) {
  const std::unique_ptr<Pair> pair = row.make();
  pair->Open(stage);
  if (row.ends == Ends::kTwoThreads) {
    std::thread far([&] { RunEnd(stage, *pair, false); });
    RunEnd(stage, *pair, true);
    far.join();
    _exit(0);
  }
  const pid_t far = Fork();
  if (far < 0) stage.Fail("cannot fork");
  if (far == 0) {
    RunEnd(stage, *pair, false);
    _exit(0);
  }
  RunEnd(stage, *pair, true);
  int status = 0;
  waitpid(far, &status, 0);
  _exit(WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1);
}

// Runs a cell in a process group of its own, and ends all of it if it takes too long or one of its
// ends has failed. What was found, or why nothing was, is in `stage`.
std::string Supervise(const Row& row, Stage& stage) {
  const pid_t child = Fork();
  if (child < 0) return "cannot fork";
  if (child == 0) {
    setpgid(0, 0);
    RunCell(row, stage);
  }
  setpgid(child, child);
  bool timed_out = false;
  const double longest =
      static_cast<double>(stage.plan().nanoseconds) + kCellTimeoutMilliseconds * 1e6;
  const bool well = Reap(child, Nanoseconds() + static_cast<std::uint64_t>(longest), timed_out);
  kill(-child, SIGKILL);  // a far end whose near end has died
  while (waitpid(-child, nullptr, 0) > 0) {
  }
  if (stage.failure()[0] != 0) return stage.failure();
  if (timed_out) return "took too long and was ended";
  return well ? "" : "an end died";
}

void PrintFindings(std::FILE* output, const Findings& findings) {
  std::fprintf(output, ",\"messages\":%llu", static_cast<unsigned long long>(findings.messages));
  if (findings.per_second > 0) std::fprintf(output, ",\"per_second\":%.1f", findings.per_second);
  if (findings.has_latencies) {
    std::fprintf(output, ",\"nanoseconds\":{");
    for (std::size_t i = 0; i < kQuantiles.size(); ++i) {
      std::fprintf(output, "%s\"p%g\":%.1f", i == 0 ? "" : ",", kQuantiles[i] * 100,
                   findings.nanoseconds[i]);
    }
    std::fprintf(output, "},\"median_nanoseconds\":%.2f", findings.median_nanoseconds);
  }
  for (std::uint32_t i = 0; i < findings.extra_count; ++i) {
    std::fprintf(output, ",\"%s\":%.6g", findings.extras[i].name, findings.extras[i].value);
  }
}

}  // namespace

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return escaped;
}

bool ChooseCpus(int& near_cpu, int& far_cpu) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 2) return false;
  const auto core = [](int cpu) {
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    std::getline(file, siblings);
    return siblings;
  };
  near_cpu = far_cpu = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(static_cast<std::size_t>(cpu), &set)) continue;
    if (near_cpu < 0) {
      near_cpu = cpu;
    } else if (far_cpu < 0) {
      far_cpu = cpu;
    }
    if (far_cpu >= 0 && core(near_cpu) == core(far_cpu) && core(cpu) != core(near_cpu)) {
      far_cpu = cpu;
    }
  }
  return true;
}

Runner::Runner(const Schedule& schedule, std::map<std::string, int> accepted, std::FILE* output)
    : schedule_(schedule), accepted_(std::move(accepted)), output_(output) {
  ChooseCpus(plan_.near_cpu, plan_.far_cpu);
  plan_.nanoseconds_per_tick = NanosecondsPerTick();
}

bool Runner::Run(const std::vector<Row>& rows) {
  const std::uint64_t begin = Nanoseconds();
  std::set<std::string> failed;
  for (int repetition = 1; repetition <= schedule_.repetitions; ++repetition) {
    for (const Row& row : rows) {
      if (accepted_[row.name] >= repetition || failed.contains(row.name)) continue;
      if (schedule_.at_most_seconds > 0 &&
          static_cast<double>(Nanoseconds() - begin) > schedule_.at_most_seconds * 1e9) {
        return false;
      }
      if (!Measure(row, repetition)) failed.insert(row.name);
    }
  }
  return true;
}

bool Runner::Measure(const Row& row, int repetition) {
  for (int attempt = 1; attempt <= schedule_.attempts; ++attempt) {
    Plan plan = plan_;
    plan.nanoseconds = static_cast<std::uint64_t>(schedule_.milliseconds * row.times_as_long * 1e6);
    plan.warm_nanoseconds = plan.nanoseconds / 5;
    void* const at =
        mmap(nullptr, sizeof(Stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return false;
    Stage* const stage = new (at) Stage(plan);
    const double before = ProbeCacheLine(plan.near_cpu, plan.far_cpu);
    const std::string failure = Supervise(row, *stage);
    const double after = ProbeCacheLine(plan.near_cpu, plan.far_cpu);
    const double delayed = static_cast<double>(stage->delayed_nanoseconds()) /
                           static_cast<double>(plan.warm_nanoseconds + plan.nanoseconds);
    const bool steady = std::fabs(before - after) <= kProbesMayDiffer * std::min(before, after) &&
                        delayed <= (row.shares_cpus ? kSharingMayBeDelayed : kMayBeDelayed);
    std::fprintf(output_, "{\"row\":\"%s\",\"bytes\":%zu,\"repetition\":%d,\"accepted\":%s",
                 row.name.c_str(), row.bytes, repetition,
                 failure.empty() && steady ? "true" : "false");
    std::fprintf(output_, ",\"probes\":[%.1f,%.1f],\"delayed\":%.4f", before, after, delayed);
    if (failure.empty()) {
      PrintFindings(output_, stage->findings());
    } else {
      std::fprintf(output_, ",\"failure\":\"%s\"", Escaped(failure).c_str());
    }
    std::fprintf(output_, "}\n");
    std::fflush(output_);
    munmap(at, sizeof(Stage));
    if (!failure.empty()) return false;
    if (steady) {
      ++accepted_[row.name];
      return true;
    }
  }
  return true;  // the next repetition may be luckier
}

}  // namespace kmcl::bench
