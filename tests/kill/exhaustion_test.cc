// Processes that run out of descriptors or of address space, at each step of what they do: every
// call gives a documented refusal, nothing is left behind, and it works again as soon as there is
// more.
#include <gtest/gtest.h>
#include <kmcl/handover.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "allowance.h"
#include "busy_ends.h"
#include "child.h"
#include "roles.h"
#include "seeds.h"
#include "survivor.h"

namespace kmcl::kill {
namespace {

#ifdef KMCL_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
// More than anything here needs; a walk ends when all went well.
constexpr std::uint32_t kPlenty = 400;
constexpr std::uint32_t kMostPages = 16 * 1024;  // 64 MiB, about what a visit takes

class Exhaustion : public SurvivorTest {
 protected:
  void SetUp() override {
    SurvivorTest::SetUp();
    alarm(300);
  }

  // A process that has never used the library visits a server while it is poor, and again when it
  // is not. Returns how the first visit went; nothing if a thread of the library's ended the
  // process.
  static std::optional<NTSTATUS> VisitOf(const std::vector<std::string>& role) {
    std::optional<Child> visitor = Child::Start(role);
    EXPECT_TRUE(visitor);
    const std::optional<NTSTATUS> poor = visitor->HearStatus();
    if (!poor) {
      const std::optional<int> status = visitor->Wait();
      EXPECT_TRUE(status && WIFEXITED(*status) && WEXITSTATUS(*status) == kEndedByLibrary)
          << "a poor visitor ended, wait status " << status.value_or(-1);
      return std::nullopt;
    }
    EXPECT_EQ(visitor->Hear(), kVisited)
        << "with enough of all it does not work, or something was left";
    return poor;
  }
};

TEST_F(Exhaustion, AClientWithoutDescriptorsIsToldSoAtEachStep) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers need descriptors of their own";
  std::optional<Child> server = Child::Start(LastingServerRole(1, address(), DescriptorsAtStart()));
  ASSERT_TRUE(server && server->Hear() == kReady);
  std::uint32_t allowed = 0;
  for (; allowed < kPlenty && !HasFailure(); ++allowed) {
    SCOPED_TRACE("with " + std::to_string(allowed) + " descriptors more");
    const auto status = VisitOf(PoorVisitorRole(allowed, address(), DescriptorsAtStart()));
    ASSERT_TRUE(status);
    if (*status == STATUS_SUCCESS) break;
    EXPECT_EQ(*status, STATUS_INSUFFICIENT_RESOURCES) << KmclStatusName(*status);
  }
  printf("A client needs %u descriptors.\n", allowed);
  EXPECT_GT(allowed, 0u);
}

TEST_F(Exhaustion, AClientWithoutAddressSpaceIsToldSoAtEachStep) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers take address space as they like";
  std::optional<Child> server = Child::Start(LastingServerRole(1, address(), DescriptorsAtStart()));
  ASSERT_TRUE(server && server->Hear() == kReady);
  // A hundred amounts for every thousand seeds, and in the end enough.
  Random random(Seeds().first);
  const std::uint64_t count = std::max<std::uint64_t>(10, (Seeds().last - Seeds().first + 1) / 10);
  std::uint64_t refused = 0;
  std::uint64_t ended = 0;
  for (std::uint64_t i = 0; i <= count && !HasFailure(); ++i) {
    const std::uint64_t pages = random.Between(0, kMostPages);
    const std::uint64_t bytes = i < count ? pages * 4096 : std::uint64_t{1} << 32;
    SCOPED_TRACE("with " + std::to_string(bytes) + " bytes more");
    const std::optional<NTSTATUS> status =
        VisitOf(NarrowVisitorRole(bytes, address(), DescriptorsAtStart()));
    if (!status) {
      // Memory that the library's own threads need is not optional (docs/decisions, 006).
      ++ended;
    } else if (*status != STATUS_SUCCESS) {
      ++refused;
      // The latter two from the request, whose channel was enabled and could not be opened: during
      // the request, or before.
      EXPECT_TRUE(*status == STATUS_INSUFFICIENT_RESOURCES || *status == STATUS_DEVICE_REMOVED ||
                  *status == STATUS_INVALID_DEVICE_STATE)
          << KmclStatusName(*status);
    }
    if (i == count) {
      EXPECT_EQ(status, STATUS_SUCCESS);
    }
  }
  printf("Of %llu clients with little memory %llu were refused, %llu were ended by the library.\n",
         static_cast<unsigned long long>(count), static_cast<unsigned long long>(refused),
         static_cast<unsigned long long>(ended));
  EXPECT_GT(refused, 0u);
}

