#include "wdk/mdl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

namespace kmcl::wdk {
namespace {

using testing::ElementsAre;

constexpr std::size_t kPage = PAGE_SIZE;

// Pages in a numbering of their own: number 100 + i is page i. Maps by copying nothing: a view is
// made of the same shared memory.
class TestSpace final : public PageSpace {
 public:
  explicit TestSpace(std::size_t pages) : pages_(pages), fd_(memfd_create("pages", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(pages * kPage)), 0);
    memory_ = static_cast<std::byte*>(
        mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  }
  ~TestSpace() {
    EXPECT_EQ(views_, 0) << "views left";
    munmap(memory_, pages_ * kPage);
    close(fd_);
  }
  TestSpace(const TestSpace&) = delete;
  TestSpace& operator=(const TestSpace&) = delete;

  void* Map(std::span<const PFN_NUMBER> pages, bool writable) override {
    last_writable_ = writable;
    for (const PFN_NUMBER page : pages) {
      if (page < 100 || page >= 100 + pages_) return nullptr;
    }
    auto* const base = static_cast<std::byte*>(
        mmap(nullptr, pages.size() * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const void* const view =
          mmap(base + i * kPage, kPage, writable ? PROT_READ | PROT_WRITE : PROT_READ,
               MAP_SHARED | MAP_FIXED, fd_, static_cast<off_t>((pages[i] - 100) * kPage));
      if (view == MAP_FAILED) return nullptr;
    }
    ++views_;
    return base;
  }
  void Unmap(void* base, std::size_t pages) override {
    --views_;
    munmap(base, pages * kPage);
  }

  std::byte* page(PFN_NUMBER number) { return memory_ + (number - 100) * kPage; }
  int views() const { return views_; }
  bool last_writable() const { return last_writable_; }

 private:
  const std::size_t pages_;
  const int fd_;
  std::byte* memory_;
  int views_ = 0;
  bool last_writable_ = false;
};

struct MdlDeleter {
  void operator()(PMDL mdl) const { IoFreeMdl(mdl); }
};
using OwnMdl = std::unique_ptr<MDL, MdlDeleter>;

OwnMdl Locked(void* address, ULONG bytes, LOCK_OPERATION operation = IoModifyAccess) {
  OwnMdl mdl(IoAllocateMdl(address, bytes, FALSE, FALSE, nullptr));
  MmProbeAndLockPages(mdl.get(), KernelMode, operation);
  return mdl;
}

std::vector<std::byte> Counting(std::size_t bytes) {
  std::vector<std::byte> counting(bytes);
  for (std::size_t i = 0; i < bytes; ++i) counting[i] = static_cast<std::byte>(i * 7 + i / 251);
  return counting;
}

TEST(MdlTest, AllocatedMdlDescribesTheBufferByOffsetAndCount) {
  alignas(kPage) static std::array<std::byte, 3 * kPage> buffer;
  const OwnMdl mdl(IoAllocateMdl(buffer.data() + 100, 2 * kPage, FALSE, FALSE, nullptr));
  ASSERT_NE(mdl, nullptr);
  EXPECT_EQ(mdl->StartVa, buffer.data());
  EXPECT_EQ(MmGetMdlByteOffset(mdl.get()), 100u);
  EXPECT_EQ(MmGetMdlByteCount(mdl.get()), 2 * kPage);
  EXPECT_EQ(MmGetMdlVirtualAddress(mdl.get()), buffer.data() + 100);
  EXPECT_EQ(mdl->Next, nullptr);
  EXPECT_EQ(mdl->MdlFlags, MDL_ALLOCATED_FIXED_SIZE);
  EXPECT_EQ(mdl->Size, 48 + 3 * 8);
  EXPECT_EQ(MmSizeOfMdl(buffer.data() + 100, 2 * kPage), 48u + 3 * 8);
}

TEST(MdlTest, AnIrpIsRefused) {
  int irp = 0;
  EXPECT_EQ(IoAllocateMdl(&irp, 4, FALSE, FALSE, reinterpret_cast<PIRP>(&irp)), nullptr);
}

TEST(MdlTest, NonPagedPoolMdlIsMappedWhereItStands) {
  std::vector<std::byte> buffer(3 * kPage);
  const OwnMdl mdl(IoAllocateMdl(buffer.data(), 3 * kPage, FALSE, FALSE, nullptr));
  MmBuildMdlForNonPagedPool(mdl.get());
  EXPECT_NE(mdl->MdlFlags & MDL_SOURCE_IS_NONPAGED_POOL, 0);
  EXPECT_EQ(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority), buffer.data());
  const PPFN_NUMBER pages = MmGetMdlPfnArray(mdl.get());
  EXPECT_EQ(pages[0], reinterpret_cast<std::uintptr_t>(buffer.data()) / kPage);
  EXPECT_EQ(pages[2], pages[0] + 2);
}

TEST(MdlTest, LockedMdlIsMappedAndUnmapped) {
  std::vector<std::byte> buffer(5000);
  const OwnMdl mdl = Locked(buffer.data(), 5000, IoReadAccess);
  EXPECT_NE(mdl->MdlFlags & MDL_PAGES_LOCKED, 0);
  EXPECT_EQ(mdl->MdlFlags & MDL_WRITE_OPERATION, 0);
  EXPECT_FALSE(IsWritable(*mdl));
  EXPECT_EQ(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority), buffer.data());
  EXPECT_NE(mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA, 0);
  MmUnlockPages(mdl.get());
  EXPECT_EQ(mdl->MdlFlags, MDL_ALLOCATED_FIXED_SIZE);
  MmProbeAndLockPages(mdl.get(), KernelMode, IoWriteAccess);
  EXPECT_TRUE(IsWritable(*mdl));
  MmUnlockPages(mdl.get());
}

TEST(MdlDeathTest, LockingMemoryThatIsNotThereAborts) {
  void* const memory = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const OwnMdl mdl(IoAllocateMdl(memory, 100, FALSE, FALSE, nullptr));
  MmProbeAndLockPages(mdl.get(), KernelMode, IoReadAccess);
  MmUnlockPages(mdl.get());
  EXPECT_DEATH(MmProbeAndLockPages(mdl.get(), KernelMode, IoWriteAccess), "cannot be written");
  munmap(memory, kPage);
  EXPECT_DEATH(MmProbeAndLockPages(mdl.get(), KernelMode, IoReadAccess), "cannot be read");
}

TEST(MdlTest, ScatteredSharedPagesOfThisProcessAreOneView) {
  TestSpace space(4);
  // Their numbers here, in disorder.
  const OwnMdl mdl(IoAllocateMdl(nullptr, 2 * kPage, FALSE, FALSE, nullptr));
  MmGetMdlPfnArray(mdl.get())[0] = reinterpret_cast<std::uintptr_t>(space.page(103)) / kPage;
  MmGetMdlPfnArray(mdl.get())[1] = reinterpret_cast<std::uintptr_t>(space.page(100)) / kPage;
  auto* const view =
      static_cast<std::byte*>(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority));
  ASSERT_NE(view, nullptr);
  view[0] = std::byte{3};
  view[kPage] = std::byte{4};
  EXPECT_EQ(space.page(103)[0], std::byte{3});
  EXPECT_EQ(space.page(100)[0], std::byte{4});
  MmUnmapLockedPages(view, mdl.get());
}

