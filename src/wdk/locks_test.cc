#include <gtest/gtest.h>
#include <kmcl/wdk/interlocked.h>
#include <kmcl/wdk/locks.h>

#include <atomic>
#include <thread>
#include <vector>

namespace {

void InThreads(int count, const auto& body) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(body);
}

TEST(SpinLockTest, TheHolderIsAtDispatchLevel) {
  KSPIN_LOCK lock;
  KeInitializeSpinLock(&lock);
  KIRQL before = DISPATCH_LEVEL;
  EXPECT_NE(KeTestSpinLock(&lock), FALSE);
  KeAcquireSpinLock(&lock, &before);
  EXPECT_EQ(before, PASSIVE_LEVEL);
  EXPECT_EQ(KeGetCurrentIrql(), DISPATCH_LEVEL);
  EXPECT_EQ(KeTestSpinLock(&lock), FALSE);
  EXPECT_EQ(KeTryToAcquireSpinLockAtDpcLevel(&lock), FALSE);
  KeReleaseSpinLock(&lock, before);
  EXPECT_EQ(KeGetCurrentIrql(), PASSIVE_LEVEL);
  EXPECT_NE(KeTestSpinLock(&lock), FALSE);

  KLOCK_QUEUE_HANDLE handle;
  KeAcquireInStackQueuedSpinLock(&lock, &handle);
  EXPECT_EQ(KeGetCurrentIrql(), DISPATCH_LEVEL);
  KeReleaseInStackQueuedSpinLock(&handle);
  EXPECT_EQ(KeGetCurrentIrql(), PASSIVE_LEVEL);
}

TEST(SpinLockTest, OneThreadAtATimeHoldsIt) {
  KSPIN_LOCK lock = 0;
  int count = 0;
  constexpr int kEach = 20'000;
  InThreads(4, [&] {
    for (int i = 0; i < kEach; ++i) {
      KIRQL before = PASSIVE_LEVEL;
      KeAcquireSpinLock(&lock, &before);
      ++count;
      KeReleaseSpinLock(&lock, before);
    }
  });
  EXPECT_EQ(count, 4 * kEach);
}

TEST(SpinLockDeathTest, WrongLevelsAndStrayReleasesAbort) {
  KSPIN_LOCK lock = 0;
  EXPECT_DEATH(KeAcquireSpinLockAtDpcLevel(&lock), "only at DISPATCH_LEVEL");
  EXPECT_DEATH(KeReleaseSpinLock(&lock, PASSIVE_LEVEL), "DISPATCH_LEVEL");
  KIRQL before = PASSIVE_LEVEL;
  KeRaiseIrql(DISPATCH_LEVEL, &before);
  EXPECT_DEATH(KeReleaseSpinLockFromDpcLevel(&lock), "nobody holds");
  KeLowerIrql(before);
}

TEST(FastMutexTest, TheHolderIsAtApcLevel) {
  FAST_MUTEX mutex;
  ExInitializeFastMutex(&mutex);
  ExAcquireFastMutex(&mutex);
  EXPECT_EQ(KeGetCurrentIrql(), APC_LEVEL);
  InThreads(1, [&] { EXPECT_EQ(ExTryToAcquireFastMutex(&mutex), FALSE); });
  ExReleaseFastMutex(&mutex);
  EXPECT_EQ(KeGetCurrentIrql(), PASSIVE_LEVEL);
  EXPECT_NE(ExTryToAcquireFastMutex(&mutex), FALSE);
  EXPECT_EQ(KeGetCurrentIrql(), APC_LEVEL);
  ExReleaseFastMutex(&mutex);
  ExAcquireFastMutexUnsafe(&mutex);
  EXPECT_EQ(KeGetCurrentIrql(), PASSIVE_LEVEL);
  ExReleaseFastMutexUnsafe(&mutex);
}

TEST(FastMutexTest, OneThreadAtATimeHoldsIt) {
  FAST_MUTEX mutex;
  ExInitializeFastMutex(&mutex);
  int count = 0;
  constexpr int kEach = 5'000;
  InThreads(4, [&] {
    for (int i = 0; i < kEach; ++i) {
      ExAcquireFastMutex(&mutex);
      ++count;
      ExReleaseFastMutex(&mutex);
    }
  });
  EXPECT_EQ(count, 4 * kEach);
}

TEST(FastMutexDeathTest, MisuseAborts) {
  FAST_MUTEX mutex;
  ExInitializeFastMutex(&mutex);
  EXPECT_DEATH(ExReleaseFastMutex(&mutex), "does not hold");
  ExAcquireFastMutex(&mutex);
  EXPECT_DEATH(ExAcquireFastMutex(&mutex), "holds the mutex already");
  ExReleaseFastMutex(&mutex);
  KIRQL before = PASSIVE_LEVEL;
  KeRaiseIrql(DISPATCH_LEVEL, &before);
  EXPECT_DEATH(ExAcquireFastMutex(&mutex), "DISPATCH_LEVEL");
  KeLowerIrql(before);
}

