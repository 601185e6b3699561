// The ends of a bus themselves: their statuses, several clients, several servers (kmcl/endpoint.h).
#include <sched.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>

#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

class Endpoints : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "kmcl-endpoints-" + std::to_string(getpid());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string Address(const std::string& name) const {
    return "unix:" + (directory_ / name).string();
  }

  std::filesystem::path directory_;
};

Status Serve(const char* address, const KMCL_ENDPOINT_OPTIONS* options, KMCL_SERVER* server) {
  return {KmclServerCreate(address, options, server)};
}

Status Connect(const char* address, const KMCL_ENDPOINT_OPTIONS* options, KMCL_CLIENT* client) {
  return {KmclClientConnect(address, options, client)};
}

TEST_F(Endpoints, BadArgumentsAreNamed) {
  KMCL_SERVER server = nullptr;
  KMCL_CLIENT client = nullptr;
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  EXPECT_EQ(options.Size, sizeof(options));
  EXPECT_EQ(Serve("nowhere", nullptr, &server), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Serve("local:", nullptr, &server), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Serve(Address("a").c_str(), nullptr, nullptr), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Connect("http://there", nullptr, &client), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Connect(Address("a").c_str(), nullptr, nullptr), STATUS_INVALID_PARAMETER_3);
  options.Size = 1;
  EXPECT_EQ(Serve(Address("a").c_str(), &options, &server), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Connect(Address("a").c_str(), &options, &client), STATUS_INVALID_PARAMETER_2);
  KmclEndpointOptionsInit(&options);
  options.DispatchThreads = 17;
  EXPECT_EQ(Serve(Address("a").c_str(), &options, &server), STATUS_INVALID_PARAMETER_2);
  options.DispatchThreads = 0;
  EXPECT_EQ(Serve(Address("a").c_str(), &options, &server), STATUS_INVALID_PARAMETER_2);
  KmclEndpointOptionsInit(&options);
  const ULONG nowhere = 1'000'000;
  options.DispatchProcessors = &nowhere;
  EXPECT_EQ(Serve(Address("a").c_str(), &options, &server), STATUS_INVALID_PARAMETER_2);
  KmclServerDestroy(nullptr);
  KmclClientDestroy(nullptr);
}

TEST_F(Endpoints, ProgramsOfBeforeTheLastOptionAreServed) {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.Size = offsetof(KMCL_ENDPOINT_OPTIONS, DispatchProcessors);
  const ULONG nowhere = 1'000'000;
  options.DispatchProcessors = &nowhere;  // what stands behind their end is none of theirs
  KMCL_SERVER server = nullptr;
  EXPECT_EQ(Serve(Address("short").c_str(), &options, &server), STATUS_SUCCESS);
  KmclServerDestroy(server);
}

TEST_F(Endpoints, DispatchThreadsRunWhereTheyAreTold) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  ULONG processor = 0;
  while (!CPU_ISSET(processor, &allowed)) ++processor;
  const ULONG processors[] = {processor, processor};
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.DispatchThreads = 2;
  options.DispatchProcessors = processors;
  KMCL_SERVER server = nullptr;
  ASSERT_EQ(Serve(Address("bound").c_str(), &options, &server), STATUS_SUCCESS);
  int bound = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    cpu_set_t its;
    CPU_ZERO(&its);
    const pid_t thread = std::stoi(task.path().filename());
    if (sched_getaffinity(thread, sizeof its, &its) != 0) continue;
    bound += CPU_COUNT(&its) == 1 && CPU_ISSET(processor, &its) ? 1 : 0;
  }
  if (CPU_COUNT(&allowed) == 1) {
    GTEST_SKIP() << "with one processor every thread is bound to it";
  }
  EXPECT_EQ(bound, 2);
  KmclServerDestroy(server);
}

TEST_F(Endpoints, NobodyServesTheAddress) {
  KMCL_CLIENT client = nullptr;
  EXPECT_EQ(Connect(Address("empty").c_str(), nullptr, &client), STATUS_OBJECT_NAME_NOT_FOUND);
  EXPECT_EQ(Connect("local:nobody-is-here", nullptr, &client), STATUS_OBJECT_NAME_NOT_FOUND);
}

