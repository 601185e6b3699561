// The control socket and what can be asked through it, with guests that are played.
#include "cli/guest_requests.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <future>

#include "cli/control_socket.h"
#include "devices/test_guest.h"
#include "devices/utf16.h"

namespace kmcl::cli {
namespace {

using devices::Eventually;
using devices::TestGuest;
using devices::TestServer;

class GuestRequestsTest : public testing::Test {
 protected:
  GuestRequestsTest() {
    char name[] = "/tmp/vmbus-guest-test-XXXXXX";
    directory_ = mkdtemp(name);
    auto listening = ControlSocket::Listen(path(), [this](const ControlSocket::Request& request) {
      return AnswerGuestRequest(devices_, request);
    });
    EXPECT_TRUE(listening.has_value());
    if (listening) socket_ = std::move(*listening);
  }
  ~GuestRequestsTest() override {
    if (socket_) socket_->Close();
    devices_.RevokeAll();
    socket_.reset();
    std::filesystem::remove_all(directory_);
  }
  std::string path() const { return directory_ + "/control"; }

  static GuestDeviceOptions Options() {
    GuestDeviceOptions options;
    EXPECT_TRUE(
        AddGuestDevices(options.choice, "heartbeat,shutdown,timesync,kvp,vss,fcopy").has_value());
    return options;
  }
  OwnedDescriptor Connect() const {
    OwnedDescriptor made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = SocketAddressOf(path());
    EXPECT_TRUE(made.get() >= 0 && connect(made.get(), reinterpret_cast<const sockaddr*>(&*address),
                                           sizeof(*address)) == 0);
    return made;
  }
  Json Ask(const std::string& line, int descriptor = -1) const {
    ControlConnection connection(Connect(), 1 << 20);
    EXPECT_TRUE(connection.Write(line, descriptor));
    const auto answer = connection.Read();
    return answer ? Json::parse(answer->text, nullptr, false) : Json();
  }
  auto AskLater(const std::string& line, int descriptor = -1) const {
    return std::async(std::launch::async,
                      [this, line, descriptor] { return Ask(line, descriptor); });
  }
  void WaitUntilReady(const char* service) {
    ASSERT_TRUE(Eventually([&] {
      const Json status = Ask(R"({"request": "status"})");
      return status["services"].contains(service) &&
             status["services"][service]["state"] == "ready";
    })) << service;
  }

  std::string directory_;
  GuestDevices devices_{Options(), [](const std::string&) {}};
  HANDLE partition_ = nullptr;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       partition_ = partition;
                       devices_.Arrive(device_object, partition);
                     },
                     [this] { devices_.Leave(partition_); }};
  std::unique_ptr<ControlSocket> socket_;
};

TEST_F(GuestRequestsTest, TheSocketIsItsOwnersOnlyAndGoesInTheEnd) {
  struct stat about {};
  ASSERT_EQ(stat(path().c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 07777, 0600u);
  EXPECT_FALSE(ControlSocket::Listen(path(), {}).has_value());  // served already
  socket_.reset();
  EXPECT_NE(stat(path().c_str(), &about), 0);
}

TEST_F(GuestRequestsTest, ASocketThatNobodyServesIsReplacedAndAFileIsNot) {
  const std::string left = directory_ + "/left";
  {
    const OwnedDescriptor dead(socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_GE(dead.get(), 0);
    const auto address = SocketAddressOf(left);
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)), 0);
  }
  EXPECT_TRUE(ControlSocket::Listen(left, {}).has_value());
  const OwnedDescriptor file(open((directory_ + "/file").c_str(), O_CREAT | O_RDWR, 0600));
  EXPECT_FALSE(ControlSocket::Listen(directory_ + "/file", {}).has_value());
  EXPECT_TRUE(std::filesystem::exists(directory_ + "/file"));
}

