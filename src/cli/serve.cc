// vmbus serve: a bus that offers the echo and the file device to every client.
#include <fcntl.h>
#include <fmt/format.h>
#include <kmcl/endpoint.h>
#include <kmcl/handover.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <span>
#include <system_error>
#include <vector>

#include "cli/client_channel.h"
#include "cli/commands.h"
#include "cli/counters.h"
#include "cli/handover_door.h"
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
  std::string wait = "adaptive";
  int ready_descriptor = -1;
  bool handover = false;
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

  // Handing over (kmcl/handover.h).
  NTSTATUS Save(std::vector<std::byte>& state);
  void Resume();
  NTSTATUS Restore(KMCL_SERVER server, std::span<const std::byte> state);

  Json Summary() const;
  std::string Description() const;

 private:
  struct Devices {
    UINT64 number = 0;
    std::unique_ptr<devices::EchoDevice> echo;
    std::unique_ptr<devices::FileDevice> file;
  };
  void Retire(Devices devices);
  devices::FileDevice::Report Reporter(UINT64 number) const {
    return [this, number](const std::string& line) {
      Say(fmt::format("partition {}: {}", number, line));
    };
  }
  void Say(const std::string& line) const { PrintError(line + "\n"); }

  const ServeOptions& options_;
  const int directory_;

  mutable std::mutex mutex_;
  // Under mutex_.
  std::map<HANDLE, Devices> devices_;
  bool closing_ = false;
  bool handed_over_ = false;
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
    auto file =
        devices::FileDevice::Offer(device_object, partition, directory_, Reporter(who.Number));
    if (file) {
      devices.file = std::move(*file);
    } else {
      Say(fmt::format("partition {}: cannot offer file ({})", who.Number,
                      KmclStatusName(file.error())));
    }
  }
  // If RevokeAll came in between, Leave finds them: the bus thread must not wait for their end.
  const std::lock_guard lock(mutex_);
  devices_.emplace(partition, std::move(devices));
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
  {
    const std::lock_guard lock(mutex_);
    if (handed_over_) {
      return;
    }
  }
  Say(fmt::format("partition {} left", number));
}

// For each partition: its handle, and its devices' saves with their lengths; 0 for no such device.
NTSTATUS Partitions::Save(std::vector<std::byte>& state) {
  const auto put = [&state](std::span<const std::byte> bytes) {
    state.insert(state.end(), bytes.begin(), bytes.end());
  };
  const auto put_number = [&put](std::uint64_t number) {
    put(std::as_bytes(std::span(&number, 1)));
  };
  const std::lock_guard lock(mutex_);
  handed_over_ = true;  // unless Resume says otherwise
  put_number(arrived_);
  for (auto& [partition, devices] : devices_) {
    put_number(reinterpret_cast<std::uintptr_t>(partition));
    const auto put_device = [&](auto& device) -> NTSTATUS {
      if (!device) {
        put_number(0);
        return STATUS_SUCCESS;
      }
      const auto saved = device->Save();
      if (!saved) {
        return saved.error();
      }
      put_number(saved->size());
      put(*saved);
      return STATUS_SUCCESS;
    };
    for (const NTSTATUS status : {put_device(devices.echo), put_device(devices.file)}) {
      if (!NT_SUCCESS(status)) {
        return status;
      }
    }
  }
  return STATUS_SUCCESS;
}

void Partitions::Resume() {
  const std::lock_guard lock(mutex_);
  handed_over_ = false;
  for (auto& [partition, devices] : devices_) {
    if (devices.echo) {
      devices.echo->Resume();
    }
    if (devices.file) {
      devices.file->Resume();
    }
  }
}

