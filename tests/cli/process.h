// Child processes for the tests of the vmbus command: started with pipes, read with a deadline,
// ended by their id. No test sleeps: they wait for lines and for ends.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace kmcl::tests {

struct Finished {
  int exit_code = -1;  // or minus the signal that ended it
  std::string out;
  std::string error;

  // Standard output as one JSON object; a test failure, and null, if it is not one.
  nlohmann::json Json() const;
};

struct StartOptions {
  std::vector<std::string> environment;          // "NAME=VALUE" in addition; "NAME" removes
  std::optional<std::uint64_t> file_size_limit;  // RLIMIT_FSIZE
  // Borrowed; by default nothing to read, and a pipe whose content is Finished::out.
  std::optional<int> input;
  std::optional<int> output;
};

// A running `vmbus`, with descriptor 3 as a pipe to us.
class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments, const StartOptions& options = {});
  // Kills it if it still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The next line it writes to descriptor 3; empty when it closed that, or after 30 seconds.
  std::string NextLine();
  // Until a copy has told of its first progress there. A server that is slow to begin is told of
  // before.
  bool MakesProgress();
  void Signal(int number) const;
  // Waits for its end; kills it and fails the test after 60 seconds.
  Finished Wait();

 private:
  struct Stream {
    int descriptor = -1;
    std::string text;
  };
  bool ReadSome(std::chrono::steady_clock::time_point deadline);

  pid_t child_ = -1;
  Stream out_;
  Stream error_;
  Stream lines_;
};

// Runs it to its end.
Finished RunVmbus(const std::vector<std::string>& arguments, const StartOptions& options = {});

// A directory that is removed with its content.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  // Names of its entries, sorted.
  std::vector<std::string> Entries() const;

 private:
  std::string path_;
};

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& content);
// A file of that size that takes no space.
void WriteSparseFile(const std::string& path, std::uint64_t bytes);

// A bus with a `vmbus serve` behind it.
class ServedBus {
 public:
  explicit ServedBus(std::vector<std::string> more_arguments = {},
                     const StartOptions& options = {});

  const std::string& address() const { return address_; }
  const TemporaryDirectory& received() const { return received_; }
  Process& server() { return *server_; }
  // Ends it with SIGTERM; its summary.
  nlohmann::json Stop();

 private:
  TemporaryDirectory sockets_;
  TemporaryDirectory received_;
  std::string address_ = "unix:" + sockets_.File("bus");
  std::optional<Process> server_;
};

}  // namespace kmcl::tests
