// vmbus cat: standard input and output over a channel in pipe mode.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "cli/byte_pipe.h"
#include "cli/commands.h"
#include "cli/counters.h"
#include "cli/interface_names.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/serving.h"

namespace kmcl::cli {
namespace {

struct CatOptions {
  std::string bus;
  JsonSink json;
  bool listen = false;
  std::string type = "cat";
  std::string instance;
  int ready_descriptor = -1;
};

void AddTo(Json& details, const BytePipe& pipe) {
  details["bytes_sent"] = pipe.bytes_sent();
  details["bytes_received"] = pipe.bytes_received();
  details["counters"] = ToJson(pipe.Counters());
}

// Offers the channel to every client that comes, until one has opened it. Arrive runs on the bus
// thread, Leave on a passive one; pipes are destroyed outside of the lock.
class Listener {
 public:
  explicit Listener(const BytePipePlan& plan) : plan_(plan) {}

  void Arrive(KMCL_SERVER server, HANDLE partition);
  void Leave(HANDLE partition);
  // Waits for the first client; nullptr when interrupted.
  std::unique_ptr<BytePipe> TakeFirst();
  // Revokes the offers to all others, and makes no more.
  void Close();
  // Lets the client that was served leave first, so that it is not cut off.
  void WaitForGoodbye();

 private:
  const BytePipePlan plan_;
  std::mutex mutex_;
  // Under mutex_.
  std::map<HANDLE, std::unique_ptr<BytePipe>> pipes_;
  HANDLE served_ = nullptr;
  bool served_left_ = false;
  bool closing_ = false;
};

void Listener::Arrive(KMCL_SERVER server, HANDLE partition) {
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return;
  }
  auto pipe = BytePipe::Prepare(plan_);
  const NTSTATUS status = pipe ? (*pipe)->Offer(server, partition) : STATUS_INSUFFICIENT_RESOURCES;
  if (!NT_SUCCESS(status)) {
    PrintError(fmt::format("vmbus cat: cannot offer the channel ({})\n", KmclStatusName(status)));
    return;
  }
  // Also when closing has begun meanwhile: the bus thread must not wait for a channel's end.
  const std::lock_guard lock(mutex_);
  pipes_.emplace(partition, std::move(*pipe));
}

void Listener::Leave(HANDLE partition) {
  std::unique_ptr<BytePipe> gone;
  {
    const std::lock_guard lock(mutex_);
    served_left_ = served_left_ || partition == served_;
    const auto found = pipes_.find(partition);
    if (found != pipes_.end()) {
      gone = std::move(found->second);
      pipes_.erase(found);
    }
  }
  MainWait::Get().Wake();  // not under the lock, which the main thread's conditions take
}

std::unique_ptr<BytePipe> Listener::TakeFirst() {
  std::unique_ptr<BytePipe> first;
  MainWait::Get().Until([&] {
    const std::lock_guard lock(mutex_);
    for (auto& [partition, pipe] : pipes_) {
      if (first == nullptr && pipe->started()) {
        first = std::move(pipe);
        served_ = partition;
      }
    }
    if (first == nullptr) return false;
    std::erase_if(pipes_, [](const auto& each) { return each.second == nullptr; });
    return true;
  });
  return first;
}

void Listener::Close() {
  std::map<HANDLE, std::unique_ptr<BytePipe>> others;
  const std::lock_guard lock(mutex_);
  closing_ = true;
  others.swap(pipes_);
}

void Listener::WaitForGoodbye() {
  constexpr auto kWithin = std::chrono::seconds(10);
  MainWait::Get().UntilTime(std::chrono::steady_clock::now() + kWithin, [this] {
    const std::lock_guard lock(mutex_);
    return served_left_;
  });
}

// Both tell in `details` what the pipe did.
Outcome<void> CatAsClient(const CatOptions& options, const BytePipePlan& plan, Json& details) {
  auto bus = ClientBus::Connect(options.bus);
  if (!bus) return std::unexpected(bus.error());
  const auto offers = (*bus)->Offers();
  const bool offered = std::any_of(offers.begin(), offers.end(), [&](const KMCL_OFFER& offer) {
    return offer.InterfaceType == plan.interface_type &&
           (!plan.instance || offer.InterfaceInstance == *plan.instance);
  });
  if (!offered) {
    return Fail(kExitFailure, fmt::format("{} offers no such channel ({})", options.bus,
                                          GuidText(plan.interface_type)));
  }
  auto pipe = BytePipe::Prepare(plan);
  if (!pipe) return std::unexpected(pipe.error());
  auto outcome = (*pipe)->Connect(**bus);
  if (outcome) outcome = (*pipe)->Run();
  AddTo(details, **pipe);
  return outcome;
}

Outcome<void> CatAsServer(const CatOptions& options, const BytePipePlan& plan, Json& details) {
  if (options.bus.empty()) {
    return Fail(kExitUsage, "no bus was named: give --bus ADDRESS or set KMCL_BUS");
  }
  Listener listener(plan);
  KMCL_ENDPOINT_OPTIONS endpoint;
  KmclEndpointOptionsInit(&endpoint);
  endpoint.Context = &listener;
  endpoint.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
    static_cast<Listener*>(context)->Arrive(server, partition);
  };
  endpoint.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) {
    static_cast<Listener*>(context)->Leave(partition);
  };
  KMCL_SERVER server = nullptr;
  const NTSTATUS status = KmclServerCreate(options.bus.c_str(), &endpoint, &server);
  if (!NT_SUCCESS(status)) return std::unexpected(WhyNotServing(options.bus, status));
  TellReady(options.bus, options.ready_descriptor);
  Outcome<void> outcome = Fail(kExitInterrupted, "interrupted");
  auto pipe = listener.TakeFirst();
  listener.Close();
  if (pipe != nullptr) {
    outcome = pipe->Run();
    AddTo(details, *pipe);
    pipe.reset();
    if (outcome) listener.WaitForGoodbye();
  }
  KmclServerDestroy(server);
  return outcome;
}

