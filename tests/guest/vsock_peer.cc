// One end of connections between a guest and its host, for the tests: the same program at both
// ends.
//
//   vsock_peer exchange ADDRESS SEND-BYTES SEND-SEED RECEIVE-SEED
//       One connection. Sends so many bytes and closes its direction, while it receives up to the
//       end, and compares: "exchanged SENT RECEIVED DIGEST DIGEST".
//   vsock_peer many ADDRESS COUNT
//       So many connections, all open at the same time; then each says something, and hears it
//       again.
//   vsock_peer echo ADDRESS COUNT
//       The other end of that: answers once all are open.
//   vsock_peer flood ADDRESS
//       One connection. Writes without end and reads nothing: "under way", and "flooded: WHY".
//   vsock_peer leave ADDRESS BYTES
//       One connection. Writes so many bytes, and is killed while it waits, with all unread.
//   vsock_peer drain ADDRESS
//       One connection. Reads up to the end: "under way", and "drained BYTES: WHY".
//
// ADDRESS: vsock:CID:PORT, vsock-listen:PORT, unix:PATH, unix-listen:PATH, or guest:PATH:PORT,
// which connects through the host's socket of a virtual machine.
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

[[noreturn]] void Fail(const char* what) {
  std::printf("vsock_peer failed: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

int Check(int result, const char* what) {
  if (result < 0) {
    Fail(what);
  }
  return result;
}

// Bytes that both ends can make, eight at a time, and a number that depends on each and its place.
class Pattern {
 public:
  explicit Pattern(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15 + 1) {}
  std::uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  std::uint64_t state_;
};

class Digest {
 public:
  void Add(const char* bytes, std::size_t count) {
    for (; count >= 8 && held_ == 0; bytes += 8, count -= 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes, 8);
      Mix(word);
    }
    for (; count > 0; ++bytes, --count) {
      std::memcpy(reinterpret_cast<char*>(&word_) + held_, bytes, 1);
      if (++held_ == 8) {
        Mix(word_);
        held_ = 0;
      }
    }
  }
  std::uint64_t value() const { return value_ ^ (held_ == 0 ? 0 : word_); }

 private:
  void Mix(std::uint64_t word) {
    value_ = (value_ ^ word) * 0x100000001B3;
    value_ ^= value_ >> 29;
  }
  std::uint64_t value_ = 0xCBF29CE484222325;
  std::uint64_t word_ = 0;
  std::size_t held_ = 0;
};

struct Address {
  std::string kind;
  std::string path;
  unsigned cid = 0;
  unsigned port = 0;
};

Address ParseAddress(const std::string& text) {
  Address address;
  const auto colon = text.find(':');
  address.kind = text.substr(0, colon);
  std::string rest = text.substr(colon + 1);
  const auto last = rest.rfind(':');
  if (address.kind == "vsock") {
    address.cid = static_cast<unsigned>(std::stoul(rest.substr(0, last)));
    address.port = static_cast<unsigned>(std::stoul(rest.substr(last + 1)));
  } else if (address.kind == "vsock-listen") {
    address.port = static_cast<unsigned>(std::stoul(rest));
  } else if (address.kind == "guest") {
    address.path = rest.substr(0, last);
    address.port = static_cast<unsigned>(std::stoul(rest.substr(last + 1)));
  } else {
    address.path = rest;
  }
  return address;
}

sockaddr_un UnixAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return address;
}

sockaddr_vm VsockAddress(unsigned cid, unsigned port) {
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = port;
  return address;
}

int ConnectUnix(const std::string& path) {
  const sockaddr_un address = UnixAddress(path);
  const int made = Check(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
  Check(connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), "connect");
  return made;
}

int ConnectVsock(const Address& to, bool is_small) {
  const sockaddr_vm address = VsockAddress(to.cid, to.port);
  const int made = Check(socket(AF_VSOCK, SOCK_STREAM, 0), "socket");
  // Two seconds, which are the default, are little in an emulated machine.
  const timeval timeout{.tv_sec = 60, .tv_usec = 0};
  Check(setsockopt(made, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD, &timeout, sizeof(timeout)),
        "SO_VM_SOCKETS_CONNECT_TIMEOUT");
  if (is_small) {
    // Rings as small as Linux makes them: they need no memory in one piece.
    const int bytes = 4096;
    Check(setsockopt(made, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), "SO_SNDBUF");
    Check(setsockopt(made, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), "SO_RCVBUF");
  }
  Check(connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), "connect");
  return made;
}

