// A client's channel through its states: transitions C1 to C11 of KMCL reference 4.4, and how it
// finds its offer.
#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<std::string> kStates{"Opened",      "Closed",   "Suspend",   "Started",
                                       "PostStarted", "returned", "PnpFailure"};

class ClientStates : public BusTest {
 protected:
  std::string Offers() { return client_port().Exchange("offers " + client()); }
};

INSTANTIATE_TEST_SUITE_P(Contract, ClientStates, AllPlacements(), NameOfPlacement);

TEST_P(ClientStates, C1AFreshChannelIsDisabledAndSilent) {
  const Channel client = AddClient();
  EXPECT_EQ(client.Send(1), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(client.Synchronous(1, 16, 0, "0", 0).status, STATUS_INVALID_DEVICE_STATE);
  EXPECT_THAT(client.Names(), IsEmpty());
}

TEST_P(ClientStates, C2EnableWaitsForAnOfferThatComesLater) {
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  EXPECT_THAT(client.Names(), IsEmpty());
  const Channel server = AddServer();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  EXPECT_THAT(client.Names(), ElementsAre("Opened", "Started", "PostStarted"));
}

TEST_P(ClientStates, C2AnotherInstanceOrTypeIsNotItsOffer) {
  const Channel client = AddClient({.type = 4, .instance = "9"});
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  const Channel other_instance = AddServer({.type = 4, .instance = "8"});
  const Channel other_type = AddServer({.type = 5, .instance = "9"});
  const Channel right = AddServer({.type = 4, .instance = "9"});
  ASSERT_EQ(other_instance.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(other_type.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(right.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("Opened"));
  ASSERT_TRUE(right.Wait("Opened"));
  EXPECT_THAT(other_instance.Names(), IsEmpty());
  EXPECT_THAT(other_type.Names(), IsEmpty());
}

TEST_P(ClientStates, C3AnOfferThatStandsIsOpenedAtOnce) {
  const Channel server = AddServer();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  EXPECT_THAT(client.Names(), ElementsAre("Opened", "Started", "PostStarted"));
}

TEST_P(ClientStates, C4ARefusedOpenIsAPnpFailureAndEndsDisabled) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  server.Set("opened-status", STATUS_INSUFFICIENT_RESOURCES);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PnpFailure"));
  EXPECT_EQ(client.Detail("PnpFailure", "irql"), "0");
  EXPECT_NE(client.Detail("PnpFailure", "status"), "STATUS_SUCCESS");
  client.Disable();  // waits for the callback's end; the channel is Disabled
  EXPECT_EQ(client.Send(1), STATUS_INVALID_DEVICE_STATE);
  EXPECT_THAT(client.Names(), ElementsAre("PnpFailure"));
  EXPECT_EQ(Offers(), "0 1.1:free");
}

TEST_P(ClientStates, C4bAFailingOpenedClosesAgainWithoutClosed) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  client.Set("opened-status", STATUS_UNSUCCESSFUL);
  client.Gate("Opened");
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("Opened"));
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);  // queued: not started yet
  client.Release("Opened");
  ASSERT_TRUE(client.Wait("done 1 STATUS_DEVICE_REMOVED"));
  ASSERT_TRUE(server.Wait("Closed"));
  client.Disable();
  EXPECT_THAT(client.Names({"Opened", "Started", "Suspend", "Closed"}), ElementsAre("Opened"));
  EXPECT_EQ(client.Send(2), STATUS_INVALID_DEVICE_STATE);
  // The server's end has seen an ordinary open and close.
  EXPECT_EQ(server.Count("Closed"), 1U);
  client.Set("opened-status", STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_TRUE(server.Wait("Opened", 2));
}

