#include "transport/shm_listener.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "errno_text.h"
#include "log.h"
#include "log_limit.h"
#include "transport/address.h"
#include "transport/descriptor.h"
#include "transport/descriptor_passing.h"
#include "transport/shm_link.h"
#include "transport/transfer.h"
#include "wire/byte_stream.h"

namespace kmcl::transport {
namespace {

constexpr int kBacklog = 1024;
constexpr mode_t kSocketMode = 0600;
constexpr std::chrono::seconds kLockLimit{5};

// Names in one directory, also after the process has changed its own.
struct Place {
  Descriptor directory;
  std::string name;
};

Error FromErrno(const char* what, const std::string& path) {
  const int error = errno;
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
      Log(LogLevel::kError, "transport: %s %s: %s", what, path.c_str(), ErrnoText(error).words());
      return Error::kPermissionDenied;
    case ENOENT:
    case ENOTDIR:
      Log(LogLevel::kError, "transport: %s %s: %s", what, path.c_str(), ErrnoText(error).words());
      return Error::kAddressUnreachable;
    case EADDRINUSE:
      return Error::kAddressInUse;
    case EMFILE:
    case ENFILE:
      return Error::kOutOfDescriptors;
    case ENOMEM:
    case ENOBUFS:
      return Error::kOutOfMemory;
    default:
      Log(LogLevel::kError, "transport: %s %s: %s", what, path.c_str(), ErrnoText(error).words());
      return Error::kSystemCall;
  }
}

Result<Place> OpenPlace(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  Place place;
  place.name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (place.name.empty()) return std::unexpected(Error::kAddressMalformed);
  place.directory = Descriptor(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!place.directory) return std::unexpected(FromErrno("opening", parent));
  return place;
}

// Whoever looks at a socket file and then removes or creates one holds its directory's lock
// meanwhile: two servers that start at once cannot both find the old file stale. The lock leaves no
// file behind.
class DirectoryLock {
 public:
  explicit DirectoryLock(int directory) : directory_(directory) {
    const auto deadline = std::chrono::steady_clock::now() + kLockLimit;
    while (!(held_ = flock(directory_, LOCK_EX | LOCK_NB) == 0) &&
           (errno == EWOULDBLOCK || errno == EINTR) &&
           std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  ~DirectoryLock() {
    if (held_) flock(directory_, LOCK_UN);
  }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;
  bool held() const { return held_; }

 private:
  int directory_;
  bool held_ = false;
};

// Removes what a dead server left. Succeeds when nothing stands in the way afterwards.
Result<void> ClearStale(const Place& place, const sockaddr_un& address, const std::string& path) {
  struct stat status {};
  if (fstatat(place.directory.get(), place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return {};
    return std::unexpected(FromErrno("looking at", path));
  }
  if (!S_ISSOCK(status.st_mode)) {
    Log(LogLevel::kError, "transport: %s is not a socket; it is left alone", path.c_str());
    return std::unexpected(Error::kAddressMalformed);
  }
  const Descriptor probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return std::unexpected(FromErrno("probing", path));
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return std::unexpected(Error::kAddressInUse);
  }
  switch (errno) {
    case ECONNREFUSED:
      break;
    case ENOENT:
      return {};
    case EAGAIN:      // its backlog is full
    case EPROTOTYPE:  // a socket of another type, so another program's
      return std::unexpected(Error::kAddressInUse);
    default:
      return std::unexpected(FromErrno("probing", path));
  }
  if (unlinkat(place.directory.get(), place.name.c_str(), 0) != 0 && errno != ENOENT) {
    return std::unexpected(FromErrno("replacing", path));
  }
  Log(LogLevel::kInfo, "transport: replaced the stale socket %s", path.c_str());
  return {};
}

class ShmListener final : public Listener {
 public:
  ShmListener(Descriptor socket, Place place, struct stat file, std::string path)
      : socket_(std::move(socket)),
        place_(std::move(place)),
        file_(file),
        address_("unix:" + std::move(path)) {
    OpenReserve();
  }

  ~ShmListener() override {
    if (left_) return;
    // Without the lock the worst case is a successor's file removed in between; wait for it.
    const DirectoryLock lock(place_.directory.get());
    struct stat now {};
    // Only our own file. Its number cannot be another's: our socket still holds it.
    if (fstatat(place_.directory.get(), place_.name.c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0 &&
        now.st_dev == file_.st_dev && now.st_ino == file_.st_ino) {
      unlinkat(place_.directory.get(), place_.name.c_str(), 0);
    }
  }

  Result<Transfer> Export() const override {
    Transfer transfer;
    for (const int fd : {socket_.get(), place_.directory.get()}) {
      Descriptor duplicate(fcntl(fd, F_DUPFD_CLOEXEC, 0));
      if (!duplicate) return std::unexpected(FromErrno("duplicating", address_));
      transfer.descriptors.push_back(std::move(duplicate));
    }
    wire::ByteWriter out;
    out.PutBlock(std::as_bytes(std::span(place_.name)));
    out.PutBlock(std::as_bytes(std::span(address_)));
    transfer.bytes = out.Take();
    return transfer;
  }

  void Leave() override { left_ = true; }
  void Own() override { left_ = false; }

  int fd() const override { return socket_.get(); }
  const std::string& address() const override { return address_; }

  Result<std::unique_ptr<Link>> Accept() override {
    if (!reserve_) OpenReserve();
    // Each connection can leave some more behind. The client is not told either: with its socket we
    // would close, on this thread, what it has sent already.
    if (ForeignClosingsUnderWay() >= kMostForeignClosings && SomebodyWaits()) {
      if (const auto count = kept_waiting_.Count()) {
        Log(LogLevel::kWarning,
            "transport: too many files of clients are still being closed, a client at %s waits; "
            "%llu times by now",
            address_.c_str(), static_cast<unsigned long long>(*count));
      }
      return std::unexpected(Error::kWouldBlock);
    }
    while (true) {
      Descriptor client(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (client) return std::make_unique<ShmServerLink>(std::move(client));
      switch (errno) {
        case EINTR:
        case ECONNABORTED:
          continue;
        case EAGAIN:
          return nullptr;
        case EMFILE:
        case ENFILE:
          // The kernel says so before it looks whether anybody waits.
          if (!SomebodyWaits()) return nullptr;
          // A connection that nobody takes keeps fd() readable, and the server busy. With a
          // descriptor kept for this moment the client is told instead.
          if (!RefuseOne()) return std::unexpected(Error::kOutOfDescriptors);
          continue;
        default:
          return std::unexpected(FromErrno("accepting at", address_));
      }
    }
  }

 private:
  void OpenReserve() { reserve_ = Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

  bool SomebodyWaits() const {
    pollfd look{socket_.get(), POLLIN, 0};
    // Not 0: with a limit of no descriptors at all, poll() refuses to look.
    return poll(&look, 1, 0) != 0;
  }

  bool RefuseOne() {
    if (!reserve_) return false;
    reserve_.Reset();
    Descriptor client(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    const bool taken = static_cast<bool>(client);
    if (taken) {
      Log(LogLevel::kWarning, "transport: out of descriptors, a client at %s is refused",
          address_.c_str());
      RefuseConnection(std::move(client), "the server is out of descriptors");
    }
    OpenReserve();
    return taken;
  }

  Descriptor socket_;
  Place place_;
  struct stat file_;
  std::string address_;
  Descriptor reserve_;
  LogLimit kept_waiting_;
  bool left_ = false;
};

}  // namespace

Result<std::unique_ptr<Listener>> ImportListener(Transfer transfer) {
  wire::ByteReader in(transfer.bytes);
  const auto text = [&] {
    const auto bytes = in.GetBlock();
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  Place place;
  place.name = text();
  std::string path = text();
  constexpr std::string_view kScheme = "unix:";
  if (!in.AtEnd() || transfer.descriptors.size() != 2 || !path.starts_with(kScheme) ||
      place.name.empty() || place.name.contains('/')) {
    return std::unexpected(Error::kSaveMalformed);
  }
  path.erase(0, kScheme.size());
  Descriptor socket = std::move(transfer.descriptors[0]);
  place.directory = std::move(transfer.descriptors[1]);
  int listens = 0;
  socklen_t bytes = sizeof listens;
  struct stat file {};
  if (getsockopt(socket.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || listens == 0 ||
      fstatat(place.directory.get(), place.name.c_str(), &file, AT_SYMLINK_NOFOLLOW) != 0) {
    return std::unexpected(Error::kSaveMalformed);
  }
  return std::make_unique<ShmListener>(std::move(socket), std::move(place), file, std::move(path));
}

Result<std::unique_ptr<Listener>> ListenShm(const std::string& path) {
  const Result<sockaddr_un> address = UnixAddress(path);
  if (!address) return std::unexpected(address.error());
  Result<Place> place = OpenPlace(path);
  if (!place) return std::unexpected(place.error());

  Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return std::unexpected(FromErrno("socket", path));
  // bind() gives the file the mode of the socket, so there is no moment with a wider one. The
  // umask, which belongs to the whole process, stays as it is.
  if (fchmod(socket.get(), kSocketMode) != 0) return std::unexpected(FromErrno("fchmod", path));

  const DirectoryLock lock(place->directory.get());
  if (!lock.held()) {
    Log(LogLevel::kError, "transport: the directory of %s stays locked", path.c_str());
    return std::unexpected(Error::kAddressInUse);
  }
  const Result<void> cleared = ClearStale(*place, *address, path);
  if (!cleared) return std::unexpected(cleared.error());
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return std::unexpected(FromErrno("binding", path));
  }
  struct stat file {};
  if (fstatat(place->directory.get(), place->name.c_str(), &file, AT_SYMLINK_NOFOLLOW) != 0 ||
      listen(socket.get(), kBacklog) != 0) {
    const Error error = FromErrno("listening at", path);
    unlinkat(place->directory.get(), place->name.c_str(), 0);
    return std::unexpected(error);
  }
  return std::make_unique<ShmListener>(std::move(socket), *std::move(place), file, path);
}

}  // namespace kmcl::transport
