// The functions of tables V2 to V5 that concern one end (kmcl/later.h; KMCL reference 2.6, rows 58
// to 73).
#include <algorithm>
#include <cstring>
#include <vector>

#include "bus_fixture.h"
#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

// ---- Packet objects

class PacketObjects : public DirectTest {
 protected:
  // Both ends Active.
  void Open() {
    Configure(server_channel_);
    ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, nullptr, nullptr)),
              STATUS_SUCCESS);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
      static_cast<Recorder*>(VmbChannelGetPointer(channel))->Record("PostStarted");
    };
    for (VMBCHANNEL channel : {server_channel_, client_channel_}) {
      VmbChannelSetPointer(channel, &recorder_);
      ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(channel, &callbacks)), STATUS_SUCCESS);
      ASSERT_EQ(Status(VmbChannelEnable(channel)), STATUS_SUCCESS);
      VmbChannelStart(channel);
    }
    ASSERT_TRUE(recorder_.Wait("PostStarted", 2));
  }
};

TEST_F(PacketObjects, TheInlineContextIsZeroedAlignedAndKeptThroughSends) {
  constexpr UINT32 kBytes = 100;
  const UINT32 plain = VmbChannelSizeofPacket(client_channel_);
  ASSERT_EQ(Status(VmbChannelInitSetInlinePacketContextSize(client_channel_, kBytes)),
            STATUS_SUCCESS);
  EXPECT_GE(VmbChannelSizeofPacket(client_channel_), plain + kBytes);
  ASSERT_NO_FATAL_FAILURE(Open());
  VMBPACKET packet = VmbPacketAllocate(client_channel_);
  ASSERT_NE(packet, nullptr);
  auto* const context = static_cast<unsigned char*>(VmbPacketGetInlinePacketContextPointer(packet));
  ASSERT_NE(context, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(context) % 16, 0u);
  EXPECT_TRUE(std::all_of(context, context + kBytes, [](unsigned char c) { return c == 0; }));
  std::memset(context, 0xA5, kBytes);
  VmbPacketSetPointer(packet, &recorder_);
  VmbPacketSetCompletionRoutine(packet, [](VMBPACKET sent, NTSTATUS, PVOID, UINT32) {
    static_cast<Recorder*>(VmbPacketGetPointer(sent))->Record("done");
  });
  std::vector<std::byte> payload(4096, std::byte{0x11});  // the largest: next to the context
  for (int i = 1; i <= 3; ++i) {
    ASSERT_EQ(Status(VmbPacketSend(packet, payload.data(), 4096, nullptr, 0)), STATUS_SUCCESS);
    ASSERT_TRUE(recorder_.Wait("done", i));
    EXPECT_EQ(VmbPacketGetInlinePacketContextPointer(packet), context);
    EXPECT_TRUE(std::all_of(context, context + kBytes, [](unsigned char c) { return c == 0xA5; }));
  }
  VmbPacketFree(packet);
  // A packet object that is used again is a new one to its owner.
  packet = VmbPacketAllocate(client_channel_);
  const auto* const fresh =
      static_cast<const unsigned char*>(VmbPacketGetInlinePacketContextPointer(packet));
  EXPECT_TRUE(std::all_of(fresh, fresh + kBytes, [](unsigned char c) { return c == 0; }));
  VmbPacketFree(packet);
}

