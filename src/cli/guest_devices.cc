#include "cli/guest_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

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

void GuestDevices::Arrive(PDEVICE_OBJECT device_object, HANDLE partition) {
  {
    const std::lock_guard lock(mutex_);
    if (closing_) {
      return;
    }
  }
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
  gone->Stop();
}

void GuestDevices::RevokeAll() {
  std::map<HANDLE, std::shared_ptr<GuestDeviceSet>> gone;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    gone.swap(sets_);
  }
  for (const auto& [partition, set] : gone) {
    set->Stop();
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
