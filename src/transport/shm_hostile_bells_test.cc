// A client that turns the bells it was given against its server: everything the kernel lets it do
// with an epoll and an eventfd.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <future>

#include "transport/address.h"
#include "transport/descriptor_passing.h"
#include "transport/handshake.h"
#include "transport/nonpaged_pool.h"
#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

constexpr wire::ChannelId kChannel{77};

// Whether `act` ends in good time. If not the process ends, since nothing can stop a blocked
// thread.
template <typename Act>
void ExpectPrompt(const char* what, Act act) {
  std::future<void> done = std::async(std::launch::async, act);
  if (done.wait_for(std::chrono::milliseconds(kPatienceMs)) == std::future_status::ready) return;
  ADD_FAILURE() << what << " was held up";
  std::abort();
}

class ShmHostileBellsTest : public ::testing::Test {
 protected:
  ShmHostileBellsTest() : listener(*Listen("unix:" + directory_.Path("bus"))) {
    EXPECT_TRUE(DuplicateNonPagedPool());  // once made, it stays
    descriptors_before_ = OpenDescriptorCount();
    memory = Descriptor(memfd_create("kmcl-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(ftruncate(memory.get(), 4096), 0);
    EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    page = static_cast<std::byte*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0));

    socket = Descriptor(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const sockaddr_un address = *UnixAddress(directory_.Path("bus"));
    EXPECT_EQ(connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
    server = AcceptNext(*listener);
    const Hello hello;
    std::vector<Descriptor> donated;  // the same memory as pool
    for (int index = 0; index < 2; ++index) donated.emplace_back(dup(memory.get()));
    EXPECT_TRUE(SendDatagram(socket.get(), std::as_bytes(std::span(&hello, 1)), donated));
    EXPECT_TRUE(ShakeHands(*server));
    std::byte welcome[sizeof(Welcome)];
    ReceivedDatagram received = ReceiveDatagram(socket.get(), welcome, 32);
    EXPECT_EQ(received.descriptors.size(), 2U);
    if (received.descriptors.size() != 2) std::abort();
    wait = std::move(received.descriptors[0]);
    ring = std::move(received.descriptors[1]);
    doorbell = server->MakeDoorbell(kChannel, 0);
  }

  ~ShmHostileBellsTest() override {
    doorbell.reset();
    server.reset();
    munmap(page, 4096);
    for (Descriptor* descriptor : {&memory, &socket, &wait, &ring}) descriptor->Reset();
    EXPECT_EQ(OpenDescriptorCount(), descriptors_before_);
  }

  // As the client would: what the server has set.
  void ClearFlags() const {
    std::atomic_ref(reinterpret_cast<std::uint64_t*>(page)[1]).store(0, std::memory_order_relaxed);
  }

  void ExpectPromptBells(int count) const {
    ExpectPrompt("Ring", [&] {
      for (int bell = 0; bell < count; ++bell) {
        doorbell->Ring();
        ClearFlags();
      }
    });
  }

  void ExpectOtherLinksWork() const {
    ExpectPrompt("another link", [&] {
      const Connection other = Connect(*listener);
      BellWatch client(other.client->inbox(0));
      BellWatch server_watch(other.server->inbox(0));
      other.server->MakeDoorbell(kChannel, 0)->Ring();
      EXPECT_TRUE(client.Next());
      EXPECT_NE(other.client->inbox(0).Collect(), ChannelSet{});
      other.client->MakeDoorbell(kChannel, 0)->Ring();
      EXPECT_TRUE(server_watch.Next());
      EXPECT_NE(other.server->inbox(0).Collect(), ChannelSet{});
    });
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Listener> listener;
  std::size_t descriptors_before_ = 0;
  Descriptor memory;
  std::byte* page = nullptr;
  Descriptor socket;
  Descriptor wait;  // an epoll
  Descriptor ring;  // an eventfd
  std::unique_ptr<Link> server;
  std::unique_ptr<Doorbell> doorbell;
};

TEST_F(ShmHostileBellsTest, FlagsAndCountersOfTheClientHoldUpNobody) {
  // What it may wait on can be neither read nor written.
  std::uint64_t count = 1;
  ASSERT_EQ(read(wait.get(), &count, sizeof count), -1);
  ASSERT_EQ(errno, EINVAL);
  ASSERT_EQ(write(wait.get(), &count, sizeof count), -1);
  ASSERT_EQ(errno, EINVAL);

  for (const int fd : {wait.get(), ring.get(), socket.get(), memory.get()}) {
    EXPECT_EQ(fcntl(fd, F_SETFL, 0), 0);
  }
  // The counter of what it may write is full, so that a write would wait.
  ASSERT_EQ(eventfd_write(ring.get(), 0xFFFFFFFFFFFFFFFE), 0);
  EXPECT_FALSE(WaitFor(ring.get(), POLLOUT, 0));

  BellWatch inbox(server->inbox(0));
  EXPECT_TRUE(inbox.Next(0));
  ExpectPromptBells(100000);
  ExpectPrompt("Collect", [&] { EXPECT_EQ(server->inbox(0).Collect(), ChannelSet{}); });
  ExpectOtherLinksWork();

  // Emptied, so that a read would wait.
  ASSERT_EQ(eventfd_read(ring.get(), &count), 0);
  ExpectPrompt("Collect", [&] { EXPECT_EQ(server->inbox(0).Collect(), ChannelSet{}); });
  ExpectPromptBells(1000);
}

// What a process that holds only the client's descriptors finds; 0 is nothing.
int LookForTheServersEventfd(int wait, int ring, pid_t server) {
  const int kept_wait = fcntl(wait, F_DUPFD, 1000);
  const int kept_ring = fcntl(ring, F_DUPFD, 1001);
  const std::string directory = "/proc/" + std::to_string(server) + "/fd";
  close_range(3, 999, 0);
  // An entry of an epoll is found by number and file. Offer the only eventfd it has as any number.
  for (int fd = 3; fd < 1000; ++fd) {
    if (dup2(kept_ring, fd) != fd) return 1;
    epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
    if (epoll_ctl(kept_wait, EPOLL_CTL_MOD, fd, &event) == 0 || errno != ENOENT) return 2;
    if (epoll_ctl(kept_wait, EPOLL_CTL_DEL, fd, nullptr) == 0 || errno != ENOENT) return 3;
  }
  close_range(3, 999, 0);
  // The server's table can be seen by its user, but an eventfd cannot be opened there.
  int eventfds = 0;
  for (int fd = 3; fd < 1000; ++fd) {
    const std::string name = directory + "/" + std::to_string(fd);
    char target[64] = {};
    if (readlink(name.c_str(), target, sizeof target - 1) < 0) continue;
    if (std::strcmp(target, "anon_inode:[eventfd]") != 0) continue;
    ++eventfds;
    if (open(name.c_str(), O_RDWR) >= 0 || errno != ENXIO) return 4;
  }
  return eventfds >= 2 ? 0 : 5;
}

TEST_F(ShmHostileBellsTest, TheServersEventfdCannotBeHadFromTheEpoll) {
  BellWatch watch(wait.get());
  const pid_t self = getpid();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(LookForTheServersEventfd(wait.get(), ring.get(), self));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  doorbell->Ring();
  EXPECT_TRUE(watch.Next(0));
}

TEST_F(ShmHostileBellsTest, EpollsOfTheClientAroundTheServersAreLimited) {
  std::vector<Descriptor> epolls;
  int error = 0;
  while (error == 0 && epolls.size() < 2000) {
    Descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    ASSERT_TRUE(epoll);
    epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = 0}};
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wait.get(), &event) != 0) error = errno;
    epolls.push_back(std::move(epoll));
  }
  EXPECT_EQ(error, EINVAL) << "after " << epolls.size();
  ExpectPromptBells(1000);
  ExpectOtherLinksWork();
}

