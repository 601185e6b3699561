#include "devices/freeze.h"

#include <future>

#include "devices/test_guest.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;
using Kind = IntegrationFailure::Kind;

constexpr std::uint8_t kCheck = 2;
constexpr std::uint8_t kComplete = 4;
constexpr std::uint8_t kFreeze = 5;
constexpr std::uint8_t kThaw = 6;

class FreezeTest : public testing::Test {
 protected:
  void Boot() {
    guest_ = std::make_unique<TestGuest>(server_.address(), kFreezeInterface,
                                         TestGuestOptions{{{3, 0}}, {{5, 0}}});
    WaitUntilReady();
  }
  void WaitUntilReady() {
    ASSERT_TRUE(
        Eventually([this] { return device_->Status().channel.state == IntegrationState::kReady; }));
  }
  auto FreezeLater(std::chrono::milliseconds timeout = 10s) {
    return std::async(std::launch::async, [this, timeout] { return device_->Freeze(timeout); });
  }
  auto ThawLater() {
    return std::async(std::launch::async, [this] { return device_->Thaw(); });
  }
  void Expect(std::uint8_t operation, std::uint32_t status = 0) {
    const auto request = guest_->Take();
    EXPECT_EQ(request.size(), 20u + 32u);
    EXPECT_EQ(BodyAs<std::uint8_t>(request), operation);
    guest_->Answer(request, status);
  }
  void FreezeIt() {
    auto frozen = FreezeLater();
    Expect(kCheck);
    Expect(kFreeze);
    EXPECT_TRUE(frozen.get().has_value());
  }
  FreezeState state() { return device_->Status().state; }

  FreezeOptions options_{.maximum_frozen = 60s, .thaw_timeout = 10s};
  std::unique_ptr<FreezeDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = FreezeDevice::Offer(device_object, partition, options_, {});
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
  std::unique_ptr<TestGuest> guest_;
};

TEST_F(FreezeTest, ChecksFreezesThawsAndCompletes) {
  Boot();
  FreezeIt();
  EXPECT_EQ(state(), FreezeState::kFrozen);
  EXPECT_EQ(device_->Freeze().error().kind, Kind::kBusy);
  auto thawed = ThawLater();
  Expect(kThaw);
  Expect(kComplete);
  EXPECT_TRUE(thawed.get().has_value());
  EXPECT_EQ(state(), FreezeState::kThawed);
  EXPECT_EQ(device_->Status().freezes, 1u);
}

TEST_F(FreezeTest, DoesNotFreezeAGuestWithoutItsDaemon) {
  Boot();
  auto frozen = FreezeLater();
  Expect(kCheck, kIntegrationFailure);
  EXPECT_EQ(frozen.get().error().kind, Kind::kRefused);
  EXPECT_EQ(state(), FreezeState::kThawed);
  EXPECT_EQ(guest_->waiting(), 0u);
}

TEST_F(FreezeTest, ThawsAfterAFreezeThatFailed) {
  Boot();
  auto frozen = FreezeLater();
  Expect(kCheck);
  Expect(kFreeze, kIntegrationFailure);
  Expect(kThaw);
  Expect(kComplete);
  EXPECT_EQ(frozen.get().error().kind, Kind::kRefused);
  EXPECT_EQ(state(), FreezeState::kThawed);
}

TEST_F(FreezeTest, ThawsAfterAFreezeThatWasNotAnsweredInTime) {
  Boot();
  auto frozen = FreezeLater(50ms);
  Expect(kCheck);
  const auto request = guest_->Take();
  EXPECT_EQ(BodyAs<std::uint8_t>(request), kFreeze);
  const auto thaw = guest_->Take();
  EXPECT_EQ(BodyAs<std::uint8_t>(thaw), kThaw);
  guest_->Answer(request);  // late
  guest_->Answer(thaw);
  Expect(kComplete);
  EXPECT_EQ(frozen.get().error().kind, Kind::kTimedOut);
  EXPECT_EQ(state(), FreezeState::kThawed);
}

TEST_F(FreezeTest, ThawsByItselfWhatIsFrozenForTooLong) {
  options_.maximum_frozen = 50ms;
  Boot();
  FreezeIt();
  Expect(kThaw);
  Expect(kComplete);
  ASSERT_TRUE(Eventually([this] { return device_->Status().automatic_thaws == 1; }));
  EXPECT_EQ(state(), FreezeState::kThawed);
}

TEST_F(FreezeTest, ForgetsTheFreezeOfAGuestThatReboots) {
  Boot();
  FreezeIt();
  guest_->Close();
  EXPECT_EQ(state(), FreezeState::kThawed);
  guest_->Open();
  WaitUntilReady();
  EXPECT_EQ(state(), FreezeState::kThawed);
  FreezeIt();
  EXPECT_EQ(state(), FreezeState::kFrozen);
}

TEST_F(FreezeTest, ThawsWhenItIsRevoked) {
  Boot();
  FreezeIt();
  auto revoked = std::async(std::launch::async, [this] { device_->Revoke(); });
  Expect(kThaw);
  Expect(kComplete);
  revoked.get();
}

}  // namespace
}  // namespace kmcl::devices
