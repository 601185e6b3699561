// What can be measured: each row is one contender doing one thing with messages of one size.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stage.h"

namespace kmcl::bench {

// The two ends of one transport. Open runs in the process that forks (or starts) them; what it
// makes, both have. Near and Far then run each on a CPU of its own, and return when they are done.
class Pair {
 public:
  virtual ~Pair() = default;
  virtual void Open(Stage&) {}
  virtual void Near(Stage& stage) = 0;
  virtual void Far(Stage& stage) = 0;
};

enum class Ends : std::uint8_t { kTwoProcesses, kTwoThreads };

struct Row {
  std::string name;  // KIND/CONTENDER/BYTES; the report knows them
  std::size_t bytes = 0;
  std::function<std::unique_ptr<Pair>()> make;
  Ends ends = Ends::kTwoProcesses;
  bool quick = true;         // also measured with --quick
  double times_as_long = 1;  // of a usual cell
  int most_cells = 1000;     // for rows that are slow and hardly differ from cell to cell
  // An end that was ready to run and did not, for more than this part of the time, was not measured
  // alone. A row whose own threads take turns on a CPU keeps them waiting by itself.
  double may_be_delayed = 0.04;
  bool pinned = true;  // each end to its CPU; otherwise its threads go where the system puts them
};

// A row that cannot be measured here, and why. It is in the results all the same.
struct Absent {
  std::string name;
  std::string why;
};

struct Registry {
  std::vector<Row> rows;
  std::vector<Absent> absent;
};

// One for each file of rows.
void AddCacheLineRows(Registry& registry);
void AddBareRows(Registry& registry);
void AddRingRows(Registry& registry);
void AddKmclRows(Registry& registry);
void AddSystemRows(Registry& registry);
void AddLinuxRingRows(Registry& registry);
void AddBoostSpscRows(Registry& registry);
void AddBoostQueueRows(Registry& registry);
void AddPosixQueueRows(Registry& registry);
void AddZeromqRows(Registry& registry);
void AddNngRows(Registry& registry);
void AddIceoryxRows(Registry& registry);
void AddRawRows(Registry& registry);
void AddExternalRows(Registry& registry);
void AddChannelRows(Registry& registry);

// Where rows put their sockets and the like. It goes with this process, however that ends.
const std::string& Scratch();

inline std::string RowName(std::string_view kind, std::string_view contender, std::size_t bytes) {
  return std::string(kind) + "/" + std::string(contender) + "/" + std::to_string(bytes);
}

}  // namespace kmcl::bench
