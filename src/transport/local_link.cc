#include "transport/local_link.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <list>
#include <map>
#include <utility>

#include "errno_text.h"
#include "log.h"
#include "mutex.h"
#include "transport/basic_link.h"

namespace kmcl::transport {
namespace {

// As many as the shm transport's backlog.
constexpr std::size_t kMaximumWaiting = 1024;

Error FromErrno(const char* what) {
  const int error = errno;
  if (error == EMFILE || error == ENFILE) return Error::kOutOfDescriptors;
  Log(LogLevel::kError, "transport: %s: %s", what, ErrnoText(error).words());
  return Error::kSystemCall;
}

// Server ends that wait to be accepted. Shared by a listener and the threads that dial it.
class WaitingRoom {
 public:
  explicit WaitingRoom(Descriptor bell) : bell_(std::move(bell)) {}

  // False when the listener has gone, or too many wait.
  bool Enter(std::unique_ptr<Link> link) KMCL_EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (closed_ || waiting_.size() >= kMaximumWaiting) return false;
      waiting_.push_back(std::move(link));
    }
    eventfd_write(bell_.get(), 1);
    return true;
  }

  std::unique_ptr<Link> Next() KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (waiting_.empty()) return nullptr;
    std::unique_ptr<Link> link = std::move(waiting_.front());
    waiting_.pop_front();
    return link;
  }

  // Makes fd() quiet; call before Next says that nobody waits.
  void ClearBell() {
    eventfd_t count = 0;
    (void)eventfd_read(bell_.get(), &count);
  }

  void Close() KMCL_EXCLUDES(mutex_) {
    std::list<std::unique_ptr<Link>> left;
    {
      MutexLock lock(mutex_);
      closed_ = true;
      left.swap(waiting_);
    }
  }

  int fd() const { return bell_.get(); }

 private:
  const Descriptor bell_;  // non-blocking eventfd; both its users are ours
  Mutex mutex_;
  bool closed_ KMCL_GUARDED_BY(mutex_) = false;
  // Not a deque, which takes memory also when it is empty: there may be none when a server goes.
  std::list<std::unique_ptr<Link>> waiting_ KMCL_GUARDED_BY(mutex_);
};

struct Registry {
  Mutex mutex;
  std::map<std::string, std::shared_ptr<WaitingRoom>> rooms KMCL_GUARDED_BY(mutex);
};

// Never destroyed: endpoints may end after main.
Registry& TheRegistry() {
  static Registry* registry = new Registry;
  return *registry;
}

class LocalListener final : public Listener {
 public:
  LocalListener(std::string name, std::shared_ptr<WaitingRoom> room)
      : name_(std::move(name)), address_("local:" + name_), room_(std::move(room)) {}

  ~LocalListener() override {
    if (is_registered_) {
      Registry& registry = TheRegistry();
      MutexLock lock(registry.mutex);
      registry.rooms.erase(name_);
    }
    room_->Close();
  }

  // False: the name is taken.
  bool Register() {
    Registry& registry = TheRegistry();
    MutexLock lock(registry.mutex);
    is_registered_ = registry.rooms.emplace(name_, room_).second;
    return is_registered_;
  }

  int fd() const override { return room_->fd(); }
  const std::string& address() const override { return address_; }

  Result<std::unique_ptr<Link>> Accept() override {
    std::unique_ptr<Link> link = room_->Next();
    if (link == nullptr) {
      room_->ClearBell();
      link = room_->Next();  // one that entered before the bell was cleared
      // Others may have entered with it, and their bell is gone.
      if (link != nullptr) eventfd_write(room_->fd(), 1);
    }
    return link;
  }

 private:
  std::string name_;
  std::string address_;
  std::shared_ptr<WaitingRoom> room_;
  bool is_registered_ = false;
};

}  // namespace

Result<std::unique_ptr<Listener>> ListenLocal(const std::string& name) {
  Descriptor bell(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell) return std::unexpected(FromErrno("eventfd"));
  // First the listener, and then its name: without memory for it nobody would give that back.
  auto listener =
      std::make_unique<LocalListener>(name, std::make_shared<WaitingRoom>(std::move(bell)));
  if (!listener->Register()) return std::unexpected(Error::kAddressInUse);
  return listener;
}

Result<std::unique_ptr<ClientLink>> DialLocal(const std::string& name, const DialOptions& options) {
  std::shared_ptr<WaitingRoom> room;
  {
    Registry& registry = TheRegistry();
    MutexLock lock(registry.mutex);
    const auto found = registry.rooms.find(name);
    if (found == registry.rooms.end()) return std::unexpected(Error::kAddressUnreachable);
    room = found->second;
  }

  int sockets[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) != 0) {
    return std::unexpected(FromErrno("socketpair"));
  }
  // Both have an owner before anything else may fail.
  Descriptor client_end(sockets[0]);
  Descriptor server_end(sockets[1]);
  MessageSocket client_socket(std::move(client_end), kMaximumUnsentOfClient);
  MessageSocket server_socket(std::move(server_end));

  Result<PartitionMemory> memory =
      PartitionMemory::Create(options.bell_count, options.maximum_memory_bytes);
  if (!memory) return std::unexpected(memory.error());
  Result<PartitionMemory::Descriptors> duplicate = memory->Duplicate();
  if (!duplicate) return std::unexpected(duplicate.error());
  Result<PartitionMemory> adopted =
      PartitionMemory::Adopt(*std::move(duplicate), options.bell_count);
  if (!adopted) return std::unexpected(adopted.error());

  Result<Mapping> client_pages = MapBellPages(*memory, options.bell_count);
  if (!client_pages) return std::unexpected(client_pages.error());
  Result<Mapping> server_pages = MapBellPages(*adopted, options.bell_count);
  if (!server_pages) return std::unexpected(server_pages.error());
  Result<Bells::Ends> bells = Bells::MakeEnds(options.bell_count, Peer::kTrusted);
  if (!bells) return std::unexpected(bells.error());

  auto server = std::make_unique<ReadyServerLink>(
      std::move(server_socket), *std::move(adopted),
      Bells(Side::kServer, Peer::kTrusted, *std::move(server_pages), std::move(bells->server)));
  if (!room->Enter(std::move(server))) return std::unexpected(Error::kAddressUnreachable);
  return std::make_unique<ReadyClientLink>(
      std::move(client_socket), *std::move(memory),
      Bells(Side::kClient, Peer::kTrusted, *std::move(client_pages), std::move(bells->client)));
}

}  // namespace kmcl::transport
