// Counts down a plan's events, and kills the victim at the last one.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "plan.h"

namespace kmcl::kill {

std::int64_t NowNs();

// Any thread may use it. Both processes have one; at most one of the two is armed.
class KillSwitch {
 public:
  enum class Role : std::uint8_t { kSurvivor, kVictim };

  // The kill's time goes to *when_ns, which the other process may share.
  void Arm(const Plan& plan, Role role, pid_t victim, std::atomic<std::int64_t>* when_ns);
  void Disarm() { left_.store(0, std::memory_order_relaxed); }

  void OnPacket();
  void OnCompletion();

 private:
  void CountDown();

  std::atomic<pid_t> victim_{0};
  std::atomic<std::atomic<std::int64_t>*> when_ns_{nullptr};
  std::atomic<bool> on_packets_{false};
  std::atomic<std::int64_t> left_{0};
};

// The process is killed `microseconds` from now, whatever it is doing then. False if the system
// gives no timer.
bool KillSelfAfter(std::uint32_t microseconds, std::atomic<std::int64_t>* when_ns);

}  // namespace kmcl::kill
