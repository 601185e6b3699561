/* kmcl/wdk/lists.h - lists threaded through the driver's own structures.
 *
 * LIST_ENTRY and SINGLE_LIST_ENTRY have no lock: their owner sees to it that one thread uses a list at a
 * time. The ExInterlocked functions take a spin lock for it. An SLIST needs no lock at all.
 */
#ifndef KMCL_WDK_LISTS_H
#define KMCL_WDK_LISTS_H

#include <kmcl/nt.h>
#include <kmcl/wdk/locks.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Doubly linked, circular ----------------------------------------------------------------- */

/* (LIST_ENTRY itself stands in kmcl/wdk/events.h.) */

FORCEINLINE VOID InitializeListHead(_Out_ PLIST_ENTRY ListHead) {
    ListHead->Flink = ListHead;
    ListHead->Blink = ListHead;
}
FORCEINLINE BOOLEAN IsListEmpty(_In_ const LIST_ENTRY *ListHead) {
    return ListHead->Flink == ListHead;
}
FORCEINLINE VOID InsertHeadList(_Inout_ PLIST_ENTRY ListHead, _Out_ PLIST_ENTRY Entry) {
    Entry->Flink = ListHead->Flink;
    Entry->Blink = ListHead;
    ListHead->Flink->Blink = Entry;
    ListHead->Flink = Entry;
}
FORCEINLINE VOID InsertTailList(_Inout_ PLIST_ENTRY ListHead, _Out_ PLIST_ENTRY Entry) {
    Entry->Flink = ListHead;
    Entry->Blink = ListHead->Blink;
    ListHead->Blink->Flink = Entry;
    ListHead->Blink = Entry;
}
/* TRUE if the list is empty afterwards. A list whose neighbours do not point back is corrupt: the
 * program ends. */
FORCEINLINE BOOLEAN RemoveEntryList(_In_ PLIST_ENTRY Entry) {
    PLIST_ENTRY const next = Entry->Flink;
    PLIST_ENTRY const before = Entry->Blink;
    if (next->Blink != Entry || before->Flink != Entry) {
        __builtin_trap();
    }
    before->Flink = next;
    next->Blink = before;
    return next == before;
}
/* The list head itself if the list is empty. */
FORCEINLINE PLIST_ENTRY RemoveHeadList(_Inout_ PLIST_ENTRY ListHead) {
    PLIST_ENTRY const entry = ListHead->Flink;
    (void)RemoveEntryList(entry);
    return entry;
}
FORCEINLINE PLIST_ENTRY RemoveTailList(_Inout_ PLIST_ENTRY ListHead) {
    PLIST_ENTRY const entry = ListHead->Blink;
    (void)RemoveEntryList(entry);
    return entry;
}
/* Adds the entries of a list without a head, that begins with ListToAppend. */
FORCEINLINE VOID AppendTailList(_Inout_ PLIST_ENTRY ListHead, _Inout_ PLIST_ENTRY ListToAppend) {
    PLIST_ENTRY const last = ListHead->Blink;
    ListHead->Blink->Flink = ListToAppend;
    ListHead->Blink = ListToAppend->Blink;
    ListToAppend->Blink->Flink = ListHead;
    ListToAppend->Blink = last;
}

/* Under `Lock`, at <= DISPATCH. The first two return the entry that was first (last), or NULL for an
 * empty list; the third NULL for an empty list. */
