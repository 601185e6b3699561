#include "wire/message_codec.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "wire/message_samples_test.h"
#include "wire/test_bytes.h"

namespace kmcl::wire {
namespace {

using AnyMessage = std::variant<ClientMessage, ServerMessage>;

constexpr Agreed kNewest{.version = Version::kCopper, .features = kKnownFeatures};

// Reads bytes as the one who receives `sample` does.
Result<AnyMessage> ParseAs(const MessageSample& sample, std::span<const std::byte> bytes,
                           const Agreed& agreed) {
  if (sample.from_client()) {
    const auto message = ParseClientMessage(bytes, agreed);
    if (!message) return std::unexpected(message.error());
    return AnyMessage(*message);
  }
  const auto message = ParseServerMessage(bytes, agreed);
  if (!message) return std::unexpected(message.error());
  return AnyMessage(*message);
}

MessageBytes EncodeAny(const AnyMessage& message, const Agreed& agreed) {
  return std::visit(
      [&](const auto& direction) {
        return std::visit([&](const auto& one) { return Encode(one, agreed); }, direction);
      },
      message);
}

MessageSample SampleOf(MessageType type) {
  for (const MessageSample& sample : AllMessageSamples()) {
    if (MessageNumber(sample.bytes) == static_cast<std::uint32_t>(type)) return sample;
  }
  ADD_FAILURE() << "no sample of message " << static_cast<std::uint32_t>(type);
  return {};
}

template <typename M>
M ParsedClient(std::span<const std::byte> bytes, const Agreed& agreed) {
  const auto message = ParseClientMessage(bytes, agreed);
  if (!message) {
    ADD_FAILURE() << ErrorName(message.error());
    return {};
  }
  return std::get<M>(*message);
}

template <typename M>
M ParsedServer(std::span<const std::byte> bytes, const Agreed& agreed) {
  const auto message = ParseServerMessage(bytes, agreed);
  if (!message) {
    ADD_FAILURE() << ErrorName(message.error());
    return {};
  }
  return std::get<M>(*message);
}

std::vector<std::byte> Resized(std::span<const std::byte> bytes, std::size_t size,
                               std::byte filler = std::byte{0xEE}) {
  std::vector<std::byte> resized(bytes.begin(), bytes.end());
  resized.resize(size, filler);
  return resized;
}

TEST(MessageSamples, CoverEveryNumberOnce) {
  const auto samples = AllMessageSamples();
  ASSERT_EQ(samples.size(), 29u);
  for (std::uint32_t number = 1; number <= 29; ++number) {
    const MessageSample& sample = samples[number - 1];
    EXPECT_EQ(MessageNumber(sample.bytes), number);
    EXPECT_EQ(sample.name, NameOf(static_cast<MessageType>(number)));
  }
}

TEST(MessageCodec, WritesTheBytesOfTheReference) {
  for (const MessageSample& sample : AllMessageSamples()) {
    SCOPED_TRACE(sample.name);
    const MessageBytes encoded = EncodeAny(sample.message, sample.agreed);
    EXPECT_EQ(std::vector(encoded.span().begin(), encoded.span().end()), sample.bytes);
  }
}

TEST(MessageCodec, ReadsTheBytesOfTheReference) {
  for (const MessageSample& sample : AllMessageSamples()) {
    SCOPED_TRACE(sample.name);
    const auto parsed = ParseAs(sample, sample.bytes, sample.agreed);
    ASSERT_TRUE(parsed) << ErrorName(parsed.error());
    EXPECT_TRUE(*parsed == sample.message);
  }
}

TEST(MessageCodec, RefusesEveryTruncation) {
  for (const MessageSample& sample : AllMessageSamples()) {
    for (std::size_t size = 0; size < sample.shortest_bytes; ++size) {
      SCOPED_TRACE(sample.name + " " + std::to_string(size));
      // Exactly `size` bytes of memory, so that a sanitizer sees a read beyond them.
      const auto parsed = ParseAs(sample, Resized(sample.bytes, size), sample.agreed);
      ASSERT_FALSE(parsed);
      EXPECT_EQ(parsed.error(), Error::kMessageTooShort);
    }
  }
}

TEST(MessageCodec, ReadsEveryLengthFromTheShortestOn) {
  for (const MessageSample& sample : AllMessageSamples()) {
    for (std::size_t size = sample.shortest_bytes; size <= 240; ++size) {
      SCOPED_TRACE(sample.name + " " + std::to_string(size));
      EXPECT_TRUE(ParseAs(sample, Resized(sample.bytes, size), sample.agreed));
    }
  }
}

TEST(MessageCodec, IgnoresWhatFollowsTheStruct) {
  for (const MessageSample& sample : AllMessageSamples()) {
    if (sample.name.starts_with("GpadlHeader")) continue;  // more bytes there are more ranges
    SCOPED_TRACE(sample.name);
    const auto parsed = ParseAs(sample, Resized(sample.bytes, 240), sample.agreed);
    ASSERT_TRUE(parsed) << ErrorName(parsed.error());
    EXPECT_TRUE(*parsed == sample.message);
  }
}

TEST(MessageCodec, RefusesMoreThan240Bytes) {
  for (const MessageSample& sample : AllMessageSamples()) {
    for (const std::size_t size : {std::size_t{241}, std::size_t{4096}}) {
      SCOPED_TRACE(sample.name);
      const auto parsed = ParseAs(sample, Resized(sample.bytes, size), sample.agreed);
      ASSERT_FALSE(parsed);
      EXPECT_EQ(parsed.error(), Error::kMessageTooLong);
    }
  }
}

TEST(MessageCodec, DoesNotCheckTheHeadersPadding) {
  for (MessageSample& sample : AllMessageSamples()) {
    SCOPED_TRACE(sample.name);
    std::fill_n(sample.bytes.begin() + 4, 4, std::byte{0xFF});
    EXPECT_TRUE(ParseAs(sample, sample.bytes, sample.agreed) == Result<AnyMessage>(sample.message));
  }
}

TEST(MessageCodec, RefusesTheOtherSidesMessages) {
  for (const MessageSample& sample : AllMessageSamples()) {
    for (const Agreed& agreed : {sample.agreed, Agreed{}}) {
      SCOPED_TRACE(sample.name);
      const Error error = sample.from_client() ? ParseServerMessage(sample.bytes, agreed).error()
                                               : ParseClientMessage(sample.bytes, agreed).error();
      EXPECT_EQ(error, Error::kMessageWrongDirection);
    }
  }
}

TEST(MessageCodec, RefusesNumbersThatAreNotInTheProtocol) {
  for (const std::uint32_t number : {0u, 30u, 31u, 255u, 0x01000001u, 0xFFFFFFFFu}) {
    SCOPED_TRACE(number);
    const TestBytes bytes = TestBytes(240).U32(0, number);
    EXPECT_EQ(ParseClientMessage(bytes, kNewest).error(), Error::kMessageUnknown);
    EXPECT_EQ(ParseServerMessage(bytes, kNewest).error(), Error::kMessageUnknown);
    EXPECT_STREQ(NameOf(static_cast<MessageType>(number)), "unknown");
  }
}

TEST(MessageCodec, KnowsWhichVersionAndFeaturesHaveAMessage) {
  for (const MessageSample& sample : AllMessageSamples()) {
    for (const Version version : kVersionsNewestFirst) {
      for (std::uint32_t bits = 0; bits <= 0xFF; ++bits) {
        SCOPED_TRACE(sample.name + " " + NameOf(version) + " " + std::to_string(bits));
        const Agreed agreed{.version = version, .features = FeatureFlags(bits)};
        const bool is_legal =
            version >= sample.since && (bits & sample.required.bits()) == sample.required.bits();
        const auto parsed = ParseAs(sample, sample.bytes, agreed);
        ASSERT_EQ(parsed.has_value(), is_legal);
        if (!is_legal) {
          EXPECT_EQ(parsed.error(), Error::kMessageNotInVersion);
        }
      }
    }
  }
}

TEST(MessageCodec, ReadsOnlyContactAndReservedChannelsBeforeAVersion) {
  std::vector<std::string> legal;
  for (const MessageSample& sample : AllMessageSamples()) {
    SCOPED_TRACE(sample.name);
    const auto parsed = ParseAs(sample, sample.bytes, Agreed{});
    if (parsed) {
      legal.push_back(sample.name);
    } else {
      EXPECT_EQ(parsed.error(), Error::kNotConnected);
    }
    EXPECT_EQ(parsed.has_value(), sample.is_legal_before_version);
  }
  EXPECT_EQ(legal, (std::vector<std::string>{"InitiateContact", "VersionResponse",
                                             "CloseReservedChannel", "CloseReservedResponse"}));
}

TEST(MessageCodec, ZeroesWhatIsNotPartOfTheMessage) {
  for (const MessageSample& sample : AllMessageSamples()) {
    SCOPED_TRACE(sample.name);
    const MessageBytes encoded = EncodeAny(sample.message, sample.agreed);
    EXPECT_TRUE(std::all_of(encoded.data() + encoded.size(), encoded.data() + 240,
                            [](std::byte byte) { return byte == std::byte{0}; }));
  }
}

TEST(OpenChannelForms, FollowFromTheFeatures) {
  const MessageSample sample = SampleOf(MessageType::kOpenChannel);
  const auto message = std::get<OpenChannel>(std::get<ClientMessage>(sample.message));
  struct Row {
    std::uint32_t features;
    std::size_t bytes;
    std::uint32_t connection_id;
    std::uint16_t event_flag;
    std::uint16_t flags;
  };
  for (const Row& row :
       {Row{0x00, 148, 0, 0, 0}, Row{0x01, 156, 0x2011, 0x345, 0}, Row{0x02, 156, 0, 0, 1},
        Row{0x03, 156, 0x2011, 0x345, 1}, Row{0xFC, 148, 0, 0, 0}}) {
    SCOPED_TRACE(row.features);
    const Agreed agreed{.version = Version::kCopper, .features = FeatureFlags(row.features)};
    OpenChannel expected = message;
    expected.connection_id = ConnectionId{row.connection_id};
    expected.event_flag = row.event_flag;
    expected.flags = row.flags;
    EXPECT_EQ(Encode(message, agreed).size(), row.bytes);
    EXPECT_TRUE(ParsedClient<OpenChannel>(Encode(message, agreed), agreed) == expected);
    EXPECT_TRUE(ParsedClient<OpenChannel>(sample.bytes, agreed) == expected);
    EXPECT_EQ(ParseClientMessage(Resized(sample.bytes, row.bytes - 1), agreed).error(),
              Error::kMessageTooShort);
  }
}

TEST(OpenChannelForms, KeepTheShortLayoutInOldVersions) {
  const MessageSample sample = SampleOf(MessageType::kOpenChannel);
  const auto message = std::get<OpenChannel>(std::get<ClientMessage>(sample.message));
  const Agreed agreed{.version = Version::kIron};
  const MessageBytes encoded = Encode(message, agreed);
  EXPECT_EQ(std::vector(encoded.span().begin(), encoded.span().end()), Resized(sample.bytes, 148));
}

TEST(OfferChannelFields, OfASingleConnectionAreZeroBelowWin7) {
  const MessageSample sample = SampleOf(MessageType::kOfferChannel);
  auto expected = std::get<OfferChannel>(std::get<ServerMessage>(sample.message));
  EXPECT_TRUE(ParsedServer<OfferChannel>(sample.bytes, {.version = Version::kWin7}) == expected);
  const MessageBytes encoded = Encode(expected, {.version = Version::kV1});
  expected.interrupt_flags = 0;
  expected.connection_id = ConnectionId{0};
  EXPECT_TRUE(ParsedServer<OfferChannel>(sample.bytes, {.version = Version::kV1}) == expected);
  EXPECT_EQ(encoded.size(), 196u);
  EXPECT_TRUE(std::all_of(encoded.data() + 190, encoded.data() + 196,
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST(OfferChannelFields, AnswerByTheirLowestBit) {
  OfferChannel offer{.monitor_flags = 0xFE, .interrupt_flags = 0xFFFE};
  EXPECT_FALSE(offer.monitor_allocated());
  EXPECT_FALSE(offer.has_dedicated_interrupt());
  offer.monitor_flags = offer.interrupt_flags = 1;
  EXPECT_TRUE(offer.monitor_allocated());
  EXPECT_TRUE(offer.has_dedicated_interrupt());
}

TEST(OfferFlags, NeedTheirFeatures) {
  EXPECT_EQ(OfferFlagsFor(0xFFFF, {}), 0x2711);
  EXPECT_EQ(OfferFlagsFor(0xFFFF, Feature::kConfidentialChannels), 0x2717);
  EXPECT_EQ(OfferFlagsFor(0xFFFF, Feature::kGpaPinning), 0x2719);
  EXPECT_EQ(OfferFlagsFor(0x0010, kKnownFeatures), 0x0010);
}

TEST(InitiateContactForms, MeanTheSameEightBytesByVersion) {
  const TestBytes bytes = TestBytes(40).U32(0, 14).U64(16, 0x8877665544332211);
  const auto read_as = [&](Version version) {
    TestBytes copy = bytes;
    return ParsedClient<InitiateContact>(copy.U32(8, static_cast<std::uint32_t>(version)), {});
  };
  for (const Version version : kVersionsNewestFirst) {
    SCOPED_TRACE(NameOf(version));
    const InitiateContact contact = read_as(version);
    EXPECT_EQ(contact.interrupt_page(), version < Version::kWin10V5 ? 0x8877665544332211 : 0);
    EXPECT_EQ(contact.sint(), version >= Version::kWin10V5 ? 0x11 : 0);
    EXPECT_EQ(contact.vtl(), version >= Version::kWin10Rs4 ? 0x22 : 0);
    EXPECT_EQ(contact.features().bits(), version >= Version::kCopper ? 0x88776655 : 0);
  }
}

TEST(InitiateContactForms, AreLongOnlyWithAClientId) {
  InitiateContact contact{.version = Version::kCopper,
                          .target_info = InitiateContact::TargetInfo(2, 0, Feature::kPauseResume)};
  EXPECT_EQ(Encode(contact, {}).size(), 40u);
  contact.target_info = InitiateContact::TargetInfo(2, 0, Feature::kClientId);
  EXPECT_EQ(Encode(contact, {}).size(), 56u);
  contact.version = Version::kIron;  // now the same bytes mean something else
  EXPECT_EQ(Encode(contact, {}).size(), 40u);
}

TEST(InitiateContactForms, WithoutTheClientIdLoseTheFeatureAndNothingElse) {
  const MessageSample sample = SampleOf(MessageType::kInitiateContact);
  auto expected = std::get<InitiateContact>(std::get<ClientMessage>(sample.message));
  expected.target_info =
      InitiateContact::TargetInfo(2, 1, Feature::kGuestSpecifiedSignalParameters);
  expected.client_id = Guid{};
  for (std::size_t size = 40; size < 56; ++size) {
    SCOPED_TRACE(size);
    EXPECT_TRUE(ParsedClient<InitiateContact>(Resized(sample.bytes, size), {}) == expected);
  }
}

TEST(InitiateContactForms, ReadAnUnknownVersionSoThatItCanBeRefused) {
  const TestBytes bytes = TestBytes(40).U32(0, 14).U32(8, 0x00070000);
  const auto contact = ParsedClient<InitiateContact>(bytes, {});
  EXPECT_EQ(contact.version, static_cast<Version>(0x00070000));
  EXPECT_FALSE(IsKnown(contact.version));
}

TEST(VersionResponseForms, FollowVersionAndFeatures) {
  VersionResponse response{.version_supported = 1, .connection_id_or_version = 1};
  for (const Version version : kVersionsNewestFirst) {
    SCOPED_TRACE(NameOf(version));
    const Agreed agreed{.version = version};
    EXPECT_EQ(Encode(response, agreed).size(), version == Version::kCopper ? 20u : 16u);
  }
  response.features = Feature::kServerSpecifiedMonitorPages;
  EXPECT_EQ(Encode(response, {.version = Version::kCopper}).size(), 40u);
  EXPECT_EQ(Encode(response, {.version = Version::kIron}).size(), 16u);
}

TEST(VersionResponseForms, OfARefusalAreShortAndZero) {
  const MessageBytes refusal = Encode(VersionResponse{}, {});
  const std::vector<std::byte> expected = TestBytes(16).U32(0, 15).vector();
  EXPECT_EQ(std::vector(refusal.span().begin(), refusal.span().end()), expected);
  EXPECT_EQ(Encode(VersionResponse{}, {.version = Version::kCopper}).size(), 16u);
}

TEST(VersionResponseForms, AreReadBySize) {
  const MessageSample sample = SampleOf(MessageType::kVersionResponse);
  const auto whole = std::get<VersionResponse>(std::get<ServerMessage>(sample.message));
  for (std::size_t size = 16; size <= 240; ++size) {
    SCOPED_TRACE(size);
    VersionResponse expected = whole;
    if (size < 40) {
      expected.features = FeatureFlags(0x29);  // the pages that 0x40 announces are not there
      expected.parent_to_child_monitor_page = expected.child_to_parent_monitor_page = 0;
    }
    if (size < 20) expected.features = {};
    EXPECT_TRUE(ParsedServer<VersionResponse>(Resized(sample.bytes, size), {}) == expected);
  }
}

TEST(VersionResponseForms, TakeNoPagesThatWereNotGranted) {
  TestBytes bytes = TestBytes(40).U32(0, 15).U8(8, 1).U32(16, 0x21).U64(24, 0x1000).U64(32, 0x2000);
  const auto response = ParsedServer<VersionResponse>(bytes, {});
  EXPECT_EQ(response.features, FeatureFlags(0x21));
  EXPECT_EQ(response.parent_to_child_monitor_page, 0u);
  EXPECT_EQ(response.child_to_parent_monitor_page, 0u);

  bytes.U8(8, 0).U32(16, 0x40);  // a refusal grants nothing
  const auto refusal = ParsedServer<VersionResponse>(bytes, {});
  EXPECT_FALSE(refusal.supported());
  EXPECT_TRUE(refusal.features.empty());
  EXPECT_EQ(refusal.child_to_parent_monitor_page, 0u);
}

TEST(TlConnectForms, FollowVersionAndSize) {
  const MessageSample sample = SampleOf(MessageType::kTlConnectRequest);
  const auto whole = std::get<TlConnectRequest>(std::get<ClientMessage>(sample.message));
  auto without_silo = whole;
  without_silo.silo_id = Guid{};
  for (const Version version : {Version::kWin10, Version::kWin10Rs4, Version::kWin10Rs5}) {
    SCOPED_TRACE(NameOf(version));
    const bool has_silo = version >= Version::kWin10Rs5;
    const Agreed agreed{.version = version};
    EXPECT_EQ(Encode(whole, agreed).size(), has_silo ? 56u : 40u);
    EXPECT_TRUE(ParsedClient<TlConnectRequest>(sample.bytes, agreed) ==
                (has_silo ? whole : without_silo));
    for (std::size_t size = 40; size < 56; ++size) {
      EXPECT_TRUE(ParsedClient<TlConnectRequest>(Resized(sample.bytes, size), agreed) ==
                  without_silo);
    }
  }
}

TEST(GpadlMessages, KeepWholeWordsOfTheRangeList) {
  for (std::size_t size = 20; size <= 240; ++size) {
    SCOPED_TRACE(size);
    const auto bytes = Resized(TestBytes(20).U32(0, 8), size);
    const auto header = ParsedClient<GpadlHeader>(bytes, kNewest);
    EXPECT_EQ(header.ranges().size(), (size - 20) / 8 * 8);
    EXPECT_TRUE(std::ranges::all_of(header.ranges(),
                                    [](std::byte byte) { return byte == std::byte{0xEE}; }));
  }
  for (std::size_t size = 16; size <= 240; ++size) {
    SCOPED_TRACE(size);
    const auto body = ParsedClient<GpadlBody>(Resized(TestBytes(16).U32(0, 9), size), kNewest);
    EXPECT_EQ(body.ranges().size(), (size - 16) / 8 * 8);
  }
}

TEST(MessageNumber, NeedsFourBytes) {
  const TestBytes bytes = TestBytes(4).U32(0, 0x01020304);
  EXPECT_EQ(MessageNumber(bytes), 0x01020304u);
  EXPECT_EQ(MessageNumber(bytes.span().first(3)), std::nullopt);
}

}  // namespace
}  // namespace kmcl::wire
