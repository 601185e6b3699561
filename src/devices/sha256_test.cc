#include "devices/sha256.h"

#include <gtest/gtest.h>

#include <string_view>

namespace kmcl::devices {
namespace {

std::string DigestOf(std::initializer_list<std::string_view> pieces) {
  Sha256 hash;
  for (const std::string_view piece : pieces) {
    hash.Update(std::as_bytes(std::span(piece)));
  }
  return HexDigits(hash.Finish());
}

// The values are the test vectors of FIPS 180-4.
TEST(Sha256, GivesTheKnownDigests) {
  EXPECT_EQ(DigestOf({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(DigestOf({"abc"}), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, DoesNotDependOnWhereThePiecesEnd) {
  EXPECT_EQ(DigestOf({"a", "", "bc"}), DigestOf({"abc"}));
  EXPECT_NE(DigestOf({"a", "b"}), DigestOf({"abc"}));
}

}  // namespace
}  // namespace kmcl::devices
