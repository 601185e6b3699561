// The calls of GPADLs themselves: arguments, what is logged, and a channel that is lost while one
// waits (KMCL reference 8.4, 8.6, 12.45; rows 3, 4, 5, 42, 47, 63).
#include <kmcl/wdk.h>

#include <array>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

constexpr ULONG kTag = 0x6C6D634B;

// Lines that the library has logged.
class Logged {
 public:
  Logged() {
    KmclSetLogSink(
        [](PVOID context, KMCL_LOG_LEVEL, const char* line) {
          auto* const self = static_cast<Logged*>(context);
          const std::lock_guard lock(self->mutex_);
          self->text_ += line + std::string("\n");
        },
        this);
  }
  ~Logged() { KmclSetLogSink(nullptr, nullptr); }
  Logged(const Logged&) = delete;
  Logged& operator=(const Logged&) = delete;
  bool Has(const std::string& text) {
    const std::lock_guard lock(mutex_);
    return text_.find(text) != std::string::npos;
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

class GpadlCalls : public DirectTest {
 protected:
  void SetUp() override {
    DirectTest::SetUp();
    buffer_ = ExAllocatePool2(POOL_FLAG_NON_PAGED, 2 * PAGE_SIZE, kTag);
    mdl_ = IoAllocateMdl(buffer_, 2 * PAGE_SIZE, FALSE, FALSE, nullptr);
    MmBuildMdlForNonPagedPool(mdl_);
  }
  void TearDown() override {
    DirectTest::TearDown();
    IoFreeMdl(mdl_);
    ExFreePoolWithTag(buffer_, kTag);
  }

  void OpenBoth() {
    Configure(server_channel_);
    ASSERT_EQ(
        Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr)),
        STATUS_SUCCESS);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
      static_cast<GpadlCalls*>(VmbChannelGetPointer(channel))->recorder_.Record("active");
    };
    callbacks.EvtChannelClosed = [](VMBCHANNEL channel) {
      static_cast<GpadlCalls*>(VmbChannelGetPointer(channel))->recorder_.Record("closed");
    };
    ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(client_channel_, &callbacks)),
              STATUS_SUCCESS);
    VmbChannelSetPointer(client_channel_, this);
    ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
    VmbChannelStart(server_channel_);
    ASSERT_NO_FATAL_FAILURE(OpenClient(1));
  }
  void OpenClient(int times) {
    ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
    ASSERT_TRUE(recorder_.Wait("active", times));
  }

  UINT32 Create() {
    UINT32 handle = 0;
    EXPECT_EQ(Status(VmbChannelCreateGpadlFromBuffer(client_channel_, 0, buffer_, 100, &handle)),
              STATUS_SUCCESS);
    return handle;
  }

  PVOID buffer_ = nullptr;
  PMDL mdl_ = nullptr;
};

