#include "channel/channel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "channel/test_support.h"

namespace kmcl::channel {
namespace {

using Origin = Channel::RingOrigin;

TEST(ChannelTest, AnOpenShowsItsCallbacksInOrderAtBothEnds) {
  Pair pair;
  pair.Open();
  // A server waits for its owner to start it; a client runs by default.
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Opened", "bus AcceptOpen"}));
  EXPECT_EQ(pair.client.handler.Take(),
            (Lines{"Opened", "bus AcceptOpen", "Started", "PostStarted"}));
  pair.server.channel->Start();
  pair.server.RunState();
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Started", "PostStarted"}));
  EXPECT_TRUE(pair.server.turns.TakeDispatch());
  EXPECT_TRUE(pair.server.channel->is_open());
}

TEST(ChannelTest, APacketGoesThereAndItsCompletionComesBack) {
  Pair pair;
  pair.Start();
  ASSERT_TRUE(pair.client.Send("question", true));
  EXPECT_EQ(pair.client.bell->count, 1);
  EXPECT_EQ(pair.server.Dispatch(), Turn::kAsleep);
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Packet question", "Batch 1"}));
  ASSERT_EQ(pair.server.handler.held.size(), 1u);
  EXPECT_TRUE(pair.server.channel->Complete(*pair.server.handler.held[0], BytesOf("answer")));
  pair.server.handler.held.clear();
  EXPECT_EQ(pair.server.bell->count, 1);
  EXPECT_EQ(pair.client.Dispatch(), Turn::kAsleep);
  EXPECT_EQ(pair.client.handler.Take(), Lines{"Done question success answer"});
  EXPECT_EQ(pair.client.channel->counters().receiver.completions, 1u);
}

TEST(ChannelTest, ACompletionGoesOutOnlyIfItWasAskedFor) {
  Pair pair;
  pair.Start();
  ASSERT_TRUE(pair.client.Send("note"));
  EXPECT_EQ(pair.client.handler.Take(), Lines{"Done note success"});
  pair.server.Dispatch();
  pair.server.channel->Complete(*pair.server.handler.held[0], BytesOf("nobody asked"));
  pair.server.handler.held.clear();
  EXPECT_EQ(pair.server.channel->counters().sender.completions, 0u);
  pair.client.Dispatch();
  EXPECT_EQ(pair.client.handler.Take(), Lines{});
  EXPECT_EQ(pair.client.channel->counters().sender.unexpected_completions, 0u);
}

TEST(ChannelTest, AFullRingHoldsPacketsBackInOrderUntilThePeerRings) {
  Pair pair(4096, {.maximum_packet_bytes = 3000});
  pair.Start();
  std::vector<std::string> names;
  for (int i = 0; i < 20; ++i) {
    names.push_back(std::to_string(i) + std::string(1000, '.'));
  }
  pair.client.handler.on_done = [&](Packet& packet) { pair.client.channel->FreePacket(packet); };
  for (const std::string& name : names) ASSERT_TRUE(pair.client.Send(name.c_str()));
  EXPECT_GT(pair.client.channel->counters().sender.queued, 10u);
  pair.server.handler.on_packet = [&](IncomingPacket& packet) {
    pair.server.channel->Complete(packet, {});
  };
  const int most = 100;
  int turns = 0;
  for (; pair.server.channel->counters().receiver.packets < 20 && turns < most; ++turns) {
    const int bells = pair.server.bell->count;
    pair.server.Dispatch();
    if (pair.server.bell->count > bells) pair.client.Dispatch();
  }
  EXPECT_LT(turns, most) << "the peer did not ring for space";
  Lines packets;
  for (const std::string& line : pair.server.handler.Take()) {
    if (line.starts_with("Packet")) packets.push_back(line.substr(7));
  }
  EXPECT_EQ(packets, names);
  EXPECT_EQ(pair.client.channel->counters().sender.queued, 0u);
}

TEST(ChannelTest, PauseWaitsForTheDrainAndLetsCompletionsThroughAndNothingElse) {
  Pair pair;
  pair.Start();
  ASSERT_TRUE(pair.client.Send("a", true));
  pair.server.Dispatch();
  IncomingPacket* const packet = pair.server.handler.held[0];
  pair.server.handler.held.clear();
  pair.server.handler.Take();
  std::thread driver;
  pair.server.handler.on_suspend = [&] {
    ASSERT_TRUE(pair.server.Send("late"));  // still goes into the ring: Suspend has not returned
    // The driver retires what it has, later and from another thread.
    driver = std::thread([&] {
      pair.server.Send("too late");
      pair.server.channel->Complete(*packet, BytesOf("b"));
    });
  };
  pair.server.Pause();
  driver.join();
  EXPECT_EQ(pair.server.channel->counters().receiver.outstanding, 0u);
  EXPECT_TRUE(pair.server.channel->is_open());
  pair.client.handler.on_packet = [&](IncomingPacket& each) {
    pair.client.channel->Complete(each, {});
  };
  pair.client.Dispatch();
  Lines lines = pair.client.handler.Take();
  // The other thread's packet may have come before Suspend returned, or not.
  EXPECT_EQ(lines[0], "Packet late");
  EXPECT_EQ(std::count(lines.begin(), lines.end(), "Done a success b"), 1);
  pair.server.handler.Take();

  // Paused: packets wait, and nothing is delivered.
  ASSERT_TRUE(pair.server.Send("waits"));
  ASSERT_TRUE(pair.client.Send("c"));
  EXPECT_EQ(pair.server.Dispatch(), Turn::kStopped);
  EXPECT_EQ(pair.server.handler.Take(), Lines{});
  pair.client.Dispatch();
  for (const std::string& line : pair.client.handler.Take()) EXPECT_NE(line, "Packet waits");

  pair.server.handler.on_suspend = nullptr;
  pair.server.channel->Start();
  pair.server.RunState();
  pair.server.Dispatch();
  pair.client.Dispatch();
  lines = pair.client.handler.Take();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), "Packet waits"), 1);
  lines = pair.server.handler.Take();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), "Packet c"), 1);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), "Started"), 1);
}

