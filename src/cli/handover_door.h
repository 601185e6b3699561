// Where a new server process finds the old one: a socket file beside that of the bus, named like it
// with ".handover" behind. Only the same user may connect.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "cli/outcome.h"

namespace kmcl::cli {

// The old process's side. One caller at a time; while one is served, the door is shut and its file
// gone.
class HandoverDoor {
 public:
  // `serve` gets each caller's socket, on the door's thread, and says whether the server was handed
  // over: then the door stays shut. A bus without a file has no door.
  HandoverDoor(const std::string& bus, std::function<bool(int socket)> serve);
  // Shuts it; waits for a caller who is being served.
  ~HandoverDoor();
  HandoverDoor(const HandoverDoor&) = delete;
  HandoverDoor& operator=(const HandoverDoor&) = delete;

 private:
  void Run();
  int Open();
  bool AwaitCaller(int listener) const;

  const std::string path_;
  const std::function<bool(int)> serve_;
  int stop_ = -1;  // an eventfd
  std::thread thread_;
};

// The new process's side: a connected socket, the caller's to close.
Outcome<int> KnockAtDoor(const std::string& bus);

}  // namespace kmcl::cli
