// Where callbacks, on whatever thread, say that something was wrong; the test's thread reads it.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <mutex>
#include <string>
#include <utility>

namespace kmcl::kill {

class Faults {
 public:
  // For a victim, which will not live to report: the first fault ends the process.
  void EndAtFirst() { ends_at_first_ = true; }

  void Add(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (ends_at_first_) {
      fprintf(stderr, "kill_test, victim: %s\n", what.c_str());
      _exit(EXIT_FAILURE);
    }
    if (++count_ <= kMostKept) text_ += what + "\n";
  }
  // What was added since the last call, and nothing if all is well.
  std::string Take() {
    const std::lock_guard lock(mutex_);
    if (count_ > kMostKept) text_ += "and " + std::to_string(count_ - kMostKept) + " more\n";
    count_ = 0;
    return std::exchange(text_, {});
  }

 private:
  static constexpr std::size_t kMostKept = 10;
  bool ends_at_first_ = false;  // set before there are other threads
  std::mutex mutex_;
  std::size_t count_ = 0;
  std::string text_;
};

}  // namespace kmcl::kill
