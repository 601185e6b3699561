// Interrupt latency by monitor pages (KMCL reference 10.1, row 25; VMBus reference 3.8).
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

class Latency : public BusTest {
 protected:
  // Sets a client's latency and says the status and the one before.
  static std::string Set(const Channel& client, int latency) {
    return client.Do("get", "latency " + std::to_string(latency));
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, Latency, AllPlacements(), NameOfPlacement);

TEST_P(Latency, TheServerIsNotRungWhileThereIsOne) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  Open(server, client);
  ASSERT_EQ(Set(client, 20'000), "0 0");  // 2 ms
  Mark(client, server);
  const UINT64 before = server.Counters().BellsReceived;
  for (int i = 0; i < 20; ++i) Mark(client, server);
  // The bell that told of the latency may have come late.
  EXPECT_LE(server.Counters().BellsReceived, before + 1);
}

TEST_P(Latency, OfZeroRingsAgain) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  Open(server, client);
  ASSERT_EQ(Set(client, 1'000), "0 0");
  Mark(client, server);
  ASSERT_EQ(Set(client, 0), "0 1000");
  Mark(client, server);
  const UINT64 before = server.Counters().BellsReceived;
  // A server that has not fallen asleep yet need not be rung.
  for (int i = 0; i < 1'000 && server.Counters().BellsReceived < before + 3; ++i) {
    Mark(client, server);
  }
  EXPECT_GE(server.Counters().BellsReceived, before + 3);
}

TEST_P(Latency, IsForgottenByAClose) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  Open(server, client);
  ASSERT_EQ(Set(client, 5), "0 0");
  ASSERT_EQ(Set(client, 7), "0 5");
  client.Disable();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  EXPECT_EQ(Set(client, 0), "0 0");
  Mark(client, server);
}

TEST_P(Latency, OfOneChannelLeavesTheOthersAlone) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ChannelOptions other;
  other.instance = "2";
  const Channel other_server = AddServer(other);
  const Channel other_client = AddClient(other);
  Open(server, client);
  Open(other_server, other_client);
  ASSERT_EQ(Set(client, 10'000), "0 0");
  for (int i = 0; i < 10; ++i) {
    Mark(other_client, other_server);
    Mark(client, server);
    Mark(other_server, other_client);
  }
  EXPECT_EQ(Set(other_client, 0), "0 0");
}

TEST_P(Latency, MayChangeWhileOthersSend) {
  constexpr UINT32 kRounds = 100;
  const Channel server = AddServer();
  const Channel client = AddClient();
  Open(server, client);
  for (UINT32 i = 0; i < kRounds; ++i) {
    client.Async("get", "latency " + std::to_string(i % 3 == 0 ? 0 : i));
    ASSERT_EQ(client.Send(i), STATUS_SUCCESS);
    // No packet may wait for ever, whichever way its bell took.
    ASSERT_TRUE(server.Wait("packet " + std::to_string(i)));
  }
}

TEST_P(Latency, ACompletionComesToo) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  Open(server, client);
  ASSERT_EQ(Set(client, 3'000), "0 0");
  for (UINT32 i = 0; i < 10; ++i) {
    const Answer answer = client.Synchronous(i, 16, kWait, "-100000000", 64);
    EXPECT_EQ(answer.status, STATUS_SUCCESS);
    EXPECT_TRUE(answer.intact);
  }
}

class LatencyWithoutMonitors : public Latency {
  std::string endpoint_options() const override { return "monitors 0"; }
};

INSTANTIATE_TEST_SUITE_P(Contract, LatencyWithoutMonitors, AllPlacements(), NameOfPlacement);

TEST_P(LatencyWithoutMonitors, EveryLatencyIsMetByBells) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  Open(server, client);
  ASSERT_EQ(Set(client, 20'000), "0 0");
  const UINT64 before = server.Counters().BellsReceived;
  for (int i = 0; i < 1'000 && server.Counters().BellsReceived < before + 3; ++i) {
    Mark(client, server);
  }
  EXPECT_GE(server.Counters().BellsReceived, before + 3);
  EXPECT_EQ(Set(client, 0), "0 20000");
}

}  // namespace

}  // namespace kmcl::contract
