// This program again, as another process: started, killed, and waited for with a deadline.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ledger.h"

namespace kmcl::kill {

// Memory that a process and its children share. It stays until the process ends.
struct SharedPage {
  std::atomic<std::int64_t> killed_ns{0};
  Ledger ledger;
};
static_assert(sizeof(SharedPage) <= 4096);
SharedPage* MakeSharedPage();
// The parent's, in a child.
SharedPage* ParentsSharedPage();

// What a child finds at its end of the line to its parent, and at its end of a handover.
inline constexpr int kLineFd = 101;
inline constexpr int kHandoverFd = 102;

class Child {
 public:
  // Runs this program with `arguments`. The parent has `line` of a socket pair, the child the other
  // end; and, where it is given, the child has `handover` too, which stays the parent's as well.
  static std::optional<Child> Start(const std::vector<std::string>& arguments, int handover = -1);
  Child(Child&& other) noexcept;
  // Kills it if it still runs.
  ~Child();
  Child& operator=(Child&&) = delete;

  pid_t pid() const { return pid_; }
  int line() const { return line_; }
  // Readable once the process has ended.
  int end_fd() const { return pidfd_; }
  void Kill();

  // One byte from the child. Nothing when it has ended, or kept silent for ten seconds.
  std::optional<char> Hear() const;
  void Say(char word) const;
  // A status from the child, likewise.
  std::optional<std::int32_t> HearStatus() const;

  // Waits for its end and takes its wait status. Nothing after ten seconds.
  std::optional<int> Wait();

 private:
  Child(pid_t pid, int pidfd, int line) : pid_(pid), pidfd_(pidfd), line_(line) {}

  pid_t pid_ = -1;
  int pidfd_ = -1;
  int line_ = -1;
};

// What this process holds of the system.
struct Census {
  int descriptors = 0;
  int shared_mappings = 0;  // of memfds
  bool operator==(const Census&) const = default;
};
Census TakeCensus();

}  // namespace kmcl::kill
