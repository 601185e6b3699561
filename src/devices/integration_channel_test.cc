// The framing, the negotiation and one question at a time, against a guest that keeps the rules and
// guests that do not. The service asked for is a heartbeat, as the simplest.
#include "devices/integration_channel.h"

#include <future>

#include "devices/test_guest.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;
using Kind = IntegrationFailure::Kind;

constexpr GUID kInterface = {
    0x57164f39, 0x9115, 0x4e78, {0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d}};
constexpr GUID kInstance = {
    0xfd149e91, 0x82e0, 0x4a7d, {0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0}};
constexpr IntegrationVersion kVersions[] = {{1, 0}, {3, 0}};
constexpr IntegrationService kService = {.interface_type = kInterface,
                                         .interface_instance = kInstance,
                                         .friendly_name = u"Test",
                                         .name = "test",
                                         .message = IntegrationMessage::kHeartbeat,
                                         .frameworks = kIntegrationFrameworks,
                                         .versions = kVersions,
                                         .maximum_body_bytes = 40};

// A server whose only device is the channel; a guest that arrives again gets a new one.
class IntegrationChannelTest : public testing::Test {
 protected:
  void Boot(TestGuestOptions options) {
    guest_ = std::make_unique<TestGuest>(server_.address(), kInterface, std::move(options));
  }
  IntegrationChannel& channel() { return *channel_; }
  IntegrationAgreement Agree(std::uint64_t after = 0) {
    const auto agreement = channel().AwaitAgreement(after);
    EXPECT_TRUE(agreement.has_value());
    return agreement.value_or(IntegrationAgreement{});
  }
  std::expected<IntegrationReply, IntegrationFailure> Ask(std::uint64_t number,
                                                          std::chrono::milliseconds timeout = 10s) {
    return channel().Ask(number, [] { return std::vector<std::byte>(16, std::byte{7}); }, timeout);
  }
  auto AskLater(std::uint64_t number, std::chrono::milliseconds timeout = 10s) {
    return std::async(std::launch::async, [this, number, timeout] { return Ask(number, timeout); });
  }
  Kind FailureOf(const std::expected<IntegrationReply, IntegrationFailure>& result) {
    EXPECT_FALSE(result.has_value());
    return result ? Kind::kStopped : result.error().kind;
  }

  std::unique_ptr<IntegrationChannel> channel_;
  Event gone_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto made =
                           IntegrationChannel::Offer(device_object, partition, kService, {});
                       ASSERT_TRUE(made.has_value()) << KmclStatusName(made.error());
                       channel_ = std::move(*made);
                     },
                     [this] {
                       channel_.reset();
                       gone_.Set();
                     }};
  std::unique_ptr<TestGuest> guest_;
  const TestGuestOptions linux_{.versions = {{3, 0}, {1, 0}}};
};

TEST_F(IntegrationChannelTest, IsOfferedAsAMessagePipeWithoutMmio) {
  Boot(linux_);
  const auto offer = guest_->Offer();
  ASSERT_TRUE(offer.has_value());
  EXPECT_EQ(offer->Flags, 0x0011);
  EXPECT_EQ(offer->MmioMegabytes, 0);
  EXPECT_EQ(offer->SubChannelIndex, 0);
  EXPECT_TRUE(offer->InterfaceInstance == kInstance);
}

TEST_F(IntegrationChannelTest, AgreesOnTheNewestVersionsOfTheGuest) {
  Boot(linux_);
  const auto agreement = Agree();
  EXPECT_EQ(agreement.framework, (IntegrationVersion{3, 0}));
  EXPECT_EQ(agreement.message, (IntegrationVersion{3, 0}));
  EXPECT_EQ(agreement.number, 1u);
}

TEST_F(IntegrationChannelTest, AgreesWithAnOldGuest) {
  Boot({.frameworks = {{1, 0}}, .versions = {{1, 0}}});
  const auto agreement = Agree();
  EXPECT_EQ(agreement.framework, (IntegrationVersion{1, 0}));
  EXPECT_EQ(agreement.message, (IntegrationVersion{1, 0}));
}

