// Save and restore of a server's channel (KMCL reference 9, 10.8; rows 43 to 46, 49 and 52).
#include <kmcl/raw.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <vector>

#include "bus_fixture.h"
#include "direct_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<std::string> kStates{"Opened", "Closed", "Suspend", "Started", "PostStarted"};

class SaveRestore : public BusTest {
 protected:
  static std::vector<std::string> WordsOf(const std::string& answer) {
    std::istringstream stream(answer);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) {
      words.push_back(word);
    }
    return words;
  }
  static Status StatusIn(const std::string& answer) {
    return {static_cast<NTSTATUS>(std::stol(WordsOf(answer).at(0)))};
  }

  // The server's channel, with its callbacks for packets.
  Channel AddSaved(const ChannelOptions& options = {}) {
    Channel server = AddServer(options);
    EXPECT_EQ(server.Init("save-packets"), STATUS_SUCCESS);
    return server;
  }
  // Pauses and saves it; says under which number.
  static std::string Save(const Channel& server, std::size_t buffer_bytes = 1 << 16) {
    server.Pause();
    const auto words = WordsOf(server.Do("save", std::to_string(buffer_bytes)));
    EXPECT_EQ(StatusIn(words.at(0)), STATUS_SUCCESS);
    return words.at(1);
  }
  static Status Restore(const Channel& server, const std::string& save) {
    return StatusIn(server.Do("restore", save));
  }
  // Takes the place of a disabled channel.
  static void Succeed(const Channel& successor, const std::string& save) {
    ASSERT_EQ(Restore(successor, save), STATUS_SUCCESS);
    ASSERT_EQ(successor.Enable(), STATUS_SUCCESS);
    successor.Start();
    ASSERT_TRUE(successor.Wait("PostStarted"));
  }
};

INSTANTIATE_TEST_SUITE_P(Contract, SaveRestore, AllPlacements(), NameOfPlacement);

TEST_P(SaveRestore, AnotherChannelGoesOnAndTheClientNoticesNothing) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  client.Set("hold", 1);
  // Two transactions of the server's that the client keeps, and packets that wait.
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 2, 16, kWait));
  ASSERT_TRUE(client.Wait("packet 2"));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(3, 2, 24));
  ASSERT_NO_FATAL_FAILURE(server.SendMany(5, 1, 4000, kWait));
  const std::string save = Save(server, 100);
  EXPECT_THAT(server.Names({"ask", "keep"}),
              ElementsAre("ask 1", "keep 1", "ask 2", "keep 2", "ask 3", "keep 3", "ask 4",
                          "keep 4", "ask 5", "keep 5"));
  server.Disable();
  ASSERT_TRUE(server.Wait("done 5 STATUS_DEVICE_REMOVED"));
  EXPECT_THAT(server.Names(kStates),
              ElementsAre("Opened", "Started", "PostStarted", "Suspend", "Closed"));
  server.Cleanup();
  // While nobody serves it, the client sends, wants answers, and answers.
  ASSERT_NO_FATAL_FAILURE(client.SendMany(11, 3));
  ASSERT_NO_FATAL_FAILURE(client.SendMany(14, 1, 16, kWait));
  client.Complete(1);

  const Channel successor = AddSaved();
  ASSERT_NO_FATAL_FAILURE(Succeed(successor, save));
  EXPECT_THAT(successor.Names({"restore"}),
              ElementsAre("restore 1", "restore 2", "restore 3", "restore 4", "restore 5"));
  EXPECT_THAT(successor.Names(kStates), ElementsAre("Opened", "Started", "PostStarted"));
  ASSERT_TRUE(successor.Wait("done 1 STATUS_SUCCESS"));
  EXPECT_EQ(successor.Detail("done 1 STATUS_SUCCESS", "answer"), "intact");
  ASSERT_TRUE(client.Wait("packet 5"));
  client.Complete(2);
  client.Complete(5);
  for (const char* done : {"done 2 STATUS_SUCCESS", "done 3 STATUS_SUCCESS",
                           "done 4 STATUS_SUCCESS", "done 5 STATUS_SUCCESS"}) {
    ASSERT_TRUE(successor.Wait(done));
  }
  ASSERT_NO_FATAL_FAILURE(WaitForPackets(successor, 11, 4));
  ASSERT_TRUE(client.Wait("done 14 STATUS_SUCCESS"));
  // And new ones both ways.
  ASSERT_NO_FATAL_FAILURE(Mark(client, successor));
  ASSERT_NO_FATAL_FAILURE(Mark(successor, client));
  EXPECT_THAT(successor.Names({"packet"}).size(), 5U);
  const std::vector<std::string> at_client = client.Names({"packet"});
  EXPECT_THAT(std::vector<std::string>(at_client.begin(), at_client.begin() + 5),
              ElementsAre("packet 1", "packet 2", "packet 3", "packet 4", "packet 5"));
  EXPECT_EQ(client.Count("Closed"), 0U);
  EXPECT_EQ(client.Count("Suspend"), 0U);
}

