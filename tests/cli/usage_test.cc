// What the command says about itself, and how it refuses what makes no sense.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "process.h"

namespace kmcl::tests {
namespace {

TEST(VmbusUsage, HelpExplainsTheExitCodesAndShowsAnExample) {
  const Finished help = RunVmbus({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_NE(help.out.find("Exit codes:"), std::string::npos);
  EXPECT_NE(help.out.find("130"), std::string::npos);
  EXPECT_NE(help.out.find("Example:"), std::string::npos);
}

TEST(VmbusUsage, EveryCommandHasHelpWithAnExample) {
  for (const char* command :
       {"serve", "list", "ping", "copy", "cat", "perf", "generate", "vm", "guest"}) {
    const Finished help = RunVmbus({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_NE(help.out.find("Example:\n  vmbus " + std::string(command)), std::string::npos)
        << command;
  }
}

TEST(VmbusUsage, SaysItsVersion) {
  const Finished version = RunVmbus({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_TRUE(version.out.starts_with("vmbus ")) << version.out;
}

TEST(VmbusUsage, RefusesCommandLinesThatMakeNoSenseWithTwo) {
  using Arguments = std::vector<std::string>;
  for (const Arguments& arguments :
       {Arguments{}, Arguments{"dance"}, Arguments{"list", "--loud"}, Arguments{"copy"},
        Arguments{"ping", "--bus", "unix:/x", "--size", "7"},
        Arguments{"ping", "--bus", "unix:/x", "--size", "65537"},
        Arguments{"ping", "--bus", "unix:/x", "--count", "0"},
        Arguments{"ping", "--bus", "unix:/x", "--wait", "dream"}, Arguments{"perf", "--sizes", "4"},
        Arguments{"cat", "--bus", "unix:/x", "--type", "nothing-of-that-name"},
        Arguments{"cat", "--bus", "unix:/x", "--instance", "12"}, Arguments{"vm"},
        Arguments{"vm", "--kernel", "/x", "--device", "echo,floppy"},
        Arguments{"vm", "--kernel", "/x", "--cpus", "0"},
        Arguments{"vm", "--kernel", "/x", "--max-version", "9.9"},
        Arguments{"vm", "--kernel", "/x", "--synic", "none"}}) {
    const Finished refused = RunVmbus(arguments);
    EXPECT_EQ(refused.exit_code, 2) << testing::PrintToString(arguments);
    EXPECT_FALSE(refused.error.empty());
  }
}

TEST(VmbusUsage, AMachineSaysWhatIsWrongWithItsKernel) {
  const Finished missing = RunVmbus({"vm", "--kernel", "/nothing/here", "--console", "none"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.error.find("/nothing/here"), std::string::npos) << missing.error;
  const Finished none = RunVmbus({"vm", "--kernel", VMBUS_COMMAND, "--console", "none"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_NE(none.error.find("vmlinux"), std::string::npos) << none.error;
}

TEST(VmbusUsage, AsksForABusWhenNoneIsNamed) {
  if (access("/sys/bus/vmbus/devices", F_OK) == 0) {
    GTEST_SKIP() << "this is a guest of Hyper-V: its bus needs no name";
  }
  for (const char* command : {"serve", "list", "ping", "cat"}) {
    const Finished refused = RunVmbus({command});
    EXPECT_EQ(refused.exit_code, 2) << command;
    EXPECT_NE(refused.error.find("KMCL_BUS"), std::string::npos) << refused.error;
  }
}

TEST(VmbusUsage, RefusesAnAddressThatIsNone) {
  for (const char* command : {"serve", "list", "ping"}) {
    const Finished refused = RunVmbus({command, "--bus", "nonsense"});
    EXPECT_EQ(refused.exit_code, 2) << command << refused.error;
    EXPECT_NE(refused.error.find("nonsense"), std::string::npos) << refused.error;
  }
}

TEST(VmbusUsage, SaysThatNobodyServesTheBus) {
  const TemporaryDirectory directory;
  const std::string address = "unix:" + directory.File("bus");
  const Finished refused = RunVmbus({"list", "--bus", address, "--json"});
  EXPECT_EQ(refused.exit_code, 3);
  const auto object = refused.Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["ok"], false);
  EXPECT_EQ(object["error"]["status"], "STATUS_OBJECT_NAME_NOT_FOUND");
  EXPECT_EQ(RunVmbus({"ping", "--bus", address}).exit_code, 3);
}

TEST(VmbusServe, RefusesADirectoryThatIsNotThere) {
  const TemporaryDirectory directory;
  const Finished refused = RunVmbus(
      {"serve", "--bus", "unix:" + directory.File("bus"), "--directory", directory.File("none")});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.error.find("none"), std::string::npos) << refused.error;
}

TEST(VmbusServe, RefusesABusThatIsServed) {
  ServedBus bus;
  const Finished refused = RunVmbus({"serve", "--bus", bus.address()});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.error.find("served already"), std::string::npos) << refused.error;
  EXPECT_EQ(bus.Stop()["partitions"], 0);
}

TEST(VmbusServe, EndsWithZeroOnCtrlCAndRemovesItsSocket) {
  ServedBus bus;
  bus.server().Signal(SIGINT);
  const Finished finished = bus.server().Wait();
  EXPECT_EQ(finished.exit_code, 0) << finished.error;
  EXPECT_EQ(RunVmbus({"list", "--bus", bus.address()}).exit_code, 3);
}

TEST(VmbusServe, SaysWhoComesAndGoes) {
  ServedBus bus;
  EXPECT_EQ(RunVmbus({"list", "--bus", bus.address()}).exit_code, 0);
  bus.server().Signal(SIGTERM);
  const Finished finished = bus.server().Wait();
  EXPECT_NE(finished.error.find("partition 1 arrived"), std::string::npos) << finished.error;
}

TEST(VmbusList, ListsBothDevices) {
  ServedBus bus;
  const auto object = RunVmbus({"list", "--bus", bus.address(), "--json"}).Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["ok"], true);
  EXPECT_EQ(object["version"], "6.0");
  ASSERT_EQ(object["offers"].size(), 2u);
  std::vector<std::string> names;
  for (const auto& offer : object["offers"]) {
    names.push_back(offer["name"]);
    EXPECT_GE(offer["channel"], 1);
    EXPECT_EQ(offer["interface"].get<std::string>().size(), 36u);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"echo", "file"}));
}

TEST(VmbusList, ListsOnlyTheDevicesThatWereAskedFor) {
  ServedBus bus({"--echo"});
  const auto object = RunVmbus({"list", "--bus", bus.address(), "--json"}).Json();
  ASSERT_EQ(object["offers"].size(), 1u);
  EXPECT_EQ(object["offers"][0]["name"], "echo");
}

TEST(VmbusList, TakesTheBusFromTheEnvironmentAndDrawsNoColoursIntoAPipe) {
  ServedBus bus;
  const Finished list = RunVmbus({"list"}, {{"KMCL_BUS=" + bus.address()}, {}});
  EXPECT_EQ(list.exit_code, 0) << list.error;
  EXPECT_NE(list.out.find("799d7bf1-e70d-4e71-985d-6d8b3acfb175"), std::string::npos) << list.out;
  EXPECT_EQ(list.out.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace kmcl::tests