TEST(ChannelTest, PausingWhatDoesNotRunReturnsAtOnce) {
  End server(Side::kServer);
  server.channel->Pause();
  server.Enable();
  server.channel->Pause();
  EXPECT_FALSE(server.turns.TakeState());
}

TEST(ChannelTest, ACloseByThePeerEndsInTheOrderOfTheContract) {
  Pair pair;
  pair.Start();
  ASSERT_TRUE(pair.client.Send("a", true));
  pair.server.Dispatch();
  ASSERT_TRUE(pair.server.Send("s1", true));
  ASSERT_TRUE(pair.server.Send("s2", true));
  pair.server.handler.Take();
  pair.server.channel->OnClose();
  pair.server.RunState();
  // Outgoing packets end before the drain, which still waits.
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Suspend", "Done s1 removed", "Done s2 removed"}));
  pair.server.channel->Complete(*pair.server.handler.held[0], BytesOf("dropped"));
  pair.server.handler.held.clear();
  EXPECT_EQ(pair.server.channel->counters().sender.completions, 0u);
  pair.server.RunState();
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Closed", "bus Detach"}));
  EXPECT_FALSE(pair.server.channel->is_open());
  EXPECT_FALSE(pair.server.channel->is_disabled());  // the offer stands
}

TEST(ChannelTest, AServerOpensAgainAndASendInBetweenWaits) {
  Pair pair;
  pair.Start();
  pair.server.channel->OnClose();
  pair.client.channel->OnClose();
  pair.server.RunState();
  pair.client.RunState();
  EXPECT_EQ(pair.client.handler.Take(),
            (Lines{"Suspend", "bus SayClose", "Closed", "bus Detach", "bus Leave"}));
  ASSERT_TRUE(pair.server.Send("between"));
  pair.server.handler.Take();
  pair.client.Enable();
  pair.OpenAgain();
  EXPECT_EQ(pair.server.handler.Take(),
            (Lines{"Opened", "bus AcceptOpen", "Done between success", "Started", "PostStarted"}));
  pair.client.handler.Take();
  pair.client.Dispatch();
  EXPECT_EQ(pair.client.handler.Take(), (Lines{"Packet between", "Batch 1"}));
}

TEST(ChannelTest, DisableTearsEverythingDownAndSendsAreRefusedAfterwards) {
  Pair pair;
  pair.Start();
  ASSERT_TRUE(pair.client.Send("a", true));
  pair.client.Disable();
  EXPECT_EQ(pair.client.handler.Take(), (Lines{"Suspend", "Done a removed", "bus SayClose",
                                               "Closed", "bus Detach", "bus Leave"}));
  EXPECT_TRUE(pair.client.channel->is_disabled());
  EXPECT_EQ(pair.client.Send("b").error(), Error::kDisabled);
  pair.client.channel->Disable();  // nothing to do, nothing to wait for
  EXPECT_EQ(pair.client.channel->config_in_init_window(), nullptr);
}

