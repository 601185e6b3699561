#include "vmm/serial_port.h"

namespace kmcl::vmm {
namespace {

enum Port : std::uint16_t {
  kData = 0,             // or the divisor's low byte
  kInterruptEnable = 1,  // or its high byte
  kIdentityOrFifo = 2,
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

// Interrupt enable.
constexpr std::uint8_t kOnReceived = 1 << 0;
constexpr std::uint8_t kOnTransmitterEmpty = 1 << 1;
// Interrupt identity.
constexpr std::uint8_t kNothingPending = 0x01;
constexpr std::uint8_t kTransmitterEmptyPending = 0x02;
constexpr std::uint8_t kReceivedPending = 0x04;
constexpr std::uint8_t kFifoIsOn = 0xC0;
// FIFO control.
constexpr std::uint8_t kEnableFifo = 1 << 0;
constexpr std::uint8_t kClearReceiver = 1 << 1;
// Line control.
constexpr std::uint8_t kDivisorAccess = 1 << 7;
// Modem control.
constexpr std::uint8_t kDataTerminalReady = 1 << 0;
constexpr std::uint8_t kRequestToSend = 1 << 1;
constexpr std::uint8_t kOutput1 = 1 << 2;
constexpr std::uint8_t kOutput2 = 1 << 3;
constexpr std::uint8_t kLoopback = 1 << 4;
// Line status.
constexpr std::uint8_t kDataReady = 1 << 0;
constexpr std::uint8_t kOverrun = 1 << 1;
constexpr std::uint8_t kTransmitterEmpty = 0x60;
// Modem status.
constexpr std::uint8_t kClearToSend = 1 << 4;
constexpr std::uint8_t kDataSetReady = 1 << 5;
constexpr std::uint8_t kRing = 1 << 6;
constexpr std::uint8_t kCarrier = 1 << 7;

}  // namespace

std::uint8_t SerialPort::Read(std::uint16_t port) {
  const std::lock_guard lock(mutex_);
  const std::uint8_t value = ReadLocked(port);
  UpdateLine();
  if (state_.count == 0) {
    Fill();  // after the line has fallen: what is new raises it
  }
  return value;
}

std::uint8_t SerialPort::ReadLocked(std::uint16_t port) {
  switch (port) {
    case kData: {
      if ((state_.line_control & kDivisorAccess) != 0) {
        return static_cast<std::uint8_t>(state_.divisor);
      }
      if (state_.count == 0) {
        return 0;
      }
      const std::uint8_t value = state_.fifo[state_.first];
      state_.first = (state_.first + 1) % state_.fifo.size();
      --state_.count;
      return value;
    }
    case kInterruptEnable:
      return (state_.line_control & kDivisorAccess) != 0
                 ? static_cast<std::uint8_t>(state_.divisor >> 8)
                 : state_.interrupt_enable;
    case kIdentityOrFifo: {
      const std::uint8_t identity = InterruptIdentity();
      if (identity == kTransmitterEmptyPending) {
        state_.transmitter_interrupt = false;
      }
      return identity | (state_.fifo_enabled ? kFifoIsOn : 0);
    }
    case kLineControl:
      return state_.line_control;
    case kModemControl:
      return state_.modem_control;
    case kLineStatus: {
      const std::uint8_t status =
          kTransmitterEmpty | (state_.count > 0 ? kDataReady : 0) | (state_.overrun ? kOverrun : 0);
      state_.overrun = false;
      return status;
    }
    case kModemStatus:
      return ModemStatus();
    case kScratch:
      return state_.scratch;
    default:
      return 0xFF;
  }
}

void SerialPort::Write(std::uint16_t port, std::uint8_t value) {
  bool send = false;
  {
    const std::lock_guard lock(mutex_);
    send = WriteLocked(port, value);
    if (!send) {
      UpdateLine();
      if (state_.count == 0) {
        Fill();
      }
    }
  }
  if (!send) {
    return;
  }
  {
    const std::lock_guard lock(output_mutex_);
    output_(static_cast<std::byte>(value));
  }
  const std::lock_guard lock(mutex_);
  state_.transmitter_interrupt = true;
  UpdateLine();
}

bool SerialPort::WriteLocked(std::uint16_t port, std::uint8_t value) {
  switch (port) {
    case kData:
      if ((state_.line_control & kDivisorAccess) != 0) {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xFF00) | value);
        return false;
      }
      state_.transmitter_interrupt = false;
      if (loopback()) {
        Push(value);
        state_.transmitter_interrupt = true;
        return false;
      }
      return true;
    case kInterruptEnable:
      if ((state_.line_control & kDivisorAccess) != 0) {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xFF) | value << 8);
        return false;
      }
      // Enabling it while the transmitter is empty, as it always is, raises it.
      if ((value & kOnTransmitterEmpty) != 0 &&
          (state_.interrupt_enable & kOnTransmitterEmpty) == 0) {
        state_.transmitter_interrupt = true;
      }
      state_.interrupt_enable = value & 0x0F;
      return false;
    case kIdentityOrFifo: {
      const bool enabled = (value & kEnableFifo) != 0;
      if ((value & kClearReceiver) != 0 || enabled != state_.fifo_enabled) {
        state_.count = 0;
      }
      state_.fifo_enabled = enabled;
      return false;
    }
    case kLineControl:
      state_.line_control = value;
      return false;
    case kModemControl:
      state_.modem_control = value & 0x1F;
      return false;
    case kScratch:
      state_.scratch = value;
      return false;
    default:
      return false;  // the status registers
  }
}

