// GPADLs: create, map, unmap, delete (KMCL reference 8, 10.7; rows 3, 4, 5, 42, 47, 63).
#include <string>

#include "bus_fixture.h"

namespace kmcl::contract {

namespace {

using testing::ElementsAre;

constexpr UINT32 kReadOnly = VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY;

// What a call that makes a GPADL gave.
struct Made {
  Status status = STATUS_UNSUCCESSFUL;
  std::string handle;
};

class Gpadls : public BusTest {
 protected:
  void OpenChannel() {
    server_.emplace(AddServer());
    client_.emplace(AddClient());
    ASSERT_NO_FATAL_FAILURE(Open(*server_, *client_));
  }

  static std::string Memory(const Channel& at, const std::string& words) {
    return at.Do("memory", words);
  }
  static Made MadeOf(const std::string& answer) {
    const std::size_t space = answer.find(' ');
    return {Status(static_cast<NTSTATUS>(std::stol(answer))), answer.substr(space + 1)};
  }
  Made Make(const std::string& words) const { return MadeOf(Memory(*client_, words)); }
  std::string Buffer(const std::string& kind, std::size_t bytes) const {
    return Memory(*client_, "make " + kind + " " + std::to_string(bytes));
  }
  // A GPADL of a whole new buffer.
  std::string Share(std::size_t bytes, UINT32 flags = 0) {
    buffer_ = Buffer("pool", bytes);
    const Made made =
        Make("create " + std::to_string(flags) + " " + buffer_ + ":0:" + std::to_string(bytes));
    EXPECT_EQ(made.status, STATUS_SUCCESS);
    return made.handle;
  }
  Status Map(const std::string& handle, UINT32 flags = 0) const {
    return MadeOf(Memory(*server_, "map " + std::to_string(flags) + " " + handle)).status;
  }
  // How the line an On() did for an event ended.
  static std::string Done(const Channel& at, const std::string& line) {
    for (const std::string& name : at.Names({"did " + line})) {
      return name.substr(name.find(" -> ") + 4);
    }
    return "never";
  }
  std::string Line(const Channel& at, const std::string& words) const {
    return "memory " + at.id() + " " + words;
  }

  std::optional<Channel> server_;
  std::optional<Channel> client_;
  std::string buffer_;  // of the last Share
};

INSTANTIATE_TEST_SUITE_P(Contract, Gpadls, AllPlacements(), NameOfPlacement);

// ---- Row 3: VmbChannelCreateGpadlFromBuffer.

TEST_P(Gpadls, CreateFromBufferIsConfirmedWhenItReturns) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(3 * 4096);
  EXPECT_NE(handle, "0");
  EXPECT_EQ(Memory(*server_, "map 0 " + handle), "0 1 12288");
  Memory(*client_, "fill " + buffer_ + " 5000 100 7");
  EXPECT_EQ(Memory(*server_, "read " + handle + " 5000 100 7"), "yes");
  EXPECT_EQ(Memory(*server_, "write " + handle + " 5050 4096 9"), "ok");
  EXPECT_EQ(Memory(*client_, "holds " + buffer_ + " 5000 50 7"), "yes");
  EXPECT_EQ(Memory(*client_, "holds " + buffer_ + " 5050 4096 9"), "yes");
  Memory(*server_, "unmap " + handle);
  Memory(*client_, "delete " + handle);
}

TEST_P(Gpadls, CreateFromBufferNeedsNoAlignment) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string buffer = Buffer("pool", 4 * 4096);
  // From the middle of a page to the middle of another, over a page's end, and within a page.
  for (const std::string part : {":100:9000", ":4095:2", ":7:1"}) {
    const Made made = Make("create 0 " + buffer + part);
    ASSERT_EQ(made.status, STATUS_SUCCESS) << part;
    const std::string at = part.substr(1, part.find(':', 1) - 1);
    const std::string bytes = part.substr(part.find(':', 1) + 1);
    Memory(*client_, "fill " + buffer + " 0 16384 1");
    Memory(*client_, "fill " + buffer + " " + at + " " + bytes + " 2");
    EXPECT_EQ(Memory(*server_, "map 0 " + made.handle), "0 1 " + bytes);
    EXPECT_EQ(Memory(*server_, "read " + made.handle + " 0 " + bytes + " 2"), "yes");
    Memory(*server_, "unmap " + made.handle);
    Memory(*client_, "delete " + made.handle);
  }
  // A piece of the pool that is smaller than a page.
  const std::string piece = Buffer("pool", 100);
  const Made made = Make("create 0 " + piece + ":0:100");
  ASSERT_EQ(made.status, STATUS_SUCCESS);
  Memory(*client_, "fill " + piece + " 0 100 3");
  EXPECT_EQ(Memory(*server_, "map 0 " + made.handle), "0 1 100");
  EXPECT_EQ(Memory(*server_, "read " + made.handle + " 0 100 3"), "yes");
}