int ConnectGuest(const Address& to) {
  const int made = ConnectUnix(to.path);
  const std::string line = "CONNECT " + std::to_string(to.port) + "\n";
  if (write(made, line.data(), line.size()) != ssize_t(line.size())) {
    Fail("CONNECT");
  }
  std::string answer;
  char letter = 0;
  while (answer.find('\n') == answer.npos) {
    errno = 0;
    if (read(made, &letter, 1) != 1) {
      Fail("no answer to CONNECT");
    }
    answer += letter;
  }
  if (!answer.starts_with("OK ")) {
    Fail("another answer than OK");
  }
  return made;
}

int Listen(const Address& at) {
  const bool is_unix = at.kind == "unix-listen";
  const sockaddr_un unix_address = UnixAddress(at.path);
  const sockaddr_vm vsock_address = VsockAddress(VMADDR_CID_ANY, at.port);
  const int made = Check(socket(is_unix ? AF_UNIX : AF_VSOCK, SOCK_STREAM, 0), "socket");
  Check(is_unix
            ? bind(made, reinterpret_cast<const sockaddr*>(&unix_address), sizeof(unix_address))
            : bind(made, reinterpret_cast<const sockaddr*>(&vsock_address), sizeof(vsock_address)),
        "bind");
  Check(listen(made, 256), "listen");
  std::printf("listening at %s\n", is_unix ? at.path.c_str() : std::to_string(at.port).c_str());
  return made;
}

std::vector<int> Open(const std::string& text, std::size_t count) {
  const Address address = ParseAddress(text);
  std::vector<int> sockets;
  if (address.kind.ends_with("-listen")) {
    const int listener = Listen(address);
    while (sockets.size() < count) {
      sockets.push_back(Check(accept(listener, nullptr, nullptr), "accept"));
    }
    close(listener);
    return sockets;
  }
  while (sockets.size() < count) {
    sockets.push_back(address.kind == "vsock"   ? ConnectVsock(address, count > 1)
                      : address.kind == "guest" ? ConnectGuest(address)
                                                : ConnectUnix(address.path));
  }
  return sockets;
}

int Open(const std::string& text) { return Open(text, 1).front(); }

// The digest of so many bytes of a pattern.
std::uint64_t ExpectedDigest(std::uint64_t seed, std::uint64_t bytes) {
  Pattern pattern(seed);
  Digest digest;
  for (std::uint64_t at = 0; at < bytes; at += 8) {
    const std::uint64_t word = pattern.Next();
    digest.Add(reinterpret_cast<const char*>(&word),
               static_cast<std::size_t>(std::min<std::uint64_t>(8, bytes - at)));
  }
  return digest.value();
}

int Exchange(const std::string& address, std::uint64_t send_bytes, std::uint64_t send_seed,
             std::uint64_t receive_seed) {
  const int peer = Open(address);
  Pattern pattern(send_seed);
  Digest received_digest;
  std::uint64_t made = 0;
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::vector<std::uint64_t> outgoing(8192);
  std::vector<char> incoming(65536);
  std::size_t from = 0;  // in `outgoing`, of the `left` bytes that are still to be sent
  std::size_t left = 0;
  bool is_sending = true;
  bool is_receiving = true;
  while (is_sending || is_receiving) {
    pollfd events{peer,
                  static_cast<short>((is_sending ? POLLOUT : 0) | (is_receiving ? POLLIN : 0)), 0};
    Check(poll(&events, 1, -1), "poll");
    if (is_sending && (events.revents & (POLLOUT | POLLERR | POLLHUP)) != 0) {
      if (left == 0) {
        left = static_cast<std::size_t>(
            std::min<std::uint64_t>(outgoing.size() * 8, send_bytes - made));
        from = 0;
        for (std::size_t i = 0; i < (left + 7) / 8; ++i) {
          outgoing[i] = pattern.Next();
        }
        made += left;
      }
      const ssize_t done = send(peer, reinterpret_cast<const char*>(outgoing.data()) + from, left,
                                MSG_DONTWAIT | MSG_NOSIGNAL);
      if (done < 0 && errno != EAGAIN) {
        Fail("send");
      }
      if (done > 0) {
        from += static_cast<std::size_t>(done);
        left -= static_cast<std::size_t>(done);
        sent += static_cast<std::uint64_t>(done);
      }
      if (sent == send_bytes) {
        is_sending = false;
        Check(shutdown(peer, SHUT_WR), "shutdown");
      }
    }
    if (is_receiving && (events.revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
      const ssize_t done = recv(peer, incoming.data(), incoming.size(), MSG_DONTWAIT);
      if (done < 0 && errno != EAGAIN) {
        Fail("recv");
      }
      if (done > 0) {
        received_digest.Add(incoming.data(), static_cast<std::size_t>(done));
        received += static_cast<std::uint64_t>(done);
      }
      is_receiving = done != 0;
    }
  }
  close(peer);
  const bool is_right = received_digest.value() == ExpectedDigest(receive_seed, received);
  std::printf("exchanged %llu %llu %016llx %016llx%s\n", static_cast<unsigned long long>(sent),
              static_cast<unsigned long long>(received),
              static_cast<unsigned long long>(ExpectedDigest(send_seed, send_bytes)),
              static_cast<unsigned long long>(received_digest.value()),
              is_right ? "" : " WRONG BYTES");
  return is_right ? 0 : 1;
}

std::string ReadAll(int peer) {
  std::string all;
  char buffer[4096];
  for (;;) {
    const ssize_t got = Check(static_cast<int>(recv(peer, buffer, sizeof(buffer), 0)), "recv");
    if (got == 0) {
      return all;
    }
    all.append(buffer, static_cast<std::size_t>(got));
  }
}

void WriteAll(int peer, const std::string& bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    done += static_cast<std::size_t>(
        Check(static_cast<int>(send(peer, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL)),
              "send"));
  }
}

