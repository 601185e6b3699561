#include "devices/vsock.h"

#include <filesystem>
#include <thread>

#include "devices/test_guest.h"
#include "devices/test_socket.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kPort = 5000;

// A machine with the device, and a guest on its bus.
class Vsock : public ::testing::Test {
 protected:
  Vsock() {
    std::string name = "/tmp/vsock-test-XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    options_.path = folder_;
  }
  ~Vsock() override {
    Die();
    server_.reset();
    device_.reset();
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/vsock"));
    std::filesystem::remove_all(folder_);
  }

  void Boot() {
    auto device = VsockDevice::Create(options_, [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      lines_.push_back(line);
    });
    ASSERT_TRUE(device.has_value()) << device.error();
    device_ = std::move(*device);
    server_ = std::make_unique<TestServer>(
        [this](PDEVICE_OBJECT object, HANDLE partition) {
          partition_ = partition;
          EXPECT_EQ(device_->Attach(object, partition), STATUS_SUCCESS);
        },
        [this] { device_->Detach(partition_); });
    Arrive();
  }
  void Arrive() {
    ASSERT_EQ(KmclClientConnect(server_->address().c_str(), nullptr, &guest_), STATUS_SUCCESS);
    ASSERT_EQ(KmclClientSetConnectRefusedCallback(
                  guest_,
                  [](PVOID context, const KMCL_CONNECT_REQUEST*, ULONG status) {
                    auto* self = static_cast<Vsock*>(context);
                    self->refused_status_ = status;
                    self->refused_.Set();
                  },
                  this),
              STATUS_SUCCESS);
  }
  void Die() { KmclClientDestroy(std::exchange(guest_, nullptr)); }

  std::string PathOf(std::uint32_t port) const {
    return folder_ + "/vsock_" + std::to_string(port);
  }
  // The host's end and the guest's of one connection that the guest asked for.
  struct Pair {
    std::unique_ptr<GuestSocket> guest;
    ProgramSocket program;
  };
  Pair MakePair(std::uint32_t own_port = 1024) {
    ProgramSocket listener = ProgramSocket::Listen(PathOf(kPort));
    auto guest = GuestSocket::Connect(guest_, kPort, own_port);
    ProgramSocket program = listener.Accept();
    EXPECT_TRUE(guest->WaitOpen());
    std::filesystem::remove(PathOf(kPort));
    return {std::move(guest), std::move(program)};
  }
  bool AllGone() {
    return Eventually([this] { return device_->Status().connections == 0; });
  }
  std::size_t Offers() const {
    ULONG count = 0;
    KmclClientQueryOffers(guest_, nullptr, 0, &count);
    return count;
  }
  bool WasReported(std::string_view text) {
    const std::lock_guard lock(mutex_);
    return std::ranges::any_of(
        lines_, [text](const std::string& line) { return line.find(text) != line.npos; });
  }

  std::string folder_;
  VsockOptions options_;
  std::unique_ptr<VsockDevice> device_;
  std::unique_ptr<TestServer> server_;
  HANDLE partition_ = nullptr;
  KMCL_CLIENT guest_ = nullptr;
  Event refused_;
  ULONG refused_status_ = 0;
  std::mutex mutex_;
  std::vector<std::string> lines_;  // under mutex_
};

TEST_F(Vsock, AGuestConnectsToAProgramOfTheHosts) {
  Boot();
  ProgramSocket listener = ProgramSocket::Listen(PathOf(kPort));
  auto guest = GuestSocket::Connect(guest_, kPort, 1024);
  ASSERT_TRUE(guest->WaitOpen());
  ProgramSocket program = listener.Accept();
  KMCL_OFFER offer{};
  ULONG count = 0;
  ASSERT_EQ(KmclClientQueryOffers(guest_, &offer, 1, &count), STATUS_SUCCESS);
  EXPECT_EQ(offer.Flags, 0x2011);
  EXPECT_EQ(offer.InterfaceType.Data1, kPort);
  EXPECT_EQ(offer.InterfaceInstance.Data1, 1024U);
  EXPECT_EQ(guest->Write("hello"), 5U);
  EXPECT_EQ(program.Read(5), "hello");
  EXPECT_EQ(program.Write("world"), 5U);
  EXPECT_EQ(guest->Read(5), "world");
  EXPECT_EQ(device_->Status().from_guest, 1U);
}

