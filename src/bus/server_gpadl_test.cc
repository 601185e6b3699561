// GPADLs at the server: piece by piece, hostile, and against the limits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

class ServerGpadl : public ::testing::Test {
 protected:
  explicit ServerGpadl(const ServerLimits& limits = {}) : h(limits) {
    h.Connect();
    h.Offer(Device(1));
    h.Offer(Device(2));
  }
  ServerHarness h;
};

wire::GpadlHeader Header(std::uint16_t range_count, std::uint16_t list_bytes,
                         std::initializer_list<std::uint64_t> words) {
  wire::GpadlHeader header;
  header.channel_id = kChannel;
  header.gpadl_id = kRing;
  header.range_count = range_count;
  header.range_list_bytes = list_bytes;
  header.range_bytes_size = static_cast<std::uint16_t>(words.size() * 8);
  std::ranges::copy(std::as_bytes(std::span(words.begin(), words.size())),
                    header.range_bytes.begin());
  return header;
}

constexpr std::uint64_t Range(std::uint32_t byte_count, std::uint32_t byte_offset) {
  return std::uint64_t{byte_offset} << 32 | byte_count;
}

TEST_F(ServerGpadl, ArrivesWholeAtEverySize) {
  // Around what one header, and header and bodies, can carry; and the most there can be.
  for (const std::uint32_t pages : {1u, 2u, 25u, 26u, 27u, 53u, 54u, 55u, 82u, 83u, 1000u, 8189u,
                                    8190u, 8191u, 8192u, 20000u}) {
    const wire::GpadlId id{pages};
    const auto messages = wire::FragmentGpadl(kChannel, id, Pages(pages)).value();
    const std::size_t expected_bodies = pages <= 26 ? 0 : (pages - 26 + 27) / 28;
    ASSERT_EQ(messages.bodies.size(), expected_bodies) << pages;
    const ServerActions actions = h.TellGpadl(kChannel, id, pages);
    ASSERT_EQ(Describe(actions), "[gpadl]") << pages;
    const auto complete = First<server::GpadlComplete>(actions);
    EXPECT_EQ(complete.gpadl, id);
    EXPECT_EQ(complete.ranges, Pages(pages));
    h.server.CheckInvariants();
  }
}

TEST_F(ServerGpadl, DescribesTwoGibibytesAsWell) {
  constexpr std::uint32_t kPages = 524'288;
  const ServerActions actions = h.TellGpadl(kChannel, kRing, kPages);
  ASSERT_EQ(Describe(actions), "[gpadl]");
  EXPECT_EQ(First<server::GpadlComplete>(actions).ranges, Pages(kPages));
  EXPECT_EQ(ServerTestPeer::gpadl_pages(h.server), kPages);
  h.server.CheckInvariants();
}