TEST_F(PacketObjects, TheInlineContextLiesInTheCallersMemory) {
  ASSERT_EQ(Status(VmbChannelInitSetInlinePacketContextSize(client_channel_, 24)), STATUS_SUCCESS);
  const UINT32 bytes = VmbChannelSizeofPacket(client_channel_);
  struct alignas(16) Unit {
    unsigned char bytes[16];
  };
  std::vector<Unit> memory(bytes / 16 + 2);
  std::memset(static_cast<void*>(memory.data()), 0xFF, memory.size() * 16);
  const auto packet = reinterpret_cast<VMBPACKET>(memory.data());
  ASSERT_EQ(Status(VmbPacketInitialize(client_channel_, packet, bytes)), STATUS_SUCCESS);
  const auto* const begin = reinterpret_cast<unsigned char*>(memory.data());
  const auto* const context =
      static_cast<const unsigned char*>(VmbPacketGetInlinePacketContextPointer(packet));
  EXPECT_GE(context, begin);
  EXPECT_LE(context + 24, begin + bytes);
  EXPECT_TRUE(std::all_of(context, context + 24, [](unsigned char c) { return c == 0; }));
  EXPECT_EQ(begin[bytes], 0xFF) << "nothing is written behind the object";
}

TEST_F(PacketObjects, WithoutAnInlineContextThereIsNone) {
  EXPECT_EQ(VmbPacketGetInlinePacketContextPointer(nullptr), nullptr);
  ASSERT_EQ(Status(VmbChannelInitSetInlinePacketContextSize(client_channel_, 0)), STATUS_SUCCESS);
  VMBPACKET const packet = VmbPacketAllocate(client_channel_);
  EXPECT_EQ(VmbPacketGetInlinePacketContextPointer(packet), nullptr);
  VmbPacketFree(packet);
  EXPECT_EQ(Status(VmbChannelInitSetInlinePacketContextSize(client_channel_, (1u << 20) + 1)),
            STATUS_INVALID_PARAMETER_2);
}

TEST_F(PacketObjects, NoMoreThanTheMaximumExistAtATime) {
  EXPECT_EQ(Status(VmbChannelInitSetMaximumPacketCount(client_channel_, 0)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitSetMaximumPacketCount(client_channel_, 65'537)),
            STATUS_INVALID_PARAMETER_2);
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketCount(client_channel_, 3)), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open());
  std::vector<VMBPACKET> packets;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 3; ++i) {
      packets.push_back(VmbPacketAllocate(client_channel_));
      ASSERT_NE(packets.back(), nullptr);
    }
    EXPECT_EQ(VmbPacketAllocate(client_channel_), nullptr);
    // The library's own packets are not counted.
    LARGE_INTEGER now{};
    EXPECT_EQ(Status(VmbChannelSendSynchronousRequest(client_channel_, nullptr, 0, nullptr, 0,
                                                      nullptr, nullptr, &now)),
              STATUS_SUCCESS);
    for (VMBPACKET each : packets) VmbPacketFree(each);
    packets.clear();
  }
}

TEST_F(PacketObjects, APacketThatFreesItselfMakesRoomForTheNext) {
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketCount(client_channel_, 1)), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open());
  for (int i = 0; i < 100; ++i) {
    VMBPACKET const packet = VmbPacketAllocate(client_channel_);
    ASSERT_NE(packet, nullptr) << i;
    ASSERT_EQ(VmbPacketAllocate(client_channel_), nullptr);
    // Placed in the ring at once, so freed before the call returns.
    LARGE_INTEGER forever{};
    forever.QuadPart = -10'000'000LL * 60;
    ASSERT_EQ(Status(VmbChannelSendSynchronousRequest(client_channel_, nullptr, 0, nullptr, kWait,
                                                      nullptr, nullptr, &forever)),
              STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbPacketSend(packet, nullptr, 0, nullptr, 0)), STATUS_SUCCESS);
  }
}

// ---- Callbacks with a context

struct Contexts {
  Recorder recorder;
  int packet_marker = 0;
};

