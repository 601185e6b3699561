// The subcommands. Each lives in its own file, adds its options to the command line, and leaves
// behind what to run when it was chosen.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "cli/output.h"

namespace kmcl::cli {

// Runs the chosen subcommand and returns its exit code. Empty when none was chosen.
using Command = std::function<int()>;

// What every subcommand has.
struct CommonOptions {
  std::string bus;
  JsonSink json;
};
void AddJsonOptions(CLI::App& app, JsonSink& json);
void AddCommonOptions(CLI::App& app, CommonOptions& options);

void AddServe(CLI::App& app, Command& chosen);
void AddList(CLI::App& app, Command& chosen);
void AddPing(CLI::App& app, Command& chosen);
void AddCat(CLI::App& app, Command& chosen);
void AddCopy(CLI::App& app, Command& chosen);
void AddPerf(CLI::App& app, Command& chosen);
void AddGenerate(CLI::App& app, Command& chosen);
void AddVm(CLI::App& app, Command& chosen);
void AddGuest(CLI::App& app, Command& chosen);
void AddBind(CLI::App& app, Command& chosen);
void AddUnbind(CLI::App& app, Command& chosen);
void AddStatus(CLI::App& app, Command& chosen);

}  // namespace kmcl::cli
