// Sub-channels and target processors (KMCL reference 2.6, rows 64 and 67; VMBus
// reference 3.4, 3.6).
#include <set>

#include "bus_fixture.h"
#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

class SubChannels : public BusTest {
 protected:
  Channel AddServerSub(const Channel& primary) {
    const Channel channel = AddServer();
    EXPECT_EQ(channel.Init("primary " + primary.id()), STATUS_SUCCESS);
    return channel;
  }
  Channel AddClientSub(const Channel& primary) {
    const Channel channel = AddClient();
    EXPECT_EQ(channel.Init("primary " + primary.id()), STATUS_SUCCESS);
    return channel;
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, SubChannels, AllPlacements(), NameOfPlacement);

TEST_P(SubChannels, CarryPacketsBesideTheirPrimaryInTheOrderOfTheirNumbers) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_first = AddServerSub(server);
  const Channel server_second = AddServerSub(server);
  const Channel client_first = AddClientSub(client);
  const Channel client_second = AddClientSub(client);
  Open(server, client);
  // Offered in the other order: the numbers are those of the Init calls.
  ASSERT_EQ(server_second.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(server_first.Enable(), STATUS_SUCCESS);
  server_first.Start();
  server_second.Start();
  // Both offers have come when a channel offered after them has.
  ChannelOptions other;
  other.type = 2;
  const Channel later_server = AddServer(other);
  const Channel later_client = AddClient(other);
  Open(later_server, later_client);
  ASSERT_EQ(client_first.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client_first.Wait("PostStarted"));
  ASSERT_EQ(client_second.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client_second.Wait("PostStarted"));
  EXPECT_EQ(client_first.Do("get", "instance"), "1");
  Mark(client_first, server_first);
  Mark(client_second, server_second);
  Mark(server_first, client_first);
  Mark(client, server);
}

TEST_P(SubChannels, AClientsWaitsForItsPrimaryAndForAnOffer) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_sub = AddServerSub(server);
  const Channel client_sub = AddClientSub(client);
  EXPECT_EQ(client_sub.Enable(), STATUS_INVALID_DEVICE_STATE) << "its primary is Disabled";
  EXPECT_EQ(server_sub.Enable(), STATUS_INVALID_DEVICE_STATE);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client_sub.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(server_sub.Enable(), STATUS_SUCCESS);
  server.Start();
  server_sub.Start();
  ASSERT_TRUE(client_sub.Wait("PostStarted"));
  EXPECT_EQ(client.Count("Opened"), 1u) << "a sub-channel opens after its primary";
  Mark(client_sub, server_sub);
}

TEST_P(SubChannels, AnOrdinaryChannelNeverBindsToASubChannelOffer) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_sub = AddServerSub(server);
  Open(server, client);
  ASSERT_EQ(server_sub.Enable(), STATUS_SUCCESS);
  ChannelOptions any;
  any.instance = "any";
  const Channel other = AddClient(any);
  ASSERT_EQ(other.Enable(), STATUS_SUCCESS);
  const Channel client_sub = AddClientSub(client);
  ASSERT_EQ(client_sub.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client_sub.Wait("Opened"));
  EXPECT_EQ(other.Count("Opened"), 0u);
}

TEST_P(SubChannels, TheClientsPrimaryClosesAfterItsSubChannelsAndMayComeBack) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_sub = AddServerSub(server);
  const Channel client_sub = AddClientSub(client);
  Open(server, client);
  Open(server_sub, client_sub);
  client_sub.Gate("Closed");
  client.Async("disable");
  ASSERT_TRUE(client.Wait("Suspend"));
  ASSERT_TRUE(client_sub.Wait("Closed"));
  EXPECT_EQ(client.Count("Closed"), 0u) << "EvtVmbChannelClosed of the sub-channel still runs";
  client_sub.Release("Closed");
  ASSERT_TRUE(client.Wait("returned disable ok"));
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  client_sub.Disable();
  ASSERT_EQ(client_sub.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client_sub.Wait("PostStarted", 2));
  ASSERT_TRUE(server_sub.Wait("PostStarted", 2));
  Mark(client_sub, server_sub);
}

TEST_P(SubChannels, DisablingTheServersPrimaryDisablesThemFirst) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_sub = AddServerSub(server);
  const Channel client_sub = AddClientSub(client);
  Open(server, client);
  Open(server_sub, client_sub);
  server_sub.Gate("Closed");
  server.Async("disable");
  ASSERT_TRUE(server_sub.Wait("Closed"));
  EXPECT_EQ(server.Count("Closed"), 0u);
  server_sub.Release("Closed");
  ASSERT_TRUE(server.Wait("returned disable ok"));
  ASSERT_TRUE(client_sub.Wait("Closed"));
  ASSERT_TRUE(client.Wait("Closed"));
  client_sub.Disable();
  client.Disable();
  EXPECT_EQ(server_sub.Enable(), STATUS_INVALID_DEVICE_STATE)
      << "it is Disabled, and so is the primary";
  Open(server, client);
  Open(server_sub, client_sub);
  Mark(client_sub, server_sub);
}

