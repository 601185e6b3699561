// External data: KMCL reference 5.5 and 7, rows 14, 21, 37, 38 and 39 of its checklist.
#include <array>

#include "bus_fixture.h"
#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

constexpr UINT32 kForce = VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH;

// A send with external data; see driver_external.cc.
struct Send {
  std::string function = "send";
  std::string memory = "heap";
  std::string lock = "build";
  UINT32 offset = 0;
  UINT32 length = 0;
  UINT32 flags = kWait;
  std::string timeout = "none";
  std::string pieces = "100:5000";

  std::string Words(UINT32 number) const {
    return std::to_string(number) + " " + function + " " + memory + " " + lock + " " +
           std::to_string(offset) + " " + std::to_string(length) + " " + std::to_string(flags) +
           " " + timeout + " " + pieces;
  }
};

struct Sent {
  Status status = STATUS_SUCCESS;
  std::string hash;
};

Sent Describe(const Channel& client, UINT32 number, const Send& send = {}) {
  const std::string answer = client.Do("describe", send.Words(number));
  const std::size_t space = answer.find(' ');
  return {static_cast<NTSTATUS>(std::stol(answer)), answer.substr(space + 1)};
}

class ExternalData : public BusTest {
 protected:
  // Opens a channel whose ends have been given these init words before.
  void OpenChannel(const std::string& server_init = "", const std::string& client_init = "") {
    server_.emplace(AddServer());
    client_.emplace(AddClient());
    if (!server_init.empty()) {
      ASSERT_EQ(server_->Init(server_init), STATUS_SUCCESS);
    }
    if (!client_init.empty()) {
      ASSERT_EQ(client_->Init(client_init), STATUS_SUCCESS);
    }
    ASSERT_NO_FATAL_FAILURE(Open(*server_, *client_));
  }

  const Channel& server() const { return *server_; }
  const Channel& client() const { return *client_; }

  // Sends, and checks that the server saw the same bytes in that many MDLs, and that what it wrote has
  // come back.
  void RoundTrip(UINT32 number, const Send& send, int mdls, std::size_t bytes,
                 const std::string& memory = "written") {
    const Sent sent = Describe(client(), number, send);
    ASSERT_EQ(sent.status, STATUS_SUCCESS);
    const std::string done = "described " + std::to_string(number) + " STATUS_SUCCESS";
    ASSERT_TRUE(client().Wait(done));
    const std::string seen = "external " + std::to_string(number);
    ASSERT_TRUE(server().Wait(seen));
    EXPECT_EQ(server().Detail(seen, "status"), "STATUS_SUCCESS");
    EXPECT_EQ(server().Detail(seen, "mdls"), std::to_string(mdls));
    EXPECT_EQ(server().Detail(seen, "bytes"), std::to_string(bytes));
    EXPECT_EQ(server().Detail(seen, "hash"), sent.hash);
    EXPECT_EQ(client().Detail(done, "memory"), memory);
    for (const Event& event : server().Events()) {
      EXPECT_EQ(event.detail.find("another"), std::string::npos) << event.detail;
      EXPECT_EQ(event.detail.find("unlocked"), std::string::npos) << event.detail;
      EXPECT_EQ(event.detail.find("unmapped"), std::string::npos) << event.detail;
    }
  }

  // Sends something that the server's channel does not accept.
  void Refused(UINT32 number, const Send& send, const std::string& status) {
    ASSERT_EQ(Describe(client(), number, send).status, STATUS_SUCCESS);
    const std::string seen = "external " + std::to_string(number);
    ASSERT_TRUE(server().Wait(seen));
    EXPECT_EQ(server().Detail(seen, "status"), status);
    EXPECT_EQ(server().Detail(seen, "mdl"), "none");
    ASSERT_TRUE(client().Wait("described " + std::to_string(number) + " STATUS_SUCCESS"));
  }

 private:
  std::optional<Channel> server_;
  std::optional<Channel> client_;
};

INSTANTIATE_TEST_SUITE_P(Contract, ExternalData, AllPlacements(), NameOfPlacement);

