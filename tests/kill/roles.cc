#include "roles.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <exception>
#include <memory>

#include "allowance.h"
#include "busy_ends.h"
#include "child.h"
#include "flooder.h"
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

int BeOtherClient(const Plan& plan, const std::string& address, Surroundings& around) {
  std::atomic<std::int64_t> own_end{0};  // what the others note is the server's
  if (!KillSelfAfter(plan.other_timer_us, &own_end)) return Fail("other client", "no timer");
  BusyClient client(around);
  const NTSTATUS status = client.Open(address, plan);
  // The server may be gone already.
  if (status != STATUS_SUCCESS && status != STATUS_OBJECT_NAME_NOT_FOUND &&
      status != STATUS_CONNECTION_DISCONNECTED && status != STATUS_NO_SUCH_DEVICE) {
    return Fail("other client", KmclStatusName(status));
  }
  BeBusy();
}

// At a step of a handover: ends the process where the plan says so.
void MeetStep(const Plan& plan, Step step, Surroundings& around) {
  if (plan.step != step) return;
  around.killed_ns->store(NowNs());
  ::kill(getpid(), SIGKILL);
}

int BeOldServer(const Plan& plan, const std::string& address, Surroundings& around) {
  auto server = std::make_unique<BusyServer>(around);
  server->SetPlan(plan);
  server->SetEchoToo();
  if (const NTSTATUS status = server->Create(address); status != STATUS_SUCCESS) {
    return Fail("old server", KmclStatusName(status));
  }
  Say(kReady);
  char word = 0;
  if (read(kLineFd, &word, 1) != 1 || word != kHandOver) return Fail("old server", "no word");
  const NTSTATUS status =
      server->HandOver(kHandoverFd, [&](Step step) { MeetStep(plan, step, around); });
  if (status == STATUS_SUCCESS) {
    if (!server->WaitUntilAlone()) return Fail("old server", "a client is still here");
    server.reset();
    Say(kServesNot);
  } else if (status == STATUS_CONNECTION_DISCONNECTED) {
    Say(kServes);
  } else {
    return Fail("old server", KmclStatusName(status));
  }
  BeBusy();
}

int BeNewServer(const Plan& plan, Surroundings& around) {
  auto server = std::make_unique<BusyServer>(around);
  server->SetPlan(plan);
  server->SetEchoToo();
  Say(kReady);
  const bool refuses = plan.step == Step::kResumeBegun;
  const NTSTATUS status = server->TakeOver(kHandoverFd, [&](Step step) -> NTSTATUS {
    MeetStep(plan, step, around);
    return refuses && step == Step::kRestoreEnded ? STATUS_DEVICE_BUSY : STATUS_SUCCESS;
  });
  close(kHandoverFd);  // else the old one would wait for a word
  if (status == STATUS_SUCCESS) {
    Say(kServes);
  } else if (status == (refuses ? STATUS_DEVICE_BUSY : STATUS_CONNECTION_DISCONNECTED)) {
    if (!server->WaitUntilAlone()) return Fail("new server", "a client is still here");
    server.reset();
    Say(kServesNot);
  } else {
    return Fail("new server", KmclStatusName(status));
  }
  BeBusy();
}

int BeLastingServer(Plan plan, const std::string& address, Surroundings& around) {
  plan.cycles = false;
  BusyServer server(around);
  server.SetPlan(plan);
  server.SetEchoToo();
  if (const NTSTATUS status = server.Create(address); status != STATUS_SUCCESS) {
    return Fail("lasting server", KmclStatusName(status));
  }
  Say(kReady);
  BeBusy();
}

