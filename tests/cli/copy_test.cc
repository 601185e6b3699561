// vmbus copy to a server process that lives.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "process.h"

namespace kmcl::tests {
namespace {

class VmbusCopy : public testing::Test {
 protected:
  std::string Generate(const std::string& name, const std::string& bytes) {
    const std::string path = files_.File(name);
    EXPECT_EQ(RunVmbus({"generate", path, "--bytes", bytes}).exit_code, 0);
    return path;
  }
  TemporaryDirectory files_;
};

TEST_F(VmbusCopy, StoresTheSameBytesAndBothEndsAgree) {
  ServedBus bus;
  const std::string path = Generate("data", "5M");
  const auto object = RunVmbus({"copy", "--bus", bus.address(), path, "--json"}).Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["ok"], true);
  EXPECT_EQ(object["sha256_sent"], object["sha256_received"]);
  EXPECT_EQ(object["bytes_acknowledged"], 5 * 1024 * 1024);
  EXPECT_EQ(object["counters_agree"], true);
  EXPECT_EQ(object["transactions"]["accepted"], 5 * 1024 / 64 + 2);
  EXPECT_EQ(ReadFile(bus.received().File("data")), ReadFile(path));
  EXPECT_EQ(bus.received().Entries(), std::vector<std::string>{"data"});

  const auto server = bus.Stop()["devices"]["file"];
  EXPECT_EQ(server["packets_received"], object["counters"]["packets_sent"]);
  EXPECT_EQ(server["completions_sent"], object["counters"]["completions_received"]);
}

TEST_F(VmbusCopy, StoresFilesOfAwkwardSizes) {
  ServedBus bus;
  for (const char* bytes : {"0", "1", "7", "65535", "65536", "65537", "200001"}) {
    const std::string path = Generate(bytes, bytes);
    const Finished copy = RunVmbus({"copy", "--bus", bus.address(), path});
    EXPECT_EQ(copy.exit_code, 0) << bytes << copy.error;
    EXPECT_EQ(ReadFile(bus.received().File(bytes)), ReadFile(path)) << bytes;
  }
}

TEST_F(VmbusCopy, WorksForOtherWindowsChunksAndRings) {
  ServedBus bus;
  const std::string path = Generate("data", "300001");
  for (const auto& [window, chunk, ring] :
       {std::tuple{"1", "512", "4096"}, std::tuple{"1000", "512", "4096"},
        std::tuple{"7", "262144", "4096"}, std::tuple{"100", "1000", "1048576"}}) {
    const Finished copy = RunVmbus({"copy", "--bus", bus.address(), path, "--window", window,
                                    "--chunk", chunk, "--ring", ring});
    EXPECT_EQ(copy.exit_code, 0) << window << " " << chunk << " " << ring << ": " << copy.error;
    EXPECT_EQ(ReadFile(bus.received().File("data")), ReadFile(path));
    std::filesystem::remove(bus.received().File("data"));
  }
}

TEST_F(VmbusCopy, StoresUnderAnotherNameAndReplacesWhatIsThere) {
  ServedBus bus;
  WriteFile(bus.received().File("other"), "old");
  const std::string path = Generate("data", "1000");
  EXPECT_EQ(RunVmbus({"copy", "--bus", bus.address(), path, "--as", "other"}).exit_code, 0);
  EXPECT_EQ(ReadFile(bus.received().File("other")), ReadFile(path));
  EXPECT_EQ(bus.received().Entries(), std::vector<std::string>{"other"});
}

TEST_F(VmbusCopy, NamesThatLeaveTheDirectoryAreRefusedByTheServer) {
  ServedBus bus;
  const std::string path = Generate("data", "100000");
  for (const char* name : {"../data", "/tmp/data", "a/b", "..", ".", ".vmbus-1-1.part"}) {
    const Finished copy = RunVmbus({"copy", "--bus", bus.address(), path, "--as", name});
    EXPECT_EQ(copy.exit_code, 1) << name;
    EXPECT_NE(copy.error.find("name"), std::string::npos) << copy.error;
  }
  EXPECT_TRUE(bus.received().Entries().empty());
}

TEST_F(VmbusCopy, SaysWhyTheServerCannotStoreTheFile) {
  ServedBus bus;
  const std::string path = Generate("data", "1000");
  std::filesystem::remove(bus.received().path());  // takes no files any more, whoever we are
  const auto object = RunVmbus({"copy", "--bus", bus.address(), path, "--json"}).Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["exit_code"], 1);
  EXPECT_NE(object["error"]["message"].get<std::string>().find("No such file"), std::string::npos)
      << object;
  EXPECT_EQ(object["transactions"]["unanswered"], 0);
  EXPECT_EQ(object["transactions"]["completed_twice"], 0);
}