TEST_P(ExternalData, AnyMemoryIsReadAndWrittenByTheServer) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  UINT32 number = 1;
  for (const char* memory : {"heap", "pool"}) {
    for (const char* lock : {"build", "write"}) {
      SCOPED_TRACE(std::string(memory) + " " + lock);
      ASSERT_NO_FATAL_FAILURE(
          RoundTrip(number++, {.memory = memory, .lock = lock, .pieces = "100:5000"}, 1, 5000));
      ASSERT_NO_FATAL_FAILURE(
          RoundTrip(number++, {.memory = memory, .lock = lock, .pieces = "4095:1"}, 1, 1));
    }
  }
  EXPECT_EQ(server().Detail("external 1", "offsets"), "100");
  EXPECT_EQ(server().Detail("packet 1", "flags"),
            std::to_string(VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA));
}

TEST_P(ExternalData, EachMdlOfAChainIsOneAtTheServer) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string pieces = "10:20 8192:8192 5000:100 40000:30000";
  ASSERT_NO_FATAL_FAILURE(RoundTrip(1, {.memory = "heap", .pieces = pieces}, 4, 38312));
  ASSERT_NO_FATAL_FAILURE(RoundTrip(2, {.memory = "pool", .pieces = pieces}, 4, 38312));
  EXPECT_EQ(server().Detail("external 1", "offsets"), "10,0,904,3136");
  EXPECT_EQ(server().Detail("external 2", "offsets"), "10,0,904,3136");
}

TEST_P(ExternalData, WhatWasLockedForReadingIsNotWrittenBack) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  ASSERT_NO_FATAL_FAILURE(
      RoundTrip(1, {.memory = "heap", .lock = "read"}, 1, 5000, "unchanged"));
}

TEST_P(ExternalData, ReadOnlyMdlsLeaveTheMemoryAlone) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  server().Set("external-read-only", 1);
  ASSERT_NO_FATAL_FAILURE(RoundTrip(1, {.memory = "heap"}, 1, 5000, "unchanged"));
  ASSERT_NO_FATAL_FAILURE(RoundTrip(2, {.memory = "pool"}, 1, 5000, "unchanged"));
}

TEST_P(ExternalData, ASubRangeBeginsAndEndsInsideOfMdls) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string pieces = "0:100 4096:5000 12288:100";
  for (const char* memory : {"heap", "pool"}) {
    const UINT32 first = memory == std::string("heap") ? 1 : 11;
    Send send{.function = "mdl", .memory = memory, .offset = 50, .length = 0, .pieces = pieces};
    ASSERT_NO_FATAL_FAILURE(RoundTrip(first, send, 3, 5150));  // to the end
    send.length = 60;
    ASSERT_NO_FATAL_FAILURE(RoundTrip(first + 1, send, 2, 60));
    send.offset = 100;
    send.length = 5000;
    ASSERT_NO_FATAL_FAILURE(RoundTrip(first + 2, send, 1, 5000));  // exactly the second
    send.offset = 0;
    send.length = 5200;
    ASSERT_NO_FATAL_FAILURE(RoundTrip(first + 3, send, 3, 5200));  // all
    send.offset = 4200;
    send.length = 1;
    ASSERT_NO_FATAL_FAILURE(RoundTrip(first + 4, send, 1, 1));
  }
  EXPECT_EQ(server().Detail("external 5", "offsets"), "4");
}

TEST_P(ExternalData, AForcedLengthReachesToThePagesEnd) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  Send send{.function = "mdl",
            .memory = "heap",
            .offset = 50,
            .length = 4096 - 150,
            .flags = kWait | kForce,
            .pieces = "100:200 8192:100"};
  ASSERT_NO_FATAL_FAILURE(RoundTrip(1, send, 1, 4096 - 150));
  send.memory = "pool";
  ASSERT_NO_FATAL_FAILURE(RoundTrip(2, send, 1, 4096 - 150));
  send.length += 1;
  EXPECT_EQ(Describe(client(), 3, send).status, STATUS_INVALID_PARAMETER_6);
  send.offset = 4096;
  EXPECT_EQ(Describe(client(), 4, send).status, STATUS_INVALID_PARAMETER_5);
}

TEST_P(ExternalData, PageNumbersAreWholePagesInOneMdl) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  // In any order.
  Send send{.function = "pfns", .memory = "heap", .pieces = "3:1 0:1 1:1 7:1"};
  ASSERT_NO_FATAL_FAILURE(RoundTrip(1, send, 1, 4 * 4096));
  send.memory = "pool";
  ASSERT_NO_FATAL_FAILURE(RoundTrip(2, send, 1, 4 * 4096));
}

TEST_P(ExternalData, ASynchronousRequestTakesItAlong) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  ASSERT_NO_FATAL_FAILURE(
      RoundTrip(1, {.function = "sync", .memory = "heap", .pieces = "9:5000 12288:70"}, 2, 5070));
  ASSERT_NO_FATAL_FAILURE(RoundTrip(2, {.function = "sync", .memory = "pool"}, 1, 5000));
}

