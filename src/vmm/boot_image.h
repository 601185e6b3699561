// A kernel file, checked: what goes where in memory, and where it begins.
//
// Two kinds are taken. A bzImage is what distributions install: it unpacks itself. A vmlinux is
// what is inside of one, an ELF file: it starts at once, which matters where a hypervisor emulates
// the unpacking instruction by instruction. Both are entered by the 64-bit boot protocol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/outcome.h"

namespace kmcl::vmm {

struct BootImage {
  // Of the file, all of it checked against the file's end and against `kMinimumAddress` and 4 GiB.
  struct Segment {
    std::uint64_t address = 0;
    std::uint64_t file_offset = 0;
    std::uint64_t file_bytes = 0;
    std::uint64_t memory_bytes = 0;  // no less than file_bytes; zeros from there on
  };
  static constexpr std::uint64_t kMinimumAddress = std::uint64_t{1} << 20;
  static constexpr std::uint64_t kAddressEnd = std::uint64_t{1} << 32;
  // Where `header` goes in boot_params.
  static constexpr std::size_t kHeaderOffset = 0x1F1;

  std::vector<std::byte> file;
  std::vector<Segment> segments;  // at least one
  std::vector<std::byte> header;  // fits into boot_params, up to where the memory map stands
  std::uint64_t entry = 0;        // in a segment
  std::uint64_t last_initrd_address = 0;
  std::uint64_t maximum_command_line_bytes = 0;  // without the final zero

  // Where the last segment ends.
  std::uint64_t end() const;
  std::span<const std::byte> BytesOf(const Segment& segment) const {
    return std::span(file).subspan(static_cast<std::size_t>(segment.file_offset),
                                   static_cast<std::size_t>(segment.file_bytes));
  }
};

// Takes the file's bytes. What it refuses it says.
Outcome<BootImage> ParseKernel(std::vector<std::byte> file);

// The two kinds: bz_image.cc and elf_image.cc.
Outcome<BootImage> ParseBzImage(std::vector<std::byte> file);
Outcome<BootImage> ParseElfImage(std::vector<std::byte> file);

// The value at `offset`, which is in the file.
template <typename T>
T ReadField(std::span<const std::byte> file, std::size_t offset) {
  T value;
  __builtin_memcpy(&value, file.data() + offset, sizeof(value));
  return value;
}

}  // namespace kmcl::vmm
