// What a call answers when there is no memory for it, at each of its allocations in turn, and that
// nothing has changed then (KMCL reference 0, 3.2 and 10).
#include <kmcl/wdk.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "allocation_faults.h"
#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

constexpr ULONG kTag = 0x6C6D634B;

class WithoutMemory : public DirectTest {
 protected:
  void SetUp() override {
    mapped_before_ = CountMappedMemories();
    DirectTest::SetUp();
  }
  void TearDown() override {
    DirectTest::TearDown();
    ExpectNothingStaysMapped();
  }

  // Nothing of a partition's memory, whatever was refused.
  void ExpectNothingStaysMapped() const { EXPECT_EQ(CountMappedMemories(), mapped_before_); }

  static std::size_t CountMappedMemories() {
    std::ifstream maps("/proc/self/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);) {
      if (line.find("/memfd:kmcl-partition") != std::string::npos) ++count;
    }
    return count;
  }

  // Makes the call with ever more memory until it succeeds; every failure before is the one for
  // want of memory.
  static void ExpectFailsUntilThereIsMemory(const std::function<NTSTATUS()>& call) {
    for (std::size_t served = 0; served < 1000; ++served) {
      NTSTATUS status = STATUS_SUCCESS;
      {
        const AllocationFaults faults(served);
        status = call();
      }
      if (AllocationFaults::refused() == 0) {
        EXPECT_EQ(Status(status), STATUS_SUCCESS);
        EXPECT_GT(served, 0U) << "the call allocates nothing";
        return;
      }
      ASSERT_EQ(Status(status), STATUS_INSUFFICIENT_RESOURCES) << served << " allocations served";
    }
    FAIL() << "more than 1000 allocations";
  }

  static void ExpectNeedsNone(const std::function<NTSTATUS()>& call) {
    NTSTATUS status = STATUS_UNSUCCESSFUL;
    {
      const AllocationFaults faults(0);
      status = call();
    }
    EXPECT_EQ(Status(status), STATUS_SUCCESS);
  }

  static std::size_t CountDescriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }

  void OpenBoth() {
    Configure(server_channel_);
    ASSERT_EQ(
        Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr)),
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

 private:
  std::size_t mapped_before_ = 0;
};

TEST_F(WithoutMemory, AChannelIsNotAllocated) {
  for (const bool is_server : {true, false}) {
    VMBCHANNEL channel = server_channel_;
    PDEVICE_OBJECT const device =
        is_server ? KmclServerDeviceObject(server_) : KmclClientDeviceObject(client_);
    {
      const AllocationFaults faults(0);
      ASSERT_EQ(VmbChannelAllocate(device, is_server, &channel), STATUS_INSUFFICIENT_RESOURCES);
    }
    EXPECT_EQ(channel, nullptr);
    ExpectFailsUntilThereIsMemory([&] { return VmbChannelAllocate(device, is_server, &channel); });
    VmbChannelCleanup(channel);
  }
}

TEST_F(WithoutMemory, ALatencyIsSetAllTheSame) {
  OpenBoth();
  UINT16 before = 0;
  ExpectNeedsNone([&] { return VmbChannelSetInterruptLatency(client_channel_, 500, &before); });
  EXPECT_EQ(before, 0);
  EXPECT_EQ(Status(VmbChannelSetInterruptLatency(client_channel_, 0, &before)), STATUS_SUCCESS);
  EXPECT_EQ(before, 500);
}

TEST_F(WithoutMemory, AChannelInTheCallersMemoryIsNotMade) {
  struct alignas(16) Unit {
    unsigned char bytes[16];
  };
  std::vector<Unit> memory(VmbSizeofChannel() / 16 + 1);
  const auto channel = reinterpret_cast<VMBCHANNEL>(memory.data());
  const auto bytes = static_cast<UINT32>(memory.size() * 16);
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbChannelInitialize(KmclClientDeviceObject(client_), FALSE, channel, bytes); });
  VmbChannelCleanup(channel);
}