TEST_P(ExternalData, ItIsSentInOrderWhenTheRingIsFull) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted"));
  UINT32 number = 1;
  std::vector<Sent> sent;
  while (client.Counters().Queued < 5) {
    ASSERT_LT(number, 1000U);
    ASSERT_EQ(client.Send(number++, 4000), STATUS_SUCCESS);
    ++number;
    sent.push_back(Describe(client, number - 1, {.memory = number % 4 == 0 ? "pool" : "heap"}));
    ASSERT_EQ(sent.back().status, STATUS_SUCCESS);
  }
  server.Start();
  const UINT32 count = number - 1;
  ASSERT_NO_FATAL_FAILURE(WaitForPackets(server, 1, count));
  for (UINT32 i = 2; i <= count; i += 2) {
    const std::string done = "described " + std::to_string(i) + " STATUS_SUCCESS";
    ASSERT_TRUE(client.Wait(done));
    EXPECT_EQ(client.Detail(done, "memory"), "written");
    EXPECT_EQ(server.Detail("external " + std::to_string(i), "hash"), sent[i / 2 - 1].hash);
  }
}

TEST_P(ExternalData, ManySendsInFlightKeepApart) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  server().Set("hold", 1);
  constexpr UINT32 kCount = 40;
  std::vector<Sent> sent;
  for (UINT32 i = 1; i <= kCount; ++i) {
    sent.push_back(Describe(
        client(), i,
        {.memory = i % 3 == 0 ? "pool" : "heap", .pieces = std::to_string(i * 97) + ":9000 1:50"}));
    ASSERT_EQ(sent.back().status, STATUS_SUCCESS);
  }
  ASSERT_NO_FATAL_FAILURE(WaitForPackets(server(), 1, kCount));
  for (UINT32 i = kCount; i >= 1; --i) {
    server().Complete(i);
  }
  for (UINT32 i = 1; i <= kCount; ++i) {
    const std::string done = "described " + std::to_string(i) + " STATUS_SUCCESS";
    ASSERT_TRUE(client().Wait(done));
    EXPECT_EQ(server().Detail("external " + std::to_string(i), "hash"), sent[i - 1].hash);
  }
}

TEST_P(ExternalData, WithoutWaitForCompletionItIsRefused) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  EXPECT_EQ(Describe(client(), 1, {.flags = 0}).status, STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(Describe(client(), 2, {.function = "sync", .flags = 0}).status,
            STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(Describe(client(), 3, {.function = "mdl", .flags = 0}).status,
            STATUS_INVALID_PARAMETER_7);
  EXPECT_EQ(Describe(client(), 4, {.function = "pfns", .flags = 0, .pieces = "0:1"}).status,
            STATUS_INVALID_PARAMETER_6);
}

TEST_P(ExternalData, AServerCannotDescribe) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  EXPECT_EQ(Describe(server(), 1).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(server(), 2, {.function = "mdl"}).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(server(), 3, {.function = "pfns", .pieces = "0:1"}).status,
            STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(server(), 4, {.function = "sync", .timeout = "0"}).status,
            STATUS_INVALID_PARAMETER_4);
}

TEST_P(ExternalData, RangesOutsideOfTheChainAreRefused) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  Send send{.function = "mdl", .offset = 300, .pieces = "0:200 4096:100"};
  EXPECT_EQ(Describe(client(), 1, send).status, STATUS_INVALID_PARAMETER_5);
  send.offset = 299;
  send.length = 2;
  EXPECT_EQ(Describe(client(), 2, send).status, STATUS_INVALID_PARAMETER_6);
  send.length = 1;
  EXPECT_EQ(Describe(client(), 3, send).status, STATUS_SUCCESS);
  EXPECT_EQ(Describe(client(), 4, {.function = "mdl", .pieces = ""}).status,
            STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(client(), 5, {.pieces = "0:0"}).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(client(), 6, {.function = "pfns", .pieces = ""}).status,
            STATUS_INVALID_PARAMETER_4);
}

