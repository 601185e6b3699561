// vmbus ping and vmbus perf against a server process.
#include <gtest/gtest.h>

#include <csignal>

#include "process.h"

namespace kmcl::tests {
namespace {

TEST(VmbusPing, CompletesEveryTransactionWithItsOwnPayload) {
  ServedBus bus;
  const auto object =
      RunVmbus({"ping", "--bus", bus.address(), "--count", "1000", "--json"}).Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["ok"], true);
  EXPECT_EQ(object["transactions"]["accepted"], 1000);
  EXPECT_EQ(object["transactions"]["completed"], 1000);
  EXPECT_EQ(object["transactions"]["cancelled"], 0);
  EXPECT_EQ(object["payload_mismatches"], 0);
  const auto& latency = object["latency_ns"];
  EXPECT_LE(latency["min"], latency["p50"]);
  EXPECT_LE(latency["p50"], latency["p90"]);
  EXPECT_LE(latency["p90"], latency["p99"]);
  EXPECT_LE(latency["p99"], latency["p99_9"]);
  EXPECT_LE(latency["p99_9"], latency["max"]);
  EXPECT_GT(latency["min"], 0);

  // Both ends count the same packets.
  const auto server = bus.Stop()["devices"]["echo"];
  EXPECT_EQ(server["packets_received"], object["counters"]["packets_sent"]);
  EXPECT_EQ(server["completions_sent"], object["counters"]["completions_received"]);
  // Two bells may be heard as one.
  EXPECT_LE(server["bells_received"], object["counters"]["bells_rung"]);
}

TEST(VmbusPing, WorksForEverySizeAndWindow) {
  ServedBus bus;
  for (const char* size : {"8", "9", "15", "16", "100", "4097", "65536"}) {
    for (const char* window : {"1", "50"}) {
      const auto object = RunVmbus({"ping", "--bus", bus.address(), "--count", "200", "--size",
                                    size, "--window", window, "--json"})
                              .Json();
      ASSERT_TRUE(object.is_object()) << size;
      EXPECT_EQ(object["transactions"]["completed"], 200) << size << " " << window;
      EXPECT_EQ(object["payload_mismatches"], 0) << size << " " << window;
    }
  }
}

TEST(VmbusPing, DrawsPercentilesAndAHistogram) {
  ServedBus bus;
  const Finished ping = RunVmbus({"ping", "--bus", bus.address(), "--count", "100"});
  EXPECT_EQ(ping.exit_code, 0) << ping.error;
  for (const char* part : {"p50", "p99.9", "█", "bells", "100 of 100"}) {
    EXPECT_NE(ping.out.find(part), std::string::npos) << part << " in " << ping.out;
  }
}

TEST(VmbusPing, KeepsAnInterval) {
  ServedBus bus;
  const auto object =
      RunVmbus({"ping", "--bus", bus.address(), "--count", "5", "--interval", "20", "--json"})
          .Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["transactions"]["completed"], 5);
  EXPECT_GE(object["seconds"], 0.080);
}

TEST(VmbusPing, FailsWhenTheBusHasNoEchoDevice) {
  ServedBus bus({"--file"});
  const Finished ping = RunVmbus({"ping", "--bus", bus.address()});
  EXPECT_EQ(ping.exit_code, 1);
  EXPECT_NE(ping.error.find("echo"), std::string::npos) << ping.error;
}

TEST(VmbusPing, EndsWithThreeWhenTheServerLeaves) {
  ServedBus bus;
  // It would run for hours. Wherever in its life the server's end finds it, it ends like this.
  Process ping(
      {"ping", "--bus", bus.address(), "--interval", "10", "--count", "1000000", "--json"});
  bus.server().Signal(SIGTERM);
  const Finished finished = ping.Wait();
  EXPECT_EQ(finished.exit_code, 3) << finished.out << finished.error;
}

TEST(VmbusPing, ClientsDoNotDisturbEachOther) {
  ServedBus bus;
  const std::vector<std::string> arguments = {"ping",    "--bus", bus.address(),
                                              "--count", "2000",  "--json"};
  Process first(arguments);
  Process second(arguments);
  for (Process* process : {&first, &second}) {
    const auto object = process->Wait().Json();
    ASSERT_TRUE(object.is_object());
    EXPECT_EQ(object["transactions"]["completed"], 2000);
    EXPECT_EQ(object["payload_mismatches"], 0);
  }
  const auto server = bus.Stop();
  EXPECT_EQ(server["partitions"], 2);
  EXPECT_EQ(server["devices"]["echo"]["packets_received"], 4000);
}

TEST(VmbusPerf, MeasuresWithAServerOfItsOwn) {
  const auto object =
      RunVmbus({"perf", "--sizes", "8,65536", "--seconds", "0.05", "--json"}).Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["ok"], true) << object;
  ASSERT_EQ(object["results"].size(), 12u);  // three waits, two modes, two sizes
  for (const auto& row : object["results"]) {
    EXPECT_GT(row["packets_per_second"], 0) << row;
    EXPECT_EQ(row.contains("latency_ns"), row["mode"] == "roundtrip");
  }
}

TEST(VmbusPerf, MeasuresTheServerThatIsNamed) {
  ServedBus bus;
  const auto object = RunVmbus({"perf", "--bus", bus.address(), "--sizes", "64", "--seconds",
                                "0.05", "--mode", "stream", "--wait", "sleep", "--json"})
                          .Json();
  ASSERT_TRUE(object.is_object());
  EXPECT_EQ(object["results"].size(), 1u);
  EXPECT_GT(bus.Stop()["devices"]["echo"]["packets_received"], 0);
}

}  // namespace
}  // namespace kmcl::tests
