// The system's calls that the library makes of descriptors: ours when the descriptor is, the real
// ones otherwise. They stand in the program, and so come before those of the C library.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "corruption.h"
#include "faults.h"
#include "kernel.h"
#include "scheduler.h"

using namespace kmcl::sim;

namespace {

template <typename Function>
Function* Real(const char* name, Function*) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
#define KMCL_REAL(name) \
  static const auto real = Real(#name, static_cast<decltype(::name)*>(nullptr))

int Result(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

// A call of ours begins: others may come between, and what was stored before it is seen.
class Call {
 public:
  Call() {
    FlushStores();
    Step();
  }

 private:
  // What the simulated system keeps is not the library's memory.
  InTest not_counted_;
};

std::int64_t Deadline(std::int64_t timeout_ns) {
  return timeout_ns < 0 ? kNever : NowNs() + timeout_ns;
}

int Poll(pollfd* descriptors, nfds_t count, std::int64_t timeout_ns) {
  const auto look = [&] {
    int ready = 0;
    for (nfds_t i = 0; i < count; ++i) {
      descriptors[i].revents = 0;
      const FilePointer file = FileOf(descriptors[i].fd);
      if (file == nullptr) continue;
      const std::uint32_t wanted =
          static_cast<std::uint32_t>(descriptors[i].events) | EPOLLHUP | EPOLLERR;
      descriptors[i].revents = static_cast<short>(file->Readiness() & wanted);
      if (descriptors[i].revents != 0) ++ready;
    }
    return ready;
  };
  WaitUntil([&] { return look() != 0; }, Deadline(timeout_ns), "poll");
  return look();
}

std::string NameOf(const sockaddr* address) {
  return reinterpret_cast<const sockaddr_un*>(address)->sun_path;
}

}  // namespace

extern "C" {

// ---- Events.

int eventfd(unsigned count, int flags) noexcept {
  const Call call;
  auto event = std::make_shared<EventFile>(count);
  event->nonblocking = (flags & EFD_NONBLOCK) != 0;
  InLibrary counted;
  return Install(std::move(event));
}

int eventfd_write(int fd, eventfd_t count) {
  const Call call;
  const auto event = FileAs<EventFile>(fd);
  if (event == nullptr) return Result(EBADF);
  Note("rings event %llu", static_cast<std::uint64_t>(fd - kFirstDescriptor));
  event->Add(count);
  return 0;
}

int eventfd_read(int fd, eventfd_t* count) {
  const Call call;
  const auto event = FileAs<EventFile>(fd);
  if (event == nullptr) return Result(EBADF);
  if (!event->nonblocking) {
    WaitUntil([&] { return (event->Readiness() & EPOLLIN) != 0; }, kNever, "an event");
  }
  *count = event->Take();
  return *count != 0 ? 0 : Result(EAGAIN);
}

ssize_t write(int fd, const void* bytes, size_t count) {
  if (fd < kFirstDescriptor) {
    KMCL_REAL(write);
    return real(fd, bytes, count);
  }
  std::uint64_t value = 0;
  if (count != sizeof value) return Result(EINVAL);
  std::memcpy(&value, bytes, sizeof value);
  return eventfd_write(fd, value) == 0 ? static_cast<ssize_t>(sizeof value) : -1;
}

ssize_t read(int fd, void* bytes, size_t count) {
  if (fd < kFirstDescriptor) {
    KMCL_REAL(read);
    return real(fd, bytes, count);
  }
  std::uint64_t value = 0;
  if (count != sizeof value) return Result(EINVAL);
  if (eventfd_read(fd, &value) != 0) return -1;
  std::memcpy(bytes, &value, sizeof value);
  return sizeof value;
}

int epoll_create1(int) noexcept {
  const Call call;
  auto epoll = std::make_shared<EpollFile>();
  InLibrary counted;
  return Install(std::move(epoll));
}

int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event* event) noexcept {
  const Call call;
  const auto epoll = FileAs<EpollFile>(epoll_fd);
  const FilePointer file = FileOf(fd);
  if (epoll == nullptr || file == nullptr) return Result(EBADF);
  switch (operation) {
    case EPOLL_CTL_ADD:
      return Result(epoll->Add(fd, file, event->events, event->data.u64));
    case EPOLL_CTL_MOD:
      return Result(epoll->Modify(fd, event->events, event->data.u64));
    default:
      return Result(epoll->Remove(fd, *file));
  }
}

int epoll_wait(int fd, epoll_event* events, int most, int timeout_ms) {
  const Call call;
  const auto epoll = FileAs<EpollFile>(fd);
  if (epoll == nullptr) return Result(EBADF);
  if (timeout_ms != 0) {
    WaitUntil([&] { return epoll->Readiness() != 0; },
              Deadline(timeout_ms < 0 ? -1 : std::int64_t{timeout_ms} * 1'000'000), "epoll");
  }
  EpollFile::Event taken[64];
  const std::size_t count =
      epoll->Take(std::span(taken).first(static_cast<std::size_t>(std::min(most, 64))));
  if (count != 0) Note("wakes up to %llu events, %llu first", count, taken[0].data);
  for (std::size_t i = 0; i < count; ++i) {
    events[i].events = taken[i].events;
    events[i].data.u64 = taken[i].data;
  }
  return static_cast<int>(count);
}

int poll(pollfd* descriptors, nfds_t count, int timeout_ms) {
  const Call call;
  return Poll(descriptors, count, timeout_ms < 0 ? -1 : std::int64_t{timeout_ms} * 1'000'000);
}

int ppoll(pollfd* descriptors, nfds_t count, const timespec* timeout, const sigset_t*) {
  const Call call;
  return Poll(descriptors, count,
              timeout == nullptr ? -1 : timeout->tv_sec * 1'000'000'000 + timeout->tv_nsec);
}

// ---- Descriptors.

int close(int fd) {
  if (fd < kFirstDescriptor) {
    KMCL_REAL(close);
    return real(fd);
  }
  const Call call;
  if (!CloseDescriptor(fd)) Fail("a descriptor is closed that is not open: %d", fd);
  return 0;
}

int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  const long argument = va_arg(arguments, long);
  va_end(arguments);
  const FilePointer file = FileOf(fd);
  if (file == nullptr) {
    KMCL_REAL(fcntl);
    return real(fd, command, argument);
  }
  const Call call;
  if (command == F_DUPFD_CLOEXEC) {
    InLibrary counted;
    return Install(file);
  }
  const auto memory = std::dynamic_pointer_cast<MemoryFile>(file);
  if (memory == nullptr) return command == F_GETFL ? O_RDWR : Result(EINVAL);
  KMCL_REAL(fcntl);
  return real(memory->fd(), command, argument);
}

ssize_t readlink(const char* path, char* target, size_t bytes) noexcept {
  constexpr std::string_view kPrefix = "/proc/self/fd/";
  if (!std::string_view(path).starts_with(kPrefix)) Fail("a link that is not simulated: %s", path);
  const Call call;
  const FilePointer file = FileOf(std::atoi(path + kPrefix.size()));
  if (file == nullptr) return Result(ENOENT);
  const std::string_view kind = file->kind();
  const std::size_t length = std::min(bytes, kind.size());
  std::memcpy(target, kind.data(), length);
  return static_cast<ssize_t>(length);
}

int open(const char* path, int flags, ...) {
  if (FiberOf(0) == nullptr || !Current().in_library) {
    va_list arguments;
    va_start(arguments, flags);
    const int mode = va_arg(arguments, int);
    va_end(arguments);
    KMCL_REAL(open);
    return real(path, flags, mode);
  }
  const Call call;
  auto file = std::make_shared<PlainFile>(path);
  InLibrary counted;
  return Install(std::move(file));
}

// ---- Memory.

int memfd_create(const char* name, unsigned flags) noexcept {
  if (FaultNow(FaultKind::kDescriptor)) return Result(EMFILE);
  const Call call;
  KMCL_REAL(memfd_create);
  const int fd = real(name, flags);
  if (fd < 0) return -1;
  return Install(std::make_shared<MemoryFile>(fd));
}

int ftruncate(int fd, off_t bytes) noexcept {
  const auto memory = FileAs<MemoryFile>(fd);
  if (memory == nullptr) return Result(EBADF);
  if (FaultNow(FaultKind::kMapping)) return Result(ENOSPC);
  const Call call;
  KMCL_REAL(ftruncate);
  return real(memory->fd(), bytes);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  const auto memory = FileAs<MemoryFile>(fd);
  if (memory == nullptr) return Result(EBADF);
  const Call call;
  KMCL_REAL(fallocate);
  return real(memory->fd(), mode, offset, bytes);
}

int fstat(int fd, struct stat* status) noexcept {
  const auto memory = FileAs<MemoryFile>(fd);
  KMCL_REAL(fstat);
  return real(memory == nullptr ? fd : memory->fd(), status);
}

int fstatfs(int fd, struct statfs* status) noexcept {
  const auto memory = FileAs<MemoryFile>(fd);
  KMCL_REAL(fstatfs);
  return real(memory == nullptr ? fd : memory->fd(), status);
}

void* mmap(void* place, size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
  KMCL_REAL(mmap);
  if (FiberOf(0) == nullptr || !Current().in_library) {
    return real(place, bytes, protection, flags, fd, offset);
  }
  if (FaultNow(FaultKind::kMapping)) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  const Call call;
  const auto memory = FileAs<MemoryFile>(fd);
  void* const mapped =
      real(place, bytes, protection, flags, memory == nullptr ? fd : memory->fd(), offset);
  if (mapped != MAP_FAILED) OnMap(mapped, bytes, Current().process);
  return mapped;
}

int munmap(void* place, size_t bytes) noexcept {
  KMCL_REAL(munmap);
  if (FiberOf(0) != nullptr && Current().in_library) {
    const Call call;
    OnUnmap(place, bytes);
    return real(place, bytes);
  }
  return real(place, bytes);
}

// ---- Sockets.

int socketpair(int, int, int, int sockets[2]) noexcept {
  const Call call;
  auto a = std::make_shared<SocketFile>();
  auto b = std::make_shared<SocketFile>();
  a->nonblocking = b->nonblocking = true;
  SocketFile::Connect(a, b);
  InLibrary counted;
  sockets[0] = Install(std::move(a));
  if (sockets[0] < 0) return -1;
  sockets[1] = Install(std::move(b));
  if (sockets[1] >= 0) return 0;
  CloseDescriptor(sockets[0]);
  return Result(EMFILE);
}

int socket(int, int type, int) noexcept {
  const Call call;
  auto made = std::make_shared<SocketFile>();
  made->nonblocking = (type & SOCK_NONBLOCK) != 0;
  InLibrary counted;
  return Install(std::move(made));
}

int bind(int fd, const sockaddr* address, socklen_t) noexcept {
  const Call call;
  return Result(Bind(NameOf(address), FileAs<SocketFile>(fd)));
}

int listen(int fd, int) noexcept {
  const Call call;
  FileAs<SocketFile>(fd)->listening = true;
  return 0;
}

int connect(int fd, const sockaddr* address, socklen_t) {
  const Call call;
  return Result(ConnectTo(NameOf(address), FileAs<SocketFile>(fd)));
}

int accept4(int fd, sockaddr*, socklen_t*, int flags) {
  const Call call;
  const auto listener = FileAs<SocketFile>(fd);
  if (listener->waiting.empty()) return Result(EAGAIN);
  {
    const InLibrary counted;
    if (FaultNow(FaultKind::kDescriptor)) return Result(EMFILE);
  }
  auto accepted = std::move(listener->waiting.front());
  listener->waiting.pop_front();
  accepted->nonblocking = (flags & SOCK_NONBLOCK) != 0;
  return Install(std::move(accepted));
}

int getsockopt(int fd, int, int option, void* value, socklen_t* bytes) noexcept {
  const auto file = FileAs<SocketFile>(fd);
  if (file == nullptr) return Result(EBADF);
  if (option == SO_PEERCRED) {
    const ucred peer{
        .pid = static_cast<pid_t>(1000 + file->peer_process), .uid = geteuid(), .gid = getegid()};
    std::memcpy(value, &peer, std::min<std::size_t>(*bytes, sizeof peer));
    return 0;
  }
  if (option == SO_TYPE) {
    *static_cast<int*>(value) = SOCK_SEQPACKET;
    return 0;
  }
  if (option == SO_ACCEPTCONN) {
    *static_cast<int*>(value) = file->listening ? 1 : 0;
    return 0;
  }
  Fail("a socket option that is not simulated: %d", option);
}

int setsockopt(int fd, int, int option, const void*, socklen_t) noexcept {
  const auto file = FileAs<SocketFile>(fd);
  if (file == nullptr) return Result(EBADF);
  constexpr int kPassRights = 83;
  if (option == kPassRights) file->takes_descriptors = false;
  return 0;
}

int shutdown(int fd, int) noexcept {
  const Call call;
  const auto file = FileAs<SocketFile>(fd);
  if (file == nullptr) return Result(EBADF);
  file->Shutdown();
  return 0;
}

ssize_t sendmsg(int fd, const msghdr* header, int) {
  const Call call;
  const auto file = FileAs<SocketFile>(fd);
  if (file == nullptr) return Result(EBADF);
  SocketFile::Message message;
  const auto* const bytes = static_cast<const std::byte*>(header->msg_iov->iov_base);
  message.bytes.assign(bytes, bytes + header->msg_iov->iov_len);
  for (const cmsghdr* part = CMSG_FIRSTHDR(header); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(header), const_cast<cmsghdr*>(part))) {
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int passed = -1;
      std::memcpy(&passed, CMSG_DATA(part) + i * sizeof(int), sizeof passed);
      message.files.push_back(FileOf(passed));
    }
  }
  const ssize_t sent = static_cast<ssize_t>(message.bytes.size());
  // Not the hello: what comes with it has its own tests.
  if (!message.files.empty()) {
    const int error = file->Send(std::move(message));
    return error == 0 ? sent : Result(error);
  }
  for (auto& forged : Forged(Current().process, message.bytes)) {
    SocketFile::Message each;
    each.bytes = std::move(forged);
    if (const int error = file->Send(std::move(each)); error != 0) return Result(error);
  }
  return sent;
}

