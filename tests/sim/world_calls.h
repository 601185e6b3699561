// How the world's parts wait, and call the library in the name of a process.
#pragma once

#include "scheduler.h"
#include "world.h"

namespace kmcl::sim {

// Whatever has not happened by then has been forgotten: nothing in these worlds takes long.
inline constexpr std::int64_t kPatienceNs = 60'000'000'000;
// A peer's death is reported within this time.
inline constexpr std::int64_t kReportNs = 100'000'000;

inline void Sleep(std::int64_t us) {
  WaitUntil([] { return false; }, NowNs() + us * 1000, "a while");
}

template <typename Condition>
inline void Await(Condition condition, const char* what) {
  if (!WaitUntil(condition, NowNs() + kPatienceNs, what)) {
    Fail("for ever without %s:\n%s", what, DescribeFibers().c_str());
  }
}

inline void Expect(NTSTATUS status, const char* what) {
  if (status != STATUS_SUCCESS) Fail("%s: %s", what, KmclStatusName(status));
}

template <typename Function>
void World::In(std::uint32_t process, Function function) {
  struct Job {
    Function& function;
    bool done = false;
  } job{function};
  SpawnFiber(
      [](void* argument) -> void* {
        const InTest test;
        auto& self = *static_cast<Job*>(argument);
        self.function();
        self.done = true;
        Changed();
        return nullptr;
      },
      &job, process)
      ->detached = true;
  Await([&] { return job.done || killed_[process]; }, "something to be done in another process");
}

template <typename Call>
NTSTATUS World::Insist(Call call, const char* what) {
  NTSTATUS status = call();
  for (int tries = 0; plan_.refusals && status == STATUS_INSUFFICIENT_RESOURCES && tries < 30;
       ++tries) {
    status = call();
  }
  if (what != nullptr) Expect(status, what);
  return status;
}

}  // namespace kmcl::sim