TEST_F(Vsock, AProgramOfTheHostsConnectsToTheGuest) {
  Boot();
  auto guest = GuestSocket::Listen(guest_, kPort);
  ProgramSocket program = ProgramSocket::Connect(device_->path());
  // What follows the line belongs to the connection already.
  program.Write("CONNECT 5000\nhello");
  EXPECT_EQ(program.ReadLine(), "OK 1073741824");
  ASSERT_TRUE(guest->WaitOpen());
  KMCL_OFFER offer{};
  ULONG count = 0;
  ASSERT_EQ(KmclClientQueryOffers(guest_, &offer, 1, &count), STATUS_SUCCESS);
  EXPECT_EQ(offer.InterfaceType.Data1, kPort);
  EXPECT_EQ(offer.InterfaceInstance.Data1, 1073741824U);
  EXPECT_EQ(guest->Read(5), "hello");
  EXPECT_EQ(guest->Write("world"), 5U);
  EXPECT_EQ(program.Read(5), "world");
  EXPECT_EQ(device_->Status().from_host, 1U);
}

TEST_F(Vsock, ALineMayComeInPieces) {
  Boot();
  auto guest = GuestSocket::Listen(guest_, kPort);
  ProgramSocket program = ProgramSocket::Connect(device_->path());
  for (const char* piece : {"CON", "NECT 50", "00", "\n"}) {
    program.Write(piece);
    // The device is awake for each piece.
    std::this_thread::yield();
  }
  EXPECT_EQ(program.ReadLine(), "OK 1073741824");
}

TEST_F(Vsock, WhoeverSaysNoPortIsNotHeard) {
  Boot();
  for (const char* line : {"HELLO 5000\n", "CONNECT \n", "CONNECT 5000x\n", "CONNECT 4294967296\n",
                           "CONNECT -1\n", "\n", "CONNECT 5000 and much more than one port\n"}) {
    ProgramSocket program = ProgramSocket::Connect(device_->path());
    program.Write(line);
    EXPECT_EQ(program.Read(), "") << line;
  }
  EXPECT_EQ(device_->Status().refused, 7U);
  EXPECT_EQ(device_->Status().from_host, 0U);
}

TEST_F(Vsock, APortWithoutASocketIsRefused) {
  Boot();
  KMCL_CONNECT_REQUEST request{VsockPort(1024), VsockPort(kPort), {}};
  ASSERT_EQ(KmclClientRequestConnect(guest_, &request), STATUS_SUCCESS);
  ASSERT_TRUE(refused_.Wait());
  EXPECT_EQ(refused_status_, 0xC0000236U);
  EXPECT_TRUE(WasReported("port 5000"));
  EXPECT_EQ(Offers(), 0U);
}

TEST_F(Vsock, AServiceThatIsNoPortIsRefused) {
  Boot();
  KMCL_CONNECT_REQUEST request{VsockPort(1024), VsockPort(kPort), {}};
  request.ServiceId.Data4[7] ^= 1;
  ASSERT_EQ(KmclClientRequestConnect(guest_, &request), STATUS_SUCCESS);
  ASSERT_TRUE(refused_.Wait());
  EXPECT_EQ(Offers(), 0U);
}

TEST_F(Vsock, ASocketThatNobodyServesFailsTheOpen) {
  Boot();
  // The file stays, the listener does not.
  ProgramSocket::Listen(PathOf(kPort));
  auto guest = GuestSocket::Connect(guest_, kPort, 1024);
  EXPECT_TRUE(guest->WaitFailed());
  EXPECT_TRUE(AllGone());
  EXPECT_TRUE(Eventually([this] { return Offers() == 0; }));
  EXPECT_EQ(device_->Status().refused, 1U);
}

TEST_F(Vsock, APortWhereTheGuestDoesNotListenIsGivenUp) {
  options_.times.patience = 50ms;
  Boot();
  ProgramSocket program = ProgramSocket::Connect(device_->path());
  program.Write("CONNECT 5000\n");
  EXPECT_EQ(program.Read(), "");
  EXPECT_TRUE(AllGone());
  EXPECT_TRUE(Eventually([this] { return Offers() == 0; }));
  EXPECT_TRUE(WasReported("has not opened"));
}