NTSTATUS Partitions::Restore(KMCL_SERVER server, std::span<const std::byte> state) {
  bool whole = true;
  const auto take_number = [&]() -> std::uint64_t {
    std::uint64_t number = 0;
    if (state.size() < sizeof(number)) {
      whole = false;
      return 0;
    }
    std::memcpy(&number, state.data(), sizeof(number));
    state = state.subspan(sizeof(number));
    return number;
  };
  const auto take_device = [&] {
    const std::uint64_t bytes = take_number();
    whole = whole && bytes <= state.size();
    const auto saved = state.first(whole ? static_cast<std::size_t>(bytes) : 0);
    state = state.subspan(saved.size());
    return saved;
  };
  const PDEVICE_OBJECT device_object = KmclServerDeviceObject(server);
  const std::uint64_t arrived = take_number();
  while (whole && !state.empty()) {
    const auto partition = reinterpret_cast<HANDLE>(take_number());
    const auto saved_echo = take_device();
    const auto saved_file = take_device();
    KMCL_PARTITION_INFORMATION who{};
    if (!whole || !NT_SUCCESS(KmclPartitionQuery(partition, &who))) {
      return STATUS_DATA_ERROR;
    }
    Devices devices;
    devices.number = who.Number;
    if (options_.echo && !saved_echo.empty()) {
      auto echo = devices::EchoDevice::Restore(device_object, partition, saved_echo);
      if (!echo) {
        return echo.error();
      }
      devices.echo = std::move(*echo);
    }
    if (options_.file && !saved_file.empty()) {
      auto file = devices::FileDevice::Restore(device_object, partition, directory_,
                                               Reporter(who.Number), saved_file);
      if (!file) {
        return file.error();
      }
      devices.file = std::move(*file);
    }
    const std::lock_guard lock(mutex_);
    devices_.emplace(partition, std::move(devices));
  }
  const std::lock_guard lock(mutex_);
  arrived_ = arrived;
  return whole ? STATUS_SUCCESS : STATUS_DATA_ERROR;
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
                 {"handed_over", handed_over_},
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
      fmt::format("served {} {}{}\n", arrived_, arrived_ == 1 ? "partition" : "partitions",
                  handed_over_ ? ", then handed over" : "");
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

// Gives the server to the process at the other end of `socket`. Says how it went.
bool HandOver(KMCL_SERVER server, int socket, Partitions& partitions) {
  struct Context {
    Partitions& partitions;
    std::vector<std::byte> state;
  } context{partitions, {}};
  KMCL_HANDOVER_OPTIONS options;
  KmclHandOverOptionsInit(&options);
  options.Context = &context;
  options.Save = [](PVOID raw, KMCL_SERVER, const VOID** state, SIZE_T* bytes) -> NTSTATUS {
    auto* const self = static_cast<Context*>(raw);
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    Guarded([&] { status = self->partitions.Save(self->state); });
    *state = self->state.data();
    *bytes = self->state.size();
    return status;
  };
  options.Resume = [](PVOID raw, KMCL_SERVER) { static_cast<Context*>(raw)->partitions.Resume(); };
  PrintError("another process takes over\n");
  const NTSTATUS status = KmclServerHandOver(server, socket, &options);
  PrintError(NT_SUCCESS(status)
                 ? std::string("handed over\n")
                 : fmt::format("not handed over ({}), serving on\n", KmclStatusName(status)));
  return NT_SUCCESS(status);
}

Outcome<void> TakeOver(const std::string& bus, const KMCL_ENDPOINT_OPTIONS& endpoint,
                       Partitions& partitions, KMCL_SERVER& server) {
  const auto socket = KnockAtDoor(bus);
  if (!socket) {
    return std::unexpected(socket.error());
  }
  KMCL_TAKEOVER_OPTIONS options;
  KmclTakeOverOptionsInit(&options);
  options.Context = &partitions;
  options.Restore = [](PVOID context, KMCL_SERVER made, const VOID* state, SIZE_T bytes) -> NTSTATUS {
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    Guarded([&] {
      status = static_cast<Partitions*>(context)->Restore(
          made, {static_cast<const std::byte*>(state), bytes});
    });
    return status;
  };
  const NTSTATUS status = KmclServerTakeOver(*socket, &endpoint, &options, &server);
  close(*socket);
  if (!NT_SUCCESS(status)) {
    return Fail(kExitFailure, fmt::format("could not take over {}: it is served as before", bus),
                status);
  }
  return {};
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
                                           std::generic_category().message(errno))});
  }

  Partitions partitions(options, directory.descriptor());
  KMCL_ENDPOINT_OPTIONS endpoint;
  KmclEndpointOptionsInit(&endpoint);
  endpoint.SpinMicroseconds = SpinMicroseconds(WaitNamed(options.wait));
  endpoint.Context = &partitions;
  endpoint.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
    Guarded([&] { static_cast<Partitions*>(context)->Arrive(server, partition); });
  };
  endpoint.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) {
    Guarded([&] { static_cast<Partitions*>(context)->Leave(partition); });
  };
  KMCL_SERVER server = nullptr;
  if (options.handover) {
    if (const auto taken = TakeOver(options.common.bus, endpoint, partitions, server); !taken) {
      return fail(taken.error());
    }
  } else {
    const NTSTATUS status = KmclServerCreate(options.common.bus.c_str(), &endpoint, &server);
    if (!NT_SUCCESS(status)) {
      return fail(WhyNotServing(options.common.bus, status));
    }
  }
  std::atomic<bool> handed_over = false;
  {
    const HandoverDoor door(options.common.bus, [&](int socket) {
      if (HandOver(server, socket, partitions)) {
        handed_over.store(true);
        MainWait::Get().Wake();
      }
      return handed_over.load();
    });
    SayReady(options);
    MainWait::Get().Until([&] { return handed_over.load(); });
  }

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
  serve->add_option("--wait", options->wait, "How to wait for packets: poll, adaptive or sleep")
      ->capture_default_str()
      ->check(CLI::IsMember({"poll", "adaptive", "sleep"}));
  serve
      ->add_option(
          "--ready-fd", options->ready_descriptor,
          "Write \"ready ADDRESS\" to this descriptor and close it, once clients can connect")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 20));
  serve->add_flag("--handover", options->handover,
                  "Take over from the vmbus serve that runs at this address; its clients go on");
  serve->footer("\nExample:\n  vmbus serve --bus unix:/tmp/bus --file --directory /tmp/in");
  serve->callback([options, &chosen] { chosen = [options] { return RunServe(*options); }; });
}

}  // namespace kmcl::cli
