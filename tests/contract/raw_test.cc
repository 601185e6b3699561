// Raw mode (kmcl/raw.h; KMCL reference 6.1 and 12.23): the owner works on the rings itself.
#include <kmcl/raw.h>

#include <sstream>

#include "bus_fixture.h"
#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

class RawMode : public BusTest {
 protected:
  Channel AddRawServer() { return MadeRaw(AddServer()); }
  Channel AddRawClient() { return MadeRaw(AddClient()); }

  static Channel MadeRaw(const Channel& channel) {
    EXPECT_EQ(channel.Init("raw"), STATUS_SUCCESS);
    return channel;
  }
  // The status, which is the first word.
  static Status Raw(const Channel& channel, const std::string& words) {
    return {static_cast<NTSTATUS>(std::stol(channel.Do("raw", words)))};
  }
  static std::string Text(NTSTATUS status, const std::string& more = "") {
    return std::to_string(status) + (more.empty() ? "" : " " + more);
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, RawMode, AllPlacements(), NameOfPlacement);

TEST_P(RawMode, ServerAnswersTheTransactionsOfAClientThatIsNotRaw) {
  const Channel server = AddRawServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Async("raw", "echo");
  for (UINT32 number = 1; number <= 200; ++number) {
    ASSERT_EQ(client.Send(number, 16 + number * 8, kWait), STATUS_SUCCESS);
  }
  for (UINT32 number = 1; number <= 200; ++number) {
    const std::string done = "done " + std::to_string(number) + " STATUS_SUCCESS";
    ASSERT_TRUE(client.Wait(done));
    EXPECT_EQ(client.Detail(done, "len"), std::to_string(16 + number * 8));
  }
  server.Disable();
  EXPECT_TRUE(server.Wait("returned raw " + Text(STATUS_DEVICE_REMOVED, "200")));
  // State callbacks as always, packet callbacks never.
  EXPECT_EQ(server.Names({"packet", "batch"}), std::vector<std::string>{});
  EXPECT_EQ(server.Names({"Opened", "Started", "PostStarted", "Suspend", "Closed"}),
            (std::vector<std::string>{"Opened", "Started", "PostStarted", "Suspend", "Closed"}));
  EXPECT_EQ(server.Counters().PacketsReceived, 200U);
  EXPECT_EQ(server.Counters().CompletionsSent, 200U);
  EXPECT_EQ(client.Counters().CompletionsUnexpected, 0U);
}

TEST_P(RawMode, ClientChoosesItsIdsAndAServerThatIsNotRawAnswersThem) {
  const Channel server = AddServer();
  const Channel client = AddRawClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  // Three in one batch; the second wants no answer.
  EXPECT_EQ(Raw(client, "write 6 1 18446744073709551615 1 16"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(client, "write 6 0 7 2 16"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(client, "write 6 1 7 3 40"), STATUS_SUCCESS);
  EXPECT_EQ(server.Count("packet 1"), 0U) << "seen before the flush";
  EXPECT_EQ(Raw(client, "flush"), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 3"));
  EXPECT_EQ(server.Names({"packet"}),
            (std::vector<std::string>{"packet 1", "packet 2", "packet 3"}));
  EXPECT_EQ(server.Detail("packet 3", "len"), "40");
  for (const char* id : {"18446744073709551615", "7"}) {
    ASSERT_EQ(Raw(client, "wait 1 0 none"), STATUS_SUCCESS);
    std::istringstream answer(client.Do("raw", "read 4096"));
    std::string status;
    std::string type;
    std::string flags;
    std::string answered;
    answer >> status >> type >> flags >> answered;
    EXPECT_EQ(status, Text(STATUS_SUCCESS));
    EXPECT_EQ(type, "11");
    EXPECT_EQ(answered, id);
  }
  EXPECT_EQ(Raw(client, "read 4096"), STATUS_NO_MORE_ENTRIES);
  // And the server's own packets.
  ASSERT_EQ(server.Send(9, 24), STATUS_SUCCESS);
  ASSERT_EQ(Raw(client, "wait 1 0 none"), STATUS_SUCCESS);
  EXPECT_EQ(client.Do("raw", "peek"), Text(STATUS_SUCCESS, "6 0 0 0 24 9 intact"));
  EXPECT_EQ(client.Do("raw", "read 24"), Text(STATUS_SUCCESS, "6 0 0 0 24 9 intact"));
  EXPECT_EQ(Raw(client, "release"), STATUS_SUCCESS);
}

TEST_P(RawMode, TwoRawEndsStreamBothWaysAndSleepWhenThereIsNothingToDo) {
  const Channel server = AddRawServer();
  const Channel client = AddRawClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Async("raw", "echo");
  client.Async("raw", "stream 20000 200");
  ASSERT_TRUE(client.Wait("returned raw " + Text(STATUS_SUCCESS, "20000")));
  client.Disable();
  EXPECT_TRUE(server.Wait("returned raw " + Text(STATUS_DEVICE_REMOVED, "20000")));
}

TEST_P(RawMode, PeekAndReadTakeWhatFitsAndLeaveWhatDoesNot) {
  const Channel server = AddRawServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(Raw(server, "skip"), STATUS_NO_MORE_ENTRIES);
  EXPECT_EQ(Raw(server, "peek"), STATUS_NO_MORE_ENTRIES);
  ASSERT_EQ(client.Send(5, 64), STATUS_SUCCESS);
  ASSERT_EQ(Raw(server, "wait 1 0 none"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(server, "read 56"), STATUS_BUFFER_TOO_SMALL);
  EXPECT_EQ(server.Do("raw", "peek"), Text(STATUS_SUCCESS, "6 0 0 0 64 5 intact"));
  EXPECT_EQ(server.Do("raw", "peek"), Text(STATUS_SUCCESS, "6 0 0 0 64 5 intact"));
  EXPECT_EQ(Raw(server, "skip"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(server, "skip"), STATUS_NO_MORE_ENTRIES);
  EXPECT_EQ(Raw(server, "peek"), STATUS_NO_MORE_ENTRIES);
}

TEST_P(RawMode, AFullRingIsWaitedForUntilTheOtherEndHasRead) {
  const Channel server = AddRawServer();
  const Channel client = AddRawClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  UINT32 written = 0;
  while (Raw(client, "write 6 0 0 " + std::to_string(written) + " 4000") == STATUS_SUCCESS) {
    ++written;
  }
  EXPECT_GE(written, 2U);
  EXPECT_EQ(Raw(client, "write 6 0 0 1 4000"), STATUS_BUFFER_OVERFLOW);
  EXPECT_EQ(Raw(client, "wait 2 4000 -10000"), STATUS_TIMEOUT);
  EXPECT_EQ(Raw(client, "arm 2 4000"), STATUS_SUCCESS);
  EXPECT_EQ(client.Do("raw", "readable 2 0"), "0");
  for (UINT32 i = 0; i < written; ++i) {  // all of it: a bell is asked for when a quarter is free
    ASSERT_EQ(Raw(server, "read 4096"), STATUS_SUCCESS);
  }
  EXPECT_EQ(Raw(server, "release"), STATUS_SUCCESS);
  EXPECT_EQ(client.Do("raw", "readable 2 10000"), "1");
  EXPECT_EQ(Raw(client, "arm 2 4000"), STATUS_MORE_PROCESSING_REQUIRED);
  EXPECT_EQ(Raw(client, "write 6 0 0 1 4000"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(client, "write 6 0 0 1 500000"), STATUS_INVALID_PARAMETER_6);
  EXPECT_EQ(Raw(client, "wait 2 500000 none"), STATUS_INVALID_PARAMETER_3);
}

TEST_P(RawMode, TheDescriptorTellsOfAPacketOnceArmed) {
  const Channel server = AddRawServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(Raw(server, "wait 1 0 0"), STATUS_TIMEOUT);
  EXPECT_EQ(Raw(server, "arm 1 0"), STATUS_SUCCESS);
  EXPECT_EQ(server.Do("raw", "readable 1 0"), "0");
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  EXPECT_EQ(server.Do("raw", "readable 1 10000"), "1");
  EXPECT_EQ(Raw(server, "arm 1 0"), STATUS_MORE_PROCESSING_REQUIRED);
  EXPECT_EQ(Raw(server, "wait 3 0 none"), STATUS_SUCCESS);
}

TEST_P(RawMode, SendsThroughTheSuppressedQueueAreRefused) {
  const Channel server = AddRawServer();
  const Channel client = AddRawClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(client.Send(1), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(server.Send(1), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(client.Synchronous(2, 16, kWait, "none", 64).status, STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(client.Synchronous(3, 16, 0, "0", 0).status, STATUS_INVALID_DEVICE_STATE);
}

TEST_P(RawMode, NothingWorksOutsideOfStartedToSuspendAndTheRingsKeepWhatTheyHold) {
  const Channel server = AddRawServer();
  const Channel client = AddRawClient();
  EXPECT_EQ(Raw(server, "peek"), STATUS_DEVICE_REMOVED);
  EXPECT_EQ(Raw(server, "write 6 0 0 1 16"), STATUS_DEVICE_REMOVED);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(Raw(server, "write 6 0 0 1 16"), STATUS_SUCCESS);  // not flushed
  server.Pause();
  for (const char* call : {"peek", "read 16", "skip", "release", "write 6 0 0 2 16", "flush",
                           "wait 1 0 none", "wait 2 0 none", "arm 1 0", "arm 2 0"}) {
    EXPECT_EQ(Raw(server, call), STATUS_DEVICE_REMOVED) << call;
  }
  EXPECT_EQ(server.Do("raw", "readable 1 0"), "1");
  EXPECT_EQ(server.Do("raw", "readable 2 0"), "1");
  EXPECT_EQ(Raw(client, "write 6 0 0 5 16"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(client, "flush"), STATUS_SUCCESS);
  server.Start();
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  EXPECT_EQ(server.Do("raw", "readable 1 0"), "0");
  EXPECT_EQ(server.Do("raw", "read 16"), Text(STATUS_SUCCESS, "6 0 0 0 16 5 intact"));
  EXPECT_EQ(Raw(server, "flush"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(client, "wait 1 0 none"), STATUS_SUCCESS);
  EXPECT_EQ(client.Do("raw", "read 16"), Text(STATUS_SUCCESS, "6 0 0 0 16 1 intact"));
}

TEST_P(RawMode, AnswersStillGoOutDuringSuspend) {
  const Channel server = AddRawServer();
  const Channel client = AddRawClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Gate("Suspend");
  server.Async("pause");
  ASSERT_TRUE(server.Wait("Suspend"));
  EXPECT_EQ(Raw(server, "peek"), STATUS_DEVICE_REMOVED);
  EXPECT_EQ(Raw(server, "write 11 0 3 4 16"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(server, "flush"), STATUS_SUCCESS);
  server.Release("Suspend");
  ASSERT_TRUE(server.Wait("returned pause ok"));
  EXPECT_EQ(Raw(server, "write 11 0 3 4 16"), STATUS_DEVICE_REMOVED);
  EXPECT_EQ(Raw(client, "wait 1 0 none"), STATUS_SUCCESS);
  EXPECT_EQ(client.Do("raw", "read 16"), Text(STATUS_SUCCESS, "11 0 3 0 16 4 intact"));
}

TEST_P(RawMode, AnEndThatSleepsIsWokenWhenTheOtherCloses) {
  for (const bool server_closes : {true, false}) {
    const std::string instance = server_closes ? "10" : "11";
    const Channel server = MadeRaw(AddServer({.instance = instance}));
    const Channel client = MadeRaw(AddClient({.instance = instance}));
    ASSERT_NO_FATAL_FAILURE(Open(server, client));
    const Channel& sleeper = server_closes ? client : server;
    sleeper.Async("raw", "wait 1 0 none");
    (server_closes ? server : client).Disable();
    EXPECT_TRUE(sleeper.Wait("returned raw " + Text(STATUS_DEVICE_REMOVED)));
  }
}

TEST_P(RawMode, AnEndThatSleepsIsWokenWhenTheOtherIsKilled) {
  if (!two_processes()) {
    GTEST_SKIP() << "needs two processes";
  }
  const bool kill_client = GetParam() == Placement::kClientProcess;
  const Channel server = kill_client ? AddRawServer() : AddServer();
  const Channel client = kill_client ? AddClient() : AddRawClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  const Channel& survivor = kill_client ? server : client;
  survivor.Async("raw", "echo");
  ASSERT_EQ((kill_client ? client : server).Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE((kill_client ? client : server).Wait("done 1 STATUS_SUCCESS"));
  if (kill_client) {
    KillClient();
  } else {
    KillServer();
  }
  EXPECT_TRUE(survivor.Wait("returned raw " + Text(STATUS_DEVICE_REMOVED, "1")));
  EXPECT_TRUE(survivor.Wait("Closed"));
}

TEST_P(RawMode, ARingThatThePeerBreaksEndsTheChannel) {
  const Channel server = AddRawServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_EQ(client.Send(1, 16), STATUS_SUCCESS);
  ASSERT_EQ(Raw(server, "wait 1 0 none"), STATUS_SUCCESS);
  ASSERT_EQ(Raw(server, "spoil"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(server, "skip"), STATUS_SUCCESS);
  EXPECT_EQ(Raw(server, "peek"), STATUS_DATA_ERROR);
  EXPECT_TRUE(server.Wait("Closed"));
  EXPECT_TRUE(client.Wait("Closed"));
}

TEST_P(RawMode, AReopenedChannelWorksAgain) {
  const Channel server = AddRawServer();
  const Channel client = AddRawClient();
  for (int round = 0; round < 3; ++round) {
    ASSERT_NO_FATAL_FAILURE(Open(server, client));
    EXPECT_EQ(Raw(client, "write 6 0 0 1 16"), STATUS_SUCCESS);
    EXPECT_EQ(Raw(client, "flush"), STATUS_SUCCESS);
    EXPECT_EQ(Raw(server, "wait 1 0 none"), STATUS_SUCCESS);
    EXPECT_EQ(server.Do("raw", "read 16"), Text(STATUS_SUCCESS, "6 0 0 0 16 1 intact"));
    client.Disable();
    server.Disable();
  }
}

TEST_P(RawMode, InPipeModeTheOwnerWritesThePipeHeader) {
  const Channel server = AddRawServer();
  ASSERT_EQ(
      server.Init("server-flags " + std::to_string(VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE)),
      STATUS_SUCCESS);
  ASSERT_EQ(server.Init("flags 1"), STATUS_SUCCESS);
  const Channel client = AddClient();
  ASSERT_EQ(client.Init("flags 1"), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  ASSERT_EQ(client.Send(1, 17), STATUS_SUCCESS);
  ASSERT_EQ(Raw(server, "wait 1 0 none"), STATUS_SUCCESS);
  std::istringstream packet(server.Do("raw", "read 4096"));
  std::string word;
  for (int i = 0; i < 6; ++i) packet >> word;
  EXPECT_EQ(word, "32") << "8 bytes of header, 17 of data, 7 of padding";
}

class RawArguments : public DirectTest {};

TEST_F(RawArguments, AreChecked) {
  KMCL_RAW_PACKET packet;
  EXPECT_EQ(Status(KmclChannelInitSetRaw(nullptr)), STATUS_INVALID_PARAMETER_1);
  // A channel that is not raw.
  EXPECT_EQ(Status(KmclRawPeek(client_channel_, &packet)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclRawSkip(client_channel_)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclRawRead(client_channel_, nullptr, 0, &packet)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclRawRelease(client_channel_)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclRawWrite(client_channel_, KMCL_RAW_DATA, 0, 0, nullptr, 0)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclRawFlush(client_channel_)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclRawWait(client_channel_, 1, 0, nullptr)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclRawArm(nullptr, 1, 0)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(KmclRawGetDescriptor(client_channel_, KMCL_RAW_INCOMING), -1);
  EXPECT_EQ(KmclRawGetDescriptor(nullptr, KMCL_RAW_INCOMING), -1);

  ASSERT_EQ(Status(KmclChannelInitSetRaw(client_channel_)), STATUS_SUCCESS);
  ASSERT_EQ(Status(KmclChannelInitSetRaw(client_channel_)), STATUS_SUCCESS);
  EXPECT_GE(KmclRawGetDescriptor(client_channel_, KMCL_RAW_INCOMING), 0);
  EXPECT_GE(KmclRawGetDescriptor(client_channel_, KMCL_RAW_OUTGOING), 0);
  EXPECT_EQ(KmclRawGetDescriptor(client_channel_, KMCL_RAW_DIRECTIONS), -1);
  EXPECT_EQ(Status(KmclRawPeek(client_channel_, nullptr)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclRawRead(client_channel_, nullptr, 8, &packet)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclRawRead(client_channel_, nullptr, 0, nullptr)), STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Status(KmclRawWrite(client_channel_, 9, 0, 0, nullptr, 0)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclRawWrite(client_channel_, KMCL_RAW_DATA, 2, 0, nullptr, 0)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(KmclRawWrite(client_channel_, KMCL_RAW_COMPLETION, 1, 0, nullptr, 0)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(KmclRawWrite(client_channel_, KMCL_RAW_DATA, 0, 0, nullptr, 8)),
            STATUS_INVALID_PARAMETER_5);
  for (const UINT32 directions : {0U, 4U, 7U}) {
    EXPECT_EQ(Status(KmclRawWait(client_channel_, directions, 0, nullptr)),
              STATUS_INVALID_PARAMETER_2);
    EXPECT_EQ(Status(KmclRawArm(client_channel_, directions, 0)), STATUS_INVALID_PARAMETER_2);
  }
}

TEST_F(RawArguments, TheInitWindowEndsWithEnable) {
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  EXPECT_EQ(Status(KmclChannelInitSetRaw(server_channel_)), STATUS_INVALID_PARAMETER_1);
}

}  // namespace

}  // namespace kmcl::contract
