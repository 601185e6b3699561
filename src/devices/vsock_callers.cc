// Programs of the host's that want to be connected with the guest: from their first byte to the
// offer.
#include <sys/random.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "devices/vsock.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMostCallers = 64;
constexpr auto kCallerPatience = 10s;
// "CONNECT 4294967295\n", and a little more.
constexpr std::size_t kMostLineBytes = 32;

constexpr std::uint32_t kAnyPort = 0xFFFFFFFF;  // no port's number

constexpr const char* kConnectVerb = "CONNECT ";

// Of "CONNECT 5000".
std::optional<std::uint32_t> PortOf(std::string_view line) {
  if (!line.starts_with(kConnectVerb)) {
    return std::nullopt;
  }
  line.remove_prefix(std::strlen(kConnectVerb));
  std::uint32_t port = 0;
  const auto parsed = std::from_chars(line.data(), line.data() + line.size(), port);
  if (parsed.ec != std::errc() || parsed.ptr != line.data() + line.size()) {
    return std::nullopt;
  }
  return port;
}

// Unique: a port of the host's that no other connection has, and bytes that nobody can guess.
GUID NewEndpoint(std::uint32_t port) {
  GUID endpoint{};
  if (getrandom(&endpoint, sizeof(endpoint), 0) != sizeof(endpoint)) {
    endpoint = VsockPort(port);
  }
  endpoint.Data1 = port;
  return endpoint;
}

}  // namespace

void VsockDevice::AcceptCallers() {
  accept_again_ = false;
  for (;;) {
    auto socket = listener_.Accept();
    if (!socket) {
      if (socket.error() == EINTR || socket.error() == ECONNABORTED) {
        continue;
      }
      if (socket.error() != EAGAIN) {
        // Once another connection has ended there may be a descriptor for this one.
        accept_again_ = true;
        deadlines_.try_emplace(0, Clock::now() + 1s);
        Complain(Complaint::kCaller, std::string("cannot accept a connection: ") +
                                         std::generic_category().message(socket.error()));
      }
      return;
    }
    if (callers_.size() >= kMostCallers) {
      Complain(Complaint::kCaller, "a connection is refused: " + std::to_string(kMostCallers) +
                                       " others have not said whereto");
      continue;
    }
    std::uint64_t number = 0;
    {
      const std::lock_guard lock(mutex_);
      number = next_number_++;
    }
    if (Watch(socket->get(), number, kSocket)) {
      callers_[number] = {std::move(*socket), Clock::now() + kCallerPatience};
    }
  }
}

// Takes the line when it is whole, and not a byte of what follows it.
void VsockDevice::Hear(std::uint64_t number, Caller& caller) {
  char line[kMostLineBytes];
  const ssize_t seen = recv(caller.socket.get(), line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
  if (seen < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  const std::string_view text(line, seen > 0 ? static_cast<std::size_t>(seen) : 0);
  const auto end = text.find('\n');
  if (end == text.npos && seen > 0 && text.size() < sizeof(line)) {
    return;
  }
  HostSocket socket = std::move(caller.socket);
  callers_.erase(number);
  const auto port = end == text.npos ? std::nullopt : PortOf(text.substr(0, end));
  if (!port) {
    Complain(Complaint::kCaller, "a connection of the host's does not begin with \"CONNECT PORT\"");
    return;
  }
  (void)recv(socket.get(), line, end + 1, MSG_DONTWAIT);
  Connect(number, std::move(socket), *port);
}

void VsockDevice::Connect(std::uint64_t number, HostSocket socket, std::uint32_t port) {
  HANDLE guest = nullptr;
  std::uint32_t own_port = 0;
  {
    const std::lock_guard lock(mutex_);
    guest = newest_;
    own_port = next_port_++;
    if (next_port_ == kAnyPort) {
      next_port_ = kFirstHostPort;
    }
  }
  // A refusal is the end of the connection.
  Begin({.number = number,
         .partition = guest,
         .service = VsockPort(port),
         .endpoint = NewEndpoint(own_port),
         .greeting = "OK " + std::to_string(own_port) + "\n"},
        std::move(socket));
}

}  // namespace kmcl::devices
