// Channels that a client asks for by name (kmcl/connect.h): who is asked, what is refused, and with
// which status.
#include <gtest/gtest.h>
#include <kmcl/connect.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "api/objects.h"

namespace kmcl::api {
namespace {

constexpr GUID kService = KMCL_VSOCK_PORT_GUID(5000);
constexpr ULONG kConnectionRefused = 0xC0000236;

bool IsSame(const GUID& one, const GUID& other) {
  return std::memcmp(&one, &other, sizeof(one)) == 0;
}

// A server with one client on a bus of their own, and what each is told.
class Connecting : public ::testing::Test {
 protected:
  explicit Connecting(ULONG maximum_version = 0) {
    static int counter = 0;
    const std::string address = "local:connect-test-" + std::to_string(++counter);
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.Context = this;
    options.PartitionArrived = [](PVOID context, KMCL_SERVER, HANDLE partition) {
      static_cast<Connecting*>(context)->partition_ = partition;
    };
    EXPECT_EQ(KmclServerCreate(address.c_str(), &options, &server_), STATUS_SUCCESS);
    KmclEndpointOptionsInit(&options);
    options.MaximumVersion = maximum_version;
    EXPECT_EQ(KmclClientConnect(address.c_str(), &options, &client_), STATUS_SUCCESS);
    EXPECT_EQ(KmclClientSetConnectRefusedCallback(client_, OnRefused, this), STATUS_SUCCESS);
  }
  ~Connecting() override {
    KmclClientDestroy(client_);
    KmclServerDestroy(server_);
  }

  void Listen() {
    EXPECT_EQ(KmclPartitionSetConnectCallback(partition_, OnRequest, this), STATUS_SUCCESS);
  }
  static KMCL_CONNECT_REQUEST Request(UINT32 port) {
    return {KMCL_VSOCK_PORT_GUID(port), kService, {}};
  }
  template <typename Done>
  bool Wait(Done done) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), done);
  }

  static NTSTATUS OnRequest(PVOID context, HANDLE partition, const KMCL_CONNECT_REQUEST* request) {
    auto* self = static_cast<Connecting*>(context);
    EXPECT_EQ(partition, self->partition_);
    {
      const std::lock_guard lock(self->mutex_);
      self->requests_.push_back(*request);
    }
    self->changed_.notify_all();
    return self->answer_;
  }
  static VOID OnPostStarted(VMBCHANNEL channel) {
    auto* self = static_cast<Connecting*>(VmbChannelGetPointer(channel));
    const std::lock_guard lock(self->mutex_);
    self->opened_ = true;
    self->changed_.notify_all();
  }
  static VOID OnRefused(PVOID context, const KMCL_CONNECT_REQUEST* request, ULONG status) {
    auto* self = static_cast<Connecting*>(context);
    EXPECT_EQ(status, kConnectionRefused);
    {
      const std::lock_guard lock(self->mutex_);
      self->refusals_.push_back(*request);
    }
    self->changed_.notify_all();
  }

  KMCL_SERVER server_ = nullptr;
  KMCL_CLIENT client_ = nullptr;
  HANDLE partition_ = nullptr;
  NTSTATUS answer_ = STATUS_SUCCESS;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  std::deque<KMCL_CONNECT_REQUEST> requests_;
  std::deque<KMCL_CONNECT_REQUEST> refusals_;
  bool opened_ = false;
};

TEST_F(Connecting, IsRefusedWhereNobodyIsAsked) {
  const KMCL_CONNECT_REQUEST request = Request(1024);
  EXPECT_EQ(KmclClientRequestConnect(client_, &request), STATUS_SUCCESS);
  ASSERT_TRUE(Wait([this] { return refusals_.size() == 1; }));
  EXPECT_TRUE(IsSame(refusals_[0].EndpointId, request.EndpointId));
  EXPECT_TRUE(IsSame(refusals_[0].ServiceId, request.ServiceId));
}

TEST_F(Connecting, IsTheServersToDecide) {
  Listen();
  answer_ = STATUS_ACCESS_DENIED;
  KMCL_CONNECT_REQUEST request = Request(1024);
  request.SiloId = kService;
  EXPECT_EQ(KmclClientRequestConnect(client_, &request), STATUS_SUCCESS);
  ASSERT_TRUE(Wait([this] { return refusals_.size() == 1; }));
  EXPECT_EQ(requests_.size(), 1U);
  EXPECT_TRUE(IsSame(requests_[0].EndpointId, request.EndpointId));
  EXPECT_TRUE(IsSame(requests_[0].ServiceId, kService));
  EXPECT_TRUE(IsSame(requests_[0].SiloId, kService));
  // And may be refused later.
  answer_ = STATUS_SUCCESS;
  request = Request(1025);
  EXPECT_EQ(KmclClientRequestConnect(client_, &request), STATUS_SUCCESS);
  ASSERT_TRUE(Wait([this] { return requests_.size() == 2; }));
  EXPECT_EQ(KmclPartitionRefuseConnect(partition_, &requests_[1]), STATUS_SUCCESS);
  ASSERT_TRUE(Wait([this] { return refusals_.size() == 2; }));
  EXPECT_TRUE(IsSame(refusals_[1].EndpointId, request.EndpointId));
  // Nobody is asked any more.
  EXPECT_EQ(KmclPartitionSetConnectCallback(partition_, nullptr, nullptr), STATUS_SUCCESS);
  EXPECT_EQ(KmclClientRequestConnect(client_, &request), STATUS_SUCCESS);
  ASSERT_TRUE(Wait([this] { return refusals_.size() == 3; }));
  EXPECT_EQ(requests_.size(), 2U);
}

