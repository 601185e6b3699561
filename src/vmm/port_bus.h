// Which device answers at which I/O port.
//
// Wider accesses are taken apart into bytes at consecutive ports. Where nothing is, reads give ones
// and writes go nowhere: also at the ports of PCI configuration, by which a guest learns that there
// is no PCI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/port_device.h"

namespace kmcl::vmm {

// Devices are added before the vCPUs run; from then on any thread may use it.
class PortBus {
 public:
  // Borrows `device` until the end. Ranges do not overlap.
  void Add(std::uint16_t first_port, std::uint16_t port_count, PortDevice& device) {
    ranges_.push_back({first_port, port_count, &device});
  }

  void Read(std::uint16_t port, std::span<std::byte> bytes) const {
    for (std::byte& byte : bytes) {
      const Range* const range = Find(port);
      byte = range == nullptr
                 ? std::byte{0xFF}
                 : std::byte{range->device->Read(static_cast<std::uint16_t>(port - range->first))};
      ++port;
    }
  }

  void Write(std::uint16_t port, std::span<const std::byte> bytes) const {
    for (const std::byte byte : bytes) {
      if (const Range* const range = Find(port)) {
        range->device->Write(static_cast<std::uint16_t>(port - range->first),
                             std::to_integer<std::uint8_t>(byte));
      }
      ++port;
    }
  }

 private:
  struct Range {
    std::uint16_t first;
    std::uint16_t count;
    PortDevice* device;
  };
  const Range* Find(std::uint16_t port) const {
    for (const Range& range : ranges_) {
      if (port >= range.first && port - range.first < range.count) {
        return &range;
      }
    }
    return nullptr;
  }

  std::vector<Range> ranges_;
};

}  // namespace kmcl::vmm
