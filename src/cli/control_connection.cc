#include "cli/control_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace kmcl::cli {

std::optional<sockaddr_un> SocketAddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return std::nullopt;
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

OwnedDescriptor& OwnedDescriptor::operator=(OwnedDescriptor&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

OwnedDescriptor::~OwnedDescriptor() {
  if (descriptor_ >= 0) {
    close(descriptor_);
  }
}

int OwnedDescriptor::Release() { return std::exchange(descriptor_, -1); }

ControlConnection::ControlConnection(OwnedDescriptor socket, std::size_t most_bytes)
    : socket_(std::move(socket)), most_bytes_(most_bytes) {}

void ControlConnection::Abort() const { shutdown(socket_.get(), SHUT_RDWR); }

void ControlConnection::FinishWriting() const { shutdown(socket_.get(), SHUT_WR); }

bool ControlConnection::AwaitOtherEndDone(int stop) const {
  pollfd either[2] = {{socket_.get(), POLLRDHUP, 0}, {stop, POLLIN, 0}};
  while (poll(either, 2, -1) < 0 && errno == EINTR) {
  }
  return either[0].revents != 0;
}

std::optional<ControlConnection::Line> ControlConnection::Read() {
  for (;;) {
    if (const std::size_t end = received_.find('\n'); end != std::string::npos) {
      Line line{received_.substr(0, end), std::move(descriptor_)};
      descriptor_ = OwnedDescriptor();
      received_.erase(0, end + 1);
      return line;
    }
    if (received_.size() > most_bytes_ || !Fill()) {
      return std::nullopt;
    }
  }
}

// A descriptor that comes while another one waits replaces it; more than one at a time are cut off
// by the kernel.
bool ControlConnection::Fill() {
  std::array<char, 4096> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec vector{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t count = 0;
  do {
    count = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) {
    return false;
  }
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS &&
        part->cmsg_len == CMSG_LEN(sizeof(int))) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(part), sizeof(descriptor));
      descriptor_ = OwnedDescriptor(descriptor);
    }
  }
  received_.append(bytes.data(), static_cast<std::size_t>(count));
  return true;
}

bool ControlConnection::Write(std::string text, int descriptor) {
  text += '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    iovec vector{const_cast<char*>(rest.data()), rest.size()};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    if (descriptor >= 0) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(sizeof(descriptor));
      std::memcpy(CMSG_DATA(part), &descriptor, sizeof(descriptor));
    }
    const ssize_t count = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return false;
    }
    descriptor = -1;  // it went with the first byte
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

}  // namespace kmcl::cli
