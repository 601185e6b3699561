// Rundown protection, and the remove locks made of it.

#include <kmcl/wdk/locks.h>

#include <atomic>

#include "wdk/irql.h"
#include "wdk/misuse.h"
#include "wdk/signal_word.h"

using namespace kmcl::wdk;

namespace {

// Bit 0: nobody gets it any more. The rest counts users.
constexpr ULONG_PTR kRunningDown = 1;
constexpr ULONG_PTR kOneUser = 2;

std::atomic_ref<ULONG_PTR> CountOf(PEX_RUNDOWN_REF rundown) {
  return std::atomic_ref<ULONG_PTR>(rundown->Count);
}

// What the waiter sleeps on; every release changes it. Only the kernel reads it by this name.
const std::uint32_t& LowerHalf(PEX_RUNDOWN_REF rundown) {
  const void* const lower = &rundown->Count;
  return *static_cast<const std::uint32_t*>(lower);
}

}  // namespace

VOID ExInitializeRundownProtection(PEX_RUNDOWN_REF RunRef) { RunRef->Count = 0; }

BOOLEAN ExAcquireRundownProtectionEx(PEX_RUNDOWN_REF RunRef, ULONG Count) {
  const auto count = CountOf(RunRef);
  ULONG_PTR seen = count.load(std::memory_order_relaxed);
  while ((seen & kRunningDown) == 0) {
    if (count.compare_exchange_weak(seen, seen + kOneUser * Count, std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return TRUE;
    }
  }
  return FALSE;
}

BOOLEAN ExAcquireRundownProtection(PEX_RUNDOWN_REF RunRef) {
  return ExAcquireRundownProtectionEx(RunRef, 1);
}

VOID ExReleaseRundownProtectionEx(PEX_RUNDOWN_REF RunRef, ULONG Count) {
  const ULONG_PTR before = CountOf(RunRef).fetch_sub(kOneUser * Count, std::memory_order_acq_rel);
  Require(before >= kOneUser * Count, "ExReleaseRundownProtection", "released more than acquired");
  // From here on only the address is used: the waiter may be gone, and the memory with it.
  if (before == kOneUser * Count + kRunningDown) WakeAll(LowerHalf(RunRef));
}

VOID ExReleaseRundownProtection(PEX_RUNDOWN_REF RunRef) { ExReleaseRundownProtectionEx(RunRef, 1); }

VOID ExWaitForRundownProtectionRelease(PEX_RUNDOWN_REF RunRef) {
  Require(current_irql < DISPATCH_LEVEL, "ExWaitForRundownProtectionRelease",
          "must not wait at DISPATCH_LEVEL");
  const auto count = CountOf(RunRef);
  ULONG_PTR seen = count.fetch_or(kRunningDown, std::memory_order_acq_rel) | kRunningDown;
  while (seen != kRunningDown) {
    SleepWhile(LowerHalf(RunRef), static_cast<std::uint32_t>(seen), std::nullopt);
    seen = count.load(std::memory_order_acquire);
  }
}

VOID ExReInitializeRundownProtection(PEX_RUNDOWN_REF RunRef) {
  CountOf(RunRef).store(0, std::memory_order_release);
}

VOID ExRundownCompleted(PEX_RUNDOWN_REF RunRef) {
  CountOf(RunRef).store(kRunningDown, std::memory_order_release);
}

VOID IoInitializeRemoveLock(PIO_REMOVE_LOCK Lock, ULONG, ULONG, ULONG) {
  ExInitializeRundownProtection(&Lock->Rundown);
}

NTSTATUS IoAcquireRemoveLock(PIO_REMOVE_LOCK RemoveLock, PVOID) {
  return ExAcquireRundownProtection(&RemoveLock->Rundown) != FALSE ? STATUS_SUCCESS
                                                                   : STATUS_DELETE_PENDING;
}

VOID IoReleaseRemoveLock(PIO_REMOVE_LOCK RemoveLock, PVOID) {
  ExReleaseRundownProtection(&RemoveLock->Rundown);
}

VOID IoReleaseRemoveLockAndWait(PIO_REMOVE_LOCK RemoveLock, PVOID) {
  // Nobody gets it any more before the own one is given back: no other remover can slip in.
  CountOf(&RemoveLock->Rundown).fetch_or(kRunningDown, std::memory_order_acq_rel);
  ExReleaseRundownProtection(&RemoveLock->Rundown);
  ExWaitForRundownProtectionRelease(&RemoveLock->Rundown);
}
