// The C++ face (kmcl/kmcl.hpp): both ends of a bus in this process.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <future>
#include <kmcl/kmcl.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using kmcl::BytesOf;
using kmcl::Channel;
using kmcl::ChannelOptions;
using kmcl::ChannelView;
using kmcl::Client;
using kmcl::Expected;
using kmcl::Incoming;
using kmcl::Packet;
using kmcl::Partition;
using kmcl::Server;
using kmcl::Status;
using Bytes = std::vector<std::byte>;
using namespace std::chrono_literals;

static_assert(std::is_move_constructible_v<Channel> && !std::is_copy_constructible_v<Channel>);
static_assert(std::is_move_assignable_v<Server> && !std::is_copy_constructible_v<Server>);
static_assert(std::is_nothrow_move_constructible_v<Incoming> &&
              !std::is_copy_constructible_v<Incoming>);
static_assert(std::is_trivially_copyable_v<ChannelView>);

constexpr GUID kType{0x0a4d11c3, 0x6a55, 0x4d0e, {0x8f, 0x10, 0x32, 0x7b, 0x90, 0x1e, 0xc1, 0x55}};
constexpr GUID kInstance{1, 2, 3, {4, 5, 6, 7, 8, 9, 10, 11}};
constexpr auto kPatience = 10s;

// The padding of a ring packet is zeroes.
std::string TextOf(std::span<const std::byte> bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

std::string NextAddress() {
  static std::atomic<int> count{0};
  return "local:face-" + std::to_string(++count);
}

// One event that a test waits for.
class Event {
 public:
  void Set() {
    if (!set_.exchange(true)) promise_.set_value();
  }
  bool Wait() { return future_.wait_for(kPatience) == std::future_status::ready; }

 private:
  std::atomic<bool> set_{false};
  std::promise<void> promise_;
  std::future<void> future_ = promise_.get_future();
};

// A server that offers a channel with these options to everybody, and one client.
class Face : public testing::Test {
 protected:
  void Serve(ChannelOptions options) {
    options.interface_type = kType;
    options.interface_instance = kInstance;
    auto server =
        Server::Create({.address = address_,
                        .on_arrived = [options](Partition partition) -> std::shared_ptr<void> {
                          auto channel = partition.Offer(options);
                          EXPECT_TRUE(channel) << channel.error().name();
                          return channel ? std::make_shared<Channel>(std::move(*channel)) : nullptr;
                        }});
    ASSERT_TRUE(server) << server.error().name();
    server_.emplace(std::move(*server));
    auto client = Client::Connect({.address = address_});
    ASSERT_TRUE(client) << client.error().name();
    client_.emplace(std::move(*client));
  }
  void ServeEcho() {
    Serve({.on_packet = [](ChannelView, Incoming packet) { packet.Complete(packet.data()); }});
  }
  Channel Open(ChannelOptions options = {}) {
    options.interface_type = kType;
    auto channel = client_->Open(std::move(options));
    EXPECT_TRUE(channel) << channel.error().name();
    return std::move(*channel);
  }

  const std::string address_ = NextAddress();
  std::optional<Server> server_;
  std::optional<Client> client_;
};

kmcl::Detached Ask(ChannelView channel, std::string text, std::promise<Expected<Bytes>>& answer) {
  answer.set_value(co_await channel.Request(BytesOf(text)));
}

TEST_F(Face, ARequestIsAwaited) {
  ServeEcho();
  std::promise<Expected<Bytes>> promise;
  const Channel channel = Open();
  Ask(channel, "question", promise);
  const auto answer = promise.get_future().get();
  ASSERT_TRUE(answer) << answer.error().name();
  EXPECT_EQ(TextOf(*answer), "question");
}

kmcl::Detached AskInTurn(ChannelView channel, int count, std::promise<int>& right) {
  int intact = 0;
  KIRQL level = PASSIVE_LEVEL;
  for (int i = 0; i < count; ++i) {
    const std::string text = "number " + std::to_string(i);
    const auto answer = co_await channel.Request(BytesOf(text));
    if (answer && TextOf(*answer) == text) ++intact;
    level = KeGetCurrentIrql();
  }
  EXPECT_EQ(level, DISPATCH_LEVEL) << "it goes on in the completion routine";
  right.set_value(intact);
}

TEST_F(Face, ACoroutineAsksAgainAndAgainAndAThousandAskAtOnce) {
  ServeEcho();
  std::promise<int> one;
  std::vector<std::promise<Expected<Bytes>>> many(1000);
  const Channel channel = Open();
  AskInTurn(channel, 1000, one);
  for (std::size_t i = 0; i < many.size(); ++i) Ask(channel, std::to_string(i), many[i]);
  EXPECT_EQ(one.get_future().get(), 1000);
  for (std::size_t i = 0; i < many.size(); ++i) {
    const auto answer = many[i].get_future().get();
    ASSERT_TRUE(answer);
    EXPECT_EQ(TextOf(*answer), std::to_string(i));
  }
}

TEST_F(Face, ARequestEndsWhenTheChannelCloses) {
  std::promise<Incoming> kept;
  Serve({.on_packet = [&](ChannelView, Incoming packet) { kept.set_value(std::move(packet)); }});
  std::promise<Expected<Bytes>> promise;
  Channel channel = Open();
  Ask(channel, "question", promise);
  Incoming packet = kept.get_future().get();
  std::thread closer([&] { channel.Reset(); });
  const auto answer = promise.get_future().get();
  packet.Complete();  // the close waits for it at the other end
  closer.join();
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error(), Status(STATUS_DEVICE_REMOVED));
}

