// The process's nonpaged pool: memory that every server this process connects to can see, and that
// therefore crosses the boundary without a copy. One memfd for the whole process, region 1 of each
// client's partition (docs/transports.md), in one linear window of address space.
//
// Only the bytes that were allocated are shared memory; which of them are allocated, and how long
// they are, stands elsewhere, where no peer can write.
//
// After fork() the child has a pool of its own. What it inherited is still the parent's memory.
//
// Any thread; nothing here waits for a peer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "result.h"
#include "transport/descriptor.h"
#include "wire/ids.h"

namespace kmcl::transport {

// The pool's first page in the numbering of a partition. Below it stand the pages that belong to
// one client only.
inline constexpr std::uint64_t kPoolFirstPage = std::uint64_t{1} << 32;
// 64 GiB. No page of a partition has a higher number.
inline constexpr std::uint64_t kMaximumPoolPages = std::uint64_t{1} << 24;

// At least `bytes` bytes of whatever was there before: aligned to 16, and to a page from a page up;
// less than a page never crosses the end of one. nullptr when the pool or the system is exhausted.
// The caller owns them and gives them back with FreeNonPaged.
void* AllocateNonPaged(std::size_t bytes);

// Takes back what AllocateNonPaged gave; nullptr is ignored. Whole pages go back to the system and
// read as zeroes when they are used again. A pointer that is not the beginning of an allocation
// ends the program.
void FreeNonPaged(void* memory);

// How many bytes the allocation that begins there has room for, at least what was asked for. 0 for
// every other pointer.
std::size_t NonPagedBytes(const void* memory);

// The page that an address of the pool stands on, allocated or not; nothing for an address
// elsewhere. Addresses that follow each other stand on pages that follow each other.
std::optional<wire::PageNumber> PageOfNonPaged(const void* address);

// A descriptor of the pool's memfd, to donate it to a server. The pool comes into being if need be.
// kOutOfMemory, kOutOfDescriptors.
[[nodiscard]] Result<Descriptor> DuplicateNonPagedPool();

}  // namespace kmcl::transport
