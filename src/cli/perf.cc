// vmbus perf: rates and latencies for a range of packet sizes, polling and sleeping.
#include <fmt/format.h>
#include <kmcl/uio.h>

#include "cli/client_channel.h"
#include "cli/commands.h"
#include "cli/counters.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/packet_stream.h"
#include "cli/private_server.h"
#include "cli/round_trips.h"
#include "devices/echo_protocol.h"

namespace kmcl::cli {
namespace {

struct PerfOptions {
  CommonOptions common;
  std::string mode = "both";
  std::string wait = "all";
  std::vector<std::uint32_t> sizes = {8, 64, 512, 4096, 16384, 65536};
  double seconds = 1;
};

struct Cell {
  const char* mode = "";
  WaitMode wait = WaitMode::kSleep;
  std::uint32_t bytes = 0;
  double packets_per_second = 0;
  KMCL_CHANNEL_COUNTERS counters{};
  Json latency_ns;  // round trips only
};

Json ToJson(const Cell& cell) {
  Json object = {{"mode", cell.mode},
                 {"wait", WaitName(cell.wait)},
                 {"bytes", cell.bytes},
                 {"packets_per_second", cell.packets_per_second},
                 {"bytes_per_second", cell.packets_per_second * cell.bytes},
                 {"bells_per_thousand_packets", BellsPerThousandPackets(cell.counters)},
                 {"bells_rung", cell.counters.BellsRung},
                 {"bells_received", cell.counters.BellsReceived},
                 {"ring_full", cell.counters.RingFull}};
  if (!cell.latency_ns.is_null()) {
    object["latency_ns"] = cell.latency_ns;
  }
  return object;
}

std::string Row(const Cell& cell) {
  const auto latency = [&](const char* which) {
    return cell.latency_ns.is_null() ? std::string("-")
                                     : HumanTime(cell.latency_ns[which].get<double>());
  };
  return fmt::format("{:<9} {:<8} {:>6} {:>12} {:>12} {:>9} {:>9} {:>10.1f}\n", cell.mode,
                     WaitName(cell.wait), cell.bytes,
                     HumanCount(static_cast<std::uint64_t>(cell.packets_per_second)),
                     HumanBytes(cell.packets_per_second * cell.bytes) + "/s", latency("p50"),
                     latency("p99"), BellsPerThousandPackets(cell.counters));
}

// A ring of 256 KiB, or 1 MiB for packets of which that would hold only a few.
UINT32 RingPages(std::uint32_t packet_bytes) { return packet_bytes <= 16384 ? 65 : 257; }

Outcome<Cell> Measure(const std::string& address, const PerfOptions& options, bool stream,
                      WaitMode wait, std::uint32_t bytes) {
  // A stream sends nothing back, so there is nothing to poll for at this end.
  auto bus = ClientBus::Connect(address, stream ? WaitMode::kSleep : wait);
  if (!bus) {
    return std::unexpected(bus.error());
  }
  ClientChannelSettings settings;
  settings.interface_type = devices::kEchoInterface;
  settings.name = "echo";
  settings.maximum_packet_bytes = bytes;
  settings.outgoing_pages = RingPages(bytes);
  settings.incoming_pages = RingPages(bytes);
  auto channel = ClientChannel::Open(**bus, settings);
  if (!channel) {
    return std::unexpected(channel.error());
  }
  const auto duration = std::chrono::nanoseconds(static_cast<std::int64_t>(options.seconds * 1e9));
  Cell cell;
  cell.wait = wait;
  cell.bytes = bytes;
  if (stream) {
    cell.mode = "stream";
    const auto result = StreamPackets(**channel, bytes, duration);
    if (!result) {
      return std::unexpected(result.error());
    }
    cell.packets_per_second = static_cast<double>(result->packets) / result->seconds;
  } else {
    cell.mode = "roundtrip";
    RoundTripPlan plan;
    plan.packet_bytes = bytes;
    plan.at_most = duration;
    plan.keep_log = false;
    auto trips = RoundTrips::Prepare(**channel, plan);
    if (!trips) {
      return std::unexpected(trips.error());
    }
    (*trips)->Run([] {});
    (*channel)->Close();
    if ((*channel)->lost()) {
      return Fail(kExitLost, "the other end has gone", STATUS_DEVICE_REMOVED);
    }
    if ((*trips)->mismatches() > 0) {
      return Fail(kExitFailure, "payloads came back changed");
    }
    cell.packets_per_second = (*trips)->seconds() > 0
                                  ? static_cast<double>((*trips)->completed()) / (*trips)->seconds()
                                  : 0;
    cell.latency_ns = ToJson((*trips)->latencies());
  }
  if (MainWait::Get().interrupted()) {
    return Fail(kExitInterrupted, "interrupted");
  }
  cell.counters = (*channel)->Counters();
  return cell;
}

Outcome<void> MeasureAll(const PerfOptions& options, WaitMode wait, Json& results) {
  std::unique_ptr<PrivateServer> server;
  std::string address = options.common.bus;
  if (address.empty()) {
    auto started = PrivateServer::Start(wait);
    if (!started) {
      return std::unexpected(started.error());
    }
    server = std::move(*started);
    address = server->address();
  }
  for (const bool stream : {true, false}) {
    if (options.mode != "both" && options.mode != (stream ? "stream" : "roundtrip")) {
      continue;
    }
    for (const std::uint32_t bytes : options.sizes) {
      const auto cell = Measure(address, options, stream, wait, bytes);
      if (!cell) {
        return std::unexpected(cell.error());
      }
      results.push_back(ToJson(*cell));
      if (options.common.json.text()) {
        Print(Row(*cell));
      }
    }
  }
  return {};
}

int RunPerf(const PerfOptions& options) {
  if (options.common.json.text()) {
    Print(fmt::format("both ends {}, {} s a row\n",
                      options.common.bus.empty() ? "started here" : "as the server was started",
                      options.seconds));
    Print(Bold(fmt::format("{:<9} {:<8} {:>6} {:>12} {:>12} {:>9} {:>9} {:>10}", "mode", "wait",
                           "bytes", "packets/s", "payload", "p50", "p99", "bells/1000")) +
          "\n");
  }
  Json results = Json::array();
  for (const WaitMode wait : kWaitModes) {
    if (options.wait != "all" && options.wait != WaitName(wait)) {
      continue;
    }
    if (const auto done = MeasureAll(options, wait, results); !done) {
      return ReportFailure("perf", options.common.json, done.error(),
                           Json::object({{"results", results}}));
    }
  }
  options.common.json.Emit({{"command", "perf"},
                            {"ok", true},
                            {"server", options.common.bus.empty() ? "private" : options.common.bus},
                            {"seconds", options.seconds},
                            {"results", results}});
  return kExitSuccess;
}

}  // namespace

void AddPerf(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<PerfOptions>();
  CLI::App* perf = app.add_subcommand(
      "perf",
      "Measure rates and latencies: within a guest against its host; else against a server of its "
      "own, unless --bus is given");
  // Not from KMCL_BUS: a bus that happens to be set would silently change what is measured.
  perf->add_option("--bus", options->common.bus, "Measure against the server of this bus instead")
      ->type_name("ADDRESS");
  AddJsonOptions(*perf, options->common.json);
  perf->add_option("--mode", options->mode, "stream (one way), roundtrip or both")
      ->capture_default_str()
      ->check(CLI::IsMember({"stream", "roundtrip", "both"}));
  perf->add_option("--wait", options->wait,
                   "How the ends wait for packets: poll, adaptive, sleep or all")
      ->capture_default_str()
      ->check(CLI::IsMember({"poll", "adaptive", "sleep", "all"}));
  perf->add_option("--sizes", options->sizes, "Payload sizes in bytes, 8 to 65536")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{8}, devices::kEchoMaximumPacketBytes));
  perf->add_option("--seconds", options->seconds, "How long for each row")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 3600.0));
  perf->footer("\nExample:\n  vmbus perf --mode roundtrip --sizes 64,4096 --wait poll");
  perf->callback([perf, options, &chosen] {
    if (options->common.bus.empty() && KmclUioIsPresent()) {
      options->common.bus = "uio:";
    }
    // The rings that a guest's kernel makes are too small for the largest packet.
    if (perf->count("--sizes") == 0 && options->common.bus.starts_with("uio:")) {
      options->sizes.pop_back();
    }
    chosen = [options] { return RunPerf(*options); };
  });
}

}  // namespace kmcl::cli
