// A peer that stands still (SIGSTOP) and later goes on. It is alive, so that nothing is to be given
// up; but whatever we do meanwhile must neither wait for it nor burn the processor.
//
// KMCL_STOP_SECONDS=N lets it stand still for N seconds instead of a moment.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "busy_ends.h"
#include "child.h"
#include "roles.h"
#include "seeds.h"
#include "survivor.h"

namespace kmcl::kill {
namespace {

constexpr std::int64_t kMomentNs = 100'000'000;
constexpr auto kPatience = std::chrono::seconds(10);

std::int64_t StopNs() {
  const char* const seconds = getenv("KMCL_STOP_SECONDS");
  return seconds == nullptr ? kMomentNs : atoll(seconds) * 1'000'000'000;
}

std::int64_t CpuNs() {
  timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return std::int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec;
}

// Stopped from here to the end of the scope, or to Continue.
class Standstill {
 public:
  explicit Standstill(pid_t pid) : pid_(pid) {
    EXPECT_EQ(::kill(pid, SIGSTOP), 0);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, WUNTRACED), pid);
    EXPECT_TRUE(WIFSTOPPED(status)) << "the peer ended by itself, wait status " << status;
  }
  ~Standstill() { Continue(); }
  Standstill(const Standstill&) = delete;
  Standstill& operator=(const Standstill&) = delete;

