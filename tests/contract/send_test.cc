// Outgoing packets: the life of a packet object, queues and order, buffers (KMCL reference 5.1
// to 5.4).
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class Sends : public BusTest {
 protected:
  // An open channel whose server is paused: what the client sends stays in the ring or behind it.
  void OpenWithPausedServer(const Channel& server, const Channel& client) {
    ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
    ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
    ASSERT_TRUE(client.Wait("PostStarted"));
    ASSERT_TRUE(server.Wait("Opened"));
  }

  static std::vector<std::string> Numbered(const std::string& before, UINT32 first, UINT32 count,
                                           const std::string& after = "") {
    std::vector<std::string> names;
    for (UINT32 i = 0; i < count; ++i) {
      names.push_back(before + std::to_string(first + i) + after);
    }
    return names;
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, Sends, AllPlacements(), NameOfPlacement);

TEST_P(Sends, WithoutWaitAPacketIsCompleteOnceItIsInTheRing) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(OpenWithPausedServer(server, client));
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(client.Detail("done 1 STATUS_SUCCESS", "len"), "0");
  EXPECT_EQ(client.Detail("done 1 STATUS_SUCCESS", "answer"), "none");
  EXPECT_LE(std::stoi(client.Detail("done 1 STATUS_SUCCESS", "irql")), DISPATCH_LEVEL);
}

TEST_P(Sends, WithWaitAPacketIsCompleteWhenTheOtherEndHasCompletedIt) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  server.Set("answer", 24);
  ASSERT_EQ(client.Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  EXPECT_THAT(client.Names({"done"}), IsEmpty());
  server.Complete(1);
  ASSERT_TRUE(client.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(client.Detail("done 1 STATUS_SUCCESS", "len"), "24");
  EXPECT_EQ(client.Detail("done 1 STATUS_SUCCESS", "answer"), "intact");
}

TEST_P(Sends, TheServerSendsTransactionsToo) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_EQ(server.Send(1, 100, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(server.Detail("done 1 STATUS_SUCCESS", "answer"), "intact");
}

TEST_P(Sends, ACompletionNobodyAskedForIsNotSent) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 5));
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  EXPECT_EQ(server.Counters().CompletionsSent, 0U);
  EXPECT_EQ(client.Counters().CompletionsReceived, 0U);
}

TEST_P(Sends, TheDefaultRoutineFreesThePacket) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  // Leaks are found by the address sanitizer, and by Cleanup's log.
  for (int number = 1; number <= 100; ++number) {
    ASSERT_EQ(client.Do("plain", std::to_string(number) + " 16"), "0");
  }
  ASSERT_TRUE(server.Wait("packet 100"));
  EXPECT_EQ(client.Counters().PacketsSent, 100U);
}

TEST_P(Sends, OnePacketObjectIsSentAgainAndAgain) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  for (const char* how : {"allocate", "initialize"}) {
    const std::string packet = client.MakePacket(how);
    const UINT32 first = how[0] == 'a' ? 1 : 1001;
    for (UINT32 number = first; number < first + 50; ++number) {
      const UINT32 flags = number % 2 == 0 ? kWait : 0;
      ASSERT_EQ(client.SendPacket(packet, number, 16 + number % 64, flags), STATUS_SUCCESS);
      ASSERT_TRUE(client.Wait("done " + std::to_string(number) + " STATUS_SUCCESS"));
    }
    ASSERT_TRUE(server.Wait("packet " + std::to_string(first + 49)));
  }
}

TEST_P(Sends, APacketIsSentAgainFromItsOwnRoutine) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  const std::string packet = client.MakePacket();
  for (int number = 1; number < 20; ++number) {
    client.On("done " + std::to_string(number) + " STATUS_SUCCESS",
              "send " + packet + " " + std::to_string(number + 1) + " 16 1");
  }
  ASSERT_EQ(client.SendPacket(packet, 1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("done 20 STATUS_SUCCESS"));
  EXPECT_EQ(server.Names({"packet"}), Numbered("packet ", 1, 20));
  EXPECT_EQ(client.Names({"done"}).size(), 20U);
}

