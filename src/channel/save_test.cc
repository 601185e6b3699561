// Saving a channel and going on in another one, on the same rings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <string>
#include <vector>

#include "channel/channel.h"
#include "channel/save_format.h"
#include "channel/test_support.h"

namespace kmcl::channel {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const ChannelName kName{.interface_type = {1, 2, 3, {}}, .instance = {4, 5, 6, {}}};
constexpr RingName kRings{.gpadl = 0xE1E10, .downstream_page = 2};
constexpr std::uint32_t kRingBytes = 4096;

using Bytes = std::vector<std::byte>;

Bytes Save(Channel& channel, std::size_t buffer_bytes = 1 << 20) {
  EXPECT_TRUE(channel.BeginSave(kName));
  Bytes all;
  while (true) {
    Bytes buffer(buffer_bytes);
    const auto progress = channel.ContinueSave(buffer);
    if (!progress) {
      ADD_FAILURE() << ErrorName(progress.error().error);
      break;
    }
    all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<long>(progress->filled_bytes));
    if (progress->kind == SaveProgress::Kind::kDone) break;
    buffer_bytes = std::max(buffer_bytes, progress->required_bytes);
  }
  channel.EndSave();
  return all;
}

// Where chunks begin.
std::vector<std::size_t> Borders(const Bytes& saved) {
  std::vector<std::size_t> borders;
  const auto chunks = saved::ParseChunks(saved);
  std::size_t at = 0;
  for (const auto& chunk : *chunks) {
    borders.push_back(at);
    at += saved::kHeaderBytes + chunk.payload.size();
  }
  return borders;
}

class SaveTest : public ::testing::Test {
 protected:
  SaveTest() : pair_(kRingBytes) {}

  // The channel that follows, and the packets it gets back. Names are kept by the driver's part.
  struct Successor : End {
    // The names go before the channel does.
    ~Successor() { Disable(); }
    Successor() : End(Side::kServer) {
      handler.on_done = [this](Packet& done) { channel->FreePacket(done); };
      handler.on_restore = [this](std::span<const std::byte> library,
                                  std::span<const std::byte> driver) {
        handler.Note("Restore " + TextOf(driver));
        names.push_back(TextOf(driver));
        Packet* const packet = NewPacket(names.back().c_str());
        if (const auto restored = channel->RestorePacket(*packet, library); !restored) {
          channel->FreePacket(*packet);
          return -2;
        }
        return 0;
      };
    }
    std::list<std::string> names;
  };

  // The driver's part of a packet is its name.
  void KeepNames() {
    pair_.server.handler.on_save = [](Packet& packet, std::span<std::byte> buffer,
                                      std::uint32_t& needed) {
      const std::string name = static_cast<const char*>(packet.pointer);
      if (buffer.empty()) {
        needed = static_cast<std::uint32_t>(name.size());
        return -1;
      }
      std::ranges::copy(BytesOf(name), buffer.begin());
      return 0;
    };
  }

  // A channel with something of everything: two transactions that wait at the client, a packet and
  // a transaction that wait to be sent, and a packet that was deferred.
  void FillServer() {
    KeepNames();
    pair_.Start();
    ASSERT_TRUE(pair_.server.Send("flight-1", true));
    ASSERT_TRUE(pair_.server.Send("flight-2", true));
    pair_.client.Dispatch();
    ASSERT_TRUE(pair_.client.Send("deferred", true));
    pair_.server.handler.on_packet = [this](IncomingPacket& packet) {
      ASSERT_TRUE(pair_.server.channel->Defer(packet));
    };
    pair_.server.Dispatch();
    pair_.server.Pause();
    ASSERT_TRUE(pair_.server.Send("queued-1"));
    ASSERT_TRUE(pair_.server.Send("queued-2", true));
    pair_.client.handler.Take();
    pair_.server.handler.Take();
  }

