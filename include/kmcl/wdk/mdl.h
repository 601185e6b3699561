/* kmcl/wdk/mdl.h - memory descriptor lists: what names memory to KMCL (KMCL reference 14.2, 14.3).
 *
 * An MDL describes one buffer: a number of bytes from an offset in its first page on, and the number
 * of every page they touch, in an array right behind the structure. Several MDLs chained by Next
 * describe one buffer made of several; all functions here look at one MDL, never at the chain.
 *
 * Page numbers. In an MDL that the program made, a page number is the address of the page in this
 * process divided by PAGE_SIZE. In an MDL that KMCL made at a server (external data, a mapped GPADL),
 * it numbers a page of the client's memory, and means nothing in this process until the MDL is mapped.
 * Process says which: NULL for the first kind; it is the library's and only to be compared with NULL.
 *
 * Any thread may call these functions, at <= DISPATCH, one thread at a time for one MDL. They do not
 * block. Nothing is charged or pinned: memory of a process stays where it is as long as it is mapped.
 */
#ifndef KMCL_WDK_MDL_H
#define KMCL_WDK_MDL_H

#include <kmcl/nt.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct _IRP *PIRP;

/* MdlFlags. */
#define MDL_MAPPED_TO_SYSTEM_VA 0x0001     /* MappedSystemVa is valid */
#define MDL_PAGES_LOCKED 0x0002            /* MmProbeAndLockPages, until MmUnlockPages */
#define MDL_SOURCE_IS_NONPAGED_POOL 0x0004 /* MmBuildMdlForNonPagedPool */
#define MDL_ALLOCATED_FIXED_SIZE 0x0008    /* IoAllocateMdl made it */
#define MDL_PARTIAL 0x0010                 /* IoBuildPartialMdl */
#define MDL_PARTIAL_HAS_BEEN_MAPPED 0x0020 /* a partial MDL with a mapping of its own */
#define MDL_WRITE_OPERATION 0x0080         /* locked for writing, or (made by KMCL) may be written */

typedef signed char KPROCESSOR_MODE;
enum { KernelMode = 0, UserMode = 1 };

typedef enum _LOCK_OPERATION { IoReadAccess = 0, IoWriteAccess = 1, IoModifyAccess = 2 } LOCK_OPERATION;

typedef enum _MEMORY_CACHING_TYPE {
    MmNonCached = 0,
    MmCached = 1,
    MmWriteCombined = 2
} MEMORY_CACHING_TYPE;

typedef enum _MM_PAGE_PRIORITY {
    LowPagePriority = 0,
    NormalPagePriority = 16,
    HighPagePriority = 32
} MM_PAGE_PRIORITY;
/* ORed with a priority. */
#define MdlMappingNoWrite 0x80000000u
#define MdlMappingNoExecute 0x40000000u

/* ---- Fields ---------------------------------------------------------------------------------- */

#define MmGetMdlByteCount(Mdl) ((Mdl)->ByteCount)
#define MmGetMdlByteOffset(Mdl) ((Mdl)->ByteOffset)
#define MmGetMdlVirtualAddress(Mdl) ((PVOID)((ULONG_PTR)(Mdl)->StartVa + (Mdl)->ByteOffset))
#define MmGetMdlPfnArray(Mdl) ((PPFN_NUMBER)(void *)((Mdl) + 1))

/* ---- Making and freeing ---------------------------------------------------------------------- */

/* Bytes of an MDL for `Length` bytes from `Base` on, its page numbers included. */
SIZE_T MmSizeOfMdl(_In_ PVOID Base, _In_ SIZE_T Length);

/* Makes an MDL in the caller's memory, MmSizeOfMdl bytes at `Mdl` aligned to 8. The page numbers are
 * not filled in. There is nothing to undo. */
VOID MmInitializeMdl(_Out_ PMDL Mdl, _In_ PVOID BaseVa, _In_ SIZE_T Length);

