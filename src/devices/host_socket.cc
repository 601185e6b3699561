#include "devices/host_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace kmcl::devices {
namespace {

constexpr int kBacklog = 128;

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int ConnectTo(int socket, const std::string& path) {
  const sockaddr_un address = AddressOf(path);
  int result = 0;
  do {
    result = connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

}  // namespace

bool HostSocket::IsPath(const std::string& path) {
  return !path.empty() && path.size() < sizeof(sockaddr_un::sun_path) &&
         path.find('\0') == std::string::npos;
}

void HostSocket::Close() {
  if (descriptor_ >= 0) {
    close(std::exchange(descriptor_, -1));
  }
}

std::expected<HostSocket, int> HostSocket::Connect(const std::string& path,
                                                   std::chrono::milliseconds timeout) {
  if (!IsPath(path)) {
    return std::unexpected(ENAMETOOLONG);
  }
  HostSocket made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made.is_open()) {
    return std::unexpected(errno);
  }
  // Nothing tells when a full backlog has room again, but connect() itself waits for it.
  const timeval wait{.tv_sec = static_cast<time_t>(timeout.count() / 1000),
                     .tv_usec = static_cast<suseconds_t>(timeout.count() % 1000 * 1000)};
  if (setsockopt(made.get(), SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) != 0) {
    return std::unexpected(errno);
  }
  if (const int why = ConnectTo(made.get(), path); why != 0) {
    return std::unexpected(why);
  }
  return made;
}

std::expected<HostSocket, int> HostSocket::Listen(const std::string& path) {
  if (!IsPath(path)) {
    return std::unexpected(ENAMETOOLONG);
  }
  const HostSocket probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.is_open()) {
    return std::unexpected(errno);
  }
  const int answer = ConnectTo(probe.get(), path);
  if (answer == 0 || answer == EAGAIN) {
    return std::unexpected(EADDRINUSE);
  }
  if (answer == ECONNREFUSED) {
    struct stat about{};
    if (lstat(path.c_str(), &about) == 0 && S_ISSOCK(about.st_mode)) {
      unlink(path.c_str());
    }
  }
  HostSocket made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_un address = AddressOf(path);
  // The mode of the socket becomes that of its file, without a moment in which it is another.
  if (!made.is_open() || fchmod(made.get(), 0600) != 0 ||
      bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return std::unexpected(errno);
  }
  if (listen(made.get(), kBacklog) != 0) {
    const int why = errno;
    unlink(path.c_str());
    return std::unexpected(why);
  }
  return made;
}

std::expected<HostSocket, int> HostSocket::Accept() const {
  HostSocket accepted(accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!accepted.is_open()) {
    return std::unexpected(errno);
  }
  return accepted;
}

}  // namespace kmcl::devices
