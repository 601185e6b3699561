#include "strangers.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <span>
#include <vector>

#include "scheduler.h"
#include "transport/handshake.h"

namespace kmcl::sim {
namespace {

constexpr std::size_t kMostDescriptors = 16;

void Wait(std::uint32_t us) {
  WaitUntil([] { return false; }, NowNs() + std::int64_t{us} * 1000, "a stranger's time");
}

void Send(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors) {
  alignas(cmsghdr) unsigned char control[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  (void)sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// What a client would pass, or something like it.
int MakeDescriptor(bool good) {
  const std::uint32_t kind = good ? 0 : Choices().Between(0, 4);
  switch (kind) {
    case 1:
      return eventfd(0, EFD_NONBLOCK);
    case 2:
      return epoll_create1(0);
    case 3:
      return socket(AF_UNIX, SOCK_SEQPACKET, 0);
    default:
      break;
  }
  const int fd = memfd_create("stranger", MFD_ALLOW_SEALING);
  if (fd < 0) return fd;
  (void)ftruncate(fd, good ? 65536 : Choices().Between(0, 3) * 4096);
  if (kind == 0) (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
  return fd;
}

std::vector<std::byte> MakeHello(bool good) {
  const transport::Hello hello;
  const auto bytes = std::as_bytes(std::span(&hello, 1));
  std::vector<std::byte> datagram(bytes.begin(), bytes.end());
  if (good) return datagram;
  Random& random = Choices();
  if (random.OneIn(3)) datagram.resize(random.Between(1, 300), std::byte{0x11});
  const std::size_t at = random.Next() % datagram.size();
  datagram[at] ^= static_cast<std::byte>(random.Between(1, 255));
  return datagram;
}

// Mostly a known number, and anything behind it.
std::vector<std::byte> MakeMessage() {
  Random& random = Choices();
  std::vector<std::byte> message(random.Between(1, 260));
  for (std::byte& each : message) each = static_cast<std::byte>(random.Next() & 3);
  const std::uint64_t number = random.Between(0, 26);
  std::memcpy(message.data(), &number, std::min(message.size(), sizeof number));
  return message;
}

}  // namespace

void Knock(const char* path) {
  Random& random = Choices();
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  std::vector<int> passed;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    Note("a stranger knocks");
    Wait(random.Between(0, 200));
    const bool good = random.OneIn(3);
    const std::uint32_t count = good || random.OneIn(2) ? 2 : random.Between(0, kMostDescriptors);
    for (std::uint32_t i = 0; i < count; ++i) {
      const int each = MakeDescriptor(good || random.OneIn(2));
      if (each >= 0) passed.push_back(each);
    }
    if (good || !random.OneIn(4)) Send(fd, MakeHello(good || random.OneIn(3)), passed);
    for (std::uint32_t left = random.Between(0, 6); left > 0; --left) {
      Wait(random.Between(0, 500));
      Send(fd, MakeMessage(),
           random.OneIn(4) ? std::span<const int>(passed) : std::span<const int>());
    }
    Wait(random.Between(0, random.OneIn(2) ? 50 : 5000));
  }
  for (const int each : passed) close(each);
  close(fd);
}

}  // namespace kmcl::sim