  void Reattach(Successor& successor) {
    ASSERT_TRUE(successor.channel->restored());
    ASSERT_TRUE(successor.channel->AttachRestored(pair_.rings.mapping(), successor.bell, kRings));
    successor.channel->OnOpen();
    successor.RunState();
  }

  Pair pair_;
};

TEST_F(SaveTest, EverythingGoesOnInAnotherChannel) {
  FillServer();
  const Bytes saved = Save(*pair_.server.channel);
  EXPECT_TRUE(pair_.server.channel->is_saved());
  pair_.server.Disable();
  EXPECT_THAT(pair_.server.handler.Take(),
              ElementsAre("Done flight-1 removed", "Done flight-2 removed", "Done queued-1 removed",
                          "Done queued-2 removed", "Closed", "bus Detach", "bus Leave"));
  // Meanwhile the client sends, and answers a transaction.
  ASSERT_TRUE(pair_.client.Send("meanwhile"));
  pair_.client.channel->Complete(*pair_.client.handler.held[1], BytesOf("answer-2"));

  Successor successor;
  const auto restored = successor.channel->Restore(kName, saved);
  ASSERT_TRUE(restored);
  EXPECT_EQ(*restored, Channel::Restored::kComplete);
  EXPECT_THAT(successor.handler.Take(),
              ElementsAre("Restore flight-1", "Restore flight-2", "Restore queued-1",
                          "Restore queued-2"));
  successor.Enable();
  Reattach(successor);
  EXPECT_THAT(successor.handler.Take(), ElementsAre("Opened", "bus AcceptOpen"));
  successor.channel->Start();
  successor.RunState();
  successor.Dispatch();
  EXPECT_TRUE(successor.turns.TakePassive());
  successor.channel->DeliverPassive();
  EXPECT_THAT(successor.handler.Take(),
              ElementsAre("Done queued-1 success", "Started", "PostStarted", "Packet deferred",
                          "Packet meanwhile", "Done flight-2 success answer-2", "Batch 2"));
  // What had waited has gone out, in order, and a new packet follows it.
  ASSERT_TRUE(successor.Send("new"));
  pair_.client.handler.Take();
  pair_.client.Dispatch();
  EXPECT_THAT(pair_.client.handler.Take(),
              ElementsAre("Packet queued-1", "Packet queued-2", "Packet new", "Batch 3"));
  // The other transactions end too, under their ids.
  pair_.client.channel->Complete(*pair_.client.handler.held[0], BytesOf("answer-1"));
  pair_.client.channel->Complete(*pair_.client.handler.held[3], BytesOf("answer-3"));
  successor.channel->Complete(*successor.handler.held[0], BytesOf("late"));
  successor.handler.Take();
  successor.Dispatch();
  EXPECT_THAT(successor.handler.Take(), ElementsAre("Done flight-1 success answer-1",
                                                    "Done queued-2 success answer-3"));
  pair_.client.Dispatch();
  EXPECT_THAT(pair_.client.handler.Take(), ElementsAre("Done deferred success late"));
  EXPECT_EQ(successor.channel->counters().sender.unexpected_completions, 0u);
  pair_.client.channel->Complete(*pair_.client.handler.held[2], {});
  pair_.client.channel->Complete(*pair_.client.handler.held[4], {});
  pair_.client.handler.held.clear();
  successor.channel->Complete(*successor.handler.held[1], {});
  successor.handler.held.clear();
}

