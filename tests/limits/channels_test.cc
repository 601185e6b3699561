// As many channels as one client can be offered.
#include <gtest/gtest.h>
#include <stdio.h>

#include <memory>
#include <vector>

#include "ends.h"
#include "peer.h"

namespace kmcl::limits {
namespace {

// Channel ids have 11 bits in Hyper-V's interrupt pages, and 0 is no channel (VMBus reference 2).
constexpr std::uint32_t kMostChannels = 2047;

int OpenThemAll(const char* address, const Line& line) {
  if (!line.Hear<char>()) return 10;  // the server is there
  KMCL_CLIENT client = nullptr;
  if (KmclClientConnect(address, nullptr, &client) != STATUS_SUCCESS) return 11;
  ULONG offer_count = 0;
  if (KmclClientQueryOffers(client, nullptr, 0, &offer_count) != STATUS_BUFFER_TOO_SMALL ||
      offer_count != kMostChannels) {
    return 12;
  }
  Count started;
  std::vector<std::unique_ptr<EchoChannel>> channels;
  for (std::uint32_t number = 0; number < kMostChannels; ++number) {
    channels.push_back(
        std::make_unique<EchoChannel>(client, number, false, ChannelOptions{}, started));
    if (channels.back()->status() != STATUS_SUCCESS) return 13;
  }
  if (!started.WaitFor(kMostChannels)) return 14;
  // All of them are open now; each carries a packet, and its completion.
  for (const auto& channel : channels) {
    if (channel->Ask(48) != STATUS_SUCCESS) return 15;
  }
  for (const auto& channel : channels) {
    KMCL_CHANNEL_COUNTERS counters{};
    counters.Size = sizeof counters;
    if (KmclChannelQueryCounters(channel->handle(), &counters) != STATUS_SUCCESS) return 16;
    if (counters.PacketsSent != 1 || counters.TransactionsCompleted != 1) return 17;
  }
  channels.clear();
  KmclClientDestroy(client);
  return 0;
}

TEST(Channels, AClientOpensAllThatAServerCanOfferAndNoMoreCanBeOffered) {
  const Address address;
  Peer client([&](const Line& line) { return OpenThemAll(address.text(), line); });
  EchoServer server(address.text(), DefaultOptions(), kMostChannels, {});
  ASSERT_EQ(server.status(), STATUS_SUCCESS);
  client.line().Say('s');
  ASSERT_TRUE(server.arrived().WaitFor(1));
  EXPECT_STREQ(KmclStatusName(server.offer_status()), "STATUS_SUCCESS");
  EXPECT_EQ(server.offer_count(), kMostChannels);
  EXPECT_STREQ(KmclStatusName(server.Offer()), "STATUS_INSUFFICIENT_RESOURCES");

  EXPECT_EQ(client.Wait(), 0) << "see OpenThemAll for the step that failed";
  EXPECT_TRUE(server.gone().WaitFor(1));
  EXPECT_EQ(server.opened().value(), kMostChannels);
  EXPECT_EQ(server.packets().value(), kMostChannels);
  EXPECT_TRUE(server.closed().WaitFor(kMostChannels));
  for (std::uint32_t number = 0; number < kMostChannels; ++number) {
    KMCL_CHANNEL_COUNTERS counters{};
    counters.Size = sizeof counters;
    ASSERT_EQ(KmclChannelQueryCounters(server.channel(number), &counters), STATUS_SUCCESS);
    ASSERT_EQ(counters.PacketsReceived, 1u) << "channel " << number;
    ASSERT_EQ(counters.CompletionsSent, 1u) << "channel " << number;
  }
}

}  // namespace
}  // namespace kmcl::limits