TEST_F(IntegrationChannelTest, LeavesAGuestAloneThatAcceptsNoVersion) {
  Boot({.versions = {{9, 9}}});
  ASSERT_TRUE(Eventually(
      [this] { return channel().Status().state == IntegrationState::kNoCommonVersion; }));
  EXPECT_EQ(channel().Agreement().error().state, IntegrationState::kNoCommonVersion);
  EXPECT_EQ(guest_->waiting(), 0u);
}

TEST_F(IntegrationChannelTest, RefusesAVersionThatItDidNotOffer) {
  Boot({.versions = {{3, 0}}, .negotiates = false});
  auto packet = guest_->Take();
  const std::uint16_t counts[2] = {1, 1};
  const IntegrationVersion chosen[2] = {{3, 0}, {4, 0}};
  SetBody(packet, 0, counts);
  SetBody(packet, 8, chosen);
  guest_->Answer(packet);
  ASSERT_TRUE(Eventually(
      [this] { return channel().Status().state == IntegrationState::kNoCommonVersion; }));
}

TEST_F(IntegrationChannelTest, PutsVersionsAndLengthIntoEachRequestAndReturnsTheAnswer) {
  Boot(linux_);
  auto result = AskLater(Agree().number);
  const auto request = guest_->Take();
  const auto header = ReadAs<IntegrationHeader>(request);
  EXPECT_EQ(header.framework, (IntegrationVersion{3, 0}));
  EXPECT_EQ(header.message, (IntegrationVersion{3, 0}));
  EXPECT_EQ(header.type, 1);
  EXPECT_EQ(header.body_bytes, 16);
  EXPECT_EQ(header.status, 0u);
  guest_->Answer(request, kIntegrationFailure);
  const auto reply = result.get();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->status, kIntegrationFailure);
  EXPECT_EQ(reply->body, std::vector<std::byte>(16, std::byte{7}));
}

TEST_F(IntegrationChannelTest, GivesUpAQuestionInTimeAndDropsItsLateAnswer) {
  Boot(linux_);
  const auto number = Agree().number;
  EXPECT_EQ(FailureOf(Ask(number, 20ms)), Kind::kTimedOut);
  const auto first = guest_->Take();
  auto second = AskLater(number);
  const auto request = guest_->Take();
  guest_->Answer(first, 1111);
  guest_->Answer(request, 2222);
  const auto reply = second.get();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->status, 2222u);
  EXPECT_EQ(channel().Status().counts.late, 1u);
}

TEST_F(IntegrationChannelTest, DropsASecondAnswer) {
  Boot(linux_);
  const auto number = Agree().number;
  auto first = AskLater(number);
  const auto request = guest_->Take();
  guest_->Answer(request, 1);
  guest_->Answer(request, 2);
  EXPECT_EQ(first.get()->status, 1u);
  auto second = AskLater(number);
  guest_->Answer(guest_->Take(), 3);
  EXPECT_EQ(second.get()->status, 3u);
  const auto counts = channel().Status().counts;
  EXPECT_EQ(counts.answered, 2u);
  EXPECT_EQ(counts.late + counts.malformed,
            1u);  // as it came before the second question, or behind it
}

TEST_F(IntegrationChannelTest, HearsAnAnswerBehindThoseThatComeTwice) {
  Boot(linux_);
  const auto number = Agree().number;
  auto first = AskLater(number);
  const auto request = guest_->Take();
  guest_->Answer(request, 1);
  EXPECT_EQ(first.get()->status, 1u);
  auto second = AskLater(number);
  const auto next = guest_->Take();
  guest_->Answer(request, 2);  // while the second one waits
  guest_->Answer(request, 2);
  guest_->Answer(next, 3);
  EXPECT_EQ(second.get()->status, 3u);
}

