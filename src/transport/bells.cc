#include "transport/bells.h"

#include <sys/socket.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>

#include "log.h"
#include "transport/descriptor_passing.h"

namespace kmcl::transport {
namespace {

// Flag words are 64 bits wide here and a bitmap of bytes in the format.
static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kHalfBytes = wire::kPageBytes / 2;
constexpr std::size_t kFlagWords = std::tuple_size_v<ChannelSet>;
constexpr int kSendAttempts = 4;

// The only way to the flags.
std::atomic_ref<std::uint64_t> Word(std::byte* flags, std::size_t index) {
  return std::atomic_ref(reinterpret_cast<std::uint64_t*>(flags)[index]);
}

// No bell is lost. The ringer sets the flag (B0), then sends; the collector takes a datagram away,
// then takes the flags (C0).
//  * Ringer finds the flag clear: its datagram arrives after the flag is set. If the collector
//  takes
//    that datagram, it scans later and sees the flag; if not, fd() is readable.
//  * Ringer finds the flag set: whoever set it has sent, or is about to, and nobody has taken the
//  flag
//    since. The first rule then holds for that ringer, and whoever takes the flag sees what both
//    have published, because B0 continues the release sequence of the earlier B0.
//  * The send buffer is full: datagrams of ours wait at the other end, so fd() is readable there,
//  and
//    whoever takes one of them scans afterwards.
// A ringer that dies between flag and datagram takes its link along.
ChannelSet TakeFlags(std::byte* flags) {
  ChannelSet set{};
  for (std::size_t index = 0; index < kFlagWords; ++index) {
    std::atomic_ref<std::uint64_t> word = Word(flags, index);
    // Most words are zero; looking first leaves their cache lines shared. A flag that this look
    // misses belongs to a datagram that still waits.
    if (word.load(std::memory_order_acquire) == 0) continue;
    set[index] = word.exchange(0, std::memory_order_acq_rel);  // C0, partner of B0
  }
  return set;
}

bool IsEmpty(const ChannelSet& set) {
  for (const std::uint64_t word : set) {
    if (word != 0) return false;
  }
  return true;
}

}  // namespace

class Bells::Inbox final : public BellInbox {
 public:
  Inbox(int fd, std::byte* flags) : fd_(fd), flags_(flags) {}

  int fd() const override { return fd_; }

  ChannelSet Collect() override {
    std::byte ignored{};
    (void)recv(fd_, &ignored, sizeof ignored, MSG_DONTWAIT);
    const ChannelSet set = TakeFlags(flags_);
    if (!IsEmpty(set)) return set;

    // Datagrams whose flags Peek has already taken. Clear them away together, and look once more.
    mmsghdr backlog[64] = {};
    (void)recvmmsg(fd_, backlog, std::size(backlog), MSG_DONTWAIT, nullptr);
    return TakeFlags(flags_);
  }

  ChannelSet Peek() override { return TakeFlags(flags_); }

 private:
  int fd_;
  std::byte* flags_;
};

class Bells::SocketDoorbell final : public Doorbell {
 public:
  SocketDoorbell(int fd, std::byte* flags, std::uint32_t channel)
      : fd_(fd), word_(flags + channel / 64 * 8), bit_(std::uint64_t{1} << channel % 64) {}

  void Ring() override {
    std::atomic_ref<std::uint64_t> word = Word(word_, 0);
    if ((word.fetch_or(bit_, std::memory_order_acq_rel) & bit_) != 0) return;  // B0, partner of C0
    const std::byte nothing{};
    for (int attempt = 0; attempt < kSendAttempts; ++attempt) {
      if (send(fd_, &nothing, sizeof nothing, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return;
      // EAGAIN: see above. ECONNREFUSED and EPIPE: nobody listens any more. ECONNRESET is an
      // earlier event that this call reports instead of sending.
      if (errno != EINTR && errno != ENOBUFS && errno != ENOMEM && errno != ECONNRESET) return;
    }
    // The system has no memory for a byte. Leave the flag clear, so that the next one to ring
    // tries.
    word.fetch_and(~bit_, std::memory_order_acq_rel);
  }

 private:
  int fd_;
  std::byte* word_;
  std::uint64_t bit_;
};

Result<Bells::Sockets> Bells::MakeSockets(std::uint32_t count) {
  Sockets sockets;
  for (std::uint32_t index = 0; index < count; ++index) {
    int pair[2] = {-1, -1};
    // Datagram sockets, because they do not become readable when the other end goes: a client that
    // closes only its bells would otherwise keep a thread of ours busy.
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
      const int error = errno;
      Log(LogLevel::kError, "transport: socketpair: %s", std::strerror(error));
      return std::unexpected(error == EMFILE || error == ENFILE ? Error::kOutOfDescriptors
                                                                : Error::kSystemCall);
    }
    sockets.server.emplace_back(pair[0]);
    sockets.client.emplace_back(pair[1]);
    RefuseDescriptors(pair[0]);
    RefuseDescriptors(pair[1]);
  }
  return sockets;
}

bool Bells::AreSockets(const std::vector<Descriptor>& sockets) {
  for (const Descriptor& descriptor : sockets) {
    int domain = 0;
    int type = 0;
    socklen_t bytes = sizeof(int);
    if (getsockopt(descriptor.get(), SOL_SOCKET, SO_DOMAIN, &domain, &bytes) != 0) return false;
    if (getsockopt(descriptor.get(), SOL_SOCKET, SO_TYPE, &type, &bytes) != 0) return false;
    if (domain != AF_UNIX || type != SOCK_DGRAM) return false;
  }
  return true;
}

Bells::Bells(Side side, Mapping pages, std::vector<Descriptor> sockets)
    : side_(side), pages_(std::move(pages)), sockets_(std::move(sockets)) {
  KMCL_CHECK(pages_.bytes() == sockets_.size() * wire::kPageBytes);
  const Side peer = side == Side::kServer ? Side::kClient : Side::kServer;
  for (std::uint32_t index = 0; index < sockets_.size(); ++index) {
    inboxes_.push_back(std::make_unique<Inbox>(sockets_[index].get(), Flags(index, peer)));
  }
}

std::byte* Bells::Flags(std::uint32_t index, Side from) const {
  std::byte* const page = pages_.base() + std::size_t{index} * wire::kPageBytes;
  return from == Side::kServer ? page : page + kHalfBytes;
}

BellInbox& Bells::inbox(std::uint32_t index) {
  KMCL_CHECK(index < inboxes_.size());
  return *inboxes_[index];
}

std::unique_ptr<Doorbell> Bells::MakeDoorbell(wire::ChannelId channel, std::uint32_t index) {
  KMCL_CHECK(index < inboxes_.size() && std::to_underlying(channel) <= wire::kMaximumChannelId);
  return std::make_unique<SocketDoorbell>(sockets_[index].get(), Flags(index, side_),
                                          std::to_underlying(channel));
}

}  // namespace kmcl::transport
