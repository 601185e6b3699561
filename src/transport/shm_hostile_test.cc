// A client that breaks the transport's rules: each rule once, over a raw socket.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "log.h"
#include "transport/address.h"
#include "transport/descriptor_passing.h"
#include "transport/handshake.h"
#include "transport/nonpaged_pool.h"
#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

Descriptor Memfd(int seals = F_SEAL_SHRINK, std::size_t bytes = 8 * 4096) {
  Descriptor memory(memfd_create("kmcl-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(memory.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, seals), 0);
  return memory;
}

class ShmHostileTest : public ::testing::Test {
 protected:
  ShmHostileTest() : listener(*Listen("unix:" + directory_.Path("bus"))) {
    EXPECT_TRUE(DuplicateNonPagedPool());  // once made, it stays
    descriptors_before_ = OpenDescriptorCount();
  }

  ~ShmHostileTest() override {
    link.reset();
    client.Reset();
    bells.clear();
    EXPECT_EQ(OpenDescriptorCount(), descriptors_before_) << "a descriptor was left";
  }

  void ConnectRaw() {
    client = Descriptor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const Result<sockaddr_un> address = UnixAddress(directory_.Path("bus"));
    ASSERT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address),
              0);
    link = AcceptNext(*listener);
  }

  // Sends a datagram as the hello and answers with what the server says to it.
  WelcomeStatus Say(std::span<const std::byte> datagram, std::vector<Descriptor> descriptors) {
    ConnectRaw();
    EXPECT_TRUE(SendDatagram(client.get(), datagram, descriptors).has_value());
    descriptors.clear();
    std::array<std::byte, kMaximumMessageBytes> buffer;
    const ReceiveStatus status = link->Receive(buffer).status;
    EXPECT_EQ(status, link->ready() ? ReceiveStatus::kNothing : ReceiveStatus::kGone);

    std::byte answer[sizeof(Welcome)];
    ReceivedDatagram received = ReceiveDatagram(client.get(), answer, 32);
    bells = std::move(received.descriptors);
    Welcome welcome;
    EXPECT_EQ(received.bytes, sizeof welcome);
    std::memcpy(&welcome, answer, sizeof welcome);
    EXPECT_EQ(welcome.magic, kHandshakeMagic);
    EXPECT_EQ(welcome.status == WelcomeStatus::kAccepted, link->ready());
    EXPECT_EQ(welcome.reason[0] == '\0', link->ready());
    EXPECT_EQ(bells.size(), 2 * link->bell_count());
    if (!link->ready()) {
      // A refused client is cut off, and its link stays dead.
      EXPECT_EQ(ReceiveDatagram(client.get(), answer, 0).status, ReceivedDatagram::Status::kEnd);
      EXPECT_TRUE(IsGone(*link));
      EXPECT_EQ(link->Send(Bytes("x")).error(), Error::kPeerGone);
    }
    return welcome.status;
  }

  WelcomeStatus Say(const Hello& hello, std::vector<Descriptor> descriptors) {
    return Say(std::as_bytes(std::span(&hello, 1)), std::move(descriptors));
  }

  static std::vector<Descriptor> One(Descriptor descriptor) {
    std::vector<Descriptor> descriptors;
    descriptors.push_back(std::move(descriptor));
    return descriptors;
  }

  // What a hello carries: this as the client's memory, and a pool that is as it should be.
  static std::vector<Descriptor> Donation(Descriptor memory) {
    std::vector<Descriptor> descriptors = One(std::move(memory));
    descriptors.push_back(Memfd(F_SEAL_SHRINK, 0));
    return descriptors;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Listener> listener;
  std::size_t descriptors_before_ = 0;
  Descriptor client;
  std::vector<Descriptor> bells;
  std::unique_ptr<Link> link;
};

TEST_F(ShmHostileTest, AGoodHelloIsAccepted) {
  EXPECT_EQ(Say(Hello{.bell_count = 2}, Donation(Memfd())), WelcomeStatus::kAccepted);
  EXPECT_EQ(bells.size(), 4U);
  EXPECT_EQ(link->bell_count(), 2U);
}

TEST_F(ShmHostileTest, EveryFieldOfTheHelloIsChecked) {
  using enum WelcomeStatus;
  EXPECT_EQ(Say(Hello{.magic = {'H', 'T', 'T', 'P'}}, Donation(Memfd())), kHelloMalformed);
  EXPECT_EQ(Say(Hello{.version = 0}, Donation(Memfd())), kVersionUnknown);
  EXPECT_EQ(Say(Hello{.version = 1}, Donation(Memfd())), kVersionUnknown);
  EXPECT_EQ(Say(Hello{.version = 1}, One(Memfd())), kVersionUnknown);  // as its clients say it
  EXPECT_EQ(Say(Hello{.version = 3}, Donation(Memfd())), kVersionUnknown);
  EXPECT_EQ(Say(Hello{.page_bytes = 65536}, Donation(Memfd())), kHelloMalformed);
  EXPECT_EQ(Say(Hello{.bell_count = 0}, Donation(Memfd())), kHelloMalformed);
  EXPECT_EQ(Say(Hello{.bell_count = 17}, Donation(Memfd())), kHelloMalformed);
  EXPECT_EQ(Say(Hello{.bell_count = 0xFFFFFFFF}, Donation(Memfd())), kHelloMalformed);
  Hello reserved;
  reserved.reserved.back() = 1;
  EXPECT_EQ(Say(reserved, Donation(Memfd())), kHelloMalformed);
}

TEST_F(ShmHostileTest, AHelloHasOneLength) {
  const Hello hello;
  const auto bytes = std::as_bytes(std::span(&hello, 1));
  EXPECT_EQ(Say(bytes.first(63), Donation(Memfd())), WelcomeStatus::kHelloMalformed);
  EXPECT_EQ(Say(bytes.first(1), Donation(Memfd())), WelcomeStatus::kHelloMalformed);
  std::vector<std::byte> longer(bytes.begin(), bytes.end());
  longer.push_back(std::byte{0});
  EXPECT_EQ(Say(longer, Donation(Memfd())), WelcomeStatus::kHelloMalformed);
  longer.resize(100000);
  EXPECT_EQ(Say(longer, Donation(Memfd())), WelcomeStatus::kHelloMalformed);
}

TEST_F(ShmHostileTest, AHelloCarriesExactlyTwoDescriptors) {
  EXPECT_EQ(Say(Hello{}, {}), WelcomeStatus::kHelloMalformed);
  for (const int count : {1, 3, 16}) {
    std::vector<Descriptor> descriptors;
    for (int index = 0; index < count; ++index) descriptors.push_back(Memfd());
    EXPECT_EQ(Say(Hello{}, std::move(descriptors)), WelcomeStatus::kHelloMalformed);
  }
}

TEST_F(ShmHostileTest, AServerWithoutRoomForTheDescriptorsDoesNotBlameTheHello) {
  // The first one shows the sanitizer every object: it needs a descriptor to look at a new one.
  EXPECT_EQ(Say(Hello{}, Donation(Memfd())), WelcomeStatus::kAccepted);
  ConnectRaw();
  const Hello hello;
  ASSERT_TRUE(
      SendDatagram(client.get(), std::as_bytes(std::span(&hello, 1)), Donation(Memfd())));

  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  std::array<std::byte, kMaximumMessageBytes> buffer;
  const ReceiveStatus status = link->Receive(buffer).status;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);

  EXPECT_EQ(status, ReceiveStatus::kGone);
  Welcome welcome;
  ASSERT_EQ(recv(client.get(), &welcome, sizeof welcome, MSG_DONTWAIT), ssize_t{sizeof welcome});
  EXPECT_EQ(welcome.status, WelcomeStatus::kServerExhausted);
}

