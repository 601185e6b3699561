#include "devices/key_values.h"

#include <future>

#include "devices/test_guest.h"
#include "devices/utf16.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;
using Kind = IntegrationFailure::Kind;
using Bytes = std::vector<std::byte>;

void SetText(Bytes& packet, std::size_t offset, std::string_view text) {
  const auto units = Utf16FromText(text);
  for (std::size_t i = 0; i <= units.size(); ++i) {
    SetBody(packet, offset + 2 * i, units.c_str()[i]);
  }
}
std::string TextAt(const Bytes& packet, std::size_t offset) {
  return TextFromUtf16(std::span(packet).subspan(sizeof(IntegrationHeader) + offset));
}
// As hv_kvp_daemon fills in a value structure at `offset`: text, with sizes in bytes.
void SetPair(Bytes& packet, std::size_t offset, std::string_view key, std::string_view value) {
  SetBody(packet, offset, std::uint32_t{1});
  SetBody(packet, offset + 4, static_cast<std::uint32_t>(2 * (key.size() + 1)));
  SetBody(packet, offset + 8, static_cast<std::uint32_t>(2 * (value.size() + 1)));
  SetText(packet, offset + 12, key);
  SetText(packet, offset + 12 + 512, value);
}

class KeyValueTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Eventually([this] { return device_->Status().state == IntegrationState::kReady; }));
  }
  template <typename Function>
  auto Later(Function function) {
    return std::async(std::launch::async, [this, function] { return function(*device_); });
  }

  std::unique_ptr<KeyValueDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = KeyValueDevice::Offer(device_object, partition, {});
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
  TestGuest guest_{server_.address(), kKeyValueInterface, {.versions = {{4, 0}, {3, 0}, {1, 0}}}};
};

TEST_F(KeyValueTest, SetsAPairInThePoolOfTheHost) {
  auto result =
      Later([](auto& device) { return device.Set(KeyValuePool::kExternal, "key", "välue"); });
  const auto request = guest_.Take();
  EXPECT_EQ(request.size(), 20u + 2580u);
  EXPECT_EQ(BodyAs<std::uint8_t>(request, 0), 1);
  EXPECT_EQ(BodyAs<std::uint8_t>(request, 1), 0);
  EXPECT_EQ(BodyAs<std::uint32_t>(request, 4), 1u);
  EXPECT_EQ(BodyAs<std::uint32_t>(request, 8), 8u);
  EXPECT_EQ(BodyAs<std::uint32_t>(request, 12), 12u);
  EXPECT_EQ(TextAt(request, 16), "key");
  EXPECT_EQ(TextAt(request, 528), "välue");
  guest_.Answer(request);
  EXPECT_TRUE(result.get().has_value());
}

TEST_F(KeyValueTest, GetsAValueAndSaysWhenThereIsNone) {
  auto result = Later([](auto& device) { return device.Get(KeyValuePool::kGuest, "key"); });
  auto request = guest_.Take();
  EXPECT_EQ(BodyAs<std::uint8_t>(request, 0), 0);
  EXPECT_EQ(BodyAs<std::uint8_t>(request, 1), 1);
  SetPair(request, 4, "key", "42 apples");
  guest_.Answer(request);
  EXPECT_EQ(result.get().value_or(""), "42 apples");

  result = Later([](auto& device) { return device.Get(KeyValuePool::kGuest, "none"); });
  guest_.Answer(guest_.Take(), kIntegrationNoMoreItems);
  EXPECT_EQ(result.get().error().status, kIntegrationNoMoreItems);
}

TEST_F(KeyValueTest, ReadsNumbersToo) {
  auto result = Later([](auto& device) { return device.Get(KeyValuePool::kGuest, "n"); });
  auto request = guest_.Take();
  SetBody(request, 4, std::uint32_t{4});
  SetBody(request, 12, std::uint32_t{4});
  SetBody(request, 528, std::uint32_t{123456});
  guest_.Answer(request);
  EXPECT_EQ(result.get().value_or(""), "123456");
}

TEST_F(KeyValueTest, DeletesAKey) {
  auto result = Later([](auto& device) { return device.Delete(KeyValuePool::kExternal, "gone"); });
  const auto request = guest_.Take();
  EXPECT_EQ(BodyAs<std::uint8_t>(request, 0), 2);
  EXPECT_EQ(BodyAs<std::uint32_t>(request, 4), 10u);
  EXPECT_EQ(TextAt(request, 8), "gone");
  guest_.Answer(request);
  EXPECT_TRUE(result.get().has_value());
}

TEST_F(KeyValueTest, EnumeratesUntilTheGuestSaysThatThereIsNoMore) {
  auto result = Later([](auto& device) { return device.Enumerate(KeyValuePool::kAutomatic); });
  for (std::uint32_t index = 0; index < 10; ++index) {
    auto request = guest_.Take();
    EXPECT_EQ(BodyAs<std::uint8_t>(request, 0), 3);
    EXPECT_EQ(BodyAs<std::uint8_t>(request, 1), 2);
    EXPECT_EQ(BodyAs<std::uint32_t>(request, 4), index);
    SetPair(request, 8, "Key" + std::to_string(index), "Value" + std::to_string(index));
    guest_.Answer(request);
  }
  guest_.Answer(guest_.Take(), kIntegrationNoMoreItems);
  const auto pairs = result.get();
  ASSERT_TRUE(pairs.has_value());
  ASSERT_EQ(pairs->size(), 10u);
  EXPECT_EQ((*pairs)[9].key, "Key9");
  EXPECT_EQ((*pairs)[9].value, "Value9");
}

