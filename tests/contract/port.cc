#include "port.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <optional>

extern char** environ;

namespace kmcl::contract {

namespace {

// An answer may come as late as a wait in the child gives up.
constexpr int kAnswerMilliseconds = (kDeadline.count() + 5) * 1000;

bool WriteLine(int socket, const std::string& line) {
  const std::string text = line + "\n";
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = send(socket, text.data() + written, text.size() - written, MSG_NOSIGNAL);
    if (n <= 0) {
      return false;
    }
    written += static_cast<std::size_t>(n);
  }
  return true;
}

// `timeout` in milliseconds, -1 without limit. Strictly alternating lines: nothing is left over.
std::optional<std::string> ReadLine(int socket, int timeout) {
  std::string line;
  std::array<char, 4096> buffer{};
  while (line.empty() || line.back() != '\n') {
    pollfd ready{socket, POLLIN, 0};
    if (poll(&ready, 1, timeout) <= 0) {
      return std::nullopt;
    }
    const ssize_t n = read(socket, buffer.data(), buffer.size());
    if (n <= 0) {
      return std::nullopt;
    }
    line.append(buffer.data(), static_cast<std::size_t>(n));
  }
  line.pop_back();
  return line;
}

}  // namespace

ChildPort::ChildPort() {
  std::array<int, 2> sockets{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    ADD_FAILURE() << "socketpair failed";
    return;
  }
  socket_ = sockets[0];
  // The child's end gets a number that close-on-exec does not know.
  constexpr int kChildSocket = 3;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, sockets[1], kChildSocket);
  std::array<char, 4096> self{};
  if (readlink("/proc/self/exe", self.data(), self.size() - 1) < 0) {
    ADD_FAILURE() << "/proc/self/exe is not there";
  }
  std::string option = "--driver=" + std::to_string(kChildSocket);
  std::array<char*, 3> arguments{self.data(), option.data(), nullptr};
  if (posix_spawn(&child_, self.data(), &actions, nullptr, arguments.data(), environ) != 0) {
    ADD_FAILURE() << "the child process does not start";
    child_ = -1;
  }
  posix_spawn_file_actions_destroy(&actions);
  close(sockets[1]);
}

ChildPort::~ChildPort() {
  if (socket_ >= 0) {
    close(socket_);
  }
  if (child_ < 0) {
    return;
  }
  const int process = static_cast<int>(syscall(SYS_pidfd_open, child_, 0));
  pollfd ended{process, POLLIN, 0};
  const bool left = process >= 0 && poll(&ended, 1, kAnswerMilliseconds) == 1;
  if (!left) {
    ADD_FAILURE() << "the child process does not end";
    kill(child_, SIGKILL);
  }
  int status = 0;
  waitpid(child_, &status, 0);
  if (left) {
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << "the child process ended badly, wait status " << status;
  }
  if (process >= 0) {
    close(process);
  }
}

std::string ChildPort::Exchange(const std::string& line) {
  if (child_ < 0 || !WriteLine(socket_, line)) {
    return "child gone";
  }
  std::optional<std::string> answer = ReadLine(socket_, kAnswerMilliseconds);
  if (!answer.has_value()) {
    ADD_FAILURE() << "the child process does not answer \"" << line << "\"";
    Kill();
    return "child gone";
  }
  return *std::move(answer);
}

bool ChildPort::Kill() {
  if (child_ >= 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = -1;
  }
  return true;
}

int RunDriver(int socket) {
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  Driver driver;
  while (const std::optional<std::string> line = ReadLine(socket, -1)) {
    if (!WriteLine(socket, driver.Do(*line))) {
      break;
    }
  }
  return 0;
}

}  // namespace kmcl::contract
