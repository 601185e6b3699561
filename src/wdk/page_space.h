// A numbering of pages other than this process's own: what MDL::Process points to.
//
// The page numbers of an MDL with Process == nullptr are addresses of this process divided by the
// page size. Those of an MDL that the library made at a server number pages of the client's memory;
// the client's partition then stands in Process and knows how to show them.
#pragma once

#include <kmcl/nt.h>

#include <cstddef>
#include <span>

// A Windows name, so that the field of MDL has its type. Any thread may call both.
struct _EPROCESS {
  // One contiguous view of `pages`, in their order; nullptr if there is none to be had: a number
  // that names no page, or want of memory. The numbers may come from a peer.
  virtual void* Map(std::span<const PFN_NUMBER> pages, bool writable) = 0;
  // Ends a view of so many pages.
  virtual void Unmap(void* base, std::size_t pages) = 0;

 protected:
  ~_EPROCESS() = default;
};

namespace kmcl::wdk {

using PageSpace = ::_EPROCESS;

}  // namespace kmcl::wdk