TEST_F(Face, ARequestThatCannotBeSentGoesOnAtOnce) {
  ServeEcho();
  std::promise<Expected<Bytes>> promise;
  const Channel channel = Open();
  channel.Disable();
  const auto here = std::this_thread::get_id();
  std::thread::id there;
  [](ChannelView view, std::promise<Expected<Bytes>>& answer,
     std::thread::id& id) -> kmcl::Detached {
    answer.set_value(co_await view.Request(BytesOf("too late")));
    id = std::this_thread::get_id();
  }(channel, promise, there);
  EXPECT_TRUE(there == here);
  EXPECT_EQ(promise.get_future().get().error(), Status(STATUS_INVALID_DEVICE_STATE));
}

TEST_F(Face, ACallBlocksUntilItsAnswerOrItsTime) {
  std::promise<Incoming> kept;
  Serve({.on_packet = [&, first = true](ChannelView, Incoming packet) mutable {
    if (std::exchange(first, false)) {
      packet.Complete(BytesOf("answer"));
    } else {
      kept.set_value(std::move(packet));
    }
  }});
  const Channel channel = Open();
  std::array<std::byte, 64> answer;
  const auto bytes = channel.Call(BytesOf("question"), answer, kPatience);
  ASSERT_TRUE(bytes) << bytes.error().name();
  EXPECT_EQ(TextOf(std::span(answer).first(*bytes)), "answer");
  const auto late = channel.Call(BytesOf("question"), answer, 1ms);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error(), Status(STATUS_CANCELLED));
  kept.get_future().get();  // retired without an answer, which nobody waits for any more
}

TEST_F(Face, APacketIsSentAgainFromItsOwnCompletion) {
  std::atomic<int> received{0};
  Event all;
  Serve({.on_packet = [&](ChannelView, Incoming) {
    if (received.fetch_add(1) + 1 == 100) all.Set();
  }});
  const Channel channel = Open();
  std::atomic<int> done{0};
  Event last;
  auto packet = Packet::Make(channel, [&](Packet& self, Status status, std::span<const std::byte>) {
    EXPECT_TRUE(status.ok()) << status.name();
    if (done.fetch_add(1) + 1 == 100) {
      last.Set();
    } else {
      EXPECT_TRUE(self.SendTransaction(BytesOf("again")));
    }
  });
  ASSERT_TRUE(packet);
  ASSERT_TRUE((*packet)->SendTransaction(BytesOf("first")));
  EXPECT_TRUE(last.Wait());
  EXPECT_TRUE(all.Wait());
}

TEST_F(Face, StateCallbacksAreLambdasInTheirOrder) {
  std::mutex mutex;
  std::vector<std::string> seen;
  const auto note = [&](const char* what) {
    const std::lock_guard lock(mutex);
    seen.emplace_back(what);
  };
  ServeEcho();
  Event started;
  {
    const Channel channel = Open({.on_opened =
                                      [&](ChannelView) {
                                        note("opened");
                                        return Status();
                                      },
                                  .on_closed = [&](ChannelView) { note("closed"); },
                                  .on_suspend = [&](ChannelView) { note("suspend"); },
                                  .on_started = [&](ChannelView) { note("started"); },
                                  .on_post_started =
                                      [&](ChannelView view) {
                                        note("post-started");
                                        EXPECT_TRUE(view.Send(BytesOf("hello")));
                                        started.Set();
                                      }});
    EXPECT_TRUE(started.Wait());
    EXPECT_TRUE(std::memcmp(&kInstance, std::data({channel.interface_instance()}), sizeof(GUID)) ==
                0);
  }
  EXPECT_EQ(seen,
            (std::vector<std::string>{"opened", "started", "post-started", "suspend", "closed"}));
}

