// The devices that a virtual machine offers to its guest: the integration services and the echo
// device, those that were named, for as long as the guest's partition is there.
#pragma once

#include <kmcl/endpoint.h>

#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "cli/output.h"
#include "devices/echo.h"
#include "devices/freeze.h"
#include "devices/guest_file_copy.h"
#include "devices/guest_shutdown.h"
#include "devices/heartbeat.h"
#include "devices/key_values.h"
#include "devices/time_sync.h"

namespace kmcl::cli {

// Which devices are offered.
struct GuestDeviceChoice {
  bool echo = false;
  bool heartbeat = false;
  bool shutdown = false;
  bool timesync = false;
  bool kvp = false;
  bool vss = false;
  bool fcopy = false;
};
// For help texts: "echo, heartbeat, ...".
std::string GuestDeviceNames();
// Adds the devices of a list of names with commas. The first name that is none comes back.
std::expected<void, std::string> AddGuestDevices(GuestDeviceChoice& choice, std::string_view names);

// What one partition was offered. A device that was not chosen, or could not be offered, is null.
struct GuestDeviceSet {
  std::unique_ptr<devices::EchoDevice> echo;
  std::unique_ptr<devices::HeartbeatDevice> heartbeat;
  std::unique_ptr<devices::ShutdownDevice> shutdown;
  std::unique_ptr<devices::TimeSyncDevice> timesync;
  std::unique_ptr<devices::KeyValueDevice> kvp;
  std::unique_ptr<devices::FreezeDevice> vss;
  std::unique_ptr<devices::GuestFileCopyDevice> fcopy;

  // Lets whoever waits for the guest return, for good.
  void Stop();
};

struct GuestDeviceOptions {
  GuestDeviceChoice choice;
  devices::TimeSyncOptions timesync;
  devices::HeartbeatOptions heartbeat;
  devices::FreezeOptions vss;
};

class GuestDevices {
 public:
  // One line for people, on any thread. It must not block.
  using Report = std::function<void(const std::string& line)>;
  GuestDevices(GuestDeviceOptions options, Report report);
  // After RevokeAll, and before the server is destroyed.
  ~GuestDevices() = default;
  GuestDevices(const GuestDevices&) = delete;
  GuestDevices& operator=(const GuestDevices&) = delete;

  // Sets the server's callbacks, with this as their context: they are the two functions below.
  void Serve(KMCL_ENDPOINT_OPTIONS& endpoint);
  // From the server's PartitionArrived, with its device object, and PartitionGone. The newest
  // partition is the guest.
  void Arrive(PDEVICE_OBJECT device_object, HANDLE partition);
  void Leave(HANDLE partition);
  // Ends everything, and offers nothing to who comes later. Blocks until the channels are torn
  // down, unless somebody still holds the set: whoever drops it last waits.
  void RevokeAll();

  // The guest's, or null without a guest. To be held only for the time of one request.
  std::shared_ptr<GuestDeviceSet> Current() const;
  // How many partitions have arrived: more than one after the guest was reset.
  std::uint64_t arrivals() const;
  // After RevokeAll: how many guests there were, the last one's protocol version, heartbeats, and
  // the counters of each device.
  Json Summary() const;

 private:
  void Retire(GuestDeviceSet& set);

  const GuestDeviceOptions options_;
  const Report report_;

  mutable std::mutex mutex_;
  // Under mutex_.
  std::map<HANDLE, std::shared_ptr<GuestDeviceSet>> sets_;  // an old one until its Leave
  HANDLE newest_ = nullptr;
  std::uint64_t arrivals_ = 0;
  UINT32 version_ = 0;
  std::uint64_t beats_ = 0;
  std::map<std::string, KMCL_CHANNEL_COUNTERS> counters_;
  bool closing_ = false;
};

}  // namespace kmcl::cli
