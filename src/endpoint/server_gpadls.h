// The GPADLs of one channel at its server: what the client has described, and what of it the driver
// has mapped. A driver maps and unmaps on its own threads, the bus thread gains and loses the
// memory; the memory goes when both have let go of it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "endpoint/bus_thread.h"
#include "mutex.h"
#include "result.h"
#include "wdk/mdl.h"
#include "wdk/page_space.h"
#include "wire/gpa_range.h"
#include "wire/ids.h"

namespace kmcl::endpoint {

class ServerGpadls {
 public:
  // A GPADL that the client has asked back and nobody uses any more: the bus is to be told.
  struct Released {
    wire::ChannelId channel{};
    wire::GpadlId gpadl{};
  };

  // ---- The bus thread's.

  void Add(wire::ChannelId channel, wire::GpadlId gpadl, wire::GpaRangeList ranges)
      KMCL_EXCLUDES(mutex_);
  // nullptr if there is none. It stays until it is released.
  const wire::GpaRangeList* Find(wire::GpadlId gpadl) const KMCL_EXCLUDES(mutex_);
  // A copy of all there are, for who takes over the server.
  std::map<wire::GpadlId, wire::GpaRangeList> All() const KMCL_EXCLUDES(mutex_);
  // Of those, the ones that the client waits for: mapped still, or of which the bus thread is being
  // told.
  std::vector<wire::GpadlId> WantedBack() const KMCL_EXCLUDES(mutex_);
  // The client wants it back. False while it is mapped: Unmap or Close has it then.
  bool Release(wire::GpadlId gpadl) KMCL_EXCLUDES(mutex_);
  // An open begins, on a ring made of this one, which is not for the driver.
  void Open(wire::GpadlId ring) KMCL_EXCLUDES(mutex_);
  // The open is over, and nothing can be mapped any more. Ends what the driver has left mapped;
  // says how many that were, and what is released by it.
  struct Leftovers {
    std::uint32_t mapped = 0;
    std::vector<Released> released;
  };
  Leftovers Close() KMCL_EXCLUDES(mutex_);

  // ---- The driver's; any thread.

  // How the bus thread is told: by a task that has its memory before it is needed, as giving back
  // cannot fail.
  using Prepare = std::function<std::unique_ptr<BusThread::Prepared>(const Released&)>;

  // An MDL chain over the memory, good until Unmap. kChannelState (no open), kGpadlUnknown,
  // kGpadlState (mapped already), kGpadlReadOnly, kOutOfMemory.
  [[nodiscard]] Result<PMDL> Map(wdk::PageSpace& space, wire::GpadlId gpadl, wdk::Access access,
                                 const Prepare& prepare) KMCL_EXCLUDES(mutex_);
  // kGpadlUnknown, kGpadlState (not mapped). Something if the client waits for it: the caller posts
  // it, and the task releases the memory. Until then the memory is one that is wanted back, so that
  // whoever takes over the server meanwhile knows of it.
  [[nodiscard]] Result<std::unique_ptr<BusThread::Prepared>> Unmap(wire::GpadlId gpadl)
      KMCL_EXCLUDES(mutex_);

 private:
  struct Gpadl {
    wire::ChannelId channel{};
    wire::GpaRangeList ranges;
    wdk::Chain mapped;
    std::unique_ptr<BusThread::Prepared> told;  // while it is mapped
    bool is_wanted_back = false;
    bool IsReturned() const { return is_wanted_back && mapped == nullptr; }
  };

  mutable Mutex mutex_;
  std::map<wire::GpadlId, Gpadl> gpadls_ KMCL_GUARDED_BY(mutex_);
  std::optional<wire::GpadlId> ring_ KMCL_GUARDED_BY(mutex_);
  bool is_open_ KMCL_GUARDED_BY(mutex_) = false;
};

}  // namespace kmcl::endpoint
