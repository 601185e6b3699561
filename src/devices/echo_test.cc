#include "devices/echo.h"

#include "devices/test_bus.h"

namespace kmcl::devices {
namespace {

constexpr auto kData = static_cast<std::uint32_t>(EchoKind::kData);
constexpr auto kCount = static_cast<std::uint32_t>(EchoKind::kCount);
constexpr auto kRefused = static_cast<std::uint32_t>(EchoKind::kRefused);

class EchoTest : public testing::Test {
 protected:
  std::unique_ptr<EchoDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = EchoDevice::Offer(device_object, partition);
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
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

}  // namespace
}  // namespace kmcl::devices