TEST(MdlTest, ScatteredPrivatePagesCannotBeOneView) {
  std::vector<std::byte> buffer(4 * kPage);
  const OwnMdl mdl(IoAllocateMdl(nullptr, 2 * kPage, FALSE, FALSE, nullptr));
  const auto first = reinterpret_cast<std::uintptr_t>(buffer.data()) / kPage + 1;
  MmGetMdlPfnArray(mdl.get())[0] = first + 1;
  MmGetMdlPfnArray(mdl.get())[1] = first;
  EXPECT_EQ(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority), nullptr);
}

TEST(MdlTest, PagesOfAnotherSpaceAreMappedOnDemand) {
  TestSpace space(4);
  const PFN_NUMBER pages[] = {102, 100};
  const Chain mdl = MakeMdl(space, pages, 4000, 200, Access::kReadWrite);
  EXPECT_EQ(mdl->StartVa, nullptr);
  EXPECT_EQ(space.views(), 0);
  auto* const view =
      static_cast<std::byte*>(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority));
  ASSERT_NE(view, nullptr);
  EXPECT_TRUE(space.last_writable());
  view[0] = std::byte{1};
  view[199] = std::byte{2};
  EXPECT_EQ(space.page(102)[4000], std::byte{1});
  EXPECT_EQ(space.page(100)[103], std::byte{2});
  EXPECT_EQ(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority), view);
  EXPECT_EQ(space.views(), 1);
  MmUnmapLockedPages(view, mdl.get());
  EXPECT_EQ(space.views(), 0);
  EXPECT_EQ(mdl->MappedSystemVa, nullptr);
}