class CallbacksWithContext : public DirectTest {
 protected:
  void Open() {
    Configure(server_channel_);
    ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, nullptr, nullptr)),
              STATUS_SUCCESS);
    for (VMBCHANNEL channel : {server_channel_, client_channel_}) {
      ASSERT_EQ(Status(VmbChannelEnable(channel)), STATUS_SUCCESS);
      VmbChannelStart(channel);
    }
  }
  static VOID Process(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID, UINT32 bytes, UINT32 flags,
                      PVOID context) {
    static_cast<Contexts*>(context)->recorder.Record("packet " + std::to_string(bytes) + " " +
                                                     std::to_string(flags));
    VmbChannelPacketComplete(packet, nullptr, 0);
  }
  static VOID BatchEnd(VMBCHANNEL, UINT32 count, PVOID context) {
    static_cast<Contexts*>(context)->recorder.Record("batch " + std::to_string(count));
  }
  static VOID Plain(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID, UINT32, UINT32) {
    plain_.Record("plain");
    VmbChannelPacketComplete(packet, nullptr, 0);
  }
  static VOID Done(VMBPACKET packet, NTSTATUS status, PVOID, UINT32, PVOID context) {
    static_cast<Contexts*>(context)->recorder.Record(std::string("done ") + KmclStatusName(status));
    VmbPacketFree(packet);
  }
  void Send(Contexts& contexts) {
    VMBPACKET const packet = VmbPacketAllocate(client_channel_);
    VmbPacketSetCompletionRoutineEx(packet, Done, &contexts);
    ASSERT_EQ(Status(VmbPacketSend(packet, nullptr, 0, nullptr, kWait)), STATUS_SUCCESS);
  }

  static inline Recorder plain_;
  Contexts contexts_;
  Contexts sender_;
};

TEST_F(CallbacksWithContext, EachGetsItsOwn) {
  EXPECT_EQ(
      Status(VmbChannelInitSetProcessPacketCallbacksEx(server_channel_, nullptr, nullptr, nullptr)),
      STATUS_INVALID_PARAMETER_2);
  ASSERT_EQ(Status(VmbChannelInitSetProcessPacketCallbacks(server_channel_, Plain, nullptr)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelInitSetProcessPacketCallbacksEx(server_channel_, Process, BatchEnd,
                                                             &contexts_)),
            STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open());
  Send(sender_);
  EXPECT_TRUE(sender_.recorder.Wait("done STATUS_SUCCESS", 1));
  EXPECT_TRUE(contexts_.recorder.Wait("packet 0 0", 1));
  EXPECT_TRUE(contexts_.recorder.Wait("batch 1", 1));
}

TEST_F(CallbacksWithContext, TheLaterOfBothSettersCounts) {
  ASSERT_EQ(Status(VmbChannelInitSetProcessPacketCallbacksEx(server_channel_, Process, BatchEnd,
                                                             &contexts_)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelInitSetProcessPacketCallbacks(server_channel_, Plain, nullptr)),
            STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open());
  Send(sender_);
  EXPECT_TRUE(sender_.recorder.Wait("done STATUS_SUCCESS", 1));
  EXPECT_TRUE(plain_.Wait("plain", 1));
  VmbChannelDisable(client_channel_);
  EXPECT_TRUE(contexts_.recorder.Events().empty());
}

TEST_F(CallbacksWithContext, APacketWithoutARoutineIsNotSent) {
  ASSERT_NO_FATAL_FAILURE(Open());
  VMBPACKET const packet = VmbPacketAllocate(client_channel_);
  VmbPacketSetCompletionRoutineEx(packet, nullptr, this);
  EXPECT_EQ(Status(VmbPacketSend(packet, nullptr, 0, nullptr, 0)), STATUS_INVALID_PARAMETER_1);
  VmbPacketFree(packet);
}