TEST_P(Gpadls, MemoryThatTheServerCannotSeeIsRefused) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string heap = Buffer("heap", 8192);
  const std::string pool = Buffer("pool", 8192);
  EXPECT_EQ(Make("create 0 " + heap + ":0:8192").status, STATUS_NOT_SUPPORTED);
  EXPECT_EQ(Make("create 0 " + heap + ":0:8192").handle, "0");
  EXPECT_EQ(Make("chain 0 0 0 " + pool + ":0:8192 " + heap + ":0:100").status,
            STATUS_NOT_SUPPORTED);
  EXPECT_EQ(Make("pages 0 0 0 " + heap + " 0 1").status, STATUS_NOT_SUPPORTED);
  // Only the part that is used counts.
  EXPECT_EQ(Make("chain 0 0 8192 " + pool + ":0:8192 " + heap + ":0:100").status, STATUS_SUCCESS);
}

TEST_P(Gpadls, TwoGibibytesInFragmentsAreOneBuffer) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string two_gibibytes = std::to_string(std::uint64_t{2} << 30);
  const std::string buffer = Memory(*client_, "make pool " + two_gibibytes);
  ASSERT_NE(buffer, "none");
  // 524,288 pages in 8,192 fragments of 64, the last one first.
  const Made made = Make("fragments 0 " + buffer + " 64");
  ASSERT_EQ(made.status, STATUS_SUCCESS);
  ASSERT_EQ(Memory(*server_, "map 0 " + made.handle), "0 1 " + two_gibibytes);
  const std::size_t fragment = 64 * 4096;
  const std::size_t last = (std::size_t{2} << 30) - fragment;
  // Across the border of the first two fragments, and at both ends.
  EXPECT_EQ(Memory(*server_, "write " + made.handle + " 0 10 1"), "ok");
  EXPECT_EQ(
      Memory(*server_, "write " + made.handle + " " + std::to_string(fragment - 10) + " 20 2"),
      "ok");
  EXPECT_EQ(Memory(*server_,
                   "write " + made.handle + " " + std::to_string(last + fragment - 10) + " 10 3"),
            "ok");
  const auto holds = [&](std::size_t offset, std::size_t bytes, int value) {
    return Memory(*client_, "holds " + buffer + " " + std::to_string(offset) + " " +
                                std::to_string(bytes) + " " + std::to_string(value));
  };
  EXPECT_EQ(holds(last, 10, 1), "yes");
  EXPECT_EQ(holds(last + fragment - 10, 10, 2), "yes");
  EXPECT_EQ(holds(last - fragment, 10, 2), "yes");
  EXPECT_EQ(holds(fragment - 10, 10, 3), "yes");
  Memory(*server_, "unmap " + made.handle);
  Memory(*client_, "delete " + made.handle);
}

TEST_P(Gpadls, BeyondTheServersLimitTheStatusSaysSo) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string half = std::to_string(std::uint64_t{2} << 30);
  const std::string buffer = Memory(*client_, "make pool " + half);
  ASSERT_NE(buffer, "none");
  const std::string create = "create 0 " + buffer + ":0:" + half;
  const Made first = Make(create);
  ASSERT_EQ(first.status, STATUS_SUCCESS);
  // The rings count too, so two halves of 4 GiB are more than there is.
  EXPECT_EQ(Make(create).status, STATUS_INSUFFICIENT_RESOURCES);
  Memory(*client_, "delete " + first.handle);
  EXPECT_EQ(Make(create).status, STATUS_SUCCESS);
  // More than 2 GiB is nobody's.
  EXPECT_EQ(Make("create 0 " + buffer + ":0:2147483649").status, STATUS_INVALID_PARAMETER_4);
}

