#include "vmm/boot_loader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace kmcl::vmm {
namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::uint64_t kMegabyte = std::uint64_t{1} << 20;

// Offsets in boot_params.
constexpr std::size_t kAcpiRoot = 0x070;
constexpr std::size_t kMapEntryCount = 0x1E8;
constexpr std::size_t kLoaderType = 0x210;
constexpr std::size_t kInitrdAddress = 0x218;
constexpr std::size_t kInitrdBytes = 0x21C;
constexpr std::size_t kCommandLine = 0x228;
constexpr std::size_t kMap = 0x2D0;

struct [[gnu::packed]] MapEntry {
  std::uint64_t address;
  std::uint64_t bytes;
  std::uint32_t type;
};
static_assert(sizeof(MapEntry) == 20);
constexpr std::uint32_t kMapRam = 1;
constexpr std::uint32_t kMapReserved = 2;

template <typename T>
void Put(std::span<std::byte> page, std::size_t offset, T value) {
  std::memcpy(page.data() + offset, &value, sizeof(value));
}

std::vector<MapEntry> MemoryMap(const GuestMemory& memory) {
  std::vector<MapEntry> map = {
      {0, kConventionalMemoryEnd, kMapRam},
      {kConventionalMemoryEnd, kMegabyte - kConventionalMemoryEnd, kMapReserved},
      {kMegabyte, memory.low_end() - kMegabyte, kMapRam}};
  for (const GuestMemory::Slot& slot : memory.slots()) {
    if (slot.guest_address >= kHighMemoryBegin) {
      map.push_back({slot.guest_address, slot.bytes, kMapRam});
    }
  }
  return map;
}

// The first 4 GiB at their own addresses, in pages of 2 MiB.
void PutPageTables(const GuestMemory& memory) {
  constexpr std::uint64_t kPresentAndWritable = 3;
  constexpr std::uint64_t kLarge = 0x80;
  constexpr std::uint64_t kEntriesPerPage = kPageBytes / 8;
  constexpr std::uint64_t kDirectory = kPageTablesAddress + 2 * kPageBytes;
  const auto tables = memory.At(kPageTablesAddress, 6 * kPageBytes);
  Put(tables, 0, kPageTablesAddress + kPageBytes + kPresentAndWritable);
  for (std::uint64_t i = 0; i < 4; ++i) {
    Put(tables, kPageBytes + i * 8, kDirectory + i * kPageBytes + kPresentAndWritable);
  }
  for (std::uint64_t i = 0; i < 4 * kEntriesPerPage; ++i) {
    Put(tables, 2 * kPageBytes + i * 8, (i << 21) + kPresentAndWritable + kLarge);
  }
}

// Null, unused, flat 64-bit code at 0x10, flat data at 0x18: the selectors are the boot protocol's.
constexpr std::array<std::uint64_t, 4> kGdt = {0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF};

}  // namespace

Outcome<BootEntry> LoadKernel(const GuestMemory& memory, const BootImage& image,
                              std::span<const std::byte> initrd, const std::string& command_line,
                              std::uint64_t acpi_root) {
  const std::uint64_t kernel_end = image.end();
  if (kernel_end > memory.low_end()) {
    return Fail("the kernel needs a machine of more than " +
                std::to_string((kernel_end + kMegabyte - 1) / kMegabyte) + " MiB");
  }
  for (const BootImage::Segment& segment : image.segments) {
    const auto bytes = image.BytesOf(segment);
    std::memcpy(memory.At(segment.address, segment.memory_bytes).data(), bytes.data(),
                bytes.size());
  }

  if (command_line.size() > image.maximum_command_line_bytes ||
      command_line.size() >= kConventionalMemoryEnd - kCommandLineAddress) {
    return Fail("the command line is too long for this kernel");
  }
  const auto line = memory.At(kCommandLineAddress, command_line.size() + 1);
  std::memcpy(line.data(), command_line.c_str(), command_line.size() + 1);

  std::uint64_t initrd_address = 0;
  if (!initrd.empty()) {
    // As high as it can be: the kernel unpacks itself from below.
    const std::uint64_t limit = std::min(memory.low_end(), image.last_initrd_address + 1);
    if (limit < kernel_end || initrd.size() > limit - kernel_end - kPageBytes) {
      return Fail("kernel and initrd do not fit into the machine's memory");
    }
    initrd_address = (limit - initrd.size()) / kPageBytes * kPageBytes;
    std::memcpy(memory.At(initrd_address, initrd.size()).data(), initrd.data(), initrd.size());
  }

  const auto params = memory.At(kBootParamsAddress, kPageBytes);
  std::memcpy(params.data() + BootImage::kHeaderOffset, image.header.data(), image.header.size());
  Put(params, kAcpiRoot, acpi_root);
  Put(params, kLoaderType, std::uint8_t{0xFF});
  Put(params, kInitrdAddress, static_cast<std::uint32_t>(initrd_address));
  Put(params, kInitrdBytes, static_cast<std::uint32_t>(initrd.size()));
  Put(params, kCommandLine, static_cast<std::uint32_t>(kCommandLineAddress));
  const std::vector<MapEntry> map = MemoryMap(memory);
  Put(params, kMapEntryCount, static_cast<std::uint8_t>(map.size()));
  std::memcpy(params.data() + kMap, map.data(), map.size() * sizeof(MapEntry));

  PutPageTables(memory);
  std::memcpy(memory.At(kGdtAddress, sizeof(kGdt)).data(), kGdt.data(), sizeof(kGdt));
  return BootEntry{image.entry,   kBootParamsAddress,
                   kBootStackTop, kPageTablesAddress,
                   kGdtAddress,   static_cast<std::uint16_t>(sizeof(kGdt))};
}

}  // namespace kmcl::vmm
