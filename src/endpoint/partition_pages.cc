#include "endpoint/partition_pages.h"

#include <new>
#include <utility>
#include <vector>

namespace kmcl::endpoint {

void* PartitionPages::Map(std::span<const PFN_NUMBER> pages, bool) try {
  if (pages.empty()) return nullptr;
  std::shared_ptr<transport::Link> link;
  {
    MutexLock lock(mutex_);
    link = link_;
  }
  if (link == nullptr) return nullptr;

  std::size_t in_a_row = 1;
  while (in_a_row < pages.size() && pages[in_a_row] == pages[0] + in_a_row) ++in_a_row;
  if (in_a_row == pages.size()) {
    std::byte* const window = link->Window(wire::PageNumber{pages[0]}, pages.size());
    if (window != nullptr) return window;
  }

  std::vector<wire::PageNumber> numbers;
  numbers.reserve(pages.size());
  for (const PFN_NUMBER page : pages) numbers.push_back(wire::PageNumber{page});
  auto mapping = link->Map(numbers);
  if (!mapping) return nullptr;
  void* const base = mapping->base();
  MutexLock lock(mutex_);
  mapped_.emplace(base, *std::move(mapping));
  return base;
} catch (const std::bad_alloc&) {
  return nullptr;
}

void PartitionPages::Unmap(void* base, std::size_t) {
  transport::Mapping ended;  // goes after the lock
  MutexLock lock(mutex_);
  const auto found = mapped_.find(base);
  if (found == mapped_.end()) return;  // in the standing view
  ended = std::move(found->second);
  mapped_.erase(found);
}

void PartitionPages::Close() {
  std::shared_ptr<transport::Link> link;  // its end, if it is that, after the lock
  MutexLock lock(mutex_);
  link = std::move(link_);
}

}  // namespace kmcl::endpoint
