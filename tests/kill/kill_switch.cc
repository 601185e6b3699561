#include "kill_switch.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

namespace kmcl::kill {

std::int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void KillSwitch::Arm(const Plan& plan, Role role, pid_t victim,
                     std::atomic<std::int64_t>* when_ns) {
  bool armed = false;
  switch (plan.moment) {
    case Moment::kSurvivorPacket:
    case Moment::kSurvivorCompletion:
      armed = role == Role::kSurvivor;
      break;
    case Moment::kVictimPacket:
    case Moment::kVictimCompletion:
      armed = role == Role::kVictim;
      break;
    case Moment::kTimer:
      break;
  }
  if (!armed) return;
  victim_.store(victim);
  when_ns_.store(when_ns);
  on_packets_.store(plan.moment == Moment::kSurvivorPacket || plan.moment == Moment::kVictimPacket);
  left_.store(plan.event_count);
}

void KillSwitch::OnPacket() {
  if (left_.load(std::memory_order_relaxed) > 0 && on_packets_.load()) CountDown();
}

void KillSwitch::OnCompletion() {
  if (left_.load(std::memory_order_relaxed) > 0 && !on_packets_.load()) CountDown();
}

void KillSwitch::CountDown() {
  if (left_.fetch_sub(1) != 1) return;
  when_ns_.load()->store(NowNs());
  // Nobody has waited for the victim yet, so that its id is still its own.
  ::kill(victim_.load(), SIGKILL);
}

bool KillSelfAfter(std::uint32_t microseconds, std::atomic<std::int64_t>* when_ns) {
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGKILL;
  timer_t timer{};
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return false;
  const std::int64_t when = NowNs() + std::int64_t{microseconds} * 1000;
  when_ns->store(when);
  itimerspec at{};
  at.it_value = {.tv_sec = when / 1'000'000'000, .tv_nsec = when % 1'000'000'000};
  return timer_settime(timer, TIMER_ABSTIME, &at, nullptr) == 0;
}

}  // namespace kmcl::kill