TEST_F(Endpoints, ALiveServerKeepsItsAddressAndLeavesItFree) {
  for (const std::string& address : {Address("bus"), std::string("local:taken")}) {
    KMCL_SERVER first = nullptr;
    KMCL_SERVER second = nullptr;
    ASSERT_EQ(Serve(address.c_str(), nullptr, &first), STATUS_SUCCESS);
    EXPECT_EQ(Serve(address.c_str(), nullptr, &second), STATUS_OBJECT_NAME_COLLISION);
    KmclServerDestroy(first);
    ASSERT_EQ(Serve(address.c_str(), nullptr, &second), STATUS_SUCCESS);
    KmclServerDestroy(second);
  }
}

TEST_F(Endpoints, TheEnvironmentNamesTheAddress) {
  KMCL_SERVER server = nullptr;
  KMCL_CLIENT client = nullptr;
  unsetenv("KMCL_BUS");
  EXPECT_EQ(Serve(nullptr, nullptr, &server), STATUS_INVALID_PARAMETER_1);
  setenv("KMCL_BUS", Address("named").c_str(), 1);
  ASSERT_EQ(Serve(nullptr, nullptr, &server), STATUS_SUCCESS);
  ASSERT_EQ(Connect(nullptr, nullptr, &client), STATUS_SUCCESS);
  unsetenv("KMCL_BUS");
  KmclClientDestroy(client);
  KmclServerDestroy(server);
}

TEST_F(Endpoints, AFileOfSomebodyElseIsNotReplaced) {
  const std::filesystem::path file = directory_ / "precious";
  std::ofstream(file) << "data";
  KMCL_SERVER server = nullptr;
  EXPECT_NE(Serve(("unix:" + file.string()).c_str(), nullptr, &server), STATUS_SUCCESS);
  EXPECT_EQ(std::filesystem::file_size(file), 4U);
}

TEST_F(Endpoints, AClientAgreesOnAVersionUpToItsMaximum) {
  KMCL_SERVER server = nullptr;
  ASSERT_EQ(Serve(Address("v").c_str(), nullptr, &server), STATUS_SUCCESS);
  for (const auto& [maximum, agreed] : {std::pair{0U, 0x60000U},
                                        {0x60000U, 0x60000U},
                                        {0x50003U, 0x50003U},
                                        {0x40000U, 0x40000U}}) {
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.MaximumVersion = maximum;
    KMCL_CLIENT client = nullptr;
    ASSERT_EQ(Connect(Address("v").c_str(), &options, &client), STATUS_SUCCESS) << maximum;
    EXPECT_EQ(KmclClientVersion(client), agreed);
    EXPECT_TRUE(KmclClientIsConnected(client));
    KmclClientDestroy(client);
  }
  KmclServerDestroy(server);
}

TEST_F(Endpoints, StatusNamesAreKnownOrSpelledOut) {
  EXPECT_STREQ(KmclStatusName(STATUS_SUCCESS), "STATUS_SUCCESS");
  EXPECT_STREQ(KmclStatusName(STATUS_DEVICE_REMOVED), "STATUS_DEVICE_REMOVED");
  EXPECT_STREQ(KmclStatusName(STATUS_INVALID_PARAMETER_8), "STATUS_INVALID_PARAMETER_8");
  EXPECT_STREQ(KmclStatusName(static_cast<NTSTATUS>(0xC0FFEE11)), "STATUS_0xC0FFEE11");
}

class Partitions : public DirectTest {
 protected:
  void SetUp() override {
    DirectTest::SetUp();
    first_partition_ = partition_;
    ASSERT_EQ(Status(KmclClientConnect(address_.c_str(), nullptr, &second_client_)),
              STATUS_SUCCESS);
    ASSERT_TRUE(recorder_.Wait("arrived", 2));
  }
  void TearDown() override {
    KmclClientDestroy(second_client_);
    DirectTest::TearDown();
  }

  static std::size_t OfferCount(KMCL_CLIENT client) {
    ULONG count = 0;
    KmclClientQueryOffers(client, nullptr, 0, &count);
    return count;
  }

  HANDLE first_partition_ = nullptr;
  KMCL_CLIENT second_client_ = nullptr;
};

