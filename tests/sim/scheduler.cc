#include "scheduler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "report.h"

namespace kmcl::sim {

std::int64_t steps_left = INT64_MAX;
bool store_buffers = false;

namespace {

// What one atomic operation or call takes, in virtual time.
constexpr std::int64_t kStepNs = 10;
constexpr std::int64_t kYieldNs = 500;
// A run that goes on for longer than this makes no progress.
constexpr std::uint64_t kMostSteps = 30'000'000;

struct Entry {
  const char* what;
  std::uint64_t a, b, c;
  std::int64_t time_ns;
  std::uint32_t fiber;
};
constexpr std::size_t kEntries = 1 << 16;

// Some of the fibers, in the order of their numbers.
class Fibers {
 public:
  void Add(std::uint32_t id) { words_[id / 64] |= Bit(id); }
  void Remove(std::uint32_t id) { words_[id / 64] &= ~Bit(id); }
  std::uint32_t count() const {
    return static_cast<std::uint32_t>(std::popcount(words_[0]) + std::popcount(words_[1]));
  }
  // The n-th of them, from 0.
  std::uint32_t At(std::uint32_t n) const {
    std::uint32_t word = 0;
    if (const auto first = static_cast<std::uint32_t>(std::popcount(words_[0])); n >= first) {
      n -= first;
      word = 1;
    }
    std::uint64_t bits = words_[word];
    for (; n > 0; --n) bits &= bits - 1;
    return word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
  }
  // Calls function(id) for each that is in it now.
  template <typename Function>
  void ForEach(Function function) const {
    for (std::uint32_t word = 0; word < words_.size(); ++word) {
      for (std::uint64_t bits = words_[word]; bits != 0; bits &= bits - 1) {
        function(word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits)));
      }
    }
  }

 private:
  static std::uint64_t Bit(std::uint32_t id) { return std::uint64_t{1} << id % 64; }
  std::array<std::uint64_t, 2> words_{};
};
static_assert(kMostFibers == 128);

struct World {
  Schedule schedule;
  Random random{0};
  Random choices{0};
  std::array<Fiber, kMostFibers> fibers;
  std::uint32_t fiber_count = 0;
  Fiber* current = fibers.data();
  // Kept beside what the fibers themselves say, so that few of them have to be looked at.
  Fibers runnable;
  Fibers blocked;
  Fibers storing;                        // with stores that others do not see yet
  std::int64_t first_deadline = kNever;  // no blocked one's is earlier
  std::int64_t priority_base = 0;

  std::int64_t skipped_ns = 0;
  std::uint64_t steps = 0;  // up to the last refill
  std::int64_t refill = 0;
  std::uint64_t switches = 0;
  bool preemptions = false;

  std::uint64_t entry_count = 0;
  std::uint64_t hash = 0xCBF29CE484222325;
};
constinit World world;
// Not in it: only what was written of it is there for a fork to copy.
std::array<Entry, kEntries> entries;

void Mix(std::uint64_t value) { world.hash = (world.hash ^ value) * 0x100000001B3; }

void Refill(std::int64_t steps) {
  world.steps += static_cast<std::uint64_t>(world.refill - steps_left);
  world.refill = steps_left = steps;
  if (world.steps > kMostSteps) Fail("no end after %llu steps", (unsigned long long)world.steps);
}

std::int64_t DrawInterval() {
  if (!world.preemptions) return 1'000'000;
  return world.random.Between(0, 2 * world.schedule.steps_between);
}

void SetState(Fiber& fiber, FiberState state) {
  if (fiber.state == FiberState::kRunnable) world.runnable.Remove(fiber.id);
  if (fiber.state == FiberState::kBlocked) world.blocked.Remove(fiber.id);
  fiber.state = state;
  if (state == FiberState::kRunnable) world.runnable.Add(fiber.id);
  if (state == FiberState::kBlocked) {
    world.blocked.Add(fiber.id);
    world.first_deadline = std::min(world.first_deadline, fiber.deadline_ns);
  }
}

std::int64_t DrawPriority() { return world.random.Between(1, 1000) - world.priority_base; }