TEST(ChannelTest, PacketsThatWaitForAnOpenEndWithDisable) {
  End client(Side::kClient);
  client.Enable();
  ASSERT_TRUE(client.Send("a", true));
  ASSERT_TRUE(client.Send("b"));
  client.Disable();
  EXPECT_EQ(client.handler.Take(), (Lines{"Done a removed", "Done b removed", "bus Leave"}));
}

TEST(ChannelTest, TheInitWindowIsOpenUntilAnEnableWasConfirmed) {
  End client(Side::kClient);
  EXPECT_NE(client.channel->config_in_init_window(), nullptr);
  ASSERT_TRUE(client.channel->Enable());
  EXPECT_EQ(client.channel->Enable().error(), Error::kNotDisabled);
  ASSERT_TRUE(client.Send("early"));
  client.channel->UndoEnable();
  EXPECT_EQ(client.handler.Take(), Lines{"Done early removed"});
  EXPECT_TRUE(client.channel->is_disabled());
  EXPECT_NE(client.channel->config_in_init_window(), nullptr);
  client.Enable();
  EXPECT_EQ(client.channel->config_in_init_window(), nullptr);
}

TEST(ChannelTest, AnOwnerMayRefuseAnOpen) {
  Pair pair;
  pair.server.handler.opens = false;
  pair.client.handler.opens = false;
  pair.Open();
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Opened", "bus RejectOpen"}));
  EXPECT_EQ(pair.client.handler.Take(), (Lines{"Opened", "bus RejectOpen", "bus Leave"}));
  EXPECT_FALSE(pair.server.channel->is_disabled());
  EXPECT_TRUE(pair.client.channel->is_disabled());
}

TEST(ChannelTest, AFailedConnectIsToldOnce) {
  End client(Side::kClient);
  client.Enable();
  client.channel->OnConnectFailed(Error::kPeerGone);
  client.RunState();
  EXPECT_EQ(client.handler.Take(), (Lines{"ConnectFailed PeerGone", "bus Leave"}));
  EXPECT_TRUE(client.channel->is_disabled());
}

TEST(ChannelTest, RingsAreTakenOnlyWhenAnOpenMayBegin) {
  Pair pair;
  EXPECT_EQ(pair.server.Attach(pair.rings, Origin::kOurs).error(), Error::kChannelState);
  pair.Open();
  EXPECT_EQ(pair.server.Attach(pair.rings, Origin::kOurs).error(), Error::kChannelState);
}

TEST(ChannelTest, RingsWithImpossibleIndicesAreNotTaken) {
  for (const bool up : {false, true}) {
    TestRings rings;
    End client(Side::kClient);
    End server(Side::kServer);
    client.Enable();
    server.Enable();
    ASSERT_TRUE(client.Attach(rings, Origin::kOurs));
    (up ? rings.up : rings.down).set_indices(4097, 0);
    EXPECT_EQ(server.Attach(rings, Origin::kPeers).error(), Error::kRingIndexOutOfRange);
  }
}

// ---- A peer that breaks a ring.

TEST(ChannelTest, ABrokenIncomingRingClosesTheChannelOnce) {
  LogLines log;
  Pair pair;
  pair.Start();
  pair.rings.up.set_word(ring::RingMemory::kWriteIndex, 3);
  pair.server.Dispatch();
  EXPECT_TRUE(pair.server.channel->ring_broken());
  pair.server.Dispatch();
  pair.server.RunState();
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Suspend", "Closed", "bus Detach"}));
  EXPECT_EQ(log.count(), 1);
  pair.server.RunState();
  EXPECT_EQ(pair.server.handler.Take(), Lines{});
}

TEST(ChannelTest, ABrokenOutgoingRingClosesTheChannelWhoeverFindsIt) {
  for (const bool now : {false, true}) {
    LogLines log;
    Pair pair(4096, {.maximum_packet_bytes = 4000});
    pair.Start();
    const std::string text(3000, 'x');
    ASSERT_TRUE(pair.server.Send(text.c_str()));
    pair.server.handler.Take();
    pair.rings.down.set_word(ring::RingMemory::kReadIndex, 4096);
    if (now) {
      EXPECT_EQ(pair.server.channel->RequestNow(BytesOf(text), false, {}).error(),
                Error::kWouldBlock);
    } else {
      ASSERT_TRUE(pair.server.Send(text.c_str()));
    }
    EXPECT_TRUE(pair.server.channel->ring_broken());
    EXPECT_TRUE(pair.server.turns.TakeState());
    pair.server.RunState();
    Lines lines = pair.server.handler.Take();
    EXPECT_EQ(lines.front(), "Suspend");
    EXPECT_EQ(lines.back(), "bus Detach");
    EXPECT_EQ(log.count(), 1);
  }
}

