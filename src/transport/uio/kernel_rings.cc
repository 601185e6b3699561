#include "transport/uio/kernel_rings.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "errno_text.h"
#include "log.h"
#include "transport/descriptor.h"
#include "transport/memory_region.h"

namespace kmcl::transport::uio {
namespace {

constexpr std::size_t kPageBytes = wire::kPageBytes;

bool MapAt(std::byte* place, std::size_t bytes, int file, std::size_t offset) {
  return mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
              static_cast<off_t>(offset)) != MAP_FAILED;
}

}  // namespace

// Each mapping begins with the client's control page. So mappings lie over each other, later ones
// on top (C is a control page, D a page of data; the two are three pages apart):
//
//   for the client's ring     first:         C D D D
//                             then:    C D D D            gives  C DDD DDD
//   for the server's ring     first:         C D D D C D D D
//                             then:    C D D D C D D D    gives  (C DDD) C DDD DDD
Result<std::shared_ptr<KernelRings>> KernelRings::Map(int file, std::uint32_t ring_pages,
                                                      std::shared_ptr<const void> lease) {
  constexpr std::uint32_t kMostPages = (std::uint32_t{1} << 31) / kPageBytes;
  if (ring_pages < 2 || ring_pages > kMostPages) return std::unexpected(Error::kRingGeometry);
  const std::size_t pages = std::size_t{5} * ring_pages - 2;
  void* const reserved = mmap(nullptr, pages * kPageBytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return std::unexpected(MemoryErrorFromErrno("mmap"));
  std::shared_ptr<KernelRings> rings(new KernelRings(
      ring_pages,
      Mapping(static_cast<std::byte*>(reserved), pages * kPageBytes, std::move(lease))));
  const std::size_t ring = rings->ring_bytes();
  const std::size_t data = rings->data_bytes();
  if (!MapAt(rings->first() + data, ring, file, 0) || !MapAt(rings->first(), ring, file, 0) ||
      !MapAt(rings->SecondStart() + data, 2 * ring, file, 0) ||
      !MapAt(rings->SecondStart(), 2 * ring, file, 0)) {
    return std::unexpected(MemoryErrorFromErrno("mapping rings"));
  }
  return rings;
}

RingMapping KernelRings::Views(std::shared_ptr<KernelRings> self) {
  const auto view_at = [&](std::byte* control) {
    return RingMapping::View{control, control + kPageBytes,
                             static_cast<std::uint32_t>(self->data_bytes())};
  };
  RingMapping rings;
  rings.client_to_server = view_at(self->first());
  rings.server_to_client = view_at(self->second());
  rings.mapping = Mapping(nullptr, 0, std::move(self));
  return rings;
}

// Each page is replaced by its copy in one step. What another thread stores between the copy and
// that is lost: indices that nobody reads any more, and packets that nobody will get.
void KernelRings::Detach() {
  const std::size_t ring = ring_bytes();
  const std::size_t data = data_bytes();
  const Descriptor copy(memfd_create("rings of a channel that has gone", MFD_CLOEXEC));
  if (!copy || ftruncate(copy.get(), static_cast<off_t>(2 * ring)) != 0 ||
      pwrite(copy.get(), first(), ring, 0) != static_cast<ssize_t>(ring) ||
      pwrite(copy.get(), second(), ring, static_cast<off_t>(ring)) != static_cast<ssize_t>(ring) ||
      !MapAt(first(), ring, copy.get(), 0) ||
      !MapAt(first() + ring, data, copy.get(), kPageBytes) ||
      !MapAt(SecondStart(), 2 * ring, copy.get(), 0) ||
      !MapAt(second() + ring, data, copy.get(), ring + kPageBytes)) {
    Log(LogLevel::kError, "uio: rings that the kernel has taken away stay mapped: %s",
        ErrnoText(errno).words());
  }
}

}  // namespace kmcl::transport::uio
