#include "vmm/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace kmcl::vmm {

Outcome<GuestMemory> GuestMemory::Create(std::uint64_t bytes) {
  constexpr std::uint64_t kMegabyte = std::uint64_t{1} << 20;
  if (bytes < kMinimumMemoryBytes || bytes > kMaximumMemoryBytes || bytes % kMegabyte != 0) {
    return Fail("a machine has between 16 MiB and 1 TiB of memory, in whole MiB");
  }
  GuestMemory memory;
  memory.file_ = Descriptor(memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.file_.valid() || ftruncate(memory.file_.get(), static_cast<off_t>(bytes)) != 0) {
    return FailWithErrno("cannot make the guest's memory");
  }
  // Nobody can take pages away from under a mapping.
  if (fcntl(memory.file_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return FailWithErrno("cannot seal the guest's memory");
  }
  void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                            memory.file_.get(), 0);
  if (mapped == MAP_FAILED) {
    return FailWithErrno("cannot map the guest's memory");
  }
  memory.mapping_ = static_cast<std::byte*>(mapped);
  memory.bytes_ = bytes;
  // Core dumps of the host would hold all of the guest.
  (void)madvise(mapped, bytes, MADV_DONTDUMP);
  memory.slots_.push_back({0, std::min(bytes, kLowMemoryEnd), 0});
  if (bytes > kLowMemoryEnd) {
    memory.slots_.push_back({kHighMemoryBegin, bytes - kLowMemoryEnd, kLowMemoryEnd});
  }
  return memory;
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : file_(std::move(other.file_)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      slots_(std::move(other.slots_)) {}

GuestMemory::~GuestMemory() {
  if (mapping_ != nullptr) {
    munmap(mapping_, bytes_);
  }
}

std::span<std::byte> GuestMemory::At(std::uint64_t guest_address, std::uint64_t byte_count) const {
  for (const Slot& slot : slots_) {
    if (guest_address >= slot.guest_address && guest_address - slot.guest_address < slot.bytes &&
        byte_count <= slot.bytes - (guest_address - slot.guest_address)) {
      return {Mapping(slot) + (guest_address - slot.guest_address),
              static_cast<std::size_t>(byte_count)};
    }
  }
  return {};
}

Outcome<void> GuestMemory::Clear() {
  if (fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                static_cast<off_t>(bytes_)) != 0) {
    return FailWithErrno("cannot clear the guest's memory");
  }
  return {};
}

}  // namespace kmcl::vmm
