// A guest that does everything that it should not (bare/hostile.c) beside one that behaves, in one
// process, with every device there is coming and going under the former. Nothing of that may crash,
// hang, stay mapped, fill the log, or keep either guest's echo channel from working.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cli/guest_devices.h"
#include "vmm/machine.h"

namespace kmcl {
namespace {

std::vector<std::byte> Kernel() {
  std::ifstream file(KMCL_BARE_GUEST, std::ios::binary);
  std::vector<std::byte> bytes;
  for (std::istreambuf_iterator<char> at(file), end; at != end; ++at) {
    bytes.push_back(static_cast<std::byte>(*at));
  }
  return bytes;
}

std::size_t OpenDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// How many pieces of files without a name this process has mapped: guests' memory, and nothing
// else.
std::size_t MappedPieces() {
  std::ifstream maps("/proc/self/maps");
  std::size_t pieces = 0;
  for (std::string line; std::getline(maps, line);) pieces += line.contains("/memfd:") ? 1 : 0;
  return pieces;
}

// What the library says, kept and counted.
class CaughtLog {
 public:
  CaughtLog() {
    KmclSetLogLevel(KmclLogInfo);
    KmclSetLogSink(
        [](PVOID context, KMCL_LOG_LEVEL, const char* line) {
          auto* self = static_cast<CaughtLog*>(context);
          const std::lock_guard lock(self->mutex_);
          self->lines_.emplace_back(line);
        },
        this);
  }
  ~CaughtLog() {
    KmclSetLogSink(nullptr, nullptr);
    KmclSetLogLevel(KmclLogWarning);
  }
  std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

struct Plan {
  std::string command_line;
  std::string devices;
  unsigned cpus = 1;
};

// A machine that runs on a thread of its own until its guest powers it off.
class RunningMachine {
 public:
  static std::unique_ptr<RunningMachine> Boot(const Plan& wanted) {
    std::unique_ptr<RunningMachine> made(new RunningMachine(wanted.devices));
    vmm::MachinePlan plan;
    plan.memory_bytes = std::uint64_t{32} << 20;
    plan.cpu_count = wanted.cpus;
    plan.kernel = Kernel();
    plan.command_line = wanted.command_line;
    plan.console = [raw = made.get()](std::byte byte) { raw->Put(static_cast<char>(byte)); };
    KmclEndpointOptionsInit(&plan.bus.endpoint);
    made->devices_.Serve(plan.bus.endpoint);
    auto machine = vmm::Machine::Create(std::move(plan));
    EXPECT_TRUE(machine.has_value()) << machine.error();
    if (!machine) return nullptr;
    made->machine_ = std::move(*machine);
    made->pieces_ = MappedPieces();
    made->thread_ = std::thread([raw = made.get()] {
      const auto end = raw->machine_->Run();
      const std::lock_guard lock(raw->mutex_);
      raw->end_ = end;
      raw->changed_.notify_all();
    });
    return made;
  }
  ~RunningMachine() {
    if (thread_.joinable()) {
      machine_->Stop();
      thread_.join();
    }
    devices_.RevokeAll();
  }

  // A guest that hangs is stopped after a while, and ends otherwise than by power-off.
  vmm::MachineEnd AwaitEnd() {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::seconds(150), [this] { return end_.has_value(); });
    }
    machine_->Stop();
    thread_.join();
    return *end_;
  }
  void AwaitLine(const std::string& text) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] {
      return said_.contains(text);
    })) << said_;
  }
  void PressKey() {
    const std::byte key{'q'};
    machine_->SendInput({&key, 1});
  }
  std::string said() const {
    const std::lock_guard lock(mutex_);
    return said_;
  }
  // What it printed behind `name`.
  std::uint64_t Number(const std::string& name) const {
    const std::string all = said();
    const auto at = all.find(name + " ");
    return at == std::string::npos ? 0 : std::stoull(all.substr(at + name.size() + 1));
  }
  cli::GuestDevices& devices() { return devices_; }

 private:
  explicit RunningMachine(const std::string& names)
      : devices_(OptionsFor(names), [](const std::string&) {}) {}
  static cli::GuestDeviceOptions OptionsFor(const std::string& names) {
    cli::GuestDeviceOptions options;
    EXPECT_TRUE(cli::AddGuestDevices(options.choice, names).has_value());
    return options;
  }
  void Put(char letter) {
    const std::lock_guard lock(mutex_);
    said_ += letter;
    if (letter == '\n') changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string said_;                    // under mutex_
  std::optional<vmm::MachineEnd> end_;  // under mutex_
  cli::GuestDevices devices_;
  std::unique_ptr<vmm::Machine> machine_;
  std::thread thread_;
  std::size_t pieces_ = 0;
};

