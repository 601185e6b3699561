#include "transport/address.h"

#include <gtest/gtest.h>

#include "transport/link.h"

namespace kmcl::transport {
namespace {

TEST(AddressTest, BothSchemesAreRead) {
  const Result<Address> local = ParseAddress("local:echo");
  ASSERT_TRUE(local.has_value());
  EXPECT_EQ(local->kind, Address::Kind::kLocal);
  EXPECT_EQ(local->name, "echo");

  const Result<Address> socket = ParseAddress("unix:relative/a:b.sock");
  ASSERT_TRUE(socket.has_value());
  EXPECT_EQ(socket->kind, Address::Kind::kUnix);
  EXPECT_EQ(socket->name, "relative/a:b.sock");
}

TEST(AddressTest, EverythingElseIsMalformed) {
  using std::string_view_literals::operator""sv;
  for (const std::string_view address : {""sv, ":"sv, "unix"sv, "unix:"sv, "local:"sv, "tcp:host"sv,
                                         "UNIX:/x"sv, " unix:/x"sv, "unix:/a\0b"sv, "/run/bus"sv}) {
    const Result<Address> parsed = ParseAddress(address);
    ASSERT_FALSE(parsed.has_value()) << address;
    EXPECT_EQ(parsed.error(), Error::kAddressMalformed) << address;
  }
}

TEST(AddressTest, APathHoldsAtMost107Bytes) {
  EXPECT_TRUE(UnixAddress(std::string(107, 'p')).has_value());
  EXPECT_EQ(UnixAddress(std::string(108, 'p')).error(), Error::kAddressMalformed);
}

TEST(AddressTest, ListenAndDialRefuseWhatIsMalformed) {
  EXPECT_EQ(Listen("tcp:host").error(), Error::kAddressMalformed);
  EXPECT_EQ(Dial("tcp:host", {}).error(), Error::kAddressMalformed);
  EXPECT_EQ(Listen("unix:/tmp/").error(), Error::kAddressMalformed);
}

TEST(AddressTest, DialRefusesBellCountsOutOfRange) {
  for (const std::uint32_t count : {0U, 17U}) {
    EXPECT_EQ(Dial("local:nobody", {.bell_count = count}).error(), Error::kFieldOutOfRange);
  }
}

TEST(AddressTest, DialFindsNobody) {
  EXPECT_EQ(Dial("local:nobody", {}).error(), Error::kAddressUnreachable);
  EXPECT_EQ(Dial("unix:/nowhere/at/all", {}).error(), Error::kAddressUnreachable);
}

}  // namespace
}  // namespace kmcl::transport
