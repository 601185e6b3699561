// A server of our own for a measurement: `vmbus serve --echo` as a child process on a socket in a
// temporary directory, so that both ends wait as the measurement asks. It ends with us, whatever
// ends us.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "cli/client_channel.h"
#include "cli/outcome.h"

namespace kmcl::cli {

class PrivateServer {
 public:
  // Returns when clients can connect.
  static Outcome<std::unique_ptr<PrivateServer>> Start(WaitMode wait);
  // Ends the child and waits for it.
  ~PrivateServer();
  PrivateServer(const PrivateServer&) = delete;
  PrivateServer& operator=(const PrivateServer&) = delete;

  const std::string& address() const { return address_; }

 private:
  PrivateServer(std::string directory, pid_t child);

  std::string directory_;
  std::string address_;
  pid_t child_;
};

}  // namespace kmcl::cli
