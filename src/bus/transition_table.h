// A machine's transitions as a table that must be complete: every pair of state and event, refused
// ones too, stands in exactly one row, and what happens is compared with what the row says.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kmcl::bus {

template <typename T>
std::vector<std::string> Names(const std::map<std::string, T>& map) {
  std::vector<std::string> names;
  for (const auto& [name, value] : map) names.push_back(name);
  return names;
}

struct TransitionRow {
  std::string event;
  std::vector<std::string> states;  // in which the rest of the row holds
  std::string next;                 // "=" for no change
  std::string actions;              // as Describe says it
};

struct Outcome {
  std::string next;
  std::string actions;
};

// `run` brings a fresh machine into `state`, has `event` happen, and says what came of it.
template <typename Run>
void CheckTransitions(const std::vector<std::string>& states,
                      const std::vector<std::string>& events,
                      const std::vector<TransitionRow>& rows, Run run) {
  std::map<std::pair<std::string, std::string>, const TransitionRow*> table;
  for (const TransitionRow& row : rows) {
    for (const std::string& state : row.states) {
      EXPECT_TRUE(table.emplace(std::pair(row.event, state), &row).second)
          << "two rows for " << row.event << " in " << state;
    }
  }
  std::size_t pair_count = 0;
  for (const std::string& event : events) {
    for (const std::string& state : states) {
      ++pair_count;
      const Outcome outcome = run(state, event);
      const std::string next = outcome.next == state ? "=" : outcome.next;
      const auto row = table.find({event, state});
      if (row == table.end()) {
        ADD_FAILURE() << "no row for {\"" << event << "\", {\"" << state << "\"}, \"" << next
                      << "\", \"" << outcome.actions << "\"}";
        continue;
      }
      EXPECT_EQ(next, row->second->next) << event << " in " << state;
      EXPECT_EQ(outcome.actions, row->second->actions) << event << " in " << state;
    }
  }
  EXPECT_EQ(table.size(), pair_count) << "rows for states or events that do not exist";
}

}  // namespace kmcl::bus
