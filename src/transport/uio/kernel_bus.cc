#include "transport/uio/kernel_bus.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <string_view>
#include <tuple>
#include <utility>

#include "errno_text.h"
#include "log.h"
#include "transport/descriptor.h"

namespace kmcl::transport::uio {
namespace {

// The kernel's own number, which it lets through to user space. Named in no header of user space.
constexpr int kNotSupportedInKernel = 524;
// `state` of a device. The one before, which Linux calls "open", is that of every channel that is
// offered.
constexpr std::uint64_t kOpenedState = 3;

// An attribute without its newline; nothing when it cannot be read.
std::optional<std::string> ReadText(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;  // the kernel gives no more
  if (!file) return std::nullopt;
  const ssize_t bytes = read(file.get(), text.data(), text.size());
  if (bytes < 0) return std::nullopt;
  std::string_view value(text.data(), static_cast<std::size_t>(bytes));
  if (value.ends_with('\n')) value.remove_suffix(1);
  return std::string(value);
}

Result<void> WriteText(const std::string& path, std::string_view text) {
  const Descriptor file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  // One write: each is a request of its own.
  if (file && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
    return {};
  }
  const int error = errno;
  if (error == EACCES || error == EPERM || error == EROFS) {
    return std::unexpected(Error::kPermissionDenied);
  }
  if (error == ENOENT) return std::unexpected(Error::kChannelUnknown);
  const ErrnoText meaning(error);
  const char* const why = error == kNotSupportedInKernel
                              ? "it wants the channel to have a monitor, which its offer has not"
                              : meaning.words();
  Log(LogLevel::kError, "uio: writing %.*s to %s: %s", static_cast<int>(text.size()), text.data(),
      path.c_str(), why);
  return std::unexpected(error == kNotSupportedInKernel || error == ENODEV || error == EINVAL
                             ? Error::kDriverRefuses
                             : Error::kSystemCall);
}

// All of `text`, in decimal or, behind 0x, in hexadecimal.
template <typename Number>
std::optional<Number> ParseNumber(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x")) {
    text.remove_prefix(2);
    base = 16;
  }
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

template <typename Number>
std::optional<Number> ReadNumber(const std::string& path) {
  const auto text = ReadText(path);
  return text ? ParseNumber<Number>(*text) : std::nullopt;
}

// Names in a folder but for those that begin with a dot; none when there is no such folder.
std::vector<std::string> NamesIn(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(folder.c_str()), closedir);
  std::vector<std::string> names;
  while (open != nullptr) {
    const dirent* const entry = readdir(open.get());
    if (entry == nullptr) break;
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  return names;
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// The last part of what a link points at; empty for no link.
std::string LinkedName(const std::string& path) {
  std::array<char, 4096> target;
  const ssize_t bytes = readlink(path.c_str(), target.data(), target.size());
  if (bytes <= 0) return {};
  const std::string_view whole(target.data(), static_cast<std::size_t>(bytes));
  return std::string(whole.substr(whole.rfind('/') + 1));  // npos + 1 is the whole
}

// N of "uioN".
std::optional<std::uint32_t> UioNumber(std::string_view name) {
  if (!name.starts_with("uio")) return std::nullopt;
  return ParseNumber<std::uint32_t>(name.substr(3));
}

// 255 in monitor_id stands for none, as on the wire.
std::optional<std::uint8_t> ReadMonitor(const std::string& folder) {
  const auto monitor = ReadNumber<std::uint8_t>(folder + "/monitor_id");
  return monitor == 0xFF ? std::nullopt : monitor;
}

std::vector<Subchannel> ReadSubchannels(const std::string& folder) {
  std::vector<Subchannel> found;
  for (const std::string& name : NamesIn(folder)) {
    const auto id = ParseNumber<std::uint32_t>(name);
    std::string channel = folder + "/";
    channel += name;
    const auto index = ReadNumber<std::uint16_t>(channel + "/subchannel_id");
    if (!id || !index || *index == 0) continue;  // the primary, or just going
    found.push_back({.id = wire::ChannelId{*id},
                     .index = *index,
                     .monitor = ReadMonitor(channel),
                     .open = Exists(channel + "/ring")});
  }
  std::ranges::sort(found, {}, &Subchannel::index);
  return found;
}

}  // namespace

std::string KernelBus::DeviceFolder(const wire::Guid& instance) const {
  return BusFolder() + "/devices/" + wire::ToString(instance);
}

std::string KernelBus::UioNode(std::uint32_t uio) const {
  return places_.dev + "/uio" + std::to_string(uio);
}

std::string KernelBus::RingFile(const wire::Guid& instance, wire::ChannelId subchannel) const {
  return DeviceFolder(instance) + "/channels/" + std::to_string(std::to_underlying(subchannel)) +
         "/ring";
}

bool KernelBus::present() const { return Exists(BusFolder() + "/devices"); }

Result<BusDevice> KernelBus::Read(const std::string& folder, const wire::Guid& instance) const {
  const auto type_text = ReadText(folder + "/class_id");
  const auto named_text = ReadText(folder + "/device_id");
  const auto id_text = ReadText(folder + "/id");
  // Its folder stands before and after what is in it: it comes or goes, or does both just now.
  if (!type_text || !named_text || !id_text) return std::unexpected(Error::kChannelUnknown);

  const auto type = wire::ParseGuid(*type_text);
  const auto id = ParseNumber<std::uint32_t>(*id_text);
  const auto refuse = [&](const char* file, const std::string& text) {
    Log(LogLevel::kWarning, "uio: %s/%s says \"%s\", which makes no sense", folder.c_str(), file,
        text.c_str());
    return std::unexpected(Error::kFieldOutOfRange);
  };
  if (!type) return refuse("class_id", *type_text);
  if (wire::ParseGuid(*named_text) != instance) return refuse("device_id", *named_text);
  if (!id) return refuse("id", *id_text);
  BusDevice device{.interface_type = *type, .instance = instance, .id = wire::ChannelId{*id}};
  device.monitor = ReadMonitor(folder);
  device.driver = LinkedName(folder + "/driver");
  device.open = ReadNumber<std::uint64_t>(folder + "/state").value_or(0) == kOpenedState;
  const std::string primary = folder + "/channels/" + std::to_string(*id);
  device.interrupts = ReadNumber<std::uint64_t>(primary + "/interrupts").value_or(0);
  device.signals = ReadNumber<std::uint64_t>(primary + "/events").value_or(0);
  if (device.driver == kUioDriver) {
    for (const std::string& name : NamesIn(folder + "/uio")) device.uio = UioNumber(name);
  }
  device.subchannels = ReadSubchannels(folder + "/channels");
  return device;
}

Result<BusDevice> KernelBus::Device(const wire::Guid& instance) const {
  if (!present()) return std::unexpected(Error::kAddressUnreachable);
  return Read(DeviceFolder(instance), instance);
}

Result<std::vector<BusDevice>> KernelBus::Devices() const {
  if (!present()) return std::unexpected(Error::kAddressUnreachable);
  std::vector<BusDevice> devices;
  for (const std::string& name : NamesIn(BusFolder() + "/devices")) {
    const auto instance = wire::ParseGuid(name);
    if (!instance) continue;
    if (auto device = Read(DeviceFolder(*instance), *instance)) devices.push_back(*device);
  }
  std::ranges::sort(devices, {}, &BusDevice::id);
  return devices;
}

Result<std::vector<UioMap>> KernelBus::Maps(std::uint32_t uio) const {
  const std::string folder = places_.sysfs + "/class/uio/uio" + std::to_string(uio) + "/maps/map";
  std::vector<UioMap> maps;
  for (int number = 0;; ++number) {
    const std::string map = folder + std::to_string(number);
    const auto name = ReadText(map + "/name");
    const auto bytes = ReadNumber<std::uint64_t>(map + "/size");
    if (!name) return maps;
    if (!bytes) {
      Log(LogLevel::kWarning, "uio: %s/size makes no sense", map.c_str());
      return std::unexpected(Error::kFieldOutOfRange);
    }
    maps.push_back({.name = *name, .bytes = *bytes});
  }
}

Result<void> KernelBus::Bind(const wire::Guid& instance) const {
  const auto device = Device(instance);
  if (!device) return std::unexpected(device.error());
  if (device->driver == kUioDriver) return {};
  const std::string drivers = BusFolder() + "/drivers/";
  if (!Exists(drivers + kUioDriver)) return std::unexpected(Error::kDriverMissing);

  const std::string name = wire::ToString(instance);
  const std::string preference = DeviceFolder(instance) + "/driver_override";
  // Not by new_id, which would claim every device of the class, and later ones too.
  if (auto preferred = WriteText(preference, kUioDriver); !preferred) return preferred;
  if (!device->driver.empty()) {
    if (auto left = WriteText(drivers + device->driver + "/unbind", name); !left) return left;
  }
  auto bound = WriteText(drivers + kUioDriver + "/bind", name);
  if (!bound) {
    // As it was before.
    (void)!WriteText(preference, "\n");
    if (!device->driver.empty()) (void)!WriteText(drivers + device->driver + "/bind", name);
  }
  return bound;
}

Result<void> KernelBus::Unbind(const wire::Guid& instance) const {
  const auto device = Device(instance);
  if (!device) return std::unexpected(device.error());
  if (device->driver != kUioDriver) return std::unexpected(Error::kDriverNotBound);
  const std::string name = wire::ToString(instance);
  if (auto left = WriteText(BusFolder() + "/drivers/" + kUioDriver + "/unbind", name); !left) {
    return left;
  }
  if (auto any = WriteText(DeviceFolder(instance) + "/driver_override", "\n"); !any) return any;
  // Nobody may want it: no failure.
  const Descriptor probe(open((BusFolder() + "/drivers_probe").c_str(), O_WRONLY | O_CLOEXEC));
  if (probe) (void)!write(probe.get(), name.data(), name.size());
  return {};
}

}  // namespace kmcl::transport::uio
