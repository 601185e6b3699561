// What a run, which is a process of its own, tells the one that started it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kmcl::sim {

inline constexpr std::size_t kReportText = 2048;

struct Report {
  bool ended = false;  // by itself, not by a signal
  bool failed = false;
  char text[kReportText] = {};
  std::uint64_t hash = 0;
  std::uint64_t steps = 0;
  std::uint64_t switches = 0;
  std::uint64_t packets = 0;  // delivered
  std::uint64_t completions = 0;
  std::uint64_t most_bytes = 0;   // that a process had of its heap
  std::uint64_t described = 0;    // packets with memory beside them
  std::uint64_t successions = 0;  // of saved channels
  std::uint64_t restored = 0;     // packets with them
  std::uint64_t handovers = 0;
  std::uint64_t orphaned = 0;
  std::uint64_t in_place = 0;  // packets that a raw channel's owner took
  std::uint64_t shared = 0;    // GPADLs
  std::uint64_t worked_on = 0;
  std::uint64_t in_batches = 0;
  std::uint64_t faults = 0;  // injected
  std::int64_t virtual_ns = 0;
};

// In memory that both processes see.
extern Report* report;
// How much of its record a run prints when it fails.
extern std::size_t notes_to_print;

[[noreturn]] void EndFailed(const char* text);

}  // namespace kmcl::sim
