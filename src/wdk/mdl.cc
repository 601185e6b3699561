#include "wdk/mdl.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "log.h"
#include "result.h"
#include "wdk/mdl_mapping.h"

namespace kmcl::wdk {
namespace {

// Size is 16 bits wide. A longer MDL says the most it can, which stands for "at least".
constexpr std::size_t kLargestSize = 0x7FF8;

std::size_t BytesFor(std::size_t pages) { return sizeof(MDL) + pages * sizeof(PFN_NUMBER); }

std::size_t SpanPages(std::uint32_t byte_offset, std::uint64_t byte_count) {
  return static_cast<std::size_t>((byte_offset + byte_count + (PAGE_SIZE - 1)) >> PAGE_SHIFT);
}

CSHORT SizeField(std::size_t pages) {
  return static_cast<CSHORT>(std::min(BytesFor(pages), kLargestSize));
}

PMDL AllocateForPages(std::size_t pages) {
  return static_cast<PMDL>(::operator new(BytesFor(pages), std::nothrow));
}

void FillPages(PMDL mdl) {
  const auto first = reinterpret_cast<std::uintptr_t>(mdl->StartVa) >> PAGE_SHIFT;
  const std::size_t count = PagesOf(*mdl).size();
  PFN_NUMBER* const pages = MmGetMdlPfnArray(mdl);
  for (std::size_t i = 0; i < count; ++i) pages[i] = first + i;
  mdl->Process = nullptr;
}

// A range of a list as a MDL, chained behind *tail.
template <typename Fill>
bool Append(Chain& head, PMDL& tail, PageSpace& space, std::uint32_t byte_offset,
            std::uint32_t byte_count, std::size_t page_count, Access access, const Fill& fill) {
  const PMDL mdl = AllocateForPages(page_count);
  if (mdl == nullptr) return false;
  *mdl = MDL{.Next = nullptr,
             .Size = SizeField(page_count),
             .MdlFlags = static_cast<CSHORT>(
                 MDL_PAGES_LOCKED | (access == Access::kReadWrite ? MDL_WRITE_OPERATION : 0)),
             .Process = &space,
             .MappedSystemVa = nullptr,
             .StartVa = nullptr,
             .ByteCount = byte_count,
             .ByteOffset = byte_offset};
  fill(std::span<PFN_NUMBER>(MmGetMdlPfnArray(mdl), page_count));
  if (tail == nullptr) {
    head.reset(mdl);
  } else {
    tail->Next = mdl;
  }
  tail = mdl;
  return true;
}

void FillFrom(std::span<const wire::PageNumber> from, std::span<PFN_NUMBER> to) {
  std::ranges::transform(from, to.begin(),
                         [](wire::PageNumber page) { return static_cast<PFN_NUMBER>(page); });
}

// The part of `mdl` from `offset` on.
Piece PieceOf(PMDL mdl, std::uint64_t offset, std::uint64_t bytes) {
  const std::uint64_t start = mdl->ByteOffset + offset;
  const auto in_page = static_cast<std::uint32_t>(start % PAGE_SIZE);
  return {.mdl = mdl,
          .byte_offset = in_page,
          .byte_count = static_cast<std::uint32_t>(bytes),
          .pages = PagesOf(*mdl).subspan(static_cast<std::size_t>(start / PAGE_SIZE),
                                         SpanPages(in_page, bytes))};
}

// Calls `copy` with each stretch of the piece that has an address, and where in the piece it
// begins.
template <typename Copy>
bool ForEachStretch(const Piece& piece, bool writable, const Copy& copy) {
  if (std::byte* const bytes = AddressOf(piece)) {
    copy(bytes, 0, piece.byte_count);
    return true;
  }
  if (piece.mdl->Process != nullptr) {
    void* const base = piece.mdl->Process->Map(piece.pages, writable);
    if (base == nullptr) return false;
    copy(static_cast<std::byte*>(base) + piece.byte_offset, 0, piece.byte_count);
    piece.mdl->Process->Unmap(base, piece.pages.size());
    return true;
  }
  std::uint32_t done = 0;
  for (std::size_t i = 0; i < piece.pages.size(); ++i) {
    const std::uint32_t offset = i == 0 ? piece.byte_offset : 0;
    const std::uint32_t count =
        std::min<std::uint32_t>(PAGE_SIZE - offset, piece.byte_count - done);
    copy(reinterpret_cast<std::byte*>(piece.pages[i] << PAGE_SHIFT) + offset, done, count);
    done += count;
  }
  return true;
}

}  // namespace

// ---- What the library makes.

void FreeChain(PMDL head, std::uint32_t* left_mapped) {
  while (head != nullptr) {
    const PMDL next = head->Next;
    if ((head->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) != 0 && head->MappedSystemVa != nullptr) {
      MmUnmapLockedPages(head->MappedSystemVa, head);
      if (left_mapped != nullptr) ++*left_mapped;
    }
    ::operator delete(head);
    head = next;
  }
}

Chain MakeMdl(PageSpace& space, std::span<const PFN_NUMBER> pages, std::uint32_t byte_offset,
              std::uint32_t byte_count, Access access) {
  KMCL_CHECK(pages.size() == SpanPages(byte_offset, byte_count));
  Chain head;
  PMDL tail = nullptr;
  Append(head, tail, space, byte_offset, byte_count, pages.size(), access,
         [pages](std::span<PFN_NUMBER> to) { std::ranges::copy(pages, to.begin()); });
  return head;
}

Chain MakeChain(PageSpace& space, const wire::PackedGpaRanges& ranges, Access access) {
  Chain head;
  PMDL tail = nullptr;
  for (const wire::PackedGpaRange& range : ranges) {
    const auto fill = [&range](std::span<PFN_NUMBER> to) {
      for (std::uint32_t i = 0; i < to.size(); ++i) to[i] = static_cast<PFN_NUMBER>(range.page(i));
    };
    if (!Append(head, tail, space, range.byte_offset(), range.byte_count(), range.page_count(),
                access, fill)) {
      return nullptr;
    }
  }
  return head;
}

Chain MakeChain(PageSpace& space, const wire::GpaRangeList& ranges, Access access) {
  Chain head;
  PMDL tail = nullptr;
  for (std::size_t i = 0; i < ranges.range_count(); ++i) {
    const auto range = ranges.range(i);
    if (!Append(head, tail, space, range.byte_offset, range.byte_count, range.pages.size(), access,
                [&range](std::span<PFN_NUMBER> to) { FillFrom(range.pages, to); })) {
      return nullptr;
    }
  }
  return head;
}

// ---- What the library reads.

std::span<const PFN_NUMBER> PagesOf(const MDL& mdl) {
  return {reinterpret_cast<const PFN_NUMBER*>(&mdl + 1), SpanPages(mdl.ByteOffset, mdl.ByteCount)};
}

ChainSize SizeOf(const MDL* head) {
  ChainSize size;
  for (; head != nullptr; head = head->Next) {
    size.bytes += head->ByteCount;
    ++size.mdls;
  }
  return size;
}

std::byte* AddressOf(const Piece& piece) {
  if (piece.mdl->Process == nullptr) {
    return AreConsecutive(piece.pages)
               ? reinterpret_cast<std::byte*>(piece.pages[0] << PAGE_SHIFT) + piece.byte_offset
               : nullptr;
  }
  if ((piece.mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) == 0) return nullptr;
  const std::size_t first_page =
      static_cast<std::size_t>(piece.pages.data() - PagesOf(*piece.mdl).data());
  return static_cast<std::byte*>(piece.mdl->MappedSystemVa) + first_page * PAGE_SIZE +
         piece.byte_offset - piece.mdl->ByteOffset;
}

bool CopyFrom(const Piece& piece, std::byte* to) {
  return ForEachStretch(piece, false,
                        [to](const std::byte* bytes, std::uint32_t at, std::uint32_t count) {
                          std::memcpy(to + at, bytes, count);
                        });
}

bool CopyTo(const Piece& piece, const std::byte* from) {
  return ForEachStretch(piece, true,
                        [from](std::byte* bytes, std::uint32_t at, std::uint32_t count) {
                          std::memcpy(bytes, from + at, count);
                        });
}

ChainWalk::ChainWalk(PMDL head, std::uint64_t offset, std::uint64_t bytes)
    : mdl_(head), offset_(offset), left_(bytes) {}

std::optional<Piece> ChainWalk::Next() {
  if (left_ == 0) return std::nullopt;
  while (mdl_ != nullptr && offset_ >= mdl_->ByteCount) {
    offset_ -= mdl_->ByteCount;
    mdl_ = mdl_->Next;
  }
  KMCL_CHECK(mdl_ != nullptr);
  const std::uint64_t bytes = std::min(left_, mdl_->ByteCount - offset_);
  const Piece piece = PieceOf(mdl_, offset_, bytes);
  left_ -= bytes;
  offset_ = 0;
  mdl_ = mdl_->Next;
  return piece;
}

std::optional<Piece> ForcedPiece(PMDL mdl, std::uint64_t offset, std::uint64_t bytes) {
  const std::uint64_t end = mdl->ByteOffset + offset + bytes;
  if (bytes == 0 || end > PagesOf(*mdl).size() * std::uint64_t{PAGE_SIZE}) return std::nullopt;
  return PieceOf(mdl, offset, bytes);
}

}  // namespace kmcl::wdk

