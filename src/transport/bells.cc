#include "transport/bells.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <string>
#include <string_view>

#include "errno_text.h"
#include "log.h"
#include "transport/descriptor_passing.h"

namespace kmcl::transport {
namespace {

// Flag words are 64 bits wide here and a bitmap of bytes in the format.
static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kHalfBytes = wire::kPageBytes / 2;
constexpr std::size_t kFlagWords = std::tuple_size_v<ChannelSet>;

// The only way to the flags.
std::atomic_ref<std::uint64_t> Word(std::byte* flags, std::size_t index) {
  return std::atomic_ref(reinterpret_cast<std::uint64_t*>(flags)[index]);
}

// No bell is lost. The ringer sets the flag (B0), then writes the eventfd, and each write is an
// edge whatever the counter says. The collector's epoll_wait takes the edge away, then it takes the
// flags (C0).
//  * Ringer finds the flag clear: its edge comes after the flag is set. If an epoll_wait has taken
//    the edge, the scan that follows sees the flag; if not, the edge waits.
//  * Ringer finds the flag set: whoever set it has written, or is about to, and the flag has not
//    been taken since. The first rule then holds for that ringer, and whoever takes the flag sees
//    what both have published, because B0 continues the release sequence of the earlier B0.
// A scan without an epoll_wait before it takes flags only; their edges come later and find nothing.
// A ringer that dies between flag and write takes its link along.
ChannelSet TakeFlags(std::byte* flags) {
  ChannelSet set{};
  for (std::size_t index = 0; index < kFlagWords; ++index) {
    std::atomic_ref<std::uint64_t> word = Word(flags, index);
    // Most words are zero; looking first leaves their cache lines shared. A flag that this look
    // misses belongs to an edge that is still to come.
    if (word.load(std::memory_order_acquire) == 0) continue;
    set[index] = word.exchange(0, std::memory_order_acq_rel);  // C0, partner of B0
  }
  return set;
}

Error FromErrno(const char* what) {
  const int error = errno;
  if (error == EMFILE || error == ENFILE) return Error::kOutOfDescriptors;
  if (error == ENOMEM || error == ENOSPC) return Error::kOutOfMemory;
  Log(LogLevel::kError, "transport: %s: %s", what, ErrnoText(error).words());
  return Error::kSystemCall;
}

Result<Descriptor> MakeEvent() {
  Descriptor event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return std::unexpected(FromErrno("eventfd"));
  return event;
}

Result<Descriptor> Duplicate(const Descriptor& descriptor) {
  Descriptor duplicate(fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 0));
  if (!duplicate) return std::unexpected(FromErrno("duplicating an eventfd"));
  return duplicate;
}

// Something to wait on that does not give `event` away: epoll_ctl finds an entry only for those who
// hold the file itself.
Result<Descriptor> MakeWatch(const Descriptor& event) {
  Descriptor watch(epoll_create1(EPOLL_CLOEXEC));
  if (!watch) return std::unexpected(FromErrno("epoll_create1"));
  epoll_event wanted{.events = EPOLLIN, .data = {.u64 = 0}};
  if (epoll_ctl(watch.get(), EPOLL_CTL_ADD, event.get(), &wanted) != 0) {
    return std::unexpected(FromErrno("epoll_ctl"));
  }
  return watch;
}

bool IsKind(const Descriptor& descriptor, std::string_view kind) {
  const std::string name = "/proc/self/fd/" + std::to_string(descriptor.get());
  char target[64];
  const ssize_t bytes = readlink(name.c_str(), target, sizeof target);
  return bytes >= 0 && std::string_view(target, static_cast<std::size_t>(bytes)) == kind;
}

}  // namespace

class Bells::Inbox final : public BellInbox {
 public:
  Inbox(int fd, std::byte* flags) : fd_(fd), flags_(flags) {}

  int fd() const override { return fd_; }
  ChannelSet Collect() override { return TakeFlags(flags_); }

 private:
  int fd_;
  std::byte* flags_;
};

