#include "vmm/virtual_machine.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <memory>

namespace kmcl::vmm {
namespace {

// Pages that KVM needs for itself on some processors, in the hole below 4 GiB.
constexpr std::uint64_t kIdentityMapAddress = 0xFFFBC000;
constexpr std::uint64_t kTaskStateAddress = 0xFFFBD000;

}  // namespace

Outcome<VirtualMachine> VirtualMachine::Create(const GuestMemory& memory) {
  VirtualMachine machine;
  machine.kvm_ = Descriptor(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!machine.kvm_.valid()) {
    return FailWithErrno("cannot open /dev/kvm");
  }
  if (ioctl(machine.kvm(), KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
    return Fail("/dev/kvm speaks another version of its interface");
  }
  machine.vm_ = Descriptor(ioctl(machine.kvm(), KVM_CREATE_VM, 0));
  if (!machine.vm_.valid()) {
    return FailWithErrno("KVM makes no virtual machine");
  }
  const int vm = machine.descriptor();
  std::uint64_t identity_map = kIdentityMapAddress;
  kvm_pit_config timer{};
  timer.flags = KVM_PIT_SPEAKER_DUMMY;
  if (ioctl(vm, KVM_SET_TSS_ADDR, kTaskStateAddress) != 0 ||
      ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0 ||
      ioctl(vm, KVM_CREATE_IRQCHIP, 0) != 0 || ioctl(vm, KVM_CREATE_PIT2, &timer) != 0) {
    return FailWithErrno("KVM makes no interrupt controllers or timer");
  }
  std::uint32_t number = 0;
  for (const GuestMemory::Slot& slot : memory.slots()) {
    kvm_userspace_memory_region region{};
    region.slot = number++;
    region.guest_phys_addr = slot.guest_address;
    region.memory_size = slot.bytes;
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(memory.Mapping(slot));
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0) {
      return FailWithErrno("KVM does not take the guest's memory");
    }
  }
  if (const auto saved = machine.SaveInitialState(); !saved) {
    return std::unexpected(saved.error());
  }
  return machine;
}

Outcome<std::vector<kvm_cpuid_entry2>> VirtualMachine::SupportedCpuid() const {
  constexpr std::size_t kCapacity = 256;
  const std::size_t bytes = sizeof(kvm_cpuid2) + kCapacity * sizeof(kvm_cpuid_entry2);
  const auto storage = std::make_unique<std::uint64_t[]>(bytes / sizeof(std::uint64_t) + 1);
  auto* const list = reinterpret_cast<kvm_cpuid2*>(storage.get());
  list->nent = kCapacity;
  if (ioctl(kvm(), KVM_GET_SUPPORTED_CPUID, list) != 0) {
    return FailWithErrno("KVM does not tell what the processor can do");
  }
  return std::vector<kvm_cpuid_entry2>(list->entries, list->entries + list->nent);
}

void VirtualMachine::SetInterruptLine(unsigned interrupt, bool level) const {
  kvm_irq_level line{};
  line.irq = interrupt;
  line.level = level ? 1 : 0;
  (void)ioctl(descriptor(), KVM_IRQ_LINE, &line);
}

Outcome<void> VirtualMachine::SaveInitialState() {
  constexpr std::uint32_t kChips[] = {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
                                      KVM_IRQCHIP_IOAPIC};
  for (std::size_t i = 0; i < 3; ++i) {
    irqchips_[i].chip_id = kChips[i];
    if (ioctl(descriptor(), KVM_GET_IRQCHIP, &irqchips_[i]) != 0) {
      return FailWithErrno("KVM does not show its interrupt controllers");
    }
  }
  if (ioctl(descriptor(), KVM_GET_PIT2, &timer_) != 0) {
    return FailWithErrno("KVM does not show its timer");
  }
  return {};
}

Outcome<void> VirtualMachine::Reset() const {
  for (kvm_irqchip chip : irqchips_) {
    if (ioctl(descriptor(), KVM_SET_IRQCHIP, &chip) != 0) {
      return FailWithErrno("an interrupt controller cannot be reset");
    }
  }
  kvm_pit_state2 timer = timer_;
  if (ioctl(descriptor(), KVM_SET_PIT2, &timer) != 0) {
    return FailWithErrno("the timer cannot be reset");
  }
  return {};
}

}  // namespace kmcl::vmm
