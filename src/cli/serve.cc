// vmbus serve: a bus that offers the echo and the file device to every client.
#include <fcntl.h>
#include <fmt/format.h>
#include <kmcl/endpoint.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "cli/client_channel.h"
#include "cli/commands.h"
#include "cli/counters.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/serving.h"
#include "devices/echo.h"
#include "devices/file.h"

namespace kmcl::cli {
namespace {

struct ServeOptions {
  CommonOptions common;
  bool echo = false;
  bool file = false;
  std::string directory = ".";
  std::string wait = "sleep";
  int ready_descriptor = -1;
};

// An open directory.
class Directory {
 public:
  explicit Directory(const std::string& path)
      : descriptor_(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {}
  ~Directory() {
    if (descriptor_ >= 0) {
      close(descriptor_);
    }
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

// The devices of all partitions. Arrive runs on the bus thread, Leave on a passive one, RevokeAll
// on the main thread; a partition's devices are destroyed outside of the lock, by whoever took
// them.
class Partitions {
 public:
  Partitions(const ServeOptions& options, int directory)
      : options_(options), directory_(directory) {}

  void Arrive(KMCL_SERVER server, HANDLE partition);
  void Leave(HANDLE partition);
  // Revokes everything, and offers nothing to those who come later.
  void RevokeAll();

  Json Summary() const;
  std::string Description() const;

 private:
  struct Devices {
    UINT64 number = 0;
    std::unique_ptr<devices::EchoDevice> echo;
    std::unique_ptr<devices::FileDevice> file;
  };
  void Retire(Devices devices);
  void Say(const std::string& line) const { PrintError(line + "\n"); }

  const ServeOptions& options_;
  const int directory_;

  mutable std::mutex mutex_;
  // Under mutex_.
  std::map<HANDLE, Devices> devices_;
  bool closing_ = false;
  std::uint64_t arrived_ = 0;
  KMCL_CHANNEL_COUNTERS echo_counters_{};
  KMCL_CHANNEL_COUNTERS file_counters_{};
};

void Partitions::Arrive(KMCL_SERVER server, HANDLE partition) {
  KMCL_PARTITION_INFORMATION who{};
  KmclPartitionQuery(partition, &who);
  const PDEVICE_OBJECT device_object = KmclServerDeviceObject(server);
  Devices devices;
  devices.number = who.Number;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) {
      return;
    }
    ++arrived_;
  }
  Say(fmt::format("partition {} arrived: process {}, user {}, version {}.{}", who.Number,
                  who.ProcessId, who.UserId, who.Version >> 16, who.Version & 0xffff));
  if (options_.echo) {
    auto echo = devices::EchoDevice::Offer(device_object, partition);
    if (echo) {
      devices.echo = std::move(*echo);
    } else {
      Say(fmt::format("partition {}: cannot offer echo ({})", who.Number,
                      KmclStatusName(echo.error())));
    }
  }
  if (options_.file) {
    const auto report = [this, number = who.Number](const std::string& line) {
      Say(fmt::format("partition {}: {}", number, line));
    };
    auto file = devices::FileDevice::Offer(device_object, partition, directory_, report);
    if (file) {
      devices.file = std::move(*file);
    } else {
      Say(fmt::format("partition {}: cannot offer file ({})", who.Number,
                      KmclStatusName(file.error())));
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (!closing_) {
      devices_.emplace(partition, std::move(devices));
      return;
    }
  }
  Retire(std::move(devices));  // RevokeAll came in between and did not see them
}

void Partitions::Leave(HANDLE partition) {
  Devices devices;
  {
    const std::lock_guard lock(mutex_);
    const auto found = devices_.find(partition);
    if (found == devices_.end()) {
      return;
    }
    devices = std::move(found->second);
    devices_.erase(found);
  }
  const UINT64 number = devices.number;
  Retire(std::move(devices));
  Say(fmt::format("partition {} left", number));
}

void Partitions::RevokeAll() {
  std::map<HANDLE, Devices> devices;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    devices.swap(devices_);
  }
  for (auto& [partition, of_partition] : devices) {
    Retire(std::move(of_partition));
  }
}

void Partitions::Retire(Devices devices) {
  KMCL_CHANNEL_COUNTERS echo{};
  KMCL_CHANNEL_COUNTERS file{};
  if (devices.echo) {
    echo = devices.echo->Revoke();
  }
  if (devices.file) {
    file = devices.file->Revoke();
  }
  const std::lock_guard lock(mutex_);
  Add(echo_counters_, echo);
  Add(file_counters_, file);
}

Json Partitions::Summary() const {
  const std::lock_guard lock(mutex_);
  Json object = {{"command", "serve"},
                 {"ok", true},
                 {"bus", options_.common.bus},
                 {"partitions", arrived_},
                 {"devices", Json::object()}};
  if (options_.echo) {
    object["devices"]["echo"] = ToJson(echo_counters_);
  }
  if (options_.file) {
    object["devices"]["file"] = ToJson(file_counters_);
  }
  return object;
}

std::string Partitions::Description() const {
  const std::lock_guard lock(mutex_);
  std::string text =
      fmt::format("served {} {}\n", arrived_, arrived_ == 1 ? "partition" : "partitions");
  if (options_.echo) {
    text += Bold("echo") + "\n" + DescribeCounters(echo_counters_);
  }
  if (options_.file) {
    text += Bold("file") + "\n" + DescribeCounters(file_counters_);
  }
  return text;
}

// For people, too.
void SayReady(const ServeOptions& options) {
  const std::string line = fmt::format("ready {}\n", options.common.bus);
  TellReady(options.common.bus, options.ready_descriptor);
  if (options.common.json.text()) {
    Print(line);
  } else {
    PrintError(line);  // standard output is for the object
  }
}

// KMCL calls these; nothing may escape from them, memory shortage included.
template <typename Work>
void Guarded(Work work) {
  try {
    work();
  } catch (const std::exception& error) {
    PrintError(fmt::format("vmbus serve: {}\n", error.what()));
  }
}

int RunServe(ServeOptions options) {
  const auto fail = [&](const Failure& failure) {
    return ReportFailure("serve", options.common.json, failure);
  };
  if (!options.echo && !options.file) {
    options.echo = true;
    options.file = true;
  }
  if (options.common.bus.empty()) {
    return fail({kExitUsage, "no bus was named: give --bus ADDRESS or set KMCL_BUS"});
  }
  const Directory directory(options.file ? options.directory : "/");
  if (directory.descriptor() < 0) {
    return fail({kExitFailure, fmt::format("cannot open the directory {}: {}", options.directory,
                                           std::strerror(errno))});
  }

  Partitions partitions(options, directory.descriptor());
  KMCL_ENDPOINT_OPTIONS endpoint;
  KmclEndpointOptionsInit(&endpoint);
  endpoint.SpinMicroseconds =
      SpinMicroseconds(options.wait == "poll" ? WaitMode::kPoll : WaitMode::kSleep);
  endpoint.Context = &partitions;
  endpoint.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
    Guarded([&] { static_cast<Partitions*>(context)->Arrive(server, partition); });
  };
  endpoint.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) {
    Guarded([&] { static_cast<Partitions*>(context)->Leave(partition); });
  };
  KMCL_SERVER server = nullptr;
  const NTSTATUS status = KmclServerCreate(options.common.bus.c_str(), &endpoint, &server);
  if (!NT_SUCCESS(status)) {
    return fail(WhyNotServing(options.common.bus, status));
  }
  SayReady(options);
  MainWait::Get().Until([] { return false; });

