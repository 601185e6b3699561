#include "child.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <utility>

namespace kmcl::kill {
namespace {

constexpr int kPatienceMs = 10'000;
constexpr int kSharedPageFd = 100;
constexpr std::size_t kSharedPageBytes = 4096;

int shared_page_fd = -1;

SharedPage* MapSharedPage(int fd) {
  void* const page = mmap(nullptr, kSharedPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  // A fresh memfd is all zeroes, which is what a SharedPage begins with.
  return page == MAP_FAILED ? nullptr : static_cast<SharedPage*>(page);
}

}  // namespace

SharedPage* MakeSharedPage() {
  shared_page_fd = memfd_create("kill-test", MFD_CLOEXEC);
  if (shared_page_fd < 0 || ftruncate(shared_page_fd, kSharedPageBytes) != 0) return nullptr;
  return MapSharedPage(shared_page_fd);
}

SharedPage* ParentsSharedPage() { return MapSharedPage(kSharedPageFd); }

std::optional<Child> Child::Start(const std::vector<std::string>& arguments, int handover) {
  int line[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) != 0) return std::nullopt;
  std::string name = "kill_test";
  std::vector<char*> argv{name.data()};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, shared_page_fd, kSharedPageFd);
  posix_spawn_file_actions_adddup2(&actions, line[1], kLineFd);
  if (handover >= 0) posix_spawn_file_actions_adddup2(&actions, handover, kHandoverFd);
  pid_t pid = -1;
  const int failure = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(line[1]);
  if (failure != 0) {
    close(line[0]);
    return std::nullopt;
  }
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  return Child(pid, pidfd, line[0]);
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::exchange(other.pidfd_, -1)),
      line_(std::exchange(other.line_, -1)) {}

Child::~Child() {
  if (pid_ > 0) {
    Kill();
    waitpid(pid_, nullptr, 0);
  }
  if (pidfd_ >= 0) close(pidfd_);
  if (line_ >= 0) close(line_);
}

void Child::Kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

std::optional<char> Child::Hear() const {
  pollfd wait{line_, POLLIN, 0};
  char word = 0;
  if (poll(&wait, 1, kPatienceMs) != 1 || read(line_, &word, 1) != 1) return std::nullopt;
  return word;
}

std::optional<std::int32_t> Child::HearStatus() const {
  pollfd wait{line_, POLLIN, 0};
  std::int32_t status = 0;
  if (poll(&wait, 1, kPatienceMs) != 1 || read(line_, &status, sizeof status) != sizeof status) {
    return std::nullopt;
  }
  return status;
}

void Child::Say(char word) const {
  // A child that has died is heard of by its silence.
  (void)!send(line_, &word, 1, MSG_NOSIGNAL);
}

std::optional<int> Child::Wait() {
  pollfd wait{pidfd_, POLLIN, 0};
  if (poll(&wait, 1, kPatienceMs) != 1) return std::nullopt;
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) return std::nullopt;
  return status;
}

Census TakeCensus() {
  Census census;
  if (DIR* const directory = opendir("/proc/self/fd")) {
    while (const dirent* const entry = readdir(directory)) {
      if (entry->d_name[0] != '.') ++census.descriptors;
    }
    closedir(directory);
    --census.descriptors;  // the directory's own
  }
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:") != std::string::npos) ++census.shared_mappings;
  }
  return census;
}

}  // namespace kmcl::kill
