#include "child.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

namespace kmcl::verifier_test {

Ended RunMisuse(const std::string& misuse, const std::string& verifier) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);

  const std::string argument = "--misuse=" + misuse;
  std::string variable = "KMCL_VERIFIER=" + verifier;
  char program[] = "/proc/self/exe";
  std::vector<char*> arguments = {program, const_cast<char*>(argument.c_str()), nullptr};
  std::vector<char*> environment;
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::string(*each).starts_with("KMCL_")) continue;
    if (std::string(*each).starts_with("ASAN_OPTIONS=")) continue;
    environment.push_back(*each);
  }
  environment.push_back(variable.data());
  char leaks_are_meant[] = "ASAN_OPTIONS=detect_leaks=0";
  environment.push_back(leaks_are_meant);
  environment.push_back(nullptr);
  pid_t child = -1;
  EXPECT_EQ(posix_spawn(&child, program, &actions, nullptr, arguments.data(), environment.data()),
            0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);

  Ended ended;
  char bytes[4096];
  for (ssize_t got = 0; (got = read(ends[0], bytes, sizeof bytes)) > 0;) {
    ended.text.append(bytes, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  ended.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return ended;
}

}  // namespace kmcl::verifier_test