TEST_P(ClientStates, C5APausedRequestOpensWithoutStarting) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  client.Pause();  // while Disabled: returns at once, and holds for the next open
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("PostStarted"));
  ASSERT_TRUE(client.Wait("Opened"));
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 2));
  ASSERT_TRUE(server.Wait("done 2 STATUS_SUCCESS"));
  EXPECT_THAT(client.Names(), ElementsAre("Opened"));
  client.Start();
  ASSERT_TRUE(client.Wait("batch 2"));
  ASSERT_TRUE(client.Wait("PostStarted"));
}

TEST_P(ClientStates, C6APauseSuspendsAndAStartResumes) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Pause();
  ASSERT_EQ(server.Send(1), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_THAT(client.Names(), ElementsAre("Opened", "Started", "PostStarted", "Suspend"));
  client.Start();
  ASSERT_TRUE(client.Wait("packet 1"));
}

TEST_P(ClientStates, C7ARescindOfAnActiveChannelSuspendsAndCloses) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Set("hold", 1);
  server.Set("hold", 1);
  ASSERT_NO_FATAL_FAILURE(Mark(server, client));  // stays outstanding at the client
  ASSERT_EQ(client.Send(5, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("packet 5"));
  server.Async("disable");
  ASSERT_TRUE(server.Wait("Suspend"));
  server.Complete(5);
  // The server never waits for the client: it ends although the client still drains.
  ASSERT_TRUE(server.Wait("returned disable ok"));
  ASSERT_TRUE(client.Wait("Suspend"));
  EXPECT_EQ(client.Count("Closed"), 0U);
  client.Do("complete", "all");
  ASSERT_TRUE(client.Wait("Closed"));
  client.Disable();
  EXPECT_EQ(client.Send(6), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Offers(), "0");
}

TEST_P(ClientStates, C7ARescindOfAPausedChannelClosesIt) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Pause();
  server.Disable();
  ASSERT_TRUE(client.Wait("Closed"));
  EXPECT_THAT(client.Names(kStates),
              ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Closed"));
}

TEST_P(ClientStates, C8DisableOfAnActiveChannelClosesIt) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Disable();
  EXPECT_THAT(client.Names(kStates),
              ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Closed"));
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_EQ(Offers(), "0 1.1:free");
}

TEST_P(ClientStates, C8TheServerLearnsOfTheCloseBeforeClosedReturns) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Gate("Closed");
  client.Async("disable");
  ASSERT_TRUE(client.Wait("Closed"));
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_EQ(client.Count("returned disable ok"), 0U);
  client.Release("Closed");
  ASSERT_TRUE(client.Wait("returned disable ok"));
}

