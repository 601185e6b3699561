// vmbus ping: transactions against the echo device, with latencies.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

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
  std::string wait = "adaptive";
  std::uint32_t sub_channels = 0;
};

// The echo channel, and those beside it: they are closed and freed first.
struct EchoChannels {
  std::unique_ptr<ClientChannel> primary;
  std::vector<std::unique_ptr<ClientChannel>> sub_channels;

  std::vector<ClientChannel*> all() const {
    std::vector<ClientChannel*> channels = {primary.get()};
    for (const auto& each : sub_channels) {
      channels.push_back(each.get());
    }
    return channels;
  }
  void Close() const {
    for (const auto& each : sub_channels) {
      each->Close();
    }
    primary->Close();
  }
  bool lost() const {
    return std::ranges::any_of(all(), [](const ClientChannel* each) { return each->lost(); });
  }
};

// Has the device offer `count` sub-channels.
Outcome<void> AskForSubChannels(const ClientChannel& primary, std::uint32_t count) {
  devices::EchoSubchannels request;
  request.header = {static_cast<std::uint32_t>(devices::EchoKind::kSubchannels),
                    sizeof(request) - sizeof(request.header)};
  request.count = count;
  // An answer is rounded up to 8 bytes.
  std::array<std::byte, 16> answer{};
  UINT32 answer_bytes = answer.size();
  const NTSTATUS status = VmbChannelSendSynchronousRequest(
      primary.handle(), &request, sizeof(request), nullptr,
      VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, answer.data(), &answer_bytes, nullptr);
  if (!NT_SUCCESS(status)) {
    return Fail(status == STATUS_DEVICE_REMOVED ? kExitLost : kExitFailure,
                "the echo device does not answer a request for sub-channels", status);
  }
  devices::EchoSubchannels granted;
  std::memcpy(&granted, answer.data(), sizeof(granted));
  if (answer_bytes < sizeof(granted) || granted.header.kind != request.header.kind ||
      granted.count < count) {
    return Fail(kExitFailure, fmt::format("the echo device does not offer {} sub-channels", count));
  }
  return {};
}

Outcome<EchoChannels> OpenChannels(const ClientBus& bus, const PingOptions& options) {
  EchoChannels channels;
  ClientChannelSettings settings;
  settings.interface_type = devices::kEchoInterface;
  settings.name = "echo";
  settings.maximum_packet_bytes =
      std::max(options.size, static_cast<std::uint32_t>(sizeof(devices::EchoSubchannels)));
  auto primary = ClientChannel::Open(bus, settings);
  if (!primary) {
    return std::unexpected(primary.error());
  }
  channels.primary = std::move(*primary);
  if (options.sub_channels > 0) {
    if (auto asked = AskForSubChannels(*channels.primary, options.sub_channels); !asked) {
      return std::unexpected(asked.error());
    }
  }
  settings.primary = channels.primary.get();
  settings.name = "echo sub";
  settings.maximum_packet_bytes = options.size;
  for (std::uint32_t i = 0; i < options.sub_channels; ++i) {
    auto opened = ClientChannel::Open(bus, settings);
    if (!opened) {
      return std::unexpected(opened.error());
    }
    channels.sub_channels.push_back(std::move(*opened));
  }
  return channels;
}

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
             const EchoChannels& channels) {
  Json each_channel = Json::array();
  for (const ClientChannel* each : channels.all()) {
    each_channel.push_back(
        {{"completed", trips.completed(*each)}, {"counters", ToJson(each->Counters())}});
  }
  return {{"size", options.size},
          {"window", options.window},
          {"wait", options.wait},
          {"seconds", trips.seconds()},
          {"transactions", ToJson(sums)},
          {"payload_mismatches", trips.mismatches()},
          {"latency_ns", ToJson(trips.latencies())},
          {"counters", ToJson(channels.primary->Counters())},
          {"channels", each_channel}};
}

// What is wrong with a run that nobody interrupted; nothing when all is well.
std::optional<Failure> Judge(const PingOptions& options, const RoundTrips& trips,
                             const TransactionSums& sums, const EchoChannels& channels) {
  if (!sums.each_ended_once()) {
    return Failure{kExitFailure, "not every transaction ended exactly once"};
  }
  if (channels.lost()) {
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
  auto bus = ClientBus::Connect(options.common.bus, WaitNamed(options.wait));
  if (!bus) {
    return fail(bus.error());
  }
  const auto channels = OpenChannels(**bus, options);
  if (!channels) {
    return fail(channels.error());
  }
  RoundTripPlan plan;
  plan.packet_bytes = options.size;
  plan.window = options.window;
  plan.count = options.count;
  plan.interval = std::chrono::microseconds(static_cast<std::int64_t>(options.interval_ms * 1000));
  auto trips = RoundTrips::Prepare(channels->all(), plan);
  if (!trips) {
    return fail(trips.error());
  }
  if (options.common.json.text()) {
    Print(fmt::format("{} {}: {} transactions of {} bytes, {} at a time, {}\n", Bold("ping"),
                      (*bus)->address(), HumanCount(options.count), options.size, options.window,
                      "waiting by " + options.wait));
  }
  (*trips)->Run([] {});
  channels->Close();

  const TransactionSums sums = (*trips)->Sums().value_or(TransactionSums{});
  const Json details = Details(options, **trips, sums, *channels);
  if (options.common.json.text()) {
    Print(Describe(**trips, sums));
    for (std::size_t i = 0; i < channels->sub_channels.size(); ++i) {
      Print(fmt::format("sub-channel {}: {} transactions\n", i + 1,
                        HumanCount((*trips)->completed(*channels->sub_channels[i]))));
    }
    Print(Bold("counters") + "\n" + DescribeCounters(channels->primary->Counters()));
  }
  if (const auto failure = Judge(options, **trips, sums, *channels)) {
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
  ping->add_option("--window", options->window, "How many may be on their way at once on a channel")
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{1}, std::uint32_t{4096}));
  ping->add_option("--sub-channels", options->sub_channels,
                   "How many sub-channels of the device to use beside its channel")
      ->capture_default_str()
      ->check(CLI::Range(std::uint32_t{0}, devices::kEchoMaximumSubchannels));
  ping->add_option("--interval", options->interval_ms, "Milliseconds from one send to the next")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3'600'000.0));
  ping->add_option("--wait", options->wait, "How to wait for answers: poll, adaptive or sleep")
      ->capture_default_str()
      ->check(CLI::IsMember({"poll", "adaptive", "sleep"}));
  ping->footer("\nExample:\n  vmbus ping --bus unix:/tmp/bus --count 100000 --size 64");
  ping->callback([options, &chosen] { chosen = [options] { return RunPing(*options); }; });
}

}  // namespace kmcl::cli