TEST_P(Gpadls, HandlesAreUniqueOnTheirChannelAndNeverZero) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  std::set<std::string> handles;
  for (int index = 0; index < 20; ++index)
    handles.insert(Share(100, index % 2 == 0 ? kReadOnly : 0));
  EXPECT_EQ(handles.size(), 20U);
  EXPECT_FALSE(handles.contains("0"));
  for (const std::string& handle : handles) EXPECT_EQ(Map(handle, kReadOnly), STATUS_SUCCESS);
}

// ---- Row 4: VmbChannelCreateGpadlFromMdl.

TEST_P(Gpadls, CreateFromMdlTakesAChain) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string one = Buffer("pool", 8192);
  const std::string two = Buffer("pool", 8192);
  Memory(*client_, "fill " + one + " 100 5000 1");
  Memory(*client_, "fill " + two + " 300 200 2");
  const Made made = Make("chain 0 0 0 " + one + ":100:5000 " + two + ":300:200 " + one + ":8000:9");
  ASSERT_EQ(made.status, STATUS_SUCCESS);
  EXPECT_EQ(Memory(*server_, "map 0 " + made.handle), "0 3 5209");
  EXPECT_EQ(Memory(*server_, "read " + made.handle + " 0 5000 1"), "yes");
  EXPECT_EQ(Memory(*server_, "read " + made.handle + " 5000 200 2"), "yes");
  // Over both borders.
  EXPECT_EQ(Memory(*server_, "write " + made.handle + " 4990 219 5"), "ok");
  EXPECT_EQ(Memory(*client_, "holds " + one + " 5090 10 5"), "yes");
  EXPECT_EQ(Memory(*client_, "holds " + two + " 300 200 5"), "yes");
  EXPECT_EQ(Memory(*client_, "holds " + one + " 8000 9 5"), "yes");
}

TEST_P(Gpadls, CreateFromMdlTakesAPartOfAChain) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string one = Buffer("pool", 8192);
  const std::string two = Buffer("pool", 8192);
  Memory(*client_, "fill " + one + " 0 8192 1");
  Memory(*client_, "fill " + two + " 0 8192 2");
  const std::string chain = one + ":100:5000 " + two + ":300:200";
  struct Row {
    std::string part;    // offset and length
    std::string mapped;  // MDLs and bytes
    std::string reads;   // bytes of the first, then of the second buffer
  };
  for (const Row& row : {Row{"4999 2", "2 2", "1 1"}, Row{"4096 0", "2 1104", "904 200"},
                         Row{"5000 0", "1 200", "0 200"}, Row{"5199 1", "1 1", "0 1"},
                         Row{"0 5000", "1 5000", "5000 0"}}) {
    const Made made = Make("chain 0 " + row.part + " " + chain);
    ASSERT_EQ(made.status, STATUS_SUCCESS) << row.part;
    EXPECT_EQ(Memory(*server_, "map 0 " + made.handle), "0 " + row.mapped);
    const std::string first = row.reads.substr(0, row.reads.find(' '));
    const std::string second = row.reads.substr(row.reads.find(' ') + 1);
    EXPECT_EQ(Memory(*server_, "read " + made.handle + " 0 " + first + " 1"), "yes");
    EXPECT_EQ(Memory(*server_, "read " + made.handle + " " + first + " " + second + " 2"), "yes");
  }
}

