#include "transport/page_mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "transport/memory_region.h"

namespace kmcl::transport {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;

}  // namespace

Result<Mapping> MapFilePages(std::span<const FilePages> pieces,
                             const std::shared_ptr<AreaCount>& areas, Populate populate) {
  const auto area_count = static_cast<std::uint32_t>(pieces.size());
  if (pieces.size() > kMaximumMappedAreas) return std::unexpected(Error::kLimitExceeded);
  const std::uint32_t before =
      areas->in_use.fetch_add(area_count, std::memory_order_relaxed);  // a count, orders nothing
  std::shared_ptr<const void> lease(
      static_cast<const void*>(nullptr), [areas, area_count](const void*) {
        areas->in_use.fetch_sub(area_count, std::memory_order_relaxed);
      });
  if (before > kMaximumMappedAreas - area_count) return std::unexpected(Error::kLimitExceeded);

  // Reserve the addresses first, so that the pieces cannot land on somebody else's.
  std::size_t bytes = 0;
  for (const FilePages& piece : pieces) bytes += piece.count * kPageBytes;
  void* const reserved =
      mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return std::unexpected(MemoryErrorFromErrno("mmap"));
  Mapping mapping(static_cast<std::byte*>(reserved), bytes, std::move(lease));
  std::byte* place = mapping.base();
  for (const FilePages& piece : pieces) {
    if (mmap(place, piece.count * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             piece.fd, static_cast<off_t>(piece.first * kPageBytes)) == MAP_FAILED) {
      return std::unexpected(MemoryErrorFromErrno("mmap"));
    }
    place += piece.count * kPageBytes;
  }
  // Faults now cost time once; and a page that the system cannot provide is an error here, where it
  // would be a SIGBUS on first touch.
  if (populate == Populate::kYes && madvise(mapping.base(), bytes, MADV_POPULATE_WRITE) != 0) {
    return std::unexpected(errno == EFAULT ? Error::kOutOfMemory
                                           : MemoryErrorFromErrno("populating"));
  }
  return mapping;
}

Result<RingLayout> RingLayout::Of(std::span<const wire::PageNumber> pages,
                                  std::uint32_t downstream_page) {
  // A control page and at least one page of data on both sides of the cut; and data_bytes, as well
  // as an index into the doubled data, has to fit into 32 bits.
  constexpr std::size_t kMaximumDataPages = (std::size_t{1} << 31) / kPageBytes - 1;
  if (downstream_page < 2 || downstream_page >= pages.size() ||
      pages.size() - downstream_page < 2 || downstream_page - 1 > kMaximumDataPages ||
      pages.size() - downstream_page - 1 > kMaximumDataPages) {
    return std::unexpected(Error::kRingGeometry);
  }
  const auto upstream = pages.first(downstream_page);
  const auto downstream = pages.subspan(downstream_page);

  RingLayout layout;
  layout.upstream_pages_ = upstream.size();
  layout.downstream_pages_ = downstream.size();
  layout.sequence_.reserve(2 * pages.size());
  for (const auto& ring : {upstream, downstream}) {
    layout.sequence_.insert(layout.sequence_.end(), ring.begin(), ring.end());
    layout.sequence_.insert(layout.sequence_.end(), ring.begin() + 1, ring.end());
  }
  return layout;
}

RingMapping RingLayout::Views(Mapping mapping) const {
  const auto view_of = [](std::byte* base, std::size_t ring_pages) {
    return RingMapping::View{base, base + kPageBytes,
                             static_cast<std::uint32_t>((ring_pages - 1) * kPageBytes)};
  };
  std::byte* const base = mapping.base();
  RingMapping rings;
  rings.client_to_server = view_of(base, upstream_pages_);
  rings.server_to_client =
      view_of(base + (2 * upstream_pages_ - 1) * kPageBytes, downstream_pages_);
  rings.mapping = std::move(mapping);
  return rings;
}

}  // namespace kmcl::transport
