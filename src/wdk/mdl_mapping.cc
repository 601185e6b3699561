#include "wdk/mdl_mapping.h"

#include <kmcl/wdk/mdl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "wdk/mdl.h"

namespace kmcl::wdk {
namespace {

// One view of scattered pages of this process. Only memory that is shared (as the nonpaged pool is)
// can be seen twice; nullptr for any other.
void* MapScattered(std::span<const PFN_NUMBER> pages, bool writable) {
  void* const base = mmap(nullptr, pages.size() * PAGE_SIZE, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  for (std::size_t first = 0; first < pages.size();) {
    std::size_t count = 1;
    while (first + count < pages.size() && pages[first + count] == pages[first] + count) ++count;
    char* const to = static_cast<char*>(base) + first * PAGE_SIZE;
    // An old size of 0 leaves the original where it is.
    void* const moved = mremap(reinterpret_cast<void*>(pages[first] << PAGE_SHIFT), 0,
                               count * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (moved == MAP_FAILED || (!writable && mprotect(to, count * PAGE_SIZE, PROT_READ) != 0)) {
      munmap(base, pages.size() * PAGE_SIZE);
      return nullptr;
    }
    first += count;
  }
  return base;
}

void* MapPages(const MDL& mdl, bool writable) {
  const auto pages = PagesOf(mdl);
  if (pages.empty()) return nullptr;
  if (mdl.Process != nullptr) return mdl.Process->Map(pages, writable);
  if (AreConsecutive(pages)) return reinterpret_cast<void*>(pages[0] << PAGE_SHIFT);
  return MapScattered(pages, writable);
}

void UnmapPages(const MDL& mdl, void* base) {
  const auto pages = PagesOf(mdl);
  if (mdl.Process != nullptr) {
    mdl.Process->Unmap(base, pages.size());
  } else if (!AreConsecutive(pages)) {
    munmap(base, pages.size() * PAGE_SIZE);
  }
}

}  // namespace

bool AreConsecutive(std::span<const PFN_NUMBER> pages) {
  for (std::size_t i = 1; i < pages.size(); ++i) {
    if (pages[i] != pages[0] + i) return false;
  }
  return true;
}

bool Probe(void* base, std::size_t pages, bool writable) {
  const std::size_t bytes = pages * PAGE_SIZE;
  if (bytes == 0) return true;
  if (madvise(base, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) return true;
  if (errno != EINVAL) return false;
  // No permission, a kernel before 5.14, or memory of a device: a byte of each page tells. As under
  // Windows, probing for writing writes back the byte that is there.
  for (std::size_t i = 0; i < pages; ++i) {
    char byte = 0;
    char* const page = static_cast<char*>(base) + i * PAGE_SIZE;
    const iovec to{writable ? page : &byte, 1};
    const iovec from{page, 1};
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) < 0 && errno == EFAULT) return false;
  }
  return true;
}

}  // namespace kmcl::wdk

using namespace kmcl::wdk;

PVOID MmMapLockedPagesSpecifyCache(PMDL Mdl, KPROCESSOR_MODE AccessMode, MEMORY_CACHING_TYPE, PVOID,
                                   ULONG, ULONG Priority) {
  const bool into_mdl = AccessMode == KernelMode;
  if (into_mdl && (Mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) != 0) return Mdl->MappedSystemVa;
  // Memory of this process is its owner's: what it was locked for restricts the peer, not the view.
  const bool writable = (Priority & MdlMappingNoWrite) == 0 &&
                        (Mdl->Process == nullptr || (Mdl->MdlFlags & MDL_WRITE_OPERATION) != 0);
  void* const base = MapPages(*Mdl, writable);
  if (base == nullptr) return nullptr;
  void* const view = static_cast<char*>(base) + Mdl->ByteOffset;
  if (into_mdl) {
    Mdl->MappedSystemVa = view;
    const int partial = (Mdl->MdlFlags & MDL_PARTIAL) != 0 ? MDL_PARTIAL_HAS_BEEN_MAPPED : 0;
    Mdl->MdlFlags = static_cast<CSHORT>(Mdl->MdlFlags | MDL_MAPPED_TO_SYSTEM_VA | partial);
  }
  return view;
}

PVOID MmGetSystemAddressForMdlSafe(PMDL Mdl, ULONG Priority) {
  if ((Mdl->MdlFlags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL)) != 0) {
    return Mdl->MappedSystemVa;
  }
  return MmMapLockedPagesSpecifyCache(Mdl, KernelMode, MmCached, nullptr, FALSE, Priority);
}

VOID MmUnmapLockedPages(PVOID BaseAddress, PMDL Mdl) {
  UnmapPages(*Mdl, static_cast<char*>(BaseAddress) - Mdl->ByteOffset);
  if (BaseAddress == Mdl->MappedSystemVa && (Mdl->MdlFlags & MDL_MAPPED_TO_SYSTEM_VA) != 0) {
    Mdl->MdlFlags = static_cast<CSHORT>(Mdl->MdlFlags &
                                        ~(MDL_MAPPED_TO_SYSTEM_VA | MDL_PARTIAL_HAS_BEEN_MAPPED));
    if ((Mdl->MdlFlags & MDL_SOURCE_IS_NONPAGED_POOL) == 0) Mdl->MappedSystemVa = nullptr;
  }
}