// Holds the lock of an epoll: epoll_wait holds it while it stores an event, and storing waits for a
// page that does not come.
class EpollHostage {
 public:
  EpollHostage() : faults_(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))) {}

  bool possible() const { return static_cast<bool>(faults_); }

  // `epoll` has something to report.
  void Take(int epoll) {
    uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
    ASSERT_EQ(ioctl(faults_.get(), UFFDIO_API, &api), 0);
    page_ = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uffdio_register range{.range = Range(), .mode = UFFDIO_REGISTER_MODE_MISSING, .ioctls = 0};
    ASSERT_EQ(ioctl(faults_.get(), UFFDIO_REGISTER, &range), 0);
    // By number: a sanitizer would touch the page in our name.
    thread_ = std::thread(
        [=, this] { syscall(SYS_epoll_pwait, epoll, page_, 1, -1, nullptr, std::size_t{8}); });
    ASSERT_TRUE(WaitFor(faults_.get()));
  }

  void Release() {
    uffdio_zeropage zero{.range = Range(), .mode = 0, .zeropage = 0};
    ASSERT_EQ(ioctl(faults_.get(), UFFDIO_ZEROPAGE, &zero), 0);
    thread_.join();
    munmap(page_, 4096);
    faults_.Reset();
  }

 private:
  uffdio_range Range() const {
    return {.start = reinterpret_cast<std::uint64_t>(page_), .len = 4096};
  }

  Descriptor faults_;
  void* page_ = nullptr;
  std::thread thread_;
};

TEST_F(ShmHostileBellsTest, AnEpollWhoseLockIsHeldStopsNeitherBellsNorTheEndOfTheLink) {
  EpollHostage hostage;
  if (!hostage.possible()) GTEST_SKIP() << "userfaultfd: " << std::strerror(errno);
  doorbell->Ring();
  ClearFlags();
  hostage.Take(wait.get());
  ExpectPromptBells(100000);
  ExpectOtherLinksWork();
  EXPECT_TRUE(AwaitClosings());
  doorbell.reset();
  ExpectPrompt("the end of the link", [&] { server.reset(); });
  // The eventfd that the epoll watches is being closed, and that takes as long as the client likes:
  // it is what the thread is for.
  ExpectOtherLinksWork();
  EXPECT_TRUE(AwaitClosings(1));
  hostage.Release();
}

TEST_F(ShmHostileBellsTest, AnEventfdThatIsOnlyInAHeldEpollDoesNotStopTheEndOfTheLink) {
  EpollHostage hostage;
  if (!hostage.possible()) GTEST_SKIP() << "userfaultfd: " << std::strerror(errno);
  ASSERT_EQ(eventfd_write(ring.get(), 1), 0);
  {
    const BellWatch around(ring.get());
    ring.Reset();  // the server's is the last
    hostage.Take(around.epoll());
    doorbell.reset();
    ExpectPrompt("the end of the link", [&] { server.reset(); });
    ExpectOtherLinksWork();
    EXPECT_TRUE(AwaitClosings(1));
    hostage.Release();
  }
}

}  // namespace
}  // namespace kmcl::transport