TEST_F(SaveTest, CompletionsThatWaitForRoomAreSavedInTheirPlace) {
  KeepNames();
  pair_.Start();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(pair_.client.Send("request", true));
  pair_.server.Dispatch();
  // The ring to the client is full: the completions queue behind a packet.
  const std::string big(1200, 'x');
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(pair_.server.Send(big.c_str()));
  ASSERT_TRUE(pair_.server.Send(big.c_str()));
  for (IncomingPacket* packet : std::exchange(pair_.server.handler.held, {})) {
    pair_.server.channel->Complete(*packet, BytesOf("reply"));
  }
  pair_.server.Pause();
  const Bytes saved = Save(*pair_.server.channel);
  pair_.server.Disable();

  Successor successor;
  ASSERT_TRUE(successor.channel->Restore(kName, saved));
  successor.Enable();
  Reattach(successor);
  pair_.client.handler.Take();
  pair_.client.Dispatch();  // frees the ring
  successor.Dispatch();
  successor.channel->Start();
  successor.RunState();
  successor.Dispatch();
  pair_.client.Dispatch();
  const Lines lines = pair_.client.handler.Take();
  EXPECT_EQ(std::ranges::count(lines, "Done request success reply"), 3);
  EXPECT_EQ(std::ranges::count(lines, "Packet " + big), 4);
  for (IncomingPacket* packet : std::exchange(pair_.client.handler.held, {})) {
    pair_.client.channel->Complete(*packet, {});
  }
}

TEST_F(SaveTest, WhatIsSentAfterTheRestoreComesAfterWhatWasSaved) {
  FillServer();
  const Bytes saved = Save(*pair_.server.channel);
  pair_.server.Disable();
  Successor successor;
  ASSERT_TRUE(successor.channel->Restore(kName, saved));
  successor.Enable();
  ASSERT_TRUE(successor.Send("early"));  // before the rings are there
  Reattach(successor);
  successor.channel->Start();
  successor.RunState();
  pair_.client.handler.Take();
  pair_.client.Dispatch();
  EXPECT_THAT(pair_.client.handler.Take(),
              ElementsAre("Packet queued-1", "Packet queued-2", "Packet early", "Batch 3"));
  for (IncomingPacket* packet : std::exchange(pair_.client.handler.held, {})) {
    pair_.client.channel->Complete(*packet, {});
  }
}

TEST_F(SaveTest, AChannelThatIsNotOpenKeepsItsQueue) {
  KeepNames();
  pair_.server.Enable();
  ASSERT_TRUE(pair_.server.Send("early"));
  const Bytes saved = Save(*pair_.server.channel);
  pair_.server.Disable();
  Successor successor;
  ASSERT_TRUE(successor.channel->Restore(kName, saved));
  ASSERT_TRUE(successor.channel->restored());
  EXPECT_FALSE(successor.channel->restored()->open);
  successor.Enable();
  successor.channel->QueueRestored();
  EXPECT_EQ(successor.channel->counters().sender.queued, 1u);
  successor.Disable();
  EXPECT_THAT(successor.handler.Take(),
              ElementsAre("Restore early", "Done early removed", "bus Leave"));
}

TEST_F(SaveTest, ChunksComeWholeWhateverTheBuffers) {
  FillServer();
  const Bytes whole = Save(*pair_.server.channel);
  const std::vector<std::size_t> borders = Borders(whole);
  ASSERT_EQ(borders.size(), 7u);
  int asked = 0;
  pair_.server.handler.on_save = [&asked, keep = pair_.server.handler.on_save](
                                     Packet& packet, std::span<std::byte> buffer,
                                     std::uint32_t& needed) {
    ++asked;
    return keep(packet, buffer, needed);
  };
  Channel& channel = *pair_.server.channel;
  ASSERT_TRUE(channel.BeginSave(kName));
  Bytes all;
  for (std::size_t i = 0; i < borders.size(); ++i) {
    const std::size_t end = i + 1 < borders.size() ? borders[i + 1] : whole.size();
    const std::size_t bytes = end - borders[i];
    // A byte less than the next chunk needs gives nothing, as often as it is tried.
    for (const std::size_t too_small : {std::size_t{0}, bytes - 1}) {
      Bytes buffer(too_small);
      const auto progress = channel.ContinueSave(buffer);
      ASSERT_TRUE(progress);
      EXPECT_EQ(progress->kind, SaveProgress::Kind::kTooSmall);
      EXPECT_EQ(progress->filled_bytes, 0u);
      EXPECT_EQ(progress->required_bytes, bytes);
    }
    Bytes buffer(bytes);
    const auto progress = channel.ContinueSave(buffer);
    ASSERT_TRUE(progress);
    EXPECT_EQ(progress->filled_bytes, bytes);
    const bool last = i + 1 == borders.size();
    EXPECT_EQ(progress->kind, last ? SaveProgress::Kind::kDone : SaveProgress::Kind::kMore);
    if (last) {
      EXPECT_EQ(progress->required_bytes, 0u);
    }
    all.insert(all.end(), buffer.begin(), buffer.end());
  }
  EXPECT_EQ(asked, 8);  // a question and an answer for each of four packets
  EXPECT_EQ(channel.ContinueSave({}).error().error, Error::kChannelState);
  channel.EndSave();
  EXPECT_EQ(all.size(), whole.size());

  // And they may be given back in any pieces.
  Successor successor;
  for (std::size_t i = 0; i < borders.size(); ++i) {
    const std::size_t end = i + 1 < borders.size() ? borders[i + 1] : all.size();
    const auto restored =
        successor.channel->Restore(kName, std::span(all).subspan(borders[i], end - borders[i]));
    ASSERT_TRUE(restored);
    EXPECT_EQ(*restored, i + 1 == borders.size() ? Channel::Restored::kComplete
                                                 : Channel::Restored::kMore);
  }
  successor.channel->DropRestored();
}