TEST_F(ShmHostileTest, OnlyMemoryThatCannotVanishIsTaken) {
  using enum WelcomeStatus;
  EXPECT_EQ(Say(Hello{}, Donation(Memfd(0))), kMemoryNotSealed);
  EXPECT_EQ(Say(Hello{}, Donation(Memfd(F_SEAL_SHRINK | F_SEAL_WRITE))), kMemoryKind);
  EXPECT_EQ(Say(Hello{}, Donation(Memfd(F_SEAL_SHRINK, 0))), kMemoryTooSmall);
  EXPECT_EQ(Say(Hello{.bell_count = 3}, Donation(Memfd(F_SEAL_SHRINK, 2 * 4096))), kMemoryTooSmall);
  EXPECT_EQ(Say(Hello{}, Donation(Descriptor(eventfd(0, EFD_CLOEXEC)))), kMemoryKind);
  EXPECT_EQ(Say(Hello{}, Donation(Descriptor(open("/dev/zero", O_RDWR | O_CLOEXEC)))), kMemoryKind);
  Descriptor file(open(directory_.Path("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(ftruncate(file.get(), 1 << 20), 0);
  EXPECT_EQ(Say(Hello{}, Donation(std::move(file))), kMemoryKind);
}

TEST_F(ShmHostileTest, ThePoolIsCheckedLikeTheMemory) {
  using enum WelcomeStatus;
  const auto with_pool = [](Descriptor pool) {
    std::vector<Descriptor> descriptors = One(Memfd());
    descriptors.push_back(std::move(pool));
    return descriptors;
  };
  EXPECT_EQ(Say(Hello{}, with_pool(Memfd(0))), kMemoryNotSealed);
  EXPECT_EQ(Say(Hello{}, with_pool(Memfd(F_SEAL_SHRINK | F_SEAL_WRITE))), kMemoryKind);
  EXPECT_EQ(Say(Hello{}, with_pool(Descriptor(eventfd(0, EFD_CLOEXEC)))), kMemoryKind);
  EXPECT_EQ(Say(Hello{}, with_pool(Memfd(F_SEAL_SHRINK, 0))), kAccepted);
}

TEST_F(ShmHostileTest, APoolIsMappedNoFurtherThanItReaches) {
  std::vector<Descriptor> donated = One(Memfd());
  donated.push_back(Memfd(F_SEAL_SHRINK, 3 * 4096 + 4095));
  const Descriptor pool(fcntl(donated.back().get(), F_DUPFD_CLOEXEC, 0));
  ASSERT_EQ(Say(Hello{}, std::move(donated)), WelcomeStatus::kAccepted);
  const wire::PageNumber last{kPoolFirstPage + 2};
  const wire::PageNumber beyond{kPoolFirstPage + 3};
  EXPECT_TRUE(link->Map(std::span(&last, 1)).has_value());
  EXPECT_EQ(link->Map(std::span(&beyond, 1)).error(), Error::kPageOutOfRange);
  EXPECT_NE(link->Window(last, 1), nullptr);
  EXPECT_EQ(link->Window(last, 2), nullptr);
  EXPECT_EQ(link->Window(beyond, 1), nullptr);

  // It may grow beyond what a pool can be: the pages up there are nobody's.
  ASSERT_EQ(ftruncate(pool.get(), static_cast<off_t>((kMaximumPoolPages + 1) * 4096)), 0);
  const wire::PageNumber highest{kPoolFirstPage + kMaximumPoolPages - 1};
  const wire::PageNumber too_high{kPoolFirstPage + kMaximumPoolPages};
  EXPECT_TRUE(link->Map(std::span(&highest, 1)).has_value());
  EXPECT_EQ(link->Map(std::span(&too_high, 1)).error(), Error::kPageOutOfRange);
  EXPECT_EQ(link->Window(too_high, 1), nullptr);
}

TEST_F(ShmHostileTest, TheMemoryCannotBeTakenAwayLater) {
  Descriptor memory = Memfd();
  const Descriptor kept(fcntl(memory.get(), F_DUPFD_CLOEXEC, 0));
  ASSERT_EQ(Say(Hello{}, Donation(std::move(memory))), WelcomeStatus::kAccepted);
  EXPECT_EQ(ftruncate(kept.get(), 0), -1);
  EXPECT_EQ(errno, EPERM);
  // A punched page is not a missing one: it reads as zeroes.
  const wire::PageNumber page{5};
  const Result<Mapping> mapping = link->Map(std::span(&page, 1));
  ASSERT_TRUE(mapping.has_value());
  mapping->base()[0] = std::byte{1};
  ASSERT_EQ(fallocate(kept.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8 * 4096), 0);
  EXPECT_EQ(mapping->base()[0], std::byte{0});
}

TEST_F(ShmHostileTest, DescriptorsAfterTheHelloNeverReachTheServer) {
  ASSERT_EQ(Say(Hello{}, Donation(Memfd())), WelcomeStatus::kAccepted);
  const std::size_t before = OpenDescriptorCount();
  const auto gift = One(Descriptor(eventfd(0, EFD_CLOEXEC)));
  const std::vector<std::byte> message = Bytes("with a gift");
  // Linux 6.16 and later refuse it at the sender; before, the server sees it and hangs up.
  const Result<void> sent = SendDatagram(client.get(), message, gift);
  if (sent) {
    EXPECT_TRUE(IsGone(*link));
  } else {
    std::array<std::byte, kMaximumMessageBytes> buffer;
    EXPECT_EQ(link->Receive(buffer).status, ReceiveStatus::kNothing);
  }
  EXPECT_EQ(OpenDescriptorCount(), before + 1);  // the gift itself
}

TEST_F(ShmHostileTest, DescriptorsOnAMessageThatWaitedSinceTheHelloBreakTheLink) {
  ConnectRaw();
  const Hello hello;
  const auto memory = Donation(Memfd());
  ASSERT_TRUE(SendDatagram(client.get(), std::as_bytes(std::span(&hello, 1)), memory).has_value());
  ASSERT_TRUE(SendDatagram(client.get(), Bytes("with a gift"), memory).has_value());
  ASSERT_TRUE(ShakeHands(*link));
  const std::size_t before = OpenDescriptorCount();
  EXPECT_TRUE(IsGone(*link));
  EXPECT_EQ(OpenDescriptorCount(), before);
}

TEST_F(ShmHostileTest, AMessageThatIsTooLongBreaksTheLink) {
  for (const std::size_t bytes : {std::size_t{241}, std::size_t{50000}}) {
    ASSERT_EQ(Say(Hello{}, Donation(Memfd())), WelcomeStatus::kAccepted);
    ASSERT_TRUE(SendDatagram(client.get(), std::vector<std::byte>(bytes)).has_value());
    EXPECT_TRUE(IsGone(*link));
    std::byte byte;
    EXPECT_EQ(recv(client.get(), &byte, 1, MSG_DONTWAIT), 0);
  }
}

TEST_F(ShmHostileTest, AnEmptyMessageEndsTheLink) {
  ASSERT_EQ(Say(Hello{}, Donation(Memfd())), WelcomeStatus::kAccepted);
  ASSERT_EQ(send(client.get(), "", 0, MSG_DONTWAIT), 0);
  EXPECT_TRUE(IsGone(*link));
}

TEST_F(ShmHostileTest, ASilentClientHoldsUpNobody) {
  ConnectRaw();
  std::array<std::byte, kMaximumMessageBytes> buffer;
  EXPECT_EQ(link->Receive(buffer).status, ReceiveStatus::kNothing);
  EXPECT_FALSE(link->ready());
  EXPECT_EQ(link->Send(Bytes("early")).error(), Error::kNotConnected);
  {
    const Connection c = Connect(*listener);
    ASSERT_TRUE(c.client->Send(Bytes("served")).has_value());
    EXPECT_EQ(Next(*c.server), "served");
  }
  EXPECT_EQ(link->Receive(buffer).status, ReceiveStatus::kNothing);
  client.Reset();
  EXPECT_TRUE(IsGone(*link));
}

TEST_F(ShmHostileTest, ARefusedClientLearnsTheReason) {
  // Both ends log the reason; count who says what a person wants to read.
  static std::atomic<int> refusals;
  refusals = 0;
  SetLogSink(
      [](void*, LogLevel, const char* line) {
        if (std::strstr(line, "refused the connection: all 3 partitions are taken")) ++refusals;
      },
      nullptr);
  Error error = Error::kNoBus;
  std::thread dialler([&] {
    const auto dialled = Dial(listener->address(), {});
    if (!dialled) error = dialled.error();
  });
  link = AcceptNext(*listener);
  link->Refuse("all 3 partitions are taken");
  dialler.join();
  SetLogSink(nullptr, nullptr);
  EXPECT_EQ(refusals, 1);
  EXPECT_EQ(error, Error::kHandshakeRefused);
  EXPECT_TRUE(IsGone(*link));
}

TEST_F(ShmHostileTest, AServerThatNeverAnswersIsGivenUpAfterFiveSeconds) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Dial(listener->address(), {}).error(), Error::kAddressUnreachable);
  const auto waited = std::chrono::steady_clock::now() - start;
  EXPECT_GE(waited, std::chrono::milliseconds(4900));
  // The hello still waits, from a client that is gone.
  link = AcceptNext(*listener);
  EXPECT_FALSE(ShakeHands(*link) && !IsGone(*link));
}

TEST_F(ShmHostileTest, AServerThatIsNoneIsNotBelieved) {
  // Our "server" answers each hello with something else.
  const Result<sockaddr_un> address = UnixAddress(directory_.Path("fake"));
  Descriptor fake(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(fake.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address), 0);
  ASSERT_EQ(listen(fake.get(), 8), 0);

  const auto dial = [&](std::span<const std::byte> answer, std::vector<Descriptor> descriptors) {
    Error error = Error::kNoBus;
    std::thread dialler([&] {
      const auto dialled = Dial("unix:" + directory_.Path("fake"), {});
      if (!dialled) error = dialled.error();
    });
    const Descriptor accepted(accept4(fake.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!answer.empty()) {
      EXPECT_TRUE(SendDatagram(accepted.get(), answer, descriptors).has_value());
    }
    EXPECT_EQ(shutdown(accepted.get(), SHUT_RDWR), 0);
    dialler.join();
    return error;
  };
  const auto bytes_of = [](const Welcome& welcome) {
    return std::as_bytes(std::span(&welcome, 1));
  };

  EXPECT_EQ(dial({}, {}), Error::kPeerGone);
  EXPECT_EQ(dial(Bytes("220 smtp ready"), {}), Error::kHandshakeMalformed);
  Welcome welcome;
  welcome.bell_count = 1;
  EXPECT_EQ(dial(bytes_of(welcome), {}), Error::kHandshakeMalformed);
  EXPECT_EQ(dial(bytes_of(welcome), One(Descriptor(eventfd(0, EFD_CLOEXEC)))),
            Error::kHandshakeMalformed);
  std::vector<Descriptor> two;
  two.emplace_back(eventfd(0, EFD_CLOEXEC));  // where the epoll belongs
  two.emplace_back(eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(dial(bytes_of(welcome), std::move(two)), Error::kHandshakeMalformed);
  welcome.bell_count = 2;
  two.clear();
  two.emplace_back(epoll_create1(EPOLL_CLOEXEC));
  two.emplace_back(eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(dial(bytes_of(welcome), std::move(two)), Error::kHandshakeMalformed);
  welcome.status = static_cast<WelcomeStatus>(99);
  EXPECT_EQ(dial(bytes_of(welcome), {}), Error::kHandshakeRefused);
  fake.Reset();
}

// The close() of what a client donates may take as long as it likes.
TEST_F(ShmHostileTest, ClientsThatHoldUpClosingsKeepOthersOutAndDisturbNobody) {
  const Connection earlier = Connect(*listener);
  HeldClosings closings;
  for (std::size_t held = 0; held < kMostForeignClosings; ++held) {
    ASSERT_TRUE(AwaitClosings(held));
    ASSERT_EQ(Say(Hello{}, Donation(closings.Make())), WelcomeStatus::kMemoryKind);
  }
  ASSERT_TRUE(AwaitClosings(kMostForeignClosings));
  Descriptor later(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const Result<sockaddr_un> address = UnixAddress(directory_.Path("bus"));
  ASSERT_EQ(connect(later.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address), 0);
  EXPECT_EQ(listener->Accept().error(), Error::kWouldBlock);
  ASSERT_TRUE(earlier.client->Send(Bytes("still here")));
  EXPECT_EQ(Next(*earlier.server), "still here");

  closings.LetGo();
  ASSERT_TRUE(AwaitClosings());
  EXPECT_NE(AcceptNext(*listener), nullptr);
}

}  // namespace
}  // namespace kmcl::transport
