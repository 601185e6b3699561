// Both ends of a bus in this process, as plain handles: for scenarios about the calls themselves.
#pragma once

#include <gtest/gtest.h>
#include <kmcl/endpoint.h>

#include <atomic>
#include <string>

#include "bus_fixture.h"

namespace kmcl::contract {

class DirectTest : public testing::Test {
 protected:
  void SetUp() override {
    static std::atomic<int> count{0};
    address_ = "local:direct-" + std::to_string(++count);
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.Context = this;
    options.PartitionArrived = [](PVOID context, KMCL_SERVER, HANDLE partition) {
      auto* const self = static_cast<DirectTest*>(context);
      self->partition_ = partition;
      self->recorder_.Record("arrived");
    };
    options.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE) {
      static_cast<DirectTest*>(context)->recorder_.Record("gone");
    };
    ASSERT_EQ(Status(KmclServerCreate(address_.c_str(), &options, &server_)), STATUS_SUCCESS);
    ASSERT_EQ(Status(KmclClientConnect(address_.c_str(), nullptr, &client_)), STATUS_SUCCESS);
    ASSERT_TRUE(recorder_.Wait("arrived", 1));
    server_channel_ = Allocate(true);
    client_channel_ = Allocate(false);
  }

  void TearDown() override {
    VmbChannelDisable(client_channel_);
    VmbChannelCleanup(client_channel_);
    VmbChannelDisable(server_channel_);
    VmbChannelCleanup(server_channel_);
    KmclClientDestroy(client_);
    KmclServerDestroy(server_);
  }

  VMBCHANNEL Allocate(bool is_server) {
    VMBCHANNEL channel = nullptr;
    PDEVICE_OBJECT const device =
        is_server ? KmclServerDeviceObject(server_) : KmclClientDeviceObject(client_);
    EXPECT_EQ(Status(VmbChannelAllocate(device, is_server ? TRUE : FALSE, &channel)),
              STATUS_SUCCESS);
    return channel;
  }

  // Gives the server's channel what Enable needs.
  void Configure(VMBCHANNEL channel) {
    EXPECT_EQ(Status(VmbServerChannelInitSetTargetInterfaceId(channel, kType, kInstance)),
              STATUS_SUCCESS);
    EXPECT_EQ(Status(VmbServerChannelInitSetVmbusHandle(channel, partition_)), STATUS_SUCCESS);
  }

  static constexpr GUID kType{0x11223344, 0x5566, 0x7788, {1, 2, 3, 4, 5, 6, 7, 8}};
  static constexpr GUID kInstance{0x99887766, 0x5544, 0x3322, {8, 7, 6, 5, 4, 3, 2, 1}};

  std::string address_;
  Recorder recorder_;
  KMCL_SERVER server_ = nullptr;
  KMCL_CLIENT client_ = nullptr;
  HANDLE partition_ = nullptr;
  VMBCHANNEL server_channel_ = nullptr;
  VMBCHANNEL client_channel_ = nullptr;
};

}  // namespace kmcl::contract
