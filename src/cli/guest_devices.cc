#include "cli/guest_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "cli/counters.h"

namespace kmcl::cli {
namespace {

constexpr struct {
  std::string_view name;
  bool GuestDeviceChoice::* chosen;
} kDevices[] = {
    {"echo", &GuestDeviceChoice::echo},         {"heartbeat", &GuestDeviceChoice::heartbeat},
    {"shutdown", &GuestDeviceChoice::shutdown}, {"timesync", &GuestDeviceChoice::timesync},
    {"kvp", &GuestDeviceChoice::kvp},           {"vss", &GuestDeviceChoice::vss},
    {"fcopy", &GuestDeviceChoice::fcopy},
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

}  // namespace

std::string GuestDeviceNames() {
  std::string names;
  for (const auto& device : kDevices) {
    names += names.empty() ? "" : ", ";
    names += device.name;
  }
  return names;
}

std::expected<void, std::string> AddGuestDevices(GuestDeviceChoice& choice,
                                                 std::string_view names) {
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(','));
    names.remove_prefix(std::min(names.size(), name.size() + 1));
    const auto* const known =
        std::ranges::find(kDevices, name, [](const auto& device) { return device.name; });
    if (known == std::end(kDevices)) {
      return std::unexpected(std::string(name));
    }
    choice.*known->chosen = true;
  }
  return {};
}

void GuestDeviceSet::Stop() {
  const auto stop = [](auto& device) {
    if (device) {
      device->Stop();
    }
  };
  stop(shutdown);
  stop(timesync);
  stop(kvp);
  stop(vss);
  stop(fcopy);
}

GuestDevices::GuestDevices(GuestDeviceOptions options, Report report)
    : options_(std::move(options)), report_(std::move(report)) {}

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
  {
    const std::lock_guard lock(mutex_);
    if (closing_) {
      return;
    }
    version_ = who.Version;
  }
  report_(fmt::format("the guest is on the bus, version {}.{}", who.Version >> 16,
                      who.Version & 0xffff));
  const GuestDeviceChoice& choice = options_.choice;
  auto set = std::make_shared<GuestDeviceSet>();
  const auto keep = [this](auto& device, auto made, const char* name) {
    if (made) {
      device = std::move(*made);
    } else {
      report_(fmt::format("cannot offer {} ({})", name, KmclStatusName(made.error())));
    }
  };
  if (choice.echo) {
    keep(set->echo, devices::EchoDevice::Offer(device_object, partition), "echo");
  }
  if (choice.heartbeat) {
    keep(set->heartbeat,
         devices::HeartbeatDevice::Offer(device_object, partition, options_.heartbeat, report_,
                                         [this](devices::HeartbeatState state) {
                                           report_(fmt::format("heartbeat: {}",
                                                               devices::HeartbeatStateText(state)));
                                         }),
         "heartbeat");
  }
  if (choice.shutdown) {
    keep(set->shutdown, devices::ShutdownDevice::Offer(device_object, partition, report_),
         "shutdown");
  }
  if (choice.timesync) {
    keep(set->timesync,
         devices::TimeSyncDevice::Offer(device_object, partition, options_.timesync, report_),
         "timesync");
  }
  if (choice.kvp) {
    keep(set->kvp, devices::KeyValueDevice::Offer(device_object, partition, report_), "kvp");
  }
  if (choice.vss) {
    keep(set->vss, devices::FreezeDevice::Offer(device_object, partition, options_.vss, report_),
         "vss");
  }
  if (choice.fcopy) {
    keep(set->fcopy, devices::GuestFileCopyDevice::Offer(device_object, partition, report_),
         "fcopy");
  }
  // If RevokeAll came in between, Leave finds the set: this thread must not wait for its end.
  const std::lock_guard lock(mutex_);
  sets_.emplace(partition, std::move(set));
  newest_ = partition;
  ++arrivals_;
}

void GuestDevices::Leave(HANDLE partition) {
  std::shared_ptr<GuestDeviceSet> gone;
  {
    const std::lock_guard lock(mutex_);
    const auto found = sets_.find(partition);
    if (found == sets_.end()) {
      return;
    }
    gone = std::move(found->second);
    sets_.erase(found);
  }
  Retire(*gone);
}

// Whoever still holds the set for a request finds its devices stopped.
void GuestDevices::Retire(GuestDeviceSet& set) {
  set.Stop();
  std::map<std::string, KMCL_CHANNEL_COUNTERS> counters;
  const auto revoke = [&counters](const char* name, auto& device) {
    if (device) {
      counters[name] = device->Revoke();
    }
  };
  revoke("echo", set.echo);
  revoke("heartbeat", set.heartbeat);
  revoke("shutdown", set.shutdown);
  revoke("timesync", set.timesync);
  revoke("kvp", set.kvp);
  revoke("vss", set.vss);
  revoke("fcopy", set.fcopy);
  const std::uint64_t beats = set.heartbeat ? set.heartbeat->Status().beats : 0;
  const std::lock_guard lock(mutex_);
  beats_ += beats;
  for (const auto& [name, of_device] : counters) {
    Add(counters_[name], of_device);
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
  if (options_.choice.heartbeat) {
    object["heartbeats"] = beats_;
  }
  return object;
}

void GuestDevices::RevokeAll() {
  std::map<HANDLE, std::shared_ptr<GuestDeviceSet>> gone;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    gone.swap(sets_);
  }
  for (const auto& [partition, set] : gone) {
    Retire(*set);
  }
}

std::shared_ptr<GuestDeviceSet> GuestDevices::Current() const {
  const std::lock_guard lock(mutex_);
  const auto found = sets_.find(newest_);
  return found == sets_.end() ? nullptr : found->second;
}

std::uint64_t GuestDevices::arrivals() const {
  const std::lock_guard lock(mutex_);
  return arrivals_;
}

}  // namespace kmcl::cli
