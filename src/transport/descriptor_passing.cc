#include "transport/descriptor_passing.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "errno_text.h"
#include "log.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83  // Linux 6.16
#endif

namespace kmcl::transport {
namespace {

std::atomic<std::size_t> closings_under_way{0};

// Exactly as long as `count` descriptors need. CMSG_SPACE would leave room for one more.
std::size_t ControlBytes(std::size_t count) { return CMSG_LEN(count * sizeof(int)); }

void TakeDescriptors(msghdr& header, std::vector<Descriptor>& descriptors) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t index = 0; index < count; ++index) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + index * sizeof(int), sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
}

}  // namespace

ReceivedDatagram ReceiveDatagram(int socket, std::span<std::byte> buffer,
                                 std::size_t maximum_descriptors) {
  KMCL_CHECK(maximum_descriptors <= kMaximumPassedDescriptors);
  alignas(cmsghdr) unsigned char control[CMSG_SPACE(kMaximumPassedDescriptors * sizeof(int))];
  ReceivedDatagram received;
  // Before they are there: without memory later on they would have no owner.
  received.descriptors.reserve(maximum_descriptors);
  bool was_reset = false;
  while (true) {
    iovec part{buffer.data(), buffer.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (maximum_descriptors > 0) {
      header.msg_control = control;
      header.msg_controllen = ControlBytes(maximum_descriptors);
    }
    const ssize_t bytes = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (bytes > 0) {
      received.status = ReceivedDatagram::Status::kDatagram;
      received.bytes = static_cast<std::size_t>(bytes);
      received.truncated = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
      if (maximum_descriptors > 0) TakeDescriptors(header, received.descriptors);
      // The kernel leaves out descriptors for which there is no room in `control`, or none in our
      // table; there is no third reason.
      received.out_of_descriptors = maximum_descriptors > 0 &&
                                    (header.msg_flags & MSG_CTRUNC) != 0 &&
                                    received.descriptors.size() < maximum_descriptors;
      return received;
    }
    if (bytes == 0) {
      if (maximum_descriptors > 0) TakeDescriptors(header, received.descriptors);
      CloseForeign(std::exchange(received.descriptors, {}));
      received.status = ReceivedDatagram::Status::kEnd;
      return received;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return received;
    // A peer that closes with our messages unread resets the connection. The kernel reports that
    // once, ahead of what the peer had sent before; the next call goes on with those messages.
    if (errno == ECONNRESET && !was_reset) {
      was_reset = true;
      continue;
    }
    if (errno != ECONNRESET) {
      Log(LogLevel::kError, "transport: recvmsg: %s", ErrnoText(errno).words());
    }
    received.status = ReceivedDatagram::Status::kEnd;
    return received;
  }
}

Result<void> SendDatagram(int socket, std::span<const std::byte> datagram,
                          std::span<const Descriptor> descriptors) {
  KMCL_CHECK(descriptors.size() <= kMaximumPassedDescriptors);
  alignas(cmsghdr) unsigned char control[CMSG_SPACE(kMaximumPassedDescriptors * sizeof(int))] = {};
  iovec part{const_cast<std::byte*>(datagram.data()), datagram.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = ControlBytes(descriptors.size());
    for (std::size_t index = 0; index < descriptors.size(); ++index) {
      const int fd = descriptors[index].get();
      std::memcpy(CMSG_DATA(rights) + index * sizeof(int), &fd, sizeof fd);
    }
  }
  while (sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    switch (errno) {
      case EINTR:
        continue;
      case EAGAIN:
      case ENOBUFS:
      case ENOMEM:
        return std::unexpected(Error::kWouldBlock);
      case EPIPE:
      case ECONNRESET:
      case ENOTCONN:
        return std::unexpected(Error::kPeerGone);
      case ETOOMANYREFS:
        return std::unexpected(Error::kOutOfDescriptors);
      case EPERM:  // the peer takes no descriptors (see RefuseDescriptors)
        return std::unexpected(Error::kPermissionDenied);
      default:
        Log(LogLevel::kError, "transport: sendmsg: %s", ErrnoText(errno).words());
        return std::unexpected(Error::kSystemCall);
    }
  }
  return {};
}

void RefuseDescriptors(int socket) {
  const int no = 0;
  // Older kernels do not know the option; then the kernel drops what we do not ask for.
  (void)setsockopt(socket, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof no);
}

void CloseForeign(Descriptor descriptor) {
  if (!descriptor) return;
  std::vector<Descriptor> descriptors;
  descriptors.push_back(std::move(descriptor));
  CloseForeign(std::move(descriptors));
}

void CloseForeign(std::vector<Descriptor> descriptors) {
  if (descriptors.empty()) return;
  const auto closer = [](void* owned) -> void* {
    delete static_cast<std::vector<Descriptor>*>(owned);
    closings_under_way.fetch_sub(1, std::memory_order_release);
    return nullptr;
  };
  auto owned = std::make_unique<std::vector<Descriptor>>(std::move(descriptors));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  closings_under_way.fetch_add(1, std::memory_order_relaxed);
  const int error = pthread_create(&thread, &attributes, closer, owned.get());
  pthread_attr_destroy(&attributes);
  // Without a thread they stay open: better than to wait here for a stranger.
  if (error != 0) {
    closings_under_way.fetch_sub(1, std::memory_order_relaxed);
    Log(LogLevel::kError, "transport: no thread to close %zu descriptors, they stay open: %s",
        owned->size(), ErrnoText(error).words());
  }
  (void)owned.release();
}

std::size_t ForeignClosingsUnderWay() { return closings_under_way.load(std::memory_order_acquire); }

}  // namespace kmcl::transport
