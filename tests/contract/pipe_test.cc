// Pipe mode (KMCL reference 2.3, 3.4 and 12.56).
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

class Pipes : public BusTest {
 protected:
  Channel AddPipeServer() {
    Channel server = AddServer();
    EXPECT_EQ(
        server.Init("server-flags " + std::to_string(VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE)),
        STATUS_SUCCESS);
    EXPECT_EQ(server.Init("flags 1"), STATUS_SUCCESS);
    return server;
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, Pipes, AllPlacements(), NameOfPlacement);

TEST_P(Pipes, CarryDatagramsWithoutTransactions) {
  const Channel server = AddPipeServer();
  const Channel client = AddClient();
  ASSERT_EQ(client.Init("flags 1"), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  for (const UINT32 bytes : {8U, 16U, 64U, 4096U}) {
    const UINT32 number = bytes;
    ASSERT_EQ(client.Send(number, bytes), STATUS_SUCCESS);
    ASSERT_EQ(server.Send(number, bytes), STATUS_SUCCESS);
    const std::string packet = "packet " + std::to_string(number);
    ASSERT_TRUE(server.Wait(packet));
    ASSERT_TRUE(client.Wait(packet));
    EXPECT_EQ(server.Detail(packet, "len"), std::to_string(bytes));
    EXPECT_EQ(client.Detail(packet, "len"), std::to_string(bytes));
  }
}

TEST_P(Pipes, KeepTheExactLengthOfEachMessageAndCarryEmptyOnes) {
  const Channel server = AddPipeServer();
  const Channel client = AddClient();
  ASSERT_EQ(client.Init("flags 1"), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  for (const UINT32 bytes : {9U, 15U, 17U, 4095U}) {
    ASSERT_EQ(client.Send(bytes, bytes), STATUS_SUCCESS);
    ASSERT_EQ(server.Send(bytes, bytes), STATUS_SUCCESS);
    const std::string packet = "packet " + std::to_string(bytes);
    ASSERT_TRUE(server.Wait(packet));
    ASSERT_TRUE(client.Wait(packet));
    EXPECT_EQ(server.Detail(packet, "len"), std::to_string(bytes));
    EXPECT_EQ(client.Detail(packet, "len"), std::to_string(bytes));
  }
  ASSERT_EQ(client.Send(0, 0), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 0"));
  EXPECT_EQ(server.Detail("packet 0", "len"), "0");
}

TEST_P(Pipes, RefuseTransactions) {
  const Channel server = AddPipeServer();
  const Channel client = AddClient();
  ASSERT_EQ(client.Init("flags 1"), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(client.Send(1, 16, kWait), STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(client.Synchronous(2, 16, kWait, "none", 64).status, STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(server.Send(3, 16, kWait), STATUS_INVALID_PARAMETER_5);
}

TEST_P(Pipes, AClientThatExpectsTheOtherModeFailsToOpen) {
  const Channel server = AddPipeServer();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PnpFailure"));
  const Channel plain = AddServer({.instance = "2"});
  ASSERT_EQ(plain.Enable(), STATUS_SUCCESS);
  const Channel pipe = AddClient({.instance = "2"});
  ASSERT_EQ(pipe.Init("flags 1"), STATUS_SUCCESS);
  ASSERT_EQ(pipe.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(pipe.Wait("PnpFailure"));
  EXPECT_EQ(server.Count("Opened") + plain.Count("Opened"), 0U);
}

}  // namespace

}  // namespace kmcl::contract
