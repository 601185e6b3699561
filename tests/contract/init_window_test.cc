// The Init functions: when they are legal, and for whom (KMCL reference 4.2 and 10.2 to 10.4).
#include <functional>

#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

enum class End : unsigned char { kEither, kServer, kClient };

struct InitCall {
  const char* name;
  End end;
  // Legal but for the channel's state; `self` gives what the arguments need.
  std::function<NTSTATUS(VMBCHANNEL, HANDLE partition)> call;
  // The same with a bad argument, and what it should give; empty when every argument is good.
  std::function<NTSTATUS(VMBCHANNEL)> bad;
  NTSTATUS bad_status = STATUS_SUCCESS;
};

constexpr GUID kAnyType{1, 2, 3, {4, 5, 6, 7, 8, 9, 10, 11}};

NTSTATUS SetStates(VMBCHANNEL channel, ULONG version) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.Version = version;
  return VmbChannelInitSetStateChangeCallbacks(channel, &callbacks);
}

void IgnorePacket(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID, UINT32, UINT32) {
  VmbChannelPacketComplete(packet, nullptr, 0);
}

const std::vector<InitCall>& AllInitCalls() {
  static char16_t text[] = u"Echo";
  static UNICODE_STRING name{8, 10, reinterpret_cast<PWSTR>(text)};
  static UNICODE_STRING odd{7, 10, reinterpret_cast<PWSTR>(text)};
  static const std::vector<InitCall> calls = {
      {"MaximumPacketSize", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetMaximumPacketSize(c, 2048); },
       [](VMBCHANNEL c) { return VmbChannelInitSetMaximumPacketSize(c, 0); },
       STATUS_INVALID_PARAMETER_2},
      {"MaximumExternalData", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetMaximumExternalData(c, 65536, 2); },
       [](VMBCHANNEL c) { return VmbChannelInitSetMaximumExternalData(c, 0, 1); },
       STATUS_INVALID_PARAMETER_2},
      {"MaximumExternalDataChain", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetMaximumExternalData(c, 4096, 1); },
       [](VMBCHANNEL c) { return VmbChannelInitSetMaximumExternalData(c, 4096, 0); },
       STATUS_INVALID_PARAMETER_3},
      {"ClientContextSize", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetClientContextSize(c, 64); }, nullptr},
      {"ClientContextSizeZero", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetClientContextSize(c, 0); }, nullptr},
      {"ProcessPacketCallbacks", End::kEither,
       [](VMBCHANNEL c, HANDLE) {
         return VmbChannelInitSetProcessPacketCallbacks(c, IgnorePacket, nullptr);
       },
       [](VMBCHANNEL c) { return VmbChannelInitSetProcessPacketCallbacks(c, nullptr, nullptr); },
       STATUS_INVALID_PARAMETER_2},
      {"StateChangeCallbacks", End::kEither, [](VMBCHANNEL c, HANDLE) { return SetStates(c, 1); },
       [](VMBCHANNEL c) { return SetStates(c, 2); }, STATUS_INVALID_PARAMETER_2},
      {"StateChangeCallbacksNull", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return SetStates(c, 1); },
       [](VMBCHANNEL c) { return VmbChannelInitSetStateChangeCallbacks(c, nullptr); },
       STATUS_INVALID_PARAMETER_2},
      {"FriendlyName", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetFriendlyName(c, &name); },
       [](VMBCHANNEL c) { return VmbChannelInitSetFriendlyName(c, nullptr); },
       STATUS_INVALID_PARAMETER_2},
      {"FriendlyNameOfOddLength", End::kEither,
       [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetFriendlyName(c, &name); },
       [](VMBCHANNEL c) { return VmbChannelInitSetFriendlyName(c, &odd); },
       STATUS_INVALID_PARAMETER_2},
      {"Flags", End::kEither, [](VMBCHANNEL c, HANDLE) { return VmbChannelInitSetFlags(c, 0); },
       [](VMBCHANNEL c) { return VmbChannelInitSetFlags(c, 0x2); }, STATUS_INVALID_PARAMETER_2},
      {"RingBufferPageCount", End::kClient,
       [](VMBCHANNEL c, HANDLE) { return VmbClientChannelInitSetRingBufferPageCount(c, 8, 8); },
       [](VMBCHANNEL c) { return VmbClientChannelInitSetRingBufferPageCount(c, 0, 8); },
       STATUS_INVALID_PARAMETER_2},
      {"RingBufferPageCountOutgoing", End::kClient,
       [](VMBCHANNEL c, HANDLE) { return VmbClientChannelInitSetRingBufferPageCount(c, 1, 1); },
       [](VMBCHANNEL c) { return VmbClientChannelInitSetRingBufferPageCount(c, 8, 0); },
       STATUS_INVALID_PARAMETER_3},
      {"TargetPnp", End::kClient,
       [](VMBCHANNEL c, HANDLE) {
         return VmbClientChannelInitSetTargetPnp(c, &kAnyType, nullptr, nullptr);
       },
       [](VMBCHANNEL c) { return VmbClientChannelInitSetTargetPnp(c, nullptr, nullptr, nullptr); },
       STATUS_INVALID_PARAMETER_2},
      {"ServerFlags", End::kServer,
       [](VMBCHANNEL c, HANDLE) {
         return VmbServerChannelInitSetFlags(
             c, VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE);
       },
       [](VMBCHANNEL c) { return VmbServerChannelInitSetFlags(c, 0x20); },
       STATUS_INVALID_PARAMETER_2},
      {"MmioMegabytes", End::kServer,
       [](VMBCHANNEL c, HANDLE) { return VmbServerChannelInitSetMmioMegabytes(c, 0, 8); },
       [](VMBCHANNEL c) { return VmbServerChannelInitSetMmioMegabytes(c, 0, 0); },
       STATUS_INVALID_PARAMETER},
      {"TargetInterfaceId", End::kServer,
       [](VMBCHANNEL c, HANDLE) {
         return VmbServerChannelInitSetTargetInterfaceId(c, kAnyType, kAnyType);
       },
       nullptr},
      {"VmbusHandle", End::kServer,
       [](VMBCHANNEL c, HANDLE partition) {
         return VmbServerChannelInitSetVmbusHandle(c, partition);
       },
       [](VMBCHANNEL c) { return VmbServerChannelInitSetVmbusHandle(c, nullptr); },
       STATUS_INVALID_PARAMETER_2},
      {"TargetVtl", End::kServer,
       [](VMBCHANNEL c, HANDLE) { return VmbServerChannelInitSetTargetVtl(c, 0); },
       [](VMBCHANNEL c) { return VmbServerChannelInitSetTargetVtl(c, 3); },
       STATUS_INVALID_PARAMETER_2},
  };
  return calls;
}

