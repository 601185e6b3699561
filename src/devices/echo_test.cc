#include "devices/echo.h"

#include "devices/test_bus.h"

namespace kmcl::devices {
namespace {

constexpr auto kData = static_cast<std::uint32_t>(EchoKind::kData);
constexpr auto kCount = static_cast<std::uint32_t>(EchoKind::kCount);
constexpr auto kRefused = static_cast<std::uint32_t>(EchoKind::kRefused);
constexpr auto kSubchannels = static_cast<std::uint32_t>(EchoKind::kSubchannels);

class EchoTest : public testing::Test {
 protected:
  std::unique_ptr<EchoDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = EchoDevice::Offer(device_object, partition);
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
  // How many there are after so many were asked for.
  static std::uint32_t Ask(TestClient& client, std::uint32_t count) {
    const auto answer =
        ReadAs<EchoSubchannels>(client.Request(Packet(EchoSubchannels{{kSubchannels, 4}, count})));
    return answer.header.kind == kSubchannels ? answer.count : UINT32_MAX;
  }
  static std::string Echo(TestClient& client, std::string_view text) {
    const auto answer =
        client.Request(Packet(EchoHeader{kData, static_cast<std::uint32_t>(text.size())}, text));
    return {reinterpret_cast<const char*>(answer.data()) + sizeof(EchoHeader), text.size()};
  }

  TestClient client_{server_.address(), kEchoInterface, kEchoMaximumPacketBytes};
};

TEST_F(EchoTest, CompletesAPacketWithItsOwnBytes) {
  const auto packet = Packet(EchoHeader{kData, 5}, "hello");
  auto answer = client_.Request(packet);
  ASSERT_EQ(answer.size(), 16u);
  answer.resize(packet.size());
  EXPECT_EQ(answer, packet);
}

TEST_F(EchoTest, EchoesTheLargestPacket) {
  const std::string data(kEchoMaximumPacketBytes - sizeof(EchoHeader), 'x');
  const auto packet = Packet(EchoHeader{kData, static_cast<std::uint32_t>(data.size())}, data);
  EXPECT_EQ(client_.Request(packet), packet);
}

TEST_F(EchoTest, CountsPacketsWhoseSenderWantsNoAnswer) {
  for (int i = 0; i < 1000; ++i) {
    client_.Send(Packet(EchoHeader{kData, 3}, "abc"));
  }
  const auto counts = ReadAs<EchoCounts>(client_.Request(Packet(EchoHeader{kCount, 0})));
  EXPECT_EQ(counts.header.kind, kCount);
  EXPECT_EQ(counts.packets, 1000u);
  EXPECT_EQ(counts.bytes, 1000u * (sizeof(EchoHeader) + 3));
}

TEST_F(EchoTest, RefusesWhatItDoesNotKnowAndGoesOn) {
  EXPECT_EQ(ReadAs<EchoHeader>(client_.Request({})).kind, kRefused);
  EXPECT_EQ(ReadAs<EchoHeader>(client_.Request(Packet(EchoHeader{77, 0}))).kind, kRefused);
  // Claims more bytes than came.
  EXPECT_EQ(ReadAs<EchoHeader>(client_.Request(Packet(EchoHeader{kData, 9}, "12345678"))).kind,
            kRefused);
  EXPECT_EQ(ReadAs<EchoHeader>(client_.Request(Packet(EchoHeader{kData, UINT32_MAX}))).kind,
            kRefused);
  EXPECT_EQ(ReadAs<EchoHeader>(client_.Request(Packet(EchoHeader{kData, 0}))).kind, kData);
}

TEST_F(EchoTest, OffersAsManySubchannelsAsAreAskedFor) {
  EXPECT_EQ(Ask(client_, 2), 2U);
  TestClient first(client_, kEchoMaximumPacketBytes);
  TestClient second(client_, kEchoMaximumPacketBytes);
  EXPECT_EQ(Echo(first, "first"), "first");
  EXPECT_EQ(Echo(first, "again"), "again");
  EXPECT_EQ(Echo(second, "second"), "second");
  EXPECT_EQ(Echo(client_, "primary"), "primary");
  // Each counts for itself.
  const auto count = Packet(EchoHeader{kCount, 0});
  EXPECT_EQ(ReadAs<EchoCounts>(first.Request(count)).packets, 2U);
  EXPECT_EQ(ReadAs<EchoCounts>(second.Request(count)).packets, 1U);
  EXPECT_EQ(ReadAs<EchoCounts>(client_.Request(count)).packets, 1U);

  EXPECT_EQ(Ask(client_, 3), 3U) << "one more";
  TestClient third(client_, kEchoMaximumPacketBytes);
  EXPECT_EQ(Echo(third, "third"), "third");
  EXPECT_EQ(Ask(client_, 1), 3U) << "none is taken away";
  EXPECT_EQ(Ask(client_, 0), 3U);
}

TEST_F(EchoTest, OffersNoMoreSubchannelsThanTheProtocolAllows) {
  EXPECT_EQ(Ask(client_, UINT32_MAX), kEchoMaximumSubchannels);
}

TEST_F(EchoTest, RefusesRequestsForSubchannelsThatAreNone) {
  EXPECT_EQ(ReadAs<EchoHeader>(client_.Request(Packet(EchoHeader{kSubchannels, 0}))).kind,
            kRefused);
  EXPECT_EQ(Ask(client_, 1), 1U);
  TestClient sub(client_, kEchoMaximumPacketBytes);
  EXPECT_EQ(Ask(sub, 1), UINT32_MAX) << "a sub-channel has none of its own";
}

TEST_F(EchoTest, SubchannelsEndWithTheirPrimaryAndComeAgain) {
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Ask(client_, 2), 2U);
    TestClient first(client_, kEchoMaximumPacketBytes);
    TestClient second(client_, kEchoMaximumPacketBytes);
    EXPECT_EQ(Echo(second, "second"), "second");
    client_.Reopen();
    EXPECT_TRUE(first.WaitClosed());
    EXPECT_TRUE(second.WaitClosed());
    EXPECT_EQ(Ask(client_, 0), 0U) << "these are another primary's";
  }
}

TEST_F(EchoTest, SubchannelsAreRevokedByASaveAndMayBeAskedForAfterIt) {
  EXPECT_EQ(Ask(client_, 1), 1U);
  TestClient sub(client_, kEchoMaximumPacketBytes);
  EXPECT_EQ(Echo(sub, "sub"), "sub");
  ASSERT_TRUE(device_->Save().has_value());
  EXPECT_TRUE(sub.WaitClosed());
  device_->Resume();
  EXPECT_EQ(Echo(client_, "primary"), "primary");
  EXPECT_EQ(Ask(client_, 1), 1U);
  TestClient again(client_, kEchoMaximumPacketBytes);
  EXPECT_EQ(Echo(again, "again"), "again");
}

}  // namespace
}  // namespace kmcl::devices