TEST_P(SaveRestore, ManySuccessionsLoseDuplicateAndReorderNothing) {
  constexpr UINT32 kEach = 40;
  std::optional<Channel> server = AddSaved();
  const Channel client = AddClient({.pages = 2});
  ASSERT_NO_FATAL_FAILURE(Open(*server, client));
  UINT32 next = 1;
  std::vector<std::string> delivered;
  for (int round = 0; round < 10; ++round) {
    ASSERT_NO_FATAL_FAILURE(client.SendMany(next, kEach, 200, kWait));
    ASSERT_NO_FATAL_FAILURE(server->SendMany(next, kEach, 200, kWait));
    next += kEach;
    const std::string save = Save(*server);
    const std::vector<std::string> names = server->Names({"packet"});
    delivered.insert(delivered.end(), names.begin(), names.end());
    server->Disable();
    server = AddSaved();
    ASSERT_NO_FATAL_FAILURE(Succeed(*server, save));
  }
  for (UINT32 number = 1; number < next; ++number) {
    ASSERT_TRUE(client.Wait("done " + std::to_string(number) + " STATUS_SUCCESS"));
    ASSERT_TRUE(client.Wait("packet " + std::to_string(number)));
  }
  const std::vector<std::string> names = server->Names({"packet"});
  delivered.insert(delivered.end(), names.begin(), names.end());
  std::vector<std::string> expected;
  for (UINT32 number = 1; number < next; ++number) {
    expected.push_back("packet " + std::to_string(number));
  }
  EXPECT_EQ(delivered, expected);
  EXPECT_EQ(client.Names({"packet"}), expected);
  EXPECT_EQ(client.Counters().CompletionsUnexpected, 0U);
}

TEST_P(SaveRestore, AStartAfterTheSaveResumes) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  Save(server);
  server.Start();
  ASSERT_TRUE(server.Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(client, server));
  ASSERT_NO_FATAL_FAILURE(Mark(server, client));
  // A Disable is an ordinary one again.
  server.Disable();
  ASSERT_TRUE(client.Wait("Closed"));
}

TEST_P(SaveRestore, ADeferredPacketIsDeliveredByTheSuccessor) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Gate("deferred 7");
  server.Set("defer", 7);
  ASSERT_EQ(client.Send(7, 32, kWait), STATUS_SUCCESS);
  ASSERT_TRUE(server.Wait("deferred 7"));
  server.Async("pause");
  server.Release("deferred 7");
  ASSERT_TRUE(server.Wait("returned pause ok"));
  const std::string save = Save(server);
  server.Disable();
  const bool was_delivered = server.Count("packet 7") != 0;  // the pause may have come later
  const Channel successor = AddSaved();
  ASSERT_NO_FATAL_FAILURE(Succeed(successor, save));
  ASSERT_TRUE(client.Wait("done 7 STATUS_SUCCESS"));
  EXPECT_EQ(successor.Count("packet 7"), was_delivered ? 0U : 1U);
}

TEST_P(SaveRestore, AnOfferThatWasNeverOpenedIsSavedToo) {
  const Channel server = AddSaved();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 2));
  const std::string save = Save(server);
  server.Disable();
  const Channel successor = AddSaved();
  ASSERT_EQ(Restore(successor, save), STATUS_SUCCESS);
  ASSERT_EQ(successor.Enable(), STATUS_SUCCESS);
  successor.Start();
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(WaitForPackets(client, 1, 2));
  ASSERT_TRUE(successor.Wait("done 2 STATUS_SUCCESS"));
}

