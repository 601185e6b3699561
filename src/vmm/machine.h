// A PC: memory, CPUs, the few devices that Linux wants to find, and a bus.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/boot_image.h"
#include "vmm/bus.h"
#include "vmm/guest_memory.h"
#include "vmm/keyboard_controller.h"
#include "vmm/outcome.h"
#include "vmm/port_bus.h"
#include "vmm/power_control.h"
#include "vmm/real_time_clock.h"
#include "vmm/serial_port.h"
#include "vmm/vcpu.h"
#include "vmm/virtual_machine.h"

namespace kmcl::vmm {

inline constexpr unsigned kMaximumCpus = 64;

struct MachinePlan {
  std::uint64_t memory_bytes = 0;
  unsigned cpu_count = 1;
  std::vector<std::byte> kernel;  // a bzImage or a vmlinux
  std::vector<std::byte> initrd;  // may be empty
  std::string command_line;
  // Gets what the guest sends to its serial port, on vCPU threads, one byte at a time.
  std::function<void(std::byte)> console;
  BusPlan bus;
};

// Why a machine stands still.
enum class MachineEnd {
  kPowerOff,
  kReset,    // the guest asked for it, or ran into a triple fault
  kStopped,  // by Stop
  kFailed,   // KVM could not go on
};

class Machine {
 public:
  static Outcome<std::unique_ptr<Machine>> Create(MachinePlan plan);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Boots from the beginning and returns when the guest has come to an end; no CPU runs then. May
  // be called again, which is how a reset is carried out. One thread; blocks.
  MachineEnd Run();

  // Ends Run, also one that has not begun. Any thread.
  void Stop();

  // How it came to that: for kReset what the guest did, for kFailed what went wrong. Between runs.
  const std::string& cause() const { return cause_; }

  // The server of the machine's bus. Its channels are cleaned up before the machine goes.
  KMCL_SERVER server() const { return bus_->server(); }

  // See Bus. Any thread.
  std::uint64_t ReferenceTime() const { return bus_->ReferenceTime(); }

  KMCL_KVM_COUNTERS counters() const { return bus_->Counters(); }

  // Gives the guest console input; see SerialPort::Receive.
  bool SendInput(std::span<const std::byte> bytes) { return serial_.Receive(bytes); }
  void CloseInput() { serial_.CloseInput(); }

 private:
  Machine(MachinePlan plan, BootImage image, GuestMemory memory, VirtualMachine vm);
  Outcome<void> MakeCpus();
  Outcome<void> Prepare();
  // The first reason counts. Any thread.
  void End(MachineEnd why, std::string cause);

  const MachinePlan plan_;
  const BootImage image_;
  GuestMemory memory_;
  VirtualMachine vm_;
  SerialPort serial_;
  RealTimeClock clock_;
  KeyboardController keyboard_;
  PowerControl power_;
  PortBus ports_;
  Vcpu::Surroundings surroundings_;
  std::vector<std::unique_ptr<Vcpu>> cpus_;
  std::unique_ptr<Bus> bus_;  // goes before the CPUs, whose descriptors it borrows
  bool used_ = false;         // has run before, so must be put back

  std::mutex mutex_;
  std::condition_variable ended_;
  // Under mutex_.
  std::optional<MachineEnd> end_;
  bool stop_ = false;
  std::string cause_;
};

}  // namespace kmcl::vmm