TEST_F(Face, AnOpenThatIsRefusedIsTold) {
  Serve({.on_opened = [](ChannelView) { return Status(STATUS_UNSUCCESSFUL); }});
  Event told;
  const Channel channel = Open({.on_open_failed = [&](ChannelView, Status status) {
    EXPECT_FALSE(status.ok());
    told.Set();
  }});
  EXPECT_TRUE(told.Wait());
}

TEST_F(Face, PacketsAreDeferredToThePassiveLevelAndKeepTheirContext) {
  std::promise<KIRQL> level;
  Serve({.context_bytes = 8, .on_packet = [&](ChannelView, Incoming packet) {
           auto& deferred = *static_cast<bool*>(packet.context());
           if (!std::exchange(deferred, true)) {
             packet.DeferToPassive();
             return;
           }
           level.set_value(KeGetCurrentIrql());
         }});
  const Channel channel = Open();
  ASSERT_TRUE(channel.Send(BytesOf("blocks")));
  EXPECT_EQ(level.get_future().get(), PASSIVE_LEVEL);
}

TEST_F(Face, BatchesAreCounted) {
  std::atomic<std::uint32_t> packets{0};
  Event all;
  Serve({.on_packet = [](ChannelView, Incoming) {},
         .on_batch_end =
             [&](ChannelView, std::uint32_t count) {
               if (packets.fetch_add(count) + count == 50) all.Set();
             }});
  const Channel channel = Open();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(channel.Send(BytesOf("packet")));
  EXPECT_TRUE(all.Wait());
  EXPECT_EQ(channel.counters().PacketsSent, 50u);
}

TEST_F(Face, APipeKeepsTheLengthOfItsMessages) {
  std::promise<std::size_t> bytes;
  Serve({.pipe = true, .on_packet = [&](ChannelView, Incoming packet) {
           bytes.set_value(packet.data().size());
         }});
  const Channel channel = Open({.pipe = true});
  ASSERT_TRUE(channel.Send(BytesOf("thirteen long")));
  EXPECT_EQ(bytes.get_future().get(), 13u);
}

TEST_F(Face, SettingsThatKmclRefusesAreTheFailureOfMaking) {
  ServeEcho();
  const auto too_long = client_->Open({.interface_type = kType, .maximum_packet_bytes = 1u << 30});
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error(), Status(STATUS_INVALID_PARAMETER_2));
  const auto odd = client_->Open(
      {.interface_type = kType, .configure = [](VMBCHANNEL) { return Status(STATUS_NOT_FOUND); }});
  ASSERT_FALSE(odd);
  EXPECT_EQ(odd.error(), Status(STATUS_NOT_FOUND));
  const auto pages = client_->Open({.interface_type = kType, .incoming_pages = 4});
  ASSERT_FALSE(pages);
  EXPECT_EQ(pages.error(), Status(STATUS_INVALID_PARAMETER_3));
}

TEST_F(Face, EndpointsSayWhatTheyAre) {
  const auto nobody = Client::Connect({.address = address_});
  ASSERT_FALSE(nobody);
  EXPECT_STREQ(nobody.error().name(), "STATUS_OBJECT_NAME_NOT_FOUND");
  ServeEcho();
  EXPECT_TRUE(client_->is_connected());
  EXPECT_EQ(client_->version(), 0x60000u);
  const auto offers = client_->Offers();
  ASSERT_EQ(offers.size(), 1u);
  EXPECT_EQ(offers[0].InterfaceType.Data1, kType.Data1);
  const auto second = Server::Create({.address = address_});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error(), Status(STATUS_OBJECT_NAME_COLLISION));
}

TEST_F(Face, ObjectsMoveWhileTheyWork) {
  ServeEcho();
  Channel channel = Open();
  Server server = std::move(*server_);
  server_.reset();
  Channel moved = std::move(channel);
  EXPECT_FALSE(channel);  // NOLINT: moved from on purpose
  std::array<std::byte, 16> answer;
  EXPECT_TRUE(moved.Call(BytesOf("still there"), answer, kPatience));
  moved = Channel();
  client_.reset();
}

TEST_F(Face, AServerThatGoesClosesTheChannelsOfItsClients) {
  ServeEcho();
  Event opened;
  Event closed;
  const Channel channel = Open({.on_closed = [&](ChannelView) { closed.Set(); },
                                .on_post_started = [&](ChannelView) { opened.Set(); }});
  ASSERT_TRUE(opened.Wait());
  server_.reset();
  EXPECT_TRUE(closed.Wait());
}

}  // namespace
