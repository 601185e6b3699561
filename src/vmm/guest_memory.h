// The RAM of a machine: one shared file, mapped once, and where its parts stand in the guest's
// address space.
//
// RAM ends at 3 GiB at the latest; what is left of it goes on at 4 GiB. Between the two are the
// local APICs, the I/O APIC, KVM's own pages, and the window of the VMBus device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/descriptor.h"
#include "vmm/outcome.h"

namespace kmcl::vmm {

inline constexpr std::uint64_t kLowMemoryEnd = std::uint64_t{3} << 30;
inline constexpr std::uint64_t kHighMemoryBegin = std::uint64_t{4} << 30;
inline constexpr std::uint64_t kMinimumMemoryBytes = std::uint64_t{16} << 20;
inline constexpr std::uint64_t kMaximumMemoryBytes = std::uint64_t{1} << 40;

class GuestMemory {
 public:
  // A range of RAM, and where its bytes are in the file.
  struct Slot {
    std::uint64_t guest_address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t file_offset = 0;
  };

  // `bytes` is a multiple of 1 MiB within the limits above. All zeros at first; pages are taken
  // from the system when they are touched.
  static Outcome<GuestMemory> Create(std::uint64_t bytes);

  GuestMemory(GuestMemory&& other) noexcept;
  GuestMemory& operator=(GuestMemory&&) = delete;
  ~GuestMemory();

  std::uint64_t bytes() const { return bytes_; }
  // Where RAM ends below 4 GiB.
  std::uint64_t low_end() const { return bytes_ < kLowMemoryEnd ? bytes_ : kLowMemoryEnd; }
  const std::vector<Slot>& slots() const { return slots_; }
  int descriptor() const { return file_.get(); }
  std::byte* Mapping(const Slot& slot) const { return mapping_ + slot.file_offset; }

  // The bytes at `guest_address`, all of them in one slot; empty when they are not.
  std::span<std::byte> At(std::uint64_t guest_address, std::uint64_t byte_count) const;

  // Makes all of it zero again and gives the pages back. Nobody else may be at work in it.
  Outcome<void> Clear();

 private:
  GuestMemory() = default;

  Descriptor file_;
  std::byte* mapping_ = nullptr;
  std::uint64_t bytes_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace kmcl::vmm
