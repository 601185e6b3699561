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

#include "log.h"
#include "transport/memory_region.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;

// A slot's file must have all of its pages, in a size that can be shown one by one.
Result<void> CheckFile(const MemorySlot& slot, struct stat& status) {
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
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  if (const auto set = memory->Update(slots); !set) return std::unexpected(set.error());
  return memory;
}

Result<std::shared_ptr<const GuestMemory::Slot>> GuestMemory::Make(const MemorySlot& slot) {
  if (slot.bytes == 0 || (slot.guest_address | slot.bytes | slot.offset) % kPageBytes != 0 ||
      slot.bytes > std::numeric_limits<std::uint64_t>::max() - slot.guest_address) {
    return std::unexpected(Error::kFieldOutOfRange);
  }
  struct stat status{};
  if (const auto checked = CheckFile(slot, status); !checked) {
    return std::unexpected(checked.error());
  }
  auto made = std::make_shared<Slot>();
  made->first = slot.guest_address / kPageBytes;
  made->count = slot.bytes / kPageBytes;
  made->file_first = slot.offset / kPageBytes;
  made->device = status.st_dev;
  made->inode = status.st_ino;
  made->file = Descriptor(fcntl(slot.fd, F_DUPFD_CLOEXEC, 0));
  if (!made->file) return std::unexpected(MemoryErrorFromErrno("duplicating"));
  void* const base = mmap(nullptr, slot.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                          made->file.get(), static_cast<off_t>(slot.offset));
  if (base == MAP_FAILED) return std::unexpected(MemoryErrorFromErrno("mmap"));
  made->window = Mapping(static_cast<std::byte*>(base), slot.bytes);
  // A core dump would otherwise hold the whole guest.
  (void)madvise(base, slot.bytes, MADV_DONTDUMP);
  return made;
}

Result<void> GuestMemory::Update(std::span<const MemorySlot> slots) {
  if (slots.empty()) return std::unexpected(Error::kFieldOutOfRange);
  MutexLock lock(mutex_);
  const Slots* const before = current_.load(std::memory_order_relaxed);
  auto after = std::make_unique<Slots>();
  for (const MemorySlot& slot : slots) {
    auto made = Make(slot);
    if (!made) return std::unexpected(made.error());
    after->push_back(*std::move(made));
  }
  std::ranges::sort(*after, {}, [](const auto& slot) { return slot->first; });
  for (std::size_t index = 1; index < after->size(); ++index) {
    const Slot& lower = *(*after)[index - 1];
    if (lower.first + lower.count > (*after)[index]->first) {
      return std::unexpected(Error::kFieldOutOfRange);
    }
  }
  // One that stays is the one that it was: its window is in use.
  for (std::size_t index = 0; before != nullptr && index < before->size(); ++index) {
    const auto& old = (*before)[index];
    const auto same = std::ranges::find_if(*after, [&](const auto& slot) {
      return slot->first == old->first && slot->count == old->count &&
             slot->file_first == old->file_first && slot->device == old->device &&
             slot->inode == old->inode;
    });
    if (same == after->end()) {
      Log(LogLevel::kError,
          "kvm: the memory slot at 0x%llx (%llu bytes) is in use, and has to stay",
          static_cast<unsigned long long>(old->first) * kPageBytes,
          static_cast<unsigned long long>(old->count) * kPageBytes);
      return std::unexpected(Error::kMemorySlotMoved);
    }
    *same = old;
  }
  current_.store(after.get(), std::memory_order_release);
  all_.push_back(std::move(after));
  return {};
}

const GuestMemory::Slot* GuestMemory::Find(std::uint64_t page) const {
  const Slots& slots = *current_.load(std::memory_order_acquire);
  const auto after =
      std::ranges::upper_bound(slots, page, {}, [](const auto& slot) { return slot->first; });
  if (after == slots.begin()) return nullptr;
  const Slot& slot = **std::prev(after);
  return page - slot.first < slot.count ? &slot : nullptr;
}

std::optional<wire::PageNumber> GuestMemory::FirstMissing(
    std::span<const wire::PageNumber> pages) const {
  for (const wire::PageNumber page : pages) {
    if (Find(std::to_underlying(page)) == nullptr) return page;
  }
  return std::nullopt;
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
