// One virtual CPU: its state at power-on, and the thread that runs it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "vmm/boot_loader.h"
#include "vmm/descriptor.h"
#include "vmm/kvm_headers.h"
#include "vmm/outcome.h"
#include "vmm/port_bus.h"
#include "vmm/vcpu_state.h"

namespace kmcl::vmm {

class Vcpu {
 public:
  // What happens outside of the CPU. Called on its thread.
  struct Surroundings {
    const PortBus* ports = nullptr;
    // Handles an exit before anybody else does; true when it is done. May be empty.
    std::function<bool(unsigned number, kvm_run* run)> first_handler;
    std::function<void(std::string where)> triple_fault;
    // KVM cannot go on. The CPU stands still until it is stopped.
    std::function<void(std::string why)> failed;
  };

  // Borrows both descriptors for the call only.
  static Outcome<std::unique_ptr<Vcpu>> Create(int kvm, int vm, unsigned number);
  // Not while it runs.
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  int descriptor() const { return descriptor_.get(); }

  // Once. The state that the CPU has then is what Reset goes back to. Borrows `kvm` for the call
  // only.
  Outcome<void> SetCpuid(int kvm, const std::vector<kvm_cpuid_entry2>& leaves);

  // Not while it runs. Without `entry` the CPU waits for the first one to start it.
  Outcome<void> Reset(const std::optional<BootEntry>& entry);

  // Starts the thread; `surroundings` stays until it has been stopped.
  void Start(const Surroundings& surroundings);
  // Asks the thread to leave. Any thread, also this one.
  void RequestStop();
  // Waits for it. Then nothing is left half-way: what the last exit had asked for is in the CPU's
  // registers.
  void Join();

 private:
  explicit Vcpu(unsigned number) : number_(number) {}
  void Run(const Surroundings& surroundings);
  // False when the CPU cannot go on.
  bool HandleExit(const Surroundings& surroundings);
  std::string Describe(const std::string& what) const;

  const unsigned number_;
  Descriptor descriptor_;
  kvm_run* run_ = nullptr;
  std::size_t run_bytes_ = 0;
  VcpuState initial_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace kmcl::vmm
