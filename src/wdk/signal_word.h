// A word in the driver's own memory that threads wait on: signalled or not, and whether somebody
// may wait. Events are made of it, and fast mutexes.
//
// Whoever signals touches the word no more afterwards, but for its address: the waiter may have let
// go of the memory by then. Words need not be aligned to more than their size.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace kmcl::wdk {

inline constexpr std::uint32_t kSignalled = 1;
inline constexpr std::uint32_t kMayBeWaitedFor = 2;

using Deadline = std::optional<std::chrono::steady_clock::time_point>;

// Each says whether the word was signalled before. Signal wakes one waiter, or all.
bool SignalOne(std::uint32_t& word);
bool SignalAll(std::uint32_t& word);
bool Unsignal(std::uint32_t& word);
bool IsSignalled(std::uint32_t& word);

// Waits until the word is signalled; false when the time is up first. Take clears it, for one
// waiter.
bool WaitUntilSignalled(std::uint32_t& word, Deadline deadline);
bool WaitAndTake(std::uint32_t& word, Deadline deadline);
bool TryTake(std::uint32_t& word);

// Sleeps while `word` is `value`, until it is woken, the time is up (false), or for no reason.
bool SleepWhile(const std::uint32_t& word, std::uint32_t value, Deadline deadline);
void WakeOne(const std::uint32_t& word);
void WakeAll(const std::uint32_t& word);

}  // namespace kmcl::wdk