TEST(ChannelTest, ANewOpenForgetsABrokenRing) {
  LogLines log;
  Pair pair;
  pair.Start();
  pair.rings.up.set_word(ring::RingMemory::kWriteIndex, 3);
  pair.server.Dispatch();
  pair.server.RunState();
  pair.client.Disable();
  pair.client.Enable();
  pair.OpenAgain();
  EXPECT_FALSE(pair.server.channel->ring_broken());
  ASSERT_TRUE(pair.client.Send("a"));
  pair.server.handler.Take();
  pair.server.Dispatch();
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Packet a", "Batch 1"}));
}

TEST(ChannelTest, APeerWithoutTheFeatureBitIsPolledButNotInAHurry) {
  Pair pair(4096, {.maximum_packet_bytes = 4000});
  pair.client.Enable();
  pair.server.Enable();
  ASSERT_TRUE(pair.client.Attach(pair.rings, Origin::kOurs));
  pair.rings.up.set_word(ring::RingMemory::kFeatureBits, 0);
  ASSERT_TRUE(pair.server.Attach(pair.rings, Origin::kPeers));
  pair.server.channel->OnOpen();
  pair.client.channel->OnOpen();
  pair.server.channel->Start();
  pair.server.RunState();
  pair.client.RunState();
  const std::string text(3000, 'x');
  ASSERT_TRUE(pair.server.Send(text.c_str()));
  EXPECT_FALSE(pair.server.channel->must_poll());
  ASSERT_TRUE(pair.server.Send(text.c_str()));
  EXPECT_TRUE(pair.server.channel->must_poll());
  EXPECT_TRUE(pair.server.turns.TakeDispatch());  // so that the dispatcher learns of it
  pair.server.channel->Dispatch(0);
  EXPECT_FALSE(pair.server.turns.TakeDispatch());  // and waits as it sees fit
  EXPECT_TRUE(pair.server.channel->must_poll());
  pair.client.Dispatch();
  pair.server.channel->Dispatch(0);
  EXPECT_FALSE(pair.server.channel->must_poll());
}

// ---- Synchronous requests.

TEST(ChannelTest, ARequestWaitsForItsCompletion) {
  Pair pair;
  pair.Start();
  pair.server.handler.on_packet = [&](IncomingPacket& packet) {
    pair.server.channel->Complete(packet, BytesOf("four"));
  };
  std::array<std::byte, 16> reply{};
  Result<std::size_t> result;
  std::atomic<bool> done{false};
  std::thread caller([&] {
    result = pair.client.channel->Request(BytesOf("two plus two"), true, reply, Patience());
    done = true;
  });
  while (!done) {
    pair.server.Dispatch();
    pair.client.Dispatch();
    std::this_thread::yield();
  }
  caller.join();
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, 8u);
  EXPECT_EQ(TextOf(reply), "four");
  EXPECT_EQ(pair.client.handler.Take(), Lines{});
}

TEST(ChannelTest, ARequestThatIsNotAnsweredIsCancelledAndItsLateAnswerDropped) {
  Pair pair;
  pair.Start();
  const auto result =
      pair.client.channel->Request(BytesOf("a"), true, {}, std::chrono::steady_clock::now());
  EXPECT_EQ(result.error(), Error::kCancelled);
  pair.server.Dispatch();
  pair.server.channel->Complete(*pair.server.handler.held[0], {});
  pair.server.handler.held.clear();
  pair.client.Dispatch();
  EXPECT_EQ(pair.client.handler.Take(), Lines{});
  EXPECT_EQ(pair.client.channel->counters().sender.unexpected_completions, 1u);
  EXPECT_EQ(pair.client.channel->counters().sender.transactions_cancelled, 1u);
}