TEST_F(SaveTest, TheChannelHoldsStillUntilTheEnd) {
  FillServer();
  ASSERT_TRUE(pair_.server.channel->BeginSave(kName));
  EXPECT_EQ(pair_.server.channel->BeginSave(kName).error(), Error::kChannelState);
  pair_.server.channel->Start();
  pair_.server.channel->OnClose();
  pair_.server.RunState();
  EXPECT_THAT(pair_.server.handler.Take(), IsEmpty());
  pair_.server.channel->EndSave();
  EXPECT_FALSE(pair_.server.channel->is_saved());  // it was not complete
  pair_.server.RunState();
  EXPECT_THAT(pair_.server.handler.Take(),
              ElementsAre("Done flight-1 removed", "Done flight-2 removed", "Done queued-1 removed",
                          "Done queued-2 removed", "Closed", "bus Detach"));
}

TEST_F(SaveTest, AStartAfterTheSaveGoesOnAsIfNothingHadBeen) {
  FillServer();
  Save(*pair_.server.channel);
  EXPECT_TRUE(pair_.server.channel->is_saved());
  pair_.server.channel->Start();
  EXPECT_FALSE(pair_.server.channel->is_saved());
  pair_.server.RunState();
  pair_.client.Dispatch();
  EXPECT_THAT(pair_.client.handler.Take(),
              ElementsAre("Packet queued-1", "Packet queued-2", "Batch 2"));
  pair_.server.handler.on_packet = nullptr;
  for (IncomingPacket* packet : std::exchange(pair_.client.handler.held, {})) {
    pair_.client.channel->Complete(*packet, {});
  }
}

TEST_F(SaveTest, AFailingCallbackEndsTheSaveAndTheRestore) {
  FillServer();
  const Bytes saved = Save(*pair_.server.channel);
  Channel& channel = *pair_.server.channel;
  int calls = 0;
  pair_.server.handler.on_save = [&](Packet&, std::span<std::byte>, std::uint32_t&) {
    ++calls;
    return -77;
  };
  ASSERT_TRUE(channel.BeginSave(kName));
  Bytes buffer(1 << 16);
  const auto failed = channel.ContinueSave(buffer);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().error, Error::kCallbackFailed);
  EXPECT_EQ(failed.error().callback_status, -77);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(channel.ContinueSave(buffer).error().error, Error::kChannelState);
  channel.EndSave();
  EXPECT_FALSE(channel.is_saved());

  // Packets restored before the failure end.
  Successor successor;
  const auto restore = successor.handler.on_restore;
  successor.handler.on_restore = [&](auto library, auto driver) {
    return TextOf(driver) == "queued-2" ? -78 : restore(library, driver);
  };
  const auto refused = successor.channel->Restore(kName, saved);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().callback_status, -78);
  EXPECT_THAT(successor.handler.Take(),
              ElementsAre("Restore flight-1", "Restore flight-2", "Restore queued-1",
                          "Done flight-1 removed", "Done flight-2 removed",
                          "Done queued-1 removed"));
  // Without VmbPacketRestore a success is none.
  successor.handler.on_restore = [](auto, auto) { return 0; };
  EXPECT_EQ(successor.channel->Restore(kName, saved).error().error, Error::kChannelState);
  // And then everything, from the beginning.
  successor.handler.on_restore = restore;
  EXPECT_TRUE(successor.channel->Restore(kName, saved));
  successor.channel->DropRestored();
}