ssize_t recvmsg(int fd, msghdr* header, int) {
  const Call call;
  const auto file = FileAs<SocketFile>(fd);
  if (file == nullptr) return Result(EBADF);
  SocketFile::Message message;
  const int error = file->Receive(message);
  if (error != 0) return Result(error);
  const std::size_t room = header->msg_iov->iov_len;
  const std::size_t bytes = std::min(room, message.bytes.size());
  if (bytes != 0) std::memcpy(header->msg_iov->iov_base, message.bytes.data(), bytes);
  header->msg_flags = message.bytes.size() > room ? MSG_TRUNC : 0;
  std::size_t passed = 0;
  const std::size_t fitting = header->msg_control == nullptr || header->msg_controllen < CMSG_LEN(0)
                                  ? 0
                                  : (header->msg_controllen - CMSG_LEN(0)) / sizeof(int);
  auto* const part = static_cast<cmsghdr*>(header->msg_control);
  while (passed < message.files.size() && passed < fitting) {
    InLibrary counted;
    const int installed = Install(message.files[passed]);
    if (installed < 0) break;  // the table is full: the rest is dropped
    std::memcpy(CMSG_DATA(part) + passed * sizeof(int), &installed, sizeof installed);
    ++passed;
  }
  if (passed < message.files.size()) header->msg_flags |= MSG_CTRUNC;
  header->msg_controllen = passed == 0 ? 0 : CMSG_LEN(passed * sizeof(int));
  if (passed != 0) {
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = header->msg_controllen;
  }
  return static_cast<ssize_t>(bytes);
}

// ---- The file system: a directory, and sockets in it.

int fchmod(int, mode_t) noexcept { return 0; }
int flock(int, int) noexcept { return 0; }

int fstatat(int directory, const char* name, struct stat* status, int) noexcept {
  const Call call;
  const auto place = FileAs<PlainFile>(directory);
  if (place == nullptr) return Result(EBADF);
  const std::uint64_t number = FileNumber(place->path + name);
  if (number == 0) return Result(ENOENT);
  std::memset(status, 0, sizeof *status);
  status->st_mode = S_IFSOCK | 0600;
  status->st_ino = number;
  return 0;
}

int unlinkat(int directory, const char* name, int) noexcept {
  const Call call;
  const auto place = FileAs<PlainFile>(directory);
  if (place == nullptr) return Result(EBADF);
  return Result(Unlink(place->path + name) ? 0 : ENOENT);
}

}  // extern "C"
