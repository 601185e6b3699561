// The edge of kmcl/kvm.h: what is refused, and with which status; and a whole life without a guest,
// where there is a KVM.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kmcl/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "transport/descriptor.h"
#include "transport/kvm/kvm_headers.h"

namespace kmcl::api {
namespace {

using transport::Descriptor;

constexpr UINT64 kMemoryBytes = 1 << 20;

// Options that only KVM can object to: the descriptors are of other kinds.
class KvmArguments : public ::testing::Test {
 protected:
  KvmArguments() : file(memfd_create("kmcl-test-guest", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(file.get(), kMemoryBytes), 0);
    slot = {.GuestAddress = 0, .Bytes = kMemoryBytes, .Descriptor = file.get(), .Offset = 0};
    vcpu = file.get();
    KmclKvmOptionsInit(&options);
    options.Kvm = file.get();
    options.Vm = file.get();
    options.VcpuCount = 1;
    options.Vcpus = &vcpu;
    options.SlotCount = 1;
    options.Slots = &slot;
  }

  NTSTATUS Create() { return KmclKvmServerCreate(&options, nullptr, &server, &kvm); }

  Descriptor file;
  KMCL_KVM_SLOT slot{};
  int vcpu = -1;
  KMCL_KVM_OPTIONS options{};
  KMCL_SERVER server = nullptr;
  KMCL_KVM kvm = nullptr;
};

TEST_F(KvmArguments, EachIsNamedByItsNumber) {
  EXPECT_EQ(KmclKvmServerCreate(nullptr, nullptr, &server, &kvm), STATUS_INVALID_PARAMETER_1);
  KMCL_ENDPOINT_OPTIONS endpoint;
  KmclEndpointOptionsInit(&endpoint);
  endpoint.DispatchThreads = 0;
  EXPECT_EQ(KmclKvmServerCreate(&options, &endpoint, &server, &kvm), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(KmclKvmServerCreate(&options, nullptr, nullptr, &kvm), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(KmclKvmServerCreate(&options, nullptr, &server, nullptr), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(KmclKvmEditCpuid(nullptr, nullptr, nullptr, 0), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(KmclKvmStart(nullptr), STATUS_INVALID_PARAMETER_1);
  UINT64 time = 0;
  EXPECT_EQ(KmclKvmReferenceTime(nullptr, &time), STATUS_INVALID_PARAMETER_1);
  KMCL_KVM_COUNTERS counters{};
  EXPECT_EQ(KmclKvmQueryCounters(nullptr, &counters), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(KmclKvmUpdateSlots(nullptr, 1, &slot), STATUS_INVALID_PARAMETER_1);
  EXPECT_FALSE(KmclKvmHandleExit(nullptr, 0, nullptr));
  KmclKvmReset(nullptr);
  KmclKvmDestroy(nullptr);
}

TEST_F(KvmArguments, OptionsOutOfRangeAreRefused) {
  const KMCL_KVM_OPTIONS good = options;
  const auto refused = [&](auto change) {
    options = good;
    change(options);
    return Create() == STATUS_INVALID_PARAMETER_1;
  };
  EXPECT_TRUE(refused([](auto& o) { --o.Size; }));
  EXPECT_TRUE(refused([](auto& o) { o.Kvm = -1; }));
  EXPECT_TRUE(refused([](auto& o) { o.Vm = -1; }));
  EXPECT_TRUE(refused([](auto& o) { o.VcpuCount = 0; }));
  EXPECT_TRUE(refused([](auto& o) { o.VcpuCount = KMCL_KVM_MAXIMUM_VCPUS + 1; }));
  EXPECT_TRUE(refused([](auto& o) { o.Vcpus = nullptr; }));
  EXPECT_TRUE(refused([](auto& o) { o.SlotCount = 0; }));
  EXPECT_TRUE(refused([](auto& o) { o.Slots = nullptr; }));
  EXPECT_TRUE(refused([](auto& o) { o.Synic = 3; }));
  EXPECT_TRUE(refused([](auto& o) { o.HypercallPort = 0x100; }));
}

TEST_F(KvmArguments, WhatIsNoKvmHasNoCapabilities) {
  EXPECT_EQ(Create(), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(server, nullptr);
  EXPECT_EQ(kvm, nullptr);
}

TEST(KvmAcpiTable, IsThereForEverybody) {
  const VOID* table = nullptr;
  SIZE_T bytes = 0;
  KmclKvmAcpiTable(&table, &bytes);
  ASSERT_GT(bytes, 36u);
  EXPECT_EQ(std::memcmp(table, "SSDT", 4), 0);
  KmclKvmAcpiTable(nullptr, nullptr);
}

class KvmLife : public KvmArguments {
 protected:
  void SetUp() override {
    kvm_file = Descriptor(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm_file) GTEST_SKIP() << "no usable /dev/kvm: " << std::strerror(errno);
    vm = Descriptor(ioctl(kvm_file.get(), KVM_CREATE_VM, 0));
    if (!vm) GTEST_SKIP() << "KVM makes no machine: " << std::strerror(errno);
    ASSERT_EQ(ioctl(vm.get(), KVM_SET_TSS_ADDR, 0xFFFBD000UL), 0);
    ASSERT_EQ(ioctl(vm.get(), KVM_CREATE_IRQCHIP, 0), 0);
    vcpu_file = Descriptor(ioctl(vm.get(), KVM_CREATE_VCPU, 0));
    ASSERT_TRUE(static_cast<bool>(vcpu_file));
    options.Kvm = kvm_file.get();
    options.Vm = vm.get();
    vcpu = vcpu_file.get();
  }

  Descriptor kvm_file;
  Descriptor vm;
  Descriptor vcpu_file;
};

TEST_F(KvmLife, IsMadeStartedResetAndEndedWithoutAGuest) {
  ASSERT_EQ(Create(), STATUS_SUCCESS);
  ASSERT_NE(KmclServerDeviceObject(server), nullptr);

  std::array<kvm_cpuid_entry2, 8> entries{};
  entries[0].function = 1;
  entries[1].function = 0x40000100;
  ULONG count = 2;
  EXPECT_EQ(KmclKvmEditCpuid(kvm, entries.data(), &count, 6), STATUS_BUFFER_TOO_SMALL);
  EXPECT_EQ(count, 7u);
  EXPECT_EQ(entries[0].ecx, 0u);
  count = 2;
  EXPECT_EQ(KmclKvmEditCpuid(kvm, nullptr, &count, 8), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(KmclKvmEditCpuid(kvm, entries.data(), nullptr, 8), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(KmclKvmEditCpuid(kvm, entries.data(), &count, 1), STATUS_INVALID_PARAMETER_3);
  ASSERT_EQ(KmclKvmEditCpuid(kvm, entries.data(), &count, 8), STATUS_SUCCESS);
  EXPECT_EQ(count, 7u);
  EXPECT_EQ(entries[0].ecx, 1u << 31);
  EXPECT_EQ(entries[1].function, 0x40000000u);

  // A KVM_SET_CPUID2 would come here; the guest that is never run does not miss it.
  UINT64 before = 0;
  EXPECT_EQ(KmclKvmReferenceTime(kvm, &before), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(KmclKvmReferenceTime(kvm, nullptr), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(KmclKvmStart(kvm), STATUS_SUCCESS);
  ASSERT_EQ(KmclKvmReferenceTime(kvm, &before), STATUS_SUCCESS);
  UINT64 after = before;
  while (after == before) ASSERT_EQ(KmclKvmReferenceTime(kvm, &after), STATUS_SUCCESS);
  EXPECT_GT(after, before);
  KMCL_KVM_COUNTERS counters{};
  EXPECT_EQ(KmclKvmQueryCounters(kvm, nullptr), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(KmclKvmQueryCounters(kvm, &counters), STATUS_INVALID_PARAMETER_2);
  counters.Size = sizeof counters;
  ASSERT_EQ(KmclKvmQueryCounters(kvm, &counters), STATUS_SUCCESS);
  EXPECT_TRUE(counters.Synic == KMCL_KVM_SYNIC_KERNEL || counters.Synic == KMCL_KVM_SYNIC_USER);
  EXPECT_EQ(counters.Messages + counters.Signals + counters.Refused + counters.ChannelsInKernel,
            0u);

  const Descriptor more(memfd_create("kmcl-test-more", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(more.get(), kMemoryBytes), 0);
  std::array slots{slot, KMCL_KVM_SLOT{.GuestAddress = kMemoryBytes,
                                       .Bytes = kMemoryBytes,
                                       .Descriptor = more.get(),
                                       .Offset = 0}};
  EXPECT_EQ(KmclKvmUpdateSlots(kvm, 0, slots.data()), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(KmclKvmUpdateSlots(kvm, 1, nullptr), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(KmclKvmUpdateSlots(kvm, 1, &slots[1]), STATUS_NOT_SUPPORTED);
  slots[1].GuestAddress -= 4096;
  EXPECT_EQ(KmclKvmUpdateSlots(kvm, 2, slots.data()), STATUS_INVALID_PARAMETER_3);
  slots[1].GuestAddress += 4096;
  slots[1].Descriptor = kvm_file.get();
  EXPECT_EQ(KmclKvmUpdateSlots(kvm, 2, slots.data()), STATUS_DATA_ERROR);
  slots[1].Descriptor = more.get();
  EXPECT_EQ(KmclKvmUpdateSlots(kvm, 2, slots.data()), STATUS_SUCCESS);

  kvm_run run{};
  run.exit_reason = KVM_EXIT_HLT;
  EXPECT_FALSE(KmclKvmHandleExit(kvm, 0, &run));
  EXPECT_FALSE(KmclKvmHandleExit(kvm, 1, &run));
  KmclKvmReset(kvm);
  KmclServerDestroy(server);
  KmclKvmDestroy(kvm);
}

TEST_F(KvmLife, SlotsThatAreNoMemoryAreRefused) {
  slot.Bytes = 2 * kMemoryBytes;
  EXPECT_EQ(Create(), STATUS_INVALID_PARAMETER_1);
  slot.Bytes = kMemoryBytes;
  slot.Descriptor = kvm_file.get();
  EXPECT_EQ(Create(), STATUS_DATA_ERROR);
  const std::array two{
      KMCL_KVM_SLOT{.GuestAddress = 0, .Bytes = 8192, .Descriptor = file.get(), .Offset = 0},
      KMCL_KVM_SLOT{.GuestAddress = 4096, .Bytes = 4096, .Descriptor = file.get(), .Offset = 8192}};
  options.Slots = two.data();
  options.SlotCount = 2;
  EXPECT_EQ(Create(), STATUS_INVALID_PARAMETER_1);
}

}  // namespace
}  // namespace kmcl::api
