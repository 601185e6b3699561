// The vmbus command: a bus to look at, to measure and to copy files through.
#include <exception>

#include "cli/commands.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"

namespace kmcl::cli {
namespace {

constexpr const char* kFooter = R"(
A bus is named by its address, unix:PATH. Give it with --bus or in KMCL_BUS. In a guest
of Hyper-V, or of `vmbus vm`, the guest's own bus is uio:, which needs not be named.

Exit codes:
  0    done
  1    failed, or what arrived is not what was sent
  2    the command line makes no sense
  3    the bus cannot be reached, or the other end has gone
  4    the guest was reset, and was not to be started again
  5    the machine made a system call that it may not make
  130  interrupted with Ctrl-C

Example:
  vmbus serve --bus unix:/tmp/bus --directory /tmp/in &
  vmbus list --bus unix:/tmp/bus
  vmbus ping --bus unix:/tmp/bus
  vmbus copy --bus unix:/tmp/bus FILE

`vmbus COMMAND --help` says more.)";

int Run(int argc, char** argv) {
  CLI::App app("Look at, measure and use a VMBus between processes.", "vmbus");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("vmbus ") + KMCL_VERSION);
  app.require_subcommand(1);
  Command chosen;
  AddServe(app, chosen);
  AddList(app, chosen);
  AddPing(app, chosen);
  AddCopy(app, chosen);
  AddCat(app, chosen);
  AddPerf(app, chosen);
  AddGenerate(app, chosen);
  AddVm(app, chosen);
  AddGuest(app, chosen);
  AddBind(app, chosen);
  AddUnbind(app, chosen);
  AddStatus(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitSuccess : kExitUsage;
  }
  return chosen();
}

}  // namespace

}  // namespace kmcl::cli

// The one place that knows of exceptions: we throw none, but the libraries of the command do when
// memory is short.
int main(int argc, char** argv) {
  kmcl::cli::MainWait::Get();
  try {
    return kmcl::cli::Run(argc, argv);
  } catch (const std::exception& error) {
    kmcl::cli::PrintError(std::string("vmbus: ") + error.what() + "\n");
    return kmcl::cli::kExitFailure;
  }
}
