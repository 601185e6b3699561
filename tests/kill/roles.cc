#include "roles.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstring>

#include "busy_ends.h"
#include "child.h"
#include "plan.h"

namespace kmcl::kill {
namespace {

constexpr const char* kRoleFlag = "--role";
// A child whose parent neither kills it nor dies is a bug; this ends it.
constexpr unsigned kLongestLifeSeconds = 60;

std::vector<std::string> Role(const char* name, std::uint64_t seed, const std::string& address,
                              int descriptors) {
  return {kRoleFlag, name, std::to_string(seed), address, std::to_string(descriptors)};
}

int Fail(const char* role, const char* what) {
  fprintf(stderr, "kill_test, %s: %s\n", role, what);
  return EXIT_FAILURE;
}

void Say(char word) { (void)!write(kLineFd, &word, 1); }

// The channels go on by themselves, until the kill.
[[noreturn]] void BeBusy() {
  for (;;) pause();
}

int BeBusyClient(const Plan& plan, const std::string& address, Surroundings& around) {
  around.kill_switch.Arm(plan, KillSwitch::Role::kVictim, getpid(), around.killed_ns);
  if (plan.moment == Moment::kTimer && !KillSelfAfter(plan.timer_us, around.killed_ns)) {
    return Fail("client", "no timer");
  }
  BusyClient client(around);
  if (const NTSTATUS status = client.Open(address, plan); status != STATUS_SUCCESS) {
    return Fail("client", KmclStatusName(status));
  }
  if (plan.cycles) client.Cycle(-1);
  BeBusy();
}

int BeServer(const Plan* plan, const std::string& address, Surroundings& around) {
  BusyServer server(around);
  if (plan != nullptr) {
    server.SetPlan(*plan);
    around.kill_switch.Arm(*plan, KillSwitch::Role::kVictim, getpid(), around.killed_ns);
  } else {
    server.SetEchoOnly();
  }
  if (const NTSTATUS status = server.Create(address); status != STATUS_SUCCESS) {
    return Fail("server", KmclStatusName(status));
  }
  Say(kReady);  // before the timer, which may be a short one
  if (plan != nullptr && plan->moment == Moment::kTimer &&
      !KillSelfAfter(plan->timer_us, around.killed_ns)) {
    return Fail("server", "no timer");
  }
  BeBusy();
}

int BeVisitor(const std::string& address) {
  char word = 0;
  while (read(kLineFd, &word, 1) == 1) {
    alarm(kLongestLifeSeconds);
    const NTSTATUS status = Visit(address);
    if (status != STATUS_SUCCESS) Fail("visitor", KmclStatusName(status));
    Say(status == STATUS_SUCCESS ? kVisited : kUnserved);
    alarm(0);  // however long it takes until the next visit
  }
  return EXIT_SUCCESS;
}

}  // namespace

std::vector<std::string> BusyClientRole(std::uint64_t seed, const std::string& address,
                                        int descriptors) {
  return Role("client", seed, address, descriptors);
}
std::vector<std::string> BusyServerRole(std::uint64_t seed, const std::string& address,
                                        int descriptors) {
  return Role("server", seed, address, descriptors);
}
std::vector<std::string> EchoServerRole(const std::string& address, int descriptors) {
  return Role("echo-server", 0, address, descriptors);
}
std::vector<std::string> VisitorRole(const std::string& address, int descriptors) {
  return Role("visitor", 0, address, descriptors);
}

bool IsRole(int argc, char** argv) { return argc == 6 && strcmp(argv[1], kRoleFlag) == 0; }

int PlayRole(char** argv) {
  const std::string role = argv[2];
  const Plan plan = MakePlan(strtoull(argv[3], nullptr, 10));
  const std::string address = argv[4];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Beside what the parent was given itself: the shared page, and the line.
  if (TakeCensus().descriptors != atoi(argv[5]) + 2) {
    return Fail(role.c_str(), "a descriptor of the parent's was inherited");
  }
  if (role == "visitor") return BeVisitor(address);

  alarm(kLongestLifeSeconds);
  Surroundings around;
  around.faults.EndAtFirst();
  SharedPage* const page = ParentsSharedPage();
  if (page == nullptr) return Fail(role.c_str(), "no shared page");
  around.killed_ns = &page->killed_ns;
  if (role == "client") return BeBusyClient(plan, address, around);
  if (role == "server") return BeServer(&plan, address, around);
  if (role == "echo-server") return BeServer(nullptr, address, around);
  return Fail(role.c_str(), "no such role");
}

}  // namespace kmcl::kill
