// Views of an MDL's pages.
#pragma once

#include <kmcl/nt.h>

#include <cstddef>
#include <span>

namespace kmcl::wdk {

// Whether each number is one more than the number before it.
bool AreConsecutive(std::span<const PFN_NUMBER> pages);

// Whether so many pages from `base` on are there, to be read or written. Brings them in.
bool Probe(void* base, std::size_t pages, bool writable);

}  // namespace kmcl::wdk
