#include "cli/guest_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <utility>

#include "cli/counters.h"

namespace kmcl::cli {
namespace {

constexpr GuestDeviceKind kDevices[] = {
    {"echo", &GuestDeviceChoice::echo},         {"heartbeat", &GuestDeviceChoice::heartbeat},
    {"shutdown", &GuestDeviceChoice::shutdown}, {"timesync", &GuestDeviceChoice::timesync},
    {"kvp", &GuestDeviceChoice::kvp},           {"vss", &GuestDeviceChoice::vss},
    {"fcopy", &GuestDeviceChoice::fcopy},       {"vsock", &GuestDeviceChoice::vsock},
};

// KMCL calls these; nothing may escape from them, memory shortage included.
template <typename Work>
void Guarded(Work work) {
  try {
    work();
  } catch (const std::exception& error) {
    PrintError(fmt::format("vmbus vm: {}\n", error.what()));
  }
}

// What follows the name of a device: a heartbeat may have its milliseconds there, vsock has the
// place of the host's sockets, and echo may be without its monitor.
bool TakeValue(GuestDeviceChoice& choice, std::string_view device) {
  const auto equals = device.find('=');
  const bool is_vsock = device.substr(0, equals) == "vsock";
  if (device.substr(0, equals) == "echo") {
    choice.echo_unmonitored = device == "echo=unmonitored";
    return choice.echo_unmonitored || device == "echo";
  }
  if (equals == std::string_view::npos) {
    return !is_vsock;
  }
  const std::string_view value = device.substr(equals + 1);
  if (is_vsock) {
    choice.vsock_path = value;
    return !value.empty();
  }
  unsigned milliseconds = 0;
  const auto [end, error] =
      std::from_chars(value.data(), value.data() + value.size(), milliseconds);
  if (device.substr(0, equals) != "heartbeat" || error != std::errc() ||
      end != value.data() + value.size() || milliseconds < 1 || milliseconds > 1'000'000) {
    return false;
  }
  choice.heartbeat_interval = std::chrono::milliseconds(milliseconds);
  return true;
}

}  // namespace

std::string GuestDeviceNames() {
  std::string names;
  for (const auto& device : kDevices) {
    names += names.empty() ? "" : ", ";
    names += device.name;
  }
  return names;
}

std::span<const GuestDeviceKind> GuestDeviceKinds() { return kDevices; }

std::expected<void, std::string> AddGuestDevices(GuestDeviceChoice& choice,
                                                 std::string_view names) {
  while (!names.empty()) {
    const std::string_view device = names.substr(0, names.find(','));
    names.remove_prefix(std::min(names.size(), device.size() + 1));
    const std::string_view name = device.substr(0, device.find('='));
    const auto* const known =
        std::ranges::find(kDevices, name, [](const auto& kind) { return kind.name; });
    if (known == std::end(kDevices) || !TakeValue(choice, device)) {
      return std::unexpected(std::string(device));
    }
    choice.*known->chosen = true;
  }
  return {};
}

GuestDevices::GuestDevices(GuestDeviceOptions options, Report report)
    : options_(std::move(options)),
      report_([this, report = std::move(report)](const std::string& line) {
        const auto left_out = limit_.Admit(ReportLimit::Clock::now());
        if (left_out) {
          report(*left_out == 0 ? line : fmt::format("{} ({} lines left out)", line, *left_out));
        }
      }),
      choice_(options_.choice) {}

std::expected<void, std::string> GuestDevices::Prepare() { return MakeSockets(choice_); }

std::expected<void, std::string> GuestDevices::MakeSockets(GuestDeviceChoice& choice) const {
  if (!choice.vsock || choice.sockets) {
    return {};
  }
  auto made = devices::VsockDevice::Create({.path = choice.vsock_path, .times = {}}, report_);
  if (!made) {
    return std::unexpected(made.error());
  }
  choice.sockets = std::move(*made);
  return {};
}

void GuestDevices::Serve(KMCL_ENDPOINT_OPTIONS& endpoint) {
  endpoint.Context = this;
  endpoint.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
    Guarded([&] {
      static_cast<GuestDevices*>(context)->Arrive(KmclServerDeviceObject(server), partition);
    });
  };
  endpoint.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) {
    Guarded([&] { static_cast<GuestDevices*>(context)->Leave(partition); });
  };
}

void GuestDevices::Arrive(PDEVICE_OBJECT device_object, HANDLE partition) {
  KMCL_PARTITION_INFORMATION who{};
  KmclPartitionQuery(partition, &who);
  GuestDeviceChoice choice;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) {
      return;
    }
    version_ = who.Version;
    choice = choice_;
    arriving_ = true;
  }
  const struct Arrived {
    GuestDevices& self;
    ~Arrived() {
      {
        const std::lock_guard lock(self.mutex_);
        self.arriving_ = false;
      }
      self.changed_.notify_all();
    }
  } arrived{*this};
  report_(fmt::format("the guest is on the bus, version {}.{}", who.Version >> 16,
                      who.Version & 0xffff));
  Guest guest{device_object, partition, nullptr};
  auto set = std::make_shared<GuestDeviceSet>();
  for (const GuestDeviceKind& device : kDevices) {
    if (!(choice.*device.chosen)) {
      continue;
    }
    if (const auto offered = Offer(*set, device.name, choice, guest); !offered) {
      report_(fmt::format("cannot offer {} ({})", device.name, KmclStatusName(offered.error())));
    }
  }
  guest.devices = std::move(set);
  // If RevokeAll came in between, Leave finds the set: this thread must not wait for its end.
  const std::lock_guard lock(mutex_);
  guests_.emplace(partition, std::move(guest));
  newest_ = partition;
  ++arrivals_;
}