TEST_P(SubChannels, NoneIsEnabledWhileItsPrimaryIsBeingDisabled) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_first = AddServerSub(server);
  const Channel server_second = AddServerSub(server);
  const Channel client_first = AddClientSub(client);
  const Channel client_second = AddClientSub(client);
  Open(server, client);
  Open(server_first, client_first);
  Open(server_second, client_second);
  server_second.Gate("Closed");
  server.Async("disable");
  ASSERT_TRUE(server_second.Wait("Closed"));
  EXPECT_EQ(server_first.Enable(), STATUS_INVALID_DEVICE_STATE) << "it would be without a primary";
  server_second.Release("Closed");
  ASSERT_TRUE(server.Wait("returned disable ok"));
}

TEST_P(SubChannels, ARevokedSubChannelLeavesItsPrimaryAlone) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_sub = AddServerSub(server);
  const Channel client_sub = AddClientSub(client);
  Open(server, client);
  Open(server_sub, client_sub);
  server_sub.Disable();
  ASSERT_TRUE(client_sub.Wait("Closed"));
  Mark(client, server);
  EXPECT_EQ(client.Count("Closed"), 0u);
}

TEST_P(SubChannels, TheEndOfTheServerClosesTheSubChannelFirst) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  const Channel server_sub = AddServerSub(server);
  const Channel client_sub = AddClientSub(client);
  Open(server, client);
  Open(server_sub, client_sub);
  client_sub.Gate("Closed");
  if (placement() == Placement::kServerProcess) {
    KillServer();
  } else {
    server.Disable();
  }
  ASSERT_TRUE(client_sub.Wait("Closed"));
  EXPECT_EQ(client.Count("Closed"), 0u);
  client_sub.Release("Closed");
  ASSERT_TRUE(client.Wait("Closed"));
}

using SubChannelArguments = DirectTest;

TEST_F(SubChannelArguments, ThePrimaryIsAnOtherChannelOfTheSameEndThatIsNoSubChannel) {
  VMBCHANNEL const sub = Allocate(true);
  VMBCHANNEL const third = Allocate(true);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(nullptr, server_channel_)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(sub, nullptr)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(sub, sub)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(sub, client_channel_)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(sub, server_channel_)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(third, sub)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(server_channel_, third)),
            STATUS_INVALID_PARAMETER_2)
      << "it has sub-channels of its own";
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(sub)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelInitSetPrimaryChannel(sub, server_channel_)),
            STATUS_INVALID_PARAMETER_1);
  VmbChannelDisable(server_channel_);
  VmbChannelCleanup(third);
  VmbChannelCleanup(sub);
}

TEST_F(SubChannelArguments, AProcessorIsOneOfTheEndpointsThreads) {
  EXPECT_EQ(Status(VmbClientChannelInitSetTargetProcessorIndex(nullptr, 0)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbClientChannelInitSetTargetProcessorIndex(server_channel_, 0)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbClientChannelInitSetTargetProcessorIndex(client_channel_, 1)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbClientChannelInitSetTargetProcessorIndex(client_channel_, 0)),
            STATUS_SUCCESS);
}

class TargetProcessor : public BusTest {
  std::string endpoint_options() const override { return "threads 3"; }
};

INSTANTIATE_TEST_SUITE_P(Contract, TargetProcessor, AllPlacements(), NameOfPlacement);

TEST_P(TargetProcessor, ChannelsOfTheSameProcessShareAThread) {
  std::set<std::string> threads[3];
  for (UINT32 i = 0; i < 6; ++i) {
    ChannelOptions options;
    options.instance = std::to_string(i + 1);
    const Channel server = AddServer(options);
    const Channel client = AddClient(options);
    const UINT32 processor = i / 2;  // in turn they would be spread differently
    ASSERT_EQ(client.Init("processor " + std::to_string(processor)), STATUS_SUCCESS);
    Open(server, client);
    ASSERT_EQ(server.Send(i), STATUS_SUCCESS);
    ASSERT_TRUE(client.Wait("packet " + std::to_string(i)));
    EXPECT_EQ(client.Detail("packet " + std::to_string(i), "irql"), "2");
    threads[processor].insert(client.Detail("packet " + std::to_string(i), "tid"));
  }
  std::set<std::string> all;
  for (const auto& each : threads) {
    EXPECT_EQ(each.size(), 1u);
    all.insert(each.begin(), each.end());
  }
  EXPECT_EQ(all.size(), 3u);
}

}  // namespace

}  // namespace kmcl::contract