  void Continue() {
    if (pid_ > 0) ::kill(pid_, SIGCONT);
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

class StoppedPeer : public SurvivorTest {
 protected:
  // Any seed's, of ends that stay open.
  static std::vector<Plan> Plans() {
    std::vector<Plan> plans;
    // Each takes its time; a few of every thousand.
    for (std::uint64_t seed = Seeds().first; seed <= Seeds().last && plans.size() < 5; ++seed) {
      Plan plan = MakePlan(seed);
      plan.moment = Moment::kTimer;
      plan.cycles = false;
      plan.victim = Victim::kServer;
      plans.push_back(plan);
    }
    return plans;
  }

  // This process has nothing to do but to wait: it is to use next to no processor time.
  static void ExpectIdle() {
    // What was under way comes to its end first: full rings, answers.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::int64_t begin = NowNs();
    const std::int64_t used = CpuNs();
    std::this_thread::sleep_for(std::chrono::nanoseconds(StopNs()));
    const double share = static_cast<double>(CpuNs() - used) / static_cast<double>(NowNs() - begin);
    EXPECT_LT(share, 0.25) << "a loop asks for a peer that stands still";
    if (share > most_used_) most_used_ = share;
  }

  // Runs `leave`, which must come back although the peer stands still.
  template <typename Leave>
  static void ExpectReturn(const char* what, Standstill& standstill, Leave leave) {
    std::packaged_task<void()> task(std::move(leave));
    auto done = task.get_future();
    std::thread thread(std::move(task));
    EXPECT_EQ(done.wait_for(kPatience), std::future_status::ready)
        << what << " waits for a peer that stands still";
    if (HasFailure()) standstill.Continue();  // else it would wait for ever
    thread.join();
  }

  static void TearDownTestSuite() {
    printf("While the peer stood still, at most %.2f %% of a processor were used.\n",
           100 * most_used_);
  }

  // The client's channels are closed, now or soon. What it was answered before may do for a visit.
  static void ExpectUnserved(Child& client) {
    std::optional<char> heard = kVisited;
    for (int visits = 0; heard == kVisited && visits < 10; ++visits) {
      client.Say(kVisit);
      heard = client.Hear();
    }
    EXPECT_EQ(heard, kUnserved);
  }

  std::optional<Child> StartServer(const Plan& plan) {
    auto server = Child::Start(LastingServerRole(plan.seed, address(), DescriptorsAtStart()));
    EXPECT_TRUE(server && server->Hear() == kReady);
    return server;
  }

  static inline double most_used_ = 0;
};

TEST_F(StoppedPeer, AServerThatStandsStillIsWaitedForAndMissesNothing) {
  ForEach(Plans(), [this](const Plan& plan) {
    alarm(0);  // it may last minutes
    std::optional<Child> server = StartServer(plan);
    BusyClient client(around());
    ASSERT_EQ(client.Open(address(), plan), STATUS_SUCCESS);
    EXPECT_TRUE(client.StillWorks());
    {
      Standstill standstill(server->pid());
      ExpectIdle();
      EXPECT_TRUE(client.is_connected());
    }
    EXPECT_TRUE(client.StillWorks())
        << "what was sent to a server that stood still has not arrived";
  });
}

// The server may write to the client's memory until it has said that it let go of it. So the client
// waits; that is the protocol's, and Windows' and Linux' clients do the same.
TEST_F(StoppedPeer, AClientThatLeavesAServerThatStandsStillWaitsForItAndUsesNoProcessor) {
  ForEach(Plans(), [this](const Plan& plan) {
    alarm(0);
    const Census before = TakeCensus();
    {
      std::optional<Child> server = StartServer(plan);
      auto client = std::make_unique<BusyClient>(around());
      ASSERT_EQ(client->Open(address(), plan), STATUS_SUCCESS);
      EXPECT_TRUE(client->StillWorks());
      std::future<void> left;
      {
        Standstill standstill(server->pid());
        left = std::async(std::launch::async, [&] { client.reset(); });
        ExpectIdle();
      }
      EXPECT_EQ(left.wait_for(kPatience), std::future_status::ready)
          << "the server goes on, and the client still waits";
      const NTSTATUS status = Visit(address());
      EXPECT_EQ(status, STATUS_SUCCESS) << KmclStatusName(status);
    }
    ExpectCensus(before, 0);
  });
}

TEST_F(StoppedPeer, AServerServesOthersAndRevokesTheChannelsOfAClientThatStandsStill) {
  BusyServer server(around());
  ASSERT_EQ(server.Create(address()), STATUS_SUCCESS);
  server.SetEchoToo();
  ForEach(Plans(), [&](const Plan& plan) {
    alarm(0);
    server.SetPlan(plan);
    std::optional<Child> client =
        Child::Start(LastingClientRole(plan.seed, address(), DescriptorsAtStart()));
    ASSERT_TRUE(client);
    ASSERT_EQ(client->Hear(), kReady);
    {
      Standstill standstill(client->pid());
      ExpectIdle();
      const NTSTATUS status = Visit(address());
      EXPECT_EQ(status, STATUS_SUCCESS) << KmclStatusName(status);
    }
    // All that the client waited for comes: it says so again.
    client->Say(kVisit);
    EXPECT_EQ(client->Hear(), kVisited);
    {
      Standstill standstill(client->pid());
      ExpectReturn("a disable", standstill, [&] { server.Disable(); });
    }
    // It notices, and its accounts are right.
    ExpectUnserved(*client);
    client->Kill();
    EXPECT_TRUE(client->Wait());
    EXPECT_TRUE(server.WaitUntilAlone());
  });
}

TEST_F(StoppedPeer, AServerGoesAwayFromAClientThatStandsStill) {
  ForEach(Plans(), [&](const Plan& plan) {
    const Census before = TakeCensus();
    {
      auto server = std::make_unique<BusyServer>(around());
      ASSERT_EQ(server->Create(address()), STATUS_SUCCESS);
      Plan prompt = plan;
      prompt.cleans_up_late = false;  // the channels go before the server does
      server->SetPlan(prompt);
      std::optional<Child> client =
          Child::Start(LastingClientRole(plan.seed, address(), DescriptorsAtStart()));
      ASSERT_TRUE(client);
      ASSERT_EQ(client->Hear(), kReady);
      {
        Standstill standstill(client->pid());
        ExpectReturn("a destroy", standstill, [&] { server.reset(); });
      }
      ExpectUnserved(*client);
    }
    ExpectCensus(before, 5000);
  });
}

}  // namespace
}  // namespace kmcl::kill
