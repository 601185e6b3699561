#include "vmm/vcpu.h"

#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <mutex>
#include <system_error>

namespace kmcl::vmm {
namespace {

// Interrupts KVM_RUN. The handler does nothing: that the system call returns is all that is wanted.
constexpr int kKickSignal = SIGUSR1;

void InstallKickHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigaction(kKickSignal, &action, nullptr);
  });
}

std::string Hexadecimal(std::uint64_t value) {
  std::array<char, 24> text;
  std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
  return text.data();
}

}  // namespace

Outcome<std::unique_ptr<Vcpu>> Vcpu::Create(int kvm, int vm, unsigned number) {
  InstallKickHandler();
  std::unique_ptr<Vcpu> vcpu(new Vcpu(number));
  vcpu->descriptor_ = Descriptor(ioctl(vm, KVM_CREATE_VCPU, number));
  if (!vcpu->descriptor_.valid()) {
    return FailWithErrno("KVM makes no CPU " + std::to_string(number));
  }
  const int bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  void* const mapped = bytes < static_cast<int>(sizeof(kvm_run))
                           ? MAP_FAILED
                           : mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                                  MAP_SHARED, vcpu->descriptor(), 0);
  if (mapped == MAP_FAILED) {
    return FailWithErrno("cannot map what KVM shares of a CPU");
  }
  vcpu->run_ = static_cast<kvm_run*>(mapped);
  vcpu->run_bytes_ = static_cast<std::size_t>(bytes);
  return vcpu;
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) {
    munmap(run_, run_bytes_);
  }
}

Outcome<void> Vcpu::SetCpuid(int kvm, const std::vector<kvm_cpuid_entry2>& leaves) {
  const std::size_t bytes = sizeof(kvm_cpuid2) + leaves.size() * sizeof(kvm_cpuid_entry2);
  const auto storage = std::make_unique<std::uint64_t[]>(bytes / sizeof(std::uint64_t) + 1);
  auto* const list = reinterpret_cast<kvm_cpuid2*>(storage.get());
  list->nent = static_cast<std::uint32_t>(leaves.size());
  std::copy(leaves.begin(), leaves.end(), list->entries);
  if (ioctl(descriptor(), KVM_SET_CPUID2, list) != 0) {
    return FailWithErrno("KVM does not take the CPUID leaves");
  }
  // Only now: some registers exist only where CPUID says so.
  auto initial = VcpuState::Read(kvm, descriptor());
  if (!initial) {
    return std::unexpected(initial.error());
  }
  initial_ = std::move(*initial);
  return {};
}

Outcome<void> Vcpu::Reset(const std::optional<BootEntry>& entry) {
  return initial_.Write(descriptor(), entry);
}

void Vcpu::Start(const Surroundings& surroundings) {
  stop_.store(false);
  run_->immediate_exit = 0;
  thread_ = std::thread([this, &surroundings] { Run(surroundings); });
}

void Vcpu::RequestStop() {
  stop_.store(true);
  // A thread that is about to enter the guest sees this byte, one that is in it the signal.
  __atomic_store_n(&run_->immediate_exit, std::uint8_t{1}, __ATOMIC_SEQ_CST);
  if (thread_.joinable()) {
    pthread_kill(thread_.native_handle(), kKickSignal);
  }
}

void Vcpu::Join() {
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Vcpu::Run(const Surroundings& surroundings) {
  sigset_t kick;
  sigemptyset(&kick);
  sigaddset(&kick, kKickSignal);
  pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
  while (!stop_.load()) {
    if (ioctl(descriptor(), KVM_RUN, 0) == 0) {
      if (!HandleExit(surroundings)) {
        break;
      }
    } else if (errno != EINTR && errno != EAGAIN) {
      surroundings.failed(Describe(std::string("KVM cannot run the guest: ") +
                                   std::generic_category().message(errno)));
      break;
    }
  }
  // KVM finishes the instruction of an exit when it is entered the next time. It is, but goes no
  // further.
  __atomic_store_n(&run_->immediate_exit, std::uint8_t{1}, __ATOMIC_SEQ_CST);
  (void)ioctl(descriptor(), KVM_RUN, 0);
}

bool Vcpu::HandleExit(const Surroundings& surroundings) {
  if (surroundings.first_handler && surroundings.first_handler(number_, run_)) {
    return true;
  }
  switch (run_->exit_reason) {
    case KVM_EXIT_IO: {
      std::byte* data = reinterpret_cast<std::byte*>(run_) + run_->io.data_offset;
      for (std::uint32_t i = 0; i < run_->io.count; ++i, data += run_->io.size) {
        if (run_->io.direction == KVM_EXIT_IO_OUT) {
          surroundings.ports->Write(run_->io.port, {data, run_->io.size});
        } else {
          surroundings.ports->Read(run_->io.port, {data, run_->io.size});
        }
      }
      return true;
    }
    case KVM_EXIT_MMIO:  // nobody is there
      if (run_->mmio.is_write == 0) {
        std::fill(std::begin(run_->mmio.data), std::end(run_->mmio.data), std::uint8_t{0xFF});
      }
      return true;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      run_->msr.error = 1;  // no such MSR: the guest gets an exception
      return true;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return true;
    case KVM_EXIT_SHUTDOWN:
      surroundings.triple_fault(Describe("a triple fault"));
      return false;
    case KVM_EXIT_FAIL_ENTRY:
      surroundings.failed(Describe("the processor does not enter the guest, reason " +
                                   Hexadecimal(run_->fail_entry.hardware_entry_failure_reason)));
      return false;
    case KVM_EXIT_INTERNAL_ERROR:
      surroundings.failed(
          Describe("KVM failed inside, kind " + std::to_string(run_->internal.suberror)));
      return false;
    default:
      surroundings.failed(Describe("the guest did what has no meaning here, exit " +
                                   std::to_string(run_->exit_reason)));
      return false;
  }
}

std::string Vcpu::Describe(const std::string& what) const {
  kvm_regs registers{};
  (void)ioctl(descriptor(), KVM_GET_REGS, &registers);
  return "CPU " + std::to_string(number_) + " at " + Hexadecimal(registers.rip) + ": " + what;
}

}  // namespace kmcl::vmm
