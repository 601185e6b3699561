#include "devices/guest_shutdown.h"

#include <future>

#include "devices/test_guest.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;
using Kind = IntegrationFailure::Kind;

class ShutdownTest : public testing::Test {
 protected:
  void WaitUntilReady() {
    ASSERT_TRUE(Eventually([this] { return device_->Status().state == IntegrationState::kReady; }));
  }
  auto RequestLater(ShutdownKind kind, ShutdownOptions options = {}) {
    return std::async(std::launch::async,
                      [this, kind, options] { return device_->Request(kind, options); });
  }

  std::unique_ptr<ShutdownDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = ShutdownDevice::Offer(device_object, partition, {});
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
};

class LinuxShutdownTest : public ShutdownTest {
 protected:
  void SetUp() override { WaitUntilReady(); }
  TestGuest guest_{
      server_.address(), kShutdownInterface, {.versions = {{3, 2}, {3, 1}, {3, 0}, {1, 0}}}};
};

TEST_F(LinuxShutdownTest, AsksForEachKindWithTheFlagsThatLinuxReads) {
  const struct {
    ShutdownKind kind;
    bool force;
    std::uint32_t flags;
  } cases[] = {{ShutdownKind::kPowerOff, false, 0},  {ShutdownKind::kPowerOff, true, 1},
               {ShutdownKind::kReboot, false, 2},    {ShutdownKind::kReboot, true, 3},
               {ShutdownKind::kHibernate, false, 4}, {ShutdownKind::kHibernate, true, 5}};
  for (const auto& each : cases) {
    auto result = RequestLater(each.kind, {.force = each.force, .grace = 30s, .reason = "Grüße"});
    const auto request = guest_.Take();
    EXPECT_EQ(request.size(), 20u + 2060u);
    EXPECT_EQ(BodyAs<std::uint32_t>(request, 0), 0x80000000u);
    EXPECT_EQ(BodyAs<std::uint32_t>(request, 4), 30u);
    EXPECT_EQ(BodyAs<std::uint32_t>(request, 8), each.flags);
    EXPECT_EQ(BodyAs<char16_t>(request, 12 + 2 * 2), u'ü');
    EXPECT_EQ(BodyAs<char16_t>(request, 12 + 2 * 5), u'\0');
    guest_.Answer(request);
    EXPECT_TRUE(result.get().has_value());
  }
}

TEST_F(LinuxShutdownTest, SaysWhenTheGuestRefuses) {
  auto result = RequestLater(ShutdownKind::kHibernate);
  guest_.Answer(guest_.Take(), kIntegrationFailure);
  const auto refused = result.get();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind, Kind::kRefused);
  EXPECT_EQ(refused.error().status, kIntegrationFailure);
  EXPECT_EQ(IntegrationFailureText(refused.error()), "the guest refused: it failed (0x80004005)");
}

TEST_F(LinuxShutdownTest, RefusesASecondRequestWhileOneWaits) {
  auto first = RequestLater(ShutdownKind::kPowerOff);
  const auto request = guest_.Take();
  EXPECT_EQ(device_->Request(ShutdownKind::kReboot).error().kind, Kind::kBusy);
  guest_.Answer(request);
  EXPECT_TRUE(first.get().has_value());
}

TEST_F(LinuxShutdownTest, ForgetsTheRequestOfAGuestThatClosed) {
  auto result = RequestLater(ShutdownKind::kReboot);
  guest_.Take();
  guest_.Close();
  EXPECT_EQ(result.get().error().kind, Kind::kClosed);
  EXPECT_EQ(device_->Request(ShutdownKind::kReboot).error().kind, Kind::kNotReady);
  guest_.Open();
  WaitUntilReady();
  EXPECT_EQ(guest_.waiting(), 0u);
}

TEST_F(LinuxShutdownTest, CutsATextThatIsTooLong) {
  const std::string text(5000, 'x');
  auto result = RequestLater(ShutdownKind::kPowerOff, {.reason = text});
  const auto request = guest_.Take();
  EXPECT_EQ(BodyAs<char16_t>(request, 12 + 2 * 1022), u'x');
  EXPECT_EQ(BodyAs<char16_t>(request, 12 + 2 * 1023), u'\0');
  guest_.Answer(request);
  EXPECT_TRUE(result.get().has_value());
}

TEST_F(ShutdownTest, IsNotReadyBeforeTheNegotiation) {
  TestGuest guest(server_.address(), kShutdownInterface, {.negotiates = false});
  guest.Take();
  const auto result = device_->Request(ShutdownKind::kPowerOff);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().kind, Kind::kNotReady);
  EXPECT_EQ(result.error().state, IntegrationState::kNegotiating);
}

}  // namespace
}  // namespace kmcl::devices
