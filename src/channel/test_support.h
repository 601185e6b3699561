// What the tests of this room share: rings in memory, a handler and turns that write down what
// happens to them, and one end of a channel that is driven by hand.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "channel/channel.h"
#include "log.h"
#include "mutex.h"
#include "ring/ring_test_memory.h"
#include "transport/link.h"

namespace kmcl::channel {

// A limit for what should take no time, so that a broken test ends.
inline std::chrono::steady_clock::time_point Patience() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(10);
}

using Lines = std::vector<std::string>;

inline std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// A payload as text, without the zeros at its end: padding.
inline std::string TextOf(std::span<const std::byte> bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

inline const char* NameOf(Outcome outcome) {
  switch (outcome) {
    case Outcome::kSuccess:
      return "success";
    case Outcome::kRemoved:
      return "removed";
    case Outcome::kCancelled:
      return "cancelled";
  }
  return "?";
}

inline const char* NameOf(BusRequest request) {
  switch (request) {
    case BusRequest::kAcceptOpen:
      return "AcceptOpen";
    case BusRequest::kRejectOpen:
      return "RejectOpen";
    case BusRequest::kSayClose:
      return "SayClose";
    case BusRequest::kDetach:
      return "Detach";
    case BusRequest::kLeave:
      return "Leave";
  }
  return "?";
}

// Keeps the log to itself and counts its lines.
class LogLines {
 public:
  LogLines() {
    SetLogSink(
        [](void* context, LogLevel, const char*) { ++static_cast<LogLines*>(context)->count_; },
        this);
  }
  ~LogLines() { SetLogSink(nullptr, nullptr); }
  LogLines(const LogLines&) = delete;
  LogLines& operator=(const LogLines&) = delete;
  int count() const { return count_.load(); }

 private:
  std::atomic<int> count_{0};
};

class CountingBell final : public transport::Doorbell {
 public:
  void Ring() override { count.fetch_add(1, std::memory_order_relaxed); }
  std::atomic<int> count{0};
};

// The two rings of a channel.
struct TestRings {
  explicit TestRings(std::uint32_t data_bytes = 4096)
      : up(data_bytes, ring::Mapped::kTwice), down(data_bytes, ring::Mapped::kTwice) {}

  transport::RingMapping mapping() const {
    const auto view = [](const ring::RingMemory& memory) {
      return transport::RingMapping::View{.control = memory.pages().control,
                                          .data = memory.data(),
                                          .data_bytes = memory.data_bytes()};
    };
    transport::RingMapping rings;
    rings.client_to_server = view(up);
    rings.server_to_client = view(down);
    return rings;
  }

  ring::RingMemory up;    // client to server
  ring::RingMemory down;  // server to client
};

// Requests for turns, counted and waited for. `on_state` runs inside RequestState.
class RecordingTurns : public Turns {
 public:
  void RequestDispatch() override { Count(dispatch_); }
  void RequestPassive() override { Count(passive_); }
  void RequestState() override {
    if (on_state) on_state();
    Count(state_);
  }

  // Whether there was a request since the last call.
  bool TakeDispatch() { return Take(dispatch_) > 0; }
  bool TakePassive() { return Take(passive_) > 0; }
  bool TakeState() { return Take(state_) > 0; }
  // Waits for a request, or for the end of `done`, and takes it.
  bool AwaitState(const std::atomic<bool>& done) {
    const auto deadline = Patience();
    MutexLock lock(mutex_);
    while (state_ == 0 && !done.load()) {
      if (!changed_.WaitUntil(mutex_, deadline)) return false;
    }
    state_ = 0;
    return true;
  }
  void Wake() {
    MutexLock lock(mutex_);
    changed_.NotifyAll();
  }

  std::function<void()> on_state;

 private:
  void Count(int& counter) {
    MutexLock lock(mutex_);
    ++counter;
    changed_.NotifyAll();
  }
  int Take(int& counter) {
    MutexLock lock(mutex_);
    return std::exchange(counter, 0);
  }

  Mutex mutex_;
  CondVar changed_;
  int dispatch_ = 0;
  int passive_ = 0;
  int state_ = 0;
};

// Writes down every callback; what else a callback does can be set.
class RecordingHandler : public Handler {
 public:
  bool OnOpened() override {
    Note("Opened");
    if (on_opened) on_opened();
    return opens;
  }
  void OnClosed() override {
    Note("Closed");
    if (on_closed) on_closed();
  }
  void OnSuspend() override {
    Note("Suspend");
    if (on_suspend) on_suspend();
  }
  void OnStarted() override {
    Note("Started");
    if (on_started) on_started();
  }
  void OnPostStarted() override {
    Note("PostStarted");
    if (on_post_started) on_post_started();
  }
  void OnConnectFailed(Error error) override {
    Note(std::string("ConnectFailed ") + ErrorName(error));
  }
  void OnPacket(IncomingPacket& packet) override {
    Note("Packet " + TextOf(packet.payload));
    if (on_packet) {
      on_packet(packet);
    } else {
      held.push_back(&packet);
    }
  }
  void OnBatchEnd(std::uint32_t packets) override {
    Note("Batch " + std::to_string(packets));
    if (on_batch) on_batch();
  }
  std::int32_t OnSavePacket(Packet& packet, std::span<std::byte> buffer,
                            std::uint32_t& needed) override {
    return on_save ? on_save(packet, buffer, needed) : 0;
  }
  std::int32_t OnRestorePacket(std::span<const std::byte> library,
                               std::span<const std::byte> driver) override {
    return on_restore ? on_restore(library, driver) : -1;
  }
  void OnPacketDone(Packet& packet, Outcome outcome, std::span<std::byte> reply) override {
    const auto* name = static_cast<const char*>(packet.pointer);
    Note(std::string("Done ") + (name == nullptr ? "?" : name) + " " + NameOf(outcome) +
         (reply.empty() ? "" : " " + TextOf(reply)));
    if (on_done) on_done(packet);
  }

  void Note(std::string line) {
    MutexLock lock(mutex_);
    lines_.push_back(std::move(line));
  }
  // What happened since the last call.
  Lines Take() {
    MutexLock lock(mutex_);
    return std::exchange(lines_, {});
  }

  bool opens = true;
  std::function<void()> on_opened, on_closed, on_suspend, on_started, on_post_started;
  std::function<void(IncomingPacket&)> on_packet;
  std::function<void()> on_batch;
  std::function<void(Packet&)> on_done;
  std::function<std::int32_t(Packet&, std::span<std::byte>, std::uint32_t&)> on_save;
  std::function<std::int32_t(std::span<const std::byte>, std::span<const std::byte>)> on_restore;
  std::vector<IncomingPacket*> held;  // delivered, without on_packet

 private:
  Mutex mutex_;
  Lines lines_ KMCL_GUARDED_BY(mutex_);
};

// One end of a channel, and what is around it.
struct End {
  explicit End(Side side)
      : channel(std::make_unique<Channel>(side, handler, turns)),
        bell(std::make_shared<CountingBell>()) {}
  // As an owner must: disabled before it goes.
  ~End() {
    if (channel == nullptr || channel->is_disabled()) return;
    for (auto* packet : std::exchange(handler.held, {})) channel->Complete(*packet, {});
    Disable();
  }

  void Enable() {
    ASSERT_TRUE(channel->Enable());
    channel->ConfirmEnable();
  }
  Result<void> Attach(const TestRings& rings, Channel::RingOrigin origin) {
    return channel->AttachRings(rings.mapping(), origin, bell);
  }

  // Runs the state worker dry; bus requests go into the log.
  void RunState() {
    turns.TakeState();
    while (const auto request = channel->RunState()) {
      handler.Note(std::string("bus ") + NameOf(*request));
    }
  }
  // For calls that wait for the state worker: a thread makes the call, this one is the worker.
  void WhileWorking(const std::function<void()>& call) {
    std::atomic<bool> done{false};
    std::thread caller([&] {
      call();
      done = true;
      turns.Wake();
    });
    while (!done) {
      if (!turns.AwaitState(done)) {
        ADD_FAILURE() << "nobody asked for the state worker, and the call does not return";
        std::abort();
      }
      RunState();
    }
    caller.join();
  }
  void Disable() {
    WhileWorking([this] { channel->Disable(); });
  }
  void Pause() {
    WhileWorking([this] { channel->Pause(); });
  }

  // Gives the dispatch thread's turns, and the passive ones they lead to, until nothing is asked
  // for any more.
  Turn Dispatch() {
    Turn turn = channel->Dispatch(0);
    while (turn == Turn::kMore || turns.TakeDispatch()) turn = channel->Dispatch(0);
    return turn;
  }

  Packet* NewPacket(const char* name) {
    Packet* const packet = channel->AllocatePacket();
    packet->pointer = const_cast<char*>(name);
    return packet;
  }
  // Sends a packet that is freed when it is done; its name is also what it carries.
  Result<void> Send(const char* name, bool wants_completion = false) {
    if (!handler.on_done) handler.on_done = [this](Packet& done) { channel->FreePacket(done); };
    Packet* const packet = NewPacket(name);
    auto sent = channel->Send(*packet, BytesOf(name), wants_completion);
    if (!sent) channel->FreePacket(*packet);
    return sent;
  }

  RecordingHandler handler;
  RecordingTurns turns;
  std::unique_ptr<Channel> channel;
  std::shared_ptr<CountingBell> bell;
};

// A client and a server on one pair of rings.
struct Pair {
  explicit Pair(std::uint32_t data_bytes = 4096, const Config& config = {})
      : rings(data_bytes), client(Side::kClient), server(Side::kServer) {
    *client.channel->config_in_init_window() = config;
    *server.channel->config_in_init_window() = config;
  }

  void Open() {
    client.Enable();
    server.Enable();
    OpenAgain();
  }
  void OpenAgain() {
    ASSERT_TRUE(client.Attach(rings, Channel::RingOrigin::kOurs));
    ASSERT_TRUE(server.Attach(rings, Channel::RingOrigin::kPeers));
    server.channel->OnOpen();
    client.channel->OnOpen();
    server.RunState();
    client.RunState();
  }
  // Open, both ends active, nothing in the logs.
  void Start() {
    Open();
    server.channel->Start();
    server.RunState();
    EXPECT_EQ(client.Dispatch(), Turn::kAsleep);
    EXPECT_EQ(server.Dispatch(), Turn::kAsleep);
    client.handler.Take();
    server.handler.Take();
  }

  TestRings rings;
  End client;
  End server;
};

}  // namespace kmcl::channel
