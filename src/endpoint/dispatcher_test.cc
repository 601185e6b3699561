#include "endpoint/dispatcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "channel/test_support.h"
#include "wdk/irql.h"
#include "endpoint/test_support.h"

namespace kmcl::endpoint {
namespace {

using channel::Channel;

// A client's channel whose bus is the test itself.
class TestEnd final : public ChannelEnd {
 public:
  TestEnd(channel::Handler& handler, PassivePool& pool)
      : ChannelEnd(channel::Side::kClient, handler, pool) {}
  Result<void> Enable() override { return engine().Enable(); }
  using ChannelEnd::BeginDispatch;
  using ChannelEnd::EndDispatch;

 private:
  void CarryOut(channel::BusRequest) override {}
};

class CountingHandler : public EchoHandler {
 public:
  explicit CountingHandler(Record& record) : EchoHandler(record) {}
  void OnPacket(channel::IncomingPacket& packet) override {
    EXPECT_EQ(wdk::current_irql, wdk::kDispatchLevel);
    if (on_packet) on_packet();
    packet.channel->Complete(packet, {});
    packets.fetch_add(1);
    packets.notify_all();
  }
  // False after 10 s.
  bool Await(std::uint64_t wanted) const {
    const auto deadline = Patience();
    while (packets.load() < wanted) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }
  std::function<void()> on_packet;
  std::atomic<std::uint64_t> packets{0};
};

// One channel: the client's end belongs to a dispatcher, the server's is driven by the test.
class DispatcherFixture : public ::testing::Test {
 protected:
  static constexpr wire::ChannelId kChannel{5};

  explicit DispatcherFixture(const DispatcherOptions& options) : server_(channel::Side::kServer) {
    static std::atomic<int> number{0};
    auto listener =
        transport::Listen("local:dispatcher_test_" + std::to_string(number.fetch_add(1)));
    auto connection = transport::Connect(**listener);
    client_link_ = std::move(connection.client);
    server_link_ = std::move(connection.server);
    pool_ = PassivePool::Create().value();
    dispatcher_ = Dispatcher::Create(options).value();
    end_ = std::make_shared<TestEnd>(handler_, *pool_);
  }
  ~DispatcherFixture() override {
    if (!end_->engine().is_disabled()) {
      end_->engine().Disable();
      end_->EndDispatch();
    }
    dispatcher_->RemoveInbox(*client_link_, 0);
    end_.reset();
    pool_.reset();
  }

  // Somewhere between at once and when the thread has surely fallen asleep, so that some rounds
  // meet it on its way there.
  static void WaitAMoment(std::uint64_t round) {
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::nanoseconds(round * 37 % 6000);
    while (std::chrono::steady_clock::now() < until) {
    }
  }

  // `real_bell`: the server's end rings the client's dispatcher. Otherwise nobody does.
  void Open(bool real_bell) {
    ASSERT_TRUE(dispatcher_->AddInbox(client_link_, 0));
    ASSERT_TRUE(end_->Enable());
    end_->engine().ConfirmEnable();
    server_.Enable();
    ASSERT_TRUE(end_->engine().AttachRings(rings_.mapping(), Channel::RingOrigin::kOurs,
                                           std::make_shared<channel::CountingBell>()));
    std::shared_ptr<transport::Doorbell> bell = server_.bell;
    if (real_bell) bell = server_link_->MakeDoorbell(kChannel, 0);
    ASSERT_TRUE(server_.channel->AttachRings(rings_.mapping(), Channel::RingOrigin::kPeers, bell));
    end_->BeginDispatch(*dispatcher_, client_link_, 0, kChannel);
    server_.channel->OnOpen();
    server_.channel->Start();
    server_.RunState();
    end_->engine().OnOpen();
    ASSERT_TRUE(record_.Await("PostStarted"));
  }

