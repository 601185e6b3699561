#include "cli/guest_requests.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "devices/sha256.h"

namespace kmcl::cli {
namespace {

using namespace std::chrono_literals;

// For a driver of the guest's to find a device that is new.
constexpr auto kDriverTimeout = 60s;

Json Refuse(std::string why) { return {{"ok", false}, {"error", std::move(why)}}; }
Json Refuse(const devices::IntegrationFailure& failure) {
  return Refuse(devices::IntegrationFailureText(failure));
}
Json NoDevice(const char* name) {
  return Refuse(fmt::format("the machine has no {} device", name));
}

template <typename T>
Json Done(const std::expected<T, devices::IntegrationFailure>& result) {
  return result ? Json{{"ok", true}} : Refuse(result.error());
}

std::string TextOf(const Json& request, const char* name, std::string otherwise = "") {
  const auto found = request.find(name);
  return found != request.end() && found->is_string() ? found->get<std::string>()
                                                      : std::move(otherwise);
}
bool FlagOf(const Json& request, const char* name) {
  const auto found = request.find(name);
  return found != request.end() && found->is_boolean() && found->get<bool>();
}

Json ToJson(const devices::IntegrationStatus& status) {
  Json object = {{"state", devices::IntegrationStateText(status.state)}};
  if (status.agreement) {
    object["version"] = devices::VersionText(status.agreement->message);
    object["framework"] = devices::VersionText(status.agreement->framework);
  }
  object["asked"] = status.counts.asked;
  object["answered"] = status.counts.answered;
  object["late"] = status.counts.late;
  object["malformed"] = status.counts.malformed;
  return object;
}

double SecondsSince(std::chrono::system_clock::time_point then) {
  return std::chrono::duration<double>(std::chrono::system_clock::now() - then).count();
}

Json StatusOf(const GuestDevices& devices, const GuestDeviceSet& set) {
  Json services = Json::object();
  if (set.heartbeat) {
    const auto status = set.heartbeat->Status();
    Json object = ToJson(status.channel);
    object["heartbeat"] = devices::HeartbeatStateText(status.state);
    object["beats"] = status.beats;
    object["missed"] = status.missed;
    if (status.last_beat) {
      object["seconds_since_beat"] = SecondsSince(*status.last_beat);
    }
    services["heartbeat"] = std::move(object);
  }
  if (set.shutdown) {
    services["shutdown"] = ToJson(set.shutdown->Status());
  }
  if (set.timesync) {
    const auto status = set.timesync->Status();
    Json object = ToJson(status.channel);
    object["syncs"] = status.syncs;
    object["samples"] = status.samples;
    services["timesync"] = std::move(object);
  }
  if (set.kvp) {
    services["kvp"] = ToJson(set.kvp->Status());
  }
  if (set.vss) {
    const auto status = set.vss->Status();
    Json object = ToJson(status.channel);
    object["file_systems"] = devices::FreezeStateText(status.state);
    object["freezes"] = status.freezes;
    object["automatic_thaws"] = status.automatic_thaws;
    services["vss"] = std::move(object);
  }
  if (set.fcopy) {
    services["fcopy"] = ToJson(set.fcopy->Status());
  }
  if (set.vsock) {
    const auto status = set.vsock->Status();
    services["vsock"] = {{"connections", status.connections},
                         {"from_guest", status.from_guest},
                         {"from_host", status.from_host},
                         {"refused", status.refused},
                         {"broken", status.broken}};
  }
  return {{"ok", true}, {"connections", devices.arrivals()}, {"services", std::move(services)}};
}

Json ShutDown(const GuestDeviceSet& set, devices::ShutdownKind kind, const Json& request) {
  if (!set.shutdown) {
    return NoDevice("shutdown");
  }
  const std::string reason = TextOf(request, "reason");
  return Done(set.shutdown->Request(kind, {.force = FlagOf(request, "force"), .reason = reason}));
}

std::optional<devices::KeyValuePool> PoolOf(const Json& request, std::string otherwise) {
  const std::string name = TextOf(request, "pool", std::move(otherwise));
  if (name == "external") return devices::KeyValuePool::kExternal;
  if (name == "guest") return devices::KeyValuePool::kGuest;
  if (name == "auto") return devices::KeyValuePool::kAutomatic;
  if (name == "host") return devices::KeyValuePool::kHost;
  return std::nullopt;
}

Json AddressesOf(devices::KeyValueDevice& kvp, const std::string& adapter) {
  if (!adapter.empty()) {
    const auto found = kvp.Addresses(adapter);
    if (!found) {
      return Refuse(found.error());
    }
    return {{"ok", true},
            {"adapter", adapter},
            {"dhcp", found->dhcp},
            {"addresses", found->addresses},
            {"subnets", found->subnets},
            {"gateways", found->gateways},
            {"dns_servers", found->dns_servers}};
  }
  // What the guest says of itself, without asking for an adapter.
  const auto facts = kvp.Enumerate(devices::KeyValuePool::kAutomatic);
  if (!facts) {
    return Refuse(facts.error());
  }
  Json addresses = Json::array();
  for (const devices::KeyValue& fact : *facts) {
    if (fact.key != "NetworkAddressIPv4" && fact.key != "NetworkAddressIPv6") {
      continue;
    }
    for (std::size_t begin = 0; begin < fact.value.size();) {
      const std::size_t end = std::min(fact.value.find(';', begin), fact.value.size());
      if (end > begin) {
        addresses.push_back(fact.value.substr(begin, end - begin));
      }
      begin = end + 1;
    }
  }
  return {{"ok", true}, {"addresses", std::move(addresses)}};
}

Json ExchangeKeyValues(const GuestDeviceSet& set, const std::string& what, const Json& request) {
  if (!set.kvp) {
    return NoDevice("kvp");
  }
  if (what == "kvp-ip") {
    return AddressesOf(*set.kvp, TextOf(request, "adapter"));
  }
  const auto pool =
      PoolOf(request, what == "kvp-set" || what == "kvp-delete" ? "external" : "auto");
  if (!pool) {
    return Refuse("a pool is external, guest, auto or host");
  }
  const std::string key = TextOf(request, "key");
  if (what == "kvp-set") {
    return Done(set.kvp->Set(*pool, key, TextOf(request, "value")));
  }
  if (what == "kvp-delete") {
    return Done(set.kvp->Delete(*pool, key));
  }
  const auto pairs = set.kvp->Enumerate(*pool);
  if (!pairs) {
    return Refuse(pairs.error());
  }
  if (what == "kvp-list") {
    Json list = Json::object();
    for (const devices::KeyValue& pair : *pairs) {
      list[pair.key] = pair.value;
    }
    return {{"ok", true}, {"pairs", std::move(list)}};
  }
  // kvp-get. By enumeration, as the facts about itself are nothing that a Linux guest lets one get.
  for (const devices::KeyValue& pair : *pairs) {
    if (pair.key == key) {
      return {{"ok", true}, {"value", pair.value}};
    }
  }
  return Refuse(fmt::format("the guest has no \"{}\" in that pool", key));
}

// Cancels a copy as soon as the client that wanted it has lost interest.
class Canceller {
 public:
  Canceller(devices::GuestFileCopyDevice& device, const ControlSocket::Request& asked)
      : stop_(eventfd(0, EFD_CLOEXEC)) {
    if (stop_.get() >= 0) {
      watching_ = std::thread([this, &device, &asked] {
        if (asked.await_client_done(stop_.get())) {
          device.Cancel(cancelled_);
        }
      });
    }
  }
  ~Canceller() {
    if (watching_.joinable()) {
      (void)eventfd_write(stop_.get(), 1);
      watching_.join();
    }
  }
  Canceller(const Canceller&) = delete;
  Canceller& operator=(const Canceller&) = delete;

