// Several packets in one call: kmcl/batch.h.
#include <kmcl/batch.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "direct_fixture.h"

namespace kmcl::contract {
namespace {

constexpr ULONG kWaits = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;

class Batches : public DirectTest {
 protected:
  // The smallest rings.
  void Open(bool pipe = false) {
    Configure(server_channel_);
    VmbChannelSetPointer(server_channel_, this);
    VmbChannelSetPointer(client_channel_, this);
    if (pipe) {
      ASSERT_EQ(Status(VmbServerChannelInitSetFlags(server_channel_,
                                                    VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE)),
                STATUS_SUCCESS);
      ASSERT_EQ(Status(VmbChannelInitSetFlags(server_channel_, VMBUS_CHANNEL_INIT_FLAG_IS_PIPE)),
                STATUS_SUCCESS);
      ASSERT_EQ(Status(VmbChannelInitSetFlags(client_channel_, VMBUS_CHANNEL_INIT_FLAG_IS_PIPE)),
                STATUS_SUCCESS);
    }
    ASSERT_EQ(
        Status(VmbChannelInitSetProcessPacketCallbacks(
            server_channel_,
            [](VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32, UINT32) {
              auto* const self = static_cast<Batches*>(VmbChannelGetPointer(channel));
              self->recorder_.Record("packet " + std::string(static_cast<const char*>(buffer)));
              VmbChannelPacketComplete(packet, buffer, 8);
            },
            nullptr)),
        STATUS_SUCCESS);
    ASSERT_EQ(
        Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr)),
        STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbClientChannelInitSetRingBufferPageCount(client_channel_, 2, 2)),
              STATUS_SUCCESS);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
      static_cast<Batches*>(VmbChannelGetPointer(channel))->recorder_.Record("started");
    };
    ASSERT_EQ(Status(VmbChannelInitSetStateChangeCallbacks(client_channel_, &callbacks)),
              STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
    ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
    ASSERT_TRUE(recorder_.Wait("started", 1));
  }

  // Packets 0 to count - 1, each with its number as text.
  void Prepare(UINT32 count, UINT32 bytes = 8) {
    for (UINT32 i = 0; i < count; ++i) {
      VMBPACKET const packet = VmbPacketAllocate(client_channel_);
      ASSERT_NE(packet, nullptr);
      VmbPacketSetPointer(packet, this);
      VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS status, PVOID, UINT32) {
        static_cast<Batches*>(VmbPacketGetPointer(done))
            ->recorder_.Record(std::string("done ") + KmclStatusName(status));
      });
      packets_.push_back(packet);
      std::string& text = texts_.emplace_back(std::to_string(i));
      text.resize(bytes, '\0');
      lengths_.push_back(bytes);
    }
    buffers_.clear();
    for (std::string& text : texts_) buffers_.push_back(text.data());
  }
  NTSTATUS Send(UINT32 count, ULONG flags = 0) {
    return KmclPacketSendBatch(packets_.data(), buffers_.data(), lengths_.data(), count, flags,
                               &sent_);
  }
  void TearDown() override {
    VmbChannelDisable(client_channel_);
    for (VMBPACKET packet : packets_) VmbPacketFree(packet);
    DirectTest::TearDown();
  }
  KMCL_CHANNEL_COUNTERS Counters() const {
    KMCL_CHANNEL_COUNTERS counters{};
    counters.Size = sizeof counters;
    EXPECT_EQ(Status(KmclChannelQueryCounters(client_channel_, &counters)), STATUS_SUCCESS);
    return counters;
  }
  std::vector<std::string> Delivered() const {
    std::vector<std::string> numbers;
    for (const Event& event : recorder_.Events()) {
      if (event.name.starts_with("packet ")) numbers.push_back(event.name.substr(7));
    }
    return numbers;
  }
  // That packets 0 to count - 1 arrive, in this order, and end well.
  void ExpectAll(UINT32 count) {
    ASSERT_TRUE(recorder_.Wait("packet " + std::to_string(count - 1), 1));
    ASSERT_TRUE(recorder_.Wait("done STATUS_SUCCESS", static_cast<int>(count)));
    const std::vector<std::string> delivered = Delivered();
    ASSERT_EQ(delivered.size(), count);
    for (UINT32 i = 0; i < count; ++i) ASSERT_EQ(delivered[i], std::to_string(i));
  }

  std::vector<VMBPACKET> packets_;
  std::vector<std::string> texts_;
  std::vector<PVOID> buffers_;
  std::vector<UINT32> lengths_;
  UINT32 sent_ = 99;
};

