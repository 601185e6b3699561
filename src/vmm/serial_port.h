// A 16550 UART: the guest's console.
//
// What the guest sends goes out at once, so its transmitter is always empty. What comes in passes a
// FIFO of 16 bytes, and waits before it while the guest does not read.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>

#include "vmm/port_device.h"

namespace kmcl::vmm {

class SerialPort : public PortDevice {
 public:
  static constexpr std::uint16_t kFirstPort = 0x3F8;
  static constexpr std::uint16_t kPortCount = 8;
  static constexpr unsigned kInterrupt = 4;

  // `output` gets each byte, on a vCPU's thread, in order. `line` sets the interrupt line's level;
  // it must not call back, and returns quickly.
  SerialPort(std::function<void(std::byte)> output, std::function<void(bool)> line)
      : output_(std::move(output)), line_(std::move(line)) {}

  std::uint8_t Read(std::uint16_t port) override;
  void Write(std::uint16_t port, std::uint8_t value) override;

  // So much may wait for a guest that does not read.
  static constexpr std::size_t kMostWaiting = 64 * 1024;
  // Gives the guest input, of which nothing is lost. Blocks while that much waits; false, with some
  // of it dropped, once the input is closed.
  bool Receive(std::span<const std::byte> bytes);
  void CloseInput();

  void Reset();

 private:
  struct State {
    std::uint8_t interrupt_enable = 0;
    std::uint8_t line_control = 0;
    std::uint8_t modem_control = 0;
    std::uint8_t scratch = 0;
    std::uint16_t divisor = 0;
    bool fifo_enabled = false;
    bool transmitter_interrupt = false;  // it became empty, and nobody has read that yet
    bool overrun = false;                // only in loopback: otherwise input waits for room
    std::array<std::uint8_t, 16> fifo{};
    unsigned first = 0;
    unsigned count = 0;
  };
  std::uint8_t ReadLocked(std::uint16_t port);
  // True when `value` is to be sent.
  bool WriteLocked(std::uint16_t port, std::uint8_t value);
  std::uint8_t InterruptIdentity() const;
  std::uint8_t ModemStatus() const;
  unsigned capacity() const { return state_.fifo_enabled ? 16 : 1; }
  bool loopback() const;
  void Push(std::uint8_t value);
  // Moves what waits into the FIFO.
  void Fill();
  void UpdateLine();

  const std::function<void(std::byte)> output_;
  const std::function<void(bool)> line_;
  std::mutex output_mutex_;  // keeps bytes in order; taken alone

  std::mutex mutex_;
  std::condition_variable room_;
  // Under mutex_. The line follows the state under it as well, so that it cannot end up at an older
  // level.
  State state_;
  std::deque<std::uint8_t> waiting_;
  bool line_level_ = false;
  bool input_closed_ = false;
};

}  // namespace kmcl::vmm