TEST_P(SaveRestore, AClientThatOpensAVacantOfferWaitsForTheSuccessor) {
  const Channel server = AddSaved();
  ASSERT_EQ(server.Enable(), STATUS_SUCCESS);
  const std::string save = Save(server);
  server.Disable();
  const Channel client = AddClient();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  const Channel successor = AddSaved();
  ASSERT_NO_FATAL_FAILURE(Succeed(successor, save));
  ASSERT_TRUE(client.Wait("PostStarted"));
  ASSERT_NO_FATAL_FAILURE(Mark(client, successor));
}

TEST_P(SaveRestore, WhenTheClientHasClosedTheSavedPacketsEnd) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 2));
  const std::string save = Save(server);
  server.Disable();
  client.Disable();
  const Channel successor = AddSaved();
  ASSERT_EQ(Restore(successor, save), STATUS_SUCCESS);
  ASSERT_EQ(successor.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(successor.Wait("done 1 STATUS_DEVICE_REMOVED"));
  ASSERT_TRUE(successor.Wait("done 2 STATUS_DEVICE_REMOVED"));
  EXPECT_EQ(successor.Count("Opened"), 0U);
  // It is an offer like any other.
  successor.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(client, successor));
}

TEST_P(SaveRestore, ForceNewChannelAbandonsTheSavedOne) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 1));
  const std::string save = Save(server);
  server.Disable();
  const Channel successor = AddSaved();
  ASSERT_EQ(successor.Init("server-flags " +
                           std::to_string(VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL)),
            STATUS_SUCCESS);
  ASSERT_EQ(Restore(successor, save), STATUS_SUCCESS);
  ASSERT_EQ(successor.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(successor.Wait("done 1 STATUS_DEVICE_REMOVED"));
  ASSERT_TRUE(client.Wait("Closed"));
  client.Disable();
  successor.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(client, successor));
}

TEST_P(SaveRestore, RestoreIsLegalWhileEnabledAndNotYetOpen) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  const std::string save = Save(server);
  server.Disable();
  const Channel successor = AddSaved();
  ASSERT_EQ(successor.Enable(), STATUS_SUCCESS);
  successor.Start();
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  EXPECT_EQ(successor.Count("Opened"), 0U);  // it waits to be restored
  ASSERT_EQ(Restore(successor, save), STATUS_SUCCESS);
  ASSERT_TRUE(successor.Wait("packet 1"));
  EXPECT_EQ(Restore(successor, save), STATUS_INVALID_DEVICE_STATE);
}

TEST_P(SaveRestore, AnOpenedThatRefusesMakesANewOffer) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  const std::string save = Save(server);
  server.Disable();
  const Channel successor = AddSaved();
  successor.Set("opened-status", STATUS_ACCESS_DENIED);
  ASSERT_EQ(Restore(successor, save), STATUS_SUCCESS);
  ASSERT_EQ(successor.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("Closed"));
  client.Disable();
  successor.Set("opened-status", STATUS_SUCCESS);
  successor.Start();
  ASSERT_EQ(client.Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client.Wait("PostStarted", 2));
  ASSERT_NO_FATAL_FAILURE(Mark(client, successor));
}

TEST_P(SaveRestore, AClientThatDiesWhileAnOfferIsVacantEndsIt) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 1));
  const std::string save = Save(server);
  server.Disable();
  const Channel successor = AddSaved();
  ASSERT_EQ(Restore(successor, save), STATUS_SUCCESS);
  ASSERT_EQ(client_port().Exchange("finish"), "ok");
  ASSERT_EQ(client_port().Exchange("end-client " + this->client()), "ok");
  ASSERT_EQ(server_port().Exchange("gone 1"), "ok");
  EXPECT_EQ(successor.Enable(), STATUS_NO_SUCH_DEVICE);
}

// ---- Row 44 to 46: the calls of a save, and their statuses.

