// Want of memory on purpose: while one of these lives, `operator new` fails in the thread that made
// it, from the n-th call on. Other threads, the library's among them, go on.
#pragma once

#include <cstddef>

namespace kmcl::contract {

class AllocationFaults {
 public:
  // The first `served` allocations still succeed.
  explicit AllocationFaults(std::size_t served);
  ~AllocationFaults();
  AllocationFaults(const AllocationFaults&) = delete;
  AllocationFaults& operator=(const AllocationFaults&) = delete;

  // How many were refused in this thread since the last one was made.
  static std::size_t refused();
};

}  // namespace kmcl::contract
