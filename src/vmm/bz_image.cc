// A bzImage: Linux' Documentation/x86/boot.rst.
#include <algorithm>

#include "vmm/boot_image.h"

namespace kmcl::vmm {
namespace {

// Offsets in the file, which are those in boot_params as well.
constexpr std::size_t kSetupSectors = 0x1F1;
constexpr std::size_t kBootFlag = 0x1FE;
constexpr std::size_t kHeaderLength = 0x201;  // counts from 0x202
constexpr std::size_t kMagic = 0x202;
constexpr std::size_t kVersion = 0x206;
constexpr std::size_t kLoadFlags = 0x211;
constexpr std::size_t kLastInitrdAddress = 0x22C;
constexpr std::size_t kExtendedLoadFlags = 0x236;
constexpr std::size_t kCommandLineBytes = 0x238;
constexpr std::size_t kPreferredAddress = 0x258;
constexpr std::size_t kInitialBytes = 0x260;
constexpr std::size_t kFieldsEnd = 0x264;
constexpr std::size_t kHeaderLimit = 0x290;  // boot_params has other things from here on

constexpr std::uint16_t kVersionWith64BitEntry = 0x020C;
constexpr std::uint64_t kEntryOffset = 0x200;

}  // namespace

Outcome<BootImage> ParseBzImage(std::vector<std::byte> file) {
  if (file.size() < kFieldsEnd) {
    return Fail("the kernel is too short for one");
  }
  if (ReadField<std::uint16_t>(file, kBootFlag) != 0xAA55 ||
      ReadField<std::uint32_t>(file, kMagic) != 0x53726448) {  // "HdrS"
    return Fail("the kernel is neither a bzImage for x86 nor a vmlinux");
  }
  if (ReadField<std::uint16_t>(file, kVersion) < kVersionWith64BitEntry ||
      (ReadField<std::uint16_t>(file, kExtendedLoadFlags) & 1) == 0) {
    return Fail("the kernel has no 64-bit entry point");
  }
  if ((ReadField<std::uint8_t>(file, kLoadFlags) & 1) == 0) {
    return Fail("the kernel is a zImage, not a bzImage");
  }
  const std::size_t header_end =
      std::min(kMagic + ReadField<std::uint8_t>(file, kHeaderLength), kHeaderLimit);
  if (header_end < kFieldsEnd || header_end > file.size()) {
    return Fail("the kernel's header has an impossible length");
  }
  const std::uint8_t sectors = ReadField<std::uint8_t>(file, kSetupSectors);
  BootImage::Segment payload;
  payload.file_offset = ((sectors == 0 ? 4u : sectors) + 1u) * std::uint64_t{512};
  if (payload.file_offset + kEntryOffset >= file.size()) {
    return Fail("the kernel is cut off: there is nothing behind its set-up code");
  }
  payload.file_bytes = file.size() - payload.file_offset;
  payload.memory_bytes =
      std::max<std::uint64_t>(ReadField<std::uint32_t>(file, kInitialBytes), payload.file_bytes);
  payload.address = ReadField<std::uint64_t>(file, kPreferredAddress);
  if (payload.address < BootImage::kMinimumAddress || payload.address >= BootImage::kAddressEnd ||
      payload.memory_bytes > BootImage::kAddressEnd - payload.address) {
    return Fail("the kernel wants to be below 1 MiB or above 4 GiB");
  }
  BootImage image;
  image.header.assign(file.begin() + BootImage::kHeaderOffset,
                      file.begin() + static_cast<std::ptrdiff_t>(header_end));
  image.entry = payload.address + kEntryOffset;
  image.last_initrd_address = ReadField<std::uint32_t>(file, kLastInitrdAddress);
  image.maximum_command_line_bytes = ReadField<std::uint32_t>(file, kCommandLineBytes);
  image.segments.push_back(payload);
  image.file = std::move(file);
  return image;
}

}  // namespace kmcl::vmm