  // Revoked while the clients still listen, so that they are told and not just cut off.
  partitions.RevokeAll();
  KmclServerDestroy(server);
  options.common.json.Emit(partitions.Summary());
  if (options.common.json.text()) {
    Print(partitions.Description());
  }
  return kExitSuccess;
}

}  // namespace

void AddServe(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* serve = app.add_subcommand(
      "serve", "Serve a bus with an echo and a file device, until Ctrl-C (exit code 0)");
  AddCommonOptions(*serve, options->common);
  serve->add_flag("--echo", options->echo, "Offer the echo device (default: both devices)");
  serve->add_flag("--file", options->file, "Offer the file device (default: both devices)");
  serve->add_option("--directory", options->directory, "Where the file device stores files")
      ->capture_default_str()
      ->type_name("DIR");
  serve->add_option("--wait", options->wait, "How this end waits for packets: poll or sleep")
      ->capture_default_str()
      ->check(CLI::IsMember({"poll", "sleep"}));
  serve
      ->add_option(
          "--ready-fd", options->ready_descriptor,
          "Write \"ready ADDRESS\" to this descriptor and close it, once clients can connect")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 20));
  serve->footer("\nExample:\n  vmbus serve --bus unix:/tmp/bus --file --directory /tmp/in");
  serve->callback([options, &chosen] { chosen = [options] { return RunServe(*options); }; });
}

}  // namespace kmcl::cli
