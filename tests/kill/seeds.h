// Which seeds this program runs, and what it began with. Set by main.
#pragma once

#include <cstdint>

namespace kmcl::kill {

struct SeedRange {
  std::uint64_t first = 1;
  std::uint64_t last = 1000;
};

const SeedRange& Seeds();
// Descriptors that were open when the program began.
int DescriptorsAtStart();

}  // namespace kmcl::kill
