/* kmcl/wdk/locks.h - spin locks, fast mutexes, rundown protection, remove locks.
 *
 * All of them live in the driver's memory and need no clean-up. What Windows stops the machine for (a
 * wrong level, a lock that is released by somebody who does not hold it) is checked and aborts.
 */
#ifndef KMCL_WDK_LOCKS_H
#define KMCL_WDK_LOCKS_H

#include <kmcl/nt.h>
#include <kmcl/wdk/events.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Spin locks ------------------------------------------------------------------------------
 * The holder is at DISPATCH_LEVEL: it must not block. A thread here can lose its processor all the same,
 * so a waiter spins for a moment and then sleeps. Not recursive. */

typedef ULONG_PTR KSPIN_LOCK, *PKSPIN_LOCK;

VOID KeInitializeSpinLock(_Out_ PKSPIN_LOCK SpinLock);
/* From <= DISPATCH. Raises to DISPATCH_LEVEL; *OldIrql receives the level that was. */
VOID KeAcquireSpinLock(_Inout_ PKSPIN_LOCK SpinLock, _Out_ PKIRQL OldIrql);
KIRQL KeAcquireSpinLockRaiseToDpc(_Inout_ PKSPIN_LOCK SpinLock);
/* Goes back to NewIrql. */
VOID KeReleaseSpinLock(_Inout_ PKSPIN_LOCK SpinLock, _In_ KIRQL NewIrql);
/* At DISPATCH_LEVEL; the level stays. */
VOID KeAcquireSpinLockAtDpcLevel(_Inout_ PKSPIN_LOCK SpinLock);
BOOLEAN KeTryToAcquireSpinLockAtDpcLevel(_Inout_ PKSPIN_LOCK SpinLock);
VOID KeReleaseSpinLockFromDpcLevel(_Inout_ PKSPIN_LOCK SpinLock);
/* TRUE while nobody holds it. */
BOOLEAN KeTestSpinLock(_In_ PKSPIN_LOCK SpinLock);

/* The same lock; the handle, on the caller's stack, keeps the level. (Nothing queues here.) */
typedef struct _KLOCK_QUEUE_HANDLE {
    PKSPIN_LOCK Lock;
    KIRQL OldIrql;
} KLOCK_QUEUE_HANDLE, *PKLOCK_QUEUE_HANDLE;
VOID KeAcquireInStackQueuedSpinLock(_Inout_ PKSPIN_LOCK SpinLock,
                                    _Out_ PKLOCK_QUEUE_HANDLE LockHandle);
VOID KeReleaseInStackQueuedSpinLock(_In_ PKLOCK_QUEUE_HANDLE LockHandle);
VOID KeAcquireInStackQueuedSpinLockAtDpcLevel(_Inout_ PKSPIN_LOCK SpinLock,
                                              _Out_ PKLOCK_QUEUE_HANDLE LockHandle);
VOID KeReleaseInStackQueuedSpinLockFromDpcLevel(_In_ PKLOCK_QUEUE_HANDLE LockHandle);

/* ---- Fast mutexes ----------------------------------------------------------------------------
 * Taken at <= APC_LEVEL; the holder is at APC_LEVEL and may block. Not recursive: a second acquire by
 * the holder aborts. The Unsafe ones leave the level alone. */

typedef struct _FAST_MUTEX {
    LONG Count; /* bit 0: free; bit 1: somebody may wait. The library's, like all fields. */
    ULONG OldIrql;
    PVOID Owner;
} FAST_MUTEX, *PFAST_MUTEX;

VOID ExInitializeFastMutex(_Out_ PFAST_MUTEX FastMutex);
VOID ExAcquireFastMutex(_Inout_ PFAST_MUTEX FastMutex);
BOOLEAN ExTryToAcquireFastMutex(_Inout_ PFAST_MUTEX FastMutex);
VOID ExReleaseFastMutex(_Inout_ PFAST_MUTEX FastMutex);
VOID ExAcquireFastMutexUnsafe(_Inout_ PFAST_MUTEX FastMutex);
VOID ExReleaseFastMutexUnsafe(_Inout_ PFAST_MUTEX FastMutex);

/* ---- Rundown protection ----------------------------------------------------------------------
 * Any number of users may hold it, until somebody waits for the last of them to go; from then on nobody
 * gets it any more. */

typedef struct _EX_RUNDOWN_REF {
    ULONG_PTR Count; /* the library's */
} EX_RUNDOWN_REF, *PEX_RUNDOWN_REF;

/* <= DISPATCH, any thread. */
VOID ExInitializeRundownProtection(_Out_ PEX_RUNDOWN_REF RunRef);
/* FALSE once the wait has begun. */
BOOLEAN ExAcquireRundownProtection(_Inout_ PEX_RUNDOWN_REF RunRef);
BOOLEAN ExAcquireRundownProtectionEx(_Inout_ PEX_RUNDOWN_REF RunRef, _In_ ULONG Count);
VOID ExReleaseRundownProtection(_Inout_ PEX_RUNDOWN_REF RunRef);
VOID ExReleaseRundownProtectionEx(_Inout_ PEX_RUNDOWN_REF RunRef, _In_ ULONG Count);
/* <= APC_LEVEL; blocks until every user has released it. By one thread; afterwards the memory may go. */
VOID ExWaitForRundownProtectionRelease(_Inout_ PEX_RUNDOWN_REF RunRef);
/* After the wait: usable again. */
VOID ExReInitializeRundownProtection(_Inout_ PEX_RUNDOWN_REF RunRef);
/* After the wait: says that the object is gone for good. */
VOID ExRundownCompleted(_Out_ PEX_RUNDOWN_REF RunRef);

/* ---- Remove locks ----------------------------------------------------------------------------
 * The same with a tag for each user, which is not looked at here. */

typedef struct _IO_REMOVE_LOCK {
    EX_RUNDOWN_REF Rundown; /* the library's */
} IO_REMOVE_LOCK, *PIO_REMOVE_LOCK;

/* Tag, minutes and count are for checked builds of Windows. */
VOID IoInitializeRemoveLock(_Out_ PIO_REMOVE_LOCK Lock, _In_ ULONG AllocateTag,
                            _In_ ULONG MaxLockedMinutes, _In_ ULONG HighWatermark);
/* <= DISPATCH. STATUS_SUCCESS, or STATUS_DELETE_PENDING once the last release has begun. */
NTSTATUS IoAcquireRemoveLock(_Inout_ PIO_REMOVE_LOCK RemoveLock, _In_opt_ PVOID Tag);
VOID IoReleaseRemoveLock(_Inout_ PIO_REMOVE_LOCK RemoveLock, _In_opt_ PVOID Tag);
/* PASSIVE_LEVEL; gives back the caller's own and blocks until all others are back. */
VOID IoReleaseRemoveLockAndWait(_Inout_ PIO_REMOVE_LOCK RemoveLock, _In_opt_ PVOID Tag);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_LOCKS_H */