TEST_P(SaveRestore, SaveBeginNeedsAChannelThatIsNotRunning) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  EXPECT_EQ(StatusIn(server.Do("save-begin")), STATUS_INVALID_DEVICE_STATE);  // Disabled
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  EXPECT_EQ(StatusIn(server.Do("save-begin")), STATUS_INVALID_DEVICE_STATE);  // Active
  EXPECT_EQ(StatusIn(client.Do("save-begin")), STATUS_INVALID_PARAMETER_1);
  server.Pause();
  EXPECT_EQ(StatusIn(server.Do("save-begin")), STATUS_SUCCESS);
  EXPECT_EQ(StatusIn(server.Do("save-begin")), STATUS_INVALID_DEVICE_STATE);
  server.Do("save-end");
  server.Do("save-end");  // nothing
  EXPECT_EQ(StatusIn(server.Do("save-continue", "4096")), STATUS_INVALID_DEVICE_STATE);
  // Stopped.
  client.Disable();
  ASSERT_TRUE(server.Wait("Closed"));
  EXPECT_EQ(StatusIn(server.Do("save-begin")), STATUS_SUCCESS);
  server.Do("save-end");
}

TEST_P(SaveRestore, SaveContinueFillsWholeChunks) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 3, 500));
  ASSERT_EQ(StatusIn(server.Do("save-begin")), STATUS_SUCCESS);
  auto words = WordsOf(server.Do("save-continue", "0"));
  EXPECT_EQ(StatusIn(words[0]), STATUS_BUFFER_TOO_SMALL);
  EXPECT_EQ(words[1], "0");
  std::vector<std::string> sizes;
  while (true) {
    const std::string required = words[2];
    words = WordsOf(server.Do("save-continue", std::to_string(std::stoul(required) - 1)));
    EXPECT_EQ(StatusIn(words[0]), STATUS_BUFFER_TOO_SMALL);
    EXPECT_EQ(words[1], "0");
    EXPECT_EQ(words[2], required);
    words = WordsOf(server.Do("save-continue", required));
    EXPECT_EQ(words[1], required);
    sizes.push_back(required);
    if (StatusIn(words[0]) == STATUS_SUCCESS) {
      break;
    }
    ASSERT_EQ(StatusIn(words[0]), STATUS_BUFFER_OVERFLOW);
  }
  EXPECT_EQ(words[2], "0");
  EXPECT_EQ(sizes.size(), 5U);  // begin, three packets, end
  // Asked once about each packet, and answered once, however small the buffers were.
  EXPECT_THAT(server.Names({"ask", "keep"}),
              ElementsAre("ask 1", "keep 1", "ask 2", "keep 2", "ask 3", "keep 3"));
  EXPECT_EQ(StatusIn(server.Do("save-continue", "4096")), STATUS_INVALID_DEVICE_STATE);
  server.Do("save-end");
}

TEST_P(SaveRestore, AStartDuringASaveWaitsForItsEnd) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_EQ(StatusIn(server.Do("save-begin")), STATUS_SUCCESS);
  server.Start();
  ASSERT_EQ(client.Send(1), STATUS_SUCCESS);
  ASSERT_EQ(StatusIn(server.Do("save-continue", "4096")), STATUS_SUCCESS);
  EXPECT_EQ(server.Count("Started"), 1U);
  server.Do("save-end");
  ASSERT_TRUE(server.Wait("packet 1"));
  EXPECT_EQ(server.Count("Started"), 2U);
}

TEST_P(SaveRestore, AFailingSaveCallbackEndsTheSave) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 1));
  server.Set("save-status", STATUS_DEVICE_BUSY);
  ASSERT_EQ(StatusIn(server.Do("save-begin")), STATUS_SUCCESS);
  const auto words = WordsOf(server.Do("save-continue", "4096"));
  EXPECT_EQ(StatusIn(words[0]), STATUS_DEVICE_BUSY);
  EXPECT_EQ(words[1], "0");
  EXPECT_EQ(words[2], "0");
  EXPECT_EQ(StatusIn(server.Do("save-continue", "4096")), STATUS_INVALID_DEVICE_STATE);
  server.Do("save-end");
  server.Start();
  ASSERT_TRUE(client.Wait("packet 1"));
}

// ---- Rows 43 and 49: restore.