int BeLastingClient(Plan plan, const std::string& address, Surroundings& around) {
  plan.cycles = false;
  BusyClient client(around);
  if (const NTSTATUS status = client.Open(address, plan); status != STATUS_SUCCESS) {
    return Fail("lasting client", KmclStatusName(status));
  }
  if (!client.StillWorks()) return Fail("lasting client", "no answers");
  Say(kReady);
  for (char word = 0; read(kLineFd, &word, 1) == 1;) {
    const bool works = client.StillWorks();
    if (!works && !client.WaitUntilClosed()) return Fail("lasting client", "open, and no answers");
    Say(works ? kVisited : kUnserved);
  }
  return EXIT_SUCCESS;
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

int BeStranger(const std::string& address) {
  constexpr uid_t kNobody = 65534;
  if (setresgid(kNobody, kNobody, kNobody) != 0 || setresuid(kNobody, kNobody, kNobody) != 0) {
    return Fail("stranger", "cannot be another user");
  }
  const NTSTATUS status = Visit(address);
  return write(kLineFd, &status, sizeof status) == sizeof status ? EXIT_SUCCESS : EXIT_FAILURE;
}

template <typename Limit>
int BePoorVisitor(const std::string& address, Limit limit) {
  const auto visit = [&] {
    const NTSTATUS status = Visit(address);
    if (status != STATUS_SUCCESS) Fail("poor visitor", KmclStatusName(status));
    return status == STATUS_SUCCESS;
  };
  // The library may end the process for want of memory on a thread of its own, and on no other.
  std::set_terminate([] {
    if (gettid() == getpid()) abort();
    _exit(kEndedByLibrary);
  });
  NTSTATUS status = STATUS_SUCCESS;
  {
    const auto allowance = limit();
    status = Visit(address);
  }
  if (write(kLineFd, &status, sizeof status) != sizeof status) return EXIT_FAILURE;
  const bool served = visit();
  const Census before = TakeCensus();
  const bool served_again = visit();
  const bool nothing_left = TakeCensus() == before;
  if (!nothing_left) Fail("poor visitor", "something was left");
  Say(served && served_again && nothing_left ? kVisited : kUnserved);
  return EXIT_SUCCESS;
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
std::vector<std::string> LastingServerRole(std::uint64_t seed, const std::string& address,
                                           int descriptors) {
  return Role("lasting-server", seed, address, descriptors);
}
std::vector<std::string> LastingClientRole(std::uint64_t seed, const std::string& address,
                                           int descriptors) {
  return Role("lasting-client", seed, address, descriptors);
}
std::vector<std::string> PoorVisitorRole(std::uint64_t descriptors_more, const std::string& address,
                                         int descriptors) {
  return Role("poor-visitor", descriptors_more, address, descriptors);
}
std::vector<std::string> NarrowVisitorRole(std::uint64_t bytes_more, const std::string& address,
                                           int descriptors) {
  return Role("narrow-visitor", bytes_more, address, descriptors);
}
std::vector<std::string> FlooderRole(std::uint64_t seed, const std::string& address,
                                     int descriptors) {
  return Role("flooder", seed, address, descriptors);
}
std::vector<std::string> StrangerRole(const std::string& address, int descriptors) {
  return Role("stranger", 0, address, descriptors);
}
std::vector<std::string> OtherClientRole(std::uint64_t seed, const std::string& address,
                                         int descriptors) {
  return Role("other-client", seed, address, descriptors);
}
std::vector<std::string> OldServerRole(std::uint64_t seed, const std::string& address,
                                       int descriptors) {
  return Role("old-server", seed, address, descriptors);
}
std::vector<std::string> NewServerRole(std::uint64_t seed, const std::string& address,
                                       int descriptors) {
  return Role("new-server", seed, address, descriptors);
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
  const int given = role == "old-server" || role == "new-server" ? 3 : 2;
  if (TakeCensus().descriptors != atoi(argv[5]) + given) {
    return Fail(role.c_str(), "a descriptor of the parent's was inherited");
  }
  if (role == "visitor") return BeVisitor(address);
  if (role == "stranger") return BeStranger(address);
  if (role == "flooder") {
    alarm(kLongestLifeSeconds);
    Flood(address, strtoull(argv[3], nullptr, 10), [] { Say(kReady); });
    return EXIT_FAILURE;
  }
  const std::uint64_t more = strtoull(argv[3], nullptr, 10);
  if (role == "poor-visitor") {
    return BePoorVisitor(
        address, [&] { return Allowance::OfDescriptors(static_cast<std::uint32_t>(more)); });
  }
  if (role == "narrow-visitor") {
    return BePoorVisitor(address, [&] { return Allowance::OfMemory(more); });
  }

  // Those that stand still do so for as long as the parent likes.
  const bool lasting = role.starts_with("lasting");
  if (!lasting) alarm(kLongestLifeSeconds);
  Surroundings around;
  around.faults.EndAtFirst();
  SharedPage* const page = ParentsSharedPage();
  if (page == nullptr) return Fail(role.c_str(), "no shared page");
  around.killed_ns = &page->killed_ns;
  if (plan.victim != Victim::kBoth) around.ledger = &page->ledger;
  if (lasting) around.ledger = nullptr;  // the parent's plan is not quite ours
  if (role == "lasting-client") return BeLastingClient(plan, address, around);
  if (role == "lasting-server") return BeLastingServer(plan, address, around);
  if (role == "other-client") return BeOtherClient(plan, address, around);
  if (role == "old-server") return BeOldServer(plan, address, around);
  if (role == "new-server") return BeNewServer(plan, around);
  if (role == "client") return BeBusyClient(plan, address, around);
  if (role == "server") return BeServer(&plan, address, around);
  if (role == "echo-server") return BeServer(nullptr, address, around);
  return Fail(role.c_str(), "no such role");
}

}  // namespace kmcl::kill
