// KVM's own emulation of Hyper-V's interrupt controllers, where KVM has it (VMBus reference 5.3):
// the guest's registers, clock and hypercall page are KVM's. What is left for us is what Synic does
// with the pages, told by exits where they are; interrupts go through the VM's routing, and KVM
// says when one was ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "result.h"
#include "transport/descriptor.h"
#include "transport/kvm/guest_bus.h"
#include "transport/kvm/kvm_headers.h"
#include "transport/kvm/signal_routes.h"
#include "transport/kvm/synic.h"

namespace kmcl::transport::kvm {

class KernelSynic final : public SignalRoutes {
 public:
  static bool IsThere(int kvm);

  // Borrows everything. kOutOfDescriptors.
  [[nodiscard]] static Result<std::unique_ptr<KernelSynic>> Create(int vm,
                                                                   std::span<const int> processors,
                                                                   Synic& synic);
  ~KernelSynic() override;
  KernelSynic(const KernelSynic&) = delete;
  KernelSynic& operator=(const KernelSynic&) = delete;

  // Turns the controllers on and sets the VM's whole routing: the legacy controllers as KVM has
  // them at first, and one line for each processor. kSystemCall, kOutOfMemory.
  [[nodiscard]] Result<void> Start();

  // An exit with the reason KVM_EXIT_HYPERV, on the processor's thread.
  bool HandleExit(std::uint32_t processor, kvm_run& run, GuestBus& bus);

  // SINT 2 of the processor. Any thread. While the guest has the source off, nothing happens.
  void RaiseInterrupt(std::uint32_t processor);

  // KVM_HYPERV_EVENTFD. What it refuses is logged once.
  bool Connect(std::uint32_t connection, int event) override;
  void Disconnect(std::uint32_t connection) override;

  // KVM's registers as after power-on. No processor runs.
  void Reset();

 private:
  KernelSynic(int vm, std::span<const int> processors, Synic& synic)
      : vm_(vm), processors_(processors.begin(), processors.end()), synic_(synic) {}
  Result<void> SetRouting();
  Result<void> ConnectLine(std::uint32_t processor);
  void WaitForEnds();

  const int vm_;
  const std::vector<int> processors_;
  Synic& synic_;
  // By processor: eventfds that KVM reads, and that it writes when the interrupt was ended.
  std::vector<Descriptor> raise_;
  std::vector<Descriptor> ended_;
  Descriptor epoll_;
  Descriptor stop_;
  std::thread thread_;  // waits for ends
  std::atomic<bool> routes_refused_{false};
};

}  // namespace kmcl::transport::kvm