TEST_F(Batches, AreShownAtOnceAndArriveInOrder) {
  Open();
  Prepare(32);
  VmbChannelStart(server_channel_);
  const UINT64 before = Counters().Publications;
  ASSERT_EQ(Status(Send(32)), STATUS_SUCCESS);
  EXPECT_EQ(sent_, 32U);
  EXPECT_EQ(Counters().Publications - before, 1U);
  ExpectAll(32);
}

TEST_F(Batches, MayWantCompletions) {
  Open();
  Prepare(20);
  const UINT64 before = Counters().Publications;
  ASSERT_EQ(Status(Send(20, kWaits)), STATUS_SUCCESS);
  EXPECT_EQ(sent_, 20U);
  EXPECT_EQ(Counters().Publications - before, 1U);
  VmbChannelStart(server_channel_);
  ExpectAll(20);
}

TEST_F(Batches, WhatFindsNoRoomIsQueuedInOrder) {
  Open();
  Prepare(100, 200);
  ASSERT_EQ(Status(Send(100, kWaits)), STATUS_SUCCESS);
  EXPECT_EQ(sent_, 100U);
  EXPECT_GT(Counters().RingFull, 0U);
  VmbChannelStart(server_channel_);
  ExpectAll(100);
}

TEST_F(Batches, EndAtTheFirstPacketThatIsRefused) {
  Open();
  Prepare(6);
  lengths_[4] = 100'000;
  EXPECT_EQ(Status(Send(6)), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(sent_, 4U);
  lengths_[4] = 8;
  VMBPACKET const fifth = std::exchange(packets_[4], nullptr);
  EXPECT_EQ(Status(Send(6)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(sent_, 4U);
  packets_[4] = fifth;
  buffers_[2] = nullptr;
  EXPECT_EQ(Status(Send(6)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(sent_, 2U);
  VmbChannelStart(server_channel_);
  ASSERT_TRUE(recorder_.Wait("done STATUS_SUCCESS", 10));
  ASSERT_TRUE(recorder_.Wait("packet 1", 3));
  EXPECT_EQ(Delivered(),
            (std::vector<std::string>{"0", "1", "2", "3", "0", "1", "2", "3", "0", "1"}));
}

TEST_F(Batches, EndAtAPacketThatIsInFlightAlready) {
  Open();
  Prepare(3);
  packets_.push_back(packets_[0]);
  buffers_.push_back(buffers_[0]);
  lengths_.push_back(lengths_[0]);
  const Status refused = Send(4, kWaits);
  EXPECT_EQ(sent_, 3U);
  EXPECT_NE(refused, STATUS_SUCCESS);
  EXPECT_EQ(refused, VmbPacketSend(packets_[0], buffers_[0], 8, nullptr, kWaits));
  packets_.pop_back();
  VmbChannelStart(server_channel_);
  ExpectAll(3);
}

TEST_F(Batches, RefuseWhatVmbPacketSendRefuses) {
  Open();
  Prepare(2);
  EXPECT_EQ(Status(Send(2, 0x8)), STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(sent_, 0U);
  sent_ = 99;
  EXPECT_EQ(Status(KmclPacketSendBatch(nullptr, buffers_.data(), lengths_.data(), 2, 0, &sent_)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(sent_, 0U);
  EXPECT_EQ(Status(KmclPacketSendBatch(packets_.data(), nullptr, lengths_.data(), 2, 0, nullptr)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclPacketSendBatch(packets_.data(), buffers_.data(), nullptr, 2, 0, nullptr)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(KmclPacketSendBatch(nullptr, nullptr, nullptr, 0, 0, nullptr)), STATUS_SUCCESS);
}

TEST_F(Batches, OnAPipeKeepTheirLengths) {
  Open(true);
  Prepare(5, 8);
  EXPECT_EQ(Status(Send(5, kWaits)), STATUS_INVALID_PARAMETER_5);
  ASSERT_EQ(Status(Send(5)), STATUS_SUCCESS);
  EXPECT_EQ(sent_, 5U);
  VmbChannelStart(server_channel_);
  ExpectAll(5);
}

TEST_F(Batches, OfADisabledChannelAreRefused) {
  Open();
  Prepare(2);
  VmbChannelDisable(client_channel_);
  EXPECT_EQ(Status(Send(2)), VmbPacketSend(packets_[0], buffers_[0], 8, nullptr, 0));
  EXPECT_NE(Status(Send(2)), STATUS_SUCCESS);
  EXPECT_EQ(sent_, 0U);
}

}  // namespace
}  // namespace kmcl::contract
