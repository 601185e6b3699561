// A real virtual machine with a guest of our own, some dozens of instructions long: it reads and
// writes Hyper-V's registers, posts a message through its hypercall page, sleeps until an interrupt
// tells it of the answer, and writes down what it saw.
#include "transport/kvm/machine.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cstddef>
#include <string>
#include <thread>

#include "transport/kvm/guest_test_support.h"
#include "transport/test_support.h"

// The guest. It runs at 0x10000 in long mode, with the first 4 GiB mapped to themselves.
//   0x5000 hypercall page    0x6000 SIM page      0x7000 SIEF page
//   0x8000 message to post   0x9000 what it saw (Seen)
asm(R"(
  .pushsection .rodata
  .globl kmcl_test_guest, kmcl_test_guest_end, kmcl_test_guest_vmbus, kmcl_test_guest_gp
  .macro write_register index, low
    movl $\index, %ecx
    movl $\low, %eax
    xorl %edx, %edx
    wrmsr
  .endm
kmcl_test_guest:
    write_register 0x40000000, 1
    write_register 0x40000001, 0x5001
    write_register 0x40000083, 0x6001
    write_register 0x40000082, 0x7001
    write_register 0x40000092, 0xF3
    write_register 0x40000080, 1
    movl $0x40000002, %ecx
    rdmsr
    movq %rax, 0x9000
    movl $0x40000020, %ecx
    rdmsr
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, 0x9008
    rdmsr
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, 0x9010
    movl $0x40000105, %ecx     # not there
    rdmsr
    movl $0xFEE000F0, %edi     # turn the local APIC on
    movl $0x1FF, (%rdi)
    movl $0x5C, %ecx           # HvPostMessage
    movl $0x8000, %edx
    xorl %r8d, %r8d
    movl $0x5000, %eax
    call *%rax
    movq %rax, 0x9018
    movl $0x1005D, %ecx        # HvSignalEvent, fast
    movl $0x2007, %edx
    movl $0x5000, %eax
    call *%rax
    movq %rax, 0x9020
    movl $0x40, %ecx           # no such hypercall
    movl $0x5000, %eax
    call *%rax
    movq %rax, 0x9028
1:  cli
    cmpq $0, 0x9030
    jne 2f
    sti
    hlt
    jmp 1b
2:  movq 0x6210, %rax          # the payload
    movq %rax, 0x9038
    movl $0, 0x6200            # the slot is free
    write_register 0x40000084, 0
    outl %eax, $0xF4
kmcl_test_guest_vmbus:
    incq 0x9030
    movl $0xFEE000B0, %edi     # end of interrupt
    movl $0, (%rdi)
    iretq
kmcl_test_guest_gp:
    incq 0x9040
    addq $8, %rsp              # the error code
    addq $2, (%rsp)            # over the RDMSR
    iretq
kmcl_test_guest_end:
  .purgem write_register
  .popsection
)");
extern "C" const char kmcl_test_guest[];
extern "C" const char kmcl_test_guest_end[];
extern "C" const char kmcl_test_guest_vmbus[];
extern "C" const char kmcl_test_guest_gp[];

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kMemoryBytes = 1 << 20;
constexpr std::uint64_t kCode = 0x10000;
constexpr std::uint64_t kStack = 0x20000;
constexpr std::uint64_t kGdt = 0x1000;
constexpr std::uint64_t kIdt = 0x2000;
constexpr std::uint64_t kPageTables = 0x30000;
constexpr std::uint16_t kDonePort = 0xF4;

struct Seen {
  std::uint64_t vp_index;
  std::uint64_t time_before;
  std::uint64_t time_after;
  std::uint64_t post_status;
  std::uint64_t signal_status;
  std::uint64_t unknown_status;
  std::uint64_t interrupts;
  char payload[8];
  std::uint64_t faults;
};

class MachineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    kvm = Descriptor(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) GTEST_SKIP() << "no usable /dev/kvm: " << std::strerror(errno);
    vm = Descriptor(ioctl(kvm.get(), KVM_CREATE_VM, 0));
    if (!vm) GTEST_SKIP() << "KVM makes no machine: " << std::strerror(errno);
    ASSERT_EQ(ioctl(vm.get(), KVM_SET_TSS_ADDR, 0xFFFBD000UL), 0);
    ASSERT_EQ(ioctl(vm.get(), KVM_CREATE_IRQCHIP, 0), 0);
    file = MakeMemoryFile(kMemoryBytes / 4096);
    memory = Mapping(static_cast<std::byte*>(mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE,
                                                  MAP_SHARED, file.get(), 0)),
                     kMemoryBytes);
    const kvm_userspace_memory_region region{
        .slot = 0,
        .flags = 0,
        .guest_phys_addr = 0,
        .memory_size = kMemoryBytes,
        .userspace_addr = reinterpret_cast<std::uint64_t>(memory.base())};
    ASSERT_EQ(ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &region), 0);
    vcpu = Descriptor(ioctl(vm.get(), KVM_CREATE_VCPU, 0));
    ASSERT_TRUE(static_cast<bool>(vcpu));
    const int run_bytes = ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    ASSERT_GT(run_bytes, 0);
    run_mapping =
        Mapping(static_cast<std::byte*>(mmap(nullptr, static_cast<std::size_t>(run_bytes),
                                             PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0)),
                static_cast<std::size_t>(run_bytes));

    const int processor = vcpu.get();
    const MemorySlot slot{.guest_address = 0, .bytes = kMemoryBytes, .fd = file.get()};
    auto made = Machine::Create({.kvm = kvm.get(),
                                 .vm = vm.get(),
                                 .processors = {&processor, 1},
                                 .slots = {&slot, 1},
                                 .synic = SynicKind::kUser});
    if (!made && made.error() == Error::kKvmUnsupported) GTEST_SKIP() << "KVM lacks what it needs";
    ASSERT_TRUE(made.has_value());
    machine = *std::move(made);
    LoadGuest();
    SetCpuid();
    ASSERT_TRUE(machine->Start().has_value());
  }

  template <typename T>
  T& At(std::uint64_t address) {
    return *reinterpret_cast<T*>(memory.base() + address);
  }

  void PutGate(int vector, const char* handler) {
    const std::uint64_t address = kCode + static_cast<std::uint64_t>(handler - kmcl_test_guest);
    At<std::uint64_t>(kIdt + static_cast<std::uint64_t>(vector) * 16) =
        (address & 0xFFFF) | 0x8u << 16 | std::uint64_t{0x8E00} << 32 | (address >> 16) << 48;
  }

  void LoadGuest() {
    std::memcpy(&At<char>(kCode), kmcl_test_guest,
                static_cast<std::size_t>(kmcl_test_guest_end - kmcl_test_guest));
    At<std::uint64_t>(kGdt + 8) = 0x00AF9B000000FFFF;   // code, 64 bits
    At<std::uint64_t>(kGdt + 16) = 0x00CF93000000FFFF;  // data
    PutGate(13, kmcl_test_guest_gp);
    PutGate(0xF3, kmcl_test_guest_vmbus);
    // 4 GiB in pages of 2 MiB.
    At<std::uint64_t>(kPageTables) = (kPageTables + 0x1000) | 3;
    for (std::uint64_t directory = 0; directory < 4; ++directory) {
      const std::uint64_t table = kPageTables + 0x2000 + directory * 0x1000;
      At<std::uint64_t>(kPageTables + 0x1000 + directory * 8) = table | 3;
      for (std::uint64_t entry = 0; entry < 512; ++entry) {
        At<std::uint64_t>(table + entry * 8) = (directory << 30 | entry << 21) | 0x83;
      }
    }
    kvm_sregs special{};
    ASSERT_EQ(ioctl(vcpu.get(), KVM_GET_SREGS, &special), 0);
    kvm_segment segment{};
    segment.limit = 0xFFFFFFFF;
    segment.present = 1;
    segment.s = 1;
    segment.g = 1;
    segment.selector = 8;
    segment.type = 0xB;
    segment.l = 1;
    special.cs = segment;
    segment.selector = 16;
    segment.type = 3;
    segment.l = 0;
    segment.db = 1;
    special.ds = special.es = special.ss = segment;
    special.gdt = {.base = kGdt, .limit = 23, .padding = {}};
    special.idt = {.base = kIdt, .limit = 0xFFF, .padding = {}};
    special.cr0 = 0x80000031;
    special.cr3 = kPageTables;
    special.cr4 = 0x20;
    special.efer = 0x500;
    ASSERT_EQ(ioctl(vcpu.get(), KVM_SET_SREGS, &special), 0);
    kvm_regs registers{};
    registers.rip = kCode;
    registers.rsp = kStack;
    registers.rflags = 2;
    ASSERT_EQ(ioctl(vcpu.get(), KVM_SET_REGS, &registers), 0);
    std::memset(&At<char>(0x9000), 0, sizeof(Seen));
    At<std::uint32_t>(0x8000) = 4;
    At<std::uint32_t>(0x8008) = 1;
    At<std::uint32_t>(0x800C) = 8;
    std::memcpy(&At<char>(0x8010), "question", 8);
  }

  void SetCpuid() {
    std::vector<std::byte> bytes(sizeof(kvm_cpuid2) + 256 * sizeof(kvm_cpuid_entry2));
    auto& list = *reinterpret_cast<kvm_cpuid2*>(bytes.data());
    list.nent = 256;
    ASSERT_EQ(ioctl(kvm.get(), KVM_GET_SUPPORTED_CPUID, &list), 0);
    std::vector<kvm_cpuid_entry2> entries(list.entries, list.entries + list.nent);
    machine->EditCpuid(entries);
    ASSERT_LE(entries.size(), 256u);
    list.nent = static_cast<std::uint32_t>(entries.size());
    std::ranges::copy(entries, list.entries);
    ASSERT_EQ(ioctl(vcpu.get(), KVM_SET_CPUID2, &list), 0);
  }

  // Runs the guest until it is done. Empty when it was; else what happened.
  std::string Run() {
    auto& run = *reinterpret_cast<kvm_run*>(run_mapping.base());
    while (true) {
      if (ioctl(vcpu.get(), KVM_RUN, 0) != 0) {
        if (errno == EINTR) continue;
        return std::strerror(errno);
      }
      if (machine->HandleExit(0, run)) continue;
      if (run.exit_reason == KVM_EXIT_IO && run.io.port == kDonePort) return {};
      return "exit " + std::to_string(run.exit_reason);
    }
  }

  Descriptor kvm;
  Descriptor vm;
  Descriptor vcpu;
  Descriptor file;
  Mapping memory;
  Mapping run_mapping;
  std::unique_ptr<Machine> machine;
};

