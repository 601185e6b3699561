// A server machine as bytes and back, so that it can go on in another process.
//
// The bytes are for a program of the same version: they begin with a number that changes with the
// machine's states, and are otherwise its fields in order (server_snapshot.cc).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "bus/server.h"
#include "result.h"

namespace kmcl::bus {

struct ServerSnapshot {
  static std::vector<std::byte> Save(const Server& server);

  // Under `limits`, which what was saved must keep. The result holds every invariant of the machine.
  //   kSaveVersion    of another version of the machine
  //   kSaveMalformed  not what Save wrote, or not within the limits
  [[nodiscard]] static Result<Server> Restore(std::span<const std::byte> bytes,
                                              const ServerLimits& limits);

 private:
  template <typename Archive, typename Machine>
  static void Fields(Archive& archive, Machine& server);
};

}  // namespace kmcl::bus