TEST_P(Sends, APacketInFlightIsRefusedAndItsRoutineRunsOnce) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  const std::string packet = client.MakePacket();
  ASSERT_EQ(client.SendPacket(packet, 1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  EXPECT_EQ(client.SendPacket(packet, 1, 16, 0), STATUS_INVALID_DEVICE_STATE);
  server.Complete(1);
  ASSERT_TRUE(client.Wait("done 1 STATUS_SUCCESS"));
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  EXPECT_EQ(client.Count("done 1 STATUS_SUCCESS"), 1U);
  EXPECT_EQ(server.Count("packet 1"), 1U);
}

TEST_P(Sends, AFailedSendLeavesThePacketWithTheDriver) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  const std::string packet = client.MakePacket();
  EXPECT_EQ(client.SendPacket(packet, 1, 4097), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(client.SendPacket(packet, 1, 16, 0x80), STATUS_INVALID_PARAMETER_5);
  EXPECT_THAT(client.Names({"done"}), IsEmpty());
  EXPECT_EQ(client.SendPacket(packet, 2, 4096), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 2"));
  EXPECT_THAT(server.Names({"packet"}), ElementsAre("packet 2"));
}

TEST_P(Sends, QueueWhileTheChannelIsNotOpen) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 10));
  EXPECT_THAT(client.Names(), IsEmpty());
  EXPECT_EQ(client.Counters().Queued, 10U);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(server.SendMany(101, 10));
  server.Start();
  ASSERT_TRUE(server.Wait("packet 10"));
  ASSERT_TRUE(client.Wait("packet 110"));
  EXPECT_EQ(server.Names({"packet"}), Numbered("packet ", 1, 10));
  EXPECT_EQ(client.Names({"packet"}), Numbered("packet ", 101, 10));
  ASSERT_TRUE(client.Wait("done 10 STATUS_SUCCESS"));
}

TEST_P(Sends, QueueWhilePausedAndGoOutFromStartedOn) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 5));
  EXPECT_THAT(server.Names({"done"}), IsEmpty());
  EXPECT_EQ(server.Counters().Queued, 5U);
  server.Gate("Started");
  server.Start();
  ASSERT_TRUE(server.Wait("Started", 2));
  // Before the callback has returned, and before delivery is on.
  ASSERT_TRUE(client.Wait("packet 5"));
  ASSERT_EQ(server.Send(6), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("packet 6"));
  server.Release("Started");
  EXPECT_EQ(client.Names({"packet"}), Numbered("packet ", 1, 6));
}

TEST_P(Sends, QueueWhileTheRingIsFullAndKeepTheirOrder) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(OpenWithPausedServer(server, client));
  constexpr UINT32 kCount = 600;
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, kCount, 200));
  const KMCL_CHANNEL_COUNTERS full = client.Counters();
  EXPECT_GT(full.RingFull, 0U);
  EXPECT_GT(full.Queued, 0U);
  EXPECT_EQ(full.Queued + full.PacketsSent, kCount);
  EXPECT_EQ(client.Names({"done"}).size(), full.PacketsSent);
  server.Start();
  ASSERT_TRUE(server.Wait("packet " + std::to_string(kCount)));
  ASSERT_TRUE(client.Wait("done " + std::to_string(kCount) + " STATUS_SUCCESS"));
  EXPECT_EQ(server.Names({"packet"}), Numbered("packet ", 1, kCount));
  EXPECT_EQ(client.Names({"done"}), Numbered("done ", 1, kCount, " STATUS_SUCCESS"));
  EXPECT_EQ(client.Counters().Queued, 0U);
}

TEST_P(Sends, CompletionsWaitBehindTheSendsThatWaitForRoom) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  ASSERT_EQ(client.Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  // The client's delivery stands still until the server's ring is full and has a queue.
  client.Gate("packet 1001");
  ASSERT_EQ(server.Send(1001), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("packet 1001"));
  constexpr UINT32 kCount = 400;
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1002, kCount, 200));
  EXPECT_GT(server.Counters().Queued, 0U);
  server.Complete(1);
  ASSERT_EQ(server.Send(5000), STATUS_SUCCESS);
  client.Release("packet 1001");
  ASSERT_TRUE(client.Wait("packet 5000"));
  ASSERT_TRUE(client.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_GT(client.Position("done 1 STATUS_SUCCESS"),
            client.Position("packet " + std::to_string(1001 + kCount)));
}

TEST_P(Sends, TransactionsCompleteInAnyOrder) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 4, 16, kWait));
  ASSERT_TRUE(server.Wait("packet 4"));
  for (const UINT32 number : {3U, 1U, 4U, 2U}) {
    server.Complete(number);
  }
  ASSERT_TRUE(client.Wait("done 2 STATUS_SUCCESS"));
  EXPECT_THAT(client.Names({"done"}),
              ElementsAre("done 3 STATUS_SUCCESS", "done 1 STATUS_SUCCESS", "done 4 STATUS_SUCCESS",
                          "done 2 STATUS_SUCCESS"));
}

TEST_P(Sends, LengthsArriveRoundedUpToEightWithZeroes) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  UINT32 number = 1;
  for (const UINT32 bytes : {1U, 7U, 8U, 9U, 13U, 16U, 100U, 1023U, 4088U, 4089U, 4095U, 4096U}) {
    const std::string packet = "packet " + std::to_string(number);
    ASSERT_EQ(client.Send(number, bytes), STATUS_SUCCESS);
    ASSERT_TRUE(server.Wait(packet));
    EXPECT_EQ(server.Detail(packet, "len"), std::to_string((bytes + 7) / 8 * 8));
    EXPECT_EQ(server.Detail(packet, "flags"), "0");
    ++number;
  }
}

