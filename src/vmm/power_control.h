// ACPI's PM1 registers: event status and enable, and the control register by which a guest powers
// off.
#pragma once

#include <array>
#include <functional>
#include <mutex>
#include <utility>

#include "vmm/acpi.h"
#include "vmm/port_device.h"

namespace kmcl::vmm {

class PowerControl : public PortDevice {
 public:
  static constexpr std::uint16_t kPortCount = 6;  // from kPowerEventPort

  // `power_off` is called on a vCPU's thread.
  explicit PowerControl(std::function<void()> power_off) : power_off_(std::move(power_off)) {}

  std::uint8_t Read(std::uint16_t port) override;
  void Write(std::uint16_t port, std::uint8_t value) override;
  void Reset();

 private:
  const std::function<void()> power_off_;
  std::mutex mutex_;
  std::array<std::uint8_t, kPortCount> registers_{};  // under mutex_
};

}  // namespace kmcl::vmm
