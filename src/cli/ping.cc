// vmbus ping: transactions against the echo device, with latencies.
#include <fmt/format.h>

#include "cli/client_channel.h"
#include "cli/commands.h"
#include "cli/counters.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/round_trips.h"
#include "devices/echo_protocol.h"

namespace kmcl::cli {
namespace {

constexpr int kHistogramColumns = 40;

struct PingOptions {
  CommonOptions common;
  std::uint64_t count = 100'000;
  std::uint32_t size = 64;
  std::uint32_t window = 1;
  double interval_ms = 0;
  std::string wait = "sleep";
};

std::string Describe(const RoundTrips& trips, const TransactionSums& sums) {
  const LatencyHistogram& latencies = trips.latencies();
  std::string text = fmt::format(
      "{} of {} transactions completed in {:.2f} s: {} per second\n", HumanCount(sums.completed),
      HumanCount(sums.accepted), trips.seconds(),
      HumanCount(static_cast<std::uint64_t>(
          trips.seconds() > 0 ? static_cast<double>(sums.completed) / trips.seconds() : 0)));
  if (sums.cancelled + sums.unanswered + sums.twice > 0) {
    text += fmt::format("{} ended by an error, {} never, {} twice\n", HumanCount(sums.cancelled),
                        HumanCount(sums.unanswered), HumanCount(sums.twice));
  }
  if (latencies.count() > 0) {
    const auto percentile = [&](double fraction) {
      return HumanTime(static_cast<double>(latencies.Percentile(fraction)));
    };
    text += trips.mismatches() == 0
                ? Green("every payload came back as it was sent") + "\n"
                : Red(fmt::format("{} payloads differ", HumanCount(trips.mismatches()))) + "\n";
    text += fmt::format("{}  min {}  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}\n", Bold("latency"),
                        HumanTime(static_cast<double>(latencies.minimum())), percentile(0.5),
                        percentile(0.9), percentile(0.99), percentile(0.999),
                        HumanTime(static_cast<double>(latencies.maximum())));
    text += latencies.Draw(kHistogramColumns);
  }
  return text;
}

Json Details(const PingOptions& options, const RoundTrips& trips, const TransactionSums& sums,
             const KMCL_CHANNEL_COUNTERS& counters) {
  return {{"size", options.size},
          {"window", options.window},
          {"wait", options.wait},
          {"seconds", trips.seconds()},
          {"transactions", ToJson(sums)},
          {"payload_mismatches", trips.mismatches()},
          {"latency_ns", ToJson(trips.latencies())},
          {"counters", ToJson(counters)}};
}

// What is wrong with a run that nobody interrupted; nothing when all is well.
std::optional<Failure> Judge(const PingOptions& options, const RoundTrips& trips,
                             const TransactionSums& sums, const ClientChannel& channel) {
  if (!sums.each_ended_once()) {
    return Failure{kExitFailure, "not every transaction ended exactly once"};
  }
  if (channel.lost()) {
    return Failure{kExitLost, "the other end has gone", STATUS_DEVICE_REMOVED};
  }
  if (trips.mismatches() > 0) {
    return Failure{kExitFailure, "payloads came back changed"};
  }
  if (MainWait::Get().interrupted()) {
    return Failure{kExitInterrupted, "interrupted"};
  }
  if (sums.completed != options.count) {
    return Failure{kExitFailure, "not every transaction was completed"};
  }
  return std::nullopt;
}

int RunPing(const PingOptions& options) {
  const auto fail = [&](const Failure& failure) {
    return ReportFailure("ping", options.common.json, failure);
  };
  auto bus = ClientBus::Connect(options.common.bus,
                                options.wait == "poll" ? WaitMode::kPoll : WaitMode::kSleep);
  if (!bus) {
    return fail(bus.error());
  }
  ClientChannelSettings settings;
  settings.interface_type = devices::kEchoInterface;
  settings.name = "echo";
  settings.maximum_packet_bytes = options.size;
  auto channel = ClientChannel::Open(**bus, settings);
  if (!channel) {
    return fail(channel.error());
  }
  RoundTripPlan plan;
  plan.packet_bytes = options.size;
  plan.window = options.window;
  plan.count = options.count;
  plan.interval = std::chrono::microseconds(static_cast<std::int64_t>(options.interval_ms * 1000));
  auto trips = RoundTrips::Prepare(**channel, plan);
  if (!trips) {
    return fail(trips.error());
  }
  if (options.common.json.text()) {
    Print(fmt::format("{} {}: {} transactions of {} bytes, {} at a time, {}\n", Bold("ping"),
                      (*bus)->address(), HumanCount(options.count), options.size, options.window,
                      options.wait == "poll" ? "polling" : "sleeping between them"));
  }
  (*trips)->Run([] {});
  (*channel)->Close();

  const TransactionSums sums = (*trips)->Sums().value_or(TransactionSums{});
  const KMCL_CHANNEL_COUNTERS counters = (*channel)->Counters();
  const Json details = Details(options, **trips, sums, counters);
  if (options.common.json.text()) {
    Print(Describe(**trips, sums) + Bold("counters") + "\n" + DescribeCounters(counters));
  }
  if (const auto failure = Judge(options, **trips, sums, **channel)) {
    return ReportFailure("ping", options.common.json, *failure, details);
  }
  Json object = {{"command", "ping"}, {"ok", true}, {"bus", (*bus)->address()}};
  object.update(details);
  options.common.json.Emit(object);
  return kExitSuccess;
}

}  // namespace

void AddPing(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<PingOptions>();
  CLI::App* ping = app.add_subcommand(
      "ping", "Send transactions to the echo device, check the answers, show the latencies");
  AddCommonOptions(*ping, options->common);
  ping->add_option("--count", options->count, "How many transactions")
      ->capture_default_str()
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{100'000'000}));
  ping->add_option("--size", options->size, "Bytes in each packet, an 8-byte header included")
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{8}, devices::kEchoMaximumPacketBytes));
  ping->add_option("--window", options->window, "How many may be on their way at once")
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{1}, std::uint32_t{4096}));
  ping->add_option("--interval", options->interval_ms, "Milliseconds from one send to the next")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3'600'000.0));
  ping->add_option("--wait", options->wait, "How this end waits for answers: poll or sleep")
      ->capture_default_str()
      ->check(CLI::IsMember({"poll", "sleep"}));
  ping->footer("\nExample:\n  vmbus ping --bus unix:/tmp/bus --count 100000 --size 64");
  ping->callback([options, &chosen] { chosen = [options] { return RunPing(*options); }; });
}

}  // namespace kmcl::cli