TEST_P(Sends, AnEmptyPacketIsAPacket) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("answer", 0);
  ASSERT_EQ(client.Send(0, 0, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("done 0 STATUS_SUCCESS"));
  EXPECT_EQ(server.Detail("packet 0", "len"), "0");
  EXPECT_EQ(client.Detail("done 0 STATUS_SUCCESS", "len"), "0");
}

TEST_P(Sends, TheMaximumPacketSizeIsTheDriversChoice) {
  const Channel server = AddServer({.maximum_packet = 60000});
  const Channel client = AddClient({.maximum_packet = 60000});
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("answer", 60000);
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 8, 60000, kWait));
  ASSERT_TRUE(client.Wait("done 8 STATUS_SUCCESS"));
  EXPECT_EQ(client.Detail("done 8 STATUS_SUCCESS", "len"), "60000");
  EXPECT_EQ(client.Detail("done 8 STATUS_SUCCESS", "answer"), "intact");
  EXPECT_EQ(client.Send(9, 60001), STATUS_INVALID_PARAMETER_3);
}

TEST_P(Sends, ALongerPacketThanTheReceiverAllowsStopsDelivery) {
  const Channel server = AddServer({.maximum_packet = 1024});
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_EQ(client.Send(1, 1024), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  ASSERT_EQ(client.Send(2, 1032), STATUS_SUCCESS);
  ASSERT_EQ(client.Send(3, 16), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("done 3 STATUS_SUCCESS"));
  server.Pause();
  server.Start();
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  client.Disable();
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_THAT(server.Names({"packet"}), ElementsAre("packet 1"));
  // A new open begins anew.
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  ASSERT_EQ(client.Send(4, 16), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 4"));
}

TEST_P(Sends, BothDirectionsAtOnceLoseNothing) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  for (UINT32 number = 1; number <= 300; ++number) {
    ASSERT_EQ(client.Send(number, 300, kWait), STATUS_SUCCESS);
    ASSERT_EQ(server.Send(number, 300, kWait), STATUS_SUCCESS);
  }
  for (UINT32 number = 1; number <= 300; ++number) {
    ASSERT_TRUE(client.Wait("done " + std::to_string(number) + " STATUS_SUCCESS"));
    ASSERT_TRUE(server.Wait("done " + std::to_string(number) + " STATUS_SUCCESS"));
  }
  EXPECT_EQ(server.Names({"packet"}), Numbered("packet ", 1, 300));
  EXPECT_EQ(client.Names({"packet"}), Numbered("packet ", 1, 300));
}

TEST_P(Sends, CountersAddUp) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_NO_FATAL_FAILURE(client.SendMany(1, 20, 13));
  ASSERT_NO_FATAL_FAILURE(client.SendMany(101, 10, 40, kWait));
  ASSERT_NO_FATAL_FAILURE(server.SendMany(201, 5, 16));
  ASSERT_TRUE(client.Wait("done 110 STATUS_SUCCESS"));
  ASSERT_TRUE(client.Wait("packet 205"));
  client.Pause();
  server.Pause();
  const KMCL_CHANNEL_COUNTERS c = client.Counters();
  const KMCL_CHANNEL_COUNTERS s = server.Counters();
  EXPECT_EQ(c.PacketsSent, 30U);
  EXPECT_EQ(s.PacketsReceived, 30U);
  EXPECT_EQ(s.BytesReceived, 20U * 16 + 10U * 40);
  EXPECT_EQ(c.TransactionsStarted, 10U);
  EXPECT_EQ(c.TransactionsCompleted, 10U);
  EXPECT_EQ(c.TransactionsCancelled, 0U);
  EXPECT_EQ(s.CompletionsSent, 10U);
  EXPECT_EQ(c.CompletionsReceived, 10U);
  EXPECT_EQ(c.CompletionsUnexpected, 0U);
  EXPECT_EQ(s.PacketsSent, 5U);
  EXPECT_EQ(c.PacketsReceived, 5U);
  EXPECT_EQ(c.BytesReceived, 5U * 16);
  EXPECT_EQ(s.BytesSent, 5U * 16);
  EXPECT_EQ(c.Outstanding + s.Outstanding + c.Queued + s.Queued, 0U);
  EXPECT_EQ(s.Batches, server.Names({"batch"}).size());
  // A bell may still be on its way when it is counted as rung, never the other way round.
  EXPECT_LE(s.BellsReceived, c.BellsRung);
}

}  // namespace

}  // namespace kmcl::contract