TEST_F(CallbacksWithContext, SavingATransactionTellsTheDriverOfIt) {
  const auto save = [](VMBCHANNEL, VMBPACKET, PVOID, UINT32, PUINT32, PVOID context) -> NTSTATUS {
    static_cast<Contexts*>(context)->recorder.Record("save");
    return STATUS_SUCCESS;
  };
  const auto restore = [](VMBCHANNEL channel, PVOID library, UINT32 bytes, PVOID, UINT32,
                          PVOID context) -> NTSTATUS {
    static_cast<Contexts*>(context)->recorder.Record("restore");
    VMBPACKET const packet = VmbPacketAllocate(channel);
    VmbPacketSetCompletionRoutineEx(packet, Done, context);
    return VmbPacketRestore(packet, library, bytes);
  };
  EXPECT_EQ(Status(VmbServerChannelInitSetSaveRestorePacketCallbacksEx(client_channel_, save,
                                                                       restore, nullptr)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbServerChannelInitSetSaveRestorePacketCallbacksEx(server_channel_, nullptr,
                                                                       restore, nullptr)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbServerChannelInitSetSaveRestorePacketCallbacksEx(server_channel_, save,
                                                                       nullptr, nullptr)),
            STATUS_INVALID_PARAMETER_3);
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbServerChannelInitSetSaveRestorePacketCallbacksEx(server_channel_, save,
                                                                       restore, &contexts_)),
            STATUS_SUCCESS);
  // Enabled and never started: what is sent is queued, and so saved.
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  VMBPACKET const packet = VmbPacketAllocate(server_channel_);
  VmbPacketSetCompletionRoutineEx(packet, Done, &contexts_);
  ASSERT_EQ(Status(VmbPacketSend(packet, nullptr, 0, nullptr, 0)), STATUS_SUCCESS);
  std::vector<std::byte> saved(65'536);
  ULONG filled = 0;
  ULONG required = 0;
  ASSERT_EQ(Status(VmbChannelSaveBegin(server_channel_)), STATUS_SUCCESS);
  ASSERT_EQ(
      Status(VmbChannelSaveContinue(server_channel_, saved.data(), 65'536, &filled, &required)),
      STATUS_SUCCESS);
  VmbChannelSaveEnd(server_channel_);
  EXPECT_TRUE(contexts_.recorder.Wait("save", 1));
  VmbChannelDisable(server_channel_);
  EXPECT_TRUE(contexts_.recorder.Wait("done STATUS_DEVICE_REMOVED", 1));
  ASSERT_EQ(Status(VmbChannelRestoreFromBuffer(server_channel_, saved.data(), filled)),
            STATUS_SUCCESS);
  EXPECT_TRUE(contexts_.recorder.Wait("restore", 1));
  VmbChannelCleanup(server_channel_);
  EXPECT_TRUE(contexts_.recorder.Wait("done STATUS_DEVICE_REMOVED", 2));
  server_channel_ = nullptr;
}

// ---- Channels in the caller's memory, and device objects

using CallersMemory = DirectTest;

TEST_F(CallersMemory, AChannelLivesInIt) {
  const UINT32 bytes = VmbSizeofChannel();
  struct alignas(16) Unit {
    unsigned char bytes[16];
  };
  std::vector<Unit> memory(bytes / 16 + 2);
  std::memset(static_cast<void*>(memory.data()), 0xFF, memory.size() * 16);
  PDEVICE_OBJECT const device = KmclClientDeviceObject(client_);
  const auto channel = reinterpret_cast<VMBCHANNEL>(memory.data());
  const auto unaligned = reinterpret_cast<VMBCHANNEL>(memory[0].bytes + 8);
  EXPECT_EQ(Status(VmbChannelInitialize(nullptr, FALSE, channel, bytes)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelInitialize(device, TRUE, channel, bytes)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitialize(device, FALSE, nullptr, bytes)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbChannelInitialize(device, FALSE, unaligned, bytes)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbChannelInitialize(device, FALSE, channel, bytes - 1)),
            STATUS_INVALID_PARAMETER_4);
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  VmbChannelStart(server_channel_);
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(Status(VmbChannelInitialize(device, FALSE, channel, bytes)), STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(channel, &kType, nullptr, nullptr)),
              STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbChannelEnable(channel)), STATUS_SUCCESS);
    LARGE_INTEGER forever{};
    forever.QuadPart = -10'000'000LL * 60;
    EXPECT_EQ(Status(VmbChannelSendSynchronousRequest(channel, nullptr, 0, nullptr, kWait, nullptr,
                                                      nullptr, &forever)),
              STATUS_SUCCESS);
    VmbChannelDisable(channel);
    VmbChannelCleanup(channel);
    EXPECT_EQ(reinterpret_cast<unsigned char*>(memory.data())[bytes], 0xFF);
    std::memset(static_cast<void*>(memory.data()), 0xFF, bytes);
  }
}