void Drain(Fiber& fiber, std::uint32_t count) {
  count = std::min(count, fiber.store_count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const BufferedStore& store = fiber.stores[i];
    switch (store.bytes) {
      case 1:
        __atomic_store_n(static_cast<std::uint8_t*>(store.address),
                         static_cast<std::uint8_t>(store.value), __ATOMIC_SEQ_CST);
        break;
      case 2:
        __atomic_store_n(static_cast<std::uint16_t*>(store.address),
                         static_cast<std::uint16_t>(store.value), __ATOMIC_SEQ_CST);
        break;
      case 4:
        __atomic_store_n(static_cast<std::uint32_t*>(store.address),
                         static_cast<std::uint32_t>(store.value), __ATOMIC_SEQ_CST);
        break;
      default:
        __atomic_store_n(static_cast<std::uint64_t*>(store.address), store.value, __ATOMIC_SEQ_CST);
    }
  }
  std::move(fiber.stores.begin() + count, fiber.stores.begin() + fiber.store_count,
            fiber.stores.begin());
  fiber.store_count -= count;
  if (fiber.store_count == 0) world.storing.Remove(fiber.id);
}
void DrainAll() {
  world.storing.ForEach([](std::uint32_t id) { Drain(world.fibers[id], kBufferedStores); });
}

// Processors write their buffers back in their own time.
void DrainSome() {
  world.storing.ForEach([](std::uint32_t id) {
    Fiber& fiber = world.fibers[id];
    if (world.random.OneIn(2)) Drain(fiber, world.random.Between(1, fiber.store_count));
  });
}

// Blocked ones whose time has come, or whose condition holds.
void WakeTimers() {
  const std::int64_t now = NowNs();
  if (world.first_deadline > now) return;
  world.first_deadline = kNever;
  world.blocked.ForEach([now](std::uint32_t id) {
    Fiber& fiber = world.fibers[id];
    if (fiber.deadline_ns > now) {
      world.first_deadline = std::min(world.first_deadline, fiber.deadline_ns);
      return;
    }
    SetState(fiber, FiberState::kRunnable);
    fiber.timed_out = true;
  });
}

Fiber* Pick(bool not_the_current) {
  Fibers runnable = world.runnable;
  if (not_the_current) runnable.Remove(world.current->id);
  const std::uint32_t count = runnable.count();
  if (count == 0) return nullptr;
  if (!world.preemptions) return &world.fibers[runnable.At(0)];
  if (!world.schedule.priorities) {
    return &world.fibers[runnable.At(world.random.Between(0, count - 1))];
  }
  Fiber* highest = nullptr;
  runnable.ForEach([&](std::uint32_t id) {
    Fiber& fiber = world.fibers[id];
    if (highest == nullptr || highest->priority < fiber.priority) highest = &fiber;
  });
  return highest;
}

void SwitchTo(Fiber& to) {
  Fiber& from = *world.current;
  if (&from == &to) return;
  world.current = &to;
  ++world.switches;
  Mix(to.id + 1);
  SwitchFiber(from, to);
}

// The current fiber cannot go on. Time passes until somebody can.
void RunAnother() {
  for (;;) {
    WakeTimers();
    if (Fiber* const next = Pick(false)) return SwitchTo(*next);
    // All sleep: also what waits in buffers is written by now, and may be what they wait for.
    DrainAll();
    std::int64_t first = kNever;
    world.blocked.ForEach(
        [&](std::uint32_t id) { first = std::min(first, world.fibers[id].deadline_ns); });
    if (first == kNever) Fail("everybody sleeps, for ever:\n%s", DescribeFibers().c_str());
    world.skipped_ns += std::max<std::int64_t>(0, first - NowNs());
  }
}

void FiberMain() {
  Fiber& fiber = *world.current;
  fiber.entry(fiber.argument);
  EndFiber();
}

}  // namespace

Schedule MakeSchedule(std::uint64_t seed) {
  Random random(seed ^ 0x5EED5C4ED01E);
  static constexpr std::uint32_t kIntervals[] = {1, 3, 8, 20, 60, 200, 1000};
  return {.seed = seed,
          .steps_between = kIntervals[random.Between(0, 6)],
          .priorities = random.OneIn(3),
          .store_buffers = random.OneIn(2)};
}

std::string Describe(const Schedule& schedule) {
  return "a preemption every " + std::to_string(schedule.steps_between) + " steps" +
         (schedule.priorities ? ", by priority" : "") +
         (schedule.store_buffers ? ", with store buffers" : "");
}

void BeginRun(const Schedule& schedule) {
  world.schedule = schedule;
  world.random = Random(schedule.seed * 2 + 1);
  world.choices = Random(schedule.seed * 2 + 0x10000001);
  if (world.fiber_count == 0) {
    Fiber& main = world.fibers[world.fiber_count++];
    SetState(main, FiberState::kRunnable);
    main.in_library = false;
    main.process = kWorldProcess;
    main.what = "main";
    world.refill = steps_left;  // those of the program's start do not count
  }
  for (std::uint32_t i = 0; i < world.fiber_count; ++i) {
    world.fibers[i].priority = DrawPriority();
  }
  world.preemptions = schedule.steps_between != 0;
  store_buffers = schedule.store_buffers;
  Refill(DrawInterval());
}

