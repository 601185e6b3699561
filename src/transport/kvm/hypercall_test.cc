#include "transport/kvm/hypercall.h"

#include "transport/kvm/enlightenments.h"
#include "transport/kvm/guest_test_support.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kPost = 0x5C;
constexpr std::uint64_t kFastSignal = 0x1005D;

class HypercallTest : public ::testing::Test {
 protected:
  void Put(std::uint64_t address, std::uint32_t type, std::uint32_t size) {
    guest.At<std::uint32_t>(address) = 4;
    guest.At<std::uint32_t>(address + 8) = type;
    guest.At<std::uint32_t>(address + 12) = size;
    guest.At<char>(address + 16) = 'm';
  }
  HypercallStatus StatusOf(std::uint64_t control, std::uint64_t input) {
    const auto call = ParseHypercall(*guest.memory, control, input);
    return call ? HypercallStatus::kSuccess : call.error();
  }

  TestMemory guest;
};

TEST_F(HypercallTest, AMessageIsReadFromMemory) {
  Put(0x1000, 1, 3);
  const auto call = ParseHypercall(*guest.memory, kPost, 0x1000);
  ASSERT_TRUE(call.has_value());
  const auto& message = std::get<PostMessage>(*call);
  EXPECT_EQ(message.connection, wire::kMultiClientMessageConnection);
  EXPECT_EQ(message.message().size(), 3u);
  EXPECT_EQ(message.message()[0], std::byte{'m'});
}

TEST_F(HypercallTest, ASignalComesInARegisterOrInMemory) {
  auto call = ParseHypercall(*guest.memory, kFastSignal, 0x2007);
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(std::get<SignalEvent>(*call).connection, wire::ConnectionId{0x2007});
  guest.At<std::uint64_t>(0x1008) = 0x2009;
  call = ParseHypercall(*guest.memory, 0x5D, 0x1008);
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(std::get<SignalEvent>(*call).connection, wire::ConnectionId{0x2009});
}

TEST_F(HypercallTest, WhatIsMalformedIsRefusedByItsRule) {
  Put(0x1000, 1, 240);
  EXPECT_EQ(StatusOf(kPost, 0x1000), HypercallStatus::kSuccess);
  EXPECT_EQ(StatusOf(0x46, 0x1000), HypercallStatus::kInvalidCode);
  EXPECT_EQ(StatusOf(0, 0), HypercallStatus::kInvalidCode);
  EXPECT_EQ(StatusOf(kPost | 1 << 16, 0x1000), HypercallStatus::kInvalidCode);
  EXPECT_EQ(StatusOf(kPost | 1 << 17, 0x1000), HypercallStatus::kInvalidInput);
  EXPECT_EQ(StatusOf(kPost | std::uint64_t{1} << 32, 0x1000), HypercallStatus::kInvalidInput);
  EXPECT_EQ(StatusOf(kPost, 0x1004), HypercallStatus::kInvalidAlignment);
  EXPECT_EQ(StatusOf(kPost, 0x1F08), HypercallStatus::kInvalidAlignment);
  EXPECT_EQ(StatusOf(kPost, 0x10000), HypercallStatus::kInvalidParameter);  // a hole
  EXPECT_EQ(StatusOf(kPost, ~std::uint64_t{0xFFF}), HypercallStatus::kInvalidParameter);
  Put(0x1000, 2, 8);
  EXPECT_EQ(StatusOf(kPost, 0x1000), HypercallStatus::kInvalidParameter);
  Put(0x1000, 1, 241);
  EXPECT_EQ(StatusOf(kPost, 0x1000), HypercallStatus::kInvalidParameter);
  EXPECT_EQ(StatusOf(kFastSignal, std::uint64_t{1} << 32 | 0x2001), HypercallStatus::kInvalidPort);
  EXPECT_EQ(StatusOf(kFastSignal, std::uint64_t{1} << 48 | 0x2001), HypercallStatus::kInvalidInput);
}

TEST(ChannelConnection, AChannelIsFoundByWhatItSignals) {
  EXPECT_EQ(wire::ChannelOfEvent(wire::EventConnection(wire::ChannelId{7})), wire::ChannelId{7});
  EXPECT_EQ(wire::ChannelOfEvent(wire::EventConnection(wire::ChannelId{2047})),
            wire::ChannelId{2047});
  for (const std::uint32_t number : {0u, 1u, 7u, 0x2000u, 0x2800u, 0xFFFFFFFFu}) {
    EXPECT_EQ(wire::ChannelOfEvent(wire::ConnectionId{number}), std::nullopt) << number;
  }
}

