#include "channel/incoming_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace kmcl::channel {
namespace {

TEST(IncomingPoolTest, AnObjectHasRoomForTheLargestPacketWhateverWasAskedFor) {
  IncomingPool pool;
  pool.Configure(1000, 0);
  IncomingPacket* const packet = pool.Take(8);
  ASSERT_NE(packet, nullptr);
  EXPECT_GE(packet->capacity, 1000u);
  EXPECT_EQ(packet->context, nullptr);
  std::memset(packet->buffer(), 0xAA, packet->capacity);
  pool.Put(*packet);
}

TEST(IncomingPoolTest, TheContextIsAlignedAndApartFromTheBuffer) {
  for (const std::uint32_t context_bytes : {1u, 15u, 16u, 24u, 1000u}) {
    for (const std::uint32_t packet_bytes : {0u, 1u, 8u, 24u, 4096u}) {
      IncomingPool pool;
      pool.Configure(packet_bytes, context_bytes);
      for (const std::uint32_t bytes : {0u, packet_bytes, packet_bytes + 5000u}) {
        IncomingPacket* const packet = pool.Take(bytes);
        ASSERT_NE(packet, nullptr);
        ASSERT_NE(packet->context, nullptr);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(packet->context) % 16, 0u);
        EXPECT_GE(static_cast<std::byte*>(packet->context), packet->buffer() + packet->capacity);
        // The address sanitizer says if they are not all there.
        std::memset(packet->buffer(), 1, packet->capacity);
        std::memset(packet->context, 2, context_bytes);
        pool.Put(*packet);
      }
    }
  }
}

TEST(IncomingPoolTest, WhatCameBackIsUsedAgain) {
  IncomingPool pool;
  pool.Configure(64, 0);
  std::set<IncomingPacket*> first;
  for (int i = 0; i < 10; ++i) first.insert(pool.Take(64));
  EXPECT_EQ(first.size(), 10u);
  for (IncomingPacket* packet : first) pool.Put(*packet);
  std::set<IncomingPacket*> second;
  for (int i = 0; i < 10; ++i) second.insert(pool.Take(1));
  EXPECT_EQ(first, second);
  for (IncomingPacket* packet : second) pool.Put(*packet);
}

TEST(IncomingPoolTest, APacketBeyondTheStandardSizeGetsAnObjectOfItsOwn) {
  IncomingPool pool;
  pool.Configure(64, 8);
  IncomingPacket* const large = pool.Take(10'000);
  ASSERT_NE(large, nullptr);
  EXPECT_GE(large->capacity, 10'000u);
  std::memset(large->buffer(), 1, 10'000);
  pool.Put(*large);  // not kept: the next standard one is not this one
  IncomingPacket* const standard = pool.Take(64);
  EXPECT_LT(standard->capacity, 10'000u);
  pool.Put(*standard);
}

TEST(IncomingPoolTest, ANewConfigurationAppliesToObjectsThatAreStillOut) {
  IncomingPool pool;
  pool.Configure(64, 0);
  IncomingPacket* const old = pool.Take(64);
  pool.Configure(4096, 16);
  pool.Put(*old);
  IncomingPacket* const fresh = pool.Take(4096);
  EXPECT_GE(fresh->capacity, 4096u);
  EXPECT_NE(fresh->context, nullptr);
  pool.Put(*fresh);
}

TEST(IncomingPoolTest, TrimGivesBackWhatIsFreeAndLeavesTheRest) {
  IncomingPool pool;
  pool.Configure(64, 0);
  IncomingPacket* const out = pool.Take(64);
  IncomingPacket* const free_one = pool.Take(64);
  pool.Put(*free_one);
  pool.Trim();
  std::memset(out->buffer(), 1, 64);
  pool.Put(*out);
  pool.Trim();
}

TEST(IncomingPoolTest, OneTakesWhileOthersPut) {
  IncomingPool pool;
  pool.Configure(32, 0);
  constexpr int kPackets = 20'000;
  std::vector<std::atomic<IncomingPacket*>> slots(64);
  std::atomic<int> returned{0};
  std::vector<std::thread> owners;
  for (int i = 0; i < 2; ++i) {
    owners.emplace_back([&] {
      while (returned.load() < kPackets) {
        for (auto& slot : slots) {
          IncomingPacket* const packet = slot.exchange(nullptr);
          if (packet == nullptr) continue;
          pool.Put(*packet);
          ++returned;
        }
        std::this_thread::yield();
      }
    });
  }
  for (int i = 0; i < kPackets; ++i) {
    IncomingPacket* const packet = pool.Take(32);
    std::memset(packet->buffer(), i, 32);
    auto& slot = slots[static_cast<std::size_t>(i) % slots.size()];
    for (IncomingPacket* empty = nullptr; !slot.compare_exchange_weak(empty, packet);
         empty = nullptr) {
      std::this_thread::yield();
    }
    if (i % 1000 == 0) pool.Trim();
  }
  for (auto& owner : owners) owner.join();
  EXPECT_EQ(returned, kPackets);
}

}  // namespace
}  // namespace kmcl::channel
