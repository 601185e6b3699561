#include "run.h"

#include <execinfo.h>
#include <kmcl/wdk/pool.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "faults.h"
#include "kernel.h"
#include "memory.h"
#include "world.h"

namespace kmcl::sim {

Report* report = nullptr;
std::size_t notes_to_print = 0;

namespace {

World* the_world = nullptr;

void Summarize() {
  report->hash = Hash();
  report->steps = Steps();
  report->switches = Switches();
  report->virtual_ns = NowNs();
  report->faults = Faults();
}

void OnSignal(int number) {
  void* frames[24];
  const int count = backtrace(frames, 24);
  if (notes_to_print != 0) backtrace_symbols_fd(frames, count, 2);
  char text[64];
  std::snprintf(text, sizeof text, "signal %d (%s)", number, strsignal(number));
  EndFailed(text);
}

void CatchSignals() {
  static std::byte stack[65536];
  const stack_t alternative{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
  sigaltstack(&alternative, nullptr);
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_ONSTACK | SA_NODEFER | SA_RESETHAND;
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) {
    sigaction(number, &action, nullptr);
  }
}

bool OnlyTheTestIsLeft() {
  for (std::uint32_t process = 0; process < kWorldProcess; ++process) {
    if (CountFibers(process) != 0) return false;
  }
  return true;
}

void AwaitLastThreads() {
  // Threads that nobody joins end in their own time.
  if (!WaitUntil(OnlyTheTestIsLeft, NowNs() + 60'000'000'000, "the last threads")) {
    Fail("threads are left:\n%s", DescribeFibers().c_str());
  }
}

void CheckNothingIsLeft(const World& world) {
  AwaitLastThreads();
  for (std::uint32_t process = 0; process < kWorldProcess; ++process) {
    if (world.WasKilled(process)) continue;
    if (CountDescriptors(process) != 0) {
      Fail("descriptors of process %u are left:%s", process, DescribeDescriptors(process).c_str());
    }
    if (MappedBytes(process) != 0) {
      Fail("memory is mapped by process %u: %llu bytes", process,
           static_cast<unsigned long long>(MappedBytes(process)));
    }
    const Living living = LivingMemory(process);
    if (living.blocks != 0) {
      Fail("memory of process %u is left: %llu bytes in %llu blocks\n%s", process,
           static_cast<unsigned long long>(living.bytes),
           static_cast<unsigned long long>(living.blocks), DescribeLeaks(process).c_str());
    }
  }
}

// More than any process of these small worlds needs; and what a driver may hold of packets that it
// retires after its callback, as long as no quota stops it (SECURITY.md).
std::uint64_t MostMemory(const Plan& plan) {
  constexpr std::uint64_t kEnough = std::uint64_t{8} << 20;
  if (plan.retirement == Retirement::kInline) return kEnough;
  std::uint64_t packets = 0;
  for (const Action& action : plan.actions) {
    if (action.verb == Verb::kSend) packets += action.amount;
  }
  return kEnough + packets * (plan.payload_bytes + std::uint64_t{512});
}

void RunHere(const Plan& plan, const Schedule& schedule, bool kept) {
  BeginRun(schedule);
  LimitMemory(MostMemory(plan));
  World world(plan);
  the_world = &world;
  world.Run();
  report->packets = world.model().delivered;
  report->completions = world.model().completed;
  for (std::uint32_t process = 0; process < kWorldProcess; ++process) {
    report->most_bytes = std::max(report->most_bytes, LivingMemory(process).most_bytes);
  }
  report->described = world.model().described;
  report->successions = world.model().successions;
  report->restored = world.model().restored;
  report->in_place = world.model().in_place;
  report->shared = world.model().shared;
  report->worked_on = world.model().worked_on;
  report->in_batches = world.model().in_batches;
  report->orphaned = world.model().orphaned;
  report->handovers = world.model().handovers;
  if (!kept) return CheckNothingIsLeft(world);
  AwaitLastThreads();
}

// The pool is one for all processes: what it has to note it has the room for, and its memory is
// mapped.
void GrowPool() {
  const InLibrary library;
  constexpr ULONG kTag = 0x6D726157;
  std::array<void*, 64> blocks{};
  for (void*& block : blocks) block = ExAllocatePool2(POOL_FLAG_NON_PAGED, PAGE_SIZE, kTag);
  for (void* const block : blocks) ExFreePoolWithTag(block, kTag);
}

}  // namespace

void EndFailed(const char* text) {
  report->ended = true;
  report->failed = true;
  std::snprintf(report->text, sizeof report->text, "%s", text);
  Summarize();
  if (notes_to_print != 0) {
    std::fprintf(stderr, "%s\nwhat happened:\n", text);
    PrintNotes(notes_to_print);
    std::fprintf(stderr, "threads:\n%s", DescribeFibers().c_str());
    if (the_world != nullptr) std::fprintf(stderr, "ends:\n%s", the_world->Describe().c_str());
    std::fflush(stderr);
  }
  _exit(1);
}

void PrepareRuns() {
  notes_to_print = 40;  // what goes wrong here goes wrong without any interleaving
  report = static_cast<Report*>(
      mmap(nullptr, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *report = Report{};
  PrepareMemory();
  PrepareFibers();
  // What the library has to say of hostile peers is not to be read a million times.
  KmclSetLogSink(
      [](PVOID, KMCL_LOG_LEVEL, const char* line) {
        if (notes_to_print != 0) std::fprintf(stderr, "%s\n", line);
      },
      nullptr);
  // A run without preemptions makes all that is made once: statics, pools, tables.
  for (const bool local : {true, false}) {
    Plan plan;
    plan.local = local;
    plan.clients = 2;
    plan.retirement = Retirement::kMixed;
    for (std::uint32_t actor : {0u, 2u, 4u}) {
      plan.actions.push_back({.actor = actor, .verb = Verb::kSend, .channel = 0, .amount = 20});
      plan.actions.push_back({.actor = actor, .verb = Verb::kSettle});
      plan.actions.push_back({.actor = actor, .verb = Verb::kReopen});
    }
    RunHere(plan, Schedule{.seed = 1, .steps_between = 0}, true);
  }
  GrowPool();
  KeepMemory();
  KeepDescriptorsAndMappings();
}

Report RunInChild(const Plan& plan, const Schedule& schedule, std::size_t print_notes) {
  *report = Report{};
  std::fflush(stdout);
  std::fflush(stderr);
  const pid_t child = fork();
  if (child < 0) {
    std::perror("fork");
    std::exit(2);
  }
  if (child == 0) {
    notes_to_print = print_notes;
    CatchSignals();
    // A run that does not even make steps. Not the machine's time: others may take it.
    const rlimit most{.rlim_cur = 60, .rlim_max = 60};
    setrlimit(RLIMIT_CPU, &most);
    RunHere(plan, schedule, false);
    report->ended = true;
    Summarize();
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
  }
  if (!report->ended) {
    report->failed = true;
    std::snprintf(report->text, sizeof report->text, "the run ended by signal %d",
                  WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  }
  return *report;
}

}  // namespace kmcl::sim