int RunCat(const CatOptions& options) {
  const auto type = InterfaceFromText(options.type);
  const auto instance =
      options.instance.empty() ? std::optional<GUID>() : GuidFromText(options.instance);
  Json details = {{"bus", options.bus}, {"listen", options.listen}};
  Outcome<void> outcome;
  if (!type) {
    outcome =
        Fail(kExitUsage, fmt::format("\"{}\" is neither a GUID nor a known name", options.type));
  } else if (!options.instance.empty() && !instance) {
    outcome = Fail(kExitUsage, fmt::format("\"{}\" is no GUID", options.instance));
  } else {
    // A reader of our output that has gone is an error of write, not the end of us.
    (void)signal(SIGPIPE, SIG_IGN);
    const BytePipePlan plan{.interface_type = *type, .instance = instance};
    outcome =
        options.listen ? CatAsServer(options, plan, details) : CatAsClient(options, plan, details);
  }
  if (!outcome) return ReportFailure("cat", options.json, outcome.error(), details);
  Json object = {{"command", "cat"}, {"ok", true}};
  object.update(details);
  options.json.Emit(object);
  return kExitSuccess;
}

}  // namespace

void AddCat(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<CatOptions>();
  CLI::App* cat = app.add_subcommand(
      "cat", "Standard input and output over a channel in pipe mode, like netcat");
  cat->add_option("--bus", options->bus, "Address of the bus, unix:PATH")
      ->envname("KMCL_BUS")
      ->type_name("ADDRESS");
  cat->add_flag("--listen", options->listen,
                "Serve the bus and offer the channel, to the first client that opens it");
  cat->add_option("--type", options->type, "Interface type of the channel")
      ->capture_default_str()
      ->type_name("GUID|NAME");
  cat->add_option("--instance", options->instance,
                  "Interface instance (default: that of the type, or any)")
      ->type_name("GUID");
  cat->add_option("--json-to", options->json.file, "Write one JSON object about it to a file")
      ->type_name("FILE");
  cat->add_option(
         "--ready-fd", options->ready_descriptor,
         "Write \"ready ADDRESS\" to this descriptor and close it, once clients can connect")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 20));
  cat->footer(
      "\nExample:\n  vmbus cat --bus unix:/tmp/bus --listen > copy &\n"
      "  vmbus cat --bus unix:/tmp/bus < original");
  cat->callback([options, &chosen] { chosen = [options] { return RunCat(*options); }; });
}

}  // namespace kmcl::cli