GuestDevices::Report GuestDevices::Notifying() {
  return [this](const std::string& line) {
    report_(line);
    {
      const std::lock_guard lock(mutex_);
      ++said_;
    }
    changed_.notify_all();
  };
}

std::expected<void, NTSTATUS> GuestDevices::Offer(GuestDeviceSet& set, std::string_view name,
                                                  const GuestDeviceChoice& choice,
                                                  const Guest& guest) {
  const auto keep = [](auto& device, auto made) -> std::expected<void, NTSTATUS> {
    if (!made) {
      return std::unexpected(made.error());
    }
    device = std::move(*made);
    return {};
  };
  PDEVICE_OBJECT const bus = guest.device_object;
  HANDLE const partition = guest.partition;
  if (name == "echo") {
    // With a monitor: Linux below 6.10 opens no other channel from user space.
    using Monitor = devices::EchoDevice::Monitor;
    return keep(set.echo,
                devices::EchoDevice::Offer(bus, partition,
                                           choice.echo_unmonitored ? Monitor::kNo : Monitor::kYes));
  }
  if (name == "heartbeat") {
    devices::HeartbeatOptions heartbeat = options_.heartbeat;
    heartbeat.interval = choice.heartbeat_interval.value_or(heartbeat.interval);
    const auto changed = [this](devices::HeartbeatState state) {
      report_(fmt::format("heartbeat: {}", devices::HeartbeatStateText(state)));
    };
    return keep(set.heartbeat,
                devices::HeartbeatDevice::Offer(bus, partition, heartbeat, Notifying(), changed));
  }
  if (name == "shutdown") {
    return keep(set.shutdown, devices::ShutdownDevice::Offer(bus, partition, Notifying()));
  }
  if (name == "timesync") {
    return keep(set.timesync,
                devices::TimeSyncDevice::Offer(bus, partition, options_.timesync, Notifying()));
  }
  if (name == "kvp") {
    return keep(set.kvp, devices::KeyValueDevice::Offer(bus, partition, Notifying()));
  }
  if (name == "vss") {
    return keep(set.vss, devices::FreezeDevice::Offer(bus, partition, options_.vss, Notifying()));
  }
  if (name == "vsock") {
    return keep(set.vsock, devices::VsockGuest::Offer(choice.sockets, bus, partition));
  }
  return keep(set.fcopy, devices::GuestFileCopyDevice::Offer(bus, partition, Notifying()));
}

void GuestDevices::Leave(HANDLE partition) {
  std::shared_ptr<const GuestDeviceSet> gone;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !changing_; });
    const auto found = guests_.find(partition);
    if (found == guests_.end()) {
      return;
    }
    gone = std::move(found->second.devices);
    guests_.erase(found);
  }
  Retire(*gone);
}

// Whoever still holds a device for a request finds it stopped.
void GuestDevices::Retire(const GuestDeviceSet& set) {
  GuestDeviceSet::ForEach(set, [](const char*, const auto& device) {
    if constexpr (requires { device->Stop(); }) {
      if (device) {
        device->Stop();
      }
    }
  });
  std::map<std::string, KMCL_CHANNEL_COUNTERS> counters;
  GuestDeviceSet::ForEach(set, [&counters](const char* name, const auto& device) {
    if (!device) {
      return;
    }
    if constexpr (requires { counters[name] = device->Revoke(); }) {
      counters[name] = device->Revoke();
    } else {
      device->Revoke();
    }
  });
  const std::uint64_t beats = set.heartbeat ? set.heartbeat->Status().beats : 0;
  const std::lock_guard lock(mutex_);
  beats_ += beats;
  for (const auto& [name, of_device] : counters) {
    cli::Add(counters_[name], of_device);
  }
}

Json GuestDevices::Summary() const {
  const std::lock_guard lock(mutex_);
  Json object = {{"guests", arrivals_}, {"devices", Json::object()}};
  if (arrivals_ > 0) {
    object["version"] = fmt::format("{}.{}", version_ >> 16, version_ & 0xffff);
  }
  for (const auto& [name, counters] : counters_) {
    object["devices"][name] = ToJson(counters);
  }
  if (choice_.sockets) {
    const devices::VsockStatus status = choice_.sockets->Status();
    object["devices"]["vsock"] = {{"from_guest", status.from_guest},
                                  {"from_host", status.from_host},
                                  {"refused", status.refused},
                                  {"broken", status.broken},
                                  {"bytes_to_host", status.bytes_to_host},
                                  {"bytes_to_guest", status.bytes_to_guest}};
  }
  if (choice_.heartbeat || beats_ > 0) {
    object["heartbeats"] = beats_;
  }
  return object;
}

void GuestDevices::RevokeAll() {
  std::map<HANDLE, Guest> gone;
  {
    std::unique_lock lock(mutex_);
    closing_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !changing_; });
    gone.swap(guests_);
  }
  for (const auto& [partition, guest] : gone) {
    Retire(*guest.devices);
  }
}

std::shared_ptr<const GuestDeviceSet> GuestDevices::Current() const {
  const std::lock_guard lock(mutex_);
  const auto found = guests_.find(newest_);
  return found == guests_.end() ? nullptr : found->second.devices;
}

std::uint64_t GuestDevices::arrivals() const {
  const std::lock_guard lock(mutex_);
  return arrivals_;
}

}  // namespace kmcl::cli
