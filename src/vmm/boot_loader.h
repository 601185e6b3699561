// Puts a kernel, its initrd, its command line and everything that the 64-bit boot protocol asks for
// into a machine's memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "vmm/boot_image.h"
#include "vmm/guest_memory.h"
#include "vmm/outcome.h"

namespace kmcl::vmm {

// Where the loader and the ACPI tables put things below 1 MiB.
inline constexpr std::uint64_t kGdtAddress = 0x500;
inline constexpr std::uint64_t kBootParamsAddress = 0x7000;
inline constexpr std::uint64_t kBootStackTop = 0x8FF0;
inline constexpr std::uint64_t kPageTablesAddress = 0x9000;  // six pages
inline constexpr std::uint64_t kCommandLineAddress = 0x20000;
inline constexpr std::uint64_t kConventionalMemoryEnd = 0x9FC00;
inline constexpr std::uint64_t kAcpiAddress = 0xE0000;
inline constexpr std::uint64_t kAcpiEnd = 0x100000;

// What the first CPU starts with, beside what the boot protocol fixes (vcpu_state.cc).
struct BootEntry {
  std::uint64_t instruction = 0;
  std::uint64_t boot_params = 0;
  std::uint64_t stack = 0;
  std::uint64_t page_tables = 0;
  std::uint64_t gdt = 0;
  std::uint16_t gdt_bytes = 0;
};

// `initrd` may be empty. The memory is zero where nothing was put.
Outcome<BootEntry> LoadKernel(const GuestMemory& memory, const BootImage& image,
                              std::span<const std::byte> initrd, const std::string& command_line,
                              std::uint64_t acpi_root);

}  // namespace kmcl::vmm