TEST(MdlTest, UserModeViewsAreSeparate) {
  TestSpace space(2);
  const PFN_NUMBER pages[] = {100};
  const Chain mdl = MakeMdl(space, pages, 8, 16, Access::kReadWrite);
  void* const one = MmMapLockedPagesSpecifyCache(mdl.get(), UserMode, MmCached, nullptr, FALSE,
                                                 NormalPagePriority);
  void* const two = MmMapLockedPagesSpecifyCache(mdl.get(), UserMode, MmCached, nullptr, FALSE,
                                                 NormalPagePriority | MdlMappingNoWrite);
  EXPECT_NE(one, two);
  EXPECT_FALSE(space.last_writable());
  EXPECT_EQ(mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA, 0);
  MmUnmapLockedPages(one, mdl.get());
  MmUnmapLockedPages(two, mdl.get());
}

TEST(MdlTest, AReadOnlyMdlIsMappedForReading) {
  TestSpace space(1);
  const PFN_NUMBER pages[] = {100};
  const Chain mdl = MakeMdl(space, pages, 0, 16, Access::kReadOnly);
  EXPECT_NE(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority), nullptr);
  EXPECT_FALSE(space.last_writable());
}

TEST(MdlTest, APageThatIsNotThereCannotBeMapped) {
  TestSpace space(1);
  const PFN_NUMBER pages[] = {5000};
  const Chain mdl = MakeMdl(space, pages, 0, 16, Access::kReadWrite);
  EXPECT_EQ(MmGetSystemAddressForMdlSafe(mdl.get(), NormalPagePriority), nullptr);
}

TEST(MdlTest, FreeingAChainEndsItsViewsAndCountsThem) {
  TestSpace space(2);
  wire::GpaRangeList ranges;
  const std::array first{wire::PageNumber{100}};
  const std::array second{wire::PageNumber{101}};
  ASSERT_TRUE(ranges.Append(10, 0, first));
  ASSERT_TRUE(ranges.Append(20, 6, second));
  Chain chain = MakeChain(space, ranges, Access::kReadWrite);
  ASSERT_NE(chain, nullptr);
  EXPECT_EQ(SizeOf(chain.get()).bytes, 30u);
  EXPECT_EQ(SizeOf(chain.get()).mdls, 2u);
  EXPECT_EQ(chain->Next->ByteOffset, 6u);
  EXPECT_NE(MmGetSystemAddressForMdlSafe(chain->Next, NormalPagePriority), nullptr);
  std::uint32_t left = 0;
  FreeChain(chain.release(), &left);
  EXPECT_EQ(left, 1u);
  EXPECT_EQ(space.views(), 0);
}

