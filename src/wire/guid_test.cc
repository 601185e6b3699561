#include "wire/guid.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <unordered_set>

#include "wire/class_guids.h"
#include "wire/test_bytes.h"

namespace kmcl::wire {
namespace {

constexpr std::string_view kNetworkText = "f8615163-df3e-46c5-913f-f2d2f965ed0e";

TEST(Guid, LiesInMemoryAsTheReferenceSays) {
  const auto expected =
      TestBytes(16).Hex(0, "63 51 61 F8 3E DF C5 46 91 3F F2 D2 F9 65 ED 0E").vector();
  const auto guid = ParseGuid(kNetworkText);
  ASSERT_TRUE(guid);
  EXPECT_EQ(std::memcmp(&*guid, expected.data(), 16), 0);
}

TEST(Guid, IsTheSameFromEveryAcceptedText) {
  const auto guid = ParseGuid(kNetworkText);
  EXPECT_EQ(ParseGuid("{f8615163-df3e-46c5-913f-f2d2f965ed0e}"), guid);
  EXPECT_EQ(ParseGuid("F8615163-DF3E-46C5-913F-F2D2F965ED0E"), guid);
  EXPECT_EQ(ToString(*guid), kNetworkText);
}

TEST(Guid, KeepsLeadingZerosInItsText) {
  constexpr std::string_view text = "00000001-0002-0003-0004-000000000005";
  EXPECT_EQ(ToString(ParseGuid(text).value()), text);
}

TEST(Guid, RefusesEveryOtherText) {
  for (const std::string_view text :
       {"", "{}", "f8615163", "f8615163-df3e-46c5-913f-f2d2f965ed0",
        " f8615163-df3e-46c5-913f-f2d2f965ed0", "f8615163-df3e-46c5-913f-f2d2f965ed0e ",
        "{f8615163-df3e-46c5-913f-f2d2f965ed0e", "f8615163-df3e-46c5-913f-f2d2f965ed0e}",
        "(f8615163-df3e-46c5-913f-f2d2f965ed0e)", "f8615163_df3e_46c5_913f_f2d2f965ed0e",
        "f8615163df3e-46c5-913f-f2d2f965ed0e-", "g8615163-df3e-46c5-913f-f2d2f965ed0e",
        "f8615163-df3e-46c5-913ff-2d2f965ed0e", "{{8615163-df3e-46c5-913f-f2d2f965ed0}}"}) {
    EXPECT_EQ(ParseGuid(text), std::nullopt) << text;
  }
}

TEST(Guid, IsOrderedAsItsText) {
  const std::array texts = {
      "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0100-000000000000",
      "00000000-0000-0001-0000-000000000000", "00000000-0001-0000-0000-000000000000",
      "00000001-0000-0000-0000-000000000000", "01000000-0000-0000-0000-000000000000"};
  for (std::size_t i = 0; i + 1 < texts.size(); ++i) {
    EXPECT_LT(ParseGuid(texts[i]).value(), ParseGuid(texts[i + 1]).value());
  }
}

TEST(Guid, CanBeAKeyInAHashTable) {
  std::unordered_set<Guid> seen;
  std::set<std::size_t> hashes;
  for (std::uint32_t port = 0; port < 1000; ++port) {
    seen.insert(HvsockServiceGuid(port));
    hashes.insert(std::hash<Guid>{}(HvsockServiceGuid(port)));
  }
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_GT(hashes.size(), 990u);
  EXPECT_TRUE(seen.contains(HvsockServiceGuid(7)));
}

TEST(ClassGuids, HaveNamesAndAreAllDifferent) {
  std::set<Guid> ids;
  std::set<std::string> names;
  for (const ClassGuid& known : kClassGuids) {
    ids.insert(known.id);
    names.insert(known.name);
    EXPECT_STREQ(NameOf(known.id), known.name);
  }
  EXPECT_EQ(ids.size(), 20u);
  EXPECT_EQ(names.size(), 20u);
  EXPECT_EQ(NameOf(Guid{}), nullptr);
}

TEST(ClassGuids, MapHvsockPortsBothWays) {
  const Guid service = HvsockServiceGuid(0x1234ABCD);
  EXPECT_EQ(ToString(service), "1234abcd-facb-11e6-bd58-64006a7986d3");
  EXPECT_EQ(HvsockPort(service), 0x1234ABCDu);
  EXPECT_STREQ(NameOf(service), "hvsock service");
  Guid other = service;
  other.data4[7] ^= 1;
  EXPECT_EQ(HvsockPort(other), std::nullopt);
}

}  // namespace
}  // namespace kmcl::wire
