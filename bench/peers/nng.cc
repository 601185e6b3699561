// nng over ipc (Unix sockets): each end has threads of nng's own beside its own.
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <unistd.h>

#include "rows.h"

namespace kmcl::bench {
namespace {

// Messages that a socket may hold back, at each end.
constexpr int kBuffered = 4096;

class Socket {
 public:
  Socket(Stage& stage, bool listens, const std::string& address) : stage_(stage) {
    Require(nng_pair0_open(&socket_));
    Require(nng_socket_set_int(socket_, NNG_OPT_SENDBUF, kBuffered));
    Require(nng_socket_set_int(socket_, NNG_OPT_RECVBUF, kBuffered));
    if (listens) {
      Require(nng_listen(socket_, address.c_str(), nullptr, 0));
      return;
    }
    int result = 0;  // the other end may not listen yet
    for (int i = 0; i < 1000 && (result = Dial(address)) == NNG_ECONNREFUSED; ++i) {
      Stage::Nap(1'000'000);
    }
    Require(result);
  }
  ~Socket() { nng_close(socket_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  void Send(const std::byte* message, std::size_t bytes) {
    Require(nng_send(socket_, const_cast<std::byte*>(message), bytes, 0));
  }
  std::size_t Receive(std::span<std::byte> buffer) {
    std::size_t bytes = buffer.size();
    Require(nng_recv(socket_, buffer.data(), &bytes, 0));
    return bytes;
  }

 private:
  int Dial(const std::string& address) {
    const int result = nng_dial(socket_, address.c_str(), nullptr, 0);
    return result == NNG_ENOENT ? NNG_ECONNREFUSED : result;
  }
  void Require(int result) {
    if (result != 0) stage_.Fail(nng_strerror(result));
  }

  Stage& stage_;
  nng_socket socket_ = NNG_SOCKET_INITIALIZER;
};

std::string NewAddress() { return "ipc://" + Scratch() + "/nng." + std::to_string(getpid()); }

class NngStream final : public Pair {
 public:
  explicit NngStream(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage&) override { address_ = NewAddress(); }
  void Near(Stage& stage) override {
    Socket socket(stage, false, address_);
    SendStream(
        stage, bytes_, [&](const std::byte* message) { socket.Send(message, bytes_); }, [] {});
    stage.Meet();  // closing would drop what is under way
  }
  void Far(Stage& stage) override {
    Socket socket(stage, true, address_);
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

class NngTrip final : public Pair {
 public:
  explicit NngTrip(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage&) override { address_ = NewAddress(); }
  void Near(Stage& stage) override {
    Socket socket(stage, false, address_);
    Ask(stage, bytes_, [&](const std::byte* message) {
      socket.Send(message, bytes_);
      socket.Receive(buffer_);
      return ReadMessage(buffer_.data(), bytes_);
    });
    stage.Meet();
  }
  void Far(Stage& stage) override {
    Socket socket(stage, true, address_);
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

void AddNngRows(Registry& registry) {
  // Where its threads run is a matter of luck, so both ways: each process on a CPU, or as the
  // system likes it.
  for (const bool pinned : {true, false}) {
    const std::string contender = pinned ? "nng" : "nng-unpinned";
    for (const std::size_t bytes : {64u, 1024u, 4096u}) {
      registry.rows.push_back({.name = RowName("stream", contender, bytes),
                               .bytes = bytes,
                               .make = [=] { return std::make_unique<NngStream>(bytes); },
                               .quick = bytes == 64,
                               .may_be_delayed = 1,
                               .pinned = pinned});
    }
    registry.rows.push_back({.name = RowName("roundtrip", contender, 64),
                             .bytes = 64,
                             .make = [] { return std::make_unique<NngTrip>(64); },
                             .quick = false,
                             .may_be_delayed = 1,
                             .pinned = pinned});
  }
}

}  // namespace kmcl::bench
