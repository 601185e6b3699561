#include "cli/private_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "cli/main_wait.h"

namespace kmcl::cli {
namespace {

// Only calls that are allowed between fork and exec in a process with threads.
[[noreturn]] void BecomeServer(char* const arguments[], int ready, int quiet, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) {
    _exit(kExitFailure);  // it went before the line above
  }
  pthread_sigmask(SIG_SETMASK, &MainWait::Get().original_mask(), nullptr);
  dup2(quiet, STDOUT_FILENO);
  dup2(quiet, STDERR_FILENO);
  fcntl(ready, F_SETFD, 0);  // the child's to keep
  execv("/proc/self/exe", arguments);
  _exit(kExitFailure);
}

// Whether the child said "ready ..." before it closed its end.
bool WaitUntilReady(int descriptor) {
  std::string said;
  std::array<char, 256> buffer;
  for (;;) {
    const ssize_t got = read(descriptor, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return said.starts_with("ready ");
    }
    said.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace

PrivateServer::PrivateServer(std::string directory, pid_t child)
    : directory_(std::move(directory)), address_("unix:" + directory_ + "/bus"), child_(child) {}

PrivateServer::~PrivateServer() {
  if (child_ > 0) {
    kill(child_, SIGTERM);
    while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  unlink((directory_ + "/bus").c_str());
  unlink((directory_ + "/bus.handover").c_str());
  rmdir(directory_.c_str());
}

Outcome<std::unique_ptr<PrivateServer>> PrivateServer::Start(WaitMode wait) {
  const char* temporary = std::getenv("TMPDIR");
  std::string directory =
      std::string(temporary != nullptr && *temporary != '\0' ? temporary : "/tmp") +
      "/vmbus-XXXXXX";
  if (mkdtemp(directory.data()) == nullptr) {
    return Fail(kExitFailure, fmt::format("cannot make a temporary directory: {}",
                                          std::generic_category().message(errno)));
  }
  std::unique_ptr<PrivateServer> self(new PrivateServer(directory, -1));
  std::array<int, 2> ready{};
  const int quiet = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (quiet < 0 || pipe2(ready.data(), O_CLOEXEC) != 0) {
    return Fail(kExitFailure,
                fmt::format("cannot start a server: {}", std::generic_category().message(errno)));
  }
  std::array<std::string, 9> words = {"vmbus",        "serve",        "--echo",
                                      "--bus",        self->address_, "--wait",
                                      WaitName(wait), "--ready-fd",   std::to_string(ready[1])};
  std::array<char*, words.size() + 1> arguments{};
  for (std::size_t i = 0; i < words.size(); ++i) {
    arguments[i] = words[i].data();
  }
  const pid_t parent = getpid();
  self->child_ = fork();
  if (self->child_ == 0) {
    BecomeServer(arguments.data(), ready[1], quiet, parent);
  }
  close(ready[1]);
  close(quiet);
  const bool is_ready = self->child_ > 0 && WaitUntilReady(ready[0]);
  close(ready[0]);
  if (!is_ready) {
    return Fail(kExitFailure, "the server did not start");
  }
  return self;
}

}  // namespace kmcl::cli