TEST(MdlTest, PartialMdlDescribesAPartOfTheSource) {
  std::vector<std::byte> buffer(4 * kPage);
  const OwnMdl source = Locked(buffer.data(), 4 * kPage);
  std::byte* const part = buffer.data() + kPage + 50;
  const OwnMdl target(IoAllocateMdl(part, 2 * kPage, FALSE, FALSE, nullptr));
  IoBuildPartialMdl(source.get(), target.get(), part, 2 * kPage);
  EXPECT_EQ(MmGetMdlVirtualAddress(target.get()), part);
  EXPECT_EQ(target->ByteCount, 2 * kPage);
  EXPECT_NE(target->MdlFlags & MDL_PARTIAL, 0);
  EXPECT_EQ(MmGetSystemAddressForMdlSafe(target.get(), NormalPagePriority), part);
  EXPECT_NE(target->MdlFlags & MDL_PARTIAL_HAS_BEEN_MAPPED, 0);
  MmPrepareMdlForReuse(target.get());
  IoBuildPartialMdl(source.get(), target.get(), buffer.data() + 3 * kPage, 0);
  EXPECT_EQ(target->ByteCount, kPage);
  MmUnlockPages(source.get());
}

TEST(MdlTest, PartialMdlOfAnotherSpaceIsMappedByItself) {
  TestSpace space(3);
  const PFN_NUMBER pages[] = {102, 101, 100};
  const Chain source = MakeMdl(space, pages, 16, 2 * kPage, Access::kReadWrite);
  void* const start = reinterpret_cast<void*>(
      reinterpret_cast<std::uintptr_t>(MmGetMdlVirtualAddress(source.get())) + kPage);
  const OwnMdl target(IoAllocateMdl(start, 64, FALSE, FALSE, nullptr));
  IoBuildPartialMdl(source.get(), target.get(), start, 64);
  auto* const view =
      static_cast<std::byte*>(MmGetSystemAddressForMdlSafe(target.get(), NormalPagePriority));
  ASSERT_NE(view, nullptr);
  view[0] = std::byte{9};
  EXPECT_EQ(space.page(101)[16], std::byte{9});
}

TEST(MdlDeathTest, PartialMdlsStayInsideTheirSource) {
  std::vector<std::byte> buffer(4 * kPage);
  const OwnMdl source = Locked(buffer.data(), 2 * kPage);
  const OwnMdl target(IoAllocateMdl(buffer.data(), 16, FALSE, FALSE, nullptr));
  EXPECT_DEATH(IoBuildPartialMdl(source.get(), target.get(), buffer.data(), 2 * kPage + 1), "");
  EXPECT_DEATH(IoBuildPartialMdl(source.get(), target.get(), buffer.data() - 1, 8), "");
  // The target has room for one page.
  EXPECT_DEATH(IoBuildPartialMdl(source.get(), target.get(), buffer.data(), 2 * kPage), "");
}

TEST(MdlTest, AWalkCutsAChainByMdl) {
  std::vector<std::byte> buffer = Counting(6 * kPage);
  const OwnMdl one = Locked(buffer.data() + 10, 100);
  const OwnMdl two = Locked(buffer.data() + 200, kPage);
  const OwnMdl three = Locked(buffer.data() + 3 * kPage, 50);
  one->Next = two.get();
  two->Next = three.get();
  EXPECT_EQ(SizeOf(one.get()).bytes, 150 + kPage);
  EXPECT_EQ(SizeOf(one.get()).mdls, 3u);

  std::vector<std::uint32_t> counts;
  std::vector<std::byte> got;
  ChainWalk walk(one.get(), 60, 40 + kPage + 5);
  while (const auto piece = walk.Next()) {
    counts.push_back(piece->byte_count);
    EXPECT_NE(AddressOf(*piece), nullptr);
    const std::size_t at = got.size();
    got.resize(at + piece->byte_count);
    ASSERT_TRUE(CopyFrom(*piece, got.data() + at));
  }
  EXPECT_THAT(counts, ElementsAre(40u, kPage, 5u));
  std::vector<std::byte> expected(buffer.begin() + 70, buffer.begin() + 110);
  expected.insert(expected.end(), buffer.begin() + 200, buffer.begin() + 200 + kPage);
  expected.insert(expected.end(), buffer.begin() + 3 * kPage, buffer.begin() + 3 * kPage + 5);
  EXPECT_EQ(got, expected);
}

