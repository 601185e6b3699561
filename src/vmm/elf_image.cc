// A vmlinux: a 64-bit ELF file whose segments name physical addresses.
#include <elf.h>

#include <algorithm>
#include <cstring>

#include "vmm/boot_image.h"

namespace kmcl::vmm {
namespace {

// The header that a bzImage would bring: what Linux reads of it once it runs.
std::vector<std::byte> Header() {
  constexpr std::size_t kBootFlag = 0x1FE;
  constexpr std::size_t kMagic = 0x202;
  constexpr std::size_t kVersion = 0x206;
  constexpr std::size_t kLoadFlags = 0x211;
  constexpr std::size_t kEnd = 0x268;
  std::vector<std::byte> header(kEnd - BootImage::kHeaderOffset);
  const auto put = [&header](std::size_t offset, auto value) {
    std::memcpy(header.data() + (offset - BootImage::kHeaderOffset), &value, sizeof(value));
  };
  put(kBootFlag, std::uint16_t{0xAA55});
  put(kMagic, std::uint32_t{0x53726448});
  put(kVersion, std::uint16_t{0x020F});
  put(kLoadFlags, std::uint8_t{1});
  return header;
}

}  // namespace

Outcome<BootImage> ParseElfImage(std::vector<std::byte> file) {
  if (file.size() < sizeof(Elf64_Ehdr)) {
    return Fail("the kernel is cut off");
  }
  const auto elf = ReadField<Elf64_Ehdr>(file, 0);
  if (elf.e_ident[EI_CLASS] != ELFCLASS64 || elf.e_ident[EI_DATA] != ELFDATA2LSB ||
      elf.e_machine != EM_X86_64 || elf.e_type != ET_EXEC ||
      elf.e_phentsize != sizeof(Elf64_Phdr)) {
    return Fail("the kernel is an ELF file, but no vmlinux for x86-64");
  }
  const std::uint64_t headers_bytes = std::uint64_t{elf.e_phnum} * sizeof(Elf64_Phdr);
  if (elf.e_phoff > file.size() || headers_bytes > file.size() - elf.e_phoff) {
    return Fail("the kernel is cut off");
  }
  BootImage image;
  bool entry_is_inside = false;
  for (unsigned i = 0; i < elf.e_phnum; ++i) {
    const auto header = ReadField<Elf64_Phdr>(file, elf.e_phoff + i * sizeof(Elf64_Phdr));
    if (header.p_type != PT_LOAD || header.p_memsz == 0) {
      continue;
    }
    if (header.p_offset > file.size() || header.p_filesz > file.size() - header.p_offset) {
      return Fail("the kernel is cut off");
    }
    if (header.p_filesz > header.p_memsz || header.p_paddr < BootImage::kMinimumAddress ||
        header.p_paddr >= BootImage::kAddressEnd ||
        header.p_memsz > BootImage::kAddressEnd - header.p_paddr) {
      return Fail("the kernel wants to be below 1 MiB or above 4 GiB");
    }
    image.segments.push_back({header.p_paddr, header.p_offset, header.p_filesz, header.p_memsz});
    entry_is_inside = entry_is_inside || (elf.e_entry >= header.p_paddr &&
                                          elf.e_entry - header.p_paddr < header.p_memsz);
  }
  if (!entry_is_inside) {
    return Fail("the kernel's entry point is not in the kernel");
  }
  image.header = Header();
  image.entry = elf.e_entry;
  // What Linux has had for many years; the file does not say it.
  image.last_initrd_address = 0x7FFFFFFF;
  image.maximum_command_line_bytes = 2047;
  image.file = std::move(file);
  return image;
}

}  // namespace kmcl::vmm
