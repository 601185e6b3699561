// What the tests of this room share: a connected pair of links, waiting for descriptors, and a look
// at what the process holds.
#pragma once

#include <dirent.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "transport/descriptor.h"
#include "transport/descriptor_passing.h"
#include "transport/link.h"

namespace kmcl::transport {

// A limit for what should take no time, so that a broken test ends.
inline constexpr int kPatienceMs = 20000;

inline bool WaitFor(int fd, short events = POLLIN, int timeout_ms = kPatienceMs) {
  pollfd wait{fd, events, 0};
  return poll(&wait, 1, timeout_ms) == 1;
}

// Waits for bells as users of an inbox do: edge-triggered.
class BellWatch {
 public:
  explicit BellWatch(const BellInbox& inbox) : BellWatch(inbox.fd()) {}
  explicit BellWatch(int fd) : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    epoll_event wanted{.events = EPOLLIN | EPOLLET, .data = {.u64 = 0}};
    EXPECT_EQ(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &wanted), 0);
  }
  // Takes the next edge. False when none came in time.
  bool Next(int timeout_ms = kPatienceMs) {
    epoll_event event{};
    return epoll_wait(epoll_.get(), &event, 1, timeout_ms) == 1;
  }
  int epoll() const { return epoll_.get(); }

 private:
  Descriptor epoll_;
};

// For conditions that only /proc shows: there is no event to wait for.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    poll(nullptr, 0, 1);
  }
  return true;
}

// Waits until the threads of CloseForeign have finished, all but `held`.
inline bool AwaitClosings(std::size_t held = 0) {
  return Eventually([=] { return ForeignClosingsUnderWay() == held; });
}

// What the process holds once CloseForeign has closed what it was given.
inline std::size_t OpenDescriptorCount() {
  EXPECT_TRUE(AwaitClosings());
  std::size_t count = 0;
  DIR* directory = opendir("/proc/self/fd");
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

// Mappings of donated memory in this process.
inline std::size_t PartitionMappingCount() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("kmcl-partition") != std::string::npos) ++count;
  }
  return count;
}

// Files whose last close() waits until this lets go: TCP sockets that linger, with more to deliver
// than their peers take.
class HeldClosings {
 public:
  HeldClosings() : listener_(Socket()) {
    const int few = 1;  // the kernel makes it its minimum
    setsockopt(listener_.get(), SOL_SOCKET, SO_RCVBUF, &few, sizeof few);
    EXPECT_EQ(listen(listener_.get(), 1), 0);
  }

  Descriptor Make() {
    sockaddr_in address{};
    socklen_t bytes = sizeof address;
    EXPECT_EQ(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &bytes), 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Descriptor held = Socket();
    const int more = 1 << 15;
    setsockopt(held.get(), SOL_SOCKET, SO_SNDBUF, &more, sizeof more);
    const linger forever{.l_onoff = 1, .l_linger = 1 << 20};
    setsockopt(held.get(), SOL_SOCKET, SO_LINGER, &forever, sizeof forever);
    EXPECT_EQ(connect(held.get(), reinterpret_cast<const sockaddr*>(&address), bytes), 0);
    peers_.emplace_back(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(peers_.back());
    const std::vector<std::byte> data(1 << 12);
    while (send(held.get(), data.data(), data.size(), MSG_DONTWAIT) > 0) {
    }
    EXPECT_EQ(errno, EAGAIN);
    return held;
  }

  void LetGo() { peers_.clear(); }

 private:
  static Descriptor Socket() { return Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

  Descriptor listener_;
  std::vector<Descriptor> peers_;
};

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/kmcl-test-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string Path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::vector<std::byte> Bytes(const std::string& text) {
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

inline std::string Text(const std::array<std::byte, kMaximumMessageBytes>& buffer,
                        std::size_t size) {
  return {reinterpret_cast<const char*>(buffer.data()), size};
}

// The next message as text; nothing when the link is gone.
inline std::optional<std::string> Next(Link& link) {
  std::array<std::byte, kMaximumMessageBytes> buffer;
  while (true) {
    const ReceivedMessage received = link.Receive(buffer);
    if (received.status == ReceiveStatus::kMessage) return Text(buffer, received.bytes);
    if (received.status == ReceiveStatus::kGone) return std::nullopt;
    if (!WaitFor(link.message_fd())) {
      ADD_FAILURE() << "no message came";
      return std::nullopt;
    }
  }
}

// Whether the link ends without another message.
inline bool IsGone(Link& link) { return !Next(link).has_value(); }

inline std::unique_ptr<Link> AcceptNext(Listener& listener) {
  while (true) {
    Result<std::unique_ptr<Link>> link = listener.Accept();
    if (!link) {
      ADD_FAILURE() << ErrorName(link.error());
      return nullptr;
    }
    if (*link != nullptr) return *std::move(link);
    if (!WaitFor(listener.fd())) {
      ADD_FAILURE() << "nobody connected";
      return nullptr;
    }
  }
}

// Lets the server's end do its handshake. False when the hello was refused.
inline bool ShakeHands(Link& server) {
  std::array<std::byte, kMaximumMessageBytes> buffer;
  while (!server.ready()) {
    if (server.Receive(buffer).status == ReceiveStatus::kGone) return false;
    if (!server.ready() && !WaitFor(server.message_fd())) return false;
  }
  return true;
}

struct Connection {
  std::unique_ptr<ClientLink> client;
  std::unique_ptr<Link> server;
};

inline Connection Connect(Listener& listener, const DialOptions& options = {}) {
  Connection connection;
  std::thread dialler([&] {
    Result<std::unique_ptr<ClientLink>> client = Dial(listener.address(), options);
    if (client) connection.client = *std::move(client);
  });
  // A server that looked whether this one is alive leaves a connection without a hello behind.
  do {
    connection.server = AcceptNext(listener);
  } while (connection.server != nullptr && !ShakeHands(*connection.server));
  dialler.join();
  EXPECT_NE(connection.client, nullptr);
  return connection;
}

inline std::vector<wire::PageNumber> PagesOf(PageRun run) {
  std::vector<wire::PageNumber> pages;
  for (std::uint32_t index = 0; index < run.count; ++index) {
    pages.push_back(wire::PageNumber{std::to_underlying(run.first) + index});
  }
  return pages;
}

}  // namespace kmcl::transport
