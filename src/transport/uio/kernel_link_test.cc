// The answers to a client's control messages, and what cannot be opened. What an open channel does
// is for tests/guest.
#include "transport/uio/kernel_link.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "transport/test_support.h"
#include "transport/uio/fake_bus.h"

namespace kmcl::transport::uio {
namespace {

class KernelLinkTest : public testing::Test {
 protected:
  void Dial(const std::optional<wire::Guid>& instance = std::nullopt) {
    auto dialled = KernelLink::Dial(fake_.bus(), instance, {.bell_count = 2});
    ASSERT_TRUE(dialled.has_value()) << ErrorName(dialled.error());
    link_ = std::move(*dialled);
  }
  template <typename Message>
  void Tell(const Message& message) {
    ASSERT_TRUE(link_->Send(wire::Encode(message, rules_)).has_value());
  }
  // All that waits.
  std::vector<wire::ServerMessage> Hear() {
    std::vector<wire::ServerMessage> heard;
    std::array<std::byte, kMaximumMessageBytes> buffer;
    while (true) {
      const ReceivedMessage received = link_->Receive(buffer);
      if (received.status != ReceiveStatus::kMessage) return heard;
      const auto message =
          wire::ParseServerMessage(std::span(buffer).first(received.bytes), rules_);
      EXPECT_TRUE(message.has_value());
      if (message) heard.push_back(*message);
    }
  }
  template <typename Message>
  static std::vector<Message> Of(const std::vector<wire::ServerMessage>& messages) {
    std::vector<Message> found;
    for (const auto& each : messages) {
      if (const auto* message = std::get_if<Message>(&each)) found.push_back(*message);
    }
    return found;
  }
  wire::VersionResponse Contact(wire::Version version) {
    wire::InitiateContact contact;
    contact.version = version;
    Tell(contact);
    const auto answers = Of<wire::VersionResponse>(Hear());
    EXPECT_EQ(answers.size(), 1u);
    return answers.empty() ? wire::VersionResponse{} : answers.front();
  }
  void Connect() {
    EXPECT_TRUE(Contact(wire::Version::kIron).supported());
    rules_ = {.version = wire::Version::kIron};
  }
  std::vector<wire::OfferChannel> RequestOffers() {
    Tell(wire::RequestOffers{});
    const auto heard = Hear();
    EXPECT_EQ(Of<wire::AllOffersDelivered>(heard).size(), 1u);
    return Of<wire::OfferChannel>(heard);
  }