TEST_F(CallersMemory, TheParentIsTheObjectTheChannelWasMadeWith) {
  EXPECT_EQ(VmbChannelGetParentDeviceObject(client_channel_), KmclClientDeviceObject(client_));
  EXPECT_EQ(VmbChannelGetParentDeviceObject(server_channel_), KmclServerDeviceObject(server_));
  EXPECT_EQ(VmbChannelGetParentDeviceObject(nullptr), nullptr);
  EXPECT_EQ(VmbChannelGetTargetDeviceObject(nullptr), nullptr);
  EXPECT_EQ(VmbChannelGetTargetDeviceObject(server_channel_), nullptr);
}

class OneChannel : public BusTest {};

INSTANTIATE_TEST_SUITE_P(Contract, OneChannel, AllPlacements(), NameOfPlacement);

TEST_P(OneChannel, HasATargetDeviceWhileItIsBound) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  EXPECT_EQ(client.Do("get", "target-device"), "none");
  client.On("Opened", "get " + client.id() + " target-device");
  client.On("Closed", "get " + client.id() + " target-device");
  Open(server, client);
  EXPECT_EQ(client.Do("get", "target-device"), "parent");
  EXPECT_EQ(server.Do("get", "target-device"), "none");
  client.Disable();
  EXPECT_EQ(client.Count("did get " + client.id() + " target-device -> parent"), 2u);
  EXPECT_EQ(client.Do("get", "target-device"), "none");
}

// ---- The share of a dispatch thread

TEST_P(OneChannel, ThatUsesUpItsShareIsDeliveredAtPassiveLevel) {
  constexpr UINT32 kCount = 20;
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Set("share", 1);
  server.Set("burn", 2000);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  client.SendMany(0, kCount);
  server.Start();
  WaitForPackets(server, 0, kCount);
  // 1 % of the time: after 2 ms at DISPATCH_LEVEL there is nothing left for 0.2 s.
  EXPECT_EQ(server.Detail("packet 0", "irql"), "2");
  EXPECT_EQ(server.Detail("packet 1", "irql"), "0");
  std::vector<std::string> expected;
  for (UINT32 i = 0; i < kCount; ++i) expected.push_back("packet " + std::to_string(i));
  EXPECT_EQ(server.Names({"packet"}), expected);
}

TEST_P(OneChannel, WithoutALimitStaysAtDispatchLevel) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Set("share", 1);
  server.Set("share", 100);
  server.Set("burn", 2000);
  Open(server, client);
  client.SendMany(0, 10);
  WaitForPackets(server, 0, 10);
  for (UINT32 i = 0; i < 10; ++i) {
    EXPECT_EQ(server.Detail("packet " + std::to_string(i), "irql"), "2");
  }
}

TEST_F(CallersMemory, AShareIsAPercentage) {
  EXPECT_EQ(Status(VmbChannelSetAllowableDpcCpuUsage(nullptr, 50)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelSetAllowableDpcCpuUsage(client_channel_, 0)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelSetAllowableDpcCpuUsage(client_channel_, 101)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelSetAllowableDpcCpuUsage(client_channel_, 1)), STATUS_SUCCESS);
}

// ---- Bounce buffers