TEST(RundownTest, NobodyGetsItOnceTheWaitHasBegun) {
  EX_RUNDOWN_REF rundown;
  ExInitializeRundownProtection(&rundown);
  ASSERT_NE(ExAcquireRundownProtection(&rundown), FALSE);
  ASSERT_NE(ExAcquireRundownProtectionEx(&rundown, 2), FALSE);
  std::atomic<bool> over{false};
  {
    std::jthread waiter([&] {
      ExWaitForRundownProtectionRelease(&rundown);
      over = true;
    });
    while (ExAcquireRundownProtection(&rundown) != FALSE) {
      ExReleaseRundownProtection(&rundown);
      std::this_thread::yield();
    }
    EXPECT_FALSE(over);
    ExReleaseRundownProtectionEx(&rundown, 2);
    EXPECT_FALSE(over);
    ExReleaseRundownProtection(&rundown);
  }
  EXPECT_TRUE(over);
  EXPECT_EQ(ExAcquireRundownProtection(&rundown), FALSE);
  ExReInitializeRundownProtection(&rundown);
  EXPECT_NE(ExAcquireRundownProtection(&rundown), FALSE);
  ExReleaseRundownProtection(&rundown);
  ExRundownCompleted(&rundown);
  EXPECT_EQ(ExAcquireRundownProtection(&rundown), FALSE);
}

TEST(RundownDeathTest, ReleasingMoreThanAcquiredAborts) {
  EX_RUNDOWN_REF rundown;
  ExInitializeRundownProtection(&rundown);
  EXPECT_DEATH(ExReleaseRundownProtection(&rundown), "released more");
}

TEST(RemoveLockTest, TheLastReleaseWaitsForTheOthers) {
  IO_REMOVE_LOCK lock;
  IoInitializeRemoveLock(&lock, 0x6c636d4b, 0, 0);
  ASSERT_EQ(IoAcquireRemoveLock(&lock, nullptr), STATUS_SUCCESS);
  ASSERT_EQ(IoAcquireRemoveLock(&lock, &lock), STATUS_SUCCESS);
  std::jthread other([&] {
    while (IoAcquireRemoveLock(&lock, &other) == STATUS_SUCCESS) IoReleaseRemoveLock(&lock, &other);
    IoReleaseRemoveLock(&lock, &lock);
  });
  IoReleaseRemoveLockAndWait(&lock, nullptr);
  EXPECT_EQ(IoAcquireRemoveLock(&lock, nullptr), STATUS_DELETE_PENDING);
}

TEST(InterlockedTest, OperationsReturnWhatTheyReturnOnWindows) {
  LONG value = 5;
  EXPECT_EQ(InterlockedIncrement(&value), 6);
  EXPECT_EQ(InterlockedDecrement(&value), 5);
  EXPECT_EQ(InterlockedExchangeAdd(&value, 10), 5);
  EXPECT_EQ(InterlockedAdd(&value, 1), 16);
  EXPECT_EQ(InterlockedExchange(&value, 7), 16);
  EXPECT_EQ(InterlockedCompareExchange(&value, 1, 9), 7);
  EXPECT_EQ(value, 7);
  EXPECT_EQ(InterlockedCompareExchange(&value, 1, 7), 7);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(InterlockedOr(&value, 6), 1);
  EXPECT_EQ(InterlockedAnd(&value, 3), 7);
  EXPECT_EQ(InterlockedXor(&value, 1), 3);
  EXPECT_EQ(value, 2);
  LONG64 wide = 1LL << 40;
  EXPECT_EQ(InterlockedIncrement64(&wide), (1LL << 40) + 1);
  LONG bits[2] = {0, 0};
  EXPECT_EQ(InterlockedBitTestAndSet(bits, 33), FALSE);
  EXPECT_NE(InterlockedBitTestAndSet(bits, 33), FALSE);
  EXPECT_EQ(bits[1], 2);
  EXPECT_NE(InterlockedBitTestAndReset(bits, 33), FALSE);
  EXPECT_EQ(bits[1], 0);
  PVOID pointer = &value;
  EXPECT_EQ(InterlockedCompareExchangePointer(&pointer, nullptr, &value), &value);
  EXPECT_EQ(InterlockedExchangePointer(&pointer, bits), nullptr);
  EXPECT_EQ(pointer, bits);
}

}  // namespace