TEST_F(KeyValueTest, EndsAnEnumerationThatHasNoEnd) {
  auto result = Later([](auto& device) { return device.Enumerate(KeyValuePool::kGuest); });
  for (std::uint32_t index = 0; index < kMostKeyValues; ++index) {
    auto request = guest_.Take();
    SetPair(request, 8, "k", "v");
    guest_.Answer(request);
  }
  EXPECT_EQ(result.get()->size(), kMostKeyValues);
}

TEST_F(KeyValueTest, RefusesAnswersThatDoNotHoldTogether) {
  const auto spoilt = [this](auto spoil) {
    auto result = Later([](auto& device) { return device.Get(KeyValuePool::kGuest, "key"); });
    auto request = guest_.Take();
    SetPair(request, 4, "key", "value");
    spoil(request);
    guest_.Answer(request);
    const auto answer = result.get();
    return !answer && answer.error().kind == Kind::kMalformed;
  };
  EXPECT_TRUE(spoilt([](Bytes& packet) { SetBody(packet, 8, std::uint32_t{513}); }));
  EXPECT_TRUE(spoilt([](Bytes& packet) { SetBody(packet, 12, UINT32_MAX); }));
  EXPECT_TRUE(spoilt([](Bytes& packet) { SetBody(packet, 4, std::uint32_t{77}); }));
  EXPECT_TRUE(spoilt([](Bytes& packet) { SetBody(packet, 0, std::uint8_t{1}); }));
  EXPECT_TRUE(spoilt([](Bytes& packet) { SetBody(packet, 1, std::uint8_t{3}); }));
  EXPECT_TRUE(spoilt([](Bytes& packet) {
    auto header = ReadAs<IntegrationHeader>(packet);
    header.body_bytes = 100;
    std::memcpy(packet.data(), &header, sizeof(header));
  }));
}

TEST_F(KeyValueTest, TakesTextWithoutAnEnd) {
  auto result = Later([](auto& device) { return device.Get(KeyValuePool::kGuest, "key"); });
  auto request = guest_.Take();
  SetPair(request, 4, "key", "");
  SetBody(request, 12, std::uint32_t{2048});
  for (std::size_t i = 0; i < 1024; ++i) {
    SetBody(request, 528 + 2 * i, u'x');
  }
  guest_.Answer(request);
  EXPECT_EQ(result.get().value_or(""), std::string(1024, 'x'));
}

TEST_F(KeyValueTest, SendsNothingThatDoesNotFit) {
  const std::string key(kMostKeyUnits + 1, 'k');
  const std::string value(kMostValueUnits + 1, 'v');
  EXPECT_EQ(device_->Set(KeyValuePool::kExternal, key, "").error().kind, Kind::kMalformed);
  EXPECT_EQ(device_->Set(KeyValuePool::kExternal, "", value).error().kind, Kind::kMalformed);
  EXPECT_EQ(guest_.waiting(), 0u);
}

TEST_F(KeyValueTest, AsksForTheAddressesOfAnAdapter) {
  auto result = Later([](auto& device) { return device.Addresses("00:15:5d:00:ab:cd"); });
  auto request = guest_.Take();
  EXPECT_EQ(request.size(), 20u + 7428u);
  EXPECT_EQ(BodyAs<std::uint8_t>(request, 0), 4);
  EXPECT_EQ(TextAt(request, 2), "00:15:5D:00:AB:CD");
  SetBody(request, 258, std::uint8_t{3});
  SetBody(request, 259, std::uint8_t{1});
  SetText(request, 260, "10.0.0.2;fe80::1;");
  SetText(request, 2308, "255.0.0.0;64");
  SetText(request, 4356, "10.0.0.1");
  SetText(request, 5380, ";;");
  guest_.Answer(request);
  const auto found = result.get();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->family, 3);
  EXPECT_TRUE(found->dhcp);
  EXPECT_EQ(found->addresses, (std::vector<std::string>{"10.0.0.2", "fe80::1"}));
  EXPECT_EQ(found->subnets, (std::vector<std::string>{"255.0.0.0", "64"}));
  EXPECT_EQ(found->gateways, std::vector<std::string>{"10.0.0.1"});
  EXPECT_TRUE(found->dns_servers.empty());
}

TEST_F(KeyValueTest, EndsAnEnumerationWhenTheGuestCloses) {
  auto result = Later([](auto& device) { return device.Enumerate(KeyValuePool::kGuest); });
  guest_.Take();
  guest_.Close();
  EXPECT_EQ(result.get().error().kind, Kind::kClosed);
}

}  // namespace
}  // namespace kmcl::devices
