#include "channel/save_format.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kmcl::channel::saved {
namespace {

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(SaveFormat, ChecksumIsCrc32c) {
  EXPECT_EQ(Crc32c(0, Bytes("123456789")), 0xE306'9283u);  // the check value of the polynomial
  EXPECT_EQ(Crc32c(Crc32c(0, Bytes("1234")), Bytes("56789")), 0xE306'9283u);
}

TEST(SaveFormat, AChunkIsItsHeaderAndItsPayload) {
  const std::string payload = "abc";
  const auto bytes = Encode(ChunkType::kQueued, 7, 0x1122'3344'5566'7788, Bytes(payload));
  ASSERT_EQ(bytes.size(), kHeaderBytes + 3);
  const std::uint8_t expected[24] = {'K', 'M', 'C', 'S', 1,    0,    3,    0,    3,    0,    0,    0,
                                     7,   0,   0,   0,   0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
  for (std::size_t i = 0; i < sizeof expected; ++i) {
    EXPECT_EQ(static_cast<std::uint8_t>(bytes[i]), expected[i]) << i;
  }
  const auto chunks = ParseChunks(bytes);
  ASSERT_TRUE(chunks);
  ASSERT_EQ(chunks->size(), 1u);
  EXPECT_EQ(chunks->front().type, ChunkType::kQueued);
  EXPECT_EQ(chunks->front().sequence, 7u);
  EXPECT_EQ(chunks->front().save, 0x1122'3344'5566'7788u);
  EXPECT_EQ(chunks->front().payload.size(), 3u);
}

TEST(SaveFormat, EveryTruncationAndEveryFlippedBitIsRefused) {
  auto bytes = Encode(ChunkType::kInFlight, 1, 42, Bytes("the payload"));
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(ParseChunks(std::span(bytes).first(length)).error(), Error::kSaveMalformed) << length;
  }
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << bit % 8;
    const auto parsed = ParseChunks(bytes);
    ASSERT_FALSE(parsed) << bit;
    const bool in_version = bit / 8 == 4 || bit / 8 == 5;
    EXPECT_EQ(parsed.error(), in_version ? Error::kSaveVersion : Error::kSaveMalformed) << bit;
    bytes[bit / 8] ^= std::byte{1} << bit % 8;
  }
  EXPECT_TRUE(ParseChunks(bytes));
}

TEST(SaveFormat, UnknownChunksAreRefused) {
  for (const unsigned type : {0u, 7u, 0xFFFFu}) {
    const auto bytes = Encode(static_cast<ChunkType>(type), 0, 0, {});
    EXPECT_EQ(ParseChunks(bytes).error(), Error::kSaveMalformed) << type;
  }
}

TEST(SaveFormat, APacketThatCannotBeIsRefused) {
  const std::string data = "data";
  // In flight without an id, without a completion, with data; queued with an id.
  for (const PacketState& state :
       {PacketState{.in_flight = true, .wants_completion = true, .transaction = 0, .data = {}},
        PacketState{.in_flight = true, .wants_completion = false, .transaction = 3, .data = {}},
        PacketState{.in_flight = true, .wants_completion = true, .transaction = 3, .data = Bytes(data)},
        PacketState{.in_flight = false, .wants_completion = true, .transaction = 3, .data = {}}}) {
    EXPECT_EQ(ParsePacketState(Encode(state)).error(), Error::kSaveMalformed);
  }
  const PacketState good{
      .in_flight = false, .wants_completion = true, .transaction = 0, .data = Bytes(data)};
  const auto bytes = Encode(good);
  const auto parsed = ParsePacketState(bytes);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->data.size(), data.size());
}

TEST(SaveFormat, PayloadsAreReadToTheirLastByte) {
  auto longer = Encode(Begin{.name = {}, .maximum_packet_bytes = 9});
  ASSERT_TRUE(ParseBegin(longer));
  longer.push_back(std::byte{0});
  EXPECT_EQ(ParseBegin(longer).error(), Error::kSaveMalformed);
  const auto completion = Encode(CompletionItem{.transaction = 1, .data = Bytes("xyz")});
  for (std::size_t length = 0; length < completion.size(); ++length) {
    EXPECT_FALSE(ParseCompletion(std::span(completion).first(length))) << length;
  }
  const auto deferred = Encode(DeferredItem{.transaction = 1, .payload = Bytes("xyz")});
  for (std::size_t length = 0; length < deferred.size(); ++length) {
    EXPECT_FALSE(ParseDeferred(std::span(deferred).first(length))) << length;
  }
}

}  // namespace
}  // namespace kmcl::channel::saved
