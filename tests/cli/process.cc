#include "process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

extern char** environ;

namespace kmcl::tests {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kLinesDescriptor = 3;

std::vector<std::string> ChildEnvironment(const std::vector<std::string>& changes) {
  std::vector<std::string> result;
  const auto name_of = [](const std::string& entry) { return entry.substr(0, entry.find('=')); };
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string name = name_of(*entry);
    const bool changed = std::ranges::any_of(
        changes, [&](const std::string& change) { return name_of(change) == name; });
    if (!changed && name != "KMCL_BUS") {
      result.emplace_back(*entry);
    }
  }
  for (const std::string& change : changes) {
    if (change.find('=') != std::string::npos) {
      result.push_back(change);
    }
  }
  return result;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) {
    pointers.push_back(word.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

nlohmann::json Finished::Json() const {
  nlohmann::json object = nlohmann::json::parse(out, nullptr, false);
  EXPECT_TRUE(object.is_object()) << "not one JSON object: " << out
                                  << "\nstandard error: " << error;
  return object.is_object() ? object : nlohmann::json();
}

Process::Process(const std::vector<std::string>& arguments, const StartOptions& options) {
  std::vector<std::string> words = {VMBUS_COMMAND};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = ChildEnvironment(options.environment);
  const std::vector<char*> argument_pointers = Pointers(words);
  const std::vector<char*> environment_pointers = Pointers(environment);
  std::array<int, 2> out{};
  std::array<int, 2> error{};
  std::array<int, 2> lines{};
  if (pipe2(out.data(), O_CLOEXEC) != 0 || pipe2(error.data(), O_CLOEXEC) != 0 ||
      pipe2(lines.data(), O_CLOEXEC) != 0) {
    ADD_FAILURE() << "no pipes";
    return;
  }
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  child_ = fork();
  if (child_ == 0) {
    if (options.file_size_limit) {
      const rlimit limit{*options.file_size_limit, *options.file_size_limit};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    // Moved out of the way first: one of them may be descriptor 3.
    const int line_end = fcntl(lines[1], F_DUPFD, 10);
    dup2(options.input.value_or(null), STDIN_FILENO);
    dup2(options.output.value_or(out[1]), STDOUT_FILENO);
    dup2(error[1], STDERR_FILENO);
    dup2(line_end, kLinesDescriptor);
    close(line_end);
    execve(VMBUS_COMMAND, argument_pointers.data(), environment_pointers.data());
    _exit(127);
  }
  close(null);
  close(out[1]);
  close(error[1]);
  close(lines[1]);
  out_.descriptor = out[0];
  error_.descriptor = error[0];
  lines_.descriptor = lines[0];
}

Process::~Process() {
  if (child_ > 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  for (const Stream* stream : {&out_, &error_, &lines_}) {
    if (stream->descriptor >= 0) {
      close(stream->descriptor);
    }
  }
}

// False when nothing can come any more, or the time is up.
bool Process::ReadSome(Clock::time_point deadline) {
  const std::array<Stream*, 3> streams = {&out_, &error_, &lines_};
  std::array<pollfd, 3> waits{};
  for (std::size_t i = 0; i < streams.size(); ++i) {
    waits[i] = {streams[i]->descriptor, POLLIN, 0};
  }
  if (std::ranges::all_of(streams, [](const Stream* s) { return s->descriptor < 0; })) {
    return false;
  }
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  if (left <= 0 || poll(waits.data(), waits.size(), static_cast<int>(left)) <= 0) {
    return false;
  }
  for (std::size_t i = 0; i < streams.size(); ++i) {
    if (waits[i].revents == 0) {
      continue;
    }
    std::array<char, 65536> buffer;
    const ssize_t got = read(streams[i]->descriptor, buffer.data(), buffer.size());
    if (got > 0) {
      streams[i]->text.append(buffer.data(), static_cast<std::size_t>(got));
    } else {
      close(std::exchange(streams[i]->descriptor, -1));
    }
  }
  return true;
}

bool Process::MakesProgress() {
  std::string line = NextLine();
  while (line.starts_with("stalled ")) {
    line = NextLine();
  }
  return line.starts_with("progress ");
}

std::string Process::NextLine() {
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  for (;;) {
    if (const std::size_t end = lines_.text.find('\n'); end != std::string::npos) {
      std::string line = lines_.text.substr(0, end);
      lines_.text.erase(0, end + 1);
      return line;
    }
    if (lines_.descriptor < 0 || !ReadSome(deadline)) {
      return {};
    }
  }
}

void Process::Signal(int number) const { ASSERT_EQ(kill(child_, number), 0); }

Finished Process::Wait() {
  const auto deadline = Clock::now() + std::chrono::seconds(60);
  while (ReadSome(deadline)) {
  }
  if (Clock::now() >= deadline) {
    ADD_FAILURE() << "it does not end. So far: " << out_.text << error_.text;
    kill(child_, SIGKILL);
  }
  int status = 0;
  waitpid(std::exchange(child_, -1), &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), out_.text, error_.text};
}

Finished RunVmbus(const std::vector<std::string>& arguments, const StartOptions& options) {
  return Process(arguments, options).Wait();
}

TemporaryDirectory::TemporaryDirectory() {
  path_ = testing::TempDir() + "vmbus-test-XXXXXX";
  EXPECT_NE(mkdtemp(path_.data()), nullptr);
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> TemporaryDirectory::Entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

void WriteSparseFile(const std::string& path, std::uint64_t bytes) {
  WriteFile(path, "");
  std::filesystem::resize_file(path, bytes);
}

ServedBus::ServedBus(std::vector<std::string> more_arguments, const StartOptions& options) {
  std::vector<std::string> arguments = {"serve",       "--bus",          address_,     "--json",
                                        "--directory", received_.path(), "--ready-fd", "3"};
  arguments.insert(arguments.end(), more_arguments.begin(), more_arguments.end());
  server_.emplace(arguments, options);
  EXPECT_EQ(server_->NextLine(), "ready " + address_);
}

nlohmann::json ServedBus::Stop() {
  server_->Signal(SIGTERM);
  const Finished finished = server_->Wait();
  EXPECT_EQ(finished.exit_code, 0) << finished.error;
  return finished.Json();
}

}  // namespace kmcl::tests
