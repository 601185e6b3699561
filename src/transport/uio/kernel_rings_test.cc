// How rings are shown that can only be mapped from the beginning of their file.
#include "transport/uio/kernel_rings.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "transport/descriptor.h"
#include "wire/ids.h"

namespace kmcl::transport::uio {
namespace {

constexpr std::size_t kPage = wire::kPageBytes;

// A file of two rings; page n begins with the number n.
Descriptor FileOfPages(std::uint32_t pages) {
  Descriptor file(memfd_create("rings", MFD_CLOEXEC));
  EXPECT_EQ(ftruncate(file.get(), static_cast<off_t>(pages * kPage)), 0);
  for (std::uint32_t page = 0; page < pages; ++page) {
    EXPECT_EQ(pwrite(file.get(), &page, sizeof page, static_cast<off_t>(page * kPage)),
              static_cast<ssize_t>(sizeof page));
  }
  return file;
}

std::uint32_t NumberAt(const std::byte* page) {
  std::uint32_t number = 0;
  std::memcpy(&number, page, sizeof number);
  return number;
}

class RingsFromStart : public testing::TestWithParam<std::uint32_t> {};

TEST_P(RingsFromStart, AreShownWithTheirDataTwice) {
  const std::uint32_t ring_pages = GetParam();
  const std::uint32_t data_pages = ring_pages - 1;
  const Descriptor file = FileOfPages(2 * ring_pages);
  auto lease = std::make_shared<int>(0);
  auto mapped = KernelRings::Map(file.get(), ring_pages, lease);
  ASSERT_TRUE(mapped.has_value());
  RingMapping rings = KernelRings::Views(std::move(*mapped));
  EXPECT_EQ(lease.use_count(), 2);
  std::uint32_t control = 0;
  for (const auto& view : {rings.client_to_server, rings.server_to_client}) {
    EXPECT_EQ(view.data_bytes, data_pages * kPage);
    EXPECT_EQ(NumberAt(view.control), control);
    for (std::uint32_t page = 0; page < 2 * data_pages; ++page) {
      EXPECT_EQ(NumberAt(view.data + page * kPage), control + 1 + page % data_pages);
    }
    // And it is the same memory, in both copies.
    view.data[5] = std::byte{0x5A};
    EXPECT_EQ(view.data[data_pages * kPage + 5], std::byte{0x5A});
    control += ring_pages;
  }
  rings = {};
  EXPECT_EQ(lease.use_count(), 1);
}

TEST_P(RingsFromStart, AreACopyOnceTheyAreDetached) {
  const std::uint32_t ring_pages = GetParam();
  const std::uint32_t data_pages = ring_pages - 1;
  const Descriptor file = FileOfPages(2 * ring_pages);
  auto mapped = KernelRings::Map(file.get(), ring_pages, nullptr);
  ASSERT_TRUE(mapped.has_value());
  (*mapped)->Detach();
  const RingMapping rings = KernelRings::Views(std::move(*mapped));
  std::uint32_t control = 0;
  for (const auto& view : {rings.client_to_server, rings.server_to_client}) {
    EXPECT_EQ(NumberAt(view.control), control);
    for (std::uint32_t page = 0; page < 2 * data_pages; ++page) {
      EXPECT_EQ(NumberAt(view.data + page * kPage), control + 1 + page % data_pages);
    }
    std::memset(view.control, 0xFF, kPage);
    std::memset(view.data, 0xFF, data_pages * kPage);
    EXPECT_EQ(view.data[2 * data_pages * kPage - 1], std::byte{0xFF}) << "still shown twice";
    control += ring_pages;
  }
  for (std::uint32_t page = 0; page < 2 * ring_pages; ++page) {
    std::uint32_t number = 0;
    ASSERT_EQ(pread(file.get(), &number, sizeof number, static_cast<off_t>(page * kPage)),
              static_cast<ssize_t>(sizeof number));
    EXPECT_EQ(number, page) << "the file is out of reach";
  }
}

INSTANTIATE_TEST_SUITE_P(OfManySizes, RingsFromStart, testing::Values(2, 3, 5, 17, 512));

TEST(KernelRingsTest, ARingWithoutDataIsNone) {
  const Descriptor file = FileOfPages(2);
  EXPECT_EQ(KernelRings::Map(file.get(), 1, nullptr).error(), Error::kRingGeometry);
  EXPECT_EQ(KernelRings::Map(file.get(), 0, nullptr).error(), Error::kRingGeometry);
}

}  // namespace
}  // namespace kmcl::transport::uio
