// The acceptance points and statuses of single functions that no scenario of the other files meets
// (KMCL reference 10 and 15).
#include <cstring>
#include <vector>

#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

class Statuses : public DirectTest {
 protected:
  void EnableBoth() {
    Configure(server_channel_);
    ASSERT_EQ(
        Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr)),
        STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
    VmbChannelStart(server_channel_);
    ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
  }

  static Status Request(VMBCHANNEL channel, UINT32 bytes, PLARGE_INTEGER timeout) {
    std::vector<std::byte> payload(bytes);
    return {VmbChannelSendSynchronousRequest(channel, payload.data(), bytes, nullptr, 0, nullptr,
                                             nullptr, timeout)};
  }
};

TEST_F(Statuses, EnableWithoutALiveBusIsNoSuchDevice) {
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, nullptr, nullptr)),
            STATUS_SUCCESS);
  VMBCHANNEL other = nullptr;
  KMCL_CLIENT leaving = nullptr;
  ASSERT_EQ(Status(KmclClientConnect(address_.c_str(), nullptr, &leaving)), STATUS_SUCCESS);
  ASSERT_TRUE(recorder_.Wait("arrived", 2));
  other = Allocate(true);
  Configure(other);  // the partition that arrived last
  KmclClientDestroy(leaving);
  ASSERT_TRUE(recorder_.Wait("gone", 1));
  EXPECT_EQ(Status(VmbChannelEnable(other)), STATUS_NO_SUCH_DEVICE);
  VmbChannelCleanup(other);
  // The other partition stands.
  EXPECT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
}

TEST_F(Statuses, AMaximumPacketThatNoRingHoldsIsRefused) {
  for (VMBCHANNEL channel : {server_channel_, client_channel_}) {
    EXPECT_EQ(Status(VmbChannelInitSetMaximumPacketSize(channel, 0xFFFFFFFFU)),
              STATUS_INVALID_PARAMETER_2);
    EXPECT_EQ(Status(VmbChannelInitSetMaximumPacketSize(channel, 524'256)), STATUS_SUCCESS);
    EXPECT_EQ(Status(VmbChannelInitSetMaximumPacketSize(channel, 524'257)),
              STATUS_INVALID_PARAMETER_2);
  }
}

TEST_F(Statuses, AContextBeyondAMegabyteIsRefused) {
  EXPECT_EQ(Status(VmbChannelInitSetClientContextSize(server_channel_, 1U << 20)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelInitSetClientContextSize(server_channel_, (1U << 20) + 1)),
            STATUS_INVALID_PARAMETER_2);
}

TEST_F(Statuses, ANameWithALengthNeedsABuffer) {
  UNICODE_STRING name{2, 2, nullptr};
  EXPECT_EQ(Status(VmbChannelInitSetFriendlyName(client_channel_, &name)),
            STATUS_INVALID_PARAMETER_2);
  name.Length = 0;
  EXPECT_EQ(Status(VmbChannelInitSetFriendlyName(client_channel_, &name)), STATUS_SUCCESS);
}

TEST_F(Statuses, PacketMemoryIsAlignedTo16) {
  const UINT32 size = VmbChannelSizeofPacket(client_channel_);
  alignas(16) static std::byte memory[65536];
  ASSERT_LE(size + 16, sizeof(memory));
  for (const std::size_t offset : {1U, 4U, 8U, 15U}) {
    EXPECT_EQ(Status(VmbPacketInitialize(client_channel_,
                                         reinterpret_cast<VMBPACKET>(memory + offset), size)),
              STATUS_INVALID_PARAMETER_2)
        << offset;
  }
  EXPECT_EQ(
      Status(VmbPacketInitialize(client_channel_, reinterpret_cast<VMBPACKET>(memory + 16), size)),
      STATUS_SUCCESS);
}

TEST_F(Statuses, ASynchronousRequestOnADisabledChannelIsRefused) {
  LARGE_INTEGER now{};
  EXPECT_EQ(Request(server_channel_, 8, &now), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Request(client_channel_, 8, &now), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Request(client_channel_, 8, nullptr), STATUS_INVALID_DEVICE_STATE);
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  VmbChannelDisable(client_channel_);
  EXPECT_EQ(Request(client_channel_, 8, nullptr), STATUS_INVALID_DEVICE_STATE);
}

TEST_F(Statuses, ASynchronousRequestIsNotLongerThanAPacket) {
  LARGE_INTEGER now{};
  EXPECT_EQ(Request(client_channel_, 4097, nullptr), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Request(server_channel_, 4097, &now), STATUS_INVALID_PARAMETER_3);
}

// 5.7: a send on a Disabled channel is refused, and the packet stays the driver's.
TEST_F(Statuses, ASendOnADisabledChannelIsRefused) {
  for (VMBCHANNEL channel : {server_channel_, client_channel_}) {
    VMBPACKET const packet = VmbPacketAllocate(channel);
    ASSERT_NE(packet, nullptr);
    UINT64 payload = 1;
    EXPECT_EQ(Status(VmbPacketSend(packet, &payload, 8, nullptr, 0)), STATUS_INVALID_DEVICE_STATE);
    VmbPacketFree(packet);  // twice freed, had its default routine been called
  }
}

// 5.1: the capacity is the maximum packet size in force when the packet was made.
TEST_F(Statuses, APacketKeepsTheCapacityItWasMadeWith) {
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketSize(client_channel_, 64)), STATUS_SUCCESS);
  VMBPACKET const small = VmbPacketAllocate(client_channel_);
  ASSERT_NE(small, nullptr);
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketSize(client_channel_, 512)), STATUS_SUCCESS);
  VMBPACKET const large = VmbPacketAllocate(client_channel_);
  ASSERT_NE(large, nullptr);
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  std::byte payload[512]{};
  EXPECT_EQ(Status(VmbPacketSend(small, payload, 65, nullptr, 0)), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbPacketSend(small, payload, 64, nullptr, 0)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbPacketSend(large, payload, 512, nullptr, 0)), STATUS_SUCCESS);
}