TEST_F(MachineTest, AGuestPostsAMessageAndIsInterruptedByTheAnswer) {
  const auto listener = machine->Listen();
  std::string end;
  std::thread processor([&] { end = Run(); });

  EXPECT_TRUE(WaitFor(listener->fd()));
  auto accepted = listener->Accept();
  EXPECT_TRUE(accepted && *accepted != nullptr);
  if (accepted && *accepted != nullptr) {
    Link& link = **accepted;
    EXPECT_TRUE(WaitFor(link.message_fd()));
    std::array<std::byte, kMaximumMessageBytes> buffer;
    const ReceivedMessage received = link.Receive(buffer);
    EXPECT_EQ(received.status, ReceiveStatus::kMessage);
    EXPECT_EQ(received.bytes, 8u);
    EXPECT_EQ(std::memcmp(buffer.data(), "question", 8), 0);
    EXPECT_TRUE(link.Send(Bytes(std::string("answered"))).has_value());
  }
  processor.join();
  EXPECT_EQ(end, "");
  const Seen& seen = At<Seen>(0x9000);
  EXPECT_EQ(seen.vp_index, 0u);
  EXPECT_GT(seen.time_after, seen.time_before);
  // The host reads the same clock: not less than the guest did, and a minute more at most.
  const auto time = machine->ReferenceTime();
  ASSERT_TRUE(time.has_value());
  EXPECT_GE(*time + 10'000, seen.time_after);  // a millisecond, for what the two may be apart
  EXPECT_LE(*time, seen.time_after + 600'000'000);
  EXPECT_EQ(seen.faults, 1u);
  EXPECT_EQ(seen.post_status, 0x00u);
  EXPECT_EQ(seen.signal_status, 0x12u);
  EXPECT_EQ(seen.unknown_status, 0x02u);
  EXPECT_EQ(seen.interrupts, 1u);
  EXPECT_EQ(std::string(seen.payload, 8), "answered");

  // The next life begins as the first did.
  accepted->reset();
  machine->Reset();
  LoadGuest();
  At<std::uint32_t>(0x6200) = 0;
  std::thread again([&] { end = Run(); });
  EXPECT_TRUE(WaitFor(listener->fd()));
  accepted = listener->Accept();
  ASSERT_TRUE(accepted && *accepted != nullptr);
  EXPECT_TRUE((*accepted)->Send(Bytes(std::string("the next"))).has_value());
  again.join();
  EXPECT_EQ(end, "");
  EXPECT_EQ(std::string(seen.payload, 8), "the next");
}

TEST_F(MachineTest, TheKernelsSynicIsRefusedWhereItIsNot) {
  if (KernelSynic::IsThere(kvm.get())) GTEST_SKIP() << "KVM has a SynIC";
  const int processor = vcpu.get();
  const MemorySlot slot{.guest_address = 0, .bytes = kMemoryBytes, .fd = file.get()};
  const auto made = Machine::Create({.kvm = kvm.get(),
                                     .vm = vm.get(),
                                     .processors = {&processor, 1},
                                     .slots = {&slot, 1},
                                     .synic = SynicKind::kKernel});
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error(), Error::kKvmUnsupported);
}

}  // namespace
}  // namespace kmcl::transport::kvm
