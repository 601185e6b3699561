// vmbus serve --handover: one server process after another, while clients work.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <thread>

#include "process.h"

namespace kmcl::tests {
namespace {

// Server processes that follow each other at one address.
class Servers {
 public:
  Servers() { Start({}); }
  ~Servers() {
    if (current_) {
      Stop();
    }
  }

  // The next one takes over; the summary of the one before.
  nlohmann::json Replace() {
    auto before = std::move(current_);
    Start({"--handover"});
    const Finished finished = before->Wait();
    EXPECT_EQ(finished.exit_code, 0) << finished.error;
    return finished.Json();
  }
  Finished Stop() {
    current_->Signal(SIGTERM);
    const Finished finished = current_->Wait();
    current_.reset();
    return finished;
  }
  void Kill() {
    current_->Signal(SIGKILL);
    (void)current_->Wait();
    current_.reset();
  }

  std::vector<std::string> Arguments(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"serve",       "--bus",          address_,
                                       "--directory", received_.path(), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  const std::string& address() const { return address_; }
  const TemporaryDirectory& received() const { return received_; }
  const TemporaryDirectory& sockets() const { return sockets_; }

 private:
  void Start(std::vector<std::string> more) {
    more.insert(more.end(), {"--ready-fd", "3"});
    current_ = std::make_unique<Process>(Arguments(more));
    EXPECT_EQ(current_->NextLine(), "ready " + address_);
  }

  TemporaryDirectory sockets_;
  TemporaryDirectory received_;
  std::string address_ = "unix:" + sockets_.File("bus");
  std::unique_ptr<Process> current_;
};

constexpr int kHandovers = 10;

TEST(VmbusHandover, ACopyGoesOnOverTenServers) {
  Servers servers;
  TemporaryDirectory files;
  const std::string path = files.File("data");
  ASSERT_EQ(RunVmbus({"generate", path, "--bytes", "300M"}).exit_code, 0);
  Process copy(
      {"copy", "--bus", servers.address(), path, "--json", "--window", "16", "--progress-fd", "3"});
  ASSERT_NE(copy.NextLine(), "");  // it has begun
  for (int i = 0; i < kHandovers; ++i) {
    const auto summary = servers.Replace();
    EXPECT_EQ(summary["handed_over"], true);
  }
  const Finished finished = copy.Wait();
  ASSERT_EQ(finished.exit_code, 0) << finished.error;
  const auto object = finished.Json();
  EXPECT_EQ(object["sha256_sent"], object["sha256_received"]);
  EXPECT_EQ(object["transactions"]["accepted"], 300 * 1024 / 64 + 2);
  EXPECT_EQ(std::filesystem::file_size(servers.received().File("data")), 300u << 20);
  EXPECT_EQ(servers.received().Entries(), std::vector<std::string>{"data"});
  EXPECT_EQ(servers.Stop().exit_code, 0);
  EXPECT_TRUE(servers.sockets().Entries().empty());
}

TEST(VmbusHandover, PingLosesAndRepeatsNothing) {
  Servers servers;
  Process ping({"ping", "--bus", servers.address(), "--count", "300000", "--json"});
  for (int i = 0; i < kHandovers; ++i) {
    servers.Replace();
  }
  const Finished finished = ping.Wait();
  ASSERT_EQ(finished.exit_code, 0) << finished.error;
  const auto object = finished.Json();
  EXPECT_EQ(object["ok"], true) << finished.out;
  // New clients are served by the last one.
  EXPECT_EQ(RunVmbus({"ping", "--bus", servers.address(), "--count", "10"}).exit_code, 0);
}

TEST(VmbusHandover, SeveralClientsGoOnAtTheSameTime) {
  constexpr int kCopies = 3;
  Servers servers;
  TemporaryDirectory files;
  std::vector<std::unique_ptr<Process>> copies;
  for (int i = 0; i < kCopies; ++i) {
    const std::string path = files.File("data" + std::to_string(i));
    ASSERT_EQ(RunVmbus({"generate", path, "--bytes", "50M"}).exit_code, 0);
    copies.push_back(std::make_unique<Process>(
        std::vector<std::string>{"copy", "--bus", servers.address(), path, "--json", "--window",
                                 "4", "--progress-fd", "3"}));
    ASSERT_NE(copies.back()->NextLine(), "");
  }
  Process ping({"ping", "--bus", servers.address(), "--count", "50000", "--json"});
  for (int i = 0; i < kHandovers / 2; ++i) {
    servers.Replace();
  }
  for (const auto& copy : copies) {
    const Finished finished = copy->Wait();
    ASSERT_EQ(finished.exit_code, 0) << finished.error;
    const auto object = finished.Json();
    EXPECT_EQ(object["sha256_sent"], object["sha256_received"]);
    EXPECT_EQ(object["transactions"]["accepted"], 50 * 1024 / 64 + 2);
  }
  const Finished pinged = ping.Wait();
  EXPECT_EQ(pinged.exit_code, 0) << pinged.error;
  EXPECT_EQ(servers.received().Entries().size(), std::size_t{kCopies});
}

TEST(VmbusHandover, WithoutAServerItSaysWhatToDo) {
  TemporaryDirectory directory;
  const std::string bus = "unix:" + directory.File("bus");
  const Finished alone = RunVmbus({"serve", "--bus", bus, "--handover"});
  EXPECT_EQ(alone.exit_code, 1);
  EXPECT_NE(alone.error.find("start without --handover"), std::string::npos) << alone.error;
  const Finished local = RunVmbus({"serve", "--bus", "local:x", "--handover", "--json"});
  EXPECT_EQ(local.exit_code, 2);
  EXPECT_EQ(local.Json()["ok"], false);
  EXPECT_TRUE(directory.Entries().empty());
}

TEST(VmbusHandover, AServerThatCannotTakeOverLeavesTheOldOneServing) {
  Servers servers;
  TemporaryDirectory files;
  const std::string path = files.File("data");
  ASSERT_EQ(RunVmbus({"generate", path, "--bytes", "60M"}).exit_code, 0);
  Process copy({"copy", "--bus", servers.address(), path, "--json", "--progress-fd", "3"});
  ASSERT_NE(copy.NextLine(), "");
  // It connects, and is gone before it could take anything.
  for (int i = 0; i < 3; ++i) {
    Process failing(servers.Arguments({"--handover"}),
                    {.environment = {}, .file_size_limit = {}, .input = {}, .output = {}});
    failing.Signal(SIGKILL);
    (void)failing.Wait();
  }
  servers.Replace();
  const Finished finished = copy.Wait();
  ASSERT_EQ(finished.exit_code, 0) << finished.error;
  EXPECT_EQ(finished.Json()["sha256_sent"], finished.Json()["sha256_received"]);
}

}  // namespace
}  // namespace kmcl::tests