TEST_F(ServerGpadl, IsRefusedIfItsTrueLengthIsBeyondTheLimit) {
  // What the header says would fit; what its range says would not.
  ServerHarness small({.gpadl_pages = 10'000});
  small.Connect();
  small.Offer(Device(1));
  EXPECT_EQ(Describe(small.Tell(Header(1, 32768, {Range(12287 * 4096, 0), 1}))),
            "GpadlCreated fail; refused LimitExceeded");
  EXPECT_EQ(ServerTestPeer::gpadl_pages(small.server), 0u);
  EXPECT_EQ(Describe(small.TellGpadl(kChannel, kRing, 9'000)), "[gpadl]");
}

TEST_F(ServerGpadl, MayInterleaveItsBodiesWithOthers) {
  const auto first = wire::FragmentGpadl(kChannel, wire::GpadlId{10}, Pages(100)).value();
  const auto second = wire::FragmentGpadl(wire::ChannelId{2}, wire::GpadlId{11}, Pages(90)).value();
  h.Tell(first.header);
  h.Tell(second.header);
  ASSERT_EQ(first.bodies.size(), second.bodies.size());
  for (std::size_t i = 0; i < first.bodies.size(); ++i) {
    const bool is_last = i + 1 == first.bodies.size();
    const ServerActions one = h.Tell(second.bodies[i]);
    const ServerActions other = h.Tell(first.bodies[i]);
    ASSERT_EQ(Describe(one), is_last ? "[gpadl]" : "");
    ASSERT_EQ(Describe(other), is_last ? "[gpadl]" : "");
    if (!is_last) continue;
    EXPECT_EQ(First<server::GpadlComplete>(one).channel, wire::ChannelId{2});
    EXPECT_EQ(First<server::GpadlComplete>(one).ranges, Pages(90));
    EXPECT_EQ(First<server::GpadlComplete>(other).channel, kChannel);
    EXPECT_EQ(First<server::GpadlComplete>(other).ranges, Pages(100));
  }
}

TEST_F(ServerGpadl, IgnoresBytesBeyondItsEnd) {
  auto messages = wire::FragmentGpadl(kChannel, kRing, Pages(30)).value();
  ASSERT_EQ(messages.bodies.size(), 1u);
  messages.bodies[0].range_bytes_size = wire::kGpadlBodyRangeBytes;
  h.Tell(messages.header);
  const ServerActions actions = h.Tell(messages.bodies[0]);
  EXPECT_EQ(First<server::GpadlComplete>(actions).ranges, Pages(30));
}

TEST_F(ServerGpadl, MayShareItsIdWithACompleteOneOfAnotherChannel) {
  h.Share(kChannel, kRing);
  h.Share(wire::ChannelId{2}, kRing);
  EXPECT_EQ(Describe(h.Tell(wire::GpadlTeardown{wire::ChannelId{2}, kRing})), "[release gpadl]");
  EXPECT_EQ(GpadlStateName(h.server, kChannel, kRing), "Accepted");
}

TEST_F(ServerGpadl, MayNotShareTheIdOfAnIncompleteOne) {
  const auto messages = wire::FragmentGpadl(kChannel, kRing, Pages(40)).value();
  h.Tell(messages.header);
  EXPECT_EQ(Describe(h.TellGpadl(wire::ChannelId{2}, kRing)),
            "GpadlCreated fail; refused GpadlDuplicate");
  EXPECT_EQ(Describe(h.Tell(messages.bodies[0])), "[gpadl]");
}

TEST_F(ServerGpadl, IsRefusedIfItsListMakesNoSense) {
  const wire::GpadlHeader hostile[] = {
      Header(0, 16, {Range(4096, 0), 1}),               // no range
      Header(0, 0, {}),                                 // nothing
      Header(1, 0, {Range(4096, 0), 1}),                // no bytes
      Header(1, 8, {Range(4096, 0)}),                   // a range without pages
      Header(2, 24, {Range(4096, 0), 1, Range(1, 0)}),  // so has the second one
      Header(1, 12, {Range(4096, 0), 1}),               // not words
      Header(1, 16, {Range(0, 0), 1}),                  // an empty range
      Header(1, 16, {Range(4096, 1), 1}),               // two pages needed
      Header(1, 16, {Range(1, 4096), 1}),               // an offset beyond the page
      Header(1, 16, {Range(0xFFFFFFFF, 0xFFF), 1}),     // an end beyond 32 bits
      Header(0xFFFF, 0xFFF8, {Range(4096, 0), 1}),      // more ranges than words
      Header(2, 0, {Range(8191 * 4096, 0), 1}),         // only one range may be so long
  };
  for (const wire::GpadlHeader& header : hostile) {
    EXPECT_EQ(Describe(h.Tell(header)), "GpadlCreated fail; refused GpaRangeMalformed");
    EXPECT_EQ(GpadlStateName(h.server, kChannel, kRing), "none");
    h.server.CheckInvariants();
  }
  EXPECT_EQ(ServerTestPeer::gpadl_pages(h.server), 0u);
  EXPECT_EQ(ServerTestPeer::gpadl_count(h.server), 0u);
}

TEST_F(ServerGpadl, IsForgottenIfItsLastBodySpoilsIt) {
  // Two ranges; the second one, in the body, is empty.
  std::vector<std::uint64_t> words{Range(26 * 4096, 0)};
  wire::GpadlHeader header = Header(2, (27 + 2) * 8, {});
  for (std::uint64_t page = 0; page < 26; ++page) words.push_back(page);
  std::memcpy(header.range_bytes.data(), words.data(), words.size() * 8);
  header.range_bytes_size = static_cast<std::uint16_t>(words.size() * 8);
  ASSERT_EQ(Describe(h.Tell(header)), "");
  wire::GpadlBody body;
  body.gpadl_id = kRing;
  body.range_bytes_size = 16;
  EXPECT_EQ(Describe(h.Tell(body)), "GpadlCreated fail; refused GpaRangeMalformed");
  EXPECT_EQ(GpadlStateName(h.server, kChannel, kRing), "none");
  EXPECT_EQ(ServerTestPeer::incomplete(h.server), 0u);
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, kRing)), "[gpadl]");
}

TEST_F(ServerGpadl, HasAnId) {
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{0})),
            "GpadlCreated fail; refused FieldOutOfRange");
}

TEST_F(ServerGpadl, TakesAnEmptyBodyForNothing) {
  const auto messages = wire::FragmentGpadl(kChannel, kRing, Pages(40)).value();
  h.Tell(messages.header);
  wire::GpadlBody empty;
  empty.gpadl_id = kRing;
  EXPECT_EQ(Describe(h.Tell(empty)), "");
  EXPECT_EQ(Describe(h.Tell(messages.bodies[0])), "[gpadl]");
}