/* An MDL for `Length` bytes from `VirtualAddress` on, with room for their page numbers, which are not
 * filled in. Give it to IoFreeMdl in the end; the buffer stays the caller's. SecondaryBuffer and
 * ChargeQuota mean nothing here; there are no IRPs. NULL for want of memory, or if Irp is not NULL. */
PMDL IoAllocateMdl(_In_opt_ PVOID VirtualAddress, _In_ ULONG Length, _In_ BOOLEAN SecondaryBuffer,
                   _In_ BOOLEAN ChargeQuota, _Inout_opt_ PIRP Irp);

/* Frees an MDL of IoAllocateMdl, alone: follow Next first. Its buffer is not touched. */
VOID IoFreeMdl(_In_ PMDL Mdl);

/* Fills the page numbers of a buffer in this process, and MappedSystemVa with its address; sets
 * MDL_SOURCE_IS_NONPAGED_POOL. The buffer may be any memory: a server reads and writes what
 * ExAllocatePool gave (nonpaged) in place, other memory is copied for each packet and cannot become a
 * GPADL. */
VOID MmBuildMdlForNonPagedPool(_Inout_ PMDL Mdl);

/* Fills the page numbers, after making sure that all of the buffer can be read (IoReadAccess) or
 * written (the others); sets MDL_PAGES_LOCKED, and MDL_WRITE_OPERATION for writing. Memory locked for
 * reading is not written back after a send. Where Windows raises an exception, because the memory is
 * not there, this logs and aborts. AccessMode is not looked at. */
VOID MmProbeAndLockPages(_Inout_ PMDL Mdl, _In_ KPROCESSOR_MODE AccessMode,
                         _In_ LOCK_OPERATION Operation);
/* Undoes MmProbeAndLockPages, and a mapping of MmGetSystemAddressForMdlSafe. */
VOID MmUnlockPages(_Inout_ PMDL Mdl);

/* Makes `TargetMdl` describe `Length` bytes of `SourceMdl` from `VirtualAddress` on, which counts from
 * MmGetMdlVirtualAddress(SourceMdl); Length 0 is to the end. `TargetMdl` has room for the pages, and is
 * used no longer than the source. A range outside of the source, or a target too small, aborts. */
VOID IoBuildPartialMdl(_In_ PMDL SourceMdl, _Inout_ PMDL TargetMdl, _In_ PVOID VirtualAddress,
                       _In_ ULONG Length);
/* Undoes the mapping of a partial MDL, so that it can be built again. */
VOID MmPrepareMdlForReuse(_Inout_ PMDL Mdl);

/* ---- Mapping --------------------------------------------------------------------------------- */

/* One contiguous view of the MDL's bytes, even of scattered pages. Priority: an MM_PAGE_PRIORITY,
 * which means nothing here, with MdlMappingNoWrite for a view that is only to be read. An MDL that KMCL
 * made for reading is never mapped for writing. The view lasts until MmUnmapLockedPages, or until
 * what the MDL belongs to is retired. NULL if it cannot be mapped. */
PVOID MmGetSystemAddressForMdlSafe(_Inout_ PMDL Mdl, _In_ ULONG Priority);

/* The same. KernelMode: the view becomes MappedSystemVa, and a second call gives the same one.
 * UserMode: a view of its own each time, also in this process. CacheType, BaseAddress and
 * BugCheckOnFailure are not looked at. */
PVOID MmMapLockedPagesSpecifyCache(_Inout_ PMDL Mdl, _In_ KPROCESSOR_MODE AccessMode,
                                   _In_ MEMORY_CACHING_TYPE CacheType, _In_opt_ PVOID BaseAddress,
                                   _In_ ULONG BugCheckOnFailure, _In_ ULONG Priority);

/* Ends a view; `BaseAddress` is what the call above gave. */
VOID MmUnmapLockedPages(_In_ PVOID BaseAddress, _Inout_ PMDL Mdl);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_MDL_H */
