#include "vmm/machine.h"

#include <utility>

#include "vmm/acpi.h"
#include "vmm/boot_loader.h"
#include "vmm/cpuid.h"

namespace kmcl::vmm {

Outcome<std::unique_ptr<Machine>> Machine::Create(MachinePlan plan) {
  if (plan.cpu_count < 1 || plan.cpu_count > kMaximumCpus) {
    return Fail("a machine has 1 to " + std::to_string(kMaximumCpus) + " CPUs");
  }
  auto image = ParseKernel(std::move(plan.kernel));
  if (!image) {
    return std::unexpected(image.error());
  }
  auto memory = GuestMemory::Create(plan.memory_bytes);
  if (!memory) {
    return std::unexpected(memory.error());
  }
  auto vm = VirtualMachine::Create(*memory);
  if (!vm) {
    return std::unexpected(vm.error());
  }
  std::unique_ptr<Machine> machine(
      new Machine(std::move(plan), std::move(*image), std::move(*memory), std::move(*vm)));
  if (const auto made = machine->MakeCpus(); !made) {
    return std::unexpected(made.error());
  }
  return machine;
}

Machine::Machine(MachinePlan plan, BootImage image, GuestMemory memory, VirtualMachine vm)
    : plan_(std::move(plan)),
      image_(std::move(image)),
      memory_(std::move(memory)),
      vm_(std::move(vm)),
      serial_(plan_.console,
              [this](bool level) { vm_.SetInterruptLine(SerialPort::kInterrupt, level); }),
      keyboard_([this] { End(MachineEnd::kReset, "it asked the keyboard controller for it"); }),
      power_([this] { End(MachineEnd::kPowerOff, {}); }) {
  ports_.Add(SerialPort::kFirstPort, SerialPort::kPortCount, serial_);
  ports_.Add(RealTimeClock::kFirstPort, RealTimeClock::kPortCount, clock_);
  ports_.Add(KeyboardController::kCommandPort, 1, keyboard_);
  ports_.Add(kPowerEventPort, PowerControl::kPortCount, power_);
  surroundings_.ports = &ports_;
  surroundings_.triple_fault = [this](std::string where) {
    End(MachineEnd::kReset, std::move(where));
  };
  surroundings_.failed = [this](std::string why) { End(MachineEnd::kFailed, std::move(why)); };
}

Machine::~Machine() = default;

Outcome<void> Machine::MakeCpus() {
  const auto supported = vm_.SupportedCpuid();
  if (!supported) {
    return std::unexpected(supported.error());
  }
  for (unsigned number = 0; number < plan_.cpu_count; ++number) {
    auto cpu = Vcpu::Create(vm_.kvm(), vm_.descriptor(), number);
    if (!cpu) {
      return std::unexpected(cpu.error());
    }
    cpus_.push_back(std::move(*cpu));
  }
  std::vector<int> descriptors;
  for (const auto& cpu : cpus_) {
    descriptors.push_back(cpu->descriptor());
  }
  auto bus = Bus::Create(vm_.kvm(), vm_.descriptor(), std::move(descriptors), memory_, plan_.bus);
  if (!bus) {
    return std::unexpected(bus.error());
  }
  bus_ = std::move(*bus);
  for (unsigned number = 0; number < plan_.cpu_count; ++number) {
    std::vector<kvm_cpuid_entry2> leaves = CpuidOf(*supported, number, plan_.cpu_count);
    if (const auto edited = bus_->EditCpuid(leaves); !edited) {
      return edited;
    }
    if (const auto set = cpus_[number]->SetCpuid(vm_.kvm(), leaves); !set) {
      return set;
    }
  }
  surroundings_.first_handler = [this](unsigned number, kvm_run* run) {
    return bus_->HandleExit(number, run);
  };
  return bus_->Start();
}

Outcome<void> Machine::Prepare() {
  if (std::exchange(used_, true)) {
    bus_->Reset();
    if (const auto cleared = memory_.Clear(); !cleared) {
      return cleared;
    }
    if (const auto reset = vm_.Reset(); !reset) {
      return reset;
    }
    serial_.Reset();
    power_.Reset();
  }
  const auto acpi_root = PutAcpiTables(memory_, plan_.cpu_count, Bus::AcpiTable());
  if (!acpi_root) {
    return std::unexpected(acpi_root.error());
  }
  const auto entry = LoadKernel(memory_, image_, plan_.initrd, plan_.command_line, *acpi_root);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  for (unsigned number = 0; number < plan_.cpu_count; ++number) {
    if (const auto reset = cpus_[number]->Reset(number == 0 ? std::optional(*entry) : std::nullopt);
        !reset) {
      return reset;
    }
  }
  return {};
}

MachineEnd Machine::Run() {
  {
    const std::lock_guard lock(mutex_);
    end_.reset();
  }
  if (const auto prepared = Prepare(); !prepared) {
    End(MachineEnd::kFailed, prepared.error());
  } else {
    for (const auto& cpu : cpus_) {
      cpu->Start(surroundings_);
    }
  }
  {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return end_.has_value() || stop_; });
    if (!end_) {
      end_ = MachineEnd::kStopped;
    }
  }
  for (const auto& cpu : cpus_) {
    cpu->RequestStop();
  }
  for (const auto& cpu : cpus_) {
    cpu->Join();
  }
  const std::lock_guard lock(mutex_);
  return *end_;
}

void Machine::Stop() {
  const std::lock_guard lock(mutex_);
  stop_ = true;
  ended_.notify_all();
}

void Machine::End(MachineEnd why, std::string cause) {
  const std::lock_guard lock(mutex_);
  if (!end_) {
    end_ = why;
    cause_ = std::move(cause);
  }
  ended_.notify_all();
}

}  // namespace kmcl::vmm
