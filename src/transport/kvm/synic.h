// The synthetic interrupt controllers of a machine's virtual processors, as Hyper-V defines them
// (TLFS, "Virtual Interrupt Controller"): their registers, for a KVM that has none, and the
// messages and event flags of the one source that VMBus uses, SINT 2. There are no synthetic
// timers.
//
// The pages stand in the guest's memory and the guest writes to them as it likes: only the slot's
// type and flag words are ever read, and only compared.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "log_limit.h"
#include "mutex.h"
#include "transport/kvm/guest_memory.h"
#include "transport/kvm/hardware.h"
#include "transport/link.h"

namespace kmcl::transport::kvm {

namespace msr {
inline constexpr std::uint32_t kScontrol = 0x40000080;
inline constexpr std::uint32_t kSversion = 0x40000081;
inline constexpr std::uint32_t kSiefp = 0x40000082;
inline constexpr std::uint32_t kSimp = 0x40000083;
inline constexpr std::uint32_t kEom = 0x40000084;
inline constexpr std::uint32_t kSint0 = 0x40000090;
inline constexpr std::uint32_t kSint15 = 0x4000009F;
}  // namespace msr

// Any thread. Registers belong to their processor's thread, which is why they are accessed there.
class Synic {
 public:
  // Borrows both.
  Synic(const GuestMemory& memory, Hardware& hardware, std::uint32_t processor_count);

  // Nothing: no such register, or one that cannot be read; the guest gets a #GP.
  std::optional<std::uint64_t> ReadRegister(std::uint32_t processor, std::uint32_t index) const;
  // False: the guest gets a #GP, and nothing has changed.
  bool WriteRegister(std::uint32_t processor, std::uint32_t index, std::uint64_t value);

  // For a KVM that has the registers: what the guest has written there, except for its sources,
  // which then only KVM knows: they count as on, and the interrupt is raised when there is anything
  // to see, as it may have been raised in vain before.
  void SetPages(std::uint32_t processor, std::uint64_t control, std::uint64_t simp,
                std::uint64_t siefp);

  // Puts a message into the processor's slot as soon as that is free, behind those that wait, and
  // raises the interrupt. As long as the controller or the source is off, it waits.
  // At most kMaximumMessageBytes.
  void PostMessage(std::uint32_t processor, std::span<const std::byte> message);
  // Messages that wait for a free slot.
  std::size_t waiting_messages(std::uint32_t processor) const;
  // Forgets the messages and flags that wait at any processor; what the guest can see already
  // stays.
  void Forget();

  // Sets the flag and, if it was clear, raises the interrupt. Remembered while the controller or
  // the source is off.
  void SetEventFlag(std::uint32_t processor, std::uint32_t flag);

  // As after power-on. No processor runs.
  void Reset();

 private:
  static constexpr std::size_t kSintCount = 16;

  struct Message {
    std::size_t bytes = 0;
    std::array<std::byte, kMaximumMessageBytes> payload;
  };

  // One processor's.
  struct Controller {
    Controller() { sint.fill(kSintReset); }

    mutable Mutex mutex;
    std::uint64_t control KMCL_GUARDED_BY(mutex) = 0;
    std::uint64_t siefp KMCL_GUARDED_BY(mutex) = 0;
    std::uint64_t simp KMCL_GUARDED_BY(mutex) = 0;
    std::array<std::uint64_t, kSintCount> sint KMCL_GUARDED_BY(mutex);
    // SINT 2's part of the two pages; nullptr when off, or not in the guest's memory.
    std::byte* slot KMCL_GUARDED_BY(mutex) = nullptr;
    std::byte* flags KMCL_GUARDED_BY(mutex) = nullptr;
    std::deque<Message> messages KMCL_GUARDED_BY(mutex);
    ChannelSet missed_flags KMCL_GUARDED_BY(mutex){};
  };

  static constexpr std::uint64_t kSintReset = 0x10000;  // masked

  std::byte* PartOfPage(std::uint64_t page_register);
  static bool IsOn(const Controller& controller) KMCL_REQUIRES(controller.mutex);
  // What there is to deliver and can be delivered; true when the interrupt is to be raised.
  static bool Deliver(Controller& controller) KMCL_REQUIRES(controller.mutex);
  static bool DeliverMessage(Controller& controller) KMCL_REQUIRES(controller.mutex);
  static bool DeliverMissedFlags(Controller& controller) KMCL_REQUIRES(controller.mutex);
  // The vector to raise; nothing for a source that is polled.
  static std::optional<std::uint8_t> Vector(const Controller& controller)
      KMCL_REQUIRES(controller.mutex);

  const GuestMemory& memory_;
  Hardware& hardware_;
  std::vector<std::unique_ptr<Controller>> controllers_;
  LogLimit faults_;
};

}  // namespace kmcl::transport::kvm
