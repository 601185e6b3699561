#include "transport/partition_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "transport/nonpaged_pool.h"
#include "transport/test_support.h"

namespace kmcl::transport {
namespace {

PartitionMemory MakeMemory(std::uint32_t pages, std::uint32_t reserved = 1) {
  Result<PartitionMemory> memory = PartitionMemory::Create(reserved, std::uint64_t{1} << 30);
  EXPECT_TRUE(memory.has_value());
  if (pages > 0) {
    EXPECT_TRUE(memory->Allocate(pages).has_value());
  }
  return *std::move(memory);
}

Descriptor SealedMemfd(std::size_t bytes, int seals, unsigned flags = 0) {
  Descriptor memory(memfd_create("kmcl-test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  EXPECT_TRUE(static_cast<bool>(memory));
  EXPECT_EQ(ftruncate(memory.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, seals), 0);
  return memory;
}

std::vector<wire::PageNumber> Pages(std::initializer_list<std::uint64_t> numbers) {
  std::vector<wire::PageNumber> pages;
  for (const std::uint64_t number : numbers) pages.push_back(wire::PageNumber{number});
  return pages;
}

Result<PartitionMemory> Adopt(Descriptor memory) {
  return PartitionMemory::Adopt({std::move(memory), SealedMemfd(0, F_SEAL_SHRINK)}, 1);
}

Error AdoptError(Descriptor memory) {
  Result<PartitionMemory> adopted = Adopt(std::move(memory));
  return adopted ? Error::kNoBus : adopted.error();
}

TEST(PartitionMemoryTest, OnlyASealedWritableMemfdIsAdopted) {
  EXPECT_TRUE(Adopt(SealedMemfd(4096, F_SEAL_SHRINK)).has_value());
  EXPECT_EQ(AdoptError(SealedMemfd(4096, 0)), Error::kMemoryNotSealed);
  EXPECT_EQ(AdoptError(SealedMemfd(4096, F_SEAL_GROW)), Error::kMemoryNotSealed);
  EXPECT_EQ(AdoptError(SealedMemfd(4096, F_SEAL_SHRINK | F_SEAL_WRITE)), Error::kMemoryKind);
  EXPECT_EQ(AdoptError(SealedMemfd(4096, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE)), Error::kMemoryKind);
  EXPECT_EQ(AdoptError(SealedMemfd(0, F_SEAL_SHRINK)), Error::kPageOutOfRange);
  EXPECT_EQ(AdoptError(SealedMemfd(4095, F_SEAL_SHRINK)), Error::kPageOutOfRange);
}

TEST(PartitionMemoryTest, WhatIsNoMemfdIsNotAdopted) {
  const TemporaryDirectory directory;
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  const Descriptor write_end(pipe_ends[1]);
  EXPECT_EQ(AdoptError(Descriptor(pipe_ends[0])), Error::kMemoryKind);
  EXPECT_EQ(AdoptError(Descriptor(open("/dev/zero", O_RDWR | O_CLOEXEC))), Error::kMemoryKind);

  Descriptor file(open(directory.Path("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(ftruncate(file.get(), 1 << 20), 0);
  EXPECT_EQ(AdoptError(std::move(file)), Error::kMemoryKind);
}

TEST(PartitionMemoryTest, AFileInAMountedTmpfsIsNotAdopted) {
  // It has seals to ask for, but its file system has a size, and a fault beyond it is a SIGBUS.
  Descriptor file(open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file) GTEST_SKIP() << "no tmpfs at /dev/shm: " << std::strerror(errno);
  ASSERT_EQ(ftruncate(file.get(), 1 << 20), 0);
  const Error error = AdoptError(std::move(file));
  EXPECT_TRUE(error == Error::kMemoryNotSealed || error == Error::kMemoryKind) << ErrorName(error);
}

TEST(PartitionMemoryTest, HugePagesAreNotAdopted) {
  Descriptor memory(memfd_create("kmcl-test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (!memory) GTEST_SKIP() << "no huge pages: " << std::strerror(errno);
  ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  EXPECT_EQ(AdoptError(std::move(memory)), Error::kMemoryKind);
}

TEST(PartitionMemoryTest, AReadOnlyDescriptorIsNotAdopted) {
  const Descriptor memory = SealedMemfd(4096, F_SEAL_SHRINK);
  const std::string path = "/proc/self/fd/" + std::to_string(memory.get());
  Descriptor read_only(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(static_cast<bool>(read_only));
  EXPECT_EQ(AdoptError(std::move(read_only)), Error::kMemoryKind);
}

TEST(PartitionMemoryTest, WritingForbiddenLaterIsAnErrorAndNoCrash) {
  const Descriptor memory = SealedMemfd(4096, F_SEAL_SHRINK);
  Result<PartitionMemory> adopted = Adopt(Descriptor(fcntl(memory.get(), F_DUPFD_CLOEXEC, 0)));
  ASSERT_TRUE(adopted.has_value());
  ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  EXPECT_EQ(adopted->Map(Pages({0})).error(), Error::kMemoryKind);
}

TEST(PartitionMemoryTest, DonatedMemoryCannotShrink) {
  const PartitionMemory memory = MakeMemory(4);
  const auto duplicates = memory.Duplicate();
  ASSERT_TRUE(duplicates.has_value());
  for (const Descriptor* region : {&duplicates->memory, &duplicates->pool}) {
    struct stat status {};
    ASSERT_EQ(fstat(region->get(), &status), 0);
    if (status.st_size == 0) {
      ASSERT_EQ(ftruncate(region->get(), 4096), 0);
    }
    EXPECT_EQ(ftruncate(region->get(), 0), -1);
    EXPECT_EQ(errno, EPERM);
  }
}

TEST(PartitionMemoryTest, ScatteredPagesBecomeContiguous) {
  const PartitionMemory memory = MakeMemory(8);
  const Result<Mapping> all = memory.Map(Pages({0, 1, 2, 3, 4, 5, 6, 7, 8}));
  ASSERT_TRUE(all.has_value());
  for (int page = 0; page < 9; ++page) all->base()[page * 4096] = static_cast<std::byte>(page);

  const Result<Mapping> some = memory.Map(Pages({7, 2, 3, 2, 8}));
  ASSERT_TRUE(some.has_value());
  EXPECT_EQ(some->bytes(), 5U * 4096);
  const int expected[] = {7, 2, 3, 2, 8};
  for (int page = 0; page < 5; ++page) {
    EXPECT_EQ(some->base()[page * 4096], static_cast<std::byte>(expected[page]));
  }
}

TEST(PartitionMemoryTest, PagesBeyondTheEndAreRefused) {
  const PartitionMemory memory = MakeMemory(4);
  EXPECT_TRUE(memory.Map(Pages({4})).has_value());
  for (const std::uint64_t page :
       {std::uint64_t{5}, kPoolFirstPage - 1, kPoolFirstPage + kMaximumPoolPages,
        std::uint64_t{1} << 52, ~std::uint64_t{0}, ~std::uint64_t{0} >> 12}) {
    EXPECT_EQ(memory.Map(Pages({0, page})).error(), Error::kPageOutOfRange) << page;
  }
  EXPECT_EQ(memory.Map({}).error(), Error::kFieldOutOfRange);
}

TEST(PartitionMemoryTest, GrowthIsSeenByTheServer) {
  PartitionMemory client = MakeMemory(1);
  Result<PartitionMemory> server = PartitionMemory::Adopt(*client.Duplicate(), 1);
  ASSERT_TRUE(server.has_value());
  EXPECT_EQ(server->Map(Pages({300})).error(), Error::kPageOutOfRange);
  ASSERT_TRUE(client.Allocate(500).has_value());
  EXPECT_TRUE(server->Map(Pages({300})).has_value());
}

TEST(PartitionMemoryTest, FreedPagesComeBackZeroed) {
  PartitionMemory memory = MakeMemory(0);
  const Result<PageRun> run = memory.Allocate(3);
  ASSERT_TRUE(run.has_value());
  {
    const Result<Mapping> mapping = memory.Map(PagesOf(*run));
    ASSERT_TRUE(mapping.has_value());
    std::memset(mapping->base(), 0xAB, mapping->bytes());
  }
  memory.Free(*run);
  const Result<PageRun> again = memory.Allocate(3);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->first, run->first);
  const Result<Mapping> mapping = memory.Map(PagesOf(*again));
  ASSERT_TRUE(mapping.has_value());
  for (std::size_t offset = 0; offset < mapping->bytes(); ++offset) {
    ASSERT_EQ(mapping->base()[offset], std::byte{0});
  }
}

TEST(PartitionMemoryTest, FreedPagesGoBackToTheSystem) {
  PartitionMemory memory = MakeMemory(0);
  const auto duplicates = memory.Duplicate();
  const auto blocks = [&duplicates] {
    struct stat status {};
    EXPECT_EQ(fstat(duplicates->memory.get(), &status), 0);
    return status.st_blocks;
  };
  const Result<PageRun> run = memory.Allocate(64);
  ASSERT_TRUE(run.has_value());
  const auto before = blocks();
  { ASSERT_TRUE(memory.MapNow(PagesOf(*run)).has_value()); }
  EXPECT_GE(blocks() - before, 64 * 8);
  memory.Free(*run);
  EXPECT_EQ(blocks(), before);
}

TEST(PartitionMemoryTest, TheLimitCountsReservedPages) {
  Result<PartitionMemory> memory = PartitionMemory::Create(2, 8 * 4096 + 4095);
  ASSERT_TRUE(memory.has_value());
  EXPECT_EQ(memory->Allocate(7).error(), Error::kOutOfMemory);
  EXPECT_TRUE(memory->Allocate(6).has_value());
  EXPECT_EQ(memory->Allocate(1).error(), Error::kOutOfMemory);
  EXPECT_EQ(memory->Allocate(0).error(), Error::kFieldOutOfRange);
  EXPECT_EQ(PartitionMemory::Create(2, 4096).error(), Error::kOutOfMemory);
}

TEST(PartitionMemoryTest, RingsThatFollowEachOtherTakeThreeAreas) {
  const PartitionMemory memory = MakeMemory(16);
  std::vector<wire::PageNumber> pages;
  for (std::uint64_t page = 1; page <= 16; ++page) pages.push_back(wire::PageNumber{page});
  const std::size_t before = PartitionMappingCount();
  const Result<RingMapping> rings = memory.MapRings(pages, 8);
  ASSERT_TRUE(rings.has_value());
  EXPECT_EQ(PartitionMappingCount() - before, 3U);
}

TEST(PartitionMemoryTest, AWindowShowsWhatTheClientHasAndStays) {
  PartitionMemory client = MakeMemory(0);
  Result<PartitionMemory> server = PartitionMemory::Adopt(*client.Duplicate(), 1);
  ASSERT_TRUE(server.has_value());
  const Result<PageRun> run = client.Allocate(4);
  ASSERT_TRUE(run.has_value());
  std::byte* const window = server->Window(run->first, 4);
  ASSERT_NE(window, nullptr);
  EXPECT_EQ(server->Window(run->first, 5), nullptr);
  EXPECT_EQ(server->Window(run->first, 0), nullptr);
  EXPECT_EQ(server->Window(wire::PageNumber{~std::uint64_t{0}}, 1), nullptr);
  EXPECT_EQ(server->Window(run->first, ~std::uint64_t{0}), nullptr);
  const Result<Mapping> mapping = client.Map(PagesOf(*run));
  ASSERT_TRUE(mapping.has_value());
  mapping->base()[2 * 4096] = std::byte{7};
  EXPECT_EQ(window[2 * 4096], std::byte{7});

  // Far more than the first window had room for.
  const std::uint64_t far = 40000;
  ASSERT_TRUE(client.Allocate(far).has_value());
  const wire::PageNumber last{std::to_underlying(run->first) + far};
  ASSERT_NE(server->Window(last, 1), nullptr);
  mapping->base()[0] = std::byte{9};
  EXPECT_EQ(window[0], std::byte{9}) << "what was handed out before still stands";
  EXPECT_EQ(server->Window(run->first, 4)[2 * 4096], std::byte{7});
}

TEST(PartitionMemoryTest, AWindowIsForEverybodyAtOnce) {
  PartitionMemory client = MakeMemory(0);
  Result<PartitionMemory> server = PartitionMemory::Adopt(*client.Duplicate(), 1);
  ASSERT_TRUE(server.has_value());
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        const Result<DonatedBuffer> buffer = client.AllocateBuffer(64 * 4096);
        ASSERT_TRUE(buffer.has_value());
        std::byte* const window = server->Window(buffer->run.first, buffer->run.count);
        ASSERT_NE(window, nullptr);
        std::memset(buffer->address, round, 16);
        ASSERT_EQ(window[15], static_cast<std::byte>(round));
        if (round % 2 == 0) client.FreeBuffer(*buffer);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(PartitionMemoryTest, AFreedBufferServesTheNextUser) {
  PartitionMemory memory = MakeMemory(0);
  const Result<DonatedBuffer> first = memory.AllocateBuffer(4097);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->run.count, 2U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first->address) % 4096, 0U);
  memory.FreeBuffer(*first);
  EXPECT_NE(memory.AllocateBuffer(4096)->address, first->address);
  EXPECT_EQ(memory.AllocateBuffer(8192)->address, first->address);
  EXPECT_EQ(memory.AllocateBuffer(0).error(), Error::kFieldOutOfRange);
  EXPECT_EQ(memory.AllocateBuffer(~std::size_t{0}).error(), Error::kOutOfMemory);
  EXPECT_EQ(memory.AllocateBuffer(std::size_t{1} << 30).error(), Error::kOutOfMemory);
}

TEST(PartitionMemoryTest, OnlySoManyFreedBuffersAreKept) {
  PartitionMemory memory = MakeMemory(0);
  const auto duplicates = memory.Duplicate();
  const auto blocks = [&duplicates] {
    struct stat status {};
    EXPECT_EQ(fstat(duplicates->memory.get(), &status), 0);
    return status.st_blocks;
  };
  std::vector<DonatedBuffer> buffers;
  constexpr std::size_t kBytes = 256 * 4096;
  for (std::uint32_t pages = 0; pages <= kMaximumKeptPages; pages += 256) {
    buffers.push_back(memory.AllocateBuffer(kBytes).value());
    std::memset(buffers.back().address, 1, kBytes);
  }
  const auto used = blocks();
  for (const DonatedBuffer& buffer : buffers) memory.FreeBuffer(buffer);
  EXPECT_EQ(used - blocks(), 256 * 8) << "one more than is kept";
}

TEST(PartitionMemoryTest, ThePoolsPagesStandBesideTheClientsOwn) {
  PartitionMemory client = MakeMemory(0);
  Result<PartitionMemory> server = PartitionMemory::Adopt(*client.Duplicate(), 1);
  ASSERT_TRUE(server.has_value());
  auto* const pooled = static_cast<char*>(AllocateNonPaged(3 * 4096));
  ASSERT_NE(pooled, nullptr);
  const PageRun own = client.Allocate(1).value();
  std::memcpy(pooled + 4096, "pooled", 7);
  std::memcpy(client.Map(PagesOf(own))->base(), "own", 4);

  const wire::PageNumber second = PageOfNonPaged(pooled + 4096).value();
  const wire::PageNumber both[] = {own.first, second};
  const Result<Mapping> mapping = server->Map(both);
  ASSERT_TRUE(mapping.has_value());
  EXPECT_STREQ(reinterpret_cast<char*>(mapping->base()), "own");
  EXPECT_STREQ(reinterpret_cast<char*>(mapping->base()) + 4096, "pooled");
  EXPECT_STREQ(reinterpret_cast<char*>(server->Window(second, 1)), "pooled");
  FreeNonPaged(pooled);
}

TEST(PartitionMemoryTest, MappedAreasAreLimitedAndComeBack) {
  const PartitionMemory memory = MakeMemory(2);
  std::vector<wire::PageNumber> scattered;
  for (std::uint32_t index = 0; index < kMaximumMappedAreas; ++index) {
    scattered.push_back(wire::PageNumber{index % 2 * 2});
  }
  for (int round = 0; round < 2; ++round) {
    const Result<Mapping> mapping = memory.Map(scattered);
    ASSERT_TRUE(mapping.has_value()) << ErrorName(mapping.error());
    EXPECT_EQ(memory.Map(Pages({0})).error(), Error::kLimitExceeded);
  }
  scattered.push_back(wire::PageNumber{1});
  EXPECT_EQ(memory.Map(scattered).error(), Error::kLimitExceeded);
  EXPECT_TRUE(memory.Map(Pages({0})).has_value());
}

TEST(PartitionMemoryTest, AMappingOutlivesTheMemory) {
  Result<Mapping> mapping = std::unexpected(Error::kNoBus);
  {
    const PartitionMemory memory = MakeMemory(2);
    mapping = memory.Map(Pages({1, 2}));
  }
  ASSERT_TRUE(mapping.has_value());
  mapping->base()[8191] = std::byte{1};
  const std::size_t before = PartitionMappingCount();
  Mapping moved = *std::move(mapping);
  EXPECT_FALSE(static_cast<bool>(*mapping));
  EXPECT_EQ(moved.base()[8191], std::byte{1});
  moved = Mapping();
  EXPECT_EQ(PartitionMappingCount(), before - 1);
}

}  // namespace
}  // namespace kmcl::transport