TEST_F(SaveTest, DamagedSavesChangeNothing) {
  FillServer();
  const Bytes saved = Save(*pair_.server.channel);
  const std::vector<std::size_t> borders = Borders(saved);
  Successor successor;
  const auto refused = [&](std::span<const std::byte> bytes) {
    const auto restored = successor.channel->Restore(kName, bytes);
    return !restored && (restored.error().error == Error::kSaveMalformed ||
                         restored.error().error == Error::kSaveVersion);
  };
  for (std::size_t length = 0; length < saved.size(); ++length) {
    if (length != 0 && std::ranges::count(borders, length) != 0) continue;
    ASSERT_TRUE(refused(std::span(saved).first(length))) << length;
  }
  Bytes damaged = saved;
  for (std::size_t at = 0; at < saved.size(); ++at) {
    damaged[at] ^= std::byte{0x5A};
    ASSERT_TRUE(refused(damaged)) << at;
    damaged[at] = saved[at];
  }
  // Whole chunks in a wrong order, twice, left out, or of another save.
  const auto chunk = [&](std::size_t i) {
    const std::size_t end = i + 1 < borders.size() ? borders[i + 1] : saved.size();
    return Bytes(saved.begin() + static_cast<long>(borders[i]),
                 saved.begin() + static_cast<long>(end));
  };
  const auto joined = [&](const std::vector<std::size_t>& order) {
    Bytes bytes;
    for (const std::size_t i : order) std::ranges::copy(chunk(i), std::back_inserter(bytes));
    return bytes;
  };
  EXPECT_TRUE(refused(joined({1, 0})));
  EXPECT_TRUE(refused(joined({0, 2, 1})));
  EXPECT_TRUE(refused(joined({0, 1, 1})));
  EXPECT_TRUE(refused(joined({0, 1, 3})));
  EXPECT_TRUE(refused(joined({0, 6})));
  EXPECT_TRUE(refused(joined({6})));
  EXPECT_TRUE(refused(joined({0, 1, 2, 3, 4, 5, 6, 6})));
  const Bytes other = Save(*pair_.server.channel);
  Bytes mixed = joined({0});
  mixed.insert(mixed.end(), other.begin() + static_cast<long>(borders[1]), other.end());
  EXPECT_TRUE(refused(mixed));
  EXPECT_THAT(successor.handler.Take(), IsEmpty());
  EXPECT_FALSE(successor.channel->restored());

  // Of another channel, or for other settings.
  EXPECT_EQ(successor.channel->Restore({}, saved).error().error, Error::kSaveMalformed);
  successor.channel->config_in_init_window()->maximum_packet_bytes = 8192;
  EXPECT_TRUE(refused(saved));
  successor.channel->config_in_init_window()->maximum_packet_bytes = 4096;
  EXPECT_TRUE(successor.channel->Restore(kName, saved));
  EXPECT_EQ(successor.channel->Restore(kName, saved).error().error, Error::kChannelState);
  successor.channel->DropRestored();
}

