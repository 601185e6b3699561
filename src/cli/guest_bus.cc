#include "cli/guest_bus.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/interface_names.h"

namespace kmcl::cli {

Outcome<std::vector<KMCL_UIO_DEVICE>> GuestBusDevices() {
  std::vector<KMCL_UIO_DEVICE> devices;
  ULONG count = 0;
  NTSTATUS status = KmclUioQueryDevices(nullptr, 0, &count);
  while (status == STATUS_BUFFER_TOO_SMALL) {  // again when more have come meanwhile
    devices.resize(count);
    status = KmclUioQueryDevices(devices.data(), static_cast<ULONG>(devices.size()), &count);
  }
  if (!NT_SUCCESS(status)) {
    return Fail(kExitLost, "this system is no guest with a VMBus (is hv_vmbus loaded?)", status);
  }
  devices.resize(count);
  return devices;
}

Outcome<KMCL_UIO_DEVICE> FindGuestDevice(const std::string& text) {
  const auto wanted = InterfaceFromText(text);
  if (!wanted) {
    return Fail(kExitUsage,
                fmt::format("\"{}\" is neither a GUID nor a device that is known", text));
  }
  const auto devices = GuestBusDevices();
  if (!devices) {
    return std::unexpected(devices.error());
  }
  const auto of_instance = std::ranges::find_if(
      *devices, [&](const KMCL_UIO_DEVICE& each) { return each.InterfaceInstance == *wanted; });
  if (of_instance != devices->end()) {
    return *of_instance;
  }
  std::vector<KMCL_UIO_DEVICE> of_type;
  std::ranges::copy_if(*devices, std::back_inserter(of_type),
                       [&](const KMCL_UIO_DEVICE& each) { return each.InterfaceType == *wanted; });
  if (of_type.empty()) {
    return Fail(kExitFailure, fmt::format("the bus has no device {}", text), STATUS_NOT_FOUND);
  }
  if (of_type.size() > 1) {
    return Fail(kExitUsage, fmt::format("the bus has {} devices {}: name one by its instance",
                                        of_type.size(), text));
  }
  return of_type.front();
}

}  // namespace kmcl::cli
