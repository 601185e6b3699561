// Strangers at a server's door: a flood of connections, and other users.
#include <gtest/gtest.h>
#include <kmcl/handover.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "busy_ends.h"
#include "child.h"
#include "roles.h"
#include "seeds.h"
#include "survivor.h"

namespace kmcl::kill {
namespace {

class Strangers : public SurvivorTest {
 protected:
  void SetUp() override {
    SurvivorTest::SetUp();
    alarm(300);
  }
};

TEST_F(Strangers, WhoFloodAServerKeepOutNobodyDisturbNobodyAndLeaveNothing) {
  constexpr int kVisits = 20;
  constexpr int kMostTries = 200;
  BusyServer server(around());
  ASSERT_EQ(server.Create(address()), STATUS_SUCCESS);
  Plan plan = MakePlan(Seeds().first);
  plan.cycles = false;
  plan.cleans_up_late = false;  // what is left is to be seen
  server.SetPlan(plan);
  server.SetEchoToo();
  std::optional<Child> client =
      Child::Start(LastingClientRole(plan.seed, address(), DescriptorsAtStart()));
  ASSERT_TRUE(client && client->Hear() == kReady);
  std::optional<Child> visitor = Child::Start(VisitorRole(address(), DescriptorsAtStart()));
  ASSERT_TRUE(visitor);
  const Census before = TakeCensus();
  int tries = 0;
  {
    std::optional<Child> flooder =
        Child::Start(FlooderRole(Seeds().first, address(), DescriptorsAtStart()));
    ASSERT_TRUE(flooder && flooder->Hear() == kReady);
    for (int visits = 0; visits < kVisits && tries < kMostTries;) {
      // One that has connected and was not yet heard may have to make room for the next one, and
      // comes again.
      ++tries;
      visitor->Say(kVisit);
      const std::optional<char> answer = visitor->Hear();
      ASSERT_TRUE(answer);
      if (answer == kVisited) ++visits;
    }
    EXPECT_LT(tries, kMostTries) << "a flood keeps others out";
    client->Say(kVisit);
    EXPECT_EQ(client->Hear(), kVisited) << "a flood disturbs who was here before";
  }
  visitor->Say(kVisit);
  EXPECT_EQ(visitor->Hear(), kVisited);
  // What a stranger sent is let go of by a thread of its own.
  ExpectCensus(before, 5000);
  printf("%d visits in a flood took %d tries.\n", kVisits, tries);
  client->Kill();
  EXPECT_TRUE(client->Wait());
  EXPECT_TRUE(server.WaitUntilAlone());
  EXPECT_EQ(around().faults.Take(), "");
}

TEST_F(Strangers, AnotherUserIsNotLetIn) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  BusyServer server(around());
  ASSERT_EQ(server.Create(address()), STATUS_SUCCESS);
  server.SetEchoOnly();
  const std::string path = address().substr(std::strlen("unix:"));
  ASSERT_EQ(chmod(path.substr(0, path.rfind('/')).c_str(), 0711), 0);
  const auto visit = [&]() -> NTSTATUS {
    std::optional<Child> stranger = Child::Start(StrangerRole(address(), DescriptorsAtStart()));
    return stranger ? stranger->HearStatus().value_or(STATUS_UNSUCCESSFUL) : STATUS_UNSUCCESSFUL;
  };
  const NTSTATUS refused = visit();
  EXPECT_EQ(refused, STATUS_ACCESS_DENIED) << KmclStatusName(refused);
  // Unless the server's owner wants it.
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  const NTSTATUS welcome = visit();
  EXPECT_EQ(welcome, STATUS_SUCCESS) << KmclStatusName(welcome);
  EXPECT_TRUE(server.WaitUntilAlone());
}

TEST_F(Strangers, AnotherUserIsHandedNothing) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  BusyServer server(around());
  ASSERT_EQ(server.Create(address()), STATUS_SUCCESS);
  server.SetEchoOnly();
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  (address().substr(std::strlen("unix:")) + ".door").copy(name.sun_path, sizeof name.sun_path - 1);
  const int door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  ASSERT_EQ(bind(door, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  ASSERT_EQ(listen(door, 1), 0);
  ASSERT_EQ(chmod(name.sun_path, 0666), 0);
  ASSERT_EQ(chmod(address()
                      .substr(std::strlen("unix:"), address().rfind('/') - std::strlen("unix:"))
                      .c_str(),
                  0711),
            0);
  const int caller = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  int connected = -1;
  // The system call, unlike its function in the C library, is for the thread that makes it.
  std::thread stranger([&] {
    if (syscall(SYS_setresuid, 65534, 65534, 65534) != 0) return;
    connected = connect(caller, reinterpret_cast<const sockaddr*>(&name), sizeof name);
  });
  stranger.join();
  ASSERT_EQ(connected, 0) << std::strerror(errno);
  const int accepted = accept4(door, nullptr, nullptr, SOCK_CLOEXEC);
  ASSERT_GE(accepted, 0);
  const NTSTATUS given = server.HandOver(accepted, [](Step) { ADD_FAILURE() << "it was begun"; });
  EXPECT_EQ(given, STATUS_ACCESS_DENIED) << KmclStatusName(given);
  for (const int each : {door, caller, accepted}) close(each);
  unlink(name.sun_path);
}

}  // namespace
}  // namespace kmcl::kill
