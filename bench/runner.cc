#include "runner.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "cache_line.h"

namespace kmcl::bench {
namespace {

// Two probes that differ by more tell that the machine was not the same all the time.
constexpr double kProbesMayDiffer = 0.25;
// Beyond its time: to set up, and to end.
constexpr int kCellTimeoutMilliseconds = 15'000;
// For ends that are told to end, and have to put something away.
constexpr long kGraceNanoseconds = 100'000'000;

int signals = -1;

sigset_t EndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

double NanosecondsPerTick() {
  const std::uint64_t begin = Nanoseconds(), begin_ticks = Ticks();
  while (Nanoseconds() - begin < 20'000'000) {
  }
  return static_cast<double>(Nanoseconds() - begin) / static_cast<double>(Ticks() - begin_ticks);
}

// A child does not outlive this process.
pid_t Fork() {
  std::fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
  }
  return child;
}

// Waits while others run, for a few seconds: a cell would only be dropped. Then measures all the
// same, and for a while does not wait: whoever that is may stay. False: told to end.
bool AwaitQuiet() {
  constexpr std::uint64_t kWait = 8'000'000'000, kRest = 30'000'000'000;
  constexpr int kLookMilliseconds = 3;
  static std::uint64_t not_before = 0;
  const std::uint64_t begin = Nanoseconds();
  if (begin < not_before) return true;
  for (int quiet = 0; quiet < 3;) {
    std::ifstream file("/proc/loadavg");
    double one, five, fifteen;
    int running = 1;
    file >> one >> five >> fifteen >> running;  // running/all; this process is one of them
    quiet = running <= 1 ? quiet + 1 : 0;
    pollfd waiting{.fd = signals, .events = POLLIN, .revents = 0};
    if (poll(&waiting, 1, kLookMilliseconds) == 1) return false;
    if (Nanoseconds() - begin > kWait) {
      not_before = Nanoseconds() + kRest;
      return true;
    }
  }
  return true;
}

enum class ChildEnd : std::uint8_t { kWell, kBadly, kTimedOut, kInterrupted };

// Waits for a child until `deadline`, until an end has failed, or until this process is told to
// end.
ChildEnd AwaitChild(pid_t child, const Stage& stage, std::uint64_t deadline) {
  constexpr int kLookMilliseconds = 250;  // an end that fails does not tell the other
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  pollfd waiting[2] = {{.fd = fd, .events = POLLIN, .revents = 0},
                       {.fd = signals, .events = POLLIN, .revents = 0}};
  int ready = 0;
  do {
    ready = poll(waiting, 2, kLookMilliseconds);
  } while (ready == 0 && !stage.failed() && Nanoseconds() < deadline);
  close(fd);
  if (ready <= 0) return ChildEnd::kTimedOut;
  if (waiting[1].revents != 0) return ChildEnd::kInterrupted;
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? ChildEnd::kWell : ChildEnd::kBadly;
}

// In a thread of its own: the process as a whole stays free to use all CPUs, which libraries ask
// for when they decide whether spinning makes sense.
std::thread StartEnd(const Row& row, Stage& stage, Pair& pair, bool near) {
  return std::thread([&row, &stage, &pair, near] {
    if (row.pinned) PinTo(near ? stage.plan().near_cpu : stage.plan().far_cpu);
    near ? pair.Near(stage) : pair.Far(stage);
  });
}

// A process of its own for everything that a row does, so that what breaks there breaks nothing
// else. It forks the other end, or starts it as a thread.
void RunCell(const Row& row, Stage& stage) {
  const std::unique_ptr<Pair> pair = row.make();
  pair->Open(stage);
  if (row.ends == Ends::kTwoThreads) {
    std::thread far = StartEnd(row, stage, *pair, false);
    StartEnd(row, stage, *pair, true).join();
    far.join();
    _exit(0);
  }
  const pid_t far = Fork();
  if (far < 0) stage.Fail("cannot fork");
  if (far == 0) {
    StartEnd(row, stage, *pair, false).join();
    _exit(0);
  }
  StartEnd(row, stage, *pair, true).join();
  int status = 0;
  waitpid(far, &status, 0);
  _exit(WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1);
}

// Runs a cell in a process group of its own, and ends all of it if it takes too long or one of its
// ends has failed. What was found, or why nothing was, is in `stage`.
std::string Supervise(const Row& row, Stage& stage, bool& interrupted) {
  const pid_t child = Fork();
  if (child < 0) return "cannot fork";
  if (child == 0) {
    setpgid(0, 0);
    const sigset_t set = EndingSignals();
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
    RunCell(row, stage);
  }
  setpgid(child, child);
  const double longest =
      static_cast<double>(stage.plan().nanoseconds) + kCellTimeoutMilliseconds * 1e6;
  const ChildEnd end =
      AwaitChild(child, stage, Nanoseconds() + static_cast<std::uint64_t>(longest));
  // Whatever is left: both ends, a far end whose near end has died, or what an end has started.
  if (end != ChildEnd::kWell && kill(-child, SIGTERM) == 0) Stage::Nap(kGraceNanoseconds);
  kill(-child, SIGKILL);
  while (waitpid(-child, nullptr, 0) > 0) {
  }
  interrupted = end == ChildEnd::kInterrupted;
  if (stage.failure()[0] != 0) return stage.failure();
  if (end == ChildEnd::kTimedOut) return "took too long and was ended";
  return end == ChildEnd::kWell ? "" : "an end died";
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

std::string InWords(const Findings& findings) {
  char words[80] = "done";
  if (findings.has_latencies) {
    std::snprintf(words, sizeof(words), "%.0f ns", findings.median_nanoseconds);
  } else if (findings.per_second > 0) {
    std::snprintf(words, sizeof(words), "%.4g /s", findings.per_second);
  } else if (findings.extra_count > 0) {
    std::snprintf(words, sizeof(words), "%s %.3g", findings.extras[0].name,
                  findings.extras[0].value);
  }
  return words;
}

}  // namespace

void WatchSignals() {
  const sigset_t set = EndingSignals();
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signals = signalfd(-1, &set, SFD_CLOEXEC);
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // ends whose parent has died are ours to wait for
}

const std::string& Scratch() {
  // The process that measures makes it, and removes it; those that it forks inherit the name.
  struct Folder {
    std::string path = (std::filesystem::temp_directory_path() / "kmcl_bench.XXXXXX").string();
    const pid_t owner = getpid();
    Folder() {
      if (mkdtemp(path.data()) == nullptr) std::abort();
    }
    ~Folder() {
      std::error_code ignored;
      if (getpid() == owner) std::filesystem::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  return folder.path;
}

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

Runner::End Runner::Run(const std::vector<Row>& rows) {
  Scratch();
  const std::uint64_t begin = Nanoseconds();
  std::set<std::string> failed;
  const auto wanted = [&](const Row& row) {
    return std::min(schedule_.repetitions, row.most_cells);
  };
  cell_ = cells_ = 0;
  for (const Row& row : rows) {
    cells_ += static_cast<std::size_t>(std::max(0, wanted(row) - accepted_[row.name]));
  }
  for (int repetition = 1; repetition <= schedule_.repetitions; ++repetition) {
    for (const Row& row : rows) {
      if (repetition > wanted(row) || accepted_[row.name] >= repetition) continue;
      ++cell_;
      if (failed.contains(row.name)) continue;
      if (schedule_.at_most_seconds > 0 &&
          static_cast<double>(Nanoseconds() - begin) > schedule_.at_most_seconds * 1e9) {
        return End::kTimeUp;
      }
      const Outcome outcome = Measure(row, repetition);
      if (outcome == Outcome::kInterrupted) return End::kInterrupted;
      if (outcome == Outcome::kFailed) failed.insert(row.name);
      Tell(row, repetition, outcome);
    }
  }
  return End::kDone;
}

// A line that goes on and on at a terminal; elsewhere, only what went wrong and each hundredth
// cell.
void Runner::Tell(const Row& row, int repetition, Outcome outcome) const {
  static const bool terminal = isatty(STDERR_FILENO) != 0;
  const bool bad = outcome != Outcome::kMeasured;
  if (!terminal && !bad && cell_ % 100 != 0 && cell_ != cells_) return;
  std::fprintf(stderr, "%s[%zu of %zu] %s, cell %d: %s%s", terminal ? "\r\x1b[K" : "", cell_,
               cells_, row.name.c_str(), repetition, last_.c_str(), terminal && !bad ? "" : "\n");
  if (terminal && cell_ == cells_) std::fputc('\n', stderr);
}

Runner::Outcome Runner::Measure(const Row& row, int repetition) {
  for (int attempt = 1; attempt <= schedule_.attempts; ++attempt) {
    Plan plan = plan_;
    plan.nanoseconds = static_cast<std::uint64_t>(schedule_.milliseconds * row.times_as_long * 1e6);
    plan.warm_nanoseconds = plan.nanoseconds / 5;
    void* const at =
        mmap(nullptr, sizeof(Stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
      last_ = "no memory";
      return Outcome::kFailed;
    }
    Stage* const stage = new (at) Stage(plan);
    bool interrupted = false;
    if (!AwaitQuiet()) return Outcome::kInterrupted;
    const double before = ProbeCacheLine(plan.near_cpu, plan.far_cpu);
    const std::string failure = Supervise(row, *stage, interrupted);
    if (interrupted) return Outcome::kInterrupted;
    const double after = ProbeCacheLine(plan.near_cpu, plan.far_cpu);
    const double delayed = static_cast<double>(stage->delayed_nanoseconds()) /
                           static_cast<double>(plan.warm_nanoseconds + plan.nanoseconds);
    const bool steady = std::fabs(before - after) <= kProbesMayDiffer * std::min(before, after);
    const bool alone = delayed <= row.may_be_delayed;
    std::fprintf(output_, "{\"row\":\"%s\",\"bytes\":%zu,\"repetition\":%d,\"accepted\":%s",
                 row.name.c_str(), row.bytes, repetition,
                 failure.empty() && steady && alone ? "true" : "false");
    std::fprintf(output_, ",\"probes\":[%.1f,%.1f],\"delayed\":%.4f", before, after, delayed);
    if (failure.empty()) {
      PrintFindings(output_, stage->findings());
    } else {
      std::fprintf(output_, ",\"failure\":\"%s\"", Escaped(failure).c_str());
    }
    std::fprintf(output_, "}\n");
    std::fflush(output_);
    last_ = failure.empty() ? InWords(stage->findings()) : "FAILED: " + failure;
    munmap(at, sizeof(Stage));
    if (!failure.empty()) return Outcome::kFailed;
    if (steady && alone) {
      ++accepted_[row.name];
      return Outcome::kMeasured;
    }
    last_ = steady ? "something else ran, too" : "the machine changed meanwhile";
  }
  return Outcome::kUnsteady;  // the next repetition may be luckier
}

}  // namespace kmcl::bench