TEST_F(WithoutMemory, ASubChannelIsNotMarked) {
  VMBCHANNEL const sub = Allocate(true);
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbChannelInitSetPrimaryChannel(sub, server_channel_); });
  VmbChannelCleanup(sub);
}

TEST_F(WithoutMemory, AChannelIsDisabledWithItsSubChannels) {
  VMBCHANNEL const sub = Allocate(true);
  ASSERT_EQ(Status(VmbChannelInitSetPrimaryChannel(sub, server_channel_)), STATUS_SUCCESS);
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(sub)), STATUS_SUCCESS);
  {
    const AllocationFaults faults(0);
    VmbChannelDisable(server_channel_);
  }
  EXPECT_EQ(Status(VmbChannelEnable(sub)), STATUS_INVALID_DEVICE_STATE)
      << "its primary is Disabled";
  VmbChannelCleanup(sub);
}

TEST_F(WithoutMemory, NoBounceBuffersAreSetAside) {
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbChannelInitSetBounceBufferSizes(client_channel_, 4096, 2); });
}

TEST_F(WithoutMemory, AChannelIsNotEnabledWithoutThePacketsItKeepsReady) {
  ASSERT_EQ(Status(VmbChannelInitSetMaximumPacketCount(server_channel_, 3)), STATUS_SUCCESS);
  Configure(server_channel_);
  ExpectFailsUntilThereIsMemory([&] { return VmbChannelEnable(server_channel_); });
  const AllocationFaults faults(0);  // they are there
  VMBPACKET packets[3];
  for (VMBPACKET& packet : packets) {
    packet = VmbPacketAllocate(server_channel_);
    EXPECT_NE(packet, nullptr);
  }
  for (VMBPACKET const packet : packets) VmbPacketFree(packet);
}

TEST_F(WithoutMemory, AServerThatKeepsNoPacketsIsEnabledAllTheSame) {
  Configure(server_channel_);
  ExpectNeedsNone([&] { return VmbChannelEnable(server_channel_); });
}

TEST_F(WithoutMemory, AClientThatKeepsNoPacketsIsEnabledAllTheSame) {
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, nullptr, nullptr)),
            STATUS_SUCCESS);
  ExpectNeedsNone([&] { return VmbChannelEnable(client_channel_); });
}

// Also what was half made by then goes without memory, and nothing is left of it.
TEST_F(WithoutMemory, ABusIsNotMadeAndGoesAllTheSame) {
  for (const std::string scheme : {"local:", "unix:/tmp/kmcl-"}) {
    const std::string address = scheme + "without-memory-" + std::to_string(getpid());
    const std::size_t before = CountDescriptors();
    KMCL_SERVER server = nullptr;
    ExpectFailsUntilThereIsMemory(
        [&] { return KmclServerCreate(address.c_str(), nullptr, &server); });
    ASSERT_NE(server, nullptr);
    KMCL_CLIENT client = nullptr;
    ExpectFailsUntilThereIsMemory(
        [&] { return KmclClientConnect(address.c_str(), nullptr, &client); });
    {
      const AllocationFaults faults(0);
      KmclClientDestroy(client);
      KmclServerDestroy(server);
    }
    // A stranger's descriptors are closed by a thread of their own.
    while (CountDescriptors() > before) sched_yield();
  }
}

TEST_F(WithoutMemory, ANameIsNotCopied) {
  char16_t text[] = u"A name that does not fit into a string object itself";
  UNICODE_STRING name{sizeof(text) - 2, sizeof(text), reinterpret_cast<PWSTR>(text)};
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbChannelInitSetFriendlyName(client_channel_, &name); });
}

TEST_F(WithoutMemory, ABusHandleIsNotDuplicated) {
  HANDLE kernel = nullptr;
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbConvertVmbusHandleToKernelHandle(partition_, &kernel); });
  EXPECT_EQ(Status(ZwClose(kernel)), STATUS_SUCCESS);
}