FORCEINLINE PLIST_ENTRY ExInterlockedInsertHeadList(_Inout_ PLIST_ENTRY ListHead,
                                                    _Inout_ PLIST_ENTRY Entry,
                                                    _Inout_ PKSPIN_LOCK Lock) {
    KIRQL irql;
    KeAcquireSpinLock(Lock, &irql);
    PLIST_ENTRY const first = IsListEmpty(ListHead) ? NULL : ListHead->Flink;
    InsertHeadList(ListHead, Entry);
    KeReleaseSpinLock(Lock, irql);
    return first;
}
FORCEINLINE PLIST_ENTRY ExInterlockedInsertTailList(_Inout_ PLIST_ENTRY ListHead,
                                                    _Inout_ PLIST_ENTRY Entry,
                                                    _Inout_ PKSPIN_LOCK Lock) {
    KIRQL irql;
    KeAcquireSpinLock(Lock, &irql);
    PLIST_ENTRY const last = IsListEmpty(ListHead) ? NULL : ListHead->Blink;
    InsertTailList(ListHead, Entry);
    KeReleaseSpinLock(Lock, irql);
    return last;
}
FORCEINLINE PLIST_ENTRY ExInterlockedRemoveHeadList(_Inout_ PLIST_ENTRY ListHead,
                                                    _Inout_ PKSPIN_LOCK Lock) {
    KIRQL irql;
    KeAcquireSpinLock(Lock, &irql);
    PLIST_ENTRY const entry = IsListEmpty(ListHead) ? NULL : RemoveHeadList(ListHead);
    KeReleaseSpinLock(Lock, irql);
    return entry;
}

/* ---- Singly linked --------------------------------------------------------------------------- */

typedef struct _SINGLE_LIST_ENTRY {
    struct _SINGLE_LIST_ENTRY *Next;
} SINGLE_LIST_ENTRY, *PSINGLE_LIST_ENTRY;

FORCEINLINE VOID PushEntryList(_Inout_ PSINGLE_LIST_ENTRY ListHead,
                               _Inout_ PSINGLE_LIST_ENTRY Entry) {
    Entry->Next = ListHead->Next;
    ListHead->Next = Entry;
}
/* NULL if there is none. */
FORCEINLINE PSINGLE_LIST_ENTRY PopEntryList(_Inout_ PSINGLE_LIST_ENTRY ListHead) {
    PSINGLE_LIST_ENTRY const first = ListHead->Next;
    if (first != NULL) {
        ListHead->Next = first->Next;
    }
    return first;
}

/* ---- Lock-free, last in first out ------------------------------------------------------------ */

#define MEMORY_ALLOCATION_ALIGNMENT 16
#define DECLSPEC_ALIGN(x) __attribute__((aligned(x)))

/* At the start of memory aligned to MEMORY_ALLOCATION_ALIGNMENT. */
typedef struct DECLSPEC_ALIGN(16) _SLIST_ENTRY {
    struct _SLIST_ENTRY *Next;
} SLIST_ENTRY, *PSLIST_ENTRY;

typedef struct DECLSPEC_ALIGN(16) _SLIST_HEADER {
    PSLIST_ENTRY First;
    ULONG64 DepthAndSequence; /* the library's */
} SLIST_HEADER, *PSLIST_HEADER;

/* Any thread, any level. Another thread that pops may still read the Next of an entry that was popped:
 * its memory stays readable as long as the list is in use (whatever is written there). */
VOID InitializeSListHead(_Out_ PSLIST_HEADER ListHead);
/* The entry that was first, or NULL. */
PSLIST_ENTRY InterlockedPushEntrySList(_Inout_ PSLIST_HEADER ListHead, _Inout_ PSLIST_ENTRY Entry);
/* The first entry, or NULL. */
PSLIST_ENTRY InterlockedPopEntrySList(_Inout_ PSLIST_HEADER ListHead);
/* All entries, linked by Next; or NULL. */
PSLIST_ENTRY InterlockedFlushSList(_Inout_ PSLIST_HEADER ListHead);
/* How many entries there are, modulo 65536. */
USHORT QueryDepthSList(_In_ PSLIST_HEADER ListHead);

/* The names that the kernel has for the same. */
#define ExInitializeSListHead InitializeSListHead
#define ExQueryDepthSList QueryDepthSList
#define ExInterlockedPushEntrySList(Head, Entry, Lock) InterlockedPushEntrySList(Head, Entry)
#define ExInterlockedPopEntrySList(Head, Lock) InterlockedPopEntrySList(Head)
#define ExInterlockedFlushSList InterlockedFlushSList

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_LISTS_H */
