#include "faults.h"

#include <array>

#include "memory.h"
#include "scheduler.h"

namespace kmcl::sim {
namespace {

struct Planned {
  std::uint32_t skip = 0;
  std::uint32_t count = 0;
};
std::array<Planned, kFaultKinds> planned;
std::uint64_t faults = 0;

}  // namespace

void Refuse(FaultKind kind, std::uint32_t skip, std::uint32_t count) {
  if (kind == FaultKind::kMemory) return FailAllocations(skip, count);
  planned[static_cast<std::size_t>(kind)] = {skip, count};
}

void NoFaults() {
  planned = {};
  FailAllocations(0, 0);
}

bool FaultNow(FaultKind kind) {
  Planned& next = planned[static_cast<std::size_t>(kind)];
  if (next.count == 0 || !Current().in_library) return false;
  if (next.skip != 0) {
    --next.skip;
    return false;
  }
  --next.count;
  ++faults;
  Note("the system refuses (kind %llu)", static_cast<std::uint64_t>(kind));
  return true;
}

std::uint64_t Faults() { return faults + FailedAllocations(); }

}  // namespace kmcl::sim
