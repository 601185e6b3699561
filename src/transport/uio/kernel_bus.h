// The bus of a Linux guest as its kernel shows it in sysfs: which channels are offered, which
// driver has each, and how one is handed to uio_hv_generic and back (VMBus reference 6.1, 6.4).
//
// Nothing is kept: each call reads what is true now. Any thread. What sysfs says is the kernel's
// word, yet it is read as text that may be cut off or missing: devices come and go while one looks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "result.h"
#include "wire/guid.h"
#include "wire/ids.h"

namespace kmcl::transport::uio {

// The kernel's driver that lends a channel to user space.
inline constexpr const char* kUioDriver = "uio_hv_generic";

struct Subchannel {
  wire::ChannelId id{};
  std::uint16_t index = 0;
  std::optional<std::uint8_t> monitor;
  bool open = false;  // the kernel has made its rings

  friend bool operator==(const Subchannel&, const Subchannel&) = default;
};

// One device: a channel that is offered, and its sub-channels.
struct BusDevice {
  wire::Guid interface_type;
  wire::Guid instance;
  wire::ChannelId id{};
  std::optional<std::uint8_t> monitor;
  std::string driver;                   // empty: none
  std::optional<std::uint32_t> uio;     // N of /dev/uioN, once uio_hv_generic has it
  bool open = false;                    // somebody has opened the channel: a driver, or a program
  std::uint64_t interrupts = 0;         // what the host has signalled
  std::uint64_t signals = 0;            // what the guest has, by hypercall
  std::vector<Subchannel> subchannels;  // by index

  friend bool operator==(const BusDevice&, const BusDevice&) = default;
};

// Part of an open device's memory that can be mapped.
struct UioMap {
  std::string name;
  std::uint64_t bytes = 0;
};

// Where the kernel's file systems are; elsewhere in tests.
struct Places {
  std::string sysfs = "/sys";
  std::string dev = "/dev";
};

class KernelBus {
 public:
  explicit KernelBus(Places places = {}) : places_(std::move(places)) {}

  // Whether there is a bus: hv_vmbus is loaded, and found its host.
  bool present() const;
  // By channel id. A device that is not whole, because it is just coming or going, is left out.
  // kAddressUnreachable: there is no bus.
  [[nodiscard]] Result<std::vector<BusDevice>> Devices() const;
  // kAddressUnreachable, kChannelUnknown (no such device), kFieldOutOfRange (an attribute that is
  // none; logged).
  [[nodiscard]] Result<BusDevice> Device(const wire::Guid& instance) const;
  // Maps 0, 1, ... of /dev/uioN.
  [[nodiscard]] Result<std::vector<UioMap>> Maps(std::uint32_t uio) const;

  // Takes the device from whichever driver has it, and gives it to uio_hv_generic; this device
  // alone, until Unbind. Nothing to do is a success. kAddressUnreachable, kChannelUnknown,
  // kPermissionDenied, kDriverMissing (uio_hv_generic is not loaded), kDriverRefuses (it does not
  // take the channel; logged), kSystemCall.
  [[nodiscard]] Result<void> Bind(const wire::Guid& instance) const;
  // Takes it back, and lets the kernel find another driver. kDriverNotBound: uio_hv_generic does
  // not have it.
  [[nodiscard]] Result<void> Unbind(const wire::Guid& instance) const;

  std::string UioNode(std::uint32_t uio) const;
  // The file by which the rings of a sub-channel are mapped.
  std::string RingFile(const wire::Guid& instance, wire::ChannelId subchannel) const;

 private:
  std::string BusFolder() const { return places_.sysfs + "/bus/vmbus"; }
  std::string DeviceFolder(const wire::Guid& instance) const;
  [[nodiscard]] Result<BusDevice> Read(const std::string& folder, const wire::Guid& instance) const;

  const Places places_;
};

}  // namespace kmcl::transport::uio
