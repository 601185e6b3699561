#include "flooder.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <deque>
#include <span>
#include <vector>

#include "plan.h"

namespace kmcl::kill {
namespace {

constexpr std::size_t kHeld = 200;
constexpr std::size_t kMostDescriptors = 253;  // that the kernel lets one message carry

int Connect(const std::string& address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  const std::string path = address.substr(std::strlen("unix:"));
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

void Send(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors) {
  alignas(cmsghdr) std::array<unsigned char, CMSG_SPACE(kMostDescriptors * sizeof(int))> control{};
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  // Who does not want it may have hung up.
  (void)sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

struct Arsenal {
  // docs/transports.md: magic, version 2, page size, bells.
  std::array<std::byte, 64> hello{};
  std::array<int, 2> donation{};
  std::vector<int> bomb;  // memfds, as in a good hello, only more of them

  Arsenal() {
    std::memcpy(hello.data(), "kmcl-shm", 8);
    const std::uint32_t words[] = {2, 4096, 1};
    std::memcpy(hello.data() + 8, words, sizeof words);
    const int memory = memfd_create("flood", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ftruncate(memory, 16 * 4096) != 0 || fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
      _exit(EXIT_FAILURE);
    }
    donation = {memory, memory};
    bomb.assign(kMostDescriptors, memory);
  }
};

// A GPADL that is described in fragments; the others never come.
std::array<std::byte, 36> FirstFragment() {
  std::array<std::byte, 36> message{};
  // GPADL_HEADER for channel 1, GPADL 1: 60,000 bytes of ranges in one range, of which the first
  // words follow.
  const std::uint32_t words[] = {8, 0, 1, 1, 60000 | (1u << 16), 4096 * 1000, 0, 1, 0};
  std::memcpy(message.data(), words, sizeof words);
  return message;
}

}  // namespace

void Flood(const std::string& address, std::uint64_t seed, void (*begun)()) {
  const Arsenal arsenal;
  const auto fragment = FirstFragment();
  Random random(seed);
  std::deque<int> held;
  for (std::size_t count = 1;; ++count) {
    const int socket = Connect(address);
    if (socket < 0) return;
    const std::span hello(arsenal.hello);
    switch (random.Between(0, 6)) {
      case 0:
        break;  // and says nothing
      case 1:
        Send(socket, hello.first(random.Between(1, 63)), {});
        break;
      case 2:
        Send(socket, hello, arsenal.bomb);
        break;
      case 3:
        Send(socket, hello.first(1), arsenal.bomb);
        break;
      case 4:
        Send(socket, hello, arsenal.donation);
        for (int i = 0; i < 20; ++i) Send(socket, fragment, arsenal.bomb);
        break;
      case 5:
        Send(socket, hello, arsenal.donation);
        for (int i = 0; i < 20; ++i) Send(socket, fragment, {});
        break;
      case 6:
        Send(socket, hello, arsenal.donation);
        for (std::uint32_t i = 0; i < 20; ++i) {
          std::array<std::uint64_t, 16> noise;
          for (std::uint64_t& word : noise) word = random.Next();
          noise[0] = random.Between(1, 24);  // a number that messages have
          Send(socket, std::as_bytes(std::span(noise)).first(random.Between(1, 128)), {});
        }
        break;
    }
    held.push_back(socket);
    if (held.size() > kHeld) {
      close(held.front());
      held.pop_front();
    }
    if (count == kHeld) begun();
  }
}

}  // namespace kmcl::kill