TEST_P(ExternalData, TheClientsLimitsHold) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel("", "external 10000 2"));
  ASSERT_NO_FATAL_FAILURE(RoundTrip(1, {.pieces = "0:9999 20000:1"}, 2, 10000));
  EXPECT_EQ(Describe(client(), 2, {.pieces = "0:10001"}).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(client(), 3, {.pieces = "0:1 10:1 20:1"}).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(client(), 4, {.function = "mdl", .pieces = "0:1 10:1 20:1"}).status,
            STATUS_INVALID_PARAMETER_4);
  // The part counts, not the chain.
  ASSERT_NO_FATAL_FAILURE(RoundTrip(
      5, {.function = "mdl", .offset = 1, .length = 2, .pieces = "0:1 10:1 20:1"}, 2, 2));
  EXPECT_EQ(Describe(client(), 6, {.function = "pfns", .pieces = "0:1 1:1 2:1"}).status,
            STATUS_INVALID_PARAMETER_5);
}

TEST_P(ExternalData, TheServersLimitsHold) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel("external 10000 2"));
  ASSERT_NO_FATAL_FAILURE(RoundTrip(1, {.pieces = "0:9999 20000:1"}, 2, 10000));
  ASSERT_NO_FATAL_FAILURE(Refused(2, {.pieces = "0:10001"}, "STATUS_INVALID_BUFFER_SIZE"));
  ASSERT_NO_FATAL_FAILURE(Refused(3, {.pieces = "0:1 10:1 20:1"}, "STATUS_INVALID_BUFFER_SIZE"));
}

TEST_P(ExternalData, RingsGrowWithTheLimits) {
  // Two megabytes take more than 4,096 bytes to describe, which is all that a ring of two pages has.
  const Channel server = AddServer({.maximum_packet = 64});
  const Channel client = AddClient({.maximum_packet = 64, .pages = 2});
  ASSERT_EQ(client.Init("external 2097152 1"), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  for (const char* memory : {"pool", "heap"}) {
    const UINT32 number = memory == std::string("pool") ? 1 : 2;
    const Sent sent = Describe(client, number, {.memory = memory, .pieces = "77:2097152"});
    ASSERT_EQ(sent.status, STATUS_SUCCESS);
    const std::string done = "described " + std::to_string(number) + " STATUS_SUCCESS";
    ASSERT_TRUE(client.Wait(done));
    EXPECT_EQ(client.Detail(done, "memory"), "written");
    EXPECT_EQ(server.Detail("external " + std::to_string(number), "hash"), sent.hash);
  }
}

TEST_P(ExternalData, ADescriptionBeyondTheRingIsRefused) {
  const Channel server = AddServer();
  const Channel client = AddClient({.pages = 2});
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(Describe(client, 1, {.pieces = "0:6291456"}).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(client, 2, {.function = "sync", .pieces = "0:6291456"}).status,
            STATUS_INVALID_PARAMETER_4);
}

TEST_P(ExternalData, APlainPacketHasNone) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  server().Set("external-always", 1);
  ASSERT_EQ(client().Send(1, 16, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server().Wait("packet 1"));
  ASSERT_TRUE(client().Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(server().Detail("external 1", "status"), "STATUS_NOT_FOUND");
  EXPECT_EQ(server().Detail("external 1", "mdl"), "none");
  EXPECT_EQ(server().Detail("packet 1", "flags"), "0");
}

TEST_P(ExternalData, WhenForcedItIsPendingAndTheSamePacketComesAgainFirst) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  server().Set("external-pending", 2);
  const Sent sent = Describe(client(), 1);
  ASSERT_EQ(client().Send(2), STATUS_SUCCESS);
  ASSERT_TRUE(server().Wait("packet 2"));
  ASSERT_TRUE(client().Wait("described 1 STATUS_SUCCESS"));
  EXPECT_EQ(server().Count("pending 1"), 2U);
  EXPECT_EQ(server().Count("packet 1"), 1U);
  EXPECT_LT(server().Position("packet 1"), server().Position("packet 2"));
  EXPECT_EQ(server().Detail("external 1", "hash"), sent.hash);
  EXPECT_EQ(server().Detail("external 1", "irql"), "0");
  EXPECT_EQ(client().Detail("described 1 STATUS_SUCCESS", "memory"), "written");
  // B7: counted once. A packet is counted when its callback has returned, which a pause waits for.
  server().Pause();
  EXPECT_EQ(server().Counters().PacketsReceived, 2U);
}

TEST_P(ExternalData, ACancelledRequestLeavesItsMemoryAlone) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  server().Set("hold", 1);
  const Sent sent = Describe(client(), 1, {.function = "sync", .timeout = "-500000"});
  EXPECT_EQ(sent.status, STATUS_CANCELLED);
  EXPECT_EQ(client().Detail("described 1 STATUS_CANCELLED", "memory"), "unchanged");
  ASSERT_TRUE(server().Wait("packet 1"));
  // Another one meanwhile gets other pages; the late completion ends the first.
  ASSERT_NO_FATAL_FAILURE({
    const Sent second = Describe(client(), 2);
    ASSERT_EQ(second.status, STATUS_SUCCESS);
    ASSERT_TRUE(server().Wait("packet 2"));
    server().Complete(1);
    server().Complete(2);
    ASSERT_TRUE(client().Wait("described 2 STATUS_SUCCESS"));
    EXPECT_EQ(client().Detail("described 2 STATUS_SUCCESS", "memory"), "written");
    EXPECT_EQ(server().Detail("external 2", "hash"), second.hash);
  });
}