TEST_F(Connecting, AnOfferInTheCallbackIsTheAnswer) {
  VMBCHANNEL offered = nullptr;
  ASSERT_EQ(VmbChannelAllocate(KmclServerDeviceObject(server_), TRUE, &offered), STATUS_SUCCESS);
  EXPECT_EQ(VmbServerChannelInitSetVmbusHandle(offered, partition_), STATUS_SUCCESS);
  EXPECT_EQ(KmclPartitionSetConnectCallback(
                partition_,
                [](PVOID context, HANDLE, const KMCL_CONNECT_REQUEST* request) {
                  auto* const channel = static_cast<VMBCHANNEL>(context);
                  VmbServerChannelInitSetTargetInterfaceId(channel, request->ServiceId,
                                                           request->EndpointId);
                  const NTSTATUS status = VmbChannelEnable(channel);
                  VmbChannelStart(channel);
                  return status;
                },
                offered),
            STATUS_SUCCESS);
  VMBCHANNEL opened = nullptr;
  ASSERT_EQ(VmbChannelAllocate(KmclClientDeviceObject(client_), FALSE, &opened), STATUS_SUCCESS);
  VmbChannelSetPointer(opened, this);
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = OnPostStarted;
  EXPECT_EQ(VmbChannelInitSetStateChangeCallbacks(opened, &callbacks), STATUS_SUCCESS);
  const KMCL_CONNECT_REQUEST request = Request(1024);
  EXPECT_EQ(VmbClientChannelInitSetTargetPnp(opened, &kService, &request.EndpointId, nullptr),
            STATUS_SUCCESS);
  EXPECT_EQ(VmbChannelEnable(opened), STATUS_SUCCESS);
  EXPECT_EQ(KmclClientRequestConnect(client_, &request), STATUS_SUCCESS);
  EXPECT_TRUE(Wait([this] { return opened_; })) << "the channel did not open";
  VmbChannelDisable(opened);
  VmbChannelCleanup(opened);
  VmbChannelDisable(offered);
  VmbChannelCleanup(offered);
}

TEST_F(Connecting, AFloodIsRefusedWithoutACall) {
  constexpr UINT32 kFlood = 4 * KMCL_CONNECT_REQUESTS_PER_SECOND;
  Listen();
  const auto start = std::chrono::steady_clock::now();
  for (UINT32 i = 0; i < kFlood; ++i) {
    const KMCL_CONNECT_REQUEST request = Request(i);
    ASSERT_EQ(KmclClientRequestConnect(client_, &request), STATUS_SUCCESS);
  }
  ASSERT_TRUE(Wait([this] { return requests_.size() + refusals_.size() == kFlood; }));
  EXPECT_GE(requests_.size(), KMCL_CONNECT_REQUESTS_PER_SECOND);
  // However slow this machine is: so many at once, and so many in each second since.
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LE(static_cast<double>(requests_.size()),
            KMCL_CONNECT_REQUESTS_PER_SECOND * (1 + seconds.count()) + 1);
}

TEST_F(Connecting, ArgumentsAreNamedByTheirNumbers) {
  const KMCL_CONNECT_REQUEST request = Request(1024);
  EXPECT_EQ(KmclPartitionSetConnectCallback(nullptr, OnRequest, this), STATUS_INVALID_HANDLE);
  EXPECT_EQ(KmclPartitionRefuseConnect(nullptr, &request), STATUS_INVALID_HANDLE);
  EXPECT_EQ(KmclPartitionRefuseConnect(partition_, nullptr), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(KmclClientSetConnectRefusedCallback(nullptr, OnRefused, this),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(KmclClientRequestConnect(nullptr, &request), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(KmclClientRequestConnect(client_, nullptr), STATUS_INVALID_PARAMETER_2);
}

TEST_F(Connecting, TheOfferCarriesWhatItIsGiven) {
  std::vector<std::byte> data(VMBUS_SERVER_CHANNEL_INIT_MAXIMUM_OFFER_DATA + 1, std::byte{7});
  VMBCHANNEL channel = nullptr;
  ASSERT_EQ(VmbChannelAllocate(KmclServerDeviceObject(server_), TRUE, &channel), STATUS_SUCCESS);
  const auto& user_defined = ChannelObject::From(channel).server()->setup().offer.user_defined;
  EXPECT_EQ(KmclServerChannelInitSetOfferData(nullptr, data.data(), 1), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(KmclServerChannelInitSetOfferData(channel, nullptr, 1), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(KmclServerChannelInitSetOfferData(channel, data.data(), 121),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(KmclServerChannelInitSetOfferData(channel, data.data(), 120), STATUS_SUCCESS);
  EXPECT_EQ(user_defined[119], std::byte{7});
  EXPECT_EQ(KmclServerChannelInitSetOfferData(channel, data.data(), 3), STATUS_SUCCESS);
  EXPECT_EQ(user_defined[2], std::byte{7});
  EXPECT_EQ(user_defined[3], std::byte{0});
  EXPECT_EQ(KmclServerChannelInitSetOfferData(channel, nullptr, 0), STATUS_SUCCESS);
  EXPECT_EQ(user_defined[0], std::byte{0});
  VmbChannelCleanup(channel);
}

class ConnectingBefore40 : public Connecting {
 protected:
  ConnectingBefore40() : Connecting(0x00030000) {}
};

TEST_F(ConnectingBefore40, IsNotKnown) {
  const KMCL_CONNECT_REQUEST request = Request(1024);
  EXPECT_EQ(KmclClientRequestConnect(client_, &request), STATUS_REVISION_MISMATCH);
}

}  // namespace
}  // namespace kmcl::api
