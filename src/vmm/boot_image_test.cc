// Kernels that are none are refused with a reason, and nothing of them is used before it was
// checked.
#include "vmm/boot_image.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "vmm/boot_loader.h"
#include "vmm/guest_memory.h"

namespace kmcl::vmm {
namespace {

using ::testing::HasSubstr;

template <typename T>
void Put(std::vector<std::byte>& bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

// The least that is taken for a bzImage: one set-up sector, and a payload of one more.
std::vector<std::byte> SmallBzImage() {
  std::vector<std::byte> file(1024 + 1024);
  Put(file, 0x1F1, std::uint8_t{1});
  Put(file, 0x1FE, std::uint16_t{0xAA55});
  Put(file, 0x201, std::uint8_t{0x66});
  std::memcpy(file.data() + 0x202, "HdrS", 4);
  Put(file, 0x206, std::uint16_t{0x020F});
  Put(file, 0x211, std::uint8_t{1});
  Put(file, 0x22C, std::uint32_t{0x7FFFFFFF});
  Put(file, 0x236, std::uint16_t{1});
  Put(file, 0x238, std::uint32_t{255});
  Put(file, 0x258, std::uint64_t{0x100000});
  Put(file, 0x260, std::uint32_t{0x10000});
  Put(file, 1024, std::uint32_t{0x12345678});
  return file;
}

std::vector<std::byte> SmallElf() {
  std::vector<std::byte> file(4096);
  Elf64_Ehdr elf{};
  std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
  elf.e_ident[EI_CLASS] = ELFCLASS64;
  elf.e_ident[EI_DATA] = ELFDATA2LSB;
  elf.e_type = ET_EXEC;
  elf.e_machine = EM_X86_64;
  elf.e_entry = 0x200010;
  elf.e_phoff = sizeof(elf);
  elf.e_phentsize = sizeof(Elf64_Phdr);
  elf.e_phnum = 1;
  Elf64_Phdr segment{};
  segment.p_type = PT_LOAD;
  segment.p_offset = 1024;
  segment.p_paddr = 0x200000;
  segment.p_filesz = 512;
  segment.p_memsz = 4096;
  Put(file, 0, elf);
  Put(file, sizeof(elf), segment);
  return file;
}

std::string WhyRefused(std::vector<std::byte> file) {
  const auto image = ParseKernel(std::move(file));
  return image ? "taken" : image.error();
}

template <typename T>
std::string WhyRefusedWith(std::vector<std::byte> file, std::size_t offset, T value) {
  Put(file, offset, value);
  return WhyRefused(std::move(file));
}

TEST(BootImage, ABzImageSaysWhereItBegins) {
  const auto image = ParseKernel(SmallBzImage());
  ASSERT_TRUE(image) << image.error();
  EXPECT_EQ(image->entry, 0x100200u);
  EXPECT_EQ(image->end(), 0x110000u);
  EXPECT_EQ(image->maximum_command_line_bytes, 255u);
}

TEST(BootImage, EachPartOfABzImageThatIsWrongIsNamed) {
  EXPECT_THAT(WhyRefused({}), HasSubstr("too short"));
  EXPECT_THAT(WhyRefused(std::vector<std::byte>(100'000)), HasSubstr("neither"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x236, std::uint16_t{0}), HasSubstr("64-bit"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x206, std::uint16_t{0x0204}), HasSubstr("64-bit"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x211, std::uint8_t{0}), HasSubstr("zImage"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x201, std::uint8_t{2}), HasSubstr("length"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x1F1, std::uint8_t{200}), HasSubstr("cut off"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x258, std::uint64_t{0}), HasSubstr("1 MiB"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x258, ~std::uint64_t{0}), HasSubstr("4 GiB"));
  EXPECT_THAT(WhyRefusedWith(SmallBzImage(), 0x258, std::uint64_t{0xFFFFF000}), HasSubstr("4 GiB"));
}

TEST(BootImage, AVmlinuxIsTakenByItsPhysicalAddresses) {
  const auto image = ParseKernel(SmallElf());
  ASSERT_TRUE(image) << image.error();
  EXPECT_EQ(image->entry, 0x200010u);
  EXPECT_EQ(image->end(), 0x201000u);
}

TEST(BootImage, EachPartOfAVmlinuxThatIsWrongIsNamed) {
  constexpr std::size_t kSegment = sizeof(Elf64_Ehdr);
  std::vector<std::byte> short_file = SmallElf();
  short_file.resize(20);
  EXPECT_THAT(WhyRefused(short_file), HasSubstr("cut off"));
  short_file = SmallElf();
  short_file.resize(1024 + 511);
  EXPECT_THAT(WhyRefused(short_file), HasSubstr("cut off"));
  EXPECT_THAT(WhyRefusedWith(SmallElf(), EI_CLASS, std::uint8_t{ELFCLASS32}), HasSubstr("x86-64"));
  EXPECT_THAT(WhyRefusedWith(SmallElf(), offsetof(Elf64_Ehdr, e_phoff), ~std::uint64_t{0}),
              HasSubstr("cut off"));
  EXPECT_THAT(WhyRefusedWith(SmallElf(), offsetof(Elf64_Ehdr, e_phnum), std::uint16_t{0xFFFF}),
              HasSubstr("cut off"));
  EXPECT_THAT(WhyRefusedWith(SmallElf(), offsetof(Elf64_Ehdr, e_entry), std::uint64_t{0x201000}),
              HasSubstr("entry point"));
  const auto with_segment = [&](std::size_t field, std::uint64_t value) {
    return WhyRefusedWith(SmallElf(), kSegment + field, value);
  };
  EXPECT_THAT(with_segment(offsetof(Elf64_Phdr, p_offset), ~std::uint64_t{0}),
              HasSubstr("cut off"));
  EXPECT_THAT(with_segment(offsetof(Elf64_Phdr, p_filesz), ~std::uint64_t{0}),
              HasSubstr("cut off"));
  EXPECT_THAT(with_segment(offsetof(Elf64_Phdr, p_memsz), 100), HasSubstr("1 MiB"));
  EXPECT_THAT(with_segment(offsetof(Elf64_Phdr, p_memsz), ~std::uint64_t{0}), HasSubstr("4 GiB"));
  EXPECT_THAT(with_segment(offsetof(Elf64_Phdr, p_paddr), 0x1000), HasSubstr("1 MiB"));
}

TEST(BootLoader, WhatDoesNotFitIntoTheMachineIsRefused) {
  const auto memory = GuestMemory::Create(kMinimumMemoryBytes);
  ASSERT_TRUE(memory);
  const auto image = ParseKernel(SmallBzImage());
  ASSERT_TRUE(image);
  const auto entry = LoadKernel(*memory, *image, {}, "console=ttyS0", 0xE0000);
  ASSERT_TRUE(entry) << entry.error();
  EXPECT_EQ(ReadField<std::uint32_t>(memory->At(0x100000, 4), 0), 0x12345678u);
  EXPECT_STREQ(reinterpret_cast<const char*>(memory->At(kCommandLineAddress, 20).data()),
               "console=ttyS0");

  const std::vector<std::byte> initrd(kMinimumMemoryBytes - 0x110000);
  EXPECT_FALSE(LoadKernel(*memory, *image, initrd, "", 0xE0000));
  EXPECT_TRUE(
      LoadKernel(*memory, *image, std::span(initrd).first(initrd.size() - 8192), "", 0xE0000));
  EXPECT_FALSE(LoadKernel(*memory, *image, {}, std::string(256, 'x'), 0xE0000));

  auto large = SmallBzImage();
  Put(large, 0x260, static_cast<std::uint32_t>(kMinimumMemoryBytes));
  const auto too_large = ParseKernel(std::move(large));
  ASSERT_TRUE(too_large);
  const auto refused = LoadKernel(*memory, *too_large, {}, "", 0xE0000);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error(), HasSubstr("17 MiB"));
}

TEST(GuestMemory, RamGoesOnBehindTheHoleAndNothingReachesAcross) {
  EXPECT_FALSE(GuestMemory::Create(0));
  EXPECT_FALSE(GuestMemory::Create(kMinimumMemoryBytes + 4096));
  const auto memory = GuestMemory::Create(kLowMemoryEnd + (std::uint64_t{1} << 20));
  ASSERT_TRUE(memory);
  ASSERT_EQ(memory->slots().size(), 2u);
  EXPECT_EQ(memory->low_end(), kLowMemoryEnd);
  EXPECT_EQ(memory->At(kLowMemoryEnd - 8, 8).size(), 8u);
  EXPECT_TRUE(memory->At(kLowMemoryEnd - 8, 9).empty());
  EXPECT_TRUE(memory->At(kLowMemoryEnd, 1).empty());
  EXPECT_EQ(memory->At(kHighMemoryBegin, 4096).size(), 4096u);
  EXPECT_TRUE(memory->At(kHighMemoryBegin, (std::uint64_t{1} << 20) + 1).empty());
  EXPECT_TRUE(memory->At(~std::uint64_t{0}, 2).empty());
  EXPECT_TRUE(memory->At(4096, ~std::uint64_t{0}).empty());
}

TEST(GuestMemory, IsZeroAgainAfterAReset) {
  auto memory = GuestMemory::Create(kMinimumMemoryBytes);
  ASSERT_TRUE(memory);
  memory->At(0x5000, 1)[0] = std::byte{7};
  ASSERT_TRUE(memory->Clear());
  EXPECT_EQ(memory->At(0x5000, 1)[0], std::byte{0});
}

}  // namespace
}  // namespace kmcl::vmm