TEST_P(ExternalData, ClosingEndsWhatIsUnderWay) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  server().Set("hold", 1);
  ASSERT_EQ(Describe(client(), 1).status, STATUS_SUCCESS);
  ASSERT_EQ(Describe(client(), 2, {.memory = "pool"}).status, STATUS_SUCCESS);
  ASSERT_TRUE(server().Wait("packet 2"));
  client().Async("sync", "3 16 1 none 0");
  client().Async("describe", Send{.function = "sync"}.Words(4));
  ASSERT_TRUE(server().Wait("packet 4"));
  client().Async("disable");
  ASSERT_TRUE(client().Wait("described 1 STATUS_DEVICE_REMOVED"));
  ASSERT_TRUE(client().Wait("described 2 STATUS_DEVICE_REMOVED"));
  ASSERT_TRUE(client().Wait("described 4 STATUS_DEVICE_REMOVED"));
  EXPECT_EQ(client().Detail("described 1 STATUS_DEVICE_REMOVED", "memory"), "unchanged");
  server().Do("complete", "all");
  ASSERT_TRUE(client().Wait("returned disable ok"));
}

TEST_P(ExternalData, PacketsQueuedBeforeTheOpenTakeItAlong) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  const Sent sent = Describe(client, 1);
  ASSERT_EQ(sent.status, STATUS_SUCCESS);
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  server.Start();
  ASSERT_TRUE(client.Wait("described 1 STATUS_SUCCESS"));
  EXPECT_EQ(client.Detail("described 1 STATUS_SUCCESS", "memory"), "written");
  EXPECT_EQ(server.Detail("external 1", "hash"), sent.hash);
}

TEST_P(ExternalData, ADisabledChannelDescribesNothing) {
  const Channel client = AddClient();
  EXPECT_EQ(Describe(client, 1).status, STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Describe(client, 2, {.function = "sync"}).status, STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Describe(client, 4, {.function = "mdl"}).status, STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Describe(client, 5, {.function = "pfns", .pieces = "0:1"}).status,
            STATUS_INVALID_DEVICE_STATE);
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_EQ(Describe(client, 3).status, STATUS_SUCCESS);
  client.Disable();
  ASSERT_TRUE(client.Wait("described 3 STATUS_DEVICE_REMOVED"));
}

TEST_P(ExternalData, APipeDescribesNothing) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_EQ(server.Init("server-flags " +
                        std::to_string(VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE)),
            STATUS_SUCCESS);
  ASSERT_EQ(server.Init("flags " + std::to_string(VMBUS_CHANNEL_INIT_FLAG_IS_PIPE)),
            STATUS_SUCCESS);
  ASSERT_EQ(client.Init("flags " + std::to_string(VMBUS_CHANNEL_INIT_FLAG_IS_PIPE)),
            STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(Describe(client, 1).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(client, 2, {.function = "mdl"}).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Describe(client, 3, {.function = "pfns", .pieces = "0:1"}).status,
            STATUS_INVALID_PARAMETER_4);
}

// ---- The calls themselves.

class ExternalDataArguments : public DirectTest {};

TEST_F(ExternalDataArguments, LimitsMustNotBeZero) {
  EXPECT_EQ(Status(VmbChannelInitSetMaximumExternalData(nullptr, 1, 1)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbChannelInitSetMaximumExternalData(client_channel_, 0, 1)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbChannelInitSetMaximumExternalData(client_channel_, 1, 0)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbChannelInitSetMaximumExternalData(client_channel_, ~0U, ~0U)),
            STATUS_SUCCESS);
}