TEST_P(Gpadls, CreateFromMdlRefusesWhatIsNotInTheChain) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string one = Buffer("pool", 8192);
  const std::string chain = one + ":0:4000 " + one + ":4096:1000";
  EXPECT_EQ(Make("chain 0 5000 0 " + chain).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Make("chain 0 5000 1 " + chain).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Make("chain 0 4294967295 2 " + chain).status, STATUS_INVALID_PARAMETER_4);
  EXPECT_EQ(Make("chain 0 0 5001 " + chain).status, STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(Make("chain 0 4999 2 " + chain).status, STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(Make("chain 0 4999 4294967295 " + chain).status, STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(Make("chain 0 4999 1 " + chain).status, STATUS_SUCCESS);
}

TEST_P(Gpadls, AChainOfFollowingPagesMayBeAsLongAsABuffer) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string buffer = Buffer("pool", 10'001 * 4096);
  // 10,000 pages, and the second part begins in the middle of the first page.
  const Made made =
      Make("chain 0 100 0 " + buffer + ":0:20480000 " + buffer + ":20480000:20480000");
  ASSERT_EQ(made.status, STATUS_SUCCESS);
  EXPECT_EQ(Memory(*server_, "map 0 " + made.handle), "0 1 40959900");
  Memory(*client_, "fill " + buffer + " 20479000 2000 4");
  EXPECT_EQ(Memory(*server_, "read " + made.handle + " 20478900 2000 4"), "yes");
  // Parts with a gap cannot be described as one.
  EXPECT_EQ(Make("chain 0 0 0 " + buffer + ":0:20479999 " + buffer + ":20480000:20480000").status,
            STATUS_INSUFFICIENT_RESOURCES);
}

// ---- Row 63: VmbChannelCreateGpadlFromPfnList.

TEST_P(Gpadls, CreateFromPfnListMakesOneBufferOfScatteredPages) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string buffer = Buffer("pool", 5 * 4096);
  for (int page = 0; page < 5; ++page) {
    Memory(*client_,
           "fill " + buffer + " " + std::to_string(page * 4096) + " 4096 " + std::to_string(page));
  }
  // Pages 4, 0 and 2, from byte 96 of the first to byte 3999 of the last.
  const Made made = Make("pages 0 96 12000 " + buffer + " 4 0 2");
  ASSERT_EQ(made.status, STATUS_SUCCESS);
  EXPECT_EQ(Memory(*server_, "map 0 " + made.handle), "0 1 12000");
  EXPECT_EQ(Memory(*server_, "read " + made.handle + " 0 4000 4"), "yes");
  EXPECT_EQ(Memory(*server_, "read " + made.handle + " 4000 4096 0"), "yes");
  EXPECT_EQ(Memory(*server_, "read " + made.handle + " 8096 3904 2"), "yes");
  EXPECT_EQ(Make("pages 0 4096 1 " + buffer + " 0").status, STATUS_INVALID_PARAMETER_5);
  EXPECT_EQ(Make("pages 0 96 4001 " + buffer + " 0").status, STATUS_INVALID_PARAMETER_6);
  EXPECT_EQ(Make("pages 0 96 4000 " + buffer + " 0 1").status, STATUS_INVALID_PARAMETER_6);
  EXPECT_EQ(Make("pages 0 96 0 " + buffer + " 0 1").status, STATUS_SUCCESS);
}

// ---- Row 42: VmbChannelMapGpadl.

TEST_P(Gpadls, MapIsForOneAtATime) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  ASSERT_EQ(Map(handle), STATUS_SUCCESS);
  EXPECT_EQ(Map(handle), STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Map(handle, kReadOnly), STATUS_INVALID_DEVICE_STATE);
  Memory(*server_, "unmap " + handle);
  EXPECT_EQ(Map(handle, kReadOnly), STATUS_SUCCESS);
}

TEST_P(Gpadls, MapToWriteIsDeniedIfItWasCreatedReadOnly) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096, kReadOnly);
  EXPECT_EQ(Map(handle), STATUS_ACCESS_DENIED);
  ASSERT_EQ(Map(handle, kReadOnly), STATUS_SUCCESS);
  Memory(*client_, "fill " + buffer_ + " 0 4096 8");
  EXPECT_EQ(Memory(*server_, "read " + handle + " 0 4096 8"), "yes");
}

TEST_P(Gpadls, MapKnowsOnlyTheHandlesOfItsChannel) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  const Channel other_server = AddServer({.instance = "2"});
  const Channel other_client = AddClient({.instance = "2"});
  ASSERT_NO_FATAL_FAILURE(Open(other_server, other_client));
  EXPECT_EQ(MadeOf(Memory(other_server, "map 0 " + handle)).status, STATUS_INVALID_PARAMETER_3);
  // The rings' own have small numbers too.
  for (UINT32 number = 0; number < 16; ++number) {
    const Status wanted =
        std::to_string(number) == handle ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER_3;
    EXPECT_EQ(Map(std::to_string(number)), wanted) << number;
  }
  EXPECT_EQ(Map("4294967295"), STATUS_INVALID_PARAMETER_3);
  Memory(*server_, "unmap " + handle);
  Memory(*client_, "delete " + handle);
  EXPECT_EQ(Map(handle), STATUS_INVALID_PARAMETER_3);
}

// ---- Row 5: VmbChannelDeleteGpadl. Row 47: VmbChannelUnmapGpadl.

