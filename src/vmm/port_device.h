// A device that a guest reaches by I/O ports, a byte at a time.
#pragma once

#include <cstdint>

namespace kmcl::vmm {

// Both calls come from vCPU threads, several at once. `port` counts from the device's first one.
// They return quickly: the guest's CPU waits.
class PortDevice {
 public:
  virtual ~PortDevice() = default;
  virtual std::uint8_t Read(std::uint16_t port) = 0;
  virtual void Write(std::uint16_t port, std::uint8_t value) = 0;
};

}  // namespace kmcl::vmm
