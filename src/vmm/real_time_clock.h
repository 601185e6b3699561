// The PC's clock chip: the time of day, in UTC, and otherwise zeros. No alarms, no interrupts.
#pragma once

#include <atomic>

#include "vmm/port_device.h"

namespace kmcl::vmm {

class RealTimeClock : public PortDevice {
 public:
  static constexpr std::uint16_t kFirstPort = 0x70;
  static constexpr std::uint16_t kPortCount = 2;

  std::uint8_t Read(std::uint16_t port) override;
  void Write(std::uint16_t port, std::uint8_t value) override;

 private:
  std::atomic<std::uint8_t> index_{0};
};

}  // namespace kmcl::vmm