class InitWindow : public DirectTest, public testing::WithParamInterface<std::size_t> {
 protected:
  const InitCall& call() const { return AllInitCalls()[GetParam()]; }
  bool FitsServer() const { return call().end != End::kClient; }
  bool FitsClient() const { return call().end != End::kServer; }
  Status Call(VMBCHANNEL channel) { return {call().call(channel, partition_)}; }

  void ExpectClosed(VMBCHANNEL channel) {
    EXPECT_EQ(Call(channel), STATUS_INVALID_PARAMETER_1);
    if (call().bad) {  // the channel's state is checked first
      EXPECT_EQ(Status(call().bad(channel)), STATUS_INVALID_PARAMETER_1);
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, InitWindow, testing::Range<std::size_t>(0, 19),
                         [](const auto& index) { return AllInitCalls()[index.param].name; });

TEST(InitWindowList, CoversEveryCall) { EXPECT_EQ(AllInitCalls().size(), 19U); }

TEST_P(InitWindow, OpenAfterAllocateAtTheRightEnd) {
  EXPECT_EQ(Call(server_channel_), FitsServer() ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Call(client_channel_), FitsClient() ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER_1);
  // Again: it replaces.
  EXPECT_EQ(Call(server_channel_), FitsServer() ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER_1);
}

TEST_P(InitWindow, ANullChannelIsRefusedFirst) { ExpectClosed(nullptr); }

TEST_P(InitWindow, TheWrongEndIsRefusedFirst) {
  if (!FitsServer()) {
    ExpectClosed(server_channel_);
  }
  if (!FitsClient()) {
    ExpectClosed(client_channel_);
  }
  EXPECT_TRUE(FitsServer() || FitsClient());
}

TEST_P(InitWindow, ABadArgumentIsNamed) {
  if (!call().bad) {
    GTEST_SKIP() << "every argument is good";
  }
  if (FitsServer()) {
    EXPECT_EQ(Status(call().bad(server_channel_)), call().bad_status);
  }
  if (FitsClient()) {
    EXPECT_EQ(Status(call().bad(client_channel_)), call().bad_status);
  }
}

TEST_P(InitWindow, ClosedAfterEnableAndAfterDisable) {
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kAnyType, nullptr, nullptr)),
            STATUS_SUCCESS);
  for (VMBCHANNEL channel : {server_channel_, client_channel_}) {
    ASSERT_EQ(Status(VmbChannelEnable(channel)), STATUS_SUCCESS);
    ExpectClosed(channel);
    VmbChannelDisable(channel);
    ExpectClosed(channel);
    ASSERT_EQ(Status(VmbChannelEnable(channel)), STATUS_SUCCESS);
    VmbChannelDisable(channel);
    ExpectClosed(channel);
  }
}

