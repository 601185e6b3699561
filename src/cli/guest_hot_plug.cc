// Devices that come and go while the guest runs.
#include <fmt/format.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "cli/guest_devices.h"

namespace kmcl::cli {
namespace {

std::unexpected<std::string> Fail(std::string why) { return std::unexpected(std::move(why)); }

const GuestDeviceKind* KindOf(std::string_view name) {
  const auto kinds = GuestDeviceKinds();
  const auto known = std::ranges::find(kinds, name, &GuestDeviceKind::name);
  return known == kinds.end() ? nullptr : &*known;
}

// How the guest's driver does. Nothing: the device does not ask it.
template <typename Device>
std::optional<devices::IntegrationState> StateOf(const Device& device) {
  if constexpr (requires { device.Status().channel.state; }) {
    return device.Status().channel.state;
  } else if constexpr (requires { device.Status().state; }) {
    return device.Status().state;
  } else {
    return std::nullopt;
  }
}

}  // namespace

class GuestDevices::Change {
 public:
  explicit Change(GuestDevices& all) : all_(all) {
    std::unique_lock lock(all_.mutex_);
    all_.changed_.wait(lock,
                       [this] { return all_.closing_ || (!all_.changing_ && !all_.arriving_); });
    if (all_.closing_) {
      return;
    }
    begun_ = true;
    all_.changing_ = true;
    if (const auto found = all_.guests_.find(all_.newest_); found != all_.guests_.end()) {
      guest_ = found->second;
    }
  }
  ~Change() {
    if (!begun_) {
      return;
    }
    {
      const std::lock_guard lock(all_.mutex_);
      all_.changing_ = false;
    }
    all_.changed_.notify_all();
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

  bool begun() const { return begun_; }
  // Without devices when there is no guest.
  const Guest& guest() const { return guest_; }
  bool has_guest() const { return guest_.devices != nullptr; }

  GuestDeviceChoice choice() const {
    const std::lock_guard lock(all_.mutex_);
    return all_.choice_;
  }
  // For a guest that arrives from now on.
  void SetChoice(const GuestDeviceChoice& choice) const {
    const std::lock_guard lock(all_.mutex_);
    all_.choice_ = choice;
  }
  void SetDevices(GuestDeviceSet set) {
    guest_.devices = std::make_shared<const GuestDeviceSet>(std::move(set));
    const std::lock_guard lock(all_.mutex_);
    all_.guests_.at(guest_.partition).devices = guest_.devices;
  }

 private:
  GuestDevices& all_;
  bool begun_ = false;
  Guest guest_;
};

std::expected<void, std::string> GuestDevices::Add(std::string_view device) {
  const std::string_view name = device.substr(0, device.find('='));
  const GuestDeviceKind* const kind = KindOf(name);
  if (kind == nullptr || device.contains(',')) {
    return Fail(fmt::format("there is no device {}", device));
  }
  Change change(*this);
  if (!change.begun()) {
    return Fail("the machine is about to end");
  }
  const GuestDeviceChoice before = change.choice();
  if (before.*kind->chosen) {
    return Fail(fmt::format("the machine has its {} device already", name));
  }
  GuestDeviceChoice choice = before;
  if (!AddGuestDevices(choice, device)) {
    return Fail(fmt::format("\"{}\" is not how a {} device is made", device, name));
  }
  if (const auto made = MakeSockets(choice); !made) {
    return Fail(made.error());
  }
  change.SetChoice(choice);
  if (!change.has_guest()) {
    return {};
  }
  GuestDeviceSet set = *change.guest().devices;
  if (const auto offered = Offer(set, name, choice, change.guest()); !offered) {
    change.SetChoice(before);
    return Fail(fmt::format("cannot offer {} ({})", name, KmclStatusName(offered.error())));
  }
  change.SetDevices(std::move(set));
  return {};
}

std::expected<void, std::string> GuestDevices::Remove(std::string_view name) {
  const GuestDeviceKind* const kind = KindOf(name);
  Change change(*this);
  if (!change.begun()) {
    return Fail("the machine is about to end");
  }
  // Kept to the end, so that what goes with it does so outside of the lock.
  const GuestDeviceChoice before = change.choice();
  GuestDeviceChoice choice = before;
  if (kind == nullptr || !(choice.*kind->chosen)) {
    return Fail(fmt::format("the machine has no {} device", name));
  }
  choice.*kind->chosen = false;
  if (!choice.vsock) {
    choice.sockets.reset();
  }
  change.SetChoice(choice);
  if (!change.has_guest()) {
    return {};
  }
  GuestDeviceSet left = *change.guest().devices;
  GuestDeviceSet gone;
  GuestDeviceSet::ForEach(left, [&](const char* each, auto& device) {
    if (name != each) {
      return;
    }
    GuestDeviceSet::ForEach(gone, [&](const char*, auto& place) {
      if constexpr (std::is_same_v<decltype(place), decltype(device)>) {
        place = std::exchange(device, nullptr);
      }
    });
  });
  change.SetDevices(std::move(left));
  Retire(gone);
  return {};
}

std::expected<void, std::string> GuestDevices::AwaitDriver(std::string_view name,
                                                           std::chrono::milliseconds timeout) {
  const GuestDeviceKind* const kind = KindOf(name);
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::uint64_t said = 0;
  do {
    {
      const std::lock_guard lock(mutex_);
      if (kind == nullptr || !(choice_.*kind->chosen)) {
        return Fail(fmt::format("the machine has no {} device", name));
      }
      said = said_;
    }
    std::optional<devices::IntegrationState> state;
    bool is_there = false;
    if (const auto set = Current()) {
      GuestDeviceSet::ForEach(*set, [&](const char* each, const auto& device) {
        if (name == each && device) {
          is_there = true;
          state = StateOf(*device);
        }
      });
    }
    if (state == devices::IntegrationState::kReady) {
      return {};
    }
    if (is_there && !state) {
      return Fail(fmt::format("the {} device does not hear of its driver", name));
    }
    std::unique_lock lock(mutex_);
    if (closing_) {
      return Fail("the machine is about to end");
    }
    if (!changed_.wait_until(lock, deadline, [&] { return closing_ || said != said_; })) {
      return Fail(fmt::format("the guest's driver for {} has not answered in time", name));
    }
  } while (true);
}

std::vector<std::pair<std::string, std::string>> GuestDevices::List() const {
  GuestDeviceChoice choice;
  {
    const std::lock_guard lock(mutex_);
    choice = choice_;
  }
  std::vector<std::pair<std::string, std::string>> list;
  const auto set = Current();
  for (const GuestDeviceKind& kind : GuestDeviceKinds()) {
    if (!(choice.*kind.chosen)) {
      continue;
    }
    std::string state = "waits for a guest";
    if (set) {
      GuestDeviceSet::ForEach(*set, [&](const char* name, const auto& device) {
        if (kind.name == name && device) {
          const auto driver = StateOf(*device);
          state = driver ? devices::IntegrationStateText(*driver) : "offered";
        }
      });
    }
    list.emplace_back(kind.name, std::move(state));
  }
  return list;
}

}  // namespace kmcl::cli