  const std::atomic<bool>* cancelled() const { return &cancelled_; }

 private:
  const OwnedDescriptor stop_;
  std::atomic<bool> cancelled_{false};
  std::thread watching_;
};

Json CopyFile(const GuestDeviceSet& set, const ControlSocket::Request& asked) {
  const Json& request = asked.json;
  if (!set.fcopy) {
    return NoDevice("fcopy");
  }
  if (asked.descriptor < 0) {
    return Refuse("no file came with the request");
  }
  const std::string name = TextOf(request, "name");
  const std::string directory = TextOf(request, "directory", "/tmp");
  const Canceller canceller(*set.fcopy, asked);
  const auto copied = set.fcopy->Copy(asked.descriptor,
                                      {.name = name,
                                       .directory = directory,
                                       .overwrite = FlagOf(request, "overwrite"),
                                       .create_directory = FlagOf(request, "create")},
                                      canceller.cancelled());
  if (!copied) {
    return Refuse(devices::GuestFileCopyFailureText(copied.error()));
  }
  return {{"ok", true}, {"bytes", copied->bytes}, {"sha256", devices::HexDigits(copied->digest)}};
}

// Hot plug, which needs no guest. Nothing when it is another request.
std::optional<Json> ChangeDevices(GuestDevices& devices, const std::string& what,
                                  const Json& request) {
  const auto done = [](const std::expected<void, std::string>& result) {
    return result ? Json{{"ok", true}} : Refuse(result.error());
  };
  const std::string name = TextOf(request, "device");
  if (what == "device-add") {
    return done(devices.Add(name));
  }
  if (what == "device-remove") {
    return done(devices.Remove(name));
  }
  if (what == "device-await") {
    return done(devices.AwaitDriver(name, kDriverTimeout));
  }
  if (what == "device-list") {
    Json list = Json::object();
    for (const auto& [device, state] : devices.List()) {
      list[device] = state;
    }
    return Json{{"ok", true}, {"devices", std::move(list)}};
  }
  return std::nullopt;
}

}  // namespace

Json AnswerGuestRequest(GuestDevices& devices, const ControlSocket::Request& asked) {
  const Json& request = asked.json;
  const std::string what = TextOf(request, "request");
  if (auto changed = ChangeDevices(devices, what, request)) {
    return *std::move(changed);
  }
  const auto set = devices.Current();
  if (!set) {
    if (what == "status") {
      return {{"ok", true}, {"connections", devices.arrivals()}, {"services", Json::object()}};
    }
    return Refuse("the guest has not connected to the bus");
  }
  if (what == "status") {
    return StatusOf(devices, *set);
  }
  if (what == "shutdown") {
    return ShutDown(*set, devices::ShutdownKind::kPowerOff, request);
  }
  if (what == "reboot") {
    return ShutDown(*set, devices::ShutdownKind::kReboot, request);
  }
  if (what == "hibernate") {
    return ShutDown(*set, devices::ShutdownKind::kHibernate, request);
  }
  if (what == "time") {
    return set->timesync ? Done(set->timesync->SetTime(10s)) : NoDevice("timesync");
  }
  if (what.starts_with("kvp-")) {
    for (const char* known : {"kvp-get", "kvp-set", "kvp-delete", "kvp-list", "kvp-ip"}) {
      if (what == known) {
        return ExchangeKeyValues(*set, what, request);
      }
    }
  }
  if (what == "freeze") {
    return set->vss ? Done(set->vss->Freeze()) : NoDevice("vss");
  }
  if (what == "thaw") {
    return set->vss ? Done(set->vss->Thaw()) : NoDevice("vss");
  }
  if (what == "copy") {
    return CopyFile(*set, asked);
  }
  return Refuse(fmt::format("\"{}\" is no request", what));
}

}  // namespace kmcl::cli
