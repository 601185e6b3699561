// Who runs, and when: virtual time, and a seed that decides every interleaving.
//
// The library's sources are compiled for this program so that each of their atomic operations calls
// us first (atomics.cc), and each system call and each thread is ours (kernel_calls.cc,
// thread_calls.cc). At every one of these places another thread may come between. What no atomic
// operation and no call stands between runs in one go, as it does not matter: nobody else may look.
//
// Atomic stores that are not sequentially consistent may reach the others later, in order, as those
// of a processor with a store buffer do (Schedule::store_buffers).
#pragma once

#include <time.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fiber.h"
#include "random.h"

namespace kmcl::sim {

inline constexpr std::int64_t kNever = INT64_MAX;

// How a run is scheduled, drawn from a seed.
struct Schedule {
  std::uint64_t seed = 0;
  std::uint32_t steps_between = 50;  // two preemptions, on average
  bool priorities = false;           // the highest runs until it waits or is demoted
  bool store_buffers = false;
};
Schedule MakeSchedule(std::uint64_t seed);
std::string Describe(const Schedule& schedule);

// Something happened that is wrong: ends the run. printf-like.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// From the program's main thread, which becomes fiber 0.
void BeginRun(const Schedule& schedule);
// Without preemptions from here on.
void EndPreemptions();

Fiber& Current();
Fiber* FiberOf(std::uint32_t id);
std::uint32_t CountFibers(std::uint32_t process);  // that have not ended
std::string DescribeFibers();

std::int64_t NowNs();  // virtual
void SkipTime(std::int64_t ns);
std::uint64_t Steps();
std::uint64_t Switches();
int RealClock(timespec* time);  // the machine's

// A new thread of the current fiber's process.
Fiber* SpawnFiber(void* (*entry)(void*), void* argument, std::uint32_t process);
[[noreturn]] void EndFiber();
// Whether one of its threads holds a lock that `counts`.
bool HoldsLocks(std::uint32_t process, bool (*counts)(const void*));
// All threads of the process are gone at once, wherever they are.
void KillProcess(std::uint32_t process);

// Sleeps until ready(argument), which is asked again whenever something has changed (Changed()), or
// until the deadline: false.
bool Block(bool (*ready)(void*), void* argument, std::int64_t deadline_ns, const char* what);
void Changed();  // also shows the others what this one has stored
template <typename Condition>
bool WaitUntil(Condition condition, std::int64_t deadline_ns, const char* what) {
  return Block([](void* self) { return (*static_cast<Condition*>(self))(); }, &condition,
               deadline_ns, what);
}
// Sleeps until somebody wakes the key: futexes. False: the deadline has passed.
bool BlockOn(const void* key, std::int64_t deadline_ns, const char* what);
int Wake(const void* key, int most);

// Somebody else may run here. Preempt() when it is time, Yield() in any case.
extern std::int64_t steps_left;
void Preempt();
void Yield();
inline void Step() {
  if (--steps_left < 0) [[unlikely]]
    Preempt();
}

// The current fiber's stores that wait to be seen.
extern bool store_buffers;
void Buffer(void* address, std::uint64_t value, std::uint32_t bytes);
const BufferedStore* FindBuffered(const volatile void* address);
void FlushStores();

// The test's own choices while it runs: as much part of the seed as the schedule.
Random& Choices();

// The run's record: what happened, in order. `what` is a literal, with up to three numbers in it.
void Note(const char* what, std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0);
std::uint64_t Hash();
void PrintNotes(std::size_t most);

// The test's own code, not the library's: it may allocate, and is not counted.
class InTest {
 public:
  InTest() : fiber_(Current()), before_(fiber_.in_library) { fiber_.in_library = false; }
  ~InTest() { fiber_.in_library = before_; }
  InTest(const InTest&) = delete;
  InTest& operator=(const InTest&) = delete;

 private:
  Fiber& fiber_;
  bool before_;
};
class InLibrary {
 public:
  explicit InLibrary(const char* call = nullptr, std::uint32_t end = 0)
      : fiber_(Current()),
        before_(fiber_.in_library),
        call_(fiber_.call),
        call_end_(fiber_.call_end) {
    fiber_.in_library = true;
    if (call == nullptr) return;
    fiber_.call = call;
    fiber_.call_end = end;
  }
  ~InLibrary() {
    fiber_.in_library = before_;
    fiber_.call = call_;
    fiber_.call_end = call_end_;
  }
  InLibrary(const InLibrary&) = delete;
  InLibrary& operator=(const InLibrary&) = delete;

 private:
  Fiber& fiber_;
  bool before_;
  const char* call_;
  std::uint32_t call_end_;
};

}  // namespace kmcl::sim
