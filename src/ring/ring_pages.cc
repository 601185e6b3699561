#include "ring/ring_pages.h"

#include "ring/ring_math.h"
#include "wire/ids.h"

namespace kmcl::ring {
namespace {

bool IsAligned(const std::byte* address) {
  return address != nullptr && IsUnitMultiple(reinterpret_cast<std::uintptr_t>(address));
}

}  // namespace

Result<void> CheckGeometry(const RingPages& pages) {
  if (!IsAligned(pages.control) || !IsAligned(pages.data) || pages.data_bytes == 0 ||
      pages.data_bytes % wire::kPageBytes != 0 || pages.data_bytes > kMaximumDataBytes) {
    return std::unexpected(Error::kRingGeometry);
  }
  if (pages.mapped_bytes != pages.data_bytes && pages.mapped_bytes != 2 * pages.data_bytes) {
    return std::unexpected(Error::kRingGeometry);
  }
  return {};
}

}  // namespace kmcl::ring
