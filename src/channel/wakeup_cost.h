// What it takes on this machine to wake a thread that sleeps.
#pragma once

#include <chrono>

namespace kmcl::channel {

// Measured by the first call in the process, which takes a millisecond or two: an eventfd goes to
// and fro between two threads on two of the processors that this one may use. Zero where it may use
// only one: whoever looked there would keep the sender from sending. Any thread.
std::chrono::nanoseconds WakeupCost();

// The same, measured now.
std::chrono::nanoseconds MeasureWakeupCost();

// Tells the processor that this is a wait loop.
inline void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace kmcl::channel