bool SerialPort::Receive(std::span<const std::byte> bytes) {
  std::unique_lock lock(mutex_);
  for (const std::byte byte : bytes) {
    room_.wait(lock, [this] { return input_closed_ || waiting_.size() < kMostWaiting; });
    if (input_closed_) {
      return false;
    }
    waiting_.push_back(std::to_integer<std::uint8_t>(byte));
    Fill();
  }
  return true;
}

void SerialPort::Fill() {
  // In loopback the wire is cut; a real sender would lose its bytes, ours waits.
  while (!waiting_.empty() && state_.count < capacity() && !loopback()) {
    Push(waiting_.front());
    waiting_.pop_front();
  }
  UpdateLine();
  room_.notify_all();
}

void SerialPort::CloseInput() {
  const std::lock_guard lock(mutex_);
  input_closed_ = true;
  room_.notify_all();
}

void SerialPort::Reset() {
  const std::lock_guard lock(mutex_);
  state_ = {};
  UpdateLine();
  Fill();
}

bool SerialPort::loopback() const { return (state_.modem_control & kLoopback) != 0; }

void SerialPort::Push(std::uint8_t value) {
  if (state_.count == capacity()) {
    state_.overrun = true;
    return;
  }
  state_.fifo[(state_.first + state_.count) % state_.fifo.size()] = value;
  ++state_.count;
}

std::uint8_t SerialPort::InterruptIdentity() const {
  if ((state_.interrupt_enable & kOnReceived) != 0 && state_.count > 0) {
    return kReceivedPending;
  }
  if ((state_.interrupt_enable & kOnTransmitterEmpty) != 0 && state_.transmitter_interrupt) {
    return kTransmitterEmptyPending;
  }
  return kNothingPending;
}

std::uint8_t SerialPort::ModemStatus() const {
  if (!loopback()) {
    return kClearToSend | kDataSetReady | kCarrier;
  }
  const std::uint8_t control = state_.modem_control;
  return static_cast<std::uint8_t>(((control & kRequestToSend) != 0 ? kClearToSend : 0) |
                                   ((control & kDataTerminalReady) != 0 ? kDataSetReady : 0) |
                                   ((control & kOutput1) != 0 ? kRing : 0) |
                                   ((control & kOutput2) != 0 ? kCarrier : 0));
}

void SerialPort::UpdateLine() {
  const bool level = InterruptIdentity() != kNothingPending;
  if (level != line_level_) {
    line_level_ = level;
    line_(level);
  }
}

}  // namespace kmcl::vmm