TEST(ChannelTest, ARequestNowIsInTheRingOrNowhere) {
  Pair pair;
  pair.client.Enable();
  EXPECT_EQ(pair.client.channel->RequestNow(BytesOf("a"), false, {}).error(), Error::kWouldBlock);
  pair.client.Disable();
  EXPECT_EQ(pair.client.channel->RequestNow(BytesOf("a"), false, {}).error(), Error::kDisabled);
  pair.Start();
  EXPECT_TRUE(pair.client.channel->RequestNow(BytesOf("a"), false, {}));
  EXPECT_EQ(pair.client.channel->RequestNow(BytesOf("b"), true, {}).error(), Error::kCancelled);
  EXPECT_EQ(pair.client.channel->RequestNow(BytesOf(std::string(5000, 'x')), false, {}).error(),
            Error::kPacketTooLong);
  pair.server.Dispatch();
  EXPECT_EQ(pair.server.handler.Take(), (Lines{"Packet a", "Packet b", "Batch 2"}));
}

TEST(ChannelTest, ARequestFailsAtOnceWhenTheChannelCloses) {
  Pair pair;
  pair.Start();
  // From a state callback that has not returned yet.
  pair.client.handler.on_post_started = nullptr;
  std::atomic<bool> done{false};
  Result<std::size_t> waiting;
  std::thread caller([&] {
    waiting = pair.client.channel->Request(BytesOf("a"), true, {}, std::nullopt);
    done = true;
  });
  while (pair.client.channel->counters().sender.packets == 0) std::this_thread::yield();
  pair.client.channel->OnClose();  // before the state worker had any turn
  caller.join();
  EXPECT_EQ(waiting.error(), Error::kDeviceRemoved);
  EXPECT_EQ(pair.client.channel->Request(BytesOf("b"), true, {}, std::nullopt).error(),
            Error::kDeviceRemoved);
  pair.client.RunState();
  EXPECT_EQ(pair.client.channel->Request(BytesOf("c"), true, {}, std::nullopt).error(),
            Error::kDisabled);
}

TEST(ChannelTest, TimeOutsAndCompletionsRaceWithoutLoss) {
  Pair pair;
  pair.Start();
  pair.server.handler.on_packet = [&](IncomingPacket& packet) {
    pair.server.channel->Complete(packet, BytesOf("yes"));
  };
  constexpr int kRequests = 3000;
  std::atomic<bool> done{false};
  int answered = 0;
  int cancelled = 0;
  std::thread caller([&] {
    for (int i = 0; i < kRequests; ++i) {
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(i % 40);
      std::array<std::byte, 8> reply{};
      const auto result = pair.client.channel->Request(BytesOf("?"), true, reply, deadline);
      if (result) {
        EXPECT_EQ(TextOf(reply), "yes");
        ++answered;
      } else {
        EXPECT_EQ(result.error(), Error::kCancelled);
        ++cancelled;
      }
    }
    done = true;
  });
  while (!done) {
    pair.server.Dispatch();
    pair.client.Dispatch();
  }
  caller.join();
  pair.server.Dispatch();
  pair.client.Dispatch();
  const auto counters = pair.client.channel->counters();
  EXPECT_EQ(answered + cancelled, kRequests);
  EXPECT_EQ(counters.sender.transactions_completed, static_cast<std::uint64_t>(answered));
  EXPECT_EQ(counters.sender.transactions_cancelled, static_cast<std::uint64_t>(cancelled));
  EXPECT_LE(counters.sender.unexpected_completions, static_cast<std::uint64_t>(cancelled));
}

// ---- Packet objects.

TEST(ChannelTest, APacketObjectIsKeptForTheNextUseAndGoesWithIdleness) {
  Pair pair;
  pair.Start();
  EXPECT_EQ(pair.client.channel->Dispatch(1), Turn::kEmpty);  // awake
  Packet* const packet = pair.client.channel->AllocatePacket();
  packet->pointer = packet;
  pair.client.channel->FreePacket(*packet);
  EXPECT_EQ(packet->pointer, nullptr);  // still there
  EXPECT_EQ(pair.client.channel->AllocatePacket(), packet);
  pair.client.channel->FreePacket(*packet);
  EXPECT_EQ(pair.client.Dispatch(), Turn::kAsleep);  // the address sanitizer counts what is left
}

TEST(ChannelTest, ManyPacketObjectsMayComeBackAtOnce) {
  End client(Side::kClient);
  std::vector<Packet*> packets;
  for (int i = 0; i < 1000; ++i) packets.push_back(client.channel->AllocatePacket());
  for (Packet* packet : packets) client.channel->FreePacket(*packet);
}

