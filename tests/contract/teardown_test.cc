// What happens to packets and channels when an end goes away (KMCL reference 5.7, kmcl/endpoint.h).
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;

class Teardown : public BusTest {
 protected:
  // Three transactions at the server, in flight, and three packets queued behind a full ring.
  void FillWithWork(const Channel& server, const Channel& client) {
    server.Set("hold", 1);
    ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 3, 16, kWait));
    ASSERT_TRUE(server.Wait("packet 3"));
    server.Gate("packet 4");
    ASSERT_EQ(client.Send(4), STATUS_SUCCESS);
    ASSERT_TRUE(server.Wait("packet 4"));
    UINT32 number = 100;
    while (client.Counters().Queued == 0) {
      ASSERT_EQ(client.Send(number++, 4000), STATUS_SUCCESS);
      ASSERT_LT(number, 500U);
    }
    first_queued_ = number - 1;
    ASSERT_NO_FATAL_FAILURE(client.SendMany(number, 2, 16, kWait));
  }

  std::vector<std::string> CancelledInOrder() const {
    std::vector<std::string> names;
    for (const UINT32 number : {1U, 2U, 3U, first_queued_, first_queued_ + 1, first_queued_ + 2}) {
      names.push_back("done " + std::to_string(number) + " STATUS_DEVICE_REMOVED");
    }
    return names;
  }

  static std::vector<std::string> Cancelled(const Channel& channel) {
    std::vector<std::string> names = channel.Names({"done"});
    std::erase_if(names, [](const std::string& name) { return name.ends_with("STATUS_SUCCESS"); });
    return names;
  }

 private:
  UINT32 first_queued_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Contract, Teardown, AllPlacements(), NameOfPlacement);

TEST_P(Teardown, OwnDisableCancelsEveryPacketInSendOrderBetweenSuspendAndClosed) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_NO_FATAL_FAILURE(FillWithWork(server, client));
  client.Async("disable");
  ASSERT_TRUE(client.Wait(CancelledInOrder().back()));
  server.Release("packet 4");
  server.Do("complete", "all");
  ASSERT_TRUE(client.Wait("returned disable ok"));
  EXPECT_EQ(Cancelled(client), CancelledInOrder());
  EXPECT_LT(client.Position("Suspend"), client.Position("done 1 STATUS_DEVICE_REMOVED"));
  EXPECT_LT(client.Position(CancelledInOrder().back()), client.Position("Closed"));
  EXPECT_EQ(client.Detail("done 1 STATUS_DEVICE_REMOVED", "len"), "0");
  EXPECT_EQ(client.Detail("done 1 STATUS_DEVICE_REMOVED", "answer"), "none");
  const KMCL_CHANNEL_COUNTERS counters = client.Counters();
  EXPECT_EQ(counters.TransactionsStarted, 5U);
  EXPECT_EQ(counters.TransactionsCancelled, 5U);
  EXPECT_EQ(counters.Queued, 0U);
}

TEST_P(Teardown, ARescindCancelsEveryPacketInSendOrderBetweenSuspendAndClosed) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  // The client's work waits for the server, which goes away without an answer.
  server.Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 3, 16, kWait));
  ASSERT_TRUE(server.Wait("packet 3"));
  server.Async("disable");
  ASSERT_TRUE(server.Wait("Suspend"));
  for (const char* number : {"1", "2", "3"}) {
    server.Do("fail", number);
  }
  ASSERT_TRUE(client.Wait("Closed"));
  EXPECT_THAT(client.Names({"Suspend", "done", "Closed"}),
              ElementsAre("Suspend", "done 1 STATUS_DEVICE_REMOVED", "done 2 STATUS_DEVICE_REMOVED",
                          "done 3 STATUS_DEVICE_REMOVED", "Closed"));
}

TEST_P(Teardown, TheServersPacketsAreCancelledBeforeItsDrain) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  client.Set("hold", 1);
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  ASSERT_NO_FATAL_FAILURE(server.SendMany(11, 2, 16, kWait));
  ASSERT_TRUE(client.Wait("packet 12"));
  // The driver completes an incoming packet only when its own transaction has ended.
  server.On("done 12 STATUS_DEVICE_REMOVED", "complete " + server.id() + " 1");
  server.Disable();
  EXPECT_THAT(server.Names({"Suspend", "done", "completing", "Closed"}),
              ElementsAre("Suspend", "done 11 STATUS_DEVICE_REMOVED",
                          "done 12 STATUS_DEVICE_REMOVED", "completing 1", "Closed"));
  client.Do("complete", "all");
}

TEST_P(Teardown, ACancelledPacketMayBeFreedOrKeptForTheNextOpen) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  const std::string packet = client.MakePacket();
  ASSERT_EQ(client.SendPacket(packet, 1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  client.Async("disable");
  ASSERT_TRUE(client.Wait("done 1 STATUS_DEVICE_REMOVED"));
  server.Do("complete", "all");
  ASSERT_TRUE(client.Wait("returned disable ok"));
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  ASSERT_EQ(client.SendPacket(packet, 2, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("done 2 STATUS_SUCCESS"));
}

TEST_P(Teardown, PacketsQueuedBeforeAnyOpenAreCancelledByDisable) {
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 3));
  client.Disable();
  EXPECT_THAT(client.Names(),
              ElementsAre("done 1 STATUS_DEVICE_REMOVED", "done 2 STATUS_DEVICE_REMOVED",
                          "done 3 STATUS_DEVICE_REMOVED"));
}

