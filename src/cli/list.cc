// vmbus list: the offers of a bus.
#include <fmt/format.h>

#include "cli/client_channel.h"
#include "cli/commands.h"
#include "cli/interface_names.h"
#include "cli/outcome.h"
#include "cli/output.h"

namespace kmcl::cli {
namespace {

struct FlagName {
  UINT16 bit;
  const char* name;
};

// Offer flags as on the wire (VMBus reference, offers).
constexpr FlagName kFlagNames[] = {
    {0x0001, "interface"}, {0x0002, "confidential-ring"}, {0x0004, "confidential-memory"},
    {0x0010, "pipe"},      {0x0400, "monitored"},         {0x2000, "socket"},
};

std::vector<std::string> FlagNames(UINT16 flags) {
  std::vector<std::string> names;
  for (const FlagName& flag : kFlagNames) {
    if ((flags & flag.bit) != 0) {
      names.emplace_back(flag.name);
      flags = static_cast<UINT16>(flags & ~flag.bit);
    }
  }
  if (flags != 0) {
    names.push_back(fmt::format("0x{:04x}", flags));
  }
  return names;
}

Json ToJson(const KMCL_OFFER& offer) {
  return {
      {"name", InterfaceName(offer.InterfaceType)},    {"interface", GuidText(offer.InterfaceType)},
      {"instance", GuidText(offer.InterfaceInstance)}, {"channel", offer.ChannelId},
      {"sub_channel", offer.SubChannelIndex},          {"flags", offer.Flags},
      {"flag_names", FlagNames(offer.Flags)},          {"mmio_megabytes", offer.MmioMegabytes}};
}

void PrintTable(const std::string& address, const ClientBus& bus,
                const std::vector<KMCL_OFFER>& offers) {
  Print(fmt::format("{} speaks VMBus {} and offers {} {}\n", address, bus.VersionText(),
                    offers.size(), offers.size() == 1 ? "channel" : "channels"));
  if (offers.empty()) {
    return;
  }
  Print(Bold(fmt::format("{:<7} {:<16} {:<36} {:<36} {:>3} {}", "channel", "name", "interface",
                         "instance", "sub", "flags")) +
        "\n");
  for (const KMCL_OFFER& offer : offers) {
    const std::vector<std::string> names = FlagNames(offer.Flags);
    Print(fmt::format("{:<7} {:<16} {:<36} {:<36} {:>3} {}\n", offer.ChannelId,
                      InterfaceName(offer.InterfaceType), GuidText(offer.InterfaceType),
                      GuidText(offer.InterfaceInstance), offer.SubChannelIndex,
                      names.empty() ? "-" : fmt::format("{}", fmt::join(names, ","))));
  }
}

int RunList(const CommonOptions& options) {
  auto bus = ClientBus::Connect(options.bus);
  if (!bus) {
    return ReportFailure("list", options.json, bus.error());
  }
  const std::vector<KMCL_OFFER> offers = (*bus)->Offers();
  Json object = {{"command", "list"},
                 {"ok", true},
                 {"bus", (*bus)->address()},
                 {"version", (*bus)->VersionText()},
                 {"offers", Json::array()}};
  for (const KMCL_OFFER& offer : offers) {
    object["offers"].push_back(ToJson(offer));
  }
  options.json.Emit(object);
  if (options.json.text()) {
    PrintTable((*bus)->address(), **bus, offers);
  }
  return kExitSuccess;
}

}  // namespace

void AddList(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<CommonOptions>();
  CLI::App* list = app.add_subcommand("list", "Show what a bus offers");
  AddCommonOptions(*list, *options);
  list->footer("\nExample:\n  vmbus list --bus unix:/tmp/bus");
  list->callback([options, &chosen] { chosen = [options] { return RunList(*options); }; });
}

}  // namespace kmcl::cli
