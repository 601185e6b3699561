#include "transport/page_allocator.h"

#include <iterator>
#include <new>
#include <utility>

#include "result.h"

namespace kmcl::transport {

std::optional<PageRun> PageAllocator::Allocate(std::uint32_t count) {
  KMCL_CHECK(count > 0);
  for (auto run = free_.begin(); run != free_.end(); ++run) {
    const auto [first, pages] = *run;
    if (pages < count) continue;
    auto node = free_.extract(run);
    if (pages > count) {
      node.key() = first + count;
      node.mapped() = pages - count;
      free_.insert(std::move(node));
    }
    return PageRun{wire::PageNumber{first}, count};
  }

  // A free run at the very end is stretched instead of left behind.
  std::uint64_t first = end_;
  if (!free_.empty()) {
    const auto last = std::prev(free_.end());
    if (last->first + last->second == end_) first = last->first;
  }
  if (limit_ < first || limit_ - first < count) return std::nullopt;
  if (first != end_) free_.erase(first);
  end_ = first + count;
  return PageRun{wire::PageNumber{first}, count};
}

void PageAllocator::Free(PageRun run) {
  std::uint64_t first = std::to_underlying(run.first);
  std::uint64_t pages = run.count;
  KMCL_CHECK(pages > 0 && first >= first_ && first < end_ && pages <= end_ - first);

  const auto next = free_.lower_bound(first);
  KMCL_CHECK(next == free_.end() || first + pages <= next->first);
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    KMCL_CHECK(previous->first + previous->second <= first);
    if (previous->first + previous->second == first) {
      first = previous->first;
      pages += previous->second;
      free_.erase(previous);
    }
  }
  if (next != free_.end() && first + pages == next->first) {
    pages += next->second;
    free_.erase(next);
  }
  try {
    free_.emplace(first, pages);
  } catch (const std::bad_alloc&) {
    // Without memory to note it, the run stays in use.
  }
}

}  // namespace kmcl::transport
