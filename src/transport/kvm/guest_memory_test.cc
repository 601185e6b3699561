#include "transport/kvm/guest_memory.h"

#include <fcntl.h>

#include <limits>

#include "transport/kvm/guest_test_support.h"

namespace kmcl::transport::kvm {
namespace {

TEST(GuestMemory, ScatteredPagesOfBothSlotsAreOneView) {
  TestMemory guest;
  for (const std::uint64_t page : {0, 1, 15, 32, 39}) {
    guest.At<std::uint64_t>(page * 4096) = 1000 + page;
  }
  const auto pages = PageNumbers({39, 0, 1, 15, 32});
  auto mapping = guest.memory->Map(pages);
  ASSERT_TRUE(mapping.has_value());
  ASSERT_EQ(mapping->bytes(), 5 * 4096u);
  const auto number = [&](std::size_t index) {
    return reinterpret_cast<std::uint64_t&>(mapping->base()[index * 4096]);
  };
  EXPECT_EQ(number(0), 1039u);
  EXPECT_EQ(number(1), 1000u);
  EXPECT_EQ(number(2), 1001u);
  EXPECT_EQ(number(3), 1015u);
  EXPECT_EQ(number(4), 1032u);
}

TEST(GuestMemory, APageInAHoleIsRefused) {
  TestMemory guest;
  for (const std::uint64_t page : {std::uint64_t{16}, std::uint64_t{31}, std::uint64_t{40},
                                   std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    const std::array pages{wire::PageNumber{0}, wire::PageNumber{page}};
    EXPECT_EQ(guest.memory->Map(pages).error(), Error::kPageOutOfRange) << page;
    EXPECT_EQ(guest.memory->Window(wire::PageNumber{page}, 1), nullptr) << page;
  }
  EXPECT_EQ(guest.memory->Map({}).error(), Error::kFieldOutOfRange);
}

TEST(GuestMemory, AWindowEndsWithItsSlot) {
  TestMemory guest;
  EXPECT_NE(guest.memory->Window(wire::PageNumber{0}, 16), nullptr);
  EXPECT_EQ(guest.memory->Window(wire::PageNumber{0}, 17), nullptr);
  EXPECT_EQ(guest.memory->Window(wire::PageNumber{15}, 2), nullptr);
  EXPECT_EQ(guest.memory->Window(wire::PageNumber{32}, std::numeric_limits<std::uint64_t>::max()),
            nullptr);
  EXPECT_EQ(guest.memory->Window(wire::PageNumber{32}, 0), nullptr);
}

TEST(GuestMemory, RingsAreMappedWithTheirDataTwice) {
  TestMemory guest;
  const auto pages = PageNumbers({3, 7, 5, 33, 2, 1});
  auto rings = guest.memory->MapRings(pages, 3);
  ASSERT_TRUE(rings.has_value());
  EXPECT_EQ(rings->client_to_server.data_bytes, 2 * 4096u);
  EXPECT_EQ(rings->server_to_client.data_bytes, 2 * 4096u);
  guest.At<std::uint8_t>(7 * 4096) = 77;
  guest.At<std::uint8_t>(1 * 4096) = 11;
  EXPECT_EQ(rings->client_to_server.data[0], std::byte{77});
  EXPECT_EQ(rings->client_to_server.data[2 * 4096], std::byte{77});
  EXPECT_EQ(rings->server_to_client.data[4096], std::byte{11});
  EXPECT_EQ(rings->server_to_client.data[3 * 4096], std::byte{11});
  EXPECT_EQ(guest.memory->MapRings(pages, 1).error(), Error::kRingGeometry);
  EXPECT_EQ(guest.memory->MapRings(PageNumbers({3, 7, 20, 33}), 2).error(), Error::kPageOutOfRange);
}

TEST(GuestMemory, ReadingStopsAtTheEndOfASlot) {
  TestMemory guest;
  guest.At<std::uint64_t>(16 * 4096 - 8) = 0x1122334455667788;
  std::array<std::byte, 8> bytes;
  ASSERT_TRUE(guest.memory->Read(16 * 4096 - 8, bytes));
  EXPECT_EQ(bytes[0], std::byte{0x88});
  EXPECT_FALSE(guest.memory->Read(16 * 4096 - 7, bytes));
  EXPECT_FALSE(guest.memory->Read(~std::uint64_t{0}, bytes));
  EXPECT_TRUE(guest.memory->Read(2 * 4096 - 3, bytes));  // across two pages of a slot
}

TEST(GuestMemory, SlotsThatDoNotFitAreRefused) {
  const Descriptor file = MakeMemoryFile(4);
  const auto error_of = [](std::initializer_list<MemorySlot> slots) {
    const auto made = GuestMemory::Create(std::vector(slots));
    return made ? Error{} : made.error();
  };
  const int fd = file.get();
  EXPECT_EQ(error_of({}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{0, 0, fd, 0}}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{1, 4096, fd, 0}}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{0, 4097, fd, 0}}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{0, 4096, fd, 512}}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{0, 5 * 4096, fd, 0}}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{0, 4096, fd, 4 * 4096}}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{~std::uint64_t{4095}, 8192, fd, 0}}), Error::kFieldOutOfRange);
  EXPECT_EQ(error_of({{0, 8192, fd, 0}, {4096, 4096, fd, 8192}}), Error::kFieldOutOfRange);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  EXPECT_EQ(error_of({{0, 4096, pipe_ends[0], 0}}), Error::kMemoryKind);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST(GuestMemory, SlotsMayComeButNotMoveOrGo) {
  TestMemory guest;
  const Descriptor other = MakeMemoryFile(16);
  const int fd = guest.file.get();
  const MemorySlot low{.guest_address = 0, .bytes = 16 * 4096, .fd = fd, .offset = 8 * 4096};
  const MemorySlot high{.guest_address = 32 * 4096, .bytes = 8 * 4096, .fd = fd, .offset = 0};
  const MemorySlot more{.guest_address = 16 * 4096, .bytes = 4 * 4096, .fd = other.get()};
  const auto update = [&](std::initializer_list<MemorySlot> slots) {
    const auto updated = guest.memory->Update(std::vector(slots));
    return updated ? Error{} : updated.error();
  };
  std::byte* const window = guest.memory->Window(wire::PageNumber{0}, 16);
  EXPECT_EQ(guest.memory->FirstMissing(PageNumbers({0, 39, 16, 17})), wire::PageNumber{16});

  EXPECT_EQ(update({}), Error::kFieldOutOfRange);
  EXPECT_EQ(update({low}), Error::kMemorySlotMoved);
  MemorySlot moved = high;
  moved.guest_address += 4096;
  EXPECT_EQ(update({low, moved}), Error::kMemorySlotMoved);
  moved = high;
  moved.offset = 16 * 4096;
  EXPECT_EQ(update({low, moved}), Error::kMemorySlotMoved);
  moved = high;
  moved.fd = other.get();
  EXPECT_EQ(update({low, moved}), Error::kMemorySlotMoved);
  moved = more;
  moved.guest_address = 15 * 4096;
  EXPECT_EQ(update({low, high, moved}), Error::kFieldOutOfRange);
  EXPECT_EQ(guest.memory->Window(wire::PageNumber{16}, 1), nullptr);

  // Named by another descriptor it is still the same file.
  const Descriptor again(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  MemorySlot same = low;
  same.fd = again.get();
  EXPECT_EQ(update({more, high, same}), Error{});
  EXPECT_EQ(guest.memory->Window(wire::PageNumber{0}, 16), window);
  EXPECT_NE(guest.memory->Window(wire::PageNumber{16}, 4), nullptr);
  EXPECT_FALSE(guest.memory->FirstMissing(PageNumbers({0, 39, 16, 17})).has_value());
  EXPECT_TRUE(guest.memory->Map(PageNumbers({15, 16, 39})).has_value());
}

}  // namespace
}  // namespace kmcl::transport::kvm
