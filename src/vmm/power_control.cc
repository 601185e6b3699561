#include "vmm/power_control.h"

namespace kmcl::vmm {
namespace {

// Bytes from kPowerEventPort on.
constexpr std::uint16_t kStatus = 0;
constexpr std::uint16_t kEnable = 2;
constexpr std::uint16_t kControl = kPowerControlPort - kPowerEventPort;

// In the high byte of the control register.
constexpr std::uint8_t kSleepEnable = 1 << 5;
constexpr unsigned kSleepTypeShift = 2;
constexpr std::uint8_t kSleepTypeMask = 7;

// In its low byte: ACPI, and not a BIOS, gets the events.
constexpr std::uint8_t kAcpiIsOn = 1;

}  // namespace

std::uint8_t PowerControl::Read(std::uint16_t port) {
  const std::lock_guard lock(mutex_);
  return port == kControl ? static_cast<std::uint8_t>(registers_[port] | kAcpiIsOn)
                          : registers_[port];
}

void PowerControl::Write(std::uint16_t port, std::uint8_t value) {
  if (port < kEnable) {
    return;  // writing ones to the status clears events, and there are none
  }
  if (port == kControl + 1 && (value & kSleepEnable) != 0) {
    if ((value >> kSleepTypeShift & kSleepTypeMask) == kPowerOffSleepType) {
      power_off_();
    }
    value &= static_cast<std::uint8_t>(~kSleepEnable);  // reads as zero
  }
  const std::lock_guard lock(mutex_);
  registers_[port] = value;
}

void PowerControl::Reset() {
  const std::lock_guard lock(mutex_);
  registers_ = {};
}

static_assert(kStatus == 0 && kEnable == 2 && kControl == 4);

}  // namespace kmcl::vmm