TEST_F(ServerGpadl, RefusedForItsSizeDoesNotBreakTheConnectionWithItsBodies) {
  ServerHarness small({.gpadl_pages = 8000});
  small.Connect();
  small.Offer(Device(1));
  for (int attempt = 0; attempt < 100; ++attempt) {
    const ServerActions actions = small.TellGpadl(kChannel, kRing, 8190);
    ASSERT_EQ(actions.size(), 2u + 292u);
    ASSERT_FALSE(small.server.broken());
  }
}

// ---- Limits

TEST(ServerLimits, OfGpadlsPerChannelHoldsAndIsGivenBack) {
  ServerHarness h({.gpadls_per_channel = 2});
  h.Connect();
  h.Offer(Device(1));
  h.Share(kChannel, wire::GpadlId{1});
  h.Share(kChannel, wire::GpadlId{2});
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{3})),
            "GpadlCreated fail; refused LimitExceeded");
  h.Tell(wire::GpadlTeardown{kChannel, wire::GpadlId{1}});
  EXPECT_EQ(Describe(h.server.OnGpadlReleased(kChannel, wire::GpadlId{1})), "GpadlTorndown");
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{3})), "[gpadl]");
}

TEST(ServerLimits, OfGpadlsOfAllChannelsHolds) {
  ServerHarness h({.gpadls = 1});
  h.Connect();
  h.Offer(Device(1));
  h.Offer(Device(2));
  h.Share(kChannel);
  EXPECT_EQ(Describe(h.TellGpadl(wire::ChannelId{2}, wire::GpadlId{3})),
            "GpadlCreated fail; refused LimitExceeded");
}

TEST(ServerLimits, OfPagesCountsIncompleteOnesToo) {
  ServerHarness h({.gpadl_pages = 50});
  h.Connect();
  h.Offer(Device(1));
  h.Tell(wire::FragmentGpadl(kChannel, kRing, Pages(40)).value().header);
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{2}, 11)),
            "GpadlCreated fail; refused LimitExceeded");
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{2}, 10)), "[gpadl]");
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{3}, 1)),
            "GpadlCreated fail; refused LimitExceeded");
  EXPECT_EQ(Describe(h.server.OnGpadlResult(kChannel, wire::GpadlId{2}, wire::kStatusFailure)),
            "GpadlCreated fail");
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{3}, 10)), "[gpadl]");
}

TEST(ServerLimits, OfIncompleteGpadlsLeavesTheOthersAlone) {
  ServerHarness h({.incomplete_gpadls = 2});
  h.Connect();
  h.Offer(Device(1));
  const auto header = [](std::uint32_t id) {
    return wire::FragmentGpadl(kChannel, wire::GpadlId{id}, Pages(40)).value().header;
  };
  EXPECT_EQ(Describe(h.Tell(header(1))), "");
  EXPECT_EQ(Describe(h.Tell(header(2))), "");
  EXPECT_EQ(Describe(h.Tell(header(3))), "GpadlCreated fail; refused LimitExceeded");
  // One that fits its header is never incomplete.
  EXPECT_EQ(Describe(h.TellGpadl(kChannel, wire::GpadlId{4}, 26)), "[gpadl]");
}

TEST(ServerLimits, OfRefusalsEndsTheConnectionOnce) {
  ServerHarness h;
  h.Connect();
  for (std::uint32_t i = 0; i < kMaximumRefusals; ++i) {
    ASSERT_EQ(Describe(h.server.OnMessage({})), "refused MessageTooShort");
  }
  EXPECT_EQ(Describe(h.server.OnMessage({})), "refused MessageTooShort; broken LimitExceeded");
  EXPECT_TRUE(h.server.broken());
  EXPECT_EQ(Describe(h.Contact(wire::Version::kIron)), "");
  EXPECT_EQ(Describe(h.server.OnPeerGone()), "[finished]");
}

TEST(ServerLimits, OfRefusalsMayBeNone) {
  ServerHarness h({.refusals = std::nullopt});
  h.Connect();
  for (std::uint32_t i = 0; i < 2 * kMaximumRefusals; ++i) h.server.OnMessage({});
  EXPECT_EQ(Describe(h.server.OnMessage({})), "refused MessageTooShort");
  EXPECT_FALSE(h.server.broken());
}

TEST(ServerLimits, OfRefusalsIsNotForgottenByAReconnect) {
  ServerHarness h;
  for (std::uint32_t i = 0; i < kMaximumRefusals; ++i) {
    h.server.OnMessage({});
    if (i % 1000 == 0) h.Connect(wire::Version::kIron), h.Tell(wire::Unload{});
  }
  EXPECT_EQ(Describe(h.server.OnMessage({})), "refused MessageTooShort; broken LimitExceeded");
}

}  // namespace
}  // namespace kmcl::bus