TEST_F(WithoutMemory, ASaveAndARestoreFail) {
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  VMBPACKET const packet = VmbPacketAllocate(server_channel_);
  char payload[64] = {};
  ASSERT_EQ(Status(VmbPacketSend(packet, payload, sizeof payload, nullptr, 0)), STATUS_SUCCESS);
  char saved[4096];
  ULONG filled = 0;
  ULONG required = 0;
  ExpectFailsUntilThereIsMemory([&] {
    VmbChannelSaveEnd(server_channel_);
    const NTSTATUS begun = VmbChannelSaveBegin(server_channel_);
    if (!NT_SUCCESS(begun)) return begun;
    return VmbChannelSaveContinue(server_channel_, saved, sizeof saved, &filled, &required);
  });
  VmbChannelSaveEnd(server_channel_);
  VMBCHANNEL const successor = Allocate(true);
  Configure(successor);
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbChannelRestoreFromBuffer(successor, saved, filled); });
  VmbChannelCleanup(successor);
}

TEST_F(WithoutMemory, ThereIsNoPacket) {
  VMBPACKET packet = nullptr;
  {
    const AllocationFaults faults(0);
    packet = VmbPacketAllocate(client_channel_);
  }
  EXPECT_EQ(packet, nullptr);
  packet = VmbPacketAllocate(client_channel_);
  EXPECT_NE(packet, nullptr);
  VmbPacketFree(packet);
}

TEST_F(WithoutMemory, ASynchronousRequestIsNotSent) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  UINT64 payload = 1;
  const auto send = [&] {
    return VmbChannelSendSynchronousRequest(client_channel_, &payload, sizeof(payload), nullptr,
                                            kWait, nullptr, nullptr, nullptr);
  };
  {
    const AllocationFaults faults(0);
    ASSERT_EQ(send(), STATUS_INSUFFICIENT_RESOURCES);
  }
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof(counters);
  ASSERT_EQ(Status(KmclChannelQueryCounters(client_channel_, &counters)), STATUS_SUCCESS);
  EXPECT_EQ(counters.PacketsSent + counters.Queued, 0U);
  EXPECT_EQ(Status(send()), STATUS_SUCCESS);
}

// Only external data that is bounced, or too much for the packet's room, needs memory to be sent.
TEST_F(WithoutMemory, ExternalDataIsNotSent) {
  ASSERT_EQ(Status(VmbChannelInitSetMaximumExternalData(client_channel_, 65536, 4)),
            STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  // Whole pages are copied back: nothing else may stand on them.
  void* const bytes = ExAllocatePool2(POOL_FLAG_PAGED, 3 * PAGE_SIZE, 1);
  PMDL const mdl = IoAllocateMdl(bytes, 10000, FALSE, FALSE, nullptr);
  MmBuildMdlForNonPagedPool(mdl);
  PFN_NUMBER* const pages = MmGetMdlPfnArray(mdl);
  VMBPACKET const packet = VmbPacketAllocate(client_channel_);
  VmbPacketSetPointer(packet, &recorder_);
  VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS status, PVOID, UINT32) {
    EXPECT_EQ(Status(status), STATUS_SUCCESS);
    static_cast<Recorder*>(VmbPacketGetPointer(done))->Record("done");
  });
  ExpectFailsUntilThereIsMemory([&] { return VmbPacketSend(packet, nullptr, 0, mdl, kWait); });
  ASSERT_TRUE(recorder_.Wait("done", 1));
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbPacketSendWithExternalMdl(packet, nullptr, 0, mdl, 1, 9000, kWait); });
  ASSERT_TRUE(recorder_.Wait("done", 2));
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbPacketSendWithExternalPfns(packet, nullptr, 0, pages, 2, kWait); });
  ASSERT_TRUE(recorder_.Wait("done", 3));

  // In place and within the limits: none.
  void* const shared = ExAllocatePool2(POOL_FLAG_NON_PAGED, 10000, 1);
  PMDL const in_place = IoAllocateMdl(shared, 10000, FALSE, FALSE, nullptr);
  MmBuildMdlForNonPagedPool(in_place);
  NTSTATUS status = STATUS_SUCCESS;
  {
    const AllocationFaults faults(0);
    status = VmbPacketSend(packet, nullptr, 0, in_place, kWait);
  }
  EXPECT_EQ(Status(status), STATUS_SUCCESS);
  ASSERT_TRUE(recorder_.Wait("done", 4));
  VmbPacketFree(packet);
  IoFreeMdl(in_place);
  ExFreePool(shared);
  IoFreeMdl(mdl);
  ExFreePool(bytes);
}

