// Which pages of a donated memory are free: first fit over a sorted list of free runs. It only
// counts; it knows no memory. One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "transport/link.h"

namespace kmcl::transport {

class PageAllocator {
 public:
  // Pages are given out from `first_page` on; `limit_pages` is the number that none may reach.
  PageAllocator(std::uint64_t first_page, std::uint64_t limit_pages)
      : first_(first_page), end_(first_page), limit_(limit_pages) {}

  // The lowest run of `count` pages that fits, or nothing when the limit is in the way. The memory
  // must then reach to end(). `count` is at least 1.
  std::optional<PageRun> Allocate(std::uint32_t count);

  // Takes back a run that Allocate gave out, whole or in part. A run that is not allocated is our
  // caller's bug and ends the program.
  void Free(PageRun run);

  // One past the highest page that is or ever was allocated.
  std::uint64_t end() const { return end_; }
  std::uint64_t free_run_count() const { return free_.size(); }

 private:
  std::uint64_t first_;
  std::uint64_t end_;
  std::uint64_t limit_;
  std::map<std::uint64_t, std::uint64_t> free_;  // first page -> pages; no two runs touch
};

}  // namespace kmcl::transport
