// The list without a lock. The whole header is exchanged at once, and its sequence number, which
// every change raises, tells a list that looks the same from one that is the same.

#include <kmcl/wdk/lists.h>

#include <cstring>

namespace {

__extension__ typedef unsigned __int128 Both;

constexpr ULONG64 kDepthMask = 0xFFFF;
constexpr ULONG64 kOneChange = 0x10000;

// A torn read is of no consequence: the exchange then fails.
SLIST_HEADER Read(PSLIST_HEADER head) {
  SLIST_HEADER seen;
  seen.DepthAndSequence = __atomic_load_n(&head->DepthAndSequence, __ATOMIC_ACQUIRE);
  seen.First = __atomic_load_n(&head->First, __ATOMIC_ACQUIRE);
  return seen;
}

bool Exchange(PSLIST_HEADER head, const SLIST_HEADER& seen, const SLIST_HEADER& wanted) {
  Both from;
  Both to;
  std::memcpy(&from, &seen, sizeof(from));
  std::memcpy(&to, &wanted, sizeof(to));
  return __sync_bool_compare_and_swap(reinterpret_cast<Both*>(head), from, to);
}

ULONG64 Changed(ULONG64 depth_and_sequence, ULONG64 depth) {
  return ((depth_and_sequence & ~kDepthMask) + kOneChange) | (depth & kDepthMask);
}

}  // namespace

VOID InitializeSListHead(PSLIST_HEADER ListHead) { *ListHead = SLIST_HEADER{}; }

PSLIST_ENTRY InterlockedPushEntrySList(PSLIST_HEADER ListHead, PSLIST_ENTRY Entry) {
  for (;;) {
    const SLIST_HEADER seen = Read(ListHead);
    __atomic_store_n(&Entry->Next, seen.First, __ATOMIC_RELAXED);
    const SLIST_HEADER wanted{Entry, Changed(seen.DepthAndSequence, seen.DepthAndSequence + 1)};
    if (Exchange(ListHead, seen, wanted)) return seen.First;
  }
}

PSLIST_ENTRY InterlockedPopEntrySList(PSLIST_HEADER ListHead) {
  for (;;) {
    const SLIST_HEADER seen = Read(ListHead);
    if (seen.First == nullptr) return nullptr;
    // Whoever popped it meanwhile may have written anything here; the exchange then fails.
    const SLIST_HEADER wanted{__atomic_load_n(&seen.First->Next, __ATOMIC_RELAXED),
                              Changed(seen.DepthAndSequence, seen.DepthAndSequence - 1)};
    if (Exchange(ListHead, seen, wanted)) return seen.First;
  }
}

PSLIST_ENTRY InterlockedFlushSList(PSLIST_HEADER ListHead) {
  for (;;) {
    const SLIST_HEADER seen = Read(ListHead);
    if (seen.First == nullptr) return nullptr;
    const SLIST_HEADER wanted{nullptr, Changed(seen.DepthAndSequence, 0)};
    if (Exchange(ListHead, seen, wanted)) return seen.First;
  }
}

USHORT QueryDepthSList(PSLIST_HEADER ListHead) {
  return static_cast<USHORT>(Read(ListHead).DepthAndSequence & kDepthMask);
}
