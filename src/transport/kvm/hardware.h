// What the enlightenments need of the machine below them. The machine has KVM's; tests have their
// own.
#pragma once

#include <cstdint>

namespace kmcl::transport::kvm {

class Hardware {
 public:
  virtual ~Hardware() = default;
  // Makes a fixed, edge-triggered interrupt pending at a virtual processor. Any thread; no lock is
  // held.
  virtual void RaiseInterrupt(std::uint32_t processor, std::uint8_t vector) = 0;
  // The processor's own time stamp counter, now. On that processor's thread.
  virtual std::uint64_t TimeStamp(std::uint32_t processor) = 0;
};

}  // namespace kmcl::transport::kvm
