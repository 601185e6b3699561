// Where a ring lies: one control page and a data area that somebody else has mapped.
#pragma once

#include <cstddef>
#include <cstdint>

#include "result.h"

namespace kmcl::ring {

// Borrowed: the pages stay mapped, readable and writable for as long as a ring object uses them.
struct RingPages {
  std::byte* control = nullptr;  // 4096 bytes
  std::byte* data = nullptr;     // `mapped_bytes` bytes
  std::uint32_t data_bytes = 0;  // a multiple of 4096, not zero; need not be a power of two
  std::uint32_t mapped_bytes =
      0;  // data_bytes, or twice that when the area is mapped twice in a row
};

// kRingGeometry unless sizes and alignment are as described above.
[[nodiscard]] Result<void> CheckGeometry(const RingPages& pages);

// Whether the other side has to be signalled.
enum class Bell : bool { kNone, kRing };

}  // namespace kmcl::ring