int Many(const std::string& address, std::size_t count) {
  const std::vector<int> peers = Open(address, count);
  const auto said = [](std::size_t number) {
    return "connection " + std::to_string(number) + std::string(5000, '.');
  };
  for (std::size_t i = 0; i < count; ++i) {
    WriteAll(peers[i], said(i));
    Check(shutdown(peers[i], SHUT_WR), "shutdown");
  }
  std::size_t right = 0;
  for (std::size_t i = 0; i < count; ++i) {
    right += ReadAll(peers[i]) == said(i) ? 1 : 0;
    close(peers[i]);
  }
  std::printf("%zu of %zu connections were answered\n", right, count);
  return right == count ? 0 : 1;
}

int Echo(const std::string& address, std::size_t count) {
  const std::vector<int> peers = Open(address, count);
  std::printf("%zu connections are open\n", peers.size());
  for (const int peer : peers) {
    WriteAll(peer, ReadAll(peer));
    close(peer);
  }
  return 0;
}

int Flood(const std::string& address) {
  const int peer = Open(address);
  const std::string bytes(65536, 'f');
  for (bool told = false; send(peer, bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0; told = true) {
    if (!told) std::printf("under way\n");
  }
  std::printf("flooded: %s\n", std::strerror(errno));
  return 0;
}

int Leave(const std::string& address, std::size_t bytes) {
  const int peer = Open(address);
  WriteAll(peer, std::string(bytes, 'l'));
  // Something waits to be read, and never is.
  pollfd events{peer, POLLIN, 0};
  Check(poll(&events, 1, -1), "poll");
  std::printf("leaving\n");
  std::fflush(stdout);
  kill(getpid(), SIGKILL);
  return 1;
}

int Drain(const std::string& address) {
  const int peer = Open(address);
  std::vector<char> buffer(65536);
  std::uint64_t bytes = 0;
  ssize_t got = 0;
  while ((got = recv(peer, buffer.data(), buffer.size(), 0)) > 0) {
    if (bytes == 0) std::printf("under way\n");
    bytes += static_cast<std::uint64_t>(got);
  }
  std::printf("drained %llu: %s\n", static_cast<unsigned long long>(bytes),
              got == 0 ? "the end" : std::strerror(errno));
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::vector<std::string> words(arguments + 1, arguments + count);
  const std::string command = words.empty() ? "" : words[0];
  if (command == "exchange" && words.size() == 5) {
    return Exchange(words[1], std::stoull(words[2]), std::stoull(words[3]), std::stoull(words[4]));
  }
  if (command == "many" && words.size() == 3) {
    return Many(words[1], std::stoul(words[2]));
  }
  if (command == "echo" && words.size() == 3) {
    return Echo(words[1], std::stoul(words[2]));
  }
  if (command == "flood" && words.size() == 2) {
    return Flood(words[1]);
  }
  if (command == "leave" && words.size() == 3) {
    return Leave(words[1], std::stoul(words[2]));
  }
  if (command == "drain" && words.size() == 2) {
    return Drain(words[1]);
  }
  std::fputs("vsock_peer exchange|many|echo|flood|leave|drain ADDRESS ...\n", stderr);
  return 2;
}