TEST_F(Vsock, TheGuestMayCloseItsDirectionAndReadOn) {
  Boot();
  auto [guest, program] = MakePair();
  EXPECT_EQ(guest->Write("question"), 8U);
  EXPECT_TRUE(guest->Shutdown());
  EXPECT_EQ(program.Read(), "question");
  const std::string answer = TestBytes(300'000);
  std::thread answering([&program, &answer] {
    EXPECT_EQ(program.Write(answer), answer.size());
    program.Close();
  });
  bool ended = false;
  EXPECT_EQ(guest->ReadAll(ended), answer);
  EXPECT_TRUE(ended);
  answering.join();
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(AllGone());
  EXPECT_EQ(device_->Status().broken, 0U);
  EXPECT_EQ(device_->Status().bytes_to_host, 8U);
  EXPECT_EQ(device_->Status().bytes_to_guest, answer.size());
}

TEST_F(Vsock, TheProgramMayCloseItsDirectionAndReadOn) {
  Boot();
  auto [guest, program] = MakePair();
  program.Write("question");
  program.Shutdown();
  bool ended = false;
  EXPECT_EQ(guest->ReadAll(ended), "question");
  EXPECT_TRUE(ended);
  const std::string answer = TestBytes(300'000);
  std::thread answering([&end = *guest, &answer] {
    EXPECT_EQ(end.Write(answer), answer.size());
    EXPECT_TRUE(end.Shutdown());
  });
  EXPECT_EQ(program.Read(), answer);
  answering.join();
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(AllGone());
  EXPECT_EQ(device_->Status().broken, 0U);
}

TEST_F(Vsock, AProgramThatDoesNotReadStopsTheGuest) {
  Boot();
  auto [guest, program] = MakePair();
  const std::string bytes = TestBytes(4 << 20);
  const std::size_t before = guest->Write(bytes, 200);
  // The guest's ring and the socket's own buffer, and nothing else.
  EXPECT_GT(before, 24'000U);
  EXPECT_LT(before, 1U << 20);
  std::thread reading([&program, &bytes] { EXPECT_EQ(program.Read(bytes.size()), bytes); });
  EXPECT_EQ(guest->Write(std::string_view(bytes).substr(before)), bytes.size() - before);
  reading.join();
}

TEST_F(Vsock, AGuestThatDoesNotReadStopsTheProgram) {
  Boot();
  auto [guest, program] = MakePair();
  const std::string bytes = TestBytes(4 << 20);
  const std::size_t before = program.Write(bytes, 200);
  EXPECT_GT(before, 24'000U);
  EXPECT_LT(before, 1U << 20);
  std::thread reading([&end = *guest, &bytes] { EXPECT_EQ(end.Read(bytes.size()), bytes); });
  EXPECT_EQ(program.Write(std::string_view(bytes).substr(before)), bytes.size() - before);
  reading.join();
}

TEST_F(Vsock, BothDirectionsAtOnceHoldUpNeither) {
  Boot();
  auto [guest, program] = MakePair();
  const std::string up = TestBytes(2 << 20, 2);
  const std::string down = TestBytes(2 << 20, 3);
  std::thread from_program([&program, &down] {
    EXPECT_EQ(program.Write(down), down.size());
    program.Shutdown();
  });
  std::thread to_program([&program, &up] { EXPECT_EQ(program.Read(), up); });
  std::thread from_guest([&end = *guest, &up] {
    EXPECT_EQ(end.Write(up), up.size());
    EXPECT_TRUE(end.Shutdown());
  });
  bool ended = false;
  EXPECT_EQ(guest->ReadAll(ended), down);
  EXPECT_TRUE(ended);
  from_program.join();
  to_program.join();
  from_guest.join();
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(AllGone());
}

TEST_F(Vsock, WhatAProgramWroteBeforeItClosedArrives) {
  Boot();
  auto [guest, program] = MakePair();
  // It never reads what the guest says, so its close is an abrupt one.
  EXPECT_EQ(guest->Write("unheard"), 7U);
  ASSERT_TRUE(program.Await(POLLIN));
  const std::string last = TestBytes(100'000);
  std::thread writing([&program, &last] {
    EXPECT_EQ(program.Write(last), last.size());
    program.Close();
  });
  bool ended = false;
  EXPECT_EQ(guest->ReadAll(ended), last);
  EXPECT_TRUE(ended);
  writing.join();
  // Nobody can hear the guest any more: it is told, though it has not closed.
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(AllGone());
}

TEST_F(Vsock, AGuestThatWritesToAProgramThatHasGoneIsNotStuck) {
  Boot();
  auto [guest, program] = MakePair();
  program.Close();
  const std::string bytes = TestBytes(1 << 20);
  guest->Write(bytes);
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(AllGone());
}

TEST_F(Vsock, AGuestThatOnlyWritesLearnsThatTheProgramHasGone) {
  options_.times.linger = 50ms;
  Boot();
  auto [guest, program] = MakePair();
  EXPECT_EQ(program.Write("unread"), 6U);
  program.Close();
  // It never reads, so that only a rescind tells it.
  const std::string bytes = TestBytes(1 << 20);
  while (guest->Write(bytes) == bytes.size()) {
  }
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(AllGone());
}

TEST_F(Vsock, AGuestThatClosesAndLeavesBytesUnreadIsGivenUp) {
  options_.times.linger = 50ms;
  Boot();
  auto [guest, program] = MakePair();
  EXPECT_EQ(program.Write("unread"), 6U);
  EXPECT_TRUE(guest->Shutdown());
  EXPECT_EQ(program.Read(), "");
  // As a program that only writes: it fills what there is, and is told then.
  const std::string bytes = TestBytes(4 << 20);
  EXPECT_LT(program.Write(bytes), bytes.size());
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(AllGone());
  EXPECT_EQ(device_->Status().broken, 1U);
  EXPECT_TRUE(WasReported("unread"));
}

TEST_F(Vsock, AChannelThatTheGuestClosesEndsTheConnection) {
  Boot();
  auto [guest, program] = MakePair();
  EXPECT_EQ(guest->Write("last"), 4U);
  ASSERT_TRUE(program.Await(POLLIN));
  guest.reset();
  EXPECT_EQ(program.Read(), "last");
  EXPECT_TRUE(AllGone());
}

TEST_F(Vsock, AGuestThatDiesEndsItsConnections) {
  Boot();
  std::vector<Pair> pairs;
  for (std::uint32_t i = 0; i < 8; ++i) {
    pairs.push_back(MakePair(1024 + i));
    pairs.back().program.Write(TestBytes(4 << 20), 1);
  }
  // One that is only on its way.
  ProgramSocket waiting = ProgramSocket::Connect(device_->path());
  waiting.Write("CONNECT 77\n");
  EXPECT_TRUE(Eventually([this] { return device_->Status().connections == 9; }));
  for (Pair& pair : pairs) pair.guest.reset();
  Die();
  for (Pair& pair : pairs) EXPECT_EQ(pair.program.Read(), "");
  EXPECT_EQ(waiting.Read(), "");
  EXPECT_TRUE(AllGone());
  // Nobody is there to be connected with.
  ProgramSocket late = ProgramSocket::Connect(device_->path());
  late.Write("CONNECT 5000\n");
  EXPECT_EQ(late.Read(), "");
  // The next guest finds the device as it was.
  Arrive();
  auto [guest, program] = MakePair();
  EXPECT_EQ(guest->Write("again"), 5U);
  EXPECT_EQ(program.Read(5), "again");
}

TEST_F(Vsock, TwoHundredConnectionsAtOnce) {
  constexpr std::uint32_t kEach = 100;
  Boot();
  ProgramSocket listener = ProgramSocket::Listen(PathOf(kPort));
  std::vector<std::unique_ptr<GuestSocket>> guests;
  std::vector<ProgramSocket> programs;
  for (std::uint32_t i = 0; i < kEach; ++i) {
    guests.push_back(GuestSocket::Connect(guest_, kPort, 1024 + i));
  }
  for (std::uint32_t i = 0; i < kEach; ++i) programs.push_back(listener.Accept());
  for (std::uint32_t i = 0; i < kEach; ++i) {
    guests.push_back(GuestSocket::Listen(guest_, 6000 + i));
    programs.push_back(ProgramSocket::Connect(device_->path()));
    programs.back().Write("CONNECT " + std::to_string(6000 + i) + "\n");
    // No more than 64 may be there whose line has not been read.
    if ((i + 1) % 50 != 0) continue;
    for (auto& guest : guests) ASSERT_TRUE(guest->WaitOpen());
  }
  for (std::uint32_t i = kEach; i < 2 * kEach; ++i) {
    EXPECT_TRUE(programs[i].ReadLine().starts_with("OK "));
  }
  EXPECT_EQ(device_->Status().connections, 2 * kEach);
  // Everyone talks while all are there; who speaks with whom is said by the bytes.
  for (std::uint32_t i = 0; i < 2 * kEach; ++i) {
    EXPECT_EQ(guests[i]->Write("from " + std::to_string(i) + ";"), 6 + std::to_string(i).size());
  }
  std::vector<bool> heard(std::size_t{2} * kEach);
  for (ProgramSocket& program : programs) {
    program.Shutdown();
    std::string said;
    while (said.empty() || said.back() != ';') said += program.Read(1);
    heard[std::stoul(said.substr(5))] = true;
  }
  EXPECT_EQ(std::ranges::count(heard, true), 2 * kEach);
  for (auto& guest : guests) {
    EXPECT_EQ(guest->Read(), "");
    EXPECT_TRUE(guest->Shutdown());
    EXPECT_TRUE(guest->WaitClosed());
  }
  EXPECT_TRUE(AllGone());
  EXPECT_EQ(device_->Status().broken, 0U);
  guests.clear();
  EXPECT_TRUE(Eventually([this] { return Offers() == 0; }));
}

TEST_F(Vsock, OneTooManyIsRefused) {
  options_.most_connections = 2;
  Boot();
  const Pair first = MakePair(1024);
  const Pair second = MakePair(1025);
  ProgramSocket listener = ProgramSocket::Listen(PathOf(kPort));
  KMCL_CONNECT_REQUEST request{VsockPort(1026), VsockPort(kPort), {}};
  ASSERT_EQ(KmclClientRequestConnect(guest_, &request), STATUS_SUCCESS);
  EXPECT_TRUE(refused_.Wait());
  ProgramSocket program = ProgramSocket::Connect(device_->path());
  program.Write("CONNECT 5000\n");
  EXPECT_EQ(program.Read(), "");
  EXPECT_EQ(device_->Status().refused, 2U);
  EXPECT_TRUE(WasReported("2 are open"));
}

TEST_F(Vsock, TheSameEndAsksOnlyOnce) {
  Boot();
  const Pair pair = MakePair(1024);
  ProgramSocket listener = ProgramSocket::Listen(PathOf(kPort));
  KMCL_CONNECT_REQUEST request{VsockPort(1024), VsockPort(kPort), {}};
  ASSERT_EQ(KmclClientRequestConnect(guest_, &request), STATUS_SUCCESS);
  EXPECT_TRUE(refused_.Wait());
  EXPECT_EQ(device_->Status().connections, 1U);
}

TEST_F(Vsock, PacketsThatBreakTheRulesEndTheirConnectionAlone) {
  Boot();
  const Pair good = MakePair(1000);
  struct Bad {
    std::uint32_t type;
    std::uint32_t length;
    std::size_t bytes;
  };
  // An unknown type; more than there is; more than may be; set-up of what was not agreed on.
  const Bad all[] = {{0, 4, 8}, {1, 9, 8}, {1, 16385, 16392}, {3, 8, 8}, {1, 0xFFFFFFFF, 8}};
  std::uint32_t port = 1024;
  for (const Bad& bad : all) {
    auto [guest, program] = MakePair(port++);
    EXPECT_EQ(guest->Put(bad.type, bad.length, TestBytes(bad.bytes)), STATUS_SUCCESS);
    EXPECT_EQ(program.Read(), "");
    EXPECT_TRUE(guest->WaitClosed());
  }
  auto [guest, program] = MakePair(port);
  EXPECT_TRUE(guest->Shutdown());
  EXPECT_EQ(guest->Put(1, 4, "more"), STATUS_SUCCESS);
  EXPECT_EQ(program.Read(), "");
  EXPECT_TRUE(guest->WaitClosed());
  EXPECT_TRUE(Eventually([this] { return device_->Status().broken == 6; }));
  EXPECT_EQ(good.guest->Write("still here"), 10U);
  EXPECT_EQ(ProgramSocket(HostSocket(dup(good.program.get()))).Read(10), "still here");
}

TEST_F(Vsock, NothingIsLeftBehind) {
  const auto descriptors = [] {
    const auto all = std::filesystem::directory_iterator("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  Boot();
  {
    const Pair first = MakePair();
  }
  ASSERT_TRUE(AllGone());
  const auto before = descriptors();
  for (std::uint32_t i = 0; i < 50; ++i) {
    const Pair pair = MakePair(2000 + i);
  }
  ASSERT_TRUE(AllGone());
  // A channel that has ended may be held a moment longer, so the first count may be too high.
  EXPECT_TRUE(Eventually([&] { return descriptors() <= before; }));
}

TEST(VsockPath, MayBeTheSocketItself) {
  std::string folder = "/tmp/vsock-test-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/guest.sock";
  {
    const auto device = VsockDevice::Create({.path = path, .times = {}}, {});
    ASSERT_TRUE(device.has_value());
    EXPECT_EQ((*device)->path(), path);
    // Another one is told who is there; what nobody serves any more is replaced.
    EXPECT_FALSE(VsockDevice::Create({.path = path, .times = {}}, {}).has_value());
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  ProgramSocket::Listen(path);
  EXPECT_TRUE(VsockDevice::Create({.path = path, .times = {}}, {}).has_value());
  EXPECT_FALSE(VsockDevice::Create({.path = std::string(200, 'x'), .times = {}}, {}).has_value());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace kmcl::devices
