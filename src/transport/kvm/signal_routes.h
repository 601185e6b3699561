// Signals that KVM delivers without a word to us: the guest's HvSignalEvent for a connection writes
// an eventfd in the kernel (KVM_HYPERV_EVENTFD).
#pragma once

#include <cstdint>

namespace kmcl::transport::kvm {

class SignalRoutes {
 public:
  virtual ~SignalRoutes() = default;
  // From now on a signal for the connection writes `event`, which is borrowed until Disconnect.
  // False: KVM does not do that, or the connection has one; signals are exits then. Any thread.
  virtual bool Connect(std::uint32_t connection, int event) = 0;
  // When it returns, nothing is written any more. Any thread.
  virtual void Disconnect(std::uint32_t connection) = 0;
};

}  // namespace kmcl::transport::kvm
