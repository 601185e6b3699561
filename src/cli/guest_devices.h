// The devices that a virtual machine offers to its guest: the integration services and the echo
// device, those that were named, for as long as the guest's partition is there. Devices come and go
// while it runs.
#pragma once

#include <kmcl/endpoint.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/output.h"
#include "cli/report_limit.h"
#include "devices/echo.h"
#include "devices/freeze.h"
#include "devices/guest_file_copy.h"
#include "devices/guest_shutdown.h"
#include "devices/heartbeat.h"
#include "devices/key_values.h"
#include "devices/time_sync.h"
#include "devices/vsock.h"

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
  bool vsock = false;
  bool echo_unmonitored = false;
  std::optional<std::chrono::milliseconds> heartbeat_interval;
  std::string vsock_path;
  // The host's part of vsock, which stays while guests come and go: GuestDevices::MakeSockets.
  std::shared_ptr<devices::VsockDevice> sockets;
};
struct GuestDeviceKind {
  std::string_view name;
  bool GuestDeviceChoice::* chosen;
};
std::span<const GuestDeviceKind> GuestDeviceKinds();
// For help texts: "echo, heartbeat, ...".
std::string GuestDeviceNames();
// Adds the devices of a list of names with commas: "echo,heartbeat=100,vsock=DIR", a value being
// what the device is made with. The first name that is none, or has a wrong value, comes back.
std::expected<void, std::string> AddGuestDevices(GuestDeviceChoice& choice, std::string_view names);

// What one partition is offered at one moment. A device that was not chosen, or could not be
// offered, is null. Devices are shared: a request that uses one keeps it while it is taken away.
struct GuestDeviceSet {
  std::shared_ptr<devices::EchoDevice> echo;
  std::shared_ptr<devices::HeartbeatDevice> heartbeat;
  std::shared_ptr<devices::ShutdownDevice> shutdown;
  std::shared_ptr<devices::TimeSyncDevice> timesync;
  std::shared_ptr<devices::KeyValueDevice> kvp;
  std::shared_ptr<devices::FreezeDevice> vss;
  std::shared_ptr<devices::GuestFileCopyDevice> fcopy;
  std::shared_ptr<devices::VsockGuest> vsock;

  // Calls visit(name, device) for each, also for those that are null.
  template <typename Self, typename Visit>
  static void ForEach(Self& set, Visit visit) {
    visit("echo", set.echo);
    visit("heartbeat", set.heartbeat);
    visit("shutdown", set.shutdown);
    visit("timesync", set.timesync);
    visit("kvp", set.kvp);
    visit("vss", set.vss);
    visit("fcopy", set.fcopy);
    visit("vsock", set.vsock);
  }
};

struct GuestDeviceOptions {
  GuestDeviceChoice choice;
  devices::TimeSyncOptions timesync;
  devices::HeartbeatOptions heartbeat;
  devices::FreezeOptions vss;
};

class GuestDevices {
 public:
  // One line for people, on any thread. It must not block. A guest that makes too many is told of
  // in fewer (report_limit.h).
  using Report = std::function<void(const std::string& line)>;
  GuestDevices(GuestDeviceOptions options, Report report);
  // After RevokeAll, and before the server is destroyed.
  ~GuestDevices() = default;
  GuestDevices(const GuestDevices&) = delete;
  GuestDevices& operator=(const GuestDevices&) = delete;

  // Sets the server's callbacks, with this as their context: they are the two functions below.
  void Serve(KMCL_ENDPOINT_OPTIONS& endpoint);
  // Makes what is there before any guest is, of the devices that were chosen. On failure why.
  std::expected<void, std::string> Prepare();
  // From the server's PartitionArrived, with its device object, and PartitionGone. The newest
  // partition is the guest.
  void Arrive(PDEVICE_OBJECT device_object, HANDLE partition);
  void Leave(HANDLE partition);
  // Ends everything, and offers nothing to who comes later. Blocks until the channels are torn
  // down, unless somebody still holds the set: whoever drops it last waits.
  void RevokeAll();

  // The guest's, or null without a guest. To be held only for the time of one request.
  std::shared_ptr<const GuestDeviceSet> Current() const;

  // Hot plug (guest_hot_plug.cc), any thread that may block: changes what the guest has that runs,
  // and what those get that come after it. What fails is said in a sentence. `device` is as for
  // AddGuestDevices. Remove returns when the channel is torn down at this end; the guest is told
  // then.
  std::expected<void, std::string> Add(std::string_view device);
  std::expected<void, std::string> Remove(std::string_view name);
  // Waits until the guest's driver and the device have agreed on versions, which is how a driver
  // begins.
  std::expected<void, std::string> AwaitDriver(std::string_view name,
                                               std::chrono::milliseconds timeout);
  // What is offered, or will be as soon as a guest comes: each name, and how its driver does.
  std::vector<std::pair<std::string, std::string>> List() const;

  // How many partitions have arrived: more than one after the guest was reset.
  std::uint64_t arrivals() const;
  // After RevokeAll: how many guests there were, the last one's protocol version, heartbeats, and
  // the counters of each device.
  Json Summary() const;

 private:
  struct Guest {
    PDEVICE_OBJECT device_object = nullptr;
    HANDLE partition = nullptr;
    std::shared_ptr<const GuestDeviceSet> devices;
  };

  // The device of that name, into `set`.
  std::expected<void, NTSTATUS> Offer(GuestDeviceSet& set, std::string_view name,
                                      const GuestDeviceChoice& choice, const Guest& guest);
  void Retire(const GuestDeviceSet& set);
  std::expected<void, std::string> MakeSockets(GuestDeviceChoice& choice) const;
  // For the devices: what they say is told, and whoever waits for one looks again.
  Report Notifying();

  // One who changes the set of devices. A guest that runs stays for as long, and so does what it
  // was offered. Empty, with a sentence, when everything ends.
  class Change;

  const GuestDeviceOptions options_;
  ReportLimit limit_;
  const Report report_;  // within the limit

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  GuestDeviceChoice choice_;        // of the next guest
  std::map<HANDLE, Guest> guests_;  // an old one until its Leave
  HANDLE newest_ = nullptr;
  bool arriving_ = false;   // a guest is being offered its devices
  bool changing_ = false;   // Add or Remove is at work
  std::uint64_t said_ = 0;  // by devices, how often
  std::uint64_t arrivals_ = 0;
  UINT32 version_ = 0;
  std::uint64_t beats_ = 0;
  std::map<std::string, KMCL_CHANNEL_COUNTERS> counters_;
  bool closing_ = false;
};

}  // namespace kmcl::cli