void EndPreemptions() {
  FlushStores();
  world.preemptions = false;
  store_buffers = false;
  DrainAll();
  Refill(DrawInterval());
}

Fiber& Current() { return *world.current; }
Fiber* FiberOf(std::uint32_t id) { return id < world.fiber_count ? &world.fibers[id] : nullptr; }

std::uint32_t CountFibers(std::uint32_t process) {
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < world.fiber_count; ++i) {
    const Fiber& fiber = world.fibers[i];
    if (fiber.process == process &&
        (fiber.state == FiberState::kRunnable || fiber.state == FiberState::kBlocked)) {
      ++count;
    }
  }
  return count;
}

std::string DescribeFibers() {
  std::string text;
  for (std::uint32_t i = 0; i < world.fiber_count; ++i) {
    const Fiber& fiber = world.fibers[i];
    if (fiber.state != FiberState::kRunnable && fiber.state != FiberState::kBlocked) continue;
    text += "  thread " + std::to_string(i) + " of process " + std::to_string(fiber.process) +
            (fiber.state == FiberState::kBlocked ? " waits: " : " runs: ") + fiber.what;
    if (fiber.call != nullptr) {
      text += std::string(", in ") + fiber.call + " of end " + std::to_string(fiber.call_end);
    }
    if (fiber.locks_held != 0) text += ", holding " + std::to_string(fiber.locks_held) + " locks";
    text += "\n";
  }
  return text;
}

std::int64_t NowNs() {
  const std::uint64_t steps = world.steps + static_cast<std::uint64_t>(world.refill - steps_left);
  // The world does not begin at zero: some compare with that.
  return 1'000'000'000 + world.skipped_ns + static_cast<std::int64_t>(steps) * kStepNs;
}
void SkipTime(std::int64_t ns) { world.skipped_ns += ns; }
std::uint64_t Steps() {
  return world.steps + static_cast<std::uint64_t>(world.refill - steps_left);
}
std::uint64_t Switches() { return world.switches; }

Fiber* SpawnFiber(void* (*entry)(void*), void* argument, std::uint32_t process) {
  // An ended one's place is taken again only if nobody can ask for it any more.
  Fiber* fiber = nullptr;
  for (std::uint32_t i = 1; i < world.fiber_count; ++i) {
    Fiber& old = world.fibers[i];
    if (old.state == FiberState::kEnded && (old.detached || old.joined) && &old != world.current) {
      fiber = &old;
      break;
    }
  }
  if (fiber == nullptr) {
    if (world.fiber_count == kMostFibers) return nullptr;
    fiber = &world.fibers[world.fiber_count++];
  }
  const auto id = static_cast<std::uint32_t>(fiber - world.fibers.data());
  *fiber = Fiber{};
  fiber->id = id;
  fiber->process = process;
  fiber->entry = entry;
  fiber->argument = argument;
  fiber->priority = DrawPriority();
  SetState(*fiber, FiberState::kRunnable);
  fiber->what = "a thread";
  StartFiber(*fiber, FiberMain);
  Note("starts thread %llu of process %llu", id, process);
  return fiber;
}

void EndFiber() {
  FlushStores();
  Note("ends");
  SetState(*world.current, FiberState::kEnded);
  world.current->locks_held = 0;
  Changed();
  RunAnother();
  __builtin_unreachable();
}

bool HoldsLocks(std::uint32_t process, bool (*counts)(const void*)) {
  for (std::uint32_t i = 0; i < world.fiber_count; ++i) {
    const Fiber& fiber = world.fibers[i];
    if (fiber.process != process || fiber.state == FiberState::kEnded) continue;
    for (std::uint32_t lock = 0; lock < fiber.locks_held && lock < fiber.locks.size(); ++lock) {
      if (counts(fiber.locks[lock])) return true;
    }
  }
  return false;
}

void KillProcess(std::uint32_t process) {
  for (std::uint32_t i = 0; i < world.fiber_count; ++i) {
    Fiber& fiber = world.fibers[i];
    if (fiber.process != process || fiber.state == FiberState::kEnded) continue;
    Drain(fiber, kBufferedStores);
    SetState(fiber, FiberState::kDead);
  }
  // It may have been woken for a lock that in truth it shares with nobody: all look again.
  world.blocked.ForEach([](std::uint32_t id) {
    Fiber& fiber = world.fibers[id];
    if (fiber.key != nullptr) SetState(fiber, FiberState::kRunnable);
  });
}

