#include "bus/server_snapshot.h"

#include <gtest/gtest.h>

#include "bus/test_support.h"

namespace kmcl::bus {
namespace {

void ExpectSame(const Server& server) {
  const auto bytes = ServerSnapshot::Save(server);
  const auto restored = ServerSnapshot::Restore(bytes, {});
  ASSERT_TRUE(restored) << ErrorName(restored.error());
  EXPECT_TRUE(*restored == server);
  EXPECT_EQ(ServerSnapshot::Save(*restored), bytes);
}

// Channels and GPADLs in many states at once.
void Fill(ServerHarness& h) {
  for (std::uint32_t device = 1; device <= 6; ++device) h.Offer(Device(device));
  h.Connect(wire::Version::kCopper, wire::Feature::kPauseResume);
  h.Open(wire::ChannelId{1});
  h.Share(wire::ChannelId{1}, wire::GpadlId{20});
  h.Share(wire::ChannelId{2}, wire::GpadlId{21});
  h.TellOpen(wire::ChannelId{2}, wire::GpadlId{21});           // opening
  h.TellGpadl(wire::ChannelId{3}, wire::GpadlId{22});          // offered
  h.Share(wire::ChannelId{4}, wire::GpadlId{23});
  h.Revoke(wire::ChannelId{4});                                // revoked, with an orphan
  h.Tell(wire::RelIdReleased{wire::ChannelId{5}});             // released
  const auto list = wire::FragmentGpadl(wire::ChannelId{6}, wire::GpadlId{24}, Pages(100));
  h.Tell(list->header);                                        // incomplete
}

TEST(ServerSnapshot, KeepsEveryState) {
  ServerHarness h;
  ExpectSame(h.server);
  Fill(h);
  ExpectSame(h.server);
  h.Tell(wire::ModifyChannel{wire::ChannelId{1}, wire::ProcessorIndex{0}});
  ExpectSame(h.server);
  h.Tell(wire::CloseChannel{wire::ChannelId{1}});
  ExpectSame(h.server);
  h.TellOpen(wire::ChannelId{1});
  ExpectSame(h.server);
  h.Tell(wire::Pause{});
  h.Offer(Device(9));
  ExpectSame(h.server);
  h.Tell(wire::InitiateContact{.version = wire::Version::kIron});
  ExpectSame(h.server);
  h.server.OnPeerGone();
  ExpectSame(h.server);
}

TEST(ServerSnapshot, ARestoredMachineGoesOn) {
  ServerHarness h;
  Fill(h);
  h.server = *ServerSnapshot::Restore(ServerSnapshot::Save(h.server), {});
  EXPECT_EQ(Describe(h.server.OnOpenResult(wire::ChannelId{2}, wire::kStatusSuccess)),
            "OpenChannelResult ok");
  EXPECT_EQ(Describe(h.Tell(wire::CloseChannel{wire::ChannelId{1}})), "[close]");
}

TEST(ServerSnapshot, DamageIsRefusedOrHarmless) {
  ServerHarness h;
  Fill(h);
  auto bytes = ServerSnapshot::Save(h.server);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(ServerSnapshot::Restore(std::span(bytes).first(length), {})) << length;
  }
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (const unsigned flip : {0x01u, 0x80u, 0xFFu}) {
      bytes[at] ^= static_cast<std::byte>(flip);
      // What no check can tell from a good one is a machine that keeps its own rules.
      if (auto restored = ServerSnapshot::Restore(bytes, {})) {
        restored->CheckInvariants();
        restored->OnPeerGone();
      }
      bytes[at] ^= static_cast<std::byte>(flip);
    }
  }
  bytes[0] ^= std::byte{2};
  EXPECT_EQ(ServerSnapshot::Restore(bytes, {}).error(), Error::kSaveVersion);
}

TEST(ServerSnapshot, LimitsBindWhatIsRestored) {
  ServerHarness h;
  Fill(h);
  ServerLimits limits;
  limits.gpadl_pages = 10;
  EXPECT_EQ(ServerSnapshot::Restore(ServerSnapshot::Save(h.server), limits).error(),
            Error::kSaveMalformed);
}

}  // namespace
}  // namespace kmcl::bus
