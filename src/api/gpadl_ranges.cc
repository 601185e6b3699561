#include "api/gpadl_ranges.h"

#include <optional>
#include <vector>

#include "wdk/mdl.h"

namespace kmcl::api {
namespace {

using Pages = std::vector<wire::PageNumber>;

const void* AddressOf(PFN_NUMBER page) {
  return reinterpret_cast<const void*>(static_cast<std::uintptr_t>(page) << PAGE_SHIFT);
}

// False if one of the pages is not shared.
bool Translate(const endpoint::ClientChannel& channel, std::span<const PFN_NUMBER> from,
               Pages& to) {
  for (const PFN_NUMBER page : from) {
    const std::optional<wire::PageNumber> shared = channel.PageOf(AddressOf(page));
    if (!shared) return false;
    to.push_back(*shared);
  }
  return true;
}

Result<wire::GpaRangeList> OneRange(std::uint32_t bytes, std::uint32_t offset, const Pages& pages) {
  wire::GpaRangeList list;
  if (auto added = list.Append(bytes, offset, pages); !added) {
    return std::unexpected(added.error());
  }
  return list;
}

}  // namespace

Result<wire::GpaRangeList> RangesOfBuffer(const endpoint::ClientChannel& channel,
                                          const void* buffer, std::uint32_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(buffer);
  const auto offset = static_cast<std::uint32_t>(address % PAGE_SIZE);
  const std::size_t count = (std::size_t{offset} + bytes + PAGE_SIZE - 1) / PAGE_SIZE;
  std::vector<PFN_NUMBER> numbers(count);
  for (std::size_t page = 0; page < count; ++page) numbers[page] = (address >> PAGE_SHIFT) + page;
  return RangesOfPages(channel, numbers, offset, bytes);
}

Result<wire::GpaRangeList> RangesOfPages(const endpoint::ClientChannel& channel,
                                         std::span<const PFN_NUMBER> pages, std::uint32_t offset,
                                         std::uint32_t bytes) {
  Pages shared;
  shared.reserve(pages.size());
  if (!Translate(channel, pages, shared)) return std::unexpected(Error::kMemoryNotShared);
  return OneRange(bytes, offset, shared);
}

Result<wire::GpaRangeList> RangesOfChain(const endpoint::ClientChannel& channel, PMDL chain,
                                         std::uint32_t offset, std::uint32_t bytes) {
  wire::GpaRangeList list;
  std::optional<std::uint32_t> first_offset;
  bool follow_each_other = true;
  bool ends_a_page = true;
  wdk::ChainWalk walk(chain, offset, bytes);
  while (const std::optional<wdk::Piece> piece = walk.Next()) {
    // Pages of a client of ours mean nothing to our own server.
    if (piece->mdl->Process != nullptr) return std::unexpected(Error::kMemoryNotShared);
    Pages pages;
    if (!Translate(channel, piece->pages, pages)) return std::unexpected(Error::kMemoryNotShared);
    if (auto added = list.Append(piece->byte_count, piece->byte_offset, pages); !added) {
      return std::unexpected(added.error());
    }
    if (!first_offset) {
      first_offset = piece->byte_offset;
    } else {
      follow_each_other = follow_each_other && ends_a_page && piece->byte_offset == 0;
    }
    ends_a_page = (piece->byte_offset + piece->byte_count) % PAGE_SIZE == 0;
  }
  if (list.encoded_bytes() <= wire::kMaximumGpadlRangeListBytes || !follow_each_other) return list;
  return OneRange(bytes, *first_offset, Pages(list.pages().begin(), list.pages().end()));
}

}  // namespace kmcl::api