TEST_F(CallersMemory, BounceBuffersAreVisibleToTheServer) {
  EXPECT_EQ(Status(VmbChannelInitSetBounceBufferSizes(nullptr, 4096, 1)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelInitSetBounceBufferSizes(server_channel_, 4096, 1)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelInitSetBounceBufferSizes(client_channel_, 0, 1)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitSetBounceBufferSizes(client_channel_, 4096, 0)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbChannelInitSetBounceBufferSizes(client_channel_, 0xFFFF'FFFF, 0xFFFF'FFFF)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(VmbChannelAllocateBounceBuffer(nullptr), nullptr);
  EXPECT_EQ(VmbChannelAllocateBounceBuffer(client_channel_), nullptr);
  ASSERT_EQ(Status(VmbChannelInitSetBounceBufferSizes(client_channel_, 100, 1)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelInitSetBounceBufferSizes(client_channel_, 5000, 3)), STATUS_SUCCESS);
  std::vector<unsigned char*> buffers;
  for (int i = 0; i < 3; ++i) {
    buffers.push_back(static_cast<unsigned char*>(VmbChannelAllocateBounceBuffer(client_channel_)));
    ASSERT_NE(buffers.back(), nullptr);
    EXPECT_EQ(BYTE_OFFSET(buffers.back()), 0u);
    EXPECT_TRUE(
        std::all_of(buffers.back(), buffers.back() + 5000, [](unsigned char c) { return c == 0; }));
    std::memset(buffers.back(), i + 1, 8192);
  }
  EXPECT_EQ(buffers[0][8191], 1) << "buffers do not overlap";
  EXPECT_EQ(VmbChannelAllocateBounceBuffer(client_channel_), nullptr);

  // A GPADL is only to be had over memory that the server sees.
  static Recorder opened;
  static NTSTATUS shared = STATUS_UNSUCCESSFUL;
  static void* buffer = nullptr;
  buffer = buffers[0];
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = [](VMBCHANNEL channel) -> NTSTATUS {
    UINT32 handle = 0;
    shared = VmbChannelCreateGpadlFromBuffer(channel, 0, buffer, 5000, &handle);
    if (NT_SUCCESS(shared)) VmbChannelDeleteGpadl(channel, handle);
    opened.Record("Opened");
    return STATUS_SUCCESS;
  };
  ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(client_channel_, &callbacks)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, nullptr, nullptr)),
            STATUS_SUCCESS);
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
  ASSERT_TRUE(opened.Wait("Opened", 1));
  EXPECT_EQ(Status(shared), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelInitSetBounceBufferSizes(client_channel_, 4096, 1)),
            STATUS_INVALID_PARAMETER_1);
}

// ---- When all of these are legal

TEST_F(CallersMemory, TheInitFunctionsAreClosedByEnable) {
  Configure(server_channel_);
  VMBCHANNEL const sub = Allocate(true);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  for (VMBCHANNEL const channel : {server_channel_, VMBCHANNEL{nullptr}}) {
    EXPECT_EQ(Status(VmbChannelInitSetMaximumPacketCount(channel, 0)), STATUS_INVALID_PARAMETER_1);
    EXPECT_EQ(Status(VmbChannelInitSetInlinePacketContextSize(channel, 8)),
              STATUS_INVALID_PARAMETER_1);
    EXPECT_EQ(Status(VmbChannelInitSetProcessPacketCallbacksEx(channel, nullptr, nullptr, nullptr)),
              STATUS_INVALID_PARAMETER_1);
    EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(channel, sub)), STATUS_INVALID_PARAMETER_1);
    EXPECT_EQ(Status(VmbServerChannelInitSetSaveRestorePacketCallbacksEx(channel, nullptr, nullptr,
                                                                         nullptr)),
              STATUS_INVALID_PARAMETER_1);
  }
  VmbChannelCleanup(sub);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, nullptr, nullptr)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbClientChannelInitSetTargetProcessorIndex(client_channel_, 0)),
            STATUS_INVALID_PARAMETER_1);
}

}  // namespace

}  // namespace kmcl::contract
