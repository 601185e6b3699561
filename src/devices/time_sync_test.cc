#include "devices/time_sync.h"

#include <atomic>
#include <future>

#include "devices/test_guest.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kFrom1601To1970 = 116'444'736'000'000'000;
std::uint64_t Now() {
  return kFrom1601To1970 +
         static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count() /
                                    100);
}

class TimeSyncTest : public testing::Test {
 protected:
  std::atomic<std::uint64_t> reference_{1000};
  bool has_reference_ = true;
  std::unique_ptr<TimeSyncDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       TimeSyncOptions options;
                       options.interval = 10ms;
                       if (has_reference_) {
                         options.reference_time = [this] { return reference_.load(); };
                       }
                       auto device =
                           TimeSyncDevice::Offer(device_object, partition, std::move(options), {});
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
  const TestGuestOptions linux_{.versions = {{4, 0}, {3, 0}, {1, 0}}};
};

TEST_F(TimeSyncTest, SetsTheClockOnceAndThenSendsSamples) {
  TestGuest guest(server_.address(), kTimeSyncInterface, linux_);
  const std::uint64_t before = Now();
  const auto first = guest.Take();
  EXPECT_EQ(first.size(), 20u + 24u);
  EXPECT_EQ(ReadAs<IntegrationHeader>(first).message, (IntegrationVersion{4, 0}));
  EXPECT_EQ(BodyAs<std::uint8_t>(first, 16), 1);
  EXPECT_EQ(BodyAs<std::uint64_t>(first, 8), 1000u);
  EXPECT_GE(BodyAs<std::uint64_t>(first) + 10'000'000, before);
  EXPECT_LE(BodyAs<std::uint64_t>(first), Now());
  reference_ = 2000;
  guest.Answer(first);
  const auto second = guest.Take();
  EXPECT_EQ(BodyAs<std::uint8_t>(second, 16), 2);
  EXPECT_EQ(BodyAs<std::uint64_t>(second, 8), 2000u);
  guest.Answer(second);
  guest.Answer(guest.Take());
  ASSERT_TRUE(Eventually([this] { return device_->Status().samples >= 2; }));
  EXPECT_EQ(device_->Status().syncs, 1u);
}

TEST_F(TimeSyncTest, SendsNothingMoreToAGuestThatDoesNotAnswer) {
  TestGuest guest(server_.address(), kTimeSyncInterface, linux_);
  const auto first = guest.Take();
  // An interval and more, within which a second one would have come.
  EXPECT_EQ(device_->SetTime(100ms).error().kind, IntegrationFailure::Kind::kBusy);
  EXPECT_EQ(guest.waiting(), 0u);
  guest.Answer(first);
  EXPECT_EQ(BodyAs<std::uint8_t>(guest.Take(), 16), 2);
}

TEST_F(TimeSyncTest, SetsTheClockWhenAskedTo) {
  TestGuest guest(server_.address(), kTimeSyncInterface, linux_);
  guest.Answer(guest.Take());
  auto set = std::async(std::launch::async, [this] { return device_->SetTime(10s); });
  std::uint8_t flags = 2;
  while (flags == 2) {  // samples may come first
    const auto request = guest.Take();
    flags = BodyAs<std::uint8_t>(request, 16);
    guest.Answer(request);
  }
  EXPECT_EQ(flags, 1);
  EXPECT_TRUE(set.get().has_value());
  ASSERT_TRUE(Eventually([this] { return device_->Status().syncs == 2; }));
}

TEST_F(TimeSyncTest, SetsTheClockAgainWhenTheGuestOpensAgain) {
  TestGuest guest(server_.address(), kTimeSyncInterface, linux_);
  guest.Answer(guest.Take());
  guest.Take();
  guest.Close();
  guest.Open();
  EXPECT_EQ(BodyAs<std::uint8_t>(guest.Take(), 16), 1);
}

TEST_F(TimeSyncTest, NamesNoCounterThatTheGuestDoesNotHave) {
  has_reference_ = false;
  TestGuest guest(server_.address(), kTimeSyncInterface, linux_);
  const auto first = guest.Take();
  EXPECT_EQ(ReadAs<IntegrationHeader>(first).message, (IntegrationVersion{3, 0}));
  EXPECT_EQ(first.size(), 20u + 28u);
  EXPECT_EQ(BodyAs<std::uint8_t>(first, 24), 1);
  EXPECT_LE(BodyAs<std::uint64_t>(first), Now());
  EXPECT_GE(BodyAs<std::uint64_t>(first) + 100'000'000, Now());
}

}  // namespace
}  // namespace kmcl::devices