// ---- What drivers make.

using namespace kmcl;
using namespace kmcl::wdk;

SIZE_T MmSizeOfMdl(PVOID Base, SIZE_T Length) {
  return BytesFor(SpanPages(BYTE_OFFSET(Base), Length));
}

VOID MmInitializeMdl(PMDL Mdl, PVOID BaseVa, SIZE_T Length) {
  *Mdl = MDL{.Next = nullptr,
             .Size = SizeField(SpanPages(BYTE_OFFSET(BaseVa), Length)),
             .MdlFlags = 0,
             .Process = nullptr,
             .MappedSystemVa = nullptr,
             .StartVa = PAGE_ALIGN(BaseVa),
             .ByteCount = static_cast<ULONG>(Length),
             .ByteOffset = BYTE_OFFSET(BaseVa)};
}

PMDL IoAllocateMdl(PVOID VirtualAddress, ULONG Length, BOOLEAN, BOOLEAN, PIRP Irp) {
  if (Irp != nullptr) return nullptr;
  const PMDL mdl = AllocateForPages(SpanPages(BYTE_OFFSET(VirtualAddress), Length));
  if (mdl == nullptr) return nullptr;
  MmInitializeMdl(mdl, VirtualAddress, Length);
  mdl->MdlFlags = MDL_ALLOCATED_FIXED_SIZE;
  return mdl;
}

