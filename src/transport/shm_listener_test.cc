#include "transport/shm_listener.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "transport/address.h"
#include "transport/descriptor.h"
#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

Error ListenError(const std::string& path) {
  const Result<std::unique_ptr<Listener>> listener = ListenShm(path);
  return listener ? Error::kNoBus : listener.error();
}

Descriptor Bind(const std::string& path, int type) {
  Descriptor bound(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  const Result<sockaddr_un> address = UnixAddress(path);
  EXPECT_EQ(bind(bound.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address), 0);
  return bound;
}

TEST(ShmListenerTest, TheSocketIsForItsOwnerOnlyWhateverTheUmask) {
  const TemporaryDirectory directory;
  const mode_t old = umask(0);
  const Result<std::unique_ptr<Listener>> listener = ListenShm(directory.Path("bus"));
  umask(old);
  ASSERT_TRUE(listener.has_value());
  struct stat status {};
  ASSERT_EQ(stat(directory.Path("bus").c_str(), &status), 0);
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(status.st_mode & 07777, 0600U);
}

TEST(ShmListenerTest, AStaleSocketIsReplaced) {
  const TemporaryDirectory directory;
  { const Descriptor dead = Bind(directory.Path("bus"), SOCK_SEQPACKET); }
  const Result<std::unique_ptr<Listener>> listener = ListenShm(directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  const Connection c = Connect(**listener);
  EXPECT_TRUE(c.client->Send(Bytes("hello")).has_value());
}

TEST(ShmListenerTest, ALiveSocketOfAnyKindIsLeftAlone) {
  for (const int type : {SOCK_SEQPACKET, SOCK_STREAM, SOCK_DGRAM}) {
    const TemporaryDirectory directory;
    const Descriptor live = Bind(directory.Path("bus"), type);
    if (type != SOCK_DGRAM) {
      ASSERT_EQ(listen(live.get(), 1), 0);
    }
    EXPECT_EQ(ListenError(directory.Path("bus")), Error::kAddressInUse);
    EXPECT_EQ(access(directory.Path("bus").c_str(), F_OK), 0);
  }
}

TEST(ShmListenerTest, AFileThatIsNoSocketIsLeftAlone) {
  const TemporaryDirectory directory;
  { std::ofstream(directory.Path("bus")) << "precious"; }
  EXPECT_EQ(ListenError(directory.Path("bus")), Error::kAddressMalformed);
  std::ifstream file(directory.Path("bus"));
  std::string content;
  file >> content;
  EXPECT_EQ(content, "precious");
}

TEST(ShmListenerTest, ASymbolicLinkIsNotFollowed) {
  const TemporaryDirectory directory;
  { const Descriptor dead = Bind(directory.Path("target"), SOCK_SEQPACKET); }
  ASSERT_EQ(symlink(directory.Path("target").c_str(), directory.Path("bus").c_str()), 0);
  EXPECT_EQ(ListenError(directory.Path("bus")), Error::kAddressMalformed);
  EXPECT_EQ(access(directory.Path("target").c_str(), F_OK), 0);
}

TEST(ShmListenerTest, TheFileGoesWithTheListenerUnlessItIsAnothers) {
  const TemporaryDirectory directory;
  Result<std::unique_ptr<Listener>> listener = ListenShm(directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  listener->reset();
  EXPECT_EQ(access(directory.Path("bus").c_str(), F_OK), -1);

  listener = ListenShm(directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  ASSERT_EQ(unlink(directory.Path("bus").c_str()), 0);
  const Descriptor successor = Bind(directory.Path("bus"), SOCK_SEQPACKET);
  listener->reset();
  EXPECT_EQ(access(directory.Path("bus").c_str(), F_OK), 0);
}

TEST(ShmListenerTest, ARelativePathIsRemovedAfterTheProcessHasMoved) {
  const TemporaryDirectory directory;
  const Descriptor before(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(chdir(directory.Path("").c_str()), 0);
  Result<std::unique_ptr<Listener>> listener = ListenShm("bus");
  ASSERT_EQ(fchdir(before.get()), 0);
  ASSERT_TRUE(listener.has_value());
  EXPECT_EQ(access(directory.Path("bus").c_str(), F_OK), 0);
  listener->reset();
  EXPECT_EQ(access(directory.Path("bus").c_str(), F_OK), -1);
}

TEST(ShmListenerTest, OfManyServersThatStartAtOnceOneWins) {
  for (int round = 0; round < 20; ++round) {
    const TemporaryDirectory directory;
    { const Descriptor dead = Bind(directory.Path("bus"), SOCK_SEQPACKET); }
    std::atomic<int> ready{0};
    std::array<std::unique_ptr<Listener>, 4> listeners;
    std::vector<std::thread> threads;
    for (std::unique_ptr<Listener>& listener : listeners) {
      threads.emplace_back([&] {
        ready.fetch_add(1);
        while (ready.load() != 4) std::this_thread::yield();
        Result<std::unique_ptr<Listener>> made = ListenShm(directory.Path("bus"));
        if (made) {
          listener = *std::move(made);
        } else {
          EXPECT_EQ(made.error(), Error::kAddressInUse);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    int winners = 0;
    for (const std::unique_ptr<Listener>& listener : listeners) winners += listener != nullptr;
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(access(directory.Path("bus").c_str(), F_OK), 0);
  }
}

TEST(ShmListenerTest, MissingDirectoriesAndLongPathsAreErrors) {
  const TemporaryDirectory directory;
  EXPECT_EQ(ListenError(directory.Path("missing/bus")), Error::kAddressUnreachable);
  EXPECT_EQ(ListenError(directory.Path(std::string(120, 'x'))), Error::kAddressMalformed);
}

TEST(ShmListenerTest, PermissionsAreKept) {
  if (geteuid() == 0) GTEST_SKIP() << "root may do everything";
  const TemporaryDirectory directory;
  const Result<std::unique_ptr<Listener>> listener = ListenShm(directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  ASSERT_EQ(chmod(directory.Path("bus").c_str(), 0), 0);
  EXPECT_EQ(Dial("unix:" + directory.Path("bus"), {}).error(), Error::kPermissionDenied);
  ASSERT_EQ(chmod(directory.Path("").c_str(), 0500), 0);
  EXPECT_EQ(ListenError(directory.Path("other")), Error::kPermissionDenied);
  ASSERT_EQ(chmod(directory.Path("").c_str(), 0700), 0);
}

TEST(ShmListenerTest, WithoutDescriptorsAClientIsToldAndTheListenerIsQuiet) {
  const TemporaryDirectory directory;
  const Result<std::unique_ptr<Listener>> listener = ListenShm(directory.Path("bus"));
  ASSERT_TRUE(listener.has_value());
  // The sanitizer needs a descriptor to look at an object it does not remember: no object is called for
  // the first time while there are none.
  const int listener_fd = (*listener)->fd();
  EXPECT_EQ((*listener)->Accept().value(), nullptr);
  Descriptor client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const Result<sockaddr_un> address = UnixAddress(directory.Path("bus"));
  ASSERT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address),
            0);

  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  std::vector<Descriptor> hoard;
  const rlimit few{static_cast<rlim_t>(client.get()) + 8, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  while (true) {
    Descriptor descriptor(dup(client.get()));
    if (!descriptor) break;
    hoard.push_back(std::move(descriptor));
  }
  const Result<std::unique_ptr<Link>> accepted = (*listener)->Accept();
  EXPECT_FALSE(WaitFor(listener_fd, POLLIN, 0));
  hoard.clear();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);

  ASSERT_TRUE(accepted.has_value());
  EXPECT_EQ(*accepted, nullptr);
  std::byte answer[256];
  ASSERT_EQ(recv(client.get(), answer, sizeof answer, MSG_DONTWAIT), 256);
  EXPECT_EQ(answer[12], std::byte{6});  // the server is exhausted
  EXPECT_EQ(recv(client.get(), answer, sizeof answer, MSG_DONTWAIT), 0);
}

}  // namespace
}  // namespace kmcl::transport
