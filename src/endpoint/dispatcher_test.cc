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
class DispatcherTest : public ::testing::TestWithParam<std::uint32_t> {
 protected:
  static constexpr wire::ChannelId kChannel{5};

  DispatcherTest() : server_(channel::Side::kServer) {
    static std::atomic<int> number{0};
    auto listener =
        transport::Listen("local:dispatcher_test_" + std::to_string(number.fetch_add(1)));
    auto connection = transport::Connect(**listener);
    client_link_ = std::move(connection.client);
    server_link_ = std::move(connection.server);
    pool_ = PassivePool::Create().value();
    dispatcher_ = Dispatcher::Create(GetParam()).value();
    end_ = std::make_shared<TestEnd>(handler_, *pool_);
  }
  ~DispatcherTest() override {
    if (!end_->engine().is_disabled()) {
      end_->engine().Disable();
      end_->EndDispatch();
    }
    dispatcher_->RemoveInbox(*client_link_, 0);
    end_.reset();
    pool_.reset();
  }

  // Rounds of the stress tests; a thread that polls leaves the others little of a small machine.
  const std::uint64_t kRounds = GetParam() == kSpinForever ? 500 : 10'000;

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
  return info.param == kSpinForever ? "SpinForever" : "SpinABit";
}
INSTANTIATE_TEST_SUITE_P(Polling, DispatcherTest, ::testing::Values(kSpinNever, 20u, kSpinForever),
                         ModeName);

}  // namespace
}  // namespace kmcl::endpoint
