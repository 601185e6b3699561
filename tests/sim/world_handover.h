// A handover that is under way, as the world sees it.
#pragma once

#include <memory>
#include <vector>

#include "endpoint/partition.h"
#include "world.h"

namespace kmcl::sim {

struct World::Handover {
  World& world;
  Manner manner;
  std::uint32_t from;
  std::uint32_t to;
  int sockets[2] = {-1, -1};
  std::vector<Guest*> guests;  // that were saved, and what their handles mean in the old process
  std::vector<std::shared_ptr<endpoint::Partition>> partitions;
  std::vector<Guest*> successors;
  KMCL_SERVER before = nullptr;
  std::vector<End*> open;  // of the clients, and when one of the processes died
  std::int64_t killed_ns = 0;
  std::vector<std::byte> state;
  NTSTATUS given = STATUS_PENDING;
  NTSTATUS taken = STATUS_PENDING;
  bool is_given = false;
  bool is_taken = false;
  bool is_moved = false;  // the world takes the new process for the server
};

}  // namespace kmcl::sim
