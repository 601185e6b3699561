#include "peer.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

namespace kmcl::limits {
namespace {

constexpr int kPatienceMs = 120'000;

}  // namespace

void Line::SayBytes(const void* bytes, std::size_t count) const {
  // An end that is gone is heard of by its silence.
  (void)!send(fd_, bytes, count, MSG_NOSIGNAL);
}

bool Line::HearBytes(void* bytes, std::size_t count) const {
  pollfd wait{fd_, POLLIN, 0};
  return poll(&wait, 1, kPatienceMs) == 1 && read(fd_, bytes, count) == static_cast<ssize_t>(count);
}

Peer::Peer(const std::function<int(const Line&)>& body) {
  int line[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) != 0) {
    perror("socketpair");
    abort();
  }
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) {
    perror("fork");
    abort();
  }
  if (pid > 0) {
    close(line[1]);
    pid_ = pid;
    fd_ = line[0];
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  close(line[0]);
  const int status = body(Line(line[1]));
  fflush(nullptr);
  _exit(status);  // the rest of this process is the parent's
}

Peer::~Peer() {
  if (pid_ > 0 && ends_it_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(fd_);
}

int Peer::Wait() {
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) return -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace kmcl::limits
