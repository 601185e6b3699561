// For the tests of this room: a bus inside the test's process, with one client on it, and one
// synchronous request at a time. Written against the public headers, like the devices.
#pragma once

#include <gtest/gtest.h>
#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace kmcl::devices {

// Set once, waited for with a deadline, so that a hang is a failure.
class Event {
 public:
  void Set() {
    {
      const std::lock_guard lock(mutex_);
      set_ = true;
    }
    changed_.notify_all();
  }
  void Clear() {
    const std::lock_guard lock(mutex_);
    set_ = false;
  }
  bool Wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// A server on an address of its own. `arrived` makes the devices, `gone` destroys them.
class TestServer {
 public:
  TestServer(std::function<void(PDEVICE_OBJECT, HANDLE)> arrived, std::function<void()> gone)
      : arrived_(std::move(arrived)), gone_(std::move(gone)) {
    static int counter = 0;
    address_ = "local:devices-test-" + std::to_string(++counter);
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.Context = this;
    options.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
      static_cast<TestServer*>(context)->arrived_(KmclServerDeviceObject(server), partition);
    };
    options.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE) {
      static_cast<TestServer*>(context)->gone_();
    };
    EXPECT_EQ(KmclServerCreate(address_.c_str(), &options, &server_), STATUS_SUCCESS);
  }
  ~TestServer() { KmclServerDestroy(server_); }
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  const std::string& address() const { return address_; }

 private:
  std::function<void(PDEVICE_OBJECT, HANDLE)> arrived_;
  std::function<void()> gone_;
  std::string address_;
  KMCL_SERVER server_ = nullptr;
};

// A client with one channel of `type`, open when the constructor returns.
class TestClient {
 public:
  TestClient(const std::string& address, const GUID& type, UINT32 maximum_packet_bytes) {
    EXPECT_EQ(KmclClientConnect(address.c_str(), nullptr, &own_client_), STATUS_SUCCESS);
    client_ = own_client_;
    if (client_ == nullptr) {
      return;
    }
    Open(maximum_packet_bytes, [&type](VMBCHANNEL channel) {
      return VmbClientChannelInitSetTargetPnp(channel, &type, nullptr, nullptr);
    });
  }
  // A sub-channel of `primary`, which outlives it; open likewise.
  TestClient(const TestClient& primary, UINT32 maximum_packet_bytes) : client_(primary.client_) {
    Open(maximum_packet_bytes, [&primary](VMBCHANNEL channel) {
      return VmbChannelInitSetPrimaryChannel(channel, primary.channel());
    });
  }
  ~TestClient() {
    if (channel_ != nullptr) {
      VmbChannelDisable(channel_);
      VmbChannelCleanup(channel_);
    }
    if (own_client_ != nullptr) {
      KmclClientDestroy(own_client_);
    }
  }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  VMBCHANNEL channel() const { return channel_; }
  // Closes the channel, and opens it again.
  void Reopen() {
    VmbChannelDisable(channel_);
    started_.Clear();
    closed_.Clear();
    EXPECT_EQ(VmbChannelEnable(channel_), STATUS_SUCCESS);
    EXPECT_TRUE(started_.Wait()) << "the channel did not open again";
  }
  // Until the other end has closed it.
  bool WaitClosed() { return closed_.Wait(); }

  // The completion's bytes, as rounded up on the wire.
  std::vector<std::byte> Request(std::vector<std::byte> packet) {
    std::vector<std::byte> answer(64 * 1024 + 64);
    auto answer_bytes = static_cast<UINT32>(answer.size());
    LARGE_INTEGER timeout;
    timeout.QuadPart = -100'000'000;  // 10 s
    EXPECT_EQ(VmbChannelSendSynchronousRequest(channel_, packet.data(),
                                               static_cast<UINT32>(packet.size()), nullptr,
                                               VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION,
                                               answer.data(), &answer_bytes, &timeout),
              STATUS_SUCCESS);
    answer.resize(answer_bytes);
    return answer;
  }
  // Without asking for a completion.
  void Send(std::vector<std::byte> packet) {
    EXPECT_EQ(VmbChannelSendSynchronousRequest(channel_, packet.data(),
                                               static_cast<UINT32>(packet.size()), nullptr, 0,
                                               nullptr, nullptr, nullptr),
              STATUS_SUCCESS);
  }

 private:
  template <typename SetTarget>
  void Open(UINT32 maximum_packet_bytes, SetTarget set_target) {
    EXPECT_EQ(VmbChannelAllocate(KmclClientDeviceObject(client_), FALSE, &channel_),
              STATUS_SUCCESS);
    VmbChannelSetPointer(channel_, this);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
      static_cast<TestClient*>(VmbChannelGetPointer(channel))->started_.Set();
    };
    callbacks.EvtChannelClosed = [](VMBCHANNEL channel) {
      static_cast<TestClient*>(VmbChannelGetPointer(channel))->closed_.Set();
    };
    EXPECT_EQ(VmbChannelInitSetStateChangeCallbacks(channel_, &callbacks), STATUS_SUCCESS);
    EXPECT_EQ(VmbChannelInitSetMaximumPacketSize(channel_, maximum_packet_bytes), STATUS_SUCCESS);
    EXPECT_EQ(set_target(channel_), STATUS_SUCCESS);
    EXPECT_EQ(VmbChannelEnable(channel_), STATUS_SUCCESS);
    EXPECT_TRUE(started_.Wait()) << "the channel did not open";
  }

  KMCL_CLIENT own_client_ = nullptr;
  KMCL_CLIENT client_ = nullptr;
  VMBCHANNEL channel_ = nullptr;
  Event started_;
  Event closed_;
};

template <typename Header>
std::vector<std::byte> Packet(const Header& header, std::string_view data = {}) {
  std::vector<std::byte> bytes(sizeof(header) + data.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (!data.empty()) std::memcpy(bytes.data() + sizeof(header), data.data(), data.size());
  return bytes;
}

// The value at the front of `bytes`; zeroes where they end early.
template <typename T>
T ReadAs(const std::vector<std::byte>& bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), std::min(sizeof(value), bytes.size()));
  return value;
}

}  // namespace kmcl::devices
