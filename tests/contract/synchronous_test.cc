// Synchronous requests: the matrix of KMCL reference 5.6.
#include <chrono>

#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

constexpr const char* kUnlimited = "none";
constexpr const char* kNow = "0";
constexpr const char* kShort = "-200000";    // 20 ms from now, in 100 ns
constexpr const char* kLong = "-100000000";  // 10 s from now
constexpr const char* kPast = "1";           // long ago

class Synchronous : public BusTest {
 protected:
  // Fills the client's outgoing ring: one packet at least is queued.
  static void FillRing(const Channel& client) {
    UINT32 number = 10'000;
    while (client.Counters().Queued == 0) {
      ASSERT_EQ(client.Send(number++, 4000), STATUS_SUCCESS);
      ASSERT_LT(number, 11'000U);
    }
  }

  void OpenWithPausedServer(const Channel& server, const Channel& client) {
    ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
    ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
    ASSERT_TRUE(client.Wait("PostStarted"));
    ASSERT_TRUE(server.Wait("Opened"));
  }

  static std::string Returned(NTSTATUS status) {
    return "returned sync " + std::to_string(status) + " 0";
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, Synchronous, AllPlacements(), NameOfPlacement);

TEST_P(Synchronous, WithWaitItReturnsTheCompletion) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("answer", 40);
  for (const char* timeout : {kUnlimited, kLong}) {
    const Answer answer = client.Synchronous(1, 16, kWait, timeout, 64);
    EXPECT_EQ(answer.status, STATUS_SUCCESS);
    EXPECT_EQ(answer.bytes, 40U);
    EXPECT_TRUE(answer.intact);
    EXPECT_FALSE(answer.overrun);
  }
}

TEST_P(Synchronous, WithoutWaitItReturnsOnceItIsInTheRing) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(OpenWithPausedServer(server, client));
  EXPECT_EQ(client.Synchronous(1, 16, 0, kUnlimited, 0).status, STATUS_SUCCESS);
  EXPECT_EQ(client.Synchronous(2, 16, 0, kLong, 0).status, STATUS_SUCCESS);
  EXPECT_EQ(client.Synchronous(3, 16, 0, kNow, 0).status, STATUS_SUCCESS);
  EXPECT_EQ(client.Counters().PacketsSent, 3U);
  server.Start();
  ASSERT_TRUE(server.Wait("batch 3"));
}

TEST_P(Synchronous, WithoutALimitItWaitsForRoom) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(OpenWithPausedServer(server, client));
  ASSERT_NO_FATAL_FAILURE(FillRing(client));
  const UINT64 queued = client.Counters().Queued;
  client.Async("sync", "1 16 0 none 0");
  ASSERT_TRUE(client.WaitQueued(queued + 1));
  EXPECT_EQ(client.Count(Returned(STATUS_SUCCESS)), 0U);
  server.Start();
  ASSERT_TRUE(client.Wait(Returned(STATUS_SUCCESS)));
  ASSERT_TRUE(server.Wait("packet 1"));
}

TEST_P(Synchronous, ATimeoutCancelsAPacketThatWaitsForRoom) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(OpenWithPausedServer(server, client));
  ASSERT_NO_FATAL_FAILURE(FillRing(client));
  EXPECT_EQ(client.Synchronous(1, 16, 0, kShort, 0).status, STATUS_CANCELLED);
  server.Start();
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  EXPECT_EQ(server.Count("packet 1"), 0U) << "it was cancelled before it was sent";
}

TEST_P(Synchronous, ATimeoutCancelsAndTheLateCompletionIsDropped) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  EXPECT_EQ(client.Synchronous(1, 16, kWait, kShort, 64).status, STATUS_CANCELLED);
  EXPECT_EQ(client.Synchronous(2, 16, kWait, kPast, 64).status, STATUS_CANCELLED);
  ASSERT_TRUE(server.Wait("packet 1"));
  ASSERT_EQ(client.Send(3, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 3"));
  server.Do("complete", "all");
  ASSERT_TRUE(client.Wait("done 3 STATUS_SUCCESS"));  // behind the late ones
  const KMCL_CHANNEL_COUNTERS counters = client.Counters();
  EXPECT_EQ(counters.TransactionsStarted, 3U);
  EXPECT_EQ(counters.TransactionsCancelled, 2U);
  EXPECT_EQ(counters.TransactionsCompleted, 1U);
  EXPECT_EQ(client.Synchronous(4, 16, kWait, kUnlimited, 64).status, STATUS_SUCCESS);
}

TEST_P(Synchronous, AnAbsoluteTimeoutIsASystemTime) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  // 100 ns since 1601, ten seconds from now.
  constexpr std::int64_t kFrom1601To1970 = 11'644'473'600;
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const std::int64_t later = (now.count() + kFrom1601To1970 + 10) * 10'000'000;
  const Answer answer = client.Synchronous(1, 16, kWait, std::to_string(later), 64);
  EXPECT_EQ(answer.status, STATUS_SUCCESS);
  EXPECT_TRUE(answer.intact);
}

TEST_P(Synchronous, NowFailsWhenTheRingIsFullAndQueuesNothing) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(OpenWithPausedServer(server, client));
  ASSERT_NO_FATAL_FAILURE(FillRing(client));
  const UINT64 queued = client.Counters().Queued;
  EXPECT_EQ(client.Synchronous(1, 16, 0, kNow, 0).status, STATUS_BUFFER_OVERFLOW);
  EXPECT_EQ(client.Synchronous(2, 16, kWait, kNow, 64).status, STATUS_BUFFER_OVERFLOW);
  EXPECT_EQ(client.Counters().Queued, queued);
  server.Start();
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  EXPECT_EQ(server.Count("packet 1") + server.Count("packet 2"), 0U);
}