TEST_F(Partitions, TellWhoTheyAre) {
  KMCL_PARTITION_INFORMATION one{};
  KMCL_PARTITION_INFORMATION two{};
  ASSERT_EQ(Status(KmclPartitionQuery(first_partition_, &one)), STATUS_SUCCESS);
  ASSERT_EQ(Status(KmclPartitionQuery(partition_, &two)), STATUS_SUCCESS);
  EXPECT_EQ(one.Number, 1U);
  EXPECT_EQ(two.Number, 2U);
  EXPECT_EQ(one.ProcessId, static_cast<UINT32>(getpid()));
  EXPECT_EQ(one.UserId, getuid());
  EXPECT_EQ(one.Version, 0x60000U);
  EXPECT_EQ(Status(KmclPartitionQuery(nullptr, &one)), STATUS_INVALID_HANDLE);
  EXPECT_EQ(Status(KmclPartitionQuery(partition_, nullptr)), STATUS_INVALID_PARAMETER_2);
}

TEST_F(Partitions, DoNotSeeEachOthersChannels) {
  // The same name, once for each partition: no collision.
  ASSERT_NE(first_partition_, partition_);
  VMBCHANNEL other = Allocate(true);
  Configure(other);  // for the second
  ASSERT_EQ(Status(VmbServerChannelInitSetTargetInterfaceId(server_channel_, kType, kInstance)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbServerChannelInitSetVmbusHandle(server_channel_, first_partition_)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  // A client that waits at the first partition gets it; nothing appears at the second.
  static Recorder opened;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = [](VMBCHANNEL) -> NTSTATUS {
    opened.Record("Opened");
    return STATUS_SUCCESS;
  };
  ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(client_channel_, &callbacks)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
  ASSERT_TRUE(opened.Wait("Opened", 1));
  EXPECT_EQ(OfferCount(client_), 1U);
  EXPECT_EQ(OfferCount(second_client_), 0U);
  EXPECT_EQ(Status(VmbChannelEnable(other)), STATUS_SUCCESS);
  VmbChannelDisable(other);
  VmbChannelCleanup(other);
}

TEST_F(Partitions, OffersAreCopiedUpToTheCapacity) {
  ULONG count = 0;
  EXPECT_EQ(Status(KmclClientQueryOffers(client_, nullptr, 0, &count)), STATUS_SUCCESS);
  EXPECT_EQ(count, 0U);
  EXPECT_EQ(Status(KmclClientQueryOffers(nullptr, nullptr, 0, &count)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclClientQueryOffers(client_, nullptr, 1, &count)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclClientQueryOffers(client_, nullptr, 0, nullptr)),
            STATUS_INVALID_PARAMETER_4);
}

TEST(OffersAtArrival, StandWhenConnectReturns) {
  struct Host {
    VMBCHANNEL channel = nullptr;
    Status status = STATUS_UNSUCCESSFUL;
  } host;
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.Context = &host;
  // Offers are made on the bus thread, before the client's question for offers is answered.
  options.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
    auto* const self = static_cast<Host*>(context);
    if (!NT_SUCCESS(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &self->channel))) {
      return;
    }
    constexpr GUID kType{0xabcd, 1, 2, {3}};
    VmbServerChannelInitSetTargetInterfaceId(self->channel, kType, kType);
    VmbServerChannelInitSetVmbusHandle(self->channel, partition);
    VmbServerChannelInitSetMmioMegabytes(self->channel, 3, 5);
    self->status = VmbChannelEnable(self->channel);
  };
  KMCL_SERVER server = nullptr;
  ASSERT_EQ(Serve("local:offers-at-arrival", &options, &server), STATUS_SUCCESS);
  KMCL_CLIENT client = nullptr;
  ASSERT_EQ(Connect("local:offers-at-arrival", nullptr, &client), STATUS_SUCCESS);
  KMCL_OFFER offer{};
  ULONG count = 0;
  EXPECT_EQ(Status(KmclClientQueryOffers(client, &offer, 1, &count)), STATUS_SUCCESS);
  EXPECT_EQ(host.status, STATUS_SUCCESS);
  EXPECT_EQ(count, 1U);
  EXPECT_EQ(offer.InterfaceType.Data1, 0xabcdU);
  EXPECT_EQ(offer.MmioMegabytes, 3);
  EXPECT_EQ(offer.MmioMegabytesOptional, 5);
  EXPECT_FALSE(offer.InUse);
  KmclClientDestroy(client);
  VmbChannelDisable(host.channel);
  VmbChannelCleanup(host.channel);
  KmclServerDestroy(server);
}

}  // namespace

}  // namespace kmcl::contract
