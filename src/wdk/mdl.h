// MDLs as the library itself makes and reads them. What drivers do with them is in kmcl/wdk/mdl.h.
#pragma once

#include <kmcl/wdk/mdl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "wdk/page_space.h"
#include "wire/gpa_range.h"

namespace kmcl::wdk {

enum class Access : bool { kReadOnly, kReadWrite };

// Frees a chain that the library made: ends the mappings that drivers left, and frees every MDL.
// `left_mapped`, if not null, is increased by the number of mappings that were left.
void FreeChain(PMDL head, std::uint32_t* left_mapped = nullptr);

struct ChainDeleter {
  void operator()(PMDL head) const { FreeChain(head); }
};
using Chain = std::unique_ptr<MDL, ChainDeleter>;

// An MDL of `byte_count` bytes from `byte_offset` in the first of `pages` on, which are pages of
// `space`, locked, without an address, mapped for writing only if `access` allows it. Several are
// chained by their Next. nullptr without memory. Requires as many pages as the bytes touch. `space`
// outlives the MDL.
Chain MakeMdl(PageSpace& space, std::span<const PFN_NUMBER> pages, std::uint32_t byte_offset,
              std::uint32_t byte_count, Access access);
// A chain of one such MDL for each range. nullptr without memory, or for no ranges.
Chain MakeChain(PageSpace& space, const wire::PackedGpaRanges& ranges, Access access);
Chain MakeChain(PageSpace& space, const wire::GpaRangeList& ranges, Access access);

// The page numbers of one MDL.
std::span<const PFN_NUMBER> PagesOf(const MDL& mdl);
// Whether what the peer wrote to it belongs back in the driver's memory: not if that was locked for
// reading.
inline bool IsWritable(const MDL& mdl) {
  return (mdl.MdlFlags & MDL_PAGES_LOCKED) == 0 || (mdl.MdlFlags & MDL_WRITE_OPERATION) != 0;
}

// What a chain describes altogether.
struct ChainSize {
  std::uint64_t bytes = 0;
  std::uint32_t mdls = 0;
};
ChainSize SizeOf(const MDL* head);

// One MDL's share of a part of a chain.
struct Piece {
  MDL* mdl = nullptr;
  std::uint32_t byte_offset = 0;      // in the first of `pages`
  std::uint32_t byte_count = 0;       // never 0
  std::span<const PFN_NUMBER> pages;  // that the bytes touch, in the MDL's numbering
};

// The bytes of a piece, if they can be seen at one address of this process without mapping
// anything; else nullptr.
std::byte* AddressOf(const Piece& piece);
// Copies the bytes of a piece. False if its pages could not be mapped.
[[nodiscard]] bool CopyFrom(const Piece& piece, std::byte* to);
[[nodiscard]] bool CopyTo(const Piece& piece, const std::byte* from);

// Cuts `bytes` bytes of a chain, from `offset` on, into one piece for each MDL they touch.
class ChainWalk {
 public:
  // Requires offset + bytes <= SizeOf(head).bytes.
  ChainWalk(PMDL head, std::uint64_t offset, std::uint64_t bytes);
  std::optional<Piece> Next();

 private:
  PMDL mdl_;
  std::uint64_t offset_;  // in *mdl_
  std::uint64_t left_;
};

// The piece of `bytes` bytes from the start of an MDL on, whatever its ByteCount says, as long as
// they end in its last page (FORCE_MDL_LENGTH). nullopt if they do not, or touch a page that it has
// not.
std::optional<Piece> ForcedPiece(PMDL mdl, std::uint64_t offset, std::uint64_t bytes);

}  // namespace kmcl::wdk