TEST_F(Exhaustion, AServerWithoutDescriptorsRefusesAndServesAsSoonAsThereAreSome) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers need descriptors of their own";
  std::optional<Child> visitor = Child::Start(VisitorRole(address(), DescriptorsAtStart()));
  ASSERT_TRUE(visitor);
  static std::atomic<const Allowance*> allowance;
  // A client that can be neither accepted nor refused waits for the descriptors. Here they come.
  KmclSetLogSink(
      [](PVOID, KMCL_LOG_LEVEL, const char* line) {
        const Allowance* const few = allowance;
        if (strstr(line, "cannot accept a client") != nullptr && few != nullptr) few->Lift();
      },
      nullptr);
  const auto visit = [&] {
    visitor->Say(kVisit);
    return visitor->Hear();
  };
  std::uint32_t refused = 0;
  bool done = false;
  for (std::uint32_t allowed = 0; allowed < kPlenty && !done && !HasFailure(); ++allowed) {
    SCOPED_TRACE("with " + std::to_string(allowed) + " descriptors more");
    const Census before = TakeCensus();
    {
      BusyServer server(around());
      server.SetEchoOnly();
      const Allowance few = Allowance::OfDescriptors(allowed);
      allowance = &few;
      const NTSTATUS status = server.Create(address());
      if (status == STATUS_SUCCESS) {
        done = visit() == kVisited;
        if (!done) ++refused;
        few.Lift();
        EXPECT_EQ(visit(), kVisited) << "there are descriptors again, and nobody is served";
        EXPECT_TRUE(server.WaitUntilAlone());
      } else {
        EXPECT_EQ(status, STATUS_INSUFFICIENT_RESOURCES) << KmclStatusName(status);
      }
      allowance = nullptr;
    }
    ExpectCensus(before, 5000);
    EXPECT_EQ(around().faults.Take(), "");
  }
  EXPECT_TRUE(done);
  printf("A client was refused with %u different numbers of descriptors.\n", refused);
  EXPECT_GT(refused, 0u);
}

TEST_F(Exhaustion, AHandoverWithoutDescriptorsLeavesTheOldServerServing) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers need descriptors of their own";
  Plan plan;
  plan.seed = 1;
  plan.channel_count = 2;
  plan.transactions_per_channel = 4;
  auto server = std::make_unique<BusyServer>(around());
  server->SetPlan(plan);
  ASSERT_EQ(server->Create(address()), STATUS_SUCCESS);
  BusyClient client(around());
  ASSERT_EQ(client.Open(address(), plan), STATUS_SUCCESS);
  std::uint32_t allowed = 0;
  for (bool done = false; allowed < kPlenty && !done && !HasFailure(); ++allowed) {
    SCOPED_TRACE("with " + std::to_string(allowed) + " descriptors more");
    EXPECT_TRUE(client.StillWorks());
    const Census before = TakeCensus();
    auto successor = std::make_unique<BusyServer>(around());
    successor->SetPlan(plan);
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    NTSTATUS given = STATUS_SUCCESS;
    NTSTATUS taken = STATUS_SUCCESS;
    {
      const Allowance few = Allowance::OfDescriptors(allowed);
      std::thread old([&] { given = server->HandOver(ends[0], [](Step) {}); });
      taken = successor->TakeOver(ends[1], [](Step) { return STATUS_SUCCESS; });
      old.join();
    }
    close(ends[0]);
    close(ends[1]);
    if (taken == STATUS_SUCCESS) {
      EXPECT_EQ(given, STATUS_SUCCESS) << KmclStatusName(given);
      server = std::move(successor);
      done = true;
    } else {
      // One of them had too few, and the other one was told.
      const auto short_of = STATUS_INSUFFICIENT_RESOURCES;
      const auto told = STATUS_CONNECTION_DISCONNECTED;
      EXPECT_TRUE((given == short_of && taken == told) || (given == told && taken == short_of))
          << KmclStatusName(given) << ", " << KmclStatusName(taken);
      EXPECT_TRUE(successor->WaitUntilAlone());
      successor.reset();
      ExpectCensus(before, 5000);
    }
  }
  printf("A handover needs %u descriptors in both processes.\n", allowed);
  EXPECT_GT(allowed, 1u);
  EXPECT_TRUE(client.StillWorks());
  EXPECT_EQ(around().faults.Take(), "");
}

}  // namespace
}  // namespace kmcl::kill
