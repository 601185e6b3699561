#include "vmm/boot_image.h"

#include <algorithm>

namespace kmcl::vmm {

std::uint64_t BootImage::end() const {
  std::uint64_t last = 0;
  for (const Segment& segment : segments) {
    last = std::max(last, segment.address + segment.memory_bytes);
  }
  return last;
}

Outcome<BootImage> ParseKernel(std::vector<std::byte> file) {
  constexpr std::uint32_t kElfMagic = 0x464C457F;
  if (file.size() >= sizeof(kElfMagic) && ReadField<std::uint32_t>(file, 0) == kElfMagic) {
    return ParseElfImage(std::move(file));
  }
  return ParseBzImage(std::move(file));
}

}  // namespace kmcl::vmm