VOID IoFreeMdl(PMDL Mdl) {
  if (Mdl == nullptr) return;
  if ((Mdl->MdlFlags & MDL_ALLOCATED_FIXED_SIZE) == 0) {
    Log(LogLevel::kError, "IoFreeMdl of an MDL that IoAllocateMdl did not make: ignored");
    return;
  }
  MmPrepareMdlForReuse(Mdl);
  ::operator delete(Mdl);
}

VOID MmBuildMdlForNonPagedPool(PMDL Mdl) {
  FillPages(Mdl);
  Mdl->MdlFlags = static_cast<CSHORT>(Mdl->MdlFlags | MDL_SOURCE_IS_NONPAGED_POOL);
  Mdl->MappedSystemVa = MmGetMdlVirtualAddress(Mdl);
}

VOID MmProbeAndLockPages(PMDL Mdl, KPROCESSOR_MODE, LOCK_OPERATION Operation) {
  const bool writable = Operation != IoReadAccess;
  if (!Probe(Mdl->StartVa, PagesOf(*Mdl).size(), writable)) {
    Log(LogLevel::kError, "MmProbeAndLockPages: the %u bytes at %p cannot be %s", Mdl->ByteCount,
        MmGetMdlVirtualAddress(Mdl), writable ? "written" : "read");
    std::abort();
  }
  FillPages(Mdl);
  Mdl->MdlFlags = static_cast<CSHORT>(Mdl->MdlFlags & ~MDL_WRITE_OPERATION);
  Mdl->MdlFlags =
      static_cast<CSHORT>(Mdl->MdlFlags | MDL_PAGES_LOCKED | (writable ? MDL_WRITE_OPERATION : 0));
}

VOID MmUnlockPages(PMDL Mdl) {
  if ((Mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) != 0) MmUnmapLockedPages(Mdl->MappedSystemVa, Mdl);
  Mdl->MdlFlags = static_cast<CSHORT>(Mdl->MdlFlags & ~(MDL_PAGES_LOCKED | MDL_WRITE_OPERATION));
}

VOID IoBuildPartialMdl(PMDL SourceMdl, PMDL TargetMdl, PVOID VirtualAddress, ULONG Length) {
  const auto source = reinterpret_cast<std::uintptr_t>(MmGetMdlVirtualAddress(SourceMdl));
  const auto start = reinterpret_cast<std::uintptr_t>(VirtualAddress);
  // The caller's mistakes; under Windows these stop the machine.
  KMCL_CHECK(start >= source && start - source <= SourceMdl->ByteCount);
  const std::uint64_t offset = start - source;
  const std::uint64_t bytes = Length != 0 ? Length : SourceMdl->ByteCount - offset;
  KMCL_CHECK(offset + bytes <= SourceMdl->ByteCount);
  const Piece piece = PieceOf(SourceMdl, offset, bytes);
  KMCL_CHECK(static_cast<std::size_t>(TargetMdl->Size) == kLargestSize ||
             BytesFor(piece.pages.size()) <= static_cast<std::size_t>(TargetMdl->Size));
  constexpr int kTargetKeeps = MDL_ALLOCATED_FIXED_SIZE;
  constexpr int kSourceGives =
      MDL_SOURCE_IS_NONPAGED_POOL | MDL_MAPPED_TO_SYSTEM_VA | MDL_WRITE_OPERATION;
  TargetMdl->MdlFlags = static_cast<CSHORT>((TargetMdl->MdlFlags & kTargetKeeps) |
                                            (SourceMdl->MdlFlags & kSourceGives) | MDL_PARTIAL);
  TargetMdl->Process = SourceMdl->Process;
  TargetMdl->StartVa = PAGE_ALIGN(VirtualAddress);
  TargetMdl->ByteOffset = piece.byte_offset;
  TargetMdl->ByteCount = piece.byte_count;
  TargetMdl->MappedSystemVa = SourceMdl->MappedSystemVa == nullptr
                                  ? nullptr
                                  : static_cast<char*>(SourceMdl->MappedSystemVa) + offset;
  std::ranges::copy(piece.pages, MmGetMdlPfnArray(TargetMdl));
}

VOID MmPrepareMdlForReuse(PMDL Mdl) {
  if ((Mdl->MdlFlags & MDL_PARTIAL_HAS_BEEN_MAPPED) != 0) {
    MmUnmapLockedPages(Mdl->MappedSystemVa, Mdl);
  }
}