TEST_P(SaveRestore, DamagedDataIsRefusedAndChangesNothing) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 1));
  const auto words = WordsOf(server.Do("save", "4096"));
  const std::string& save = words[1];
  const std::size_t bytes = std::stoul(words[2]);
  const Channel successor = AddSaved();
  EXPECT_EQ(StatusIn(successor.Do("restore", save + " " + std::to_string(bytes - 1))),
            STATUS_DATA_ERROR);
  EXPECT_EQ(StatusIn(successor.Do("restore", save + " 0")), STATUS_DATA_ERROR);
  const std::string damage = "damage " + save + " ";
  server_port().Exchange(damage + std::to_string(bytes / 2));
  EXPECT_EQ(Restore(successor, save), STATUS_DATA_ERROR);
  server_port().Exchange(damage + std::to_string(bytes / 2));
  server_port().Exchange(damage + "4");
  EXPECT_EQ(Restore(successor, save), STATUS_REVISION_MISMATCH);
  server_port().Exchange(damage + "4");
  EXPECT_THAT(successor.Names({"restore"}), IsEmpty());
  // Another channel's.
  const Channel other = AddSaved({.instance = "2"});
  EXPECT_EQ(Restore(other, save), STATUS_DATA_ERROR);
  EXPECT_EQ(Restore(server, save), STATUS_INVALID_DEVICE_STATE);
  // In two parts, the first of which is the first chunk.
  server.Disable();
  const std::size_t first = 32 + 64;  // a header, and what begins a save
  EXPECT_EQ(StatusIn(successor.Do("restore", save + " " + std::to_string(first))),
            STATUS_MORE_PROCESSING_REQUIRED);
  EXPECT_EQ(StatusIn(successor.Do(
                "restore", save + " " + std::to_string(bytes - first) + " " + std::to_string(first))),
            STATUS_SUCCESS);
  ASSERT_EQ(successor.Enable(), STATUS_SUCCESS);
  successor.Start();
  ASSERT_TRUE(client.Wait("packet 1"));
}

TEST_P(SaveRestore, AFailingRestoreCallbackUndoesTheRestore) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 1));
  const std::string save = Save(server);
  server.Disable();
  const Channel successor = AddSaved();
  successor.Set("restore-status", STATUS_DEVICE_BUSY);
  EXPECT_EQ(Restore(successor, save), STATUS_DEVICE_BUSY);
  successor.Set("restore-status", STATUS_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(Succeed(successor, save));
  ASSERT_TRUE(client.Wait("packet 1"));
}

TEST_P(SaveRestore, WithoutCallbacksPacketsAreRestoredAndFreeThemselves) {
  const Channel server = AddServer();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 3));
  const std::string save = Save(server);
  server.Disable();
  const Channel successor = AddServer();
  ASSERT_NO_FATAL_FAILURE(Succeed(successor, save));
  ASSERT_NO_FATAL_FAILURE(WaitForPackets(client, 1, 3));
}

TEST_P(SaveRestore, ARestoredChannelThatIsNeverEnabledGivesItsPacketsBack) {
  const Channel server = AddSaved();
  const Channel client = AddClient();
  ASSERT_NO_FATAL_FAILURE(Open(server, client));
  server.Pause();
  ASSERT_NO_FATAL_FAILURE(server.SendMany(1, 2));
  const std::string save = Save(server);
  server.Start();
  const Channel spare = AddSaved();
  ASSERT_EQ(Restore(spare, save), STATUS_SUCCESS);
  spare.Cleanup();
  EXPECT_THAT(spare.Names({"done"}),
              ElementsAre("done 1 STATUS_DEVICE_REMOVED", "done 2 STATUS_DEVICE_REMOVED"));
}

// ---- Arguments.

using SaveArguments = DirectTest;

NTSTATUS Keep(VMBCHANNEL, VMBPACKET, PVOID, UINT32, PUINT32) { return STATUS_SUCCESS; }
NTSTATUS Bring(VMBCHANNEL, PVOID, UINT32, PVOID, UINT32) { return STATUS_SUCCESS; }

