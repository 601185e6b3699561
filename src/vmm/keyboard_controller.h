// What is left of a PC's keyboard controller: the command that resets the machine.
#pragma once

#include <functional>
#include <utility>

#include "vmm/port_device.h"

namespace kmcl::vmm {

class KeyboardController : public PortDevice {
 public:
  static constexpr std::uint16_t kCommandPort = 0x64;
  static constexpr std::uint8_t kResetCommand = 0xFE;

  // `reset` is called on a vCPU's thread.
  explicit KeyboardController(std::function<void()> reset) : reset_(std::move(reset)) {}

  // Neither buffer is full: a guest that waits for that goes on at once.
  std::uint8_t Read(std::uint16_t) override { return 0; }
  void Write(std::uint16_t, std::uint8_t value) override {
    if (value == kResetCommand) {
      reset_();
    }
  }

 private:
  std::function<void()> reset_;
};

}  // namespace kmcl::vmm
