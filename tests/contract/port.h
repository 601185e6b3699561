// How a test talks to a driver: in its own process, or in a child process that it started.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "driver.h"

namespace kmcl::contract {

class Port {
 public:
  virtual ~Port() = default;
  // Has the driver do a line, and returns its answer. One thread at a time.
  virtual std::string Exchange(const std::string& line) = 0;
  // Ends the driver without a goodbye; false when it cannot be done.
  virtual bool Kill() { return false; }
};

class InProcessPort final : public Port {
 public:
  std::string Exchange(const std::string& line) override { return driver_.Do(line); }

 private:
  Driver driver_;
};

// Starts this program again as a driver. The child inherits nothing but standard error and its end
// of a socket.
class ChildPort final : public Port {
 public:
  ChildPort();
  // The driver cleans up and leaves; a child that does not, or fails, fails the test.
  ~ChildPort() override;
  ChildPort(const ChildPort&) = delete;
  ChildPort& operator=(const ChildPort&) = delete;

  std::string Exchange(const std::string& line) override;
  bool Kill() override;

 private:
  int socket_ = -1;
  pid_t child_ = -1;
};

// The child's half: does the lines that arrive at `socket` until it is closed. The program's
// result.
int RunDriver(int socket);

}  // namespace kmcl::contract