TEST_P(ClientStates, C9DisableStopsWaiting) {
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  client.Disable();
  const Channel server = AddServer();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  // Another channel of this client may have the offer; once it has, the first was not asked.
  const Channel other = AddClient();
  ASSERT_EQ(other.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(other.Wait("Opened"));
  EXPECT_THAT(client.Names(), IsEmpty());
}

TEST_P(ClientStates, C10AWaitOutlastsOffersThatComeAndGo) {
  const Channel client = AddClient({.instance = "2"});
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  const Channel passing = AddServer({.instance = "1"});
  ASSERT_EQ(passing.Enable(), STATUS_SUCCESS);
  passing.Disable();
  const Channel server = AddServer({.instance = "2"});
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  EXPECT_THAT(client.Names(kStates), ElementsAre("Opened", "Started", "PostStarted"));
}

TEST_P(ClientStates, C11ARescindedChannelIsEnabledAgainByTheDriverOnly) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Disable();
  ASSERT_TRUE(client.Wait("Closed"));
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  const Channel probe = AddClient();
  ASSERT_EQ(probe.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(probe.Wait("Opened"));  // the offer came, and the rescinded channel let it pass
  EXPECT_EQ(client.Count("Opened"), 1U);
  probe.Disable();
  client.Disable();  // the safe way to wait for the end of Closed
  server.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
}

TEST_P(ClientStates, AWildcardTakesTheFirstFreeOfferAndNamesItsInstance) {
  const Channel first = AddServer({.type = 6, .instance = "61"});
  const Channel second = AddServer({.type = 6, .instance = "62"});
  ASSERT_EQ(first.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(second.Enable(), STATUS_SUCCESS);
  const Channel one = AddClient({.type = 6, .instance = "any"});
  const Channel two = AddClient({.type = 6, .instance = "any"});
  EXPECT_EQ(one.Do("get", "instance"), "0");
  ASSERT_EQ(one.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(one.Wait("Opened"));
  EXPECT_EQ(one.Do("get", "instance"), "61");
  ASSERT_EQ(two.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(two.Wait("Opened"));
  EXPECT_EQ(two.Do("get", "instance"), "62");
  EXPECT_EQ(first.Do("get", "instance"), "61");
}

TEST_P(ClientStates, TwoWaitingWildcardsShareTheOffersThatCome) {
  const Channel one = AddClient({.instance = "any"});
  const Channel two = AddClient({.instance = "any"});
  ASSERT_EQ(one.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(two.Enable(), STATUS_SUCCESS);
  const Channel first = AddServer({.instance = "1"});
  const Channel second = AddServer({.instance = "2"});
  ASSERT_EQ(first.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(second.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(one.Wait("Opened"));
  ASSERT_TRUE(two.Wait("Opened"));
  EXPECT_NE(one.Do("get", "instance"), two.Do("get", "instance"));
}

TEST_P(ClientStates, ABoundOfferIsNotGivenToASecondChannel) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  const Channel second = AddClient();
  ASSERT_EQ(second.Enable(), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  EXPECT_THAT(second.Names(), IsEmpty());
  EXPECT_EQ(server.Count("Opened"), 1U);
}

TEST_P(ClientStates, TheDriversPointerSurvivesDisableAndEnable) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Disable();
  EXPECT_EQ(client.Do("get", "pointer"), "1");
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  EXPECT_EQ(client.Do("get", "pointer"), "1");
}

TEST_P(ClientStates, InterruptLatencyIsKeptWhileOpen) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const auto set = [](const Channel& channel, int latency) {
    return channel.Do("get", "latency " + std::to_string(latency));
  };
  const std::string closed = std::to_string(STATUS_INVALID_DEVICE_STATE) + " 0";
  EXPECT_EQ(set(client, 5), closed);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_THAT(set(client, 7), testing::StartsWith("0 "));
  EXPECT_EQ(set(client, 9), "0 7");
  EXPECT_EQ(set(server, 9), std::to_string(STATUS_INVALID_PARAMETER_1) + " 0");
  client.Disable();
  EXPECT_EQ(set(client, 5), closed);
}

TEST_P(ClientStates, NoMmioIsReservedUnlessTheServerAsks) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(client.Do("get", "mmio"), "0 0");
}

TEST_P(ClientStates, TheClientLearnsHowMuchMmioIsReserved) {
  const Channel server = AddServer();
  ASSERT_EQ(server.Init("mmio 8 16"), STATUS_SUCCESS);
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_THAT(client.Do("get", "mmio"), testing::EndsWith(" " + std::to_string(8 << 20)));
  EXPECT_EQ(server.Do("get", "mmio"), "0 0");
}

TEST_P(ClientStates, AnOfferForAnotherTrustLevelIsNotSeen) {
  const Channel higher = AddServer({.instance = "2"});
  ASSERT_EQ(higher.Init("vtl 2"), STATUS_SUCCESS);
  ASSERT_EQ(higher.Enable(), STATUS_SUCCESS);
  const Channel server = AddServer({.instance = "3"});
  const Channel client = AddClient({.instance = "any"});
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("Opened"));
  EXPECT_EQ(client.Do("get", "instance"), "3");
  EXPECT_EQ(Offers(), "0 1.3:used");
}

}  // namespace

}  // namespace kmcl::contract