TEST(ChannelTest, AnIdlePacketOfAnOlderSizeIsNotUsedAgain) {
  End client(Side::kClient);
  Packet* packet = client.channel->AllocatePacket();
  EXPECT_EQ(packet->capacity, 4096u);
  client.channel->FreePacket(*packet);
  client.channel->config_in_init_window()->maximum_packet_bytes = 9000;
  packet = client.channel->AllocatePacket();
  EXPECT_EQ(packet->capacity, 9000u);
  EXPECT_EQ(client.channel->packet_object_bytes(), sizeof(Packet) + 9000);
  client.channel->FreePacket(*packet);
}

TEST(ChannelTest, APacketInCallerMemoryIsSentLikeAnyOther) {
  Pair pair;
  pair.Start();
  pair.client.handler.on_done = [](Packet&) {};
  void* const memory =
      ::operator new (pair.client.channel->packet_object_bytes(), std::align_val_t{16});
  Packet* const packet = pair.client.channel->InitializePacket(memory);
  packet->pointer = const_cast<char*>("mine");
  ASSERT_TRUE(pair.client.channel->Send(*packet, BytesOf("x"), false));
  EXPECT_EQ(pair.client.handler.Take(), Lines{"Done mine success"});
  EXPECT_EQ(pair.client.channel->Send(*packet, BytesOf(std::string(4097, 'x')), false).error(),
            Error::kPacketTooLong);
  packet->~Packet();
  ::operator delete (memory, std::align_val_t{16});
}

TEST(ChannelTest, APacketMayBeSentAgainFromItsOwnCompletion) {
  Pair pair;
  pair.Start();
  int again = 3;
  pair.client.handler.on_done = [&](Packet& packet) {
    if (again-- > 0) {
      EXPECT_TRUE(pair.client.channel->Send(packet, BytesOf("again"), false));
    } else {
      pair.client.channel->FreePacket(packet);
    }
  };
  ASSERT_TRUE(pair.client.Send("first"));
  pair.server.Dispatch();
  EXPECT_EQ(pair.server.handler.Take(),
            (Lines{"Packet first", "Packet again", "Packet again", "Packet again", "Batch 4"}));
}

TEST(RingPagesTest, ARingHoldsAtLeastOneOfTheLargestPackets) {
  EXPECT_GE(RingPages({}, 0), 4u);
  EXPECT_EQ(RingPages({}, 100), 100u);
  for (const std::uint32_t bytes : {1u, 4096u, 100'000u, 500'000u}) {
    const Config config{.maximum_packet_bytes = bytes, .pipe = true};
    const std::uint32_t data_bytes = (RingPages(config, 1) - 1) * 4096;
    EXPECT_LE(ring::OutgoingRing::PacketBytes(0, bytes + 8), ring::MaximumPacketBytes(data_bytes));
    EXPECT_GE(RingPages(config, 0), RingPages(config, 1));
  }
}

// ---- Completing while the channel ends.

// The owner completes its packets on one thread while the channel is disabled, and destroyed as
// soon as Disable returns: whoever takes the last packet off must have let go of the channel by
// then. The sanitizers watch.
TEST(ChannelTest, AChannelMayBeDestroyedAsSoonAsItIsDisabled) {
  for (int round = 0; round < 300; ++round) {
    Pair pair;
    pair.Start();
    for (const char* name : {"a", "b", "c", "d"}) {
      ASSERT_TRUE(pair.client.Send(name, true));
    }
    pair.server.Dispatch();
    std::atomic<bool> suspended{false};
    pair.server.handler.on_suspend = [&] {
      suspended = true;
      suspended.notify_all();
    };
    Channel* const channel = pair.server.channel.get();
    std::thread owner([&suspended, channel, held = std::exchange(pair.server.handler.held, {})] {
      suspended.wait(false);
      for (IncomingPacket* packet : held) {
        EXPECT_TRUE(channel->Complete(*packet, BytesOf("x")));
      }
    });
    // More wishes make the state worker look at the drain by itself, too.
    std::thread worker_noise([&] {
      suspended.wait(false);
      for (int i = 0; i < 20; ++i) {
        pair.server.turns.RequestState();
        std::this_thread::yield();
      }
    });
    pair.server.Disable();
    // The channel's memory goes at once; the thread may still be on its way out of Complete.
    pair.server.channel.reset();
    owner.join();
    worker_noise.join();
    pair.client.Disable();
  }
}

}  // namespace
}  // namespace kmcl::channel
