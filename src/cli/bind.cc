// vmbus bind, vmbus unbind: in a guest, which driver has a device of its bus.
#include <fmt/format.h>
#include <kmcl/uio.h>

#include "cli/commands.h"
#include "cli/guest_bus.h"
#include "cli/interface_names.h"
#include "cli/outcome.h"
#include "cli/output.h"

namespace kmcl::cli {
namespace {

struct BindOptions {
  std::string device;
  JsonSink json;
};

Failure WhyNot(const std::string& device, bool bind, NTSTATUS status) {
  switch (status) {
    case STATUS_ACCESS_DENIED:
      return {kExitFailure, "this user may not write to /sys/bus/vmbus", status};
    case STATUS_NOT_SUPPORTED:
      return {kExitFailure,
              fmt::format("uio_hv_generic is not loaded, or does not take {}", device), status};
    case STATUS_DEVICE_NOT_READY:
      return {kExitFailure, fmt::format("uio_hv_generic does not have {}", device), status};
    default:
      return {kExitFailure, fmt::format("cannot {} {}", bind ? "bind" : "unbind", device), status};
  }
}

int Run(const BindOptions& options, bool bind) {
  const char* const command = bind ? "bind" : "unbind";
  const auto found = FindGuestDevice(options.device);
  if (!found) {
    return ReportFailure(command, options.json, found.error());
  }
  const GUID instance = found->InterfaceInstance;
  const NTSTATUS status = bind ? KmclUioBind(&instance) : KmclUioUnbind(&instance);
  if (!NT_SUCCESS(status)) {
    return ReportFailure(command, options.json, WhyNot(options.device, bind, status));
  }
  const auto now = FindGuestDevice(GuidText(instance));
  if (!now) {
    return ReportFailure(command, options.json, now.error());
  }
  options.json.Emit({{"command", command},
                     {"ok", true},
                     {"instance", GuidText(instance)},
                     {"driver", now->Driver},
                     {"node", now->Node}});
  if (options.json.text()) {
    Print(fmt::format("{} {}: {}\n", InterfaceName(now->InterfaceType), GuidText(instance),
                      now->Node[0] != '\0'     ? now->Node
                      : now->Driver[0] != '\0' ? now->Driver
                                               : "no driver"));
  }
  return kExitSuccess;
}

void Add(CLI::App& app, Command& chosen, bool bind) {
  auto options = std::make_shared<BindOptions>();
  CLI::App* command =
      bind ? app.add_subcommand("bind", "In a guest: give a device of its bus to user space")
           : app.add_subcommand("unbind", "In a guest: give a device back to the kernel's drivers");
  command
      ->add_option("DEVICE", options->device,
                   "Its instance GUID, or a name that `vmbus list` shows")
      ->required();
  AddJsonOptions(*command, options->json);
  command->footer(bind ? "\nExample:\n  modprobe uio_hv_generic; vmbus bind echo"
                       : "\nExample:\n  vmbus unbind echo");
  command->callback(
      [options, bind, &chosen] { chosen = [options, bind] { return Run(*options, bind); }; });
}

}  // namespace

void AddBind(CLI::App& app, Command& chosen) { Add(app, chosen, true); }
void AddUnbind(CLI::App& app, Command& chosen) { Add(app, chosen, false); }

}  // namespace kmcl::cli
