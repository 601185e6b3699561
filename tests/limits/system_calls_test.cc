// An open, busy channel makes no system calls: both processes are traced, all their threads, over
// 100,000 transactions.
#include <errno.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ends.h"
#include "fast_path.h"
#include "peer.h"

namespace kmcl::limits {
namespace {

constexpr unsigned kLongestTraceSeconds = 120;
constexpr int kSystemCallStop = SIGTRAP | 0x80;  // with PTRACE_O_TRACESYSGOOD

// Traces children of this process. Its destructor ends them: a tracer has to collect each thread.
class Tracer {
 public:
  ~Tracer() {
    for (const pid_t process : processes_) kill(process, SIGKILL);
    for (std::set<pid_t> left = processes_; !left.empty();) {
      int status = 0;
      const pid_t ended = waitpid(-1, &status, __WALL);
      if (ended < 0) break;
      if (WIFEXITED(status) || WIFSIGNALED(status)) left.erase(ended);
    }
  }

  // All threads of `process`. An errno on failure.
  int Attach(pid_t process) {
    const std::string tasks = "/proc/" + std::to_string(process) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      const pid_t thread = std::stoi(task.path().filename());
      if (ptrace(PTRACE_SEIZE, thread, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE) != 0) {
        if (errno == ESRCH) continue;  // an idle passive thread has just gone
        return errno;
      }
      processes_.insert(process);
      // The stop that this makes is answered by the loop below.
      if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0 && errno != ESRCH) return errno;
    }
    return 0;
  }

  // Lets them run until the second mark; counts system calls by thread and number from the first.
  // False when a process ended first, or the time was up.
  bool Run(const BusyState& state) {
    for (;;) {
      int status = 0;
      const pid_t thread = waitpid(-1, &status, __WALL);
      if (thread < 0) return false;
      if (!WIFSTOPPED(status)) {
        if (processes_.erase(thread) != 0) return false;
        continue;  // one of its threads: idle passive ones go
      }
      int signal = 0;
      if (WSTOPSIG(status) == kSystemCallStop) {
        if (IsEnd(thread, state)) return true;
      } else if (status >> 16 == 0) {
        signal = WSTOPSIG(status);  // one that is meant for the process
      }
      if (ptrace(PTRACE_SYSCALL, thread, nullptr, signal) != 0 && errno != ESRCH) return false;
    }
  }

  const std::map<std::pair<pid_t, std::uint64_t>, std::uint64_t>& counts() const { return counts_; }

 private:
  bool IsEnd(pid_t thread, const BusyState& state) {
    __ptrace_syscall_info info{};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY) {
      return false;
    }
    if (info.entry.nr == static_cast<std::uint64_t>(BeaconCall())) {
      return state.phase == Phase::kAfter;
    }
    if (state.phase == Phase::kBetween) ++counts_[{thread, info.entry.nr}];
    return false;
  }

  std::set<pid_t> processes_;
  std::map<std::pair<pid_t, std::uint64_t>, std::uint64_t> counts_;
};

class SystemCalls : public testing::TestWithParam<std::uint32_t> {};

TEST_P(SystemCalls, AreNotMadeOnABusyChannelThatIsPolledAtBothEnds) {
#ifdef KMCL_SANITIZED
  GTEST_SKIP() << "a sanitizer makes system calls of its own";
#endif
  const Address address;
  BusyState& state = *BusyState::Make();
  Peer server([&](const Line& line) { return RunBusyServer(address.text(), state, line); });
  Peer client(
      [&](const Line& line) { return RunBusyClient(address.text(), state, GetParam(), line); });
  ASSERT_EQ(server.line().Hear<char>(), 'r');
  client.line().Say('s');
  ASSERT_EQ(client.line().Hear<char>(), 'b') << "the channel does not become busy";

  {
    Tracer tracer;
    int refused = tracer.Attach(server.pid());
    if (refused == 0) refused = tracer.Attach(client.pid());
    if (refused == EPERM || refused == ENOSYS) {
      GTEST_SKIP() << "ptrace is not allowed here: " << strerror(refused);
    }
    ASSERT_EQ(refused, 0) << strerror(refused);
    server.Leave();  // the tracer's destructor ends them
    client.Leave();
    state.may_begin = true;
    struct sigaction on_alarm {};
    on_alarm.sa_handler = [](int) {};  // ends the wait
    sigaction(SIGALRM, &on_alarm, nullptr);
    alarm(kLongestTraceSeconds);
    EXPECT_TRUE(tracer.Run(state))
        << "the second mark was not reached; transactions: " << state.transactions;
    alarm(0);
    for (const auto& [where, count] : tracer.counts()) {
      const auto [thread, number] = where;
      // For want of packets: whoever is to send them was kept from running, as tracing does.
      if (number == SYS_sched_yield) continue;
      const bool is_server = thread == state.server_dispatch_thread;
      if (!is_server && thread != state.client_dispatch_thread) {
        // Another thread is not on a packet's way; it resumes the wait that attaching interrupted,
        // or goes because it has nothing to do.
        continue;
      }
      ADD_FAILURE() << "the " << (is_server ? "server" : "client")
                    << "'s dispatch thread made system call " << number << " " << count
                    << " times in " << kMarkedTransactions << " transactions";
    }
  }
}

// Alone on the server; and beside so many idle clients that not all of their bells are looked at in
// each round.
INSTANTIATE_TEST_SUITE_P(Bystanders, SystemCalls, testing::Values(0, 8), [](const auto& each) {
  return std::to_string(each.param) + "IdleClients";
});

}  // namespace
}  // namespace kmcl::limits
