// ZeroMQ over ipc (Unix sockets): each end has a thread of ZeroMQ's own beside its own.
#include <unistd.h>
#include <zmq.h>

#include "rows.h"

namespace kmcl::bench {
namespace {

// Messages that a socket may hold back, at each end.
constexpr int kHighWater = 4096;

class Socket {
 public:
  Socket(Stage& stage, int type, bool binds, const std::string& address)
      : stage_(stage), context_(zmq_ctx_new()), socket_(zmq_socket(context_, type)) {
    if (socket_ == nullptr) stage.Fail("zmq_socket failed");
    zmq_setsockopt(socket_, ZMQ_SNDHWM, &kHighWater, sizeof(kHighWater));
    zmq_setsockopt(socket_, ZMQ_RCVHWM, &kHighWater, sizeof(kHighWater));
    const int result =
        binds ? zmq_bind(socket_, address.c_str()) : zmq_connect(socket_, address.c_str());
    if (result != 0) stage.Fail(zmq_strerror(zmq_errno()));
  }
  ~Socket() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  void Send(const std::byte* message, std::size_t bytes) {
    if (zmq_send(socket_, message, bytes, 0) < 0) stage_.Fail("zmq_send failed");
  }
  std::size_t Receive(std::span<std::byte> buffer) {
    const int got = zmq_recv(socket_, buffer.data(), buffer.size(), 0);
    if (got < 0) stage_.Fail("zmq_recv failed");
    return static_cast<std::size_t>(got);
  }

 private:
  Stage& stage_;
  void* const context_;
  void* const socket_;
};

std::string NewAddress() { return "ipc://" + Scratch() + "/zeromq." + std::to_string(getpid()); }

class ZeromqStream final : public Pair {
 public:
  explicit ZeromqStream(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage&) override { address_ = NewAddress(); }
  void Near(Stage& stage) override {
    Socket socket(stage, ZMQ_PUSH, false, address_);
    SendStream(
        stage, bytes_, [&](const std::byte* message) { socket.Send(message, bytes_); }, [] {});
    stage.Meet();  // an end that leaves may take what is under way with it
  }
  void Far(Stage& stage) override {
    Socket socket(stage, ZMQ_PULL, true, address_);
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    while (inflow.Take(buffer_.data(), socket.Receive(buffer_))) {
    }
    stage.Meet();
  }

 private:
  const std::size_t bytes_;
  std::vector<std::byte> buffer_;
  std::string address_;
};

class ZeromqTrip final : public Pair {
 public:
  explicit ZeromqTrip(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage&) override { address_ = NewAddress(); }
  void Near(Stage& stage) override {
    Socket socket(stage, ZMQ_PAIR, false, address_);
    Ask(stage, bytes_, [&](const std::byte* message) {
      socket.Send(message, bytes_);
      socket.Receive(buffer_);
      return ReadMessage(buffer_.data(), bytes_);
    });
    stage.Meet();
  }
  void Far(Stage& stage) override {
    Socket socket(stage, ZMQ_PAIR, true, address_);
    stage.Meet();
    std::uint64_t number = 0;
    do {
      socket.Receive(buffer_);
      number = ReadMessage(buffer_.data(), bytes_);
      socket.Send(buffer_.data(), bytes_);
    } while ((number & kLast) == 0);
    stage.Meet();
  }

 private:
  const std::size_t bytes_;
  std::vector<std::byte> buffer_;
  std::string address_;
};

}  // namespace

void AddZeromqRows(Registry& registry) {
  // Where its threads run is a matter of luck, so both ways: each process on a CPU, or as the
  // system likes it. Goals compare with the better one.
  for (const bool pinned : {true, false}) {
    const std::string contender = pinned ? "zeromq" : "zeromq-unpinned";
    for (const std::size_t bytes : {64u, 1024u, 4096u}) {
      registry.rows.push_back({.name = RowName("stream", contender, bytes),
                               .bytes = bytes,
                               .make = [=] { return std::make_unique<ZeromqStream>(bytes); },
                               .quick = bytes == 64,
                               .may_be_delayed = 1,
                               .pinned = pinned});
    }
    registry.rows.push_back({.name = RowName("roundtrip", contender, 64),
                             .bytes = 64,
                             .make = [] { return std::make_unique<ZeromqTrip>(64); },
                             .quick = false,
                             .may_be_delayed = 1,
                             .pinned = pinned});
  }
}

}  // namespace kmcl::bench