TEST_F(SaveArguments, EachIsCheckedInItsPlace) {
  using S = Status;
  const auto set = VmbServerChannelInitSetSaveRestorePacketCallbacks;
  EXPECT_EQ(S(set(nullptr, Keep, Bring)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(S(set(client_channel_, Keep, Bring)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(S(set(server_channel_, nullptr, Bring)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(S(set(server_channel_, Keep, nullptr)), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(S(set(server_channel_, Keep, Bring)), STATUS_SUCCESS);

  ULONG filled = 0;
  ULONG required = 0;
  char buffer[64] = {};
  EXPECT_EQ(S(VmbChannelSaveBegin(nullptr)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(S(VmbChannelSaveContinue(nullptr, buffer, 64, &filled, &required)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(S(VmbChannelSaveContinue(server_channel_, nullptr, 64, &filled, &required)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(S(VmbChannelSaveContinue(server_channel_, buffer, 64, nullptr, &required)),
            STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(S(VmbChannelSaveContinue(server_channel_, buffer, 64, &filled, nullptr)),
            STATUS_INVALID_PARAMETER_5);
  VmbChannelSaveEnd(nullptr);
  VmbChannelSaveEnd(client_channel_);
  EXPECT_EQ(S(VmbChannelRestoreFromBuffer(nullptr, buffer, 64)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(S(VmbChannelRestoreFromBuffer(client_channel_, buffer, 64)),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(S(VmbChannelRestoreFromBuffer(server_channel_, nullptr, 64)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(S(VmbChannelRestoreFromBuffer(server_channel_, buffer, 64)), STATUS_DATA_ERROR);

  VMBPACKET const packet = VmbPacketAllocate(server_channel_);
  EXPECT_EQ(S(VmbPacketRestore(nullptr, buffer, 64)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(S(VmbPacketRestore(packet, nullptr, 64)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(S(VmbPacketRestore(packet, buffer, 64)), STATUS_INVALID_DEVICE_STATE);
  VmbPacketFree(packet);

  Configure(server_channel_);
  ASSERT_EQ(S(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  EXPECT_EQ(S(set(server_channel_, Keep, Bring)), STATUS_INVALID_PARAMETER_1);
}

TEST_F(SaveArguments, ARawChannelIsNotSaved) {
  ASSERT_EQ(Status(KmclChannelInitSetRaw(server_channel_)), STATUS_SUCCESS);
  char buffer[64] = {};
  EXPECT_EQ(Status(VmbChannelRestoreFromBuffer(server_channel_, buffer, 64)), STATUS_NOT_SUPPORTED);
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelSaveBegin(server_channel_)), STATUS_NOT_SUPPORTED);
}

// Tries other bytes first.
NTSTATUS TryOthersFirst(VMBCHANNEL channel, PVOID library, UINT32 library_bytes, PVOID, UINT32) {
  VMBPACKET const packet = VmbPacketAllocate(channel);
  std::vector<char> other(library_bytes);
  EXPECT_EQ(Status(VmbPacketRestore(packet, other.data(), library_bytes)), STATUS_DATA_ERROR);
  EXPECT_EQ(Status(VmbPacketRestore(packet, library, library_bytes - 1)), STATUS_DATA_ERROR);
  return VmbPacketRestore(packet, library, library_bytes);
}

TEST_F(SaveArguments, APacketObjectIsRestoredFromItsOwnBytesOnly) {
  Configure(server_channel_);
  ASSERT_EQ(Status(VmbChannelEnable(server_channel_)), STATUS_SUCCESS);
  char payload[16] = {1, 2, 3};
  ASSERT_EQ(Status(VmbPacketSend(VmbPacketAllocate(server_channel_), payload, sizeof payload,
                                 nullptr, 0)),
            STATUS_SUCCESS);
  char saved[4096];
  ULONG filled = 0;
  ULONG required = 0;
  ASSERT_EQ(Status(VmbChannelSaveBegin(server_channel_)), STATUS_SUCCESS);
  ASSERT_EQ(Status(VmbChannelSaveContinue(server_channel_, saved, sizeof saved, &filled, &required)),
            STATUS_SUCCESS);
  VmbChannelSaveEnd(server_channel_);
  VMBCHANNEL const successor = Allocate(true);
  Configure(successor);
  ASSERT_EQ(Status(VmbServerChannelInitSetSaveRestorePacketCallbacks(successor, Keep,
                                                                     TryOthersFirst)),
            STATUS_SUCCESS);
  EXPECT_EQ(Status(VmbChannelRestoreFromBuffer(successor, saved, filled)), STATUS_SUCCESS);
  VmbChannelCleanup(successor);
}

}  // namespace

}  // namespace kmcl::contract
