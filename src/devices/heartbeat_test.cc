#include "devices/heartbeat.h"

#include "devices/test_guest.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;

class HeartbeatTest : public testing::Test {
 protected:
  // As Linux does: one more, and every other byte echoed.
  void Beat() { Beat(1); }
  void Beat(std::uint64_t more) {
    auto request = guest_.Take();
    SetBody(request, 0, BodyAs<std::uint64_t>(request) + more);
    guest_.Answer(request);
  }
  HeartbeatState state() { return device_->Status().state; }

  std::unique_ptr<HeartbeatDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = HeartbeatDevice::Offer(
                           device_object, partition, {.interval = 20ms, .lost_after = 3}, {});
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
  TestGuest guest_{server_.address(), kHeartbeatInterface, {.versions = {{3, 0}, {1, 0}}}};
};

TEST_F(HeartbeatTest, SendsZeroAsApplicationStateAndCountsBeats) {
  EXPECT_EQ(state(), HeartbeatState::kNoContact);
  const auto request = guest_.Take();
  EXPECT_EQ(request.size(), 20u + 40u);
  EXPECT_EQ(BodyAs<std::uint64_t>(request), 0u);
  EXPECT_EQ(BodyAs<std::uint32_t>(request, 8), 0u);
  auto answer = request;
  SetBody(answer, 0, std::uint64_t{1});
  guest_.Answer(answer);
  ASSERT_TRUE(Eventually([this] { return state() == HeartbeatState::kOk; }));
  const auto next = guest_.Take();
  EXPECT_GT(BodyAs<std::uint64_t>(next), 0u);
  EXPECT_GE(device_->Status().beats, 1u);
  EXPECT_TRUE(device_->Status().last_beat.has_value());
}

TEST_F(HeartbeatTest, IsLostAfterMissesAndFoundAgain) {
  Beat();
  ASSERT_TRUE(Eventually([this] { return state() == HeartbeatState::kOk; }));
  ASSERT_TRUE(Eventually([this] { return state() == HeartbeatState::kLost; }));
  EXPECT_GE(device_->Status().missed, 3u);
  // It wakes up, and answers all that has gathered, as Linux does.
  ASSERT_TRUE(Eventually([this] {
    while (guest_.waiting() > 0) Beat();
    return state() == HeartbeatState::kOk;
  }));
}

TEST_F(HeartbeatTest, CountsAWrongNumberAsNoBeat) {
  Beat(2);
  ASSERT_TRUE(Eventually([this] { return device_->Status().wrong == 1; }));
  EXPECT_EQ(device_->Status().beats, 0u);
  EXPECT_EQ(state(), HeartbeatState::kNoContact);
}

TEST_F(HeartbeatTest, StaysBoundedWithAGuestThatNeverAnswers) {
  ASSERT_TRUE(Eventually([this] { return device_->Status().missed >= 10; }));
  EXPECT_EQ(state(), HeartbeatState::kNoContact);
}

TEST_F(HeartbeatTest, BeginsAnewWhenTheGuestOpensAgain) {
  Beat();
  ASSERT_TRUE(Eventually([this] { return state() == HeartbeatState::kOk; }));
  guest_.Close();
  ASSERT_TRUE(Eventually([this] { return state() == HeartbeatState::kNoContact; }));
  guest_.Open();
  const auto request = guest_.Take();
  EXPECT_EQ(BodyAs<std::uint64_t>(request), 0u);
  EXPECT_EQ(device_->Status().channel.agreement->number, 2u);
}

}  // namespace
}  // namespace kmcl::devices
