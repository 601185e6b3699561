// A client's memory as its server's MDLs see it: what MDL::Process points to at a server.
//
// Any thread, at any level. The numbers come from the client and are checked by the link.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>

#include "mutex.h"
#include "transport/link.h"
#include "wdk/page_space.h"

namespace kmcl::endpoint {

class PartitionPages final : public wdk::PageSpace {
 public:
  explicit PartitionPages(std::shared_ptr<transport::Link> link) : link_(std::move(link)) {}

  // Pages in a row come from the link's standing view, at no cost. Others are mapped. `writable`
  // only states an intent: the memory is the client's, and a view of it protects nobody.
  void* Map(std::span<const PFN_NUMBER> pages, bool writable) override KMCL_EXCLUDES(mutex_);
  void Unmap(void* base, std::size_t pages) override KMCL_EXCLUDES(mutex_);

  // The link goes: nothing can be mapped any more. Nobody uses a view of pages in a row now.
  void Close() KMCL_EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::shared_ptr<transport::Link> link_ KMCL_GUARDED_BY(mutex_);
  std::map<void*, transport::Mapping> mapped_ KMCL_GUARDED_BY(mutex_);  // pages not in a row
};

}  // namespace kmcl::endpoint
