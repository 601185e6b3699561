#include "transport/kvm/machine.h"

#include <cpuid.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <utility>

#include "errno_text.h"
#include "log.h"
#include "transport/kvm/cpuid.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint32_t kTscRegister = 0x10;
constexpr std::uint32_t kLocalApic = 0xFEE00000;
constexpr std::uint32_t kApicIdShift = 12;

// The counter goes at one rate, whatever the processor does.
bool HasInvariantTsc() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) != 0 && (edx >> 8 & 1) != 0;
}

bool Has(int descriptor, int capability) {
  return ioctl(descriptor, KVM_CHECK_EXTENSION, capability) > 0;
}

}  // namespace

Machine::Machine(const MachineOptions& options, std::unique_ptr<GuestMemory> memory)
    : vm_(options.vm),
      processors_(options.processors.begin(), options.processors.end()),
      hypercall_port_(options.hypercall_port),
      tsc_is_invariant_(HasInvariantTsc()),
      memory_(std::move(memory)),
      synic_(*memory_, *this, processor_count()),
      enlightenments_(*memory_, *this, synic_, processor_count(), hypercall_port_) {}

Result<std::unique_ptr<Machine>> Machine::Create(const MachineOptions& options) {
  const bool has_kernel = KernelSynic::IsThere(options.kvm);
  if (options.synic == SynicKind::kKernel && !has_kernel) {
    Log(LogLevel::kError, "kvm: there is no SynIC in the kernel");
    return std::unexpected(Error::kKvmUnsupported);
  }
  const bool in_kernel = has_kernel && options.synic != SynicKind::kUser;
  for (const auto& [capability, name] :
       {std::pair{KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
        std::pair{KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
        std::pair{KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
        std::pair{KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"}}) {
    if (in_kernel || Has(options.kvm, capability)) continue;
    Log(LogLevel::kError, "kvm: there is no %s, which the SynIC needs", name);
    return std::unexpected(Error::kKvmUnsupported);
  }
  auto memory = GuestMemory::Create(options.slots);
  if (!memory) return std::unexpected(memory.error());
  std::unique_ptr<Machine> machine(new Machine(options, *std::move(memory)));
  if (in_kernel) {
    auto kernel = KernelSynic::Create(options.vm, options.processors, machine->synic_);
    if (!kernel) return std::unexpected(kernel.error());
    machine->kernel_ = *std::move(kernel);
  }
  auto bus = GuestBus::Create(*machine->memory_, machine->synic_, machine->processor_count(),
                              machine->kernel_.get());
  if (!bus) return std::unexpected(bus.error());
  machine->bus_ = *std::move(bus);
  Log(LogLevel::kInfo, "kvm: SynIC in %s, %u processors", in_kernel ? "the kernel" : "user space",
      machine->processor_count());
  return machine;
}

void Machine::EditCpuid(std::vector<kvm_cpuid_entry2>& entries) const {
  MakeHyperVCpuid(entries,
                  {.processor_count = processor_count(), .reference_tsc = tsc_is_invariant_});
}

Result<void> Machine::Start() { return kernel_ != nullptr ? kernel_->Start() : StartInUserSpace(); }

Result<void> Machine::StartInUserSpace() {
  // Only accesses that the filter refuses leave the kernel: other registers stay KVM's.
  kvm_enable_cap user_space{};
  user_space.cap = KVM_CAP_X86_USER_SPACE_MSR;
  user_space.args[0] = KVM_MSR_EXIT_REASON_FILTER;
  std::array<std::uint8_t, msr::kCount / 8> none_allowed{};
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  filter.ranges[0] = {.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                      .nmsrs = msr::kCount,
                      .base = msr::kFirst,
                      .bitmap = none_allowed.data()};
  if (ioctl(vm_, KVM_ENABLE_CAP, &user_space) != 0 ||
      ioctl(vm_, KVM_X86_SET_MSR_FILTER, &filter) != 0) {
    Log(LogLevel::kError, "kvm: taking over Hyper-V's registers: %s", ErrnoText(errno).words());
    return std::unexpected(Error::kSystemCall);
  }
  const int tsc_khz = ioctl(processors_.front(), KVM_GET_TSC_KHZ);
  // Ten times the clock's rate is the least that it can be computed from.
  if (tsc_khz < 100'000) {
    Log(LogLevel::kError, "kvm: the frequency of the TSC: %s",
        tsc_khz < 0 ? ErrnoText(errno).words() : "too low");
    return std::unexpected(Error::kSystemCall);
  }
  enlightenments_.SetTscFrequency(static_cast<std::uint64_t>(tsc_khz) * 1000, tsc_is_invariant_);
  return {};
}

// ---- Exits

bool Machine::HandleExit(std::uint32_t processor, kvm_run& run) {
  if (kernel_ != nullptr) {
    return run.exit_reason == KVM_EXIT_HYPERV && kernel_->HandleExit(processor, run, *bus_);
  }
  enlightenments_.FollowTime(processor);
  switch (run.exit_reason) {
    case KVM_EXIT_X86_RDMSR:
      return HandleRead(processor, run);
    case KVM_EXIT_X86_WRMSR:
      return HandleWrite(processor, run);
    case KVM_EXIT_IO:
      return HandleOut(processor, run);
    default:
      return false;
  }
}

bool Machine::HandleRead(std::uint32_t processor, kvm_run& run) {
  const std::uint32_t index = run.msr.index;
  if (index - msr::kFirst >= msr::kCount) return false;
  const auto value = enlightenments_.ReadRegister(processor, index);
  run.msr.error = value ? 0 : 1;
  run.msr.data = value.value_or(0);
  if (!value && refused_registers_.Count()) {
    Log(LogLevel::kInfo, "kvm: processor %u reads register 0x%x, which is not there", processor,
        index);
  }
  return true;
}

bool Machine::HandleWrite(std::uint32_t processor, kvm_run& run) {
  const std::uint32_t index = run.msr.index;
  if (index - msr::kFirst >= msr::kCount) return false;
  const bool is_accepted = enlightenments_.WriteRegister(processor, index, run.msr.data);
  run.msr.error = is_accepted ? 0 : 1;
  if (!is_accepted && refused_registers_.Count()) {
    Log(LogLevel::kInfo, "kvm: processor %u writes 0x%llx to register 0x%x: refused", processor,
        static_cast<unsigned long long>(run.msr.data), index);
  }
  return true;
}

bool Machine::HandleOut(std::uint32_t processor, const kvm_run& run) {
  if (run.io.direction != KVM_EXIT_IO_OUT || run.io.port != hypercall_port_ || run.io.size != 4 ||
      run.io.count != 1 || !enlightenments_.hypercalls_enabled()) {
    return false;
  }
  kvm_regs registers{};
  if (ioctl(processors_[processor], KVM_GET_REGS, &registers) != 0) {
    if (failed_calls_.Count()) {
      Log(LogLevel::kError, "kvm: a hypercall's registers: %s", ErrnoText(errno).words());
    }
    return false;
  }
  registers.rax = std::to_underlying(bus_->Call(registers.rcx, registers.rdx));
  // The instruction itself is completed by the next KVM_RUN.
  if (ioctl(processors_[processor], KVM_SET_REGS, &registers) != 0 && failed_calls_.Count()) {
    Log(LogLevel::kError, "kvm: a hypercall's result: %s", ErrnoText(errno).words());
  }
  return true;
}

Result<std::uint64_t> Machine::ReferenceTime() const {
  if (kernel_ == nullptr) return enlightenments_.ReferenceTime();
  // KVM makes the guest's counter and its page of this clock. The registers themselves could only
  // be read while the processor is out of the guest.
  constexpr std::uint64_t kNanosecondsPerUnit = 100;
  kvm_clock_data clock{};
  if (ioctl(vm_, KVM_GET_CLOCK, &clock) != 0) {
    Log(LogLevel::kError, "kvm: the machine's clock: %s", ErrnoText(errno).words());
    return std::unexpected(Error::kSystemCall);
  }
  return clock.clock / kNanosecondsPerUnit;
}

void Machine::Reset() {
  bus_->Reset();
  synic_.Reset();
  enlightenments_.Reset();
  if (kernel_ != nullptr) kernel_->Reset();
}

// ---- Hardware

void Machine::RaiseInterrupt(std::uint32_t processor, std::uint8_t vector) {
  if (kernel_ != nullptr) return kernel_->RaiseInterrupt(processor);
  kvm_msi message{};
  message.address_lo = kLocalApic + (processor << kApicIdShift);
  message.data = vector;
  // 0 says that the guest has the processor's APIC off: then it wants no interrupts.
  if (ioctl(vm_, KVM_SIGNAL_MSI, &message) < 0 && failed_calls_.Count()) {
    Log(LogLevel::kError, "kvm: an interrupt for processor %u: %s", processor,
        ErrnoText(errno).words());
  }
}

std::uint64_t Machine::TimeStamp(std::uint32_t processor) {
  // A kvm_msrs with one entry.
  struct {
    std::uint32_t count;
    std::uint32_t padding;
    kvm_msr_entry entry;
  } request{};
  static_assert(sizeof request == sizeof(kvm_msrs) + sizeof(kvm_msr_entry));
  request.count = 1;
  request.entry.index = kTscRegister;
  if (ioctl(processors_[processor], KVM_GET_MSRS, &request) != 1 && failed_calls_.Count()) {
    Log(LogLevel::kError, "kvm: the TSC of processor %u: %s", processor, ErrnoText(errno).words());
  }
  return request.entry.data;
}

}  // namespace kmcl::transport::kvm