bool Block(bool (*ready)(void*), void* argument, std::int64_t deadline_ns, const char* what) {
  FlushStores();
  Fiber& self = *world.current;
  // Between its becoming ready and our turn it may have become otherwise again.
  while (!ready(argument)) {
    if (deadline_ns <= NowNs()) return false;
    self.ready = ready;
    self.ready_argument = argument;
    self.key = nullptr;
    self.deadline_ns = deadline_ns;
    self.timed_out = false;
    self.what = what;
    SetState(self, FiberState::kBlocked);
    RunAnother();
    self.ready = nullptr;
  }
  return true;
}

void Changed() {
  // Whoever goes on because of it has learnt of it by a lock or the like, and so sees what was
  // written before.
  FlushStores();
  world.blocked.ForEach([](std::uint32_t id) {
    Fiber& fiber = world.fibers[id];
    if (fiber.ready != nullptr && fiber.ready(fiber.ready_argument)) {
      SetState(fiber, FiberState::kRunnable);
    }
  });
}

bool BlockOn(const void* key, std::int64_t deadline_ns, const char* what) {
  FlushStores();
  Fiber& self = *world.current;
  self.ready = nullptr;
  self.key = key;
  self.deadline_ns = deadline_ns;
  self.timed_out = false;
  self.what = what;
  SetState(self, FiberState::kBlocked);
  RunAnother();
  self.key = nullptr;
  return !self.timed_out;
}

int Wake(const void* key, int most) {
  FlushStores();
  int woken = 0;
  // Whom a futex wakes first is not said anywhere.
  const std::uint32_t first = world.random.Between(0, world.fiber_count - 1);
  const auto wake = [&](std::uint32_t id) {
    Fiber& fiber = world.fibers[id];
    if (woken == most || fiber.key != key) return;
    SetState(fiber, FiberState::kRunnable);
    fiber.key = nullptr;
    ++woken;
  };
  const Fibers blocked = world.blocked;
  blocked.ForEach([&](std::uint32_t id) {
    if (id >= first) wake(id);
  });
  blocked.ForEach([&](std::uint32_t id) {
    if (id < first) wake(id);
  });
  return woken;
}

void Preempt() {
  Refill(DrawInterval());
  if (!world.preemptions) return;
  if (store_buffers) DrainSome();
  WakeTimers();
  if (world.schedule.priorities) {
    // The one that runs goes to the end of the line.
    ++world.priority_base;
    world.current->priority = -world.priority_base;
  }
  if (Fiber* const next = Pick(false)) SwitchTo(*next);
}

void Yield() {
  FlushStores();
  world.skipped_ns += kYieldNs;
  WakeTimers();
  world.current->priority = -world.priority_base;
  if (Fiber* const next = Pick(true)) SwitchTo(*next);
}

void Buffer(void* address, std::uint64_t value, std::uint32_t bytes) {
  Fiber& self = *world.current;
  if (self.store_count == kBufferedStores) Drain(self, 1);
  world.storing.Add(self.id);
  self.stores[self.store_count++] = {.address = address, .value = value, .bytes = bytes};
}

const BufferedStore* FindBuffered(const volatile void* address) {
  Fiber& self = *world.current;
  for (std::uint32_t i = self.store_count; i-- > 0;) {
    if (self.stores[i].address == address) return &self.stores[i];
  }
  return nullptr;
}

void FlushStores() {
  if (world.current->store_count != 0) Drain(*world.current, kBufferedStores);
}

Random& Choices() { return world.choices; }

void Note(const char* what, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  Mix(a);
  Mix(b);
  Mix(c);
  if (notes_to_print == 0) return;
  entries[world.entry_count++ % kEntries] = {what, a, b, c, NowNs(), world.current->id};
}

std::uint64_t Hash() {
  Mix(Steps());
  Mix(static_cast<std::uint64_t>(NowNs()));
  return world.hash;
}

void PrintNotes(std::size_t most) {
  const std::uint64_t count = std::min<std::uint64_t>({world.entry_count, kEntries, most});
  if (count < world.entry_count) {
    std::fprintf(stderr, "  ... %llu lines before\n",
                 static_cast<unsigned long long>(world.entry_count - count));
  }
  for (std::uint64_t i = world.entry_count - count; i < world.entry_count; ++i) {
    const Entry& entry = entries[i % kEntries];
    std::fprintf(stderr, "  %12.3f us  thread %2u/%u  ",
                 static_cast<double>(entry.time_ns - 1'000'000'000) / 1000, entry.fiber,
                 world.fibers[entry.fiber].process);
    // The literals are ours.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    std::fprintf(stderr, entry.what, entry.a, entry.b, entry.c);
#pragma GCC diagnostic pop
    std::fputc('\n', stderr);
  }
}

void Fail(const char* format, ...) {
  char text[kReportText];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  EndFailed(text);
}

}  // namespace kmcl::sim