TEST_F(ExternalDataArguments, PacketsGrowWithTheLimits) {
  const UINT32 before = VmbChannelSizeofPacket(client_channel_);
  ASSERT_EQ(Status(VmbChannelInitSetMaximumExternalData(client_channel_, 65536, 4)),
            STATUS_SUCCESS);
  const UINT32 after = VmbChannelSizeofPacket(client_channel_);
  EXPECT_GE(after, before + 8 + 4 * 8 + 17 * 8);
  std::vector<std::max_align_t> memory(after / sizeof(std::max_align_t) + 1);
  const auto packet = reinterpret_cast<VMBPACKET>(memory.data());
  EXPECT_EQ(Status(VmbPacketInitialize(client_channel_, packet, before)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbPacketInitialize(client_channel_, packet, after)), STATUS_SUCCESS);
}

TEST_F(ExternalDataArguments, BadParametersAreNamed) {
  std::array<std::byte, 64> bytes{};
  std::array<PFN_NUMBER, 1> pages{reinterpret_cast<ULONG_PTR>(bytes.data()) / PAGE_SIZE};
  PMDL const mdl = IoAllocateMdl(bytes.data(), 64, FALSE, FALSE, nullptr);
  MmBuildMdlForNonPagedPool(mdl);
  VMBPACKET const packet = VmbPacketAllocate(client_channel_);
  constexpr UINT32 kTooLong = 4097;
  EXPECT_EQ(Status(VmbPacketSendWithExternalMdl(nullptr, nullptr, 0, mdl, 0, 0, kWait)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbPacketSendWithExternalMdl(packet, nullptr, 8, mdl, 0, 0, kWait)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(VmbPacketSendWithExternalMdl(packet, bytes.data(), kTooLong, mdl, 0, 0, kWait)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbPacketSendWithExternalMdl(packet, nullptr, 0, nullptr, 0, 0, kWait)),
            STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Status(VmbPacketSendWithExternalMdl(packet, nullptr, 0, mdl, 0, 0, kWait | 0x100)),
            STATUS_INVALID_PARAMETER_7);
  EXPECT_EQ(Status(VmbPacketSendWithExternalPfns(nullptr, nullptr, 0, pages.data(), 1, kWait)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(VmbPacketSendWithExternalPfns(packet, nullptr, 8, pages.data(), 1, kWait)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(
      Status(VmbPacketSendWithExternalPfns(packet, bytes.data(), kTooLong, pages.data(), 1, kWait)),
      STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(VmbPacketSendWithExternalPfns(packet, nullptr, 0, nullptr, 1, kWait)),
            STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Status(VmbPacketSendWithExternalPfns(packet, nullptr, 0, pages.data(), 0, kWait)),
            STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(
      Status(VmbPacketSendWithExternalPfns(packet, nullptr, 0, pages.data(), 1, kWait | 0x100)),
      STATUS_INVALID_PARAMETER_6);
  VmbPacketFree(packet);
  IoFreeMdl(mdl);
}

TEST_F(ExternalDataArguments, FetchingNamesBadParameters) {
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelInitSetProcessPacketCallbacks(
                server_channel_,
                [](VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID, UINT32, UINT32) {
                  PMDL mdl = reinterpret_cast<PMDL>(packet);
                  EXPECT_EQ(Status(VmbChannelPacketGetExternalData(nullptr, 0, &mdl)),
                            STATUS_INVALID_PARAMETER_1);
                  EXPECT_EQ(mdl, nullptr);
                  EXPECT_EQ(Status(VmbChannelPacketGetExternalData(packet, 2, &mdl)),
                            STATUS_INVALID_PARAMETER_2);
                  EXPECT_EQ(Status(VmbChannelPacketGetExternalData(packet, 0, nullptr)),
                            STATUS_INVALID_PARAMETER_3);
                  EXPECT_EQ(Status(VmbChannelPacketGetExternalData(packet, 0, &mdl)),
                            STATUS_NOT_FOUND);
                  VmbChannelPacketComplete(packet, nullptr, 0);
                },
                nullptr)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbClientChannelInitSetTargetPnp(client_channel_, &kType, &kInstance, nullptr)),
            STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  VmbChannelStart(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(client_channel_)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelSendSynchronousRequest(client_channel_, nullptr, 0, nullptr, kWait,
                                                    nullptr, nullptr, nullptr)),
            STATUS_SUCCESS);
  KmclChannelForceExternalDataPending(nullptr, 1);
}

}  // namespace

}  // namespace kmcl::contract