TEST_F(IntegrationChannelTest, IgnoresWhatIsNoAnswerAndWaitsForTheOneThatIs) {
  Boot(linux_);
  auto result = AskLater(Agree().number);
  const auto request = guest_->Take();
  guest_->Send({});
  guest_->Send({request.begin(), request.begin() + 19});  // shorter than a header
  guest_->Send(request);                                  // a request, not an answer
  auto too_long = TestGuest::AnswerTo(request);
  auto header = ReadAs<IntegrationHeader>(too_long);
  header.body_bytes = 17;  // than came
  std::memcpy(too_long.data(), &header, sizeof(header));
  guest_->Send(too_long);
  auto other_type = TestGuest::AnswerTo(request);
  header = ReadAs<IntegrationHeader>(other_type);
  header.type = 3;
  std::memcpy(other_type.data(), &header, sizeof(header));
  guest_->Send(other_type);
  guest_->Answer(request, 42);
  EXPECT_EQ(result.get()->status, 42u);
  EXPECT_EQ(channel().Status().counts.malformed, 5u);
}

TEST_F(IntegrationChannelTest, IsDeafToAGuestThatBabblesUntilItOpensAgain) {
  Boot(linux_);
  const auto number = Agree().number;
  for (int i = 0; i < 1000; ++i) {
    guest_->Send({});
  }
  ASSERT_TRUE(Eventually([this] { return channel().Status().state == IntegrationState::kDeaf; }));
  EXPECT_EQ(FailureOf(Ask(number)), Kind::kClosed);
  guest_->Close();
  guest_->Open();
  auto result = AskLater(Agree(number).number);
  guest_->Answer(guest_->Take());
  EXPECT_TRUE(result.get().has_value());
}

TEST_F(IntegrationChannelTest, EndsAQuestionWhenTheGuestClosesAndNegotiatesAnew) {
  Boot(linux_);
  const auto number = Agree().number;
  auto result = AskLater(number);
  guest_->Take();
  guest_->Close();
  EXPECT_EQ(FailureOf(result.get()), Kind::kClosed);
  EXPECT_EQ(channel().Agreement().error().state, IntegrationState::kNotOpen);
  guest_->Open();
  const auto next = Agree(number).number;
  EXPECT_EQ(FailureOf(Ask(number)), Kind::kClosed);
  auto again = AskLater(next);
  guest_->Answer(guest_->Take());
  EXPECT_TRUE(again.get().has_value());
}

TEST_F(IntegrationChannelTest, ClosesAndOpensOftenWhileQuestionsAreAsked) {
  Boot(linux_);
  std::uint64_t number = 0;
  for (int i = 0; i < 50; ++i) {
    number = Agree(number).number;
    auto result = AskLater(number);
    guest_->Close();
    EXPECT_FALSE(result.get().has_value());
    guest_->Open();
  }
  EXPECT_EQ(Agree(number).number, number + 1);
}

TEST_F(IntegrationChannelTest, PutsQuestionsOfSeveralThreadsOneAfterTheOther) {
  Boot(linux_);
  const auto number = Agree().number;
  std::vector<std::future<std::expected<IntegrationReply, IntegrationFailure>>> results;
  for (int i = 0; i < 4; ++i) {
    results.push_back(AskLater(number));
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto request = guest_->Take();
    EXPECT_EQ(guest_->waiting(), 0u);
    guest_->Answer(request);
  }
  for (auto& result : results) {
    EXPECT_TRUE(result.get().has_value());
  }
}

TEST_F(IntegrationChannelTest, IsOfferedAgainToAGuestThatReboots) {
  Boot(linux_);
  Agree();
  guest_.reset();
  ASSERT_TRUE(gone_.Wait());
  Boot(linux_);
  auto result = AskLater(Agree().number);
  guest_->Answer(guest_->Take());
  EXPECT_TRUE(result.get().has_value());
}

TEST_F(IntegrationChannelTest, StopsWhoeverWaits) {
  Boot(linux_);
  const auto number = Agree().number;
  auto result = AskLater(number);
  guest_->Take();
  auto waiting =
      std::async(std::launch::async, [this, number] { return channel().AwaitAgreement(number); });
  channel().Stop();
  EXPECT_EQ(FailureOf(result.get()), Kind::kStopped);
  EXPECT_FALSE(waiting.get().has_value());
  EXPECT_FALSE(channel().WaitWhileAgreed(number, std::chrono::steady_clock::now() + 1h));
}

}  // namespace
}  // namespace kmcl::devices