// A file size limit stands for the full disk: writing fails in the middle.
TEST_F(VmbusCopy, LeavesNothingBehindWhenTheDiskIsFull) {
  ServedBus bus({}, {{}, 1 << 20});
  const std::string path = Generate("data", "4M");
  const Finished copy = RunVmbus({"copy", "--bus", bus.address(), path});
  EXPECT_EQ(copy.exit_code, 1) << copy.out;
  EXPECT_NE(copy.error.find("File too large"), std::string::npos) << copy.error;
  EXPECT_TRUE(bus.received().Entries().empty());
  // And the server goes on.
  const std::string small = Generate("small", "1000");
  EXPECT_EQ(RunVmbus({"copy", "--bus", bus.address(), small}).exit_code, 0);
}

// A file system of four mebibytes, for this process and those that it starts, until the end of the
// scope.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path) : path_(path) {
    const uid_t user = geteuid();
    const gid_t group = getegid();
    if (unshare(user == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0) return;
    if (user != 0) {
      WriteFile("/proc/self/setgroups", "deny");
      WriteFile("/proc/self/uid_map", std::to_string(user) + " " + std::to_string(user) + " 1");
      WriteFile("/proc/self/gid_map", std::to_string(group) + " " + std::to_string(group) + " 1");
    }
    // What is mounted here is nobody else's business.
    mounted_ = mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               mount("none", path.c_str(), "tmpfs", 0, "size=4m") == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  const std::string path_;
  bool mounted_ = false;
};

TEST_F(VmbusCopy, GoesOnWhenTheDiskIsReallyFull) {
  const TemporaryDirectory received;
  const SmallDisk disk(received.path());
  if (!disk.mounted()) GTEST_SKIP() << "no file system can be mounted: " << std::strerror(errno);
  const std::string address = "unix:" + files_.File("bus");
  Process server(
      {"serve", "--bus", address, "--json", "--directory", received.path(), "--ready-fd", "3"});
  ASSERT_EQ(server.NextLine(), "ready " + address);
  const std::string large = Generate("large", "8M");
  const std::string half = Generate("half", "3M");
  for (int round = 0; round < 2; ++round) {
    const Finished copy = RunVmbus({"copy", "--bus", address, large});
    EXPECT_EQ(copy.exit_code, 1) << copy.out;
    EXPECT_NE(copy.error.find("No space left"), std::string::npos) << copy.error;
    EXPECT_TRUE(received.Entries().empty());
    // What had been written is gone: there is room again.
    EXPECT_EQ(RunVmbus({"copy", "--bus", address, half}).exit_code, 0);
    EXPECT_EQ(ReadFile(received.File("half")), ReadFile(half));
    std::filesystem::remove(received.File("half"));
  }
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait().exit_code, 0);
}

TEST_F(VmbusCopy, RefusesWhatIsNotARegularFile) {
  EXPECT_EQ(RunVmbus({"copy", "--bus", "unix:/x", files_.File("none")}).exit_code, 1);
  EXPECT_EQ(RunVmbus({"copy", "--bus", "unix:/x", files_.path()}).exit_code, 1);
}

TEST_F(VmbusCopy, GeneratesTheSameBytesForTheSameSeed) {
  const std::string first = Generate("first", "100003");
  const std::string second = Generate("second", "100003");
  const std::string third = files_.File("third");
  EXPECT_EQ(RunVmbus({"generate", third, "--bytes", "100003", "--seed", "2"}).exit_code, 0);
  EXPECT_EQ(ReadFile(first).size(), 100003u);
  EXPECT_EQ(ReadFile(first), ReadFile(second));
  EXPECT_NE(ReadFile(first), ReadFile(third));
}

TEST_F(VmbusCopy, ShowsProgressOnlyWhenAsked) {
  ServedBus bus;
  const std::string path = Generate("data", "1M");
  EXPECT_EQ(RunVmbus({"copy", "--bus", bus.address(), path}).error, "");
  const Finished copy = RunVmbus({"copy", "--bus", bus.address(), path, "--progress"});
  EXPECT_NE(copy.error.find("100 %"), std::string::npos) << copy.error;
}

TEST_F(VmbusCopy, CtrlCEndsItAndLeavesNoHalfFile) {
  ServedBus bus;
  const std::string path = files_.File("huge");
  WriteSparseFile(path, std::uint64_t{8} << 30);
  Process copy({"copy", "--bus", bus.address(), path, "--progress-fd", "3", "--json"});
  ASSERT_TRUE(copy.MakesProgress());
  copy.Signal(SIGINT);
  const Finished finished = copy.Wait();
  EXPECT_EQ(finished.exit_code, 130) << finished.out << finished.error;
  const auto object = finished.Json();
  EXPECT_EQ(object["transactions"]["unanswered"], 0);
  EXPECT_EQ(object["transactions"]["completed_twice"], 0);
  EXPECT_EQ(object["counters_agree"], true);
  bus.Stop();  // has seen the end of the client when it ends
  EXPECT_TRUE(bus.received().Entries().empty());
}

}  // namespace
}  // namespace kmcl::tests
