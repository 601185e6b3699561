#include <kmcl/wdk/interlocked.h>
#include <kmcl/wdk/locks.h>

#include <atomic>

#include "wdk/irql.h"
#include "wdk/misuse.h"
#include "wdk/signal_word.h"

using namespace kmcl::wdk;

namespace {

// ---- Spin locks. All zeroes is free, as under Windows.

constexpr std::uint32_t kFree = 0;
constexpr std::uint32_t kHeld = 1;
constexpr std::uint32_t kHeldAndAwaited = 2;
constexpr int kSpins = 1000;

std::uint32_t& WordOf(PKSPIN_LOCK lock) {
  return *reinterpret_cast<std::uint32_t*>(lock);  // the lower half
}

bool TryAcquire(PKSPIN_LOCK lock) {
  std::uint32_t expected = kFree;
  return std::atomic_ref(WordOf(lock))
      .compare_exchange_strong(expected, kHeld, std::memory_order_acquire,
                               std::memory_order_relaxed);
}

void Acquire(PKSPIN_LOCK lock) {
  const std::atomic_ref word(WordOf(lock));
  for (int spins = kSpins; spins > 0; --spins) {
    if (word.load(std::memory_order_relaxed) == kFree && TryAcquire(lock)) return;
    YieldProcessor();
  }
  while (word.exchange(kHeldAndAwaited, std::memory_order_acquire) != kFree) {
    SleepWhile(WordOf(lock), kHeldAndAwaited, std::nullopt);
  }
}

void Release(PKSPIN_LOCK lock, const char* function) {
  Require(current_irql == DISPATCH_LEVEL, function,
          "the holder of a spin lock is at DISPATCH_LEVEL");
  const std::uint32_t before =
      std::atomic_ref(WordOf(lock)).exchange(kFree, std::memory_order_release);
  Require(before != kFree, function, "nobody holds this spin lock");
  if (before == kHeldAndAwaited) WakeOne(WordOf(lock));
}

KIRQL Raise(const char* function) {
  Require(current_irql <= DISPATCH_LEVEL, function, "above DISPATCH_LEVEL");
  const KIRQL before = current_irql;
  current_irql = DISPATCH_LEVEL;
  return before;
}

void RequireDispatchLevel(const char* function) {
  Require(current_irql == DISPATCH_LEVEL, function, "only at DISPATCH_LEVEL");
}

// ---- Fast mutexes.

std::uint32_t& WordOf(PFAST_MUTEX mutex) { return reinterpret_cast<std::uint32_t&>(mutex->Count); }

// Something that this thread has and no other.
PVOID Self() {
  static thread_local char self;
  return &self;
}

std::atomic_ref<PVOID> OwnerOf(PFAST_MUTEX mutex) { return std::atomic_ref<PVOID>(mutex->Owner); }

void RequireMayWait(PFAST_MUTEX mutex, const char* function) {
  Require(current_irql < DISPATCH_LEVEL, function, "must not wait at DISPATCH_LEVEL");
  Require(OwnerOf(mutex).load(std::memory_order_relaxed) != Self(), function,
          "this thread holds the mutex already");
}

void Own(PFAST_MUTEX mutex) { OwnerOf(mutex).store(Self(), std::memory_order_relaxed); }

void Disown(PFAST_MUTEX mutex, const char* function) {
  Require(OwnerOf(mutex).load(std::memory_order_relaxed) == Self(), function,
          "this thread does not hold the mutex");
  OwnerOf(mutex).store(nullptr, std::memory_order_relaxed);
}

}  // namespace

VOID KeInitializeSpinLock(PKSPIN_LOCK SpinLock) { *SpinLock = 0; }

VOID KeAcquireSpinLock(PKSPIN_LOCK SpinLock, PKIRQL OldIrql) {
  *OldIrql = KeAcquireSpinLockRaiseToDpc(SpinLock);
}

KIRQL KeAcquireSpinLockRaiseToDpc(PKSPIN_LOCK SpinLock) {
  const KIRQL before = Raise("KeAcquireSpinLock");
  Acquire(SpinLock);
  return before;
}