  Record record_;
  CountingHandler handler_{record_};
  channel::TestRings rings_;
  std::shared_ptr<transport::Link> client_link_;
  std::shared_ptr<transport::Link> server_link_;
  std::unique_ptr<PassivePool> pool_;
  std::unique_ptr<Dispatcher> dispatcher_;
  channel::End server_;
  std::shared_ptr<TestEnd> end_;
};

class DispatcherTest : public DispatcherFixture,
                       public ::testing::WithParamInterface<std::uint32_t> {
 protected:
  DispatcherTest() : DispatcherFixture({.spin_us = GetParam()}) {}

  // Rounds of the stress tests; a thread that polls leaves the others little of a small machine.
  const std::uint64_t kRounds = GetParam() == kSpinForever ? 500 : 10'000;
};

TEST_P(DispatcherTest, NoBellIsLostWhetherTheThreadSleepsOrPolls) {
  Open(true);
  for (std::uint64_t i = 1; i <= kRounds; ++i) {
    WaitAMoment(i);
    ASSERT_TRUE(server_.Send("x"));
    ASSERT_TRUE(handler_.Await(i)) << "packet " << i;
  }
}

TEST_P(DispatcherTest, NoKickIsLostWhetherTheThreadSleepsOrPolls) {
  Open(false);
  for (std::uint64_t i = 1; i <= kRounds; ++i) {
    WaitAMoment(i);
    ASSERT_TRUE(server_.Send("x"));
    end_->RequestDispatch();
    ASSERT_TRUE(handler_.Await(i)) << "packet " << i;
  }
}

TEST_P(DispatcherTest, KicksFromManyThreadsArriveAlthoughTheyCoincide) {
  Open(false);
  std::atomic<bool> stopping{false};
  std::vector<std::thread> noise;
  for (int i = 0; i < 2; ++i) {
    noise.emplace_back([&] {
      while (!stopping) {
        end_->RequestDispatch();
        std::this_thread::yield();
      }
    });
  }
  std::uint64_t sent = 0;
  for (; sent < 1000; ++sent) {
    ASSERT_TRUE(server_.Send("x"));
    end_->RequestDispatch();
  }
  stopping = true;
  for (auto& thread : noise) thread.join();
  // What did not fit waits for space; nobody rings the server here.
  const auto deadline = Patience();
  while (handler_.packets < sent && std::chrono::steady_clock::now() < deadline) {
    server_.Dispatch();
    end_->RequestDispatch();
    std::this_thread::yield();
  }
  EXPECT_EQ(handler_.packets, sent);
}

// A channel is opened again at another thread while the first one still has a turn to give it. What
// the second one is asked for meanwhile must not be taken for asked already.
TEST_P(DispatcherTest, AChannelThatMovesToAnotherThreadLosesNoTurn) {
  Open(false);
  // The first thread is held inside a packet callback, with a turn of ours before it.
  std::atomic<bool> inside{false};
  std::atomic<bool> go_on{false};
  handler_.on_packet = [&] {
    inside = true;
    while (!go_on) std::this_thread::yield();
  };
  Record other_record;
  CountingHandler other_handler(other_record);
  const auto other = std::make_shared<TestEnd>(other_handler, *pool_);
  other->BeginDispatch(*dispatcher_, client_link_, 0, wire::ChannelId{6});
  ASSERT_TRUE(server_.Send("x"));
  end_->RequestDispatch();
  while (!inside) std::this_thread::yield();
  other->RequestDispatch();
  other->EndDispatch();

  const auto second = Dispatcher::Create({.spin_us = GetParam()}).value();
  ASSERT_TRUE(second->AddInbox(client_link_, 0));
  ASSERT_TRUE(other->Enable());
  other->engine().ConfirmEnable();
  channel::TestRings rings;
  channel::End server(channel::Side::kServer);
  server.Enable();
  ASSERT_TRUE(other->engine().AttachRings(rings.mapping(), Channel::RingOrigin::kOurs,
                                          std::make_shared<channel::CountingBell>()));
  ASSERT_TRUE(
      server.channel->AttachRings(rings.mapping(), Channel::RingOrigin::kPeers, server.bell));
  other->BeginDispatch(*second, client_link_, 0, wire::ChannelId{6});
  server.channel->OnOpen();
  server.channel->Start();
  server.RunState();
  ASSERT_TRUE(server.Send("y"));
  other->engine().OnOpen();
  EXPECT_TRUE(other_handler.Await(1));

  go_on = true;
  ASSERT_TRUE(handler_.Await(1));
  handler_.on_packet = nullptr;
  other->engine().Disable();
  other->EndDispatch();
  second->RemoveInbox(*client_link_, 0);
}

TEST_P(DispatcherTest, EndDispatchWaitsForTheTurnThatRuns) {
  Open(true);
  std::atomic<bool> left{false};
  handler_.on_packet = [&] {
    record_.Note("inside");
    for (int i = 0; i < 2000; ++i) std::this_thread::yield();
    left = true;
  };
  ASSERT_TRUE(server_.Send("x"));
  ASSERT_TRUE(record_.Await("inside"));
  end_->EndDispatch();
  EXPECT_TRUE(left);
  // From here on nothing is delivered, whoever rings.
  const std::uint64_t before = handler_.packets;
  ASSERT_TRUE(server_.Send("y"));
  end_->RequestDispatch();
  end_->EndDispatch();  // the second time there is nothing to end
  EXPECT_EQ(handler_.packets, before);
}

TEST_P(DispatcherTest, ChannelsComeAndGoWhileBellsRing) {
  ASSERT_NO_FATAL_FAILURE(Open(true));
  std::atomic<bool> stopping{false};
  std::thread ringer([&] {
    const auto bell = server_link_->MakeDoorbell(kChannel, 0);
    const auto stray = server_link_->MakeDoorbell(wire::ChannelId{2047}, 0);
    while (!stopping) {
      bell->Ring();
      stray->Ring();
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 500; ++i) {
    end_->EndDispatch();
    end_->BeginDispatch(*dispatcher_, client_link_, 0, kChannel);
  }
  stopping = true;
  ringer.join();
  ASSERT_TRUE(server_.Send("x"));
  end_->RequestDispatch();
  EXPECT_TRUE(handler_.Await(1));
}

TEST_P(DispatcherTest, AKickKeepsItsChannelUntilItWasTaken) {
  Open(false);
  const std::weak_ptr<TestEnd> observer = end_;
  end_->engine().Disable();
  end_->RequestDispatch();
  end_->EndDispatch();
  end_.reset();
  EXPECT_TRUE(transport::Eventually([&] { return observer.expired(); }));
  end_ = std::make_shared<TestEnd>(handler_, *pool_);
}

std::string ModeName(const ::testing::TestParamInfo<std::uint32_t>& info) {
  if (info.param == kSpinNever) return "SpinNever";
  if (info.param == kSpinAdaptive) return "SpinAdaptive";
  return info.param == kSpinForever ? "SpinForever" : "SpinABit";
}
INSTANTIATE_TEST_SUITE_P(Polling, DispatcherTest,
                         ::testing::Values(kSpinNever, 20u, kSpinAdaptive, kSpinForever), ModeName);

// ---- How it waits. Nothing here is about how long something takes, but for windows that are so
// long that no machine misses them.

class WaitingFixture : public DispatcherFixture {
 protected:
  using DispatcherFixture::DispatcherFixture;

  void SendAndAwait(std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t i = first; i <= last; ++i) {
      ASSERT_TRUE(server_.Send("x"));
      ASSERT_TRUE(handler_.Await(i)) << "packet " << i;
    }
  }
  // When what an open leaves to do is done.
  void AwaitSleep(std::uint64_t sleeps_before) {
    EXPECT_TRUE(
        transport::Eventually([&] { return dispatcher_->counters().sleeps > sleeps_before; }));
  }
};

class LongWindow : public WaitingFixture {
 protected:
  LongWindow() : WaitingFixture({.spin_us = kSpinAdaptive, .wakeup = std::chrono::seconds(1)}) {}
};

TEST_F(LongWindow, PacketsThatComeSoonAreLookedForAndNobodyRings) {
  Open(true);
  // Where both threads share a processor, a packet may be there before anyone looks for it.
  std::uint64_t sent = 0;
  ASSERT_TRUE(transport::Eventually([&] {
    ++sent;
    SendAndAwait(sent, sent);
    return HasFatalFailure() || dispatcher_->counters().found > 0;
  }));
  SendAndAwait(sent + 1, sent + 100);
  EXPECT_EQ(dispatcher_->counters().vain, 0u);
  EXPECT_LE(end_->engine().counters().receiver.bells, 1u);
}

class ShortWindow : public WaitingFixture {
 protected:
  ShortWindow()
      : WaitingFixture({.spin_us = kSpinAdaptive, .wakeup = std::chrono::microseconds(1)}) {}
};

TEST_F(ShortWindow, AnIdleThreadSleepsAndNothingWakesIt) {
  Open(true);
  SendAndAwait(1, 10);
  DispatchCounters before;
  ASSERT_TRUE(transport::Eventually([&] {
    before = dispatcher_->counters();
    // That nothing happens is no event: some time has to pass, here and below.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return dispatcher_->counters() == before;
  }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(dispatcher_->counters(), before);
}

class OneProcessor : public WaitingFixture {
 protected:
  OneProcessor() : WaitingFixture({.spin_us = kSpinAdaptive, .wakeup = {}}) {}
};

TEST_F(OneProcessor, NobodyLooksWhereTheSenderNeedsTheProcessor) {
  Open(true);
  SendAndAwait(1, 200);
  const auto counters = dispatcher_->counters();
  EXPECT_EQ(counters.found, 0u);
  EXPECT_EQ(counters.vain, 0u);
  EXPECT_EQ(counters.yields, 0u);
}

class SleepingBus : public WaitingFixture {
 protected:
  SleepingBus() : WaitingFixture({.spin_us = kSpinNever}) {}
};

TEST_F(SleepingBus, AChannelMayBePolledForAsLongAsItIsOpen) {
  end_->engine().config_in_init_window()->spin_us = kSpinForever;
  Open(true);
  SendAndAwait(1, 1);
  const std::uint64_t sleeps = dispatcher_->counters().sleeps;
  SendAndAwait(2, 50);
  EXPECT_EQ(dispatcher_->counters().sleeps, sleeps);
  end_->EndDispatch();
  AwaitSleep(sleeps);
}

}  // namespace
}  // namespace kmcl::endpoint