  FakeBus fake_;
  wire::Agreed rules_;
  std::unique_ptr<KernelLink> link_;
};

TEST_F(KernelLinkTest, WithoutABusThereIsNothingToDial) {
  EXPECT_EQ(
      KernelLink::Dial(KernelBus({.sysfs = "/nothing", .dev = "/"}), std::nullopt, {}).error(),
      Error::kAddressUnreachable);
}

TEST_F(KernelLinkTest, VersionsOfLinuxAreAgreedTo) {
  Dial();
  EXPECT_FALSE(Contact(wire::Version::kCopper).supported());
  EXPECT_TRUE(Contact(wire::Version::kIron).supported());
}

TEST_F(KernelLinkTest, TheFirstMessageWaitsAtTheDescriptor) {
  Dial();
  EXPECT_FALSE(WaitFor(link_->message_fd(), POLLIN, 0));
  wire::InitiateContact contact;
  contact.version = wire::Version::kIron;
  Tell(contact);
  EXPECT_TRUE(WaitFor(link_->message_fd(), POLLIN, 0));
  Hear();
  EXPECT_FALSE(WaitFor(link_->message_fd(), POLLIN, 0));
}

TEST_F(KernelLinkTest, OffersAreTheKernelsDevices) {
  fake_.AddDevice(kEchoType, kEcho, 12);
  fake_.AddDevice(kOther, kOther, 3);
  Dial();
  Connect();
  const auto offers = RequestOffers();
  ASSERT_EQ(offers.size(), 2u);
  EXPECT_EQ(offers[0].channel_id, wire::ChannelId{3});
  EXPECT_EQ(offers[1].channel_id, wire::ChannelId{12});
  EXPECT_EQ(offers[1].interface_id, kEchoType);
  EXPECT_EQ(offers[1].instance_id, kEcho);
  EXPECT_FALSE(offers[1].monitor_allocated());
}

TEST_F(KernelLinkTest, OneDeviceCanBeAskedFor) {
  fake_.AddDevice(kEchoType, kEcho, 12);
  fake_.AddDevice(kOther, kOther, 3);
  Dial(kEcho);
  Connect();
  const auto offers = RequestOffers();
  ASSERT_EQ(offers.size(), 1u);
  EXPECT_EQ(offers[0].instance_id, kEcho);
}

TEST_F(KernelLinkTest, SubchannelsAreOfferedOnceTheyHaveRings) {
  fake_.AddDevice(kEchoType, kEcho, 12);
  fake_.AddSubchannel(kEcho, 2, 1);
  fake_.AddSubchannel(kEcho, 14, 2);
  std::filesystem::remove(fake_.Device(kEcho) / "channels/14/ring");
  fake_.SetUio(kEcho, 0, "0x22000");
  Dial();
  Connect();
  const auto offers = RequestOffers();
  ASSERT_EQ(offers.size(), 2u);
  EXPECT_EQ(offers[0].channel_id, wire::ChannelId{12}) << "the primary is first, whatever its id";
  EXPECT_EQ(offers[1].channel_id, wire::ChannelId{2});
  EXPECT_EQ(offers[1].subchannel_index, 1);
}

TEST_F(KernelLinkTest, RingsThatAreMadeAfterTheSubchannelWasAnnouncedAreFound) {
  fake_.AddDevice(kEchoType, kEcho, 12);
  FakeBus::Write(fake_.Device(kEcho) / "state", "3\n");
  fake_.SetUio(kEcho, 0, "0x22000");
  fake_.AddSubchannel(kEcho, 2, 1);
  const auto ring = fake_.Device(kEcho) / "channels/2/ring";
  std::filesystem::remove(ring);
  Dial();
  Connect();
  EXPECT_EQ(RequestOffers().size(), 1u);
  // Nothing tells it.
  FakeBus::Write(ring, "");
  ASSERT_TRUE(WaitFor(link_->message_fd(), POLLIN, 10'000));
  const auto offers = Of<wire::OfferChannel>(Hear());
  ASSERT_EQ(offers.size(), 1u);
  EXPECT_EQ(offers[0].channel_id, wire::ChannelId{2});
  EXPECT_FALSE(WaitFor(link_->message_fd(), POLLIN, 0));
}

TEST_F(KernelLinkTest, WhatLeavesIsRescindedAndMayComeAgain) {
  fake_.AddDevice(kEchoType, kEcho, 12);
  fake_.AddDevice(kOther, kOther, 3);
  Dial();
  Connect();
  RequestOffers();
  std::filesystem::remove_all(fake_.Device(kEcho));
  std::filesystem::remove_all(fake_.Device(kOther));
  fake_.AddDevice(kEchoType, kEcho, 3);  // with the other's id
  // Any message that makes it look; else it is the kernel's events that do.
  Tell(wire::RelIdReleased{.channel_id = wire::ChannelId{99}});
  auto heard = Hear();
  const auto rescinds = Of<wire::RescindChannelOffer>(heard);
  ASSERT_EQ(rescinds.size(), 2u);
  EXPECT_TRUE(Of<wire::OfferChannel>(heard).empty()) << "the client has not given the id back";
  Tell(wire::RelIdReleased{.channel_id = wire::ChannelId{3}});
  heard = Hear();
  ASSERT_EQ(Of<wire::OfferChannel>(heard).size(), 1u);
  EXPECT_EQ(Of<wire::OfferChannel>(heard)[0].channel_id, wire::ChannelId{3});
  EXPECT_EQ(Of<wire::OfferChannel>(heard)[0].instance_id, kEcho);
}

TEST_F(KernelLinkTest, TheEndOfTheBusIsTheEndOfTheLink) {
  Dial();
  Connect();
  RequestOffers();
  std::filesystem::remove_all(fake_.Bus());
  Tell(wire::RelIdReleased{.channel_id = wire::ChannelId{3}});
  std::array<std::byte, kMaximumMessageBytes> buffer;
  EXPECT_TRUE(WaitFor(link_->message_fd(), POLLIN, 0));
  EXPECT_EQ(link_->Receive(buffer).status, ReceiveStatus::kGone);
  EXPECT_EQ(link_->Send(wire::Encode(wire::Unload{}, rules_)).error(), Error::kPeerGone);
}

TEST_F(KernelLinkTest, OnlyWhatTheKernelLendsIsOpened) {
  fake_.AddDevice(kEchoType, kEcho, 12);
  Dial();
  Connect();
  RequestOffers();
  EXPECT_EQ(link_->MakeRings(wire::ChannelId{12}, 4, 4).error(), Error::kDriverNotBound);
  EXPECT_EQ(link_->MakeRings(wire::ChannelId{13}, 4, 4).error(), Error::kChannelUnknown);
  Tell(wire::OpenChannel{.channel_id = wire::ChannelId{12}});
  const auto results = Of<wire::OpenChannelResult>(Hear());
  ASSERT_EQ(results.size(), 1u);
  EXPECT_NE(results[0].status, wire::kStatusSuccess);
}

TEST_F(KernelLinkTest, MemoryOfTheProgramIsNotShared) {
  fake_.AddDevice(kEchoType, kEcho, 12);
  Dial();
  Connect();
  RequestOffers();
  EXPECT_FALSE(link_->shares_memory());
  EXPECT_EQ(link_->AllocateBuffer(4096).error(), Error::kMemoryNotShared);
  EXPECT_EQ(link_->PageOf(&fake_), std::nullopt);
  Tell(wire::GpadlHeader{.channel_id = wire::ChannelId{12}, .gpadl_id = wire::GpadlId{7}});
  const auto created = Of<wire::GpadlCreated>(Hear());
  ASSERT_EQ(created.size(), 1u);
  EXPECT_NE(created[0].status, wire::kStatusSuccess);
}

TEST(KernelChannelTest, OnlyWhatTheDriverHasCanBeOpened) {
  FakeBus fake;
  fake.AddDevice(kEchoType, kEcho, 12);
  const KernelBus bus = fake.bus();
  EXPECT_EQ(KernelChannel::Open(bus, *bus.Device(kEcho), std::nullopt).error(),
            Error::kDriverNotBound);
  fake.SetUio(kEcho, 0, "0x22000");  // of which there is no node
  EXPECT_EQ(KernelChannel::Open(bus, *bus.Device(kEcho), std::nullopt).error(),
            Error::kDeviceRemoved);
  for (const char* bytes : {"0x22001", "0xffffffff00000000"}) {
    FakeBus odd;
    odd.AddDevice(kEchoType, kEcho, 12);
    odd.SetUio(kEcho, 0, bytes);
    EXPECT_EQ(KernelChannel::Open(odd.bus(), *odd.bus().Device(kEcho), std::nullopt).error(),
              Error::kRingGeometry)
        << bytes;
  }
}

}  // namespace
}  // namespace kmcl::transport::uio