TEST_F(WithoutMemory, ExternalDataIsNotFetched) {
  static Recorder results;
  ASSERT_EQ(Status(VmbChannelInitSetProcessPacketCallbacks(
                server_channel_,
                [](VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID, UINT32, UINT32) {
                  PMDL mdl = nullptr;
                  ExpectFailsUntilThereIsMemory(
                      [&] { return VmbChannelPacketGetExternalData(packet, 0, &mdl); });
                  VmbChannelPacketComplete(packet, nullptr, 0);
                  results.Record("fetched");
                },
                nullptr)),
            STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  std::vector<std::byte> bytes(100);
  PMDL const mdl = IoAllocateMdl(bytes.data(), 100, FALSE, FALSE, nullptr);
  MmBuildMdlForNonPagedPool(mdl);
  EXPECT_EQ(Status(VmbChannelSendSynchronousRequest(client_channel_, nullptr, 0, mdl, kWait,
                                                    nullptr, nullptr, nullptr)),
            STATUS_SUCCESS);
  EXPECT_TRUE(results.Wait("fetched", 1));
  IoFreeMdl(mdl);
}

// 3.2: allocating a packet may fail, sending it may not; nor may a reuse.
TEST_F(WithoutMemory, APacketIsSentAgainAndAgain) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  VMBPACKET const packet = VmbPacketAllocate(client_channel_);
  ASSERT_NE(packet, nullptr);
  VmbPacketSetPointer(packet, &recorder_);
  VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS status, PVOID, UINT32) {
    EXPECT_EQ(Status(status), STATUS_SUCCESS);
    static_cast<Recorder*>(VmbPacketGetPointer(done))->Record("done");
  });
  UINT64 payload = 1;
  for (int count = 1; count <= 100; ++count) {
    NTSTATUS status = STATUS_SUCCESS;
    {
      const AllocationFaults faults(0);
      status = VmbPacketSend(packet, &payload, sizeof(payload), nullptr, kWait);
    }
    ASSERT_EQ(Status(status), STATUS_SUCCESS);
    ASSERT_TRUE(recorder_.Wait("done", count));
  }
  VmbPacketFree(packet);
}

