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

  // False: the time was up, or it makes no sense to go on.
  bool Run(const std::vector<Row>& rows);

 private:
  // One cell, as often as it takes. False: the row has failed and is not tried again.
  bool Measure(const Row& row, int repetition);

  const Schedule schedule_;
  std::map<std::string, int> accepted_;
  std::FILE* const output_;
  Plan plan_;
};

// The two CPUs to measure between: not two threads of one core, where there is a choice. False:
// this process may use only one.
bool ChooseCpus(int& near_cpu, int& far_cpu);

// For a JSON string.
std::string Escaped(std::string_view text);

}  // namespace kmcl::bench