class EnlightenmentsTest : public ::testing::Test {
 protected:
  EnlightenmentsTest() { enlightenments.SetTscFrequency(2'000'000'000, true); }

  TestMemory guest;
  FakeHardware hardware;
  Synic synic{*guest.memory, hardware, 2};
  Enlightenments enlightenments{*guest.memory, hardware, synic, 2, 0xB8};
};

TEST_F(EnlightenmentsTest, TheHypercallPageComesForWhoSaysItsName) {
  EXPECT_TRUE(enlightenments.WriteRegister(0, msr::kHypercall, 0x3001));
  EXPECT_EQ(enlightenments.ReadRegister(0, msr::kHypercall), 0x3000u);
  EXPECT_FALSE(enlightenments.hypercalls_enabled());
  EXPECT_TRUE(enlightenments.WriteRegister(0, msr::kGuestOsId, 0x8100000000000000));
  EXPECT_TRUE(enlightenments.WriteRegister(1, msr::kHypercall, 0x3001));
  EXPECT_TRUE(enlightenments.hypercalls_enabled());
  const std::array<std::uint8_t, 8> expected{0xF3, 0x0F, 0x1E, 0xFA, 0xE7, 0xB8, 0xC3, 0xCC};
  EXPECT_EQ(std::memcmp(&guest.At<std::uint8_t>(0x3000), expected.data(), expected.size()), 0);
  EXPECT_FALSE(enlightenments.WriteRegister(0, msr::kHypercall, 0x10001));  // a hole
  EXPECT_EQ(enlightenments.ReadRegister(0, msr::kHypercall), 0x3001u);
  EXPECT_TRUE(enlightenments.WriteRegister(0, msr::kGuestOsId, 0));
  EXPECT_FALSE(enlightenments.hypercalls_enabled());
}

TEST_F(EnlightenmentsTest, TheClockOfTheRegisterIsTheClockOfThePage) {
  EXPECT_TRUE(enlightenments.WriteRegister(0, msr::kReferenceTsc, 0x6001));
  EXPECT_EQ(guest.At<std::uint32_t>(0x6000), 1u);
  EXPECT_EQ(guest.At<std::uint64_t>(0x6010), 0u);
  hardware.time_stamp = 123'456'789'012;
  const double scale = static_cast<double>(guest.At<std::uint64_t>(0x6008)) / 0x1p64;
  const auto read = enlightenments.ReadRegister(1, msr::kTimeRefCount);
  ASSERT_TRUE(read.has_value());
  EXPECT_NEAR(static_cast<double>(*read), 123'456'789'012 * scale, 2);
  EXPECT_NEAR(static_cast<double>(*read), 123'456'789'012 / 200.0, 2);
  EXPECT_TRUE(enlightenments.WriteRegister(0, msr::kReferenceTsc, 0x10001));  // a hole: no page
}

TEST_F(EnlightenmentsTest, NumbersAreReadOnlyAndUnknownRegistersAreNone) {
  EXPECT_EQ(enlightenments.ReadRegister(1, msr::kVpIndex), 1u);
  EXPECT_EQ(enlightenments.ReadRegister(0, msr::kTscFrequency), 2'000'000'000u);
  EXPECT_EQ(enlightenments.ReadRegister(0, msr::kApicFrequency), 1'000'000'000u);
  EXPECT_FALSE(enlightenments.WriteRegister(0, msr::kVpIndex, 0));
  EXPECT_TRUE(enlightenments.WriteRegister(1, msr::kVpAssistPage, 0x7001));
  EXPECT_EQ(enlightenments.ReadRegister(1, msr::kVpAssistPage), 0x7001u);
  EXPECT_EQ(enlightenments.ReadRegister(0, msr::kVpAssistPage), 0u);
  EXPECT_EQ(enlightenments.ReadRegister(0, 0x40000105), std::nullopt);  // crash registers
  EXPECT_FALSE(enlightenments.WriteRegister(0, 0x40000105, 0));
  enlightenments.Reset();
  EXPECT_EQ(enlightenments.ReadRegister(1, msr::kVpAssistPage), 0u);
}

}  // namespace
}  // namespace kmcl::transport::kvm