VOID KeReleaseSpinLock(PKSPIN_LOCK SpinLock, KIRQL NewIrql) {
  Release(SpinLock, "KeReleaseSpinLock");
  KeLowerIrql(NewIrql);
}

VOID KeAcquireSpinLockAtDpcLevel(PKSPIN_LOCK SpinLock) {
  RequireDispatchLevel("KeAcquireSpinLockAtDpcLevel");
  Acquire(SpinLock);
}

BOOLEAN KeTryToAcquireSpinLockAtDpcLevel(PKSPIN_LOCK SpinLock) {
  RequireDispatchLevel("KeTryToAcquireSpinLockAtDpcLevel");
  return TryAcquire(SpinLock);
}

VOID KeReleaseSpinLockFromDpcLevel(PKSPIN_LOCK SpinLock) {
  Release(SpinLock, "KeReleaseSpinLockFromDpcLevel");
}

BOOLEAN KeTestSpinLock(PKSPIN_LOCK SpinLock) {
  return std::atomic_ref(WordOf(SpinLock)).load(std::memory_order_relaxed) == kFree;
}

VOID KeAcquireInStackQueuedSpinLock(PKSPIN_LOCK SpinLock, PKLOCK_QUEUE_HANDLE LockHandle) {
  LockHandle->Lock = SpinLock;
  LockHandle->OldIrql = KeAcquireSpinLockRaiseToDpc(SpinLock);
}

VOID KeReleaseInStackQueuedSpinLock(PKLOCK_QUEUE_HANDLE LockHandle) {
  KeReleaseSpinLock(LockHandle->Lock, LockHandle->OldIrql);
}

VOID KeAcquireInStackQueuedSpinLockAtDpcLevel(PKSPIN_LOCK SpinLock,
                                              PKLOCK_QUEUE_HANDLE LockHandle) {
  LockHandle->Lock = SpinLock;
  LockHandle->OldIrql = DISPATCH_LEVEL;
  KeAcquireSpinLockAtDpcLevel(SpinLock);
}

VOID KeReleaseInStackQueuedSpinLockFromDpcLevel(PKLOCK_QUEUE_HANDLE LockHandle) {
  KeReleaseSpinLockFromDpcLevel(LockHandle->Lock);
}

VOID ExInitializeFastMutex(PFAST_MUTEX FastMutex) {
  *FastMutex = FAST_MUTEX{};
  FastMutex->Count = kSignalled;
}

VOID ExAcquireFastMutex(PFAST_MUTEX FastMutex) {
  RequireMayWait(FastMutex, "ExAcquireFastMutex");
  KIRQL before = PASSIVE_LEVEL;
  KeRaiseIrql(APC_LEVEL, &before);
  WaitAndTake(WordOf(FastMutex), std::nullopt);
  Own(FastMutex);
  FastMutex->OldIrql = before;
}

BOOLEAN ExTryToAcquireFastMutex(PFAST_MUTEX FastMutex) {
  Require(current_irql < DISPATCH_LEVEL, "ExTryToAcquireFastMutex", "at DISPATCH_LEVEL");
  if (!TryTake(WordOf(FastMutex))) return FALSE;
  KIRQL before = PASSIVE_LEVEL;
  KeRaiseIrql(APC_LEVEL, &before);
  Own(FastMutex);
  FastMutex->OldIrql = before;
  return TRUE;
}

VOID ExReleaseFastMutex(PFAST_MUTEX FastMutex) {
  Disown(FastMutex, "ExReleaseFastMutex");
  const auto before = static_cast<KIRQL>(FastMutex->OldIrql);
  SignalOne(WordOf(FastMutex));
  KeLowerIrql(before);
}

VOID ExAcquireFastMutexUnsafe(PFAST_MUTEX FastMutex) {
  RequireMayWait(FastMutex, "ExAcquireFastMutexUnsafe");
  WaitAndTake(WordOf(FastMutex), std::nullopt);
  Own(FastMutex);
}

VOID ExReleaseFastMutexUnsafe(PFAST_MUTEX FastMutex) {
  Disown(FastMutex, "ExReleaseFastMutexUnsafe");
  SignalOne(WordOf(FastMutex));
}
