// A client that describes memory as no correct client does: its server's driver gets a status.
#include <gtest/gtest.h>
#include <kmcl/endpoint.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "api/objects.h"
#include "channel/channel.h"

namespace kmcl::api {
namespace {

constexpr GUID kType{0xE57E57E5, 1, 2, {1, 2, 3, 4, 5, 6, 7, 8}};
constexpr GUID kInstance{0xE57E57E5, 3, 4, {1, 2, 3, 4, 5, 6, 7, 8}};

// What the server's driver found last.
struct Found {
  NTSTATUS status = STATUS_UNSUCCESSFUL;
  bool has_mdl = false;
  int mapped = 0;
  int unmapped = 0;
  char last = 0;
};
// The packet and its completion order the two by shared memory; the thread sanitizer needs the
// lock.
std::mutex found_mutex;
Found last_found;

VOID Look(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID, UINT32, UINT32) {
  PMDL chain = reinterpret_cast<PMDL>(packet);
  Found found;
  found.status = VmbChannelPacketGetExternalData(packet, 0, &chain);
  found.has_mdl = chain != nullptr;
  for (PMDL mdl = chain; mdl != nullptr; mdl = mdl->Next) {
    auto* const view = static_cast<char*>(MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority));
    if (view == nullptr) {
      ++found.unmapped;
      continue;
    }
    ++found.mapped;
    found.last = view[MmGetMdlByteCount(mdl) - 1];  // touches it
  }
  {
    const std::lock_guard lock(found_mutex);
    last_found = found;
  }
  VmbChannelPacketComplete(packet, nullptr, 0);
}

class HostileExternalData : public testing::Test {
 protected:
  void SetUp() override {
    static std::atomic<int> count{0};
    const std::string address = "local:hostile-external-" + std::to_string(++count);
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.Context = this;
    options.PartitionArrived = [](PVOID context, KMCL_SERVER, HANDLE partition) {
      auto* const self = static_cast<HostileExternalData*>(context);
      self->partition_ = partition;
      self->partition_.notify_all();
    };
    ASSERT_EQ(KmclServerCreate(address.c_str(), &options, &server_), STATUS_SUCCESS);
    ASSERT_EQ(KmclClientConnect(address.c_str(), nullptr, &client_), STATUS_SUCCESS);
    partition_.wait(nullptr);
    ASSERT_EQ(VmbChannelAllocate(KmclServerDeviceObject(server_), TRUE, &server_channel_),
              STATUS_SUCCESS);
    ASSERT_EQ(VmbChannelAllocate(KmclClientDeviceObject(client_), FALSE, &client_channel_),
              STATUS_SUCCESS);
    VmbServerChannelInitSetTargetInterfaceId(server_channel_, kType, kInstance);
    VmbServerChannelInitSetVmbusHandle(server_channel_, partition_.load());
    VmbChannelInitSetProcessPacketCallbacks(server_channel_, Look, nullptr);
    VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr);
    ASSERT_EQ(VmbChannelEnable(server_channel_), STATUS_SUCCESS);
    VmbChannelStart(server_channel_);
    ASSERT_EQ(VmbChannelEnable(client_channel_), STATUS_SUCCESS);
  }

  void TearDown() override {
    for (VMBCHANNEL channel : {client_channel_, server_channel_}) {
      VmbChannelDisable(channel);
      VmbChannelCleanup(channel);
    }
    KmclClientDestroy(client_);
    KmclServerDestroy(server_);
  }

  // Sends a packet with this header and waits for its completion.
  Found Send(std::span<const std::byte> header) {
    channel::ExternalData external{.header = header};
    const auto replied = ChannelObject::From(client_channel_)
                             .engine()
                             .Request({}, true, {}, std::nullopt, &external);
    EXPECT_TRUE(replied);
    const std::lock_guard lock(found_mutex);
    return last_found;
  }
  Found SendWords(const std::vector<std::uint32_t>& words) {
    return Send(std::as_bytes(std::span(words)));
  }

  KMCL_SERVER server_ = nullptr;
  KMCL_CLIENT client_ = nullptr;
  std::atomic<HANDLE> partition_{nullptr};
  VMBCHANNEL server_channel_ = nullptr;
  VMBCHANNEL client_channel_ = nullptr;
};

TEST_F(HostileExternalData, MalformedListsAreRefused) {
  // Each: reserved, ranges, then byte count, byte offset, pages of 64 bits.
  const std::vector<std::uint32_t> malformed[] = {
      {0, 0},                                        // no range
      {0, 1},                                        // one that is not there
      {0, 1, 0, 0, 5, 0},                            // of no bytes
      {0, 1, 8, 4096, 5, 0},                         // beginning beyond its page
      {0, 1, 8, 0xFFFFFFFF, 5, 0},                   //
      {0, 1, 4097, 0, 5, 0},                         // with a page missing
      {0, 1, 2, 4095, 5, 0},                         //
      {0, 2, 8, 0, 5, 0},                            // fewer ranges than said
      {0, 0xFFFFFFFF, 8, 0, 5, 0},                   //
      {0, 1, 0xFFFFFFFF, 1, 5, 0},                   // over the end of 32 bits
      {0, 1, 0xFFFFF000, 0, 5, 0},                   // of a million pages
      {0xFFFFFFFF, 2, 8, 0, 5, 0, 0xFFFFFFFF, 4095}  // good, then bad
  };
  for (const auto& words : malformed) {
    const Found seen = SendWords(words);
    EXPECT_EQ(seen.status, STATUS_INVALID_BUFFER_SIZE);
    EXPECT_FALSE(seen.has_mdl);
  }
}

TEST_F(HostileExternalData, PagesThatAreNotThereCannotBeMapped) {
  constexpr std::uint32_t kHigh = 0x7FFFFFFF;
  for (const std::uint32_t high : {1u, 2u, kHigh, 0xFFFFFFFFu}) {
    const Found seen = SendWords({0, 1, 8, 0, 0xFFFFFFFF, high});
    EXPECT_EQ(seen.status, STATUS_SUCCESS);
    EXPECT_EQ(seen.mapped, 0);
    EXPECT_EQ(seen.unmapped, 1);
  }
  // Some of the pages of one range.
  const Found seen = SendWords({0, 1, 8192, 0, 1, 0, 0x00FFFFFF, 0});
  EXPECT_EQ(seen.mapped, 0);
  // The same page many times is odd, and nothing else.
  const Found same = SendWords({0, 1, 3 * 4096, 0, 40, 0, 40, 0, 40, 0});
  EXPECT_EQ(same.status, STATUS_SUCCESS);
}

}  // namespace
}  // namespace kmcl::api
