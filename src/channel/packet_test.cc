#include "channel/packet.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace kmcl::channel {
namespace {

TEST(PacketTest, TheBufferStandsBehindTheObjectAndIsAligned) {
  alignas(Packet) std::byte memory[sizeof(Packet) + 16];
  Packet* const packet = new (memory) Packet;
  EXPECT_EQ(packet->buffer(), memory + sizeof(Packet));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(packet->buffer()) % 16, 0u);
  packet->~Packet();
}

TEST(OutgoingQueueTest, FirstInIsFirstOut) {
  OutgoingQueue queue;
  Packet a;
  IncomingPacket b;  // both kinds wait in one queue
  Packet c;
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.Pop(), nullptr);
  queue.Push(a);
  queue.Push(b);
  queue.Push(c);
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_EQ(queue.front(), &a);
  EXPECT_EQ(queue.Pop(), &a);
  EXPECT_EQ(queue.Pop(), &b);
  EXPECT_EQ(queue.Pop(), &c);
  EXPECT_EQ(queue.Pop(), nullptr);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.size(), 0u);
}

TEST(OutgoingQueueTest, WhatIsTakenOutAnywhereLeavesTheOthersInOrder) {
  for (int removed = 0; removed < 4; ++removed) {
    OutgoingQueue queue;
    std::vector<Packet> packets(4);
    for (Packet& packet : packets) queue.Push(packet);
    const auto index = static_cast<std::size_t>(removed);
    EXPECT_TRUE(queue.Remove(packets[index]));
    EXPECT_FALSE(queue.Remove(packets[index]));
    EXPECT_EQ(packets[index].next, nullptr);
    queue.Push(packets[index]);  // the tail is still the tail
    for (std::size_t i = 0; i < packets.size(); ++i) {
      if (i != index) {
        EXPECT_EQ(queue.Pop(), &packets[i]);
      }
    }
    EXPECT_EQ(queue.Pop(), &packets[index]);
    EXPECT_TRUE(queue.empty());
  }
}

TEST(OutgoingQueueTest, TheOnlyOneCanBeTakenOut) {
  OutgoingQueue queue;
  Packet packet;
  Packet stranger;
  queue.Push(packet);
  EXPECT_FALSE(queue.Remove(stranger));
  EXPECT_TRUE(queue.Remove(packet));
  EXPECT_TRUE(queue.empty());
  queue.Push(packet);
  EXPECT_EQ(queue.Pop(), &packet);
}

}  // namespace
}  // namespace kmcl::channel
