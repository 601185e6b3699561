#include "transport/kvm/guest_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "transport/memory_region.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;

// A slot's file must have all of its pages, in a size that can be shown one by one.
Result<void> CheckFile(const MemorySlot& slot) {
  struct stat status{};
  struct statfs file_system{};
  if (fstat(slot.fd, &status) != 0 || fstatfs(slot.fd, &file_system) != 0) {
    return std::unexpected(MemoryErrorFromErrno("fstat"));
  }
  // Pieces of 4 KiB cannot be mapped from a file of huge pages.
  if (!S_ISREG(status.st_mode) ||
      static_cast<unsigned long>(file_system.f_type) == HUGETLBFS_MAGIC) {
    return std::unexpected(Error::kMemoryKind);
  }
  const auto size = static_cast<std::uint64_t>(std::max<off_t>(status.st_size, 0));
  if (slot.offset > size || slot.bytes > size - slot.offset) {
    return std::unexpected(Error::kFieldOutOfRange);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<GuestMemory>> GuestMemory::Create(std::span<const MemorySlot> slots) {
  if (slots.empty()) return std::unexpected(Error::kFieldOutOfRange);
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  for (const MemorySlot& slot : slots) {
    if (slot.bytes == 0 || (slot.guest_address | slot.bytes | slot.offset) % kPageBytes != 0 ||
        slot.bytes > std::numeric_limits<std::uint64_t>::max() - slot.guest_address) {
      return std::unexpected(Error::kFieldOutOfRange);
    }
    if (const auto checked = CheckFile(slot); !checked) return std::unexpected(checked.error());
    Descriptor file(fcntl(slot.fd, F_DUPFD_CLOEXEC, 0));
    if (!file) return std::unexpected(MemoryErrorFromErrno("duplicating"));
    void* const base = mmap(nullptr, slot.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                            file.get(), static_cast<off_t>(slot.offset));
    if (base == MAP_FAILED) return std::unexpected(MemoryErrorFromErrno("mmap"));
    memory->slots_.push_back({.first = slot.guest_address / kPageBytes,
                              .count = slot.bytes / kPageBytes,
                              .file = std::move(file),
                              .file_first = slot.offset / kPageBytes,
                              .window = Mapping(static_cast<std::byte*>(base), slot.bytes)});
    // A core dump would otherwise hold the whole guest.
    (void)madvise(base, slot.bytes, MADV_DONTDUMP);
  }
  std::ranges::sort(memory->slots_, {}, &Slot::first);
  for (std::size_t index = 1; index < memory->slots_.size(); ++index) {
    const Slot& before = memory->slots_[index - 1];
    if (before.first + before.count > memory->slots_[index].first) {
      return std::unexpected(Error::kFieldOutOfRange);
    }
  }
  return memory;
}

const GuestMemory::Slot* GuestMemory::Find(std::uint64_t page) const {
  const auto after = std::ranges::upper_bound(slots_, page, {}, &Slot::first);
  if (after == slots_.begin()) return nullptr;
  const Slot& slot = *std::prev(after);
  return page - slot.first < slot.count ? &slot : nullptr;
}

Result<Mapping> GuestMemory::MapSequence(std::span<const wire::PageNumber> sequence,
                                         Populate populate) const {
  std::vector<FilePages> pieces;
  for (const wire::PageNumber number : sequence) {
    const std::uint64_t page = std::to_underlying(number);
    const Slot* const slot = Find(page);
    if (slot == nullptr) return std::unexpected(Error::kPageOutOfRange);
    const int fd = slot->file.get();
    const std::uint64_t first = slot->file_first + (page - slot->first);
    if (!pieces.empty() && pieces.back().fd == fd &&
        pieces.back().first + pieces.back().count == first) {
      ++pieces.back().count;
    } else {
      pieces.push_back({.fd = fd, .first = first, .count = 1});
    }
  }
  return MapFilePages(pieces, areas_, populate);
}

Result<Mapping> GuestMemory::Map(std::span<const wire::PageNumber> pages) const {
  if (pages.empty()) return std::unexpected(Error::kFieldOutOfRange);
  return MapSequence(pages, Populate::kNo);
}

Result<RingMapping> GuestMemory::MapRings(std::span<const wire::PageNumber> pages,
                                          std::uint32_t downstream_page) const {
  const Result<RingLayout> layout = RingLayout::Of(pages, downstream_page);
  if (!layout) return std::unexpected(layout.error());
  Result<Mapping> mapping = MapSequence(layout->sequence(), Populate::kYes);
  if (!mapping) return std::unexpected(mapping.error());
  return layout->Views(*std::move(mapping));
}

std::byte* GuestMemory::Window(wire::PageNumber first, std::uint64_t count) const {
  const std::uint64_t page = std::to_underlying(first);
  const Slot* const slot = Find(page);
  if (slot == nullptr || count == 0 || count > slot->count - (page - slot->first)) return nullptr;
  return slot->window.base() + (page - slot->first) * kPageBytes;
}

bool GuestMemory::Read(std::uint64_t address, std::span<std::byte> to) const {
  if (to.empty()) return true;
  const std::uint64_t offset = address % kPageBytes;
  const std::uint64_t pages = (offset + to.size() + kPageBytes - 1) / kPageBytes;
  const std::byte* const from = Window(wire::PageNumber{address / kPageBytes}, pages);
  if (from == nullptr) return false;
  std::memcpy(to.data(), from + offset, to.size());
  return true;
}

}  // namespace kmcl::transport::kvm