TEST_F(GpadlCalls, CreateFromBufferRefusesBadArgumentsInTheirOrder) {
  UINT32 handle = 1;
  const auto create = [&](VMBCHANNEL channel, UINT32 flags, PVOID buffer, UINT32 bytes,
                          PUINT32 out) {
    return Status(VmbChannelCreateGpadlFromBuffer(channel, flags, buffer, bytes, out));
  };
  EXPECT_EQ(create(nullptr, 2, nullptr, 0, nullptr), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(create(server_channel_, 2, nullptr, 0, &handle), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(handle, 0U);
  EXPECT_EQ(create(client_channel_, 2, nullptr, 0, nullptr), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(create(client_channel_, 0x80000001, buffer_, 8, &handle), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(create(client_channel_, 1, nullptr, 0, nullptr), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(create(client_channel_, 1, buffer_, 0, nullptr), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(create(client_channel_, 1, buffer_, 0x80000001, nullptr), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(create(client_channel_, 1, buffer_, 8, nullptr), STATUS_INVALID_PARAMETER_5);
  handle = 1;
  EXPECT_EQ(create(client_channel_, 1, buffer_, 8, &handle), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(handle, 0U);
}

TEST_F(GpadlCalls, CreateFromMdlRefusesBadArgumentsInTheirOrder) {
  UINT32 handle = 1;
  const auto create = [&](VMBCHANNEL channel, UINT32 flags, PMDL mdl, UINT32 start, UINT32 length,
                          PUINT32 out) {
    return Status(VmbChannelCreateGpadlFromMdl(channel, flags, mdl, start, length, out));
  };
  constexpr UINT32 kBytes = 2 * PAGE_SIZE;
  EXPECT_EQ(create(nullptr, 2, nullptr, 9, 9, nullptr), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(create(server_channel_, 0, mdl_, 0, 0, &handle), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(create(client_channel_, 2, nullptr, 0, 0, nullptr), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(create(client_channel_, 0, nullptr, 0, 0, nullptr), STATUS_INVALID_PARAMETER_3);
  PMDL const unbuilt = IoAllocateMdl(buffer_, kBytes, FALSE, FALSE, nullptr);
  EXPECT_EQ(create(client_channel_, 0, unbuilt, 0, 0, &handle), STATUS_INVALID_PARAMETER_3);
  IoFreeMdl(unbuilt);
  EXPECT_EQ(create(client_channel_, 0, mdl_, kBytes, 1, nullptr), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(create(client_channel_, 0, mdl_, 1, kBytes, nullptr), STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(create(client_channel_, 0, mdl_, 1, kBytes - 1, nullptr), STATUS_INVALID_PARAMETER_6);
  EXPECT_EQ(create(client_channel_, 0, mdl_, 1, 0, &handle), STATUS_INVALID_DEVICE_STATE);
}

TEST_F(GpadlCalls, CreateFromPfnListRefusesBadArgumentsInTheirOrder) {
  UINT32 handle = 1;
  PPFN_NUMBER const pages = MmGetMdlPfnArray(mdl_);
  const auto create = [&](VMBCHANNEL channel, UINT32 flags, PPFN_NUMBER pfns, UINT32 count,
                          UINT32 offset, UINT32 bytes, PUINT32 out) {
    return Status(
        VmbChannelCreateGpadlFromPfnList(channel, flags, pfns, count, offset, bytes, out));
  };
  EXPECT_EQ(create(nullptr, 2, nullptr, 0, 0, 0, nullptr), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(create(server_channel_, 0, pages, 2, 0, 0, &handle), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(create(client_channel_, 2, nullptr, 0, 0, 0, nullptr), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(create(client_channel_, 0, nullptr, 0, 0, 0, nullptr), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(create(client_channel_, 0, pages, 0, 0, 0, nullptr), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(create(client_channel_, 0, pages, 524290, 0, 0, nullptr), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(create(client_channel_, 0, pages, 2, PAGE_SIZE, 0, nullptr),
            STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(create(client_channel_, 0, pages, 2, 1, 2 * PAGE_SIZE, nullptr),
            STATUS_INVALID_PARAMETER_6);
  EXPECT_EQ(create(client_channel_, 0, pages, 2, 1, PAGE_SIZE - 1, nullptr),
            STATUS_INVALID_PARAMETER_6);
  EXPECT_EQ(create(client_channel_, 0, pages, 2, 1, PAGE_SIZE, nullptr),
            STATUS_INVALID_PARAMETER_7);
  EXPECT_EQ(create(client_channel_, 0, pages, 2, 1, 0, &handle), STATUS_INVALID_DEVICE_STATE);
}

TEST_F(GpadlCalls, MapRefusesBadArgumentsInTheirOrder) {
  PMDL mdl = mdl_;
  EXPECT_EQ(Status(VmbChannelMapGpadl(nullptr, 2, 0, nullptr)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelMapGpadl(client_channel_, 0, 1, &mdl)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(mdl, nullptr);
  EXPECT_EQ(Status(VmbChannelMapGpadl(server_channel_, 2, 0, nullptr)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelMapGpadl(server_channel_, 0, 1, nullptr)), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Status(VmbChannelMapGpadl(server_channel_, 0, 1, &mdl)), STATUS_INVALID_DEVICE_STATE);
}

TEST_F(GpadlCalls, TheWrongEndIsLoggedAndIgnored) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  const UINT32 handle = Create();
  PMDL mdl = nullptr;
  ASSERT_EQ(Status(VmbChannelMapGpadl(server_channel_, 0, handle, &mdl)), STATUS_SUCCESS);
  {
    Logged logged;
    VmbChannelDeleteGpadl(server_channel_, handle);
    EXPECT_TRUE(logged.Has("VmbChannelDeleteGpadl: not a client's channel"));
    VmbChannelUnmapGpadl(client_channel_, handle);
    EXPECT_TRUE(logged.Has("VmbChannelUnmapGpadl: not a server's channel"));
    VmbChannelDeleteGpadl(nullptr, handle);
    VmbChannelUnmapGpadl(nullptr, handle);
  }
  PMDL again = nullptr;
  EXPECT_EQ(Status(VmbChannelMapGpadl(server_channel_, 0, handle, &again)),
            STATUS_INVALID_DEVICE_STATE)
      << "it is still mapped";
  VmbChannelUnmapGpadl(server_channel_, handle);
  VmbChannelDeleteGpadl(client_channel_, handle);
}

TEST_F(GpadlCalls, UnknownHandlesAreLogged) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  const UINT32 handle = Create();
  Logged logged;
  VmbChannelDeleteGpadl(client_channel_, 0xABCD);
  EXPECT_TRUE(logged.Has("VmbChannelDeleteGpadl: handle 0xabcd is ignored"));
  VmbChannelUnmapGpadl(server_channel_, handle);
  EXPECT_TRUE(logged.Has("VmbChannelUnmapGpadl: handle"));
}

TEST_F(GpadlCalls, WhatIsLeftAtCloseIsLogged) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  const UINT32 handle = Create();
  (void)Create();
  PMDL mdl = nullptr;
  ASSERT_EQ(Status(VmbChannelMapGpadl(server_channel_, 0, handle, &mdl)), STATUS_SUCCESS);
  Logged logged;
  VmbChannelDisable(client_channel_);
  EXPECT_TRUE(logged.Has("2 GPADLs were left when it was closed"));
  EXPECT_TRUE(logged.Has("1 GPADLs were still mapped when it was closed"));
}

TEST_F(GpadlCalls, TheServersMdlHasNoAddressUntilItIsMapped) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  auto* const bytes = static_cast<unsigned char*>(buffer_);
  const UINT32 handle = Create();
  PMDL mdl = nullptr;
  ASSERT_EQ(Status(VmbChannelMapGpadl(server_channel_, 0, handle, &mdl)), STATUS_SUCCESS);
  EXPECT_EQ(mdl->Next, nullptr);
  EXPECT_EQ(mdl->StartVa, nullptr);
  EXPECT_NE(mdl->Process, nullptr);
  EXPECT_EQ(mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA, 0);
  EXPECT_NE(mdl->MdlFlags & MDL_PAGES_LOCKED, 0);
  auto* const view = static_cast<unsigned char*>(
      MmMapLockedPagesSpecifyCache(mdl, KernelMode, MmCached, nullptr, FALSE, NormalPagePriority));
  ASSERT_NE(view, nullptr);
  bytes[99] = 5;
  EXPECT_EQ(view[99], 5);
  MmUnmapLockedPages(view, mdl);
  VmbChannelUnmapGpadl(server_channel_, handle);
  VmbChannelDeleteGpadl(client_channel_, handle);
}

// A server that is busy: its next guest holds up its bus thread until Release.
class BusyServer {
 public:
  static VOID Arrived(PVOID context, KMCL_SERVER, HANDLE partition) {
    auto* const self = static_cast<BusyServer*>(context);
    std::unique_lock lock(self->mutex_);
    if (self->partition_ == nullptr) self->partition_ = partition;
    ++self->arrived_;
    self->changed_.notify_all();
    self->changed_.wait(lock, [self] { return !self->hold_; });
  }
  void Hold() {
    const std::lock_guard lock(mutex_);
    hold_ = true;
  }
  void Release() {
    const std::lock_guard lock(mutex_);
    hold_ = false;
    changed_.notify_all();
  }
  void AwaitArrivals(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this, count] { return arrived_ >= count; });
  }
  HANDLE partition() {
    const std::lock_guard lock(mutex_);
    return partition_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  HANDLE partition_ = nullptr;
  int arrived_ = 0;
  bool hold_ = false;
};

TEST(GpadlWaits, CreateEndsWithDeviceRemovedWhenTheChannelIsLostMeanwhile) {
  BusyServer busy;
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.Context = &busy;
  options.PartitionArrived = BusyServer::Arrived;
  const char* const address = "local:gpadl-waits";
  KMCL_SERVER server = nullptr;
  KMCL_CLIENT client = nullptr;
  ASSERT_EQ(Status(KmclServerCreate(address, &options, &server)), STATUS_SUCCESS);
  ASSERT_EQ(Status(KmclClientConnect(address, nullptr, &client)), STATUS_SUCCESS);
  busy.AwaitArrivals(1);

  const GUID type{1, 2, 3, {}};
  VMBCHANNEL offered = nullptr;
  VMBCHANNEL opened = nullptr;
  ASSERT_EQ(Status(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &offered)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &opened)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbServerChannelInitSetTargetInterfaceId(offered, type, type)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbServerChannelInitSetVmbusHandle(offered, busy.partition())), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(opened, &type, &type, nullptr)),
            STATUS_SUCCESS);
  Recorder recorder;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
    static_cast<Recorder*>(VmbChannelGetPointer(channel))->Record("active");
  };
  callbacks.EvtChannelClosed = [](VMBCHANNEL channel) {
    static_cast<Recorder*>(VmbChannelGetPointer(channel))->Record("closed");
  };
  ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(opened, &callbacks)), STATUS_SUCCESS);
  VmbChannelSetPointer(opened, &recorder);
  ASSERT_EQ(Status(VmbChannelEnable(offered)), STATUS_SUCCESS);
  VmbChannelStart(offered);
  PVOID const buffer = ExAllocatePool2(POOL_FLAG_NON_PAGED, PAGE_SIZE, kTag);

  // Nothing outside can see that the call waits already; when the close was faster, once more.
  Status lost = STATUS_SUCCESS;
  for (int round = 1; lost != STATUS_DEVICE_REMOVED && round <= 200; ++round) {
    ASSERT_EQ(Status(VmbChannelEnable(opened)), STATUS_SUCCESS);
    ASSERT_TRUE(recorder.Wait("active", round));
    busy.Hold();
    KMCL_CLIENT second = nullptr;
    std::thread guest([&] { (void)KmclClientConnect(address, nullptr, &second); });
    busy.AwaitArrivals(1 + round);
    std::thread creator([&] {
      UINT32 handle = 1;
      lost = Status(VmbChannelCreateGpadlFromBuffer(opened, 0, buffer, 100, &handle));
      EXPECT_EQ(handle, 0U);
    });
    for (int turn = 0; turn < 100 * round; ++turn) std::this_thread::yield();
    std::thread closer([&] { VmbChannelDisable(opened); });
    EXPECT_TRUE(recorder.Wait("closed", round));
    busy.Release();
    closer.join();
    creator.join();
    guest.join();
    KmclClientDestroy(second);
    EXPECT_TRUE(lost == STATUS_DEVICE_REMOVED || lost == STATUS_INVALID_DEVICE_STATE);
  }
  EXPECT_EQ(lost, STATUS_DEVICE_REMOVED);

  ExFreePoolWithTag(buffer, kTag);
  VmbChannelCleanup(opened);
  VmbChannelDisable(offered);
  VmbChannelCleanup(offered);
  KmclClientDestroy(client);
  KmclServerDestroy(server);
}

}  // namespace

}  // namespace kmcl::contract