TEST_P(Gpadls, DeleteWaitsForUnmap) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  ASSERT_EQ(Map(handle), STATUS_SUCCESS);
  client_->Async("memory", "delete " + handle);
  // Nothing else waits for it.
  ASSERT_NO_FATAL_FAILURE(Mark(*client_, *server_));
  ASSERT_NO_FATAL_FAILURE(Mark(*server_, *client_));
  EXPECT_EQ(Memory(*server_, "write " + handle + " 0 4096 6"), "ok");
  EXPECT_EQ(client_->Count("returned memory ok"), 0U);
  EXPECT_EQ(Memory(*client_, "holds " + buffer_ + " 0 4096 6"), "yes");
  Memory(*server_, "unmap " + handle);
  ASSERT_TRUE(client_->Wait("returned memory ok"));
  EXPECT_EQ(Map(handle), STATUS_INVALID_PARAMETER_3);
}

TEST_P(Gpadls, DeleteAndUnmapIgnoreWhatTheyDoNotKnow) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  Memory(*server_, "unmap " + handle);  // not mapped
  Memory(*server_, "unmap 12345");
  Memory(*client_, "delete 12345");
  Memory(*client_, "delete 0");
  EXPECT_EQ(Map(handle), STATUS_SUCCESS) << "what stands still stands";
  Memory(*server_, "unmap " + handle);
  Memory(*server_, "unmap " + handle);
  Memory(*client_, "delete " + handle);
  Memory(*client_, "delete " + handle);
  ASSERT_NO_FATAL_FAILURE(Mark(*client_, *server_));
}

// ---- Rule 8.1: when.

TEST_P(Gpadls, AreMadeFromInsideOpenedOn) {
  server_.emplace(AddServer());
  client_.emplace(AddClient());
  const std::string buffer = Buffer("pool", 4096);
  EXPECT_EQ(Make("create 0 " + buffer + ":0:4096").status, STATUS_INVALID_DEVICE_STATE);
  const std::string create = Line(*client_, "create 0 " + buffer + ":0:4096");
  client_->On("Opened", create);
  ASSERT_NO_FATAL_FAILURE(Open(*server_, *client_));
  const Made made = MadeOf(Done(*client_, create));
  ASSERT_EQ(made.status, STATUS_SUCCESS);
  EXPECT_EQ(Map(made.handle), STATUS_SUCCESS);
  // Also while paused, at both ends.
  client_->Pause();
  server_->Pause();
  const std::string second = Share(100);
  EXPECT_EQ(Map(second), STATUS_SUCCESS);
  client_->Disable();
  EXPECT_EQ(Make("create 0 " + buffer + ":0:4096").status, STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(Map(made.handle), STATUS_INVALID_DEVICE_STATE);
}

TEST_P(Gpadls, AreNotMadeAnyMoreInsideClosed) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string buffer = Buffer("pool", 4096);
  const std::string create = Line(*client_, "create 0 " + buffer + ":0:4096");
  client_->On("Closed", create);
  client_->Disable();
  EXPECT_EQ(MadeOf(Done(*client_, create)).status, STATUS_INVALID_DEVICE_STATE);
}

// ---- Rule 8.4: close.

TEST_P(Gpadls, AreDeletedInsideClosedWhileTheServerUnmapsInItsOwn) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  ASSERT_EQ(Map(handle), STATUS_SUCCESS);
  const std::string unmap = Line(*server_, "unmap " + handle);
  const std::string erase = Line(*client_, "delete " + handle);
  server_->On("Closed", unmap);
  client_->On("Closed", erase);
  client_->Disable();
  EXPECT_EQ(Done(*client_, erase), "ok");
  EXPECT_EQ(Done(*server_, unmap), "ok");
}

TEST_P(Gpadls, OfARescindedChannelAreDeletedAtOnce) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  ASSERT_EQ(Map(handle), STATUS_SUCCESS);
  const std::string unmap = Line(*server_, "unmap " + handle);
  const std::string erase = Line(*client_, "delete " + handle);
  server_->On("Closed", unmap);
  client_->On("Closed", erase);
  server_->Disable();
  ASSERT_TRUE(client_->Wait("did " + erase + " -> ok"));
  EXPECT_EQ(Done(*server_, unmap), "ok");
}

