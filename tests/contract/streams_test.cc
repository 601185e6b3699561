// Many channels, several dispatch threads, threads that poll, and old protocol versions: what
// carries one packet must carry them all.
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

struct Ends {
  const char* name;
  const char* options;
};

class Streams : public BusFixture, public testing::WithParamInterface<std::tuple<Placement, Ends>> {
 protected:
  Placement placement() const override { return std::get<0>(GetParam()); }
  std::string endpoint_options() const override { return std::get<1>(GetParam()).options; }
};

std::string NameOfStream(const testing::TestParamInfo<std::tuple<Placement, Ends>>& info) {
  return PlacementName(std::get<0>(info.param)) + "_" + std::get<1>(info.param).name;
}

INSTANTIATE_TEST_SUITE_P(Contract, Streams,
                         testing::Combine(AllPlacements(),
                                          testing::Values(Ends{"OneThread", "threads 1"},
                                                          Ends{"FourThreads", "threads 4"},
                                                          Ends{"ShortSpin", "threads 2 spin 50"},
                                                          Ends{"Version0_13", "version 13"},
                                                          Ends{"Version1_1", "version 65537"},
                                                          Ends{"Version2_4", "version 131076"},
                                                          Ends{"Version4_0", "version 262144"},
                                                          Ends{"Version5_3", "version 327683"})),
                         NameOfStream);

TEST_P(Streams, EightChannelsCarryTransactionsBothWays) {
  std::vector<Channel> servers;
  std::vector<Channel> clients;
  constexpr UINT32 kChannels = 8;
  for (UINT32 i = 1; i <= kChannels; ++i) {
    servers.push_back(AddServer({.instance = std::to_string(i)}));
    clients.push_back(AddClient({.instance = std::to_string(i)}));
    ASSERT_NO_FATAL_FAILURE(Open(servers.back(), clients.back()));
  }
  constexpr UINT32 kPackets = 40;
  for (UINT32 number = 1; number <= kPackets; ++number) {
    for (UINT32 i = 0; i < kChannels; ++i) {
      ASSERT_EQ(clients[i].Send(number, 600 + number, kWait), STATUS_SUCCESS);
      ASSERT_EQ(servers[i].Send(number, 30 + i, number % 2), STATUS_SUCCESS);
    }
  }
  std::vector<std::string> packets;
  for (UINT32 number = 1; number <= kPackets; ++number) {
    packets.push_back("packet " + std::to_string(number));
  }
  for (UINT32 i = 0; i < kChannels; ++i) {
    for (UINT32 number = 1; number <= kPackets; ++number) {
      const std::string done = "done " + std::to_string(number) + " STATUS_SUCCESS";
      ASSERT_TRUE(clients[i].Wait(done));
      ASSERT_TRUE(servers[i].Wait(done));
    }
    ASSERT_TRUE(clients[i].Wait(packets.back()));
    EXPECT_EQ(clients[i].Names({"packet"}), packets);
    EXPECT_EQ(servers[i].Names({"packet"}), packets);
  }
}

TEST_P(Streams, ChannelsComeAndGoWhileOthersWork) {
  const Channel server = AddServer({.instance = "100"});
  const Channel client = AddClient({.instance = "100"});
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  for (UINT32 round = 1; round <= 10; ++round) {
    const Channel passing_server = AddServer({.instance = std::to_string(round)});
    const Channel passing_client = AddClient({.instance = std::to_string(round)});
    ASSERT_NO_FATAL_FAILURE(Open(passing_server, passing_client));
    ASSERT_NO_FATAL_FAILURE(client.SendMany(round * 100, 20, 100, kWait));
    ASSERT_NO_FATAL_FAILURE(Mark(passing_client, passing_server));
    if (round % 2 == 0) {
      passing_client.Disable();
      passing_server.Disable();
    } else {
      passing_server.Disable();
      ASSERT_TRUE(passing_client.Wait("Closed"));
    }
    passing_client.Cleanup();
    passing_server.Cleanup();
    ASSERT_TRUE(client.Wait("done " + std::to_string(round * 100 + 19) + " STATUS_SUCCESS"));
  }
}

TEST_P(Streams, ABlockedDeliveryDoesNotLoseAnotherChannelsPackets) {
  const Channel server = AddServer({.instance = "1"});
  const Channel client = AddClient({.instance = "1"});
  const Channel other_server = AddServer({.instance = "2"});
  const Channel other_client = AddClient({.instance = "2"});
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_NO_FATAL_FAILURE(Open(other_server, other_client));
  server.Gate("packet 1");
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  ASSERT_NO_FATAL_FAILURE(other_client.SendMany(1, 50));
  server.Release("packet 1");
  ASSERT_TRUE(other_server.Wait("packet 50"));
}

}  // namespace

}  // namespace kmcl::contract
