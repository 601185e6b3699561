// Wrong arguments give the documented status and leave everything as it was (KMCL reference 10).
#include <array>
#include <cstdint>

#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

Recorder& Sent() {
  static Recorder recorder;
  return recorder;
}

void CountCompletion(VMBPACKET, NTSTATUS, PVOID, UINT32) { Sent().Record("done"); }

class Arguments : public DirectTest {
 protected:
  void EnableBoth() {
    Configure(server_channel_);
    ASSERT_EQ(
        Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr)),
        STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
    VmbChannelStart(server_channel_);
  }

  alignas(16) std::array<unsigned char, 64> bytes_{};
};

TEST_F(Arguments, AllocateRefusesNull) {
  VMBCHANNEL channel = client_channel_;
  EXPECT_EQ(Status(VmbChannelAllocate(nullptr, TRUE, &channel)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(channel, nullptr);
  EXPECT_EQ(Status(VmbChannelAllocate(KmclServerDeviceObject(server_), TRUE, nullptr)),
            STATUS_INVALID_PARAMETER_3);
}

TEST_F(Arguments, AllocateRefusesADeviceThatIsNoEndpointsOrTheOtherEnds) {
  DEVICE_OBJECT device{};
  VMBCHANNEL channel = client_channel_;
  EXPECT_EQ(Status(VmbChannelAllocate(&device, FALSE, &channel)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(channel, nullptr);
  EXPECT_EQ(Status(VmbChannelAllocate(KmclServerDeviceObject(server_), FALSE, &channel)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelAllocate(KmclClientDeviceObject(client_), TRUE, &channel)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(channel, nullptr);
}

TEST_F(Arguments, EnableRefusesNullAndAnythingButDisabled) {
  EXPECT_EQ(Status(VmbChannelEnable(nullptr)), STATUS_INVALID_PARAMETER_1);
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  EXPECT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_INVALID_DEVICE_STATE);
}

TEST_F(Arguments, AServerNeedsItsInterfaceAndItsHandle) {
  EXPECT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Status(VmbServerChannelInitSetTargetInterfaceId(server_channel_, kType, kInstance)),
            STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_INVALID_DEVICE_STATE);
  VMBCHANNEL other = Allocate(true);
  EXPECT_EQ(Status(VmbServerChannelInitSetVmbusHandle(other, partition_)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelEnable(other)), STATUS_INVALID_DEVICE_STATE);
  VmbChannelCleanup(other);
}

TEST_F(Arguments, CleanupAndFreeIgnoreNull) {
  VmbChannelCleanup(nullptr);
  VmbPacketFree(nullptr);
  EXPECT_EQ(VmbChannelGetPointer(client_channel_), nullptr);
}

TEST_F(Arguments, PointersStartAsNullAndAreKept) {
  EXPECT_EQ(VmbChannelGetPointer(server_channel_), nullptr);
  VmbChannelSetPointer(server_channel_, &bytes_);
  EXPECT_EQ(VmbChannelGetPointer(server_channel_), &bytes_);
  VmbChannelSetPointer(server_channel_, nullptr);
  EXPECT_EQ(VmbChannelGetPointer(server_channel_), nullptr);
  VMBPACKET const packet = VmbPacketAllocate(client_channel_);
  ASSERT_NE(packet, nullptr);
  EXPECT_EQ(VmbPacketGetPointer(packet), nullptr);
  EXPECT_EQ(VmbPacketGetChannel(packet), client_channel_);
  VmbPacketSetPointer(packet, this);
  EXPECT_EQ(VmbPacketGetPointer(packet), this);
  VmbPacketFree(packet);
}

TEST_F(Arguments, AnInterfaceInstanceIsZeroBeforeThereIsOne) {
  GUID instance = kType;
  VmbChannelGetInterfaceInstance(client_channel_, &instance);
  EXPECT_TRUE(instance == GUID{});
  Configure(server_channel_);
  VmbChannelGetInterfaceInstance(server_channel_, &instance);
  EXPECT_TRUE(instance == kInstance);
}

TEST_F(Arguments, PacketInitializeChecksItsMemory) {
  const UINT32 size = VmbChannelSizeofPacket(client_channel_);
  EXPECT_GT(size, 4096U) << "it holds a packet of the maximum size";
  const auto memory = std::make_unique<std::byte[]>(size);
  auto* const packet = reinterpret_cast<VMBPACKET>(memory.get());
  EXPECT_EQ(Status(VmbPacketInitialize(client_channel_, packet, size - 1)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbPacketInitialize(nullptr, packet, size)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbPacketInitialize(client_channel_, nullptr, size)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbPacketInitialize(client_channel_, packet, size)), STATUS_SUCCESS);
  EXPECT_EQ(VmbPacketGetPointer(packet), nullptr);
  EXPECT_EQ(VmbPacketGetChannel(packet), client_channel_);
}

TEST_F(Arguments, AnInitializedPacketNeedsARoutineBeforeItIsSent) {
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  const UINT32 size = VmbChannelSizeofPacket(client_channel_);
  const auto memory = std::make_unique<std::byte[]>(size);
  auto* const packet = reinterpret_cast<VMBPACKET>(memory.get());
  ASSERT_EQ(Status(VmbPacketInitialize(client_channel_, packet, size)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbPacketSend(packet, bytes_.data(), 8, nullptr, 0)),
            STATUS_INVALID_PARAMETER_1);
  VmbPacketSetCompletionRoutine(packet, CountCompletion);
  const int before = static_cast<int>(Sent().Events().size());
  EXPECT_EQ(Status(VmbPacketSend(packet, bytes_.data(), 8, nullptr, 0)), STATUS_SUCCESS);
  EXPECT_TRUE(Sent().Wait("done", before + 1));
}

TEST_F(Arguments, SendNamesTheBadArgumentAndLeavesThePacketAlone) {
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  MDL mdl{};
  EXPECT_EQ(Status(VmbPacketSend(nullptr, bytes_.data(), 8, nullptr, 0)),
            STATUS_INVALID_PARAMETER_1);
  VMBPACKET const packet = VmbPacketAllocate(client_channel_);
  VmbPacketSetCompletionRoutine(packet, CountCompletion);
  EXPECT_EQ(Status(VmbPacketSend(packet, nullptr, 8, nullptr, 0)), STATUS_INVALID_PARAMETER_2);
  const std::vector<std::byte> long_one(4097);
  EXPECT_EQ(
      Status(VmbPacketSend(packet, const_cast<std::byte*>(long_one.data()), 4097, nullptr, 0)),
      STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbPacketSend(packet, bytes_.data(), 8, &mdl, 1)),
            STATUS_INVALID_PARAMETER_4);  // it describes nothing
  EXPECT_EQ(Status(VmbPacketSend(packet, bytes_.data(), 8, nullptr, 0x8)),
            STATUS_INVALID_PARAMETER_5);
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof(counters);
  ASSERT_EQ(Status(KmclChannelQueryCounters(client_channel_, &counters)), STATUS_SUCCESS);
  EXPECT_EQ(counters.PacketsSent + counters.Queued, 0U);
  // FORCE_MDL_LENGTH and PAGED_BUFFER are legal.
  const int before = static_cast<int>(Sent().Events().size());
  EXPECT_EQ(Status(VmbPacketSend(packet, nullptr, 0, nullptr, 0x6)), STATUS_SUCCESS);
  EXPECT_TRUE(Sent().Wait("done", before + 1));
  VmbPacketFree(packet);
  VMBPACKET const servers = VmbPacketAllocate(server_channel_);
  EXPECT_EQ(Status(VmbPacketSend(servers, bytes_.data(), 8, &mdl, 1)), STATUS_INVALID_PARAMETER_4);
  VmbPacketFree(servers);
}

TEST_F(Arguments, ASynchronousRequestNamesTheBadArgument) {
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  MDL mdl{};
  LARGE_INTEGER now{};
  UINT32 capacity = 8;
  const auto send = [&](VMBCHANNEL channel, PVOID buffer, PMDL described, UINT32 flags) {
    return Status(VmbChannelSendSynchronousRequest(channel, buffer, 8, described, flags,
                                                   bytes_.data() + 8, &capacity, &now));
  };
  EXPECT_EQ(send(nullptr, bytes_.data(), nullptr, 0), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(send(client_channel_, nullptr, nullptr, 0), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(send(client_channel_, bytes_.data(), &mdl, 1), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(send(server_channel_, bytes_.data(), &mdl, 0), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(send(client_channel_, bytes_.data(), nullptr, 0x100), STATUS_INVALID_PARAMETER_5);
  capacity = 9;
  EXPECT_EQ(send(client_channel_, bytes_.data(), nullptr, 0), STATUS_INVALID_PARAMETER_7);
}

TEST_F(Arguments, InterruptLatencyNamesTheBadArgument) {
  UINT16 before = 77;
  EXPECT_EQ(Status(VmbChannelSetInterruptLatency(server_channel_, 1, &before)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelSetInterruptLatency(nullptr, 1, &before)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelSetInterruptLatency(client_channel_, 1, nullptr)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbChannelSetInterruptLatency(client_channel_, 1, &before)),
            STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(before, 77);
}

TEST_F(Arguments, BusHandlesAreDuplicatedAndClosed) {
  HANDLE kernel = nullptr;
  EXPECT_EQ(Status(VmbConvertVmbusHandleToKernelHandle(nullptr, &kernel)), STATUS_INVALID_HANDLE);
  EXPECT_EQ(Status(VmbConvertVmbusHandleToKernelHandle(partition_, nullptr)),
            STATUS_INVALID_PARAMETER_2);
  ASSERT_EQ(Status(VmbConvertVmbusHandleToKernelHandle(partition_, &kernel)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbServerChannelInitSetTargetInterfaceId(server_channel_, kType, kInstance)),
            STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbServerChannelInitSetVmbusHandle(server_channel_, kernel)), STATUS_SUCCESS);
  EXPECT_EQ(Status(ZwClose(kernel)), STATUS_SUCCESS);
  EXPECT_EQ(Status(NtClose(kernel)), STATUS_INVALID_HANDLE);
  EXPECT_EQ(Status(NtClose(nullptr)), STATUS_INVALID_HANDLE);
  EXPECT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
}

TEST_F(Arguments, TheWaitPolicyIsSetInTheInitWindow) {
  EXPECT_EQ(Status(KmclChannelInitSetWaitPolicy(nullptr, KMCL_SPIN_NEVER)),
            STATUS_INVALID_PARAMETER_1);
  for (const ULONG spin : {KMCL_SPIN_NEVER, ULONG{30}, KMCL_SPIN_ADAPTIVE}) {
    EXPECT_EQ(Status(KmclChannelInitSetWaitPolicy(server_channel_, spin)), STATUS_SUCCESS);
    EXPECT_EQ(Status(KmclChannelInitSetWaitPolicy(client_channel_, spin)), STATUS_SUCCESS);
  }
  ASSERT_EQ(Status(VmbServerChannelInitSetTargetInterfaceId(server_channel_, kType, kInstance)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbServerChannelInitSetVmbusHandle(server_channel_, partition_)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  EXPECT_EQ(Status(KmclChannelInitSetWaitPolicy(server_channel_, KMCL_SPIN_NEVER)),
            STATUS_INVALID_PARAMETER_1);
}

TEST_F(Arguments, CountersCheckTheirStructure) {
  KMCL_CHANNEL_COUNTERS counters{};
  EXPECT_EQ(Status(KmclChannelQueryCounters(client_channel_, &counters)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclChannelQueryCounters(client_channel_, nullptr)), STATUS_INVALID_PARAMETER_2);
  counters.Size = sizeof(counters);
  EXPECT_EQ(Status(KmclChannelQueryCounters(nullptr, &counters)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclChannelQueryCounters(client_channel_, &counters)), STATUS_SUCCESS);
}

TEST_F(Arguments, TheDefaultPacketSizeIs4096AndRaisesWithTheLimit) {
  const UINT32 size = VmbChannelSizeofPacket(server_channel_);
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketSize(server_channel_, 8192)), STATUS_SUCCESS);
  EXPECT_GE(VmbChannelSizeofPacket(server_channel_), size + 4096);
}

}  // namespace

}  // namespace kmcl::contract
