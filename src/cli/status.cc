// vmbus status: in a guest, the devices of its bus and who has them.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/guest_bus.h"
#include "cli/interface_names.h"
#include "cli/outcome.h"
#include "cli/output.h"

namespace kmcl::cli {
namespace {

struct StatusOptions {
  std::string device;
  JsonSink json;
};

Json ToJson(const KMCL_UIO_DEVICE& device) {
  Json object = {{"name", InterfaceName(device.InterfaceType)},
                 {"interface", GuidText(device.InterfaceType)},
                 {"instance", GuidText(device.InterfaceInstance)},
                 {"channel", device.ChannelId},
                 {"driver", device.Driver},
                 {"open", device.Open != FALSE},
                 {"sub_channels", device.SubChannels},
                 {"interrupts", device.Interrupts},
                 {"signals", device.Signals}};
  object["monitor"] = device.MonitorId == KMCL_UIO_NO_MONITOR ? Json() : Json(device.MonitorId);
  if (device.Bound != FALSE) {
    object["node"] = device.Node;
    object["ring_bytes"] = device.RingBytes;
  }
  return object;
}

std::string Row(const KMCL_UIO_DEVICE& device) {
  return fmt::format(
      "{:<7} {:<16} {:<36} {:<16} {:<11} {:<6} {:>7} {:>9} {:>10}\n", device.ChannelId,
      InterfaceName(device.InterfaceType), GuidText(device.InterfaceInstance),
      device.Driver[0] == '\0' ? "-" : device.Driver, device.Node[0] == '\0' ? "-" : device.Node,
      device.Open != FALSE ? "open" : "closed",
      device.MonitorId == KMCL_UIO_NO_MONITOR ? "-" : std::to_string(device.MonitorId),
      device.RingBytes == 0 ? "-" : HumanBytes(device.RingBytes), HumanCount(device.Interrupts));
}

int RunStatus(const StatusOptions& options) {
  std::vector<KMCL_UIO_DEVICE> devices;
  if (options.device.empty()) {
    auto all = GuestBusDevices();
    if (!all) {
      return ReportFailure("status", options.json, all.error());
    }
    devices = std::move(*all);
  } else {
    const auto one = FindGuestDevice(options.device);
    if (!one) {
      return ReportFailure("status", options.json, one.error());
    }
    devices.push_back(*one);
  }
  Json object = {{"command", "status"}, {"ok", true}, {"devices", Json::array()}};
  for (const KMCL_UIO_DEVICE& device : devices) {
    object["devices"].push_back(ToJson(device));
  }
  options.json.Emit(object);
  if (options.json.text()) {
    Print(Bold(fmt::format("{:<7} {:<16} {:<36} {:<16} {:<11} {:<6} {:>7} {:>9} {:>10}", "channel",
                           "name", "instance", "driver", "node", "state", "monitor", "rings",
                           "interrupts")) +
          "\n");
    for (const KMCL_UIO_DEVICE& device : devices) {
      Print(Row(device));
    }
  }
  return kExitSuccess;
}

}  // namespace

void AddStatus(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<StatusOptions>();
  CLI::App* status =
      app.add_subcommand("status", "In a guest: the devices of its bus, and which driver has them");
  status->add_option("DEVICE", options->device, "Only this one: an instance GUID, or a name");
  AddJsonOptions(*status, options->json);
  status->footer("\nExample:\n  vmbus status\n  vmbus status echo --json");
  status->callback([options, &chosen] { chosen = [options] { return RunStatus(*options); }; });
}

}  // namespace kmcl::cli