TEST_F(GuestRequestsTest, RefusesWhatIsNoRequest) {
  for (const char* line : {"", "nonsense", "[]", "{", R"({"request": 7})", R"({"request": "x"})"}) {
    const Json answer = Ask(line);
    EXPECT_EQ(answer.value("ok", true), false) << line;
    EXPECT_TRUE(answer.contains("error")) << line;
  }
  ControlConnection connection(Connect(), 1000);
  connection.Write(std::string(200'000, 'x'));
  EXPECT_FALSE(connection.Read().has_value());
}

TEST_F(GuestRequestsTest, SaysThatThereIsNoGuest) {
  EXPECT_EQ(Ask(R"({"request": "status"})")["connections"], 0);
  EXPECT_EQ(Ask(R"({"request": "shutdown"})")["error"], "the guest has not connected to the bus");
}

TEST_F(GuestRequestsTest, TellsTheStatusOfEveryService) {
  TestGuest guest(server_.address(), devices::kHeartbeatInterface, {.versions = {{3, 0}}});
  WaitUntilReady("heartbeat");
  const Json status = Ask(R"({"request": "status"})");
  EXPECT_EQ(status["services"].size(), 6u);
  EXPECT_EQ(status["services"]["heartbeat"]["version"], "3.0");
  EXPECT_EQ(status["services"]["kvp"]["state"], "not open");
  EXPECT_EQ(status["services"]["vss"]["file_systems"], "thawed");
}

TEST_F(GuestRequestsTest, ShutsDownAndStatusIsAnsweredMeanwhile) {
  TestGuest guest(server_.address(), devices::kShutdownInterface, {.versions = {{3, 2}}});
  WaitUntilReady("shutdown");
  auto answer = AskLater(R"({"request": "reboot", "force": true})");
  const auto request = guest.Take();
  EXPECT_EQ(devices::BodyAs<std::uint32_t>(request, 8), 3u);
  EXPECT_EQ(Ask(R"({"request": "status"})")["ok"], true);
  guest.Answer(request);
  EXPECT_EQ(answer.get()["ok"], true);
}

TEST_F(GuestRequestsTest, SetsAPair) {
  TestGuest guest(server_.address(), devices::kKeyValueInterface, {.versions = {{4, 0}}});
  WaitUntilReady("kvp");
  auto answer = AskLater(R"({"request": "kvp-set", "key": "k", "value": "v"})");
  guest.Answer(guest.Take());
  EXPECT_EQ(answer.get()["ok"], true);
  answer = AskLater(R"({"request": "kvp-get", "key": "k", "pool": "external"})");
  guest.Answer(guest.Take(), devices::kIntegrationNoMoreItems);
  EXPECT_EQ(answer.get()["ok"], false);
  EXPECT_EQ(Ask(R"({"request": "kvp-list", "pool": "none"})")["ok"], false);
}

TEST_F(GuestRequestsTest, CopiesTheFileThatComesWithTheRequest) {
  TestGuest guest(server_.address(), devices::kFileCopyInterface, {{{3, 0}}, {{1, 1}}});
  WaitUntilReady("fcopy");
  const OwnedDescriptor file(open((directory_ + "/file").c_str(), O_CREAT | O_RDWR, 0600));
  ASSERT_EQ(write(file.get(), "abc", 3), 3);
  auto answer = AskLater(R"({"request": "copy", "name": "there"})", file.get());
  for (int message = 0; message < 3; ++message) {
    guest.Answer(guest.Take());
  }
  const Json copied = answer.get();
  EXPECT_EQ(copied["bytes"], 3);
  EXPECT_EQ(copied["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Ask(R"({"request": "copy", "name": "there"})")["ok"], false);
}

TEST_F(GuestRequestsTest, ACopyIsCancelledWhenItsClientIsDone) {
  TestGuest guest(server_.address(), devices::kFileCopyInterface, {{{3, 0}}, {{1, 1}}});
  WaitUntilReady("fcopy");
  const OwnedDescriptor file(open((directory_ + "/file").c_str(), O_CREAT | O_RDWR, 0600));
  ASSERT_EQ(ftruncate(file.get(), 1 << 20), 0);
  ControlConnection connection(Connect(), 1 << 20);
  ASSERT_TRUE(connection.Write(R"({"request": "copy", "name": "there"})", file.get()));
  guest.Answer(guest.Take());
  guest.Take();  // a chunk, and hangs
  connection.FinishWriting();
  const auto answer = connection.Read();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(Json::parse(answer->text), (Json{{"ok", false}, {"error", "it was cancelled"}}));
  EXPECT_EQ(devices::BodyAs<std::uint32_t>(guest.Take()), 3u) << "for when it goes on";
}

TEST_F(GuestRequestsTest, ARequestEndsWhenTheGuestGoes) {
  auto guest = std::make_unique<TestGuest>(server_.address(), devices::kShutdownInterface,
                                           devices::TestGuestOptions{.versions = {{3, 2}}});
  WaitUntilReady("shutdown");
  auto answer = AskLater(R"({"request": "shutdown"})");
  guest->Take();
  guest.reset();
  EXPECT_EQ(answer.get()["ok"], false);
  ASSERT_TRUE(Eventually([this] {
    return Ask(R"({"request": "shutdown"})")["error"] == "the guest has not connected to the bus";
  }));
}

TEST_F(GuestRequestsTest, ClosingEndsARequestThatWaitsForTheGuest) {
  TestGuest guest(server_.address(), devices::kShutdownInterface, {.versions = {{3, 2}}});
  WaitUntilReady("shutdown");
  auto answer = AskLater(R"({"request": "shutdown"})");
  guest.Take();
  socket_->Close();
  devices_.RevokeAll();
  socket_.reset();
  EXPECT_TRUE(answer.get().is_null());
}

TEST_F(GuestRequestsTest, PlugsADeviceInAndOut) {
  EXPECT_EQ(Ask(R"({"request": "device-list"})")["devices"].size(), 6u);
  EXPECT_EQ(Ask(R"({"request": "device-add", "device": "shutdown"})")["error"],
            "the machine has its shutdown device already");
  TestGuest guest(server_.address(), devices::kHeartbeatInterface, {.versions = {{3, 0}}});
  WaitUntilReady("heartbeat");
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(Ask(R"({"request": "device-remove", "device": "shutdown"})")["ok"], true);
    EXPECT_FALSE(Ask(R"({"request": "status"})")["services"].contains("shutdown"));
    EXPECT_EQ(Ask(R"({"request": "device-await", "device": "shutdown"})")["error"],
              "the machine has no shutdown device");
    EXPECT_EQ(Ask(R"({"request": "device-add", "device": "shutdown"})")["ok"], true);
    EXPECT_EQ(Ask(R"({"request": "device-list"})")["devices"]["shutdown"], "not open");
  }
  EXPECT_EQ(Ask(R"({"request": "device-await", "device": "heartbeat"})")["ok"], true);
  EXPECT_EQ(Ask(R"({"request": "device-list"})")["devices"]["heartbeat"], "ready");
  for (const char* wrong : {"floppy", "echo,kvp", "echo=1", "heartbeat=", "heartbeat=x", ""}) {
    const Json request = {{"request", "device-add"}, {"device", wrong}};
    EXPECT_EQ(Ask(request.dump())["ok"], false) << wrong;
    EXPECT_EQ(Ask(R"({"request": "device-remove", "device": "floppy"})")["ok"], false);
  }
}

TEST_F(GuestRequestsTest, ADevicePluggedInBeforeAGuestComesIsOfferedToIt) {
  EXPECT_EQ(Ask(R"({"request": "device-remove", "device": "shutdown"})")["ok"], true);
  EXPECT_EQ(Ask(R"({"request": "device-add", "device": "echo"})")["ok"], true);
  EXPECT_EQ(Ask(R"({"request": "device-list"})")["devices"]["echo"], "waits for a guest");
  TestGuest guest(server_.address(), devices::kHeartbeatInterface, {.versions = {{3, 0}}});
  WaitUntilReady("heartbeat");
  EXPECT_EQ(Ask(R"({"request": "device-list"})")["devices"]["echo"], "offered");
  EXPECT_FALSE(Ask(R"({"request": "status"})")["services"].contains("shutdown"));
}

TEST_F(GuestRequestsTest, WhoWaitsForADriverHearsOfIt) {
  EXPECT_EQ(Ask(R"({"request": "device-remove", "device": "heartbeat"})")["ok"], true);
  EXPECT_EQ(Ask(R"({"request": "device-add", "device": "heartbeat=10"})")["ok"], true);
  auto answer = AskLater(R"({"request": "device-await", "device": "heartbeat"})");
  TestGuest guest(server_.address(), devices::kHeartbeatInterface, {.versions = {{3, 0}}});
  EXPECT_EQ(answer.get()["ok"], true);
}

TEST(ReportLimit, LeavesOutWhatIsTooMuchAndCountsIt) {
  ReportLimit limit;
  auto now = ReportLimit::Clock::now();
  for (std::uint32_t line = 0; line < ReportLimit::kAtOnce; ++line) {
    EXPECT_EQ(limit.Admit(now), 0u);
  }
  for (int line = 0; line < 1000; ++line) EXPECT_FALSE(limit.Admit(now).has_value());
  now += std::chrono::milliseconds(1100 / ReportLimit::kEachSecond);
  EXPECT_EQ(limit.Admit(now), 1000u);
  EXPECT_FALSE(limit.Admit(now).has_value());
  now += std::chrono::hours(1);
  EXPECT_EQ(limit.Admit(now), 1u);
  EXPECT_EQ(limit.Admit(now), 0u);
}

TEST_F(GuestRequestsTest, TheHostsSocketIsThereAsLongAsItsDevice) {
  TestGuest guest(server_.address(), devices::kHeartbeatInterface, {.versions = {{3, 0}}});
  const std::string path = "/tmp/vsock-requests-" + std::to_string(getpid());
  EXPECT_EQ(Ask(R"({"request": "device-add", "device": "vsock=/no/such/folder/vsock"})")["ok"],
            false);
  Json request = {{"request", "device-add"}, {"device", "vsock=" + path}};
  EXPECT_EQ(Ask(request.dump())["ok"], true);
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
  EXPECT_EQ(Ask(request.dump())["ok"], false);
  EXPECT_EQ(Ask(R"({"request": "device-list"})")["devices"]["vsock"], "offered");
  EXPECT_EQ(Ask(R"({"request": "status"})")["services"]["vsock"]["connections"], 0);
  EXPECT_EQ(Ask(R"({"request": "device-remove", "device": "vsock"})")["ok"], true);
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  EXPECT_FALSE(Ask(R"({"request": "status"})")["services"].contains("vsock"));
}

TEST(GuestDeviceChoice, NamesAreThoseOfTheHelp) {
  GuestDeviceChoice choice;
  EXPECT_TRUE(AddGuestDevices(choice, "kvp,echo").has_value());
  EXPECT_TRUE(choice.kvp && choice.echo && !choice.vss);
  EXPECT_EQ(AddGuestDevices(choice, "vss,floppy").error(), "floppy");
  EXPECT_EQ(AddGuestDevices(choice, "echo=3").error(), "echo=3");
  EXPECT_TRUE(AddGuestDevices(choice, "heartbeat=250").has_value());
  EXPECT_EQ(choice.heartbeat_interval, std::chrono::milliseconds(250));
  EXPECT_TRUE(AddGuestDevices(choice, "vsock=/tmp/guest,echo").has_value());
  EXPECT_TRUE(choice.vsock);
  EXPECT_EQ(choice.vsock_path, "/tmp/guest");
  EXPECT_EQ(AddGuestDevices(choice, "vsock").error(), "vsock");
  EXPECT_EQ(AddGuestDevices(choice, "vsock=").error(), "vsock=");
  EXPECT_EQ(GuestDeviceNames(), "echo, heartbeat, shutdown, timesync, kvp, vss, fcopy, vsock");
}

}  // namespace
}  // namespace kmcl::cli