TEST_P(InitWindow, AFailedEnableLeavesItOpen) {
  if (!FitsServer()) {
    GTEST_SKIP() << "a client's Enable fails only with its bus";
  }
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Call(server_channel_), STATUS_SUCCESS);
  Configure(server_channel_);
  EXPECT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
}

using InitEffects = DirectTest;

TEST_F(InitEffects, AFailedCallLeavesTheEarlierValue) {
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketSize(client_channel_, 100)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketSize(client_channel_, 0)),
            STATUS_INVALID_PARAMETER_2);
  const UINT32 size = VmbChannelSizeofPacket(client_channel_);
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketSize(client_channel_, 10'000)), STATUS_SUCCESS);
  EXPECT_GE(VmbChannelSizeofPacket(client_channel_), size + 9'000);
}

TEST_F(InitEffects, TheFriendlyNameAndTheCallbacksAreCopied) {
  char16_t text[] = u"Network";
  UNICODE_STRING name{14, 16, reinterpret_cast<PWSTR>(text)};
  EXPECT_EQ(Status(VmbChannelInitSetFriendlyName(server_channel_, &name)), STATUS_SUCCESS);
  std::fill(std::begin(text), std::end(text), u'\xFFFF');
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  EXPECT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(server_channel_, &callbacks)),
            STATUS_SUCCESS);
  // Were the structure kept by address, the open would call into nowhere.
  callbacks.EvtChannelOpened = reinterpret_cast<PFN_VMB_CHANNEL_OPENED>(8);
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  static Recorder opened;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS client_callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&client_callbacks);
  client_callbacks.EvtChannelOpened = [](VMBCHANNEL) -> NTSTATUS {
    opened.Record("Opened");
    return STATUS_SUCCESS;
  };
  ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(client_channel_, &client_callbacks)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, nullptr, nullptr)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
  EXPECT_TRUE(opened.Wait("Opened", 1));
}

TEST_F(InitEffects, AStructureOfTheWrongSizeIsRefused) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.Size -= 8;
  EXPECT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(server_channel_, &callbacks)),
            STATUS_INVALID_PARAMETER_2);
}

TEST_F(InitEffects, EachServerFlagIsLegal) {
  for (UINT32 flag = 1; flag <= VMBUS_SERVER_CHANNEL_INIT_FLAGS; flag <<= 1) {
    EXPECT_EQ(Status(VmbServerChannelInitSetFlags(server_channel_, flag)), STATUS_SUCCESS) << flag;
  }
  EXPECT_EQ(Status(VmbChannelInitSetFlags(client_channel_, VMBUS_CHANNEL_INIT_FLAG_IS_PIPE)),
            STATUS_SUCCESS);
  for (const UINT8 vtl : {UINT8{0}, UINT8{1}, UINT8{2}}) {
    EXPECT_EQ(Status(VmbServerChannelInitSetTargetVtl(server_channel_, vtl)), STATUS_SUCCESS);
  }
}

}  // namespace

}  // namespace kmcl::contract