TEST_F(SaveTest, OnlyTheRightPacketCanBeRestoredAndOnlyInTheCallback) {
  FillServer();
  const Bytes saved = Save(*pair_.server.channel);
  Successor successor;
  Packet* const outside = successor.NewPacket("outside");
  EXPECT_EQ(successor.channel->RestorePacket(*outside, {}).error(), Error::kPacketInFlight);
  const auto restore = successor.handler.on_restore;
  Packet* foreign = pair_.client.NewPacket("foreign");
  successor.handler.on_restore = [&](std::span<const std::byte> library,
                                     std::span<const std::byte> driver) {
    Bytes other(library.begin(), library.end());
    other.back() ^= std::byte{1};
    EXPECT_EQ(successor.channel->RestorePacket(*outside, other).error(), Error::kSaveMalformed);
    EXPECT_EQ(successor.channel->RestorePacket(*outside, library.first(library.size() - 1)).error(),
              Error::kSaveMalformed);
    EXPECT_EQ(successor.channel->RestorePacket(*foreign, library).error(), Error::kPacketInFlight);
    EXPECT_EQ(restore(library, driver), 0);
    EXPECT_EQ(successor.channel->RestorePacket(*outside, library).error(), Error::kPacketInFlight);
    return 0;
  };
  EXPECT_TRUE(successor.channel->Restore(kName, saved));
  successor.channel->DropRestored();
  successor.channel->FreePacket(*outside);
  pair_.client.channel->FreePacket(*foreign);
}

TEST_F(SaveTest, StatesThatCannotBeSavedAreRefused) {
  Channel& channel = *pair_.server.channel;
  EXPECT_EQ(channel.BeginSave(kName).error(), Error::kChannelState);  // disabled
  EXPECT_EQ(channel.ContinueSave({}).error().error, Error::kChannelState);
  channel.EndSave();
  pair_.Start();
  EXPECT_EQ(channel.BeginSave(kName).error(), Error::kChannelState);  // active
  EXPECT_EQ(channel.Restore(kName, Bytes(1)).error().error, Error::kChannelState);
}

TEST_F(SaveTest, ADisableEndsASaveThatIsUnderWay) {
  FillServer();
  ASSERT_TRUE(pair_.server.channel->BeginSave(kName));
  pair_.server.Disable();
  EXPECT_FALSE(pair_.server.channel->is_saved());
  EXPECT_EQ(pair_.server.channel->ContinueSave({}).error().error, Error::kChannelState);
}

TEST_F(SaveTest, AnOpenByTheClientEndsWhatWasRestored) {
  FillServer();
  const Bytes saved = Save(*pair_.server.channel);
  pair_.server.Disable();
  Successor successor;
  ASSERT_TRUE(successor.channel->Restore(kName, saved));
  successor.Enable();
  TestRings fresh(kRingBytes);
  End other(Side::kClient);
  other.Enable();
  ASSERT_TRUE(other.Attach(fresh, Channel::RingOrigin::kOurs));
  ASSERT_TRUE(successor.Attach(fresh, Channel::RingOrigin::kPeers));
  successor.channel->OnOpen();
  successor.handler.Take();
  successor.RunState();
  EXPECT_THAT(successor.handler.Take(),
              ElementsAre("Done flight-1 removed", "Done flight-2 removed", "Done queued-1 removed",
                          "Done queued-2 removed", "Opened", "bus AcceptOpen"));
  EXPECT_EQ(successor.channel->Restore(kName, saved).error().error, Error::kChannelState);
  other.channel->DetachRings();
}

TEST_F(SaveTest, ARefusedReopenEndsWhatWasRestored) {
  FillServer();
  const Bytes saved = Save(*pair_.server.channel);
  pair_.server.Disable();
  Successor successor;
  successor.handler.opens = false;
  ASSERT_TRUE(successor.channel->Restore(kName, saved));
  successor.Enable();
  successor.handler.Take();
  Reattach(successor);
  EXPECT_THAT(successor.handler.Take(),
              ElementsAre("Opened", "Done flight-1 removed", "Done flight-2 removed",
                          "Done queued-1 removed", "Done queued-2 removed", "bus RejectOpen"));
}

}  // namespace
}  // namespace kmcl::channel
