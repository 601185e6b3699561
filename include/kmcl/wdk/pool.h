/* kmcl/wdk/pool.h - memory from the system's pools (KMCL reference 14.3).
 *
 * Nonpaged pool is memory that every server this process connects to can see: what a driver describes
 * of it by an MDL is read and written by the server in place, and it can become a GPADL. Put nothing
 * there that servers must not see. Paged pool is ordinary memory. Both are aligned to 16 bytes, and to a
 * page from PAGE_SIZE bytes up. NULL when there is no more.
 *
 * A tag is four characters that name the owner ('lmcK' reads "Kmcl" in a dump). A block freed under
 * another tag, freed twice, or never allocated aborts, as it stops Windows.
 *
 * <= DISPATCH, any thread; they do not block.
 */
#ifndef KMCL_WDK_POOL_H
#define KMCL_WDK_POOL_H

#include <kmcl/nt.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum _POOL_TYPE {
    NonPagedPool = 0,
    NonPagedPoolExecute = NonPagedPool,
    PagedPool = 1,
    NonPagedPoolCacheAligned = 4,
    PagedPoolCacheAligned = 5,
    NonPagedPoolNx = 512,
    NonPagedPoolNxCacheAligned = NonPagedPoolNx + 4
} POOL_TYPE;

typedef ULONG64 POOL_FLAGS;
#define POOL_FLAG_USE_QUOTA 0x0000000000000001ull
#define POOL_FLAG_UNINITIALIZED 0x0000000000000002ull
#define POOL_FLAG_CACHE_ALIGNED 0x0000000000000008ull
#define POOL_FLAG_RAISE_ON_FAILURE 0x0000000000000020ull
#define POOL_FLAG_NON_PAGED 0x0000000000000040ull
#define POOL_FLAG_NON_PAGED_EXECUTE 0x0000000000000080ull
#define POOL_FLAG_PAGED 0x0000000000000100ull

/* Zeroed, unless POOL_FLAG_UNINITIALIZED. One of NON_PAGED, NON_PAGED_EXECUTE and PAGED must be set,
 * and the tag must not be 0, else NULL. With RAISE_ON_FAILURE want of memory aborts. */
PVOID ExAllocatePool2(_In_ POOL_FLAGS Flags, _In_ SIZE_T NumberOfBytes, _In_ ULONG Tag);

/* Not zeroed. */
PVOID ExAllocatePoolWithTag(_In_ POOL_TYPE PoolType, _In_ SIZE_T NumberOfBytes, _In_ ULONG Tag);
PVOID ExAllocatePoolUninitialized(_In_ POOL_TYPE PoolType, _In_ SIZE_T NumberOfBytes,
                                  _In_ ULONG Tag);
PVOID ExAllocatePool(_In_ POOL_TYPE PoolType, _In_ SIZE_T NumberOfBytes);
/* Zeroed. */
PVOID ExAllocatePoolZero(_In_ POOL_TYPE PoolType, _In_ SIZE_T NumberOfBytes, _In_ ULONG Tag);

VOID ExFreePool(_In_ PVOID P);
/* A Tag of 0 fits every block. */
VOID ExFreePoolWithTag(_In_ PVOID P, _In_ ULONG Tag);

/* What is allocated under a tag now, to look for leaks. Both may be NULL. */
VOID KmclPoolQueryTag(_In_ ULONG Tag, _Out_opt_ SIZE_T *Blocks, _Out_opt_ SIZE_T *Bytes);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_POOL_H */
