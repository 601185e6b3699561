// As many clients as one server takes.
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ends.h"
#include "peer.h"

namespace kmcl::limits {
namespace {

constexpr std::uint32_t kMostPartitions =
    1024;  // MaximumPartitions, as KmclEndpointOptionsInit sets it
constexpr std::uint32_t kProcesses = 8;
constexpr std::uint32_t kClientsPerProcess = kMostPartitions / kProcesses;

// Generous guesses, so that a machine that cannot do it is told from a library that does not: a
// client has three threads, and no end of a connection has more than ten descriptors.
constexpr rlim_t kDescriptorsWanted = kMostPartitions * 10 + 200;
constexpr std::uint64_t kThreadsWanted = kMostPartitions * 4;

// Why this machine cannot do it; empty if it can.
std::string Obstacle() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < kDescriptorsWanted) {
    return "RLIMIT_NOFILE ends at " + std::to_string(limit.rlim_max) + ", " +
           std::to_string(kDescriptorsWanted) + " are wanted";
  }
  limit.rlim_cur = std::max(limit.rlim_cur, kDescriptorsWanted);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return "RLIMIT_NOFILE cannot be raised";
  getrlimit(RLIMIT_NPROC, &limit);
  if (geteuid() != 0 && limit.rlim_cur < kThreadsWanted) {
    return "RLIMIT_NPROC is " + std::to_string(limit.rlim_cur) + ", " +
           std::to_string(kThreadsWanted) + " threads are wanted";
  }
  std::uint64_t pids = kThreadsWanted;
  if (std::ifstream("/sys/fs/cgroup/pids.max") >> pids && pids < kThreadsWanted) {
    return "pids.max is " + std::to_string(pids) + ", " + std::to_string(kThreadsWanted) +
           " threads are wanted";
  }
  return {};
}

// A client with one echo channel that has answered.
class Tenant {
 public:
  explicit Tenant(const char* address) {
    KMCL_ENDPOINT_OPTIONS options = DefaultOptions();
    status_ = KmclClientConnect(address, &options, &client_);
    if (status_ != STATUS_SUCCESS) return;
    channel_.emplace(client_, 0, true, ChannelOptions{}, started_);
    status_ = channel_->status();
    if (status_ == STATUS_SUCCESS) status_ = channel_->Ask(48);
  }
  ~Tenant() {
    channel_.reset();
    KmclClientDestroy(client_);
  }
  Tenant(const Tenant&) = delete;
  Tenant& operator=(const Tenant&) = delete;

  NTSTATUS status() const { return status_; }

 private:
  Count started_;
  KMCL_CLIENT client_ = nullptr;
  std::optional<EchoChannel> channel_;
  NTSTATUS status_;
};

constexpr char kOneLeaves = 'l';

// Holds many tenants; says how they fare, and lets one go when told.
int House(const char* address, const Line& line) {
  if (!line.Hear<char>()) return 1;
  std::vector<std::unique_ptr<Tenant>> tenants;
  NTSTATUS status = STATUS_SUCCESS;
  for (std::uint32_t i = 0; i < kClientsPerProcess && status == STATUS_SUCCESS; ++i) {
    tenants.push_back(std::make_unique<Tenant>(address));
    status = tenants.back()->status();
  }
  line.Say(status);
  const std::optional<char> word = line.Hear<char>();
  if (word == kOneLeaves) {
    tenants.pop_back();
    (void)line.Hear<char>();  // the end
  }
  return 0;
}

// Tries to move in each time it is told to, and says how that went.
int Newcomer(const char* address, const Line& line) {
  while (line.Hear<char>()) {
    const Tenant tenant(address);
    line.Say(tenant.status());
  }
  return 0;
}

TEST(Partitions, AServerTakes1024RefusesTheNextAndTakesItOnceOneHasLeft) {
  if (const std::string obstacle = Obstacle(); !obstacle.empty()) GTEST_SKIP() << obstacle;
  const Address address;
  std::vector<std::unique_ptr<Peer>> houses;
  for (std::uint32_t i = 0; i < kProcesses; ++i) {
    houses.push_back(
        std::make_unique<Peer>([&](const Line& line) { return House(address.text(), line); }));
  }
  Peer newcomer([&](const Line& line) { return Newcomer(address.text(), line); });
  KmclSetLogLevel(KmclLogError);  // the refusal below is meant

  EchoServer server(address.text(), DefaultOptions(), 1, {});
  ASSERT_EQ(server.status(), STATUS_SUCCESS);
  for (const auto& house : houses) house->line().Say('s');
  for (const auto& house : houses) {
    const auto status = house->line().Hear<NTSTATUS>();
    ASSERT_TRUE(status) << "a process of clients has died, or waits for ever";
    ASSERT_STREQ(KmclStatusName(*status), "STATUS_SUCCESS");
  }
  EXPECT_EQ(server.arrived().value(), kMostPartitions);
  EXPECT_EQ(server.packets().value(), kMostPartitions);
  EXPECT_EQ(server.gone().value(), 0u);

  newcomer.line().Say('n');
  auto status = newcomer.line().Hear<NTSTATUS>();
  ASSERT_TRUE(status);
  EXPECT_STREQ(KmclStatusName(*status), "STATUS_CONNECTION_DISCONNECTED");
  EXPECT_EQ(server.arrived().value(), kMostPartitions);

  houses.front()->line().Say(kOneLeaves);
  ASSERT_TRUE(server.gone().WaitFor(1));
  newcomer.line().Say('n');
  status = newcomer.line().Hear<NTSTATUS>();
  ASSERT_TRUE(status);
  EXPECT_STREQ(KmclStatusName(*status), "STATUS_SUCCESS");
  EXPECT_EQ(server.arrived().value(), kMostPartitions + 1);

  houses.clear();  // all of them die
  EXPECT_TRUE(server.gone().WaitFor(kMostPartitions + 1));
  EXPECT_EQ(server.closed().value(), kMostPartitions + 1);
}

}  // namespace
}  // namespace kmcl::limits
