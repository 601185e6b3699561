#include "wire/pipe.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "wire/test_bytes.h"

namespace kmcl::wire {
namespace {

TestBytes Payload(std::size_t size, std::uint32_t type, std::uint32_t len) {
  return TestBytes(size).U32(0, type).U32(4, len);
}

void ExpectRefused(std::span<const std::byte> payload) {
  const auto packet = ParsePipePayload(payload);
  ASSERT_FALSE(packet);
  EXPECT_EQ(packet.error(), Error::kPipeHeaderMalformed);
  EXPECT_FALSE(ParsePipePacket(payload));
}

TEST(Pipe, GivesTheExactDataWithoutThePadding) {
  const TestBytes payload = Payload(16, 1, 5).Hex(8, "AA BB CC DD EE 00 00 00");
  const auto data = ParsePipePacket(payload);
  ASSERT_TRUE(data);
  ASSERT_EQ(data->size(), 5u);
  EXPECT_EQ(data->data(), payload.span().data() + 8);
  EXPECT_EQ((*data)[4], std::byte{0xEE});
}

TEST(Pipe, MayCarryNoData) {
  const auto data = ParsePipePacket(Payload(8, 1, 0));
  ASSERT_TRUE(data);
  EXPECT_TRUE(data->empty());
}

TEST(Pipe, RefusesMoreDataThanThePayloadHolds) {
  EXPECT_TRUE(ParsePipePacket(Payload(16, 1, 8)));
  ExpectRefused(Payload(16, 1, 9));
  ExpectRefused(Payload(8, 1, 1));
  ExpectRefused(Payload(16, 1, 0xFFFFFFF8));
  ExpectRefused(Payload(16, 1, 0xFFFFFFFF));
}

TEST(Pipe, RefusesHeadersThatAreNotWhole) {
  for (std::size_t size = 0; size < 8; ++size) ExpectRefused(TestBytes(size));
}

TEST(Pipe, RefusesUnknownTypes) {
  for (const std::uint32_t type : {0u, 5u, 0x100u, 0x00010001u, 0xFFFFFFFFu}) {
    SCOPED_TRACE(type);
    ExpectRefused(Payload(16, type, 4));
  }
}

TEST(Pipe, TakesOnlyDataFromAWriter) {
  for (const std::uint32_t type : {2u, 3u, 4u}) {
    SCOPED_TRACE(type);
    const TestBytes payload = Payload(16, type, 8);
    EXPECT_TRUE(ParsePipePayload(payload));
    EXPECT_EQ(ParsePipePacket(payload).error(), Error::kPipeHeaderMalformed);
  }
}

TEST(Pipe, GivesTheRestOfAPartialPacket) {
  const TestBytes payload = Payload(16, 2, 3 << 16 | 7).Hex(8, "01 02 03 04 05 06 07 00");
  const auto packet = ParsePipePayload(payload);
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->type, PipePacketType::kPartial);
  ASSERT_EQ(packet->data.size(), 4u);
  EXPECT_EQ(packet->data[0], std::byte{4});
}

TEST(Pipe, RefusesAPartialPacketOfWhichNothingIsLeft) {
  EXPECT_TRUE(ParsePipePayload(Payload(16, 2, 7 << 16 | 8)));
  ExpectRefused(Payload(16, 2, 8 << 16 | 8));
  ExpectRefused(Payload(16, 2, 9 << 16 | 8));
  ExpectRefused(Payload(16, 2, 0));
  ExpectRefused(Payload(16, 2, 9));
  ExpectRefused(Payload(16, 2, 0xFFFFFFFF));
}

TEST(PipeParameters, LieInUserDefinedAsTheReferenceSays) {
  PipeParameters parameters{.kind = PipeKind::kMessage, .flags = kPipeFlagGpaDirect};
  parameters.user_bytes[0] = std::byte{0x11};
  parameters.user_bytes[111] = std::byte{0x22};
  const auto expected = TestBytes(120).U32(0, 4).U8(4, 0x11).U8(115, 0x22).U32(116, 1).vector();
  const UserDefined encoded = EncodePipeParameters(parameters);
  EXPECT_TRUE(std::ranges::equal(encoded, expected));
  EXPECT_TRUE(ParsePipeParameters(encoded) == Result<PipeParameters>(parameters));
}

TEST(PipeParameters, RefuseAKindThatIsNotDefined) {
  for (const std::uint8_t kind : {1, 2, 3, 5, 255}) {
    UserDefined user_defined{};
    user_defined[0] = std::byte{kind};
    const auto parameters = ParsePipeParameters(user_defined);
    ASSERT_FALSE(parameters);
    EXPECT_EQ(parameters.error(), Error::kFieldOutOfRange);
  }
}

TEST(HvsockParameters, LieInUserDefinedAsTheReferenceSays) {
  const HvsockParameters parameters{
      .is_for_client_accept = true,
      .is_for_container = false,
      .version = 1,
      .silo_id = {0x01020304, 0x0506, 0x0708, {9, 10, 11, 12, 13, 14, 15, 16}}};
  const auto expected = TestBytes(120)
                            .U8(4, 1)
                            .U32(6, 1)
                            .Hex(10, "04 03 02 01 06 05 08 07 09 0A 0B 0C 0D 0E 0F 10")
                            .vector();
  const UserDefined encoded = EncodeHvsockParameters(parameters);
  EXPECT_TRUE(std::ranges::equal(encoded, expected));
  EXPECT_TRUE(ParseHvsockParameters(encoded) == Result<HvsockParameters>(parameters));
}

TEST(HvsockParameters, KeepTheTwoMarksApart) {
  const UserDefined encoded = EncodeHvsockParameters({.is_for_container = true});
  EXPECT_EQ(encoded[4], std::byte{0});
  EXPECT_EQ(encoded[5], std::byte{1});
  EXPECT_TRUE(ParseHvsockParameters(encoded)->is_for_container);
}

TEST(HvsockParameters, AreOfAByteStream) {
  UserDefined user_defined{};
  user_defined[0] = std::byte{4};
  EXPECT_EQ(ParseHvsockParameters(user_defined).error(), Error::kFieldOutOfRange);
}

}  // namespace
}  // namespace kmcl::wire
