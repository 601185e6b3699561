// What the system itself has: SEQPACKET sockets, a pipe, and eventfd, the cheapest way to wake
// somebody. All of them block.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rows.h"

namespace kmcl::bench {
namespace {

// Descriptors of both ends, made before the fork: fds[0] is the near end's.
class SocketPair : public Pair {
 public:
  explicit SocketPair(std::size_t bytes) : bytes_(bytes), buffer_(bytes) {}
  void Open(Stage& stage) override {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds_) != 0) stage.Fail("no sockets");
    for (const int fd : fds_) {
      const int bytes = 1 << 20;
      setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
  }

 protected:
  void Send(Stage& stage, int fd, const void* message) {
    if (send(fd, message, bytes_, 0) != static_cast<ssize_t>(bytes_)) stage.Fail("send failed");
  }
  const std::byte* Receive(Stage& stage, int fd) {
    if (recv(fd, buffer_.data(), bytes_, 0) != static_cast<ssize_t>(bytes_)) {
      stage.Fail("recv failed");
    }
    return buffer_.data();
  }

  const std::size_t bytes_;
  int fds_[2] = {-1, -1};
  std::vector<std::byte> buffer_;
};

class SocketStream final : public SocketPair {
 public:
  using SocketPair::SocketPair;
  void Near(Stage& stage) override {
    SendStream(
        stage, bytes_, [&](const std::byte* message) { Send(stage, fds_[0], message); }, [] {});
  }
  void Far(Stage& stage) override {
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    while (inflow.Take(Receive(stage, fds_[1]), bytes_)) {
    }
  }
};

// Requests and answers, `in_flight` at a time.
class SocketTransactions final : public SocketPair {
 public:
  SocketTransactions(std::size_t bytes, std::uint64_t in_flight)
      : SocketPair(bytes), in_flight_(in_flight) {}

  void Near(Stage& stage) override {
    if (in_flight_ == 1) {
      Ask(stage, bytes_, [&](const std::byte* message) {
        Send(stage, fds_[0], message);
        return ReadMessage(Receive(stage, fds_[0]), bytes_);
      });
      const double middle = stage.findings().median_nanoseconds;
      stage.findings().per_second = 1e9 / middle;
      return;
    }
    Message message(bytes_);
    const auto ask = [&](std::uint64_t number) {
      message.Stamp(number);
      Send(stage, fds_[0], message.data());
    };
    stage.Meet();
    stage.BeginDelays();
    const std::uint64_t warm_until = Nanoseconds() + stage.plan().warm_nanoseconds;
    const std::uint64_t end = warm_until + stage.plan().nanoseconds;
    std::uint64_t sent = 0, answered = 0, counted_from = 0, begun = 0, now = 0;
    while (sent < in_flight_) ask(sent++);
    do {
      for (int i = 0; i < 64; ++i) {
        if (ReadMessage(Receive(stage, fds_[0]), bytes_) != answered) {
          stage.Fail("an answer was wrong");
        }
        ++answered;
        ask(sent++);
      }
      now = Nanoseconds();
      if (begun == 0 && now > warm_until) {
        begun = now;
        counted_from = answered;
      }
    } while (now < end);
    stage.findings().messages = answered - counted_from;
    stage.findings().per_second =
        static_cast<double>(answered - counted_from) * 1e9 / static_cast<double>(now - begun);
    stage.NoteDelays();
    ask(sent | kLast);
    while ((ReadMessage(Receive(stage, fds_[0]), bytes_) & kLast) == 0) {
    }
  }
  void Far(Stage& stage) override {
    stage.Meet();
    std::uint64_t number = 0;
    do {
      const std::byte* const request = Receive(stage, fds_[1]);
      number = ReadMessage(request, bytes_);
      Send(stage, fds_[1], request);
    } while ((number & kLast) == 0);
  }

 private:
  const std::uint64_t in_flight_;
};

class PipeStream final : public Pair {
 public:
  explicit PipeStream(std::size_t bytes) : bytes_(bytes) {}
  void Open(Stage& stage) override {
    if (pipe2(fds_, O_CLOEXEC) != 0) stage.Fail("no pipe");
    fcntl(fds_[1], F_SETPIPE_SZ, 256 * 1024);
  }
  void Near(Stage& stage) override {
    SendStream(stage, bytes_, [&](const std::byte* message) { All(stage, message); }, [] {});
  }
  void Far(Stage& stage) override {
    std::vector<std::byte> buffer(64 * 1024 / bytes_ * bytes_);
    Inflow inflow(stage, bytes_);
    inflow.Begin();
    for (std::size_t have = 0;;) {
      const ssize_t got = read(fds_[0], buffer.data() + have, buffer.size() - have);
      if (got <= 0) stage.Fail("read failed");
      have += static_cast<std::size_t>(got);
      std::size_t at = 0;
      for (; have - at >= bytes_; at += bytes_) {
        if (!inflow.Take(buffer.data() + at, bytes_)) return;
      }
      std::memmove(buffer.data(), buffer.data() + at, have - at);
      have -= at;
    }
  }

 private:
  void All(Stage& stage, const std::byte* message) {
    for (std::size_t done = 0; done < bytes_;) {
      const ssize_t wrote = write(fds_[1], message + done, bytes_ - done);
      if (wrote <= 0) stage.Fail("write failed");
      done += static_cast<std::size_t>(wrote);
    }
  }
  const std::size_t bytes_;
  int fds_[2] = {-1, -1};
};

// A wake-up there and one back; no bytes travel but the number, in the counter itself.
class EventPingPong final : public Pair {
 public:
  void Open(Stage& stage) override {
    there_ = eventfd(0, EFD_CLOEXEC);
    back_ = eventfd(0, EFD_CLOEXEC);
    if (there_ < 0 || back_ < 0) stage.Fail("no eventfd");
  }
  void Near(Stage& stage) override {
    Ask(stage, sizeof(std::uint64_t), [&](const std::byte* message) {
      std::uint64_t number;
      std::memcpy(&number, message, sizeof(number));
      eventfd_write(there_, number + 1);
      eventfd_t answer = 0;
      eventfd_read(back_, &answer);
      return answer - 1;
    });
  }
  void Far(Stage& stage) override {
    stage.Meet();
    eventfd_t number = 0;
    do {
      eventfd_read(there_, &number);
      eventfd_write(back_, number);
    } while (((number - 1) & kLast) == 0);
  }

 private:
  int there_ = -1, back_ = -1;
};

}  // namespace

void AddSystemRows(Registry& registry) {
  const auto add = [&](std::string_view kind, std::string_view contender, std::size_t bytes,
                       std::function<std::unique_ptr<Pair>()> make) {
    registry.rows.push_back({.name = RowName(kind, contender, bytes),
                             .bytes = bytes,
                             .make = std::move(make),
                             .quick = bytes == 64 || bytes == 8});
  };
  for (const std::size_t bytes : {64u, 256u, 1024u, 4096u}) {
    add("stream", "seqpacket", bytes, [=] { return std::make_unique<SocketStream>(bytes); });
    add("stream", "pipe", bytes, [=] { return std::make_unique<PipeStream>(bytes); });
  }
  add("transactions", "seqpacket-1", 64,
      [] { return std::make_unique<SocketTransactions>(64, 1); });
  add("transactions", "seqpacket-32", 64,
      [] { return std::make_unique<SocketTransactions>(64, 32); });
  add("roundtrip", "eventfd", 8, [] { return std::make_unique<EventPingPong>(); });
}

}  // namespace kmcl::bench