TEST_P(Synchronous, NowFailsWhileTheChannelIsNotOpenOrPaused) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  EXPECT_EQ(client.Synchronous(1, 16, 0, kNow, 0).status, STATUS_BUFFER_OVERFLOW);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  EXPECT_EQ(server.Synchronous(2, 16, 0, kNow, 0).status, STATUS_BUFFER_OVERFLOW);
  client.Pause();
  EXPECT_EQ(client.Synchronous(3, 16, 0, kNow, 0).status, STATUS_BUFFER_OVERFLOW);
}

TEST_P(Synchronous, NowWithWaitLooksOnceForTheCompletion) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  EXPECT_EQ(client.Synchronous(1, 16, kWait, kNow, 64).status, STATUS_CANCELLED);
  ASSERT_TRUE(server.Wait("packet 1"));  // it was sent
}

TEST_P(Synchronous, AServerMaySendNowOnly) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(server.Synchronous(1, 16, 0, kNow, 0).status, STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("packet 1"));
  EXPECT_EQ(server.Synchronous(2, 16, 0, kUnlimited, 0).status, STATUS_INVALID_PARAMETER_8);
  EXPECT_EQ(server.Synchronous(3, 16, 0, kShort, 0).status, STATUS_INVALID_PARAMETER_8);
  EXPECT_EQ(server.Synchronous(4, 16, kWait, kNow, 64).status, STATUS_INVALID_PARAMETER_5);
  ASSERT_NO_FATAL_FAILURE(Mark(server, client));
  EXPECT_EQ(client.Names({"packet"}).size(), 2U);
}

TEST_P(Synchronous, TheAnswersRoomIsAMultipleOfEight) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(client.Synchronous(1, 16, kWait, kUnlimited, 12).status, STATUS_INVALID_PARAMETER_7);
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  EXPECT_EQ(server.Count("packet 1"), 0U);
}

TEST_P(Synchronous, ALongerAnswerIsCut) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("answer", 48);
  const Answer answer = client.Synchronous(1, 16, kWait, kUnlimited, 16);
  EXPECT_EQ(answer.status, STATUS_BUFFER_TOO_SMALL);
  EXPECT_FALSE(answer.overrun);
}

TEST_P(Synchronous, TheAnswerMayBeOfNoInterest) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("answer", 0);
  EXPECT_EQ(client.Synchronous(1, 16, kWait, kUnlimited, 0).status, STATUS_SUCCESS);
  const Answer answer = client.Synchronous(2, 16, kWait, kUnlimited, 64);
  EXPECT_EQ(answer.status, STATUS_SUCCESS);
  EXPECT_EQ(answer.bytes, 0U);
}

TEST_P(Synchronous, BadArgumentsSendNothing) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(client.Synchronous(1, 4097, kWait, kUnlimited, 64).status, STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(client.Synchronous(2, 16, 0x10, kUnlimited, 64).status, STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(client.Counters().PacketsSent, 0U);
}

TEST_P(Synchronous, PostStartedMayNegotiate) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  client.On("PostStarted", "sync " + client.id() + " 1 16 1 none 64");
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_TRUE(client.Wait("did sync " + client.id() + " 1 16 1 none 64 -> 0 16 intact"));
}

TEST_P(Synchronous, ManyThreadsEachGetTheirOwnAnswer) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  constexpr int kThreads = 8;
  for (int i = 0; i < kThreads; ++i) {
    client.Async("sync", std::to_string(100 + i) + " 64 1 none 64");
  }
  EXPECT_TRUE(client.Wait("returned sync 0 16 intact", kThreads));
}

TEST_P(Synchronous, ARescindWakesItWithDeviceRemoved) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  client.Async("sync", "1 16 1 none 0");
  ASSERT_TRUE(server.Wait("packet 1"));
  server.Async("disable");
  ASSERT_TRUE(server.Wait("Suspend"));
  server.Do("fail", "1");  // retires it without an answer
  ASSERT_TRUE(client.Wait(Returned(STATUS_DEVICE_REMOVED)));
  ASSERT_TRUE(client.Wait("Closed"));
}

TEST_P(Synchronous, AnOwnDisableWakesItWithDeviceRemoved) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Set("hold", 1);
  client.Async("sync", "1 16 1 none 0");
  ASSERT_TRUE(server.Wait("packet 1"));
  client.Async("disable");
  EXPECT_TRUE(client.Wait(Returned(STATUS_DEVICE_REMOVED)));
  server.Do("complete", "all");
  EXPECT_TRUE(client.Wait("returned disable ok"));
}

TEST_P(Synchronous, ATeardownWakesTheOneInPostStarted) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Set("hold", 1);
  client.On("PostStarted", "sync " + client.id() + " 1 16 1 none 0");
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 1"));
  // The callback blocks in the request; Disable must not wait for an answer that never comes.
  client.Async("disable");
  EXPECT_TRUE(client.Wait("did sync " + client.id() + " 1 16 1 none 0 -> " +
                          std::to_string(STATUS_DEVICE_REMOVED) + " 0"));
  server.Do("complete", "all");
  EXPECT_TRUE(client.Wait("returned disable ok"));
}

TEST_P(Synchronous, TheOneThatWaitsForAnOfferIsWokenByDisable) {
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  client.Async("sync", "1 16 1 none 0");
  ASSERT_TRUE(client.WaitQueued(1));
  client.Disable();
  EXPECT_TRUE(client.Wait(Returned(STATUS_DEVICE_REMOVED)));
}

}  // namespace

}  // namespace kmcl::contract