TEST(MdlTest, AWalkSkipsWhatLiesBeforeTheOffsetAndEmptyMdls) {
  std::vector<std::byte> buffer(3 * kPage);
  const OwnMdl one = Locked(buffer.data(), 100);
  const OwnMdl empty = Locked(buffer.data(), 0);
  const OwnMdl two = Locked(buffer.data() + 300, 100);
  one->Next = empty.get();
  empty->Next = two.get();
  ChainWalk walk(one.get(), 100, 100);
  const auto piece = walk.Next();
  ASSERT_TRUE(piece);
  EXPECT_EQ(piece->mdl, two.get());
  EXPECT_FALSE(walk.Next());
}

TEST(MdlTest, CopyingReachesScatteredPages) {
  std::vector<std::byte> buffer(5 * kPage);
  const auto first = reinterpret_cast<std::uintptr_t>(buffer.data()) / kPage + 1;
  const OwnMdl mdl(
      IoAllocateMdl(reinterpret_cast<void*>(std::uintptr_t{8}), kPage, FALSE, FALSE, nullptr));
  MmGetMdlPfnArray(mdl.get())[0] = first + 2;
  MmGetMdlPfnArray(mdl.get())[1] = first;
  ChainWalk walk(mdl.get(), 0, kPage);
  const auto piece = walk.Next();
  EXPECT_EQ(AddressOf(*piece), nullptr);
  const auto data = Counting(kPage);
  ASSERT_TRUE(CopyTo(*piece, data.data()));
  EXPECT_EQ(std::memcmp(reinterpret_cast<void*>((first + 2) * kPage + 8), data.data(), kPage - 8),
            0);
  EXPECT_EQ(std::memcmp(reinterpret_cast<void*>(first * kPage), data.data() + kPage - 8, 8), 0);
  std::vector<std::byte> back(kPage);
  ASSERT_TRUE(CopyFrom(*piece, back.data()));
  EXPECT_EQ(back, data);
}

TEST(MdlTest, CopyingReachesPagesOfAnotherSpace) {
  TestSpace space(3);
  const PFN_NUMBER pages[] = {102, 100};
  const Chain mdl = MakeMdl(space, pages, 4090, 12, Access::kReadWrite);
  const auto data = Counting(12);
  ChainWalk walk(mdl.get(), 0, 12);
  const auto piece = walk.Next();
  ASSERT_TRUE(CopyTo(*piece, data.data()));
  EXPECT_EQ(space.views(), 0);
  EXPECT_EQ(space.page(102)[4090], data[0]);
  EXPECT_EQ(space.page(100)[5], data[11]);
  std::vector<std::byte> back(12);
  ASSERT_TRUE(CopyFrom(*piece, back.data()));
  EXPECT_EQ(back, data);
}

TEST(MdlTest, AForcedLengthReachesToTheEndOfTheLastPage) {
  std::vector<std::byte> buffer(4 * kPage);
  auto* const page = reinterpret_cast<std::byte*>(
      (reinterpret_cast<std::uintptr_t>(buffer.data()) + kPage) / kPage * kPage);
  const OwnMdl mdl = Locked(page + 100, 200);
  const auto piece = ForcedPiece(mdl.get(), 50, kPage - 150);
  ASSERT_TRUE(piece);
  EXPECT_EQ(piece->byte_count, kPage - 150);
  EXPECT_EQ(AddressOf(*piece), page + 150);
  EXPECT_FALSE(ForcedPiece(mdl.get(), 50, kPage - 149));
  EXPECT_FALSE(ForcedPiece(mdl.get(), 50, 0));
}

}  // namespace
}  // namespace kmcl::wdk
