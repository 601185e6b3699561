// Pieces of files, shown as one contiguous view in our address space; and how two rings are laid
// out in such a view. What the pages are called, and whether they exist, is the caller's to know.
//
// Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "result.h"
#include "transport/link.h"

namespace kmcl::transport {

// Areas of address space that the mappings of one partition may take together. A list of scattered
// pages costs one area a page, and the kernel gives a process about 65,530 (vm.max_map_count),
// which all partitions share.
inline constexpr std::uint32_t kMaximumMappedAreas = 16384;

// Pages in a row in one file: one area.
struct FilePages {
  int fd = -1;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

// Counts the areas of one partition's mappings, which may outlive whoever made them.
struct AreaCount {
  std::atomic<std::uint32_t> in_use{0};
};

enum class Populate : bool { kNo, kYes };

// The pieces one after another, shared and writable; the files have these pages. kLimitExceeded
// beyond kMaximumMappedAreas, kOutOfMemory, kMemoryKind. With Populate::kYes a page that the system
// cannot provide is kOutOfMemory here, where it would be a SIGBUS on first touch.
[[nodiscard]] Result<Mapping> MapFilePages(std::span<const FilePages> pieces,
                                           const std::shared_ptr<AreaCount>& areas,
                                           Populate populate);

// Two rings whose pages stand in `pages`, the second one's control page at `downstream_page`.
// kRingGeometry: they are none.
class RingLayout {
 public:
  [[nodiscard]] static Result<RingLayout> Of(std::span<const wire::PageNumber> pages,
                                             std::uint32_t downstream_page);

  // [control | data | data again] of both.
  const std::vector<wire::PageNumber>& sequence() const { return sequence_; }
  // `mapping` shows sequence().
  RingMapping Views(Mapping mapping) const;

 private:
  std::vector<wire::PageNumber> sequence_;
  std::size_t upstream_pages_ = 0;
  std::size_t downstream_pages_ = 0;
};

}  // namespace kmcl::transport