TEST_P(Gpadls, ThatAreLeftAtCloseAreRemovedAndNothingWaitsForEver) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string mapped = Share(4096);
  const std::string unmapped = Share(4096);
  ASSERT_EQ(Map(mapped), STATUS_SUCCESS);
  ASSERT_EQ(Memory(*server_, "write " + mapped + " 0 10 1"), "ok");
  client_->Disable();
  EXPECT_EQ(Map(mapped), STATUS_INVALID_DEVICE_STATE);
  // The next open begins without them.
  const int opens = static_cast<int>(client_->Count("PostStarted"));
  ASSERT_EQ(client_->Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client_->Wait("PostStarted", opens + 1));
  ASSERT_TRUE(server_->Wait("PostStarted", 2));
  EXPECT_EQ(Map(mapped), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Map(unmapped), STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Map(Share(100)), STATUS_SUCCESS);
}

TEST_P(Gpadls, ThatAreLeftByAnOpenThatFailedAreRemoved) {
  server_.emplace(AddServer());
  client_.emplace(AddClient());
  const std::string buffer = Buffer("pool", 4096);
  const std::string create = Line(*client_, "create 0 " + buffer + ":0:4096");
  client_->On("Opened", create);
  client_->Set("opened-status", STATUS_UNSUCCESSFUL);
  ASSERT_EQ(server_->Enable(), STATUS_SUCCESS);
  ASSERT_EQ(client_->Enable(), STATUS_SUCCESS);
  ASSERT_TRUE(client_->Wait("Opened"));
  client_->Disable();
  ASSERT_EQ(MadeOf(Done(*client_, create)).status, STATUS_SUCCESS);
  client_->Set("opened-status", STATUS_SUCCESS);
  client_->On("Opened", Line(*client_, "holds " + buffer + " 0 0 0"));
  ASSERT_EQ(client_->Enable(), STATUS_SUCCESS);
  server_->Start();
  ASSERT_TRUE(client_->Wait("PostStarted"));
  EXPECT_EQ(Map(MadeOf(Done(*client_, create)).handle), STATUS_INVALID_PARAMETER_3);
}

TEST_P(Gpadls, ServersDisableDoesNotWaitForTheClient) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  ASSERT_EQ(Map(handle), STATUS_SUCCESS);
  client_->Gate("Suspend");  // the client gets no further
  server_->Disable();        // and its driver has left the mapping
  EXPECT_EQ(Map(handle), STATUS_INVALID_DEVICE_STATE);
  client_->Release("Suspend");
  ASSERT_TRUE(client_->Wait("Closed"));
}

TEST_P(Gpadls, DeleteReturnsWhenTheServerDies) {
  if (placement() != Placement::kServerProcess) GTEST_SKIP() << "needs a server that can die";
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(4096);
  ASSERT_EQ(Map(handle), STATUS_SUCCESS);
  client_->Async("memory", "delete " + handle);
  KillServer();
  ASSERT_TRUE(client_->Wait("returned memory ok"));
  ASSERT_TRUE(client_->Wait("Closed"));
  client_->Disable();  // until the callback has returned the channel is still open
  EXPECT_EQ(Make("create 0 " + buffer_ + ":0:4096").status, STATUS_INVALID_DEVICE_STATE);
}

TEST_P(Gpadls, AMappingOutlivesItsClientUntilItIsUndone) {
  if (placement() != Placement::kClientProcess) GTEST_SKIP() << "needs a client that can die";
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  const std::string handle = Share(3 * 4096);
  ASSERT_EQ(Map(handle), STATUS_SUCCESS);
  Memory(*client_, "fill " + buffer_ + " 0 12288 5");
  server_->Gate("Closed");
  KillClient();
  ASSERT_TRUE(server_->Wait("Closed"));
  EXPECT_EQ(Memory(*server_, "read " + handle + " 0 12288 5"), "yes");
  EXPECT_EQ(Memory(*server_, "write " + handle + " 0 12288 6"), "ok");
  Memory(*server_, "unmap " + handle);
  server_->Release("Closed");
  EXPECT_EQ(server_port().Exchange("gone 1"), "ok");
}

TEST_P(Gpadls, ManyComeAndGoAtOnce) {
  ASSERT_NO_FATAL_FAILURE(OpenChannel());
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> handles;
    for (int index = 0; index < 10; ++index) {
      handles.push_back(Share(4096 * (1 + static_cast<std::size_t>(index))));
      ASSERT_EQ(Map(handles.back()), STATUS_SUCCESS);
      client_->Async("memory", "delete " + handles.back());
    }
    for (const std::string& handle : handles) Memory(*server_, "unmap " + handle);
    ASSERT_TRUE(client_->Wait("returned memory ok", 10 * (round + 1)));
  }
}

}  // namespace

}  // namespace kmcl::contract