// 3.2: recently freed packets are cached while the channel works.
TEST_F(WithoutMemory, AFreedPacketIsAllocatedAgain) {
  static Recorder results;
  ASSERT_EQ(Status(VmbChannelInitSetProcessPacketCallbacks(
                client_channel_,
                [](VMBCHANNEL channel, VMBPACKETCOMPLETION received, PVOID, UINT32, UINT32) {
                  VMBPACKET const first = VmbPacketAllocate(channel);
                  VmbPacketFree(first);
                  VMBPACKET second = nullptr;
                  {
                    const AllocationFaults faults(0);
                    second = VmbPacketAllocate(channel);
                  }
                  VmbPacketFree(second);
                  VmbChannelPacketComplete(received, nullptr, 0);
                  results.Record(second != nullptr ? "allocated" : "no memory");
                },
                nullptr)),
            STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  LARGE_INTEGER now{};
  UINT64 payload = 1;
  ASSERT_EQ(Status(VmbChannelSendSynchronousRequest(server_channel_, &payload, sizeof(payload),
                                                    nullptr, 0, nullptr, nullptr, &now)),
            STATUS_SUCCESS);
  EXPECT_TRUE(results.Wait("allocated", 1));
}

TEST_F(WithoutMemory, AGpadlIsNeitherMadeNorMapped) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  PVOID const buffer = ExAllocatePool2(POOL_FLAG_NON_PAGED, PAGE_SIZE, kTag);
  UINT32 handle = 0;
  ExpectFailsUntilThereIsMemory([&] {
    return VmbChannelCreateGpadlFromBuffer(client_channel_, 0, buffer, PAGE_SIZE, &handle);
  });
  PMDL mdl = nullptr;
  ExpectFailsUntilThereIsMemory(
      [&] { return VmbChannelMapGpadl(server_channel_, 0, handle, &mdl); });
  // Two ask for it back, and the one that comes late returns at once: then the client has asked,
  // and when the server has confirmed another one it knows.
  std::vector<std::jthread> askers;
  for (int i = 0; i < 2; ++i) {
    askers.emplace_back([&] {
      VmbChannelDeleteGpadl(client_channel_, handle);
      recorder_.Record("returned");
    });
  }
  ASSERT_TRUE(recorder_.Wait("returned", 1));
  UINT32 another = 0;
  ASSERT_EQ(Status(VmbChannelCreateGpadlFromBuffer(client_channel_, 0, buffer, 8, &another)),
            STATUS_SUCCESS);
  {
    const AllocationFaults faults(0);
    VmbChannelUnmapGpadl(server_channel_, handle);
  }
  ASSERT_TRUE(recorder_.Wait("returned", 2));
  VmbChannelDeleteGpadl(client_channel_, another);
  ExFreePoolWithTag(buffer, kTag);
}

// As the name says: pages that do not follow each other need a view of their own.
TEST_F(WithoutMemory, AGpadlHasNoAddress) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  auto* const buffer =
      static_cast<unsigned char*>(ExAllocatePool2(POOL_FLAG_NON_PAGED, 3 * PAGE_SIZE, kTag));
  buffer[2 * PAGE_SIZE] = 42;
  const PFN_NUMBER first = reinterpret_cast<std::uintptr_t>(buffer) >> PAGE_SHIFT;
  PFN_NUMBER pages[] = {first + 2, first};
  UINT32 handle = 0;
  ASSERT_EQ(Status(VmbChannelCreateGpadlFromPfnList(client_channel_, 0, pages, 2, 0, 0, &handle)),
            STATUS_SUCCESS);
  PMDL mdl = nullptr;
  ASSERT_EQ(Status(VmbChannelMapGpadl(server_channel_, 0, handle, &mdl)), STATUS_SUCCESS);
  unsigned char* view = nullptr;
  ExpectFailsUntilThereIsMemory([&] {
    view = static_cast<unsigned char*>(MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority));
    return view == nullptr ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
  });
  EXPECT_EQ(view[0], 42);
  VmbChannelUnmapGpadl(server_channel_, handle);
  VmbChannelDeleteGpadl(client_channel_, handle);
  ExFreePoolWithTag(buffer, kTag);
}

// What gives back asks for nothing: a caller that has no memory must be able to leave.
class AnEndWithoutMemory : public WithoutMemory {
 protected:
  void TearDown() override {
    {
      const AllocationFaults faults(0);
      DirectTest::TearDown();
    }
    ExpectNothingStaysMapped();
  }
};

TEST_F(AnEndWithoutMemory, OfOpenChannelsAndOfBothEndsOfTheBus) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
}

TEST_F(AnEndWithoutMemory, OfChannelsThatWereNeverEnabled) {}

}  // namespace

}  // namespace kmcl::contract