// Row 36: the memory of a packet that is not in flight may be used again, also for a packet.
TEST_F(Statuses, PacketMemoryIsUsedAgain) {
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  const UINT32 size = VmbChannelSizeofPacket(client_channel_);
  const auto memory = std::make_unique<std::byte[]>(size);
  auto* const packet = reinterpret_cast<VMBPACKET>(memory.get());
  for (int count = 1; count <= 3; ++count) {
    std::memset(memory.get(), 0xA5, size);
    ASSERT_EQ(Status(VmbPacketInitialize(client_channel_, packet, size)), STATUS_SUCCESS);
    EXPECT_EQ(VmbPacketGetPointer(packet), nullptr);
    VmbPacketSetPointer(packet, &recorder_);
    VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS, PVOID, UINT32) {
      static_cast<Recorder*>(VmbPacketGetPointer(done))->Record("done");
    });
    UINT64 payload = 1;
    ASSERT_EQ(Status(VmbPacketSend(packet, &payload, 8, nullptr, kWait)), STATUS_SUCCESS);
    ASSERT_TRUE(recorder_.Wait("done", count));
  }
}

// Row 56.
TEST_F(Statuses, TheStateChangeStructureIsZeroedAndSaysItsVersionAndSize) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  std::memset(&callbacks, 0xA5, sizeof(callbacks));
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  EXPECT_EQ(callbacks.Version, 1U);
  EXPECT_EQ(callbacks.Size, 48U);
  EXPECT_EQ(callbacks.EvtChannelOpened, nullptr);
  EXPECT_EQ(callbacks.EvtChannelClosed, nullptr);
  EXPECT_EQ(callbacks.EvtChannelSuspend, nullptr);
  EXPECT_EQ(callbacks.EvtChannelStarted, nullptr);
  EXPECT_EQ(callbacks.EvtChannelPostStarted, nullptr);
}

// 2.4: members that are NULL have defaults, at both ends and through every state.
TEST_F(Statuses, AChannelWithoutCallbacksGoesThroughEveryState) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  for (VMBCHANNEL channel : {server_channel_, client_channel_}) {
    ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(channel, &callbacks)), STATUS_SUCCESS);
  }
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Request(client_channel_, 8, nullptr), STATUS_SUCCESS);
    VmbChannelPause(client_channel_);
    LARGE_INTEGER now{};
    EXPECT_EQ(Request(client_channel_, 8, &now), STATUS_BUFFER_OVERFLOW);
    VmbChannelStart(client_channel_);
    EXPECT_EQ(Request(client_channel_, 8, nullptr), STATUS_SUCCESS);
    VmbChannelDisable(client_channel_);
    VmbChannelDisable(client_channel_);  // row 6: nothing
    ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
  }
}

// Row 30: counts below what the maximum packet needs are raised.
TEST_F(Statuses, RingsTooSmallForAPacketAreRaised) {
  for (VMBCHANNEL channel : {server_channel_, client_channel_}) {
    ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketSize(channel, 524'256)), STATUS_SUCCESS);
  }
  ASSERT_EQ(Status(VmbClientChannelInitSetRingBufferPageCount(client_channel_, 1, 1)),
            STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(EnableBoth());
  EXPECT_EQ(Request(client_channel_, 524'256, nullptr), STATUS_SUCCESS);
}

}  // namespace

}  // namespace kmcl::contract
