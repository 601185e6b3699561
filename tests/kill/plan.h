// What one run does, all of it drawn from its seed: who is killed, how busy both ends are, and at
// which moment the kill comes. Both processes make the same plan of the same seed.
#pragma once

#include <cstdint>
#include <string>

namespace kmcl::kill {

// A small generator whose numbers are the same everywhere (splitmix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t Next();
  // From `low` to `high`, both included.
  std::uint32_t Between(std::uint32_t low, std::uint32_t high);

 private:
  std::uint64_t state_;
};

enum class Victim : std::uint8_t {
  kClient,
  kServer,
  kBoth,      // a server and one of its clients, each at its own moment; another client survives
  kHandover,  // a server that is being replaced, its successor, or both
};

// Who is killed in a handover, and where.
enum class Step : std::uint8_t {
  kSaveBegun,  // inside the old one's Save, before and after the channels are saved
  kSaveEnded,
  kRestoreBegun,  // inside the new one's Restore, likewise
  kRestoreEnded,
  kResumeBegun,  // the old one's, after the new one refused
  kOldByClock,   // an instant since the handover began
  kNewByClock,
  kBothByClock,
};

// What the kill waits for.
enum class Moment : std::uint8_t {
  kSurvivorPacket,      // the survivor is delivered its n-th packet
  kSurvivorCompletion,  // a completion routine of the survivor is called for the n-th time
  kVictimPacket,        // the same two in the victim, which then kills itself inside the callback
  kVictimCompletion,
  kTimer,  // an instant, wherever the victim is: connecting, opening, inside a ring, closing
};

// How delivered packets are retired.
enum class Retirement : std::uint8_t { kInline, kOtherThread, kDeferred };

struct Plan {
  std::uint64_t seed = 0;
  Victim victim = Victim::kClient;
  Moment moment = Moment::kTimer;
  std::uint32_t event_count = 0;  // n
  std::uint32_t timer_us = 0;
  std::uint32_t channel_count = 1;
  std::uint32_t ring_pages = 4;
  std::uint32_t longest_payload_bytes = 64;
  std::uint32_t transactions_per_channel = 1;  // in flight at a time, from each end
  std::uint32_t plain_per_channel = 0;         // packets without completion, likewise
  std::uint32_t client_dispatch_threads = 1;
  std::uint32_t client_spin_us = 0;
  bool cycles = false;  // the client opens and closes its channels again and again
  std::uint32_t packets_per_cycle = 0;
  bool cleans_up_late = false;  // a surviving server disables its channels after PartitionGone
  std::uint32_t other_timer_us = 0;  // the second one's of two victims
  Step step = Step::kOldByClock;

  Retirement retirement(std::uint32_t channel) const {
    return static_cast<Retirement>((seed + channel) % 3);
  }
  std::string Describe() const;
};

Plan MakePlan(std::uint64_t seed);
// Of a channel that only answers.
Plan EchoPlan();

}  // namespace kmcl::kill