// Takes devices away and offers them again, as fast as that goes, until it is destroyed.
class Plugger {
 public:
  explicit Plugger(cli::GuestDevices& devices) : thread_([this, &devices] { Run(devices); }) {}
  ~Plugger() {
    stop_.store(true);
    thread_.join();
  }

 private:
  void Run(cli::GuestDevices& devices) {
    while (!stop_.load()) {
      for (const char* name : {"heartbeat", "shutdown", "timesync", "kvp", "vss", "fcopy"}) {
        EXPECT_TRUE(devices.Remove(name).has_value()) << name;
        // A guest that gives no numbers back may have them all.
        for (auto added = devices.Add(name); !added && !stop_.load(); added = devices.Add(name)) {
        }
      }
    }
  }

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

constexpr const char* kAllDevices = "echo,heartbeat=20,shutdown,timesync,kvp,vss,fcopy";

class HostileGuest : public testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() { signal(SIGPIPE, SIG_IGN); }
  void SetUp() override {
    if (access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "there is no /dev/kvm to be used";
    vmm::MachinePlan plan;
    plan.memory_bytes = vmm::kMinimumMemoryBytes;
    plan.kernel = Kernel();
    KmclEndpointOptionsInit(&plan.bus.endpoint);
    if (const auto machine = vmm::Machine::Create(std::move(plan)); !machine) {
      GTEST_SKIP() << machine.error();
    }
  }
  // As many as a test run has time for; more by the environment.
  static int Attacks() {
    const char* const wanted = std::getenv("KMCL_HOSTILE_ATTACKS");
    return wanted != nullptr ? std::atoi(wanted) : 100;
  }
};

TEST_P(HostileGuest, HarmsNobody) {
  const int seed = GetParam();
  const std::size_t descriptors = OpenDescriptors();
  const std::size_t pieces = MappedPieces();
  const CaughtLog log;
  std::uint64_t messages = 0;
  {
    const auto calm = RunningMachine::Boot({.command_line = "calm=1 seed=99", .devices = "echo"});
    ASSERT_NE(calm, nullptr);
    calm->AwaitLine("connected");
    const auto hostile = RunningMachine::Boot(
        {.command_line = "seed=" + std::to_string(seed) + " attacks=" + std::to_string(Attacks()) +
                         (seed % 2 == 0 ? " version=393216" : ""),
         .devices = kAllDevices,
         .cpus = 1 + static_cast<unsigned>(seed) % 2});
    ASSERT_NE(hostile, nullptr);
    {
      const Plugger plugger(hostile->devices());
      EXPECT_EQ(hostile->AwaitEnd(), vmm::MachineEnd::kPowerOff) << hostile->said();
    }
    calm->PressKey();
    EXPECT_EQ(calm->AwaitEnd(), vmm::MachineEnd::kPowerOff) << calm->said();
    EXPECT_EQ(hostile->Number("echoes"), static_cast<std::uint64_t>(Attacks()));
    EXPECT_GT(calm->Number("echoes"), 0u);
    messages = hostile->Number("messages");
    EXPECT_GT(messages, static_cast<std::uint64_t>(Attacks()));
    std::printf("%scalm: %s", hostile->said().c_str(), calm->said().c_str());
    hostile->devices().RevokeAll();
    calm->devices().RevokeAll();
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
  EXPECT_EQ(MappedPieces(), pieces);
  // What was refused is told with its number; but the more there is, the less is said of each.
  std::size_t refusals = 0;
  for (const std::string& line : log.lines()) refusals += line.contains("refused so far") ? 1 : 0;
  EXPECT_TRUE(std::ranges::any_of(log.lines(), [](const std::string& line) {
    return line.contains("none of the client's memory");
  }));
  EXPECT_GT(refusals, 10u);
  EXPECT_LT(refusals, 150u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, HostileGuest, testing::Values(1, 2, 3),
                         [](const auto& each) { return std::to_string(each.param); });

}  // namespace
}  // namespace kmcl