class Bells::EventDoorbell final : public Doorbell {
 public:
  EventDoorbell(int fd, std::byte* flags, std::uint32_t channel)
      : fd_(fd), word_(flags + std::size_t{channel / 64} * 8), bit_(std::uint64_t{1} << channel % 64) {}

  void Ring() override {
    std::atomic_ref<std::uint64_t> word = Word(word_, 0);
    if ((word.fetch_or(bit_, std::memory_order_acq_rel) & bit_) != 0) return;  // B0, partner of C0
    // The counter grows by ones from zero, so it takes centuries to fill, unless the other end is a
    // client's server that wants no bells.
    (void)eventfd_write(fd_, 1);
  }

 private:
  int fd_;
  std::byte* word_;
  std::uint64_t bit_;
};

Result<Bells::Ends> Bells::MakeEnds(std::uint32_t count, Peer client) {
  Ends ends;
  for (std::uint32_t index = 0; index < count; ++index) {
    Result<Descriptor> to_client = MakeEvent();
    if (!to_client) return std::unexpected(to_client.error());
    Result<Descriptor> to_server = MakeEvent();
    if (!to_server) return std::unexpected(to_server.error());
    // A nested epoll costs each wake-up a little, and adding one to another takes a lock that all
    // processes share; within a process there is no need for it.
    Result<Descriptor> client_wait =
        client == Peer::kStranger ? MakeWatch(*to_client) : Duplicate(*to_client);
    if (!client_wait) return std::unexpected(client_wait.error());
    Result<Descriptor> client_ring = Duplicate(*to_server);
    if (!client_ring) return std::unexpected(client_ring.error());
    ends.server.push_back(*std::move(to_server));
    ends.server.push_back(*std::move(to_client));
    ends.client.push_back(*std::move(client_wait));
    ends.client.push_back(*std::move(client_ring));
  }
  return ends;
}

bool Bells::AreEnds(const std::vector<Descriptor>& ends) {
  for (std::size_t index = 0; index < ends.size(); ++index) {
    if (!IsKind(ends[index], index % 2 == 0 ? "anon_inode:[eventpoll]" : "anon_inode:[eventfd]")) {
      return false;
    }
  }
  return ends.size() % 2 == 0;
}

bool Bells::AreServerEnds(const std::vector<Descriptor>& ends) {
  return std::ranges::all_of(
             ends, [](const Descriptor& end) { return IsKind(end, "anon_inode:[eventfd]"); }) &&
         ends.size() % 2 == 0;
}

Result<std::vector<Descriptor>> Bells::DuplicateEnds() const {
  std::vector<Descriptor> ends;
  for (const Descriptor& end : ends_) {
    Result<Descriptor> duplicate = Duplicate(end);
    if (!duplicate) return std::unexpected(duplicate.error());
    ends.push_back(*std::move(duplicate));
  }
  return ends;
}

Bells::Bells(Side side, Peer peer, Mapping pages, std::vector<Descriptor> ends)
    : side_(side), peer_(peer), pages_(std::move(pages)), ends_(std::move(ends)) {
  KMCL_CHECK(pages_.bytes() * 2 == ends_.size() * wire::kPageBytes);
  const Side other = side == Side::kServer ? Side::kClient : Side::kServer;
  for (std::uint32_t index = 0; index < ends_.size() / 2; ++index) {
    const int wait = ends_[std::size_t{2} * index].get();
    inboxes_.push_back(std::make_unique<Inbox>(wait, Flags(index, other)));
  }
}

Bells& Bells::operator=(Bells&& other) noexcept {
  std::swap(side_, other.side_);
  std::swap(peer_, other.peer_);
  std::swap(pages_, other.pages_);
  ends_.swap(other.ends_);
  inboxes_.swap(other.inboxes_);
  return *this;
}

Bells::~Bells() {
  if (peer_ == Peer::kStranger) CloseForeign(std::move(ends_));
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
  return std::make_unique<EventDoorbell>(ends_[std::size_t{2} * index + 1].get(),
                                         Flags(index, side_), std::to_underlying(channel));
}

}  // namespace kmcl::transport
