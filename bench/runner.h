// Runs rows, interleaved, each cell between two looks at the machine, and writes what was found.
#pragma once

#include <cstdio>
#include <map>
#include <string>

#include "rows.h"

namespace kmcl::bench {

struct Schedule {
  int repetitions = 5;  // accepted cells that each row is to have in the end
  int attempts = 3;     // for a cell during which the machine changed
  double milliseconds = 150;
  double at_most_seconds = 0;  // 0: no limit. What is missing then is for the next call.
};

class Runner {
 public:
  // `accepted`: how many cells each row has from earlier calls. Results are appended to `output`, a
  // JSON object a line.
  Runner(const Schedule& schedule, std::map<std::string, int> accepted, std::FILE* output);

  enum class End : std::uint8_t { kDone, kTimeUp, kInterrupted };
  // Stops at once on SIGINT, SIGTERM and SIGHUP, which the caller has blocked (WatchSignals).
  End Run(const std::vector<Row>& rows);

 private:
  enum class Outcome : std::uint8_t { kMeasured, kUnsteady, kFailed, kInterrupted };
  // One cell, as often as it takes. A row that has failed is not tried again.
  Outcome Measure(const Row& row, int repetition);
  void Tell(const Row& row, int repetition, Outcome outcome) const;

  const Schedule schedule_;
  std::map<std::string, int> accepted_;
  std::FILE* const output_;
  Plan plan_;
  std::size_t cell_ = 0, cells_ = 0;  // done in this call, of how many
  std::string last_;                  // what the last cell found, for people
};

// Blocks the signals that end a run, so that Run can end the ends first. Once, before any thread.
void WatchSignals();

// The two CPUs to measure between: not two threads of one core, where there is a choice. False:
// this process may use only one.
bool ChooseCpus(int& near_cpu, int& far_cpu);

// For a JSON string.
std::string Escaped(std::string_view text);

}  // namespace kmcl::bench