TEST_P(Teardown, PacketsThatAServerQueuesAfterClosedBeganWaitForTheNextOpen) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Gate("Closed");
  client.Async("disable");
  ASSERT_TRUE(server.Wait("Closed"));
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 2));
  server.Release("Closed");
  ASSERT_TRUE(client.Wait("returned disable ok"));
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("packet 2"));
  EXPECT_THAT(client.Names({"packet"}), ElementsAre("packet 1", "packet 2"));
}

TEST_P(Teardown, PacketsThatAClientQueuesInClosedAreCancelledWhenItIsDisabled) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Gate("Closed");
  server.Disable();
  ASSERT_TRUE(client.Wait("Closed"));
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  client.Release("Closed");
  ASSERT_TRUE(client.Wait("done 1 STATUS_DEVICE_REMOVED"));
}

TEST_P(Teardown, ACompletionAfterTheCloseIsDropped) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  ASSERT_EQ(client.Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  client.Async("disable");
  ASSERT_TRUE(server.Wait("Suspend"));
  server.Complete(1);
  ASSERT_TRUE(client.Wait("returned disable ok"));
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  server.Set("hold", 0);
  ASSERT_NO_FATAL_FAILURE(Mark(server, client));
  EXPECT_EQ(client.Counters().CompletionsReceived, 0U);
  EXPECT_EQ(client.Names({"done 1"}), client.Names({"done 1 STATUS_DEVICE_REMOVED"}));
}

TEST_P(Teardown, OpenAndCloseManyTimesWithTrafficUnderWay) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  for (UINT32 round = 1; round <= 25; ++round) {
    const int started = static_cast<int>(client.Count("PostStarted"));
    ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
    ASSERT_NO_FATAL_FAILURE(client.SendMany(round * 1000, 10, 500, kWait));
    if (round % 3 != 0) {
      ASSERT_TRUE(client.Wait("PostStarted", started + 1));
    }
    client.Disable();
    const KMCL_CHANNEL_COUNTERS counters = client.Counters();
    ASSERT_EQ(counters.TransactionsStarted, round * 10);
    ASSERT_EQ(counters.TransactionsCompleted + counters.TransactionsCancelled, round * 10);
    ASSERT_EQ(client.Names({"done"}).size(), round * 10);
  }
}

TEST_P(Teardown, AClientThatLeavesClosesItsChannels) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client_port().Exchange("finish");
  ASSERT_EQ(client_port().Exchange("end-client " + this->client()), "ok");
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_EQ(server_port().Exchange("gone 1"), "ok");
  server.Disable();
}

TEST_P(Teardown, AServerThatEndsClosesItsClientsChannels) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(client_port().Exchange("connected " + this->client()), "1");
  client.Set("hold", 1);
  ASSERT_EQ(server.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("packet 1"));
  server_port().Exchange("finish");
  ASSERT_EQ(server_port().Exchange("end-server"), "ok");
  ASSERT_TRUE(client.Wait("Suspend"));
  client.Complete(1);
  ASSERT_TRUE(client.Wait("Closed"));
  client.Disable();
  // Disconnected for good: nothing can be enabled on it.
  ASSERT_TRUE(WaitDisconnected());
  EXPECT_EQ(client.Enable(), STATUS_NO_SUCH_DEVICE);
}

TEST_P(Teardown, AClientThatIsKilledClosesItsChannelsAndFreesTheOffer) {
  if (placement() != Placement::kClientProcess) {
    GTEST_SKIP() << "needs the client in a process of its own";
  }
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Set("hold", 1);
  server.Set("hold", 1);
  ASSERT_EQ(client.Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(server.SendMany(11, 2, 16, kWait));
  ASSERT_TRUE(server.Wait("packet 1"));
  ASSERT_TRUE(client.Wait("packet 12"));
  KillClient();
  ASSERT_TRUE(server.Wait("done 12 STATUS_DEVICE_REMOVED"));
  server.Complete(1);
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_EQ(server_port().Exchange("gone 1"), "ok");
  EXPECT_THAT(server.Names({"Suspend", "done", "completing", "Closed"}),
              ElementsAre("Suspend", "done 11 STATUS_DEVICE_REMOVED",
                          "done 12 STATUS_DEVICE_REMOVED", "completing 1", "Closed"));
}

TEST_P(Teardown, AServerThatIsKilledClosesItsClientsChannels) {
  if (placement() != Placement::kServerProcess) {
    GTEST_SKIP() << "needs the server in a process of its own";
  }
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel waiting = AddClient({.instance = "77"});
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_EQ(waiting.Enable(), STATUS_SUCCESS);
  server.Set("hold", 1);
  ASSERT_EQ(client.Send(1, 16, kWait), STATUS_SUCCESS);
  client.Async("sync", "2 16 1 none 0");
  ASSERT_TRUE(server.Wait("packet 2"));
  KillServer();
  ASSERT_TRUE(client.Wait("Closed"));
  ASSERT_TRUE(client.Wait("done 1 STATUS_DEVICE_REMOVED"));
  ASSERT_TRUE(client.Wait("returned sync " + std::to_string(STATUS_DEVICE_REMOVED) + " 0"));
  waiting.Disable();
  client.Disable();
  ASSERT_TRUE(WaitDisconnected());
  EXPECT_EQ(client.Enable(), STATUS_NO_SUCH_DEVICE);
}

}  // namespace

}  // namespace kmcl::contract
