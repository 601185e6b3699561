// The bus of the guest that the program runs in (kmcl/uio.h).

#include <kmcl/uio.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "api/objects.h"
#include "api/status_map.h"
#include "log.h"
#include "transport/uio/kernel_bus.h"

using namespace kmcl;
using namespace kmcl::api;
using transport::uio::BusDevice;
using transport::uio::KernelBus;

namespace {

template <std::size_t kChars>
void CopyText(const std::string& text, char (&to)[kChars]) {
  const std::size_t chars = std::min(text.size(), kChars - 1);
  std::memcpy(to, text.data(), chars);
  to[chars] = '\0';
}

KMCL_UIO_DEVICE ToC(const KernelBus& bus, const BusDevice& device) {
  KMCL_UIO_DEVICE c{};
  c.InterfaceType = api::ToC(device.interface_type);
  c.InterfaceInstance = api::ToC(device.instance);
  c.ChannelId = static_cast<UINT32>(device.id);
  c.Interrupts = device.interrupts;
  c.Signals = device.signals;
  c.SubChannels = static_cast<UINT16>(device.subchannels.size());
  c.MonitorId = device.monitor.value_or(KMCL_UIO_NO_MONITOR);
  c.Bound = device.uio.has_value();
  c.Open = device.open;
  CopyText(device.driver, c.Driver);
  if (!device.uio) return c;
  CopyText(bus.UioNode(*device.uio), c.Node);
  // Both rings are the first map.
  const auto maps = bus.Maps(*device.uio);
  if (maps && !maps->empty()) c.RingBytes = static_cast<UINT32>(maps->front().bytes / 2);
  return c;
}

NTSTATUS StatusOfBind(Error error) {
  if (error == Error::kDriverMissing) {
    Log(LogLevel::kError, "uio: the kernel has no uio_hv_generic: modprobe uio_hv_generic");
  }
  return StatusOf(error);
}

}  // namespace

BOOLEAN KmclUioIsPresent(VOID) {
  try {
    return KernelBus().present() ? TRUE : FALSE;
  } catch (const std::bad_alloc&) {
    return FALSE;
  }
}

NTSTATUS KmclUioQueryDevices(PKMCL_UIO_DEVICE Devices, ULONG Capacity, PULONG Count) {
  if (Devices == nullptr && Capacity != 0) return STATUS_INVALID_PARAMETER_1;
  if (Count == nullptr) return STATUS_INVALID_PARAMETER_3;
  *Count = 0;
  try {
    const KernelBus bus;
    const auto devices = bus.Devices();
    if (!devices) return StatusOf(devices.error());
    *Count = static_cast<ULONG>(devices->size());
    for (std::size_t i = 0; i < std::min<std::size_t>(Capacity, devices->size()); ++i) {
      Devices[i] = ToC(bus, (*devices)[i]);
    }
    return *Count > Capacity ? STATUS_BUFFER_TOO_SMALL : STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclUioBind(const GUID* Instance) {
  if (Instance == nullptr) return STATUS_INVALID_PARAMETER_1;
  try {
    const auto bound = KernelBus().Bind(FromC(*Instance));
    return bound ? STATUS_SUCCESS : StatusOfBind(bound.error());
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclUioUnbind(const GUID* Instance) {
  if (Instance == nullptr) return STATUS_INVALID_PARAMETER_1;
  try {
    const auto unbound = KernelBus().Unbind(FromC(*Instance));
    return unbound ? STATUS_SUCCESS : StatusOf(unbound.error());
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}
