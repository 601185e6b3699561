#include <gtest/gtest.h>
#include <kmcl/wdk/events.h>
#include <kmcl/wdk/locks.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace {

constexpr LONGLONG kTicksPerMillisecond = 10'000;

LARGE_INTEGER Ticks(LONGLONG ticks) {
  LARGE_INTEGER value;
  value.QuadPart = ticks;
  return value;
}

NTSTATUS Wait(KEVENT& event, PLARGE_INTEGER timeout = nullptr) {
  return KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, timeout);
}

NTSTATUS Poll(KEVENT& event) {
  LARGE_INTEGER none = Ticks(0);
  return Wait(event, &none);
}

TEST(EventTest, ANotificationEventStaysSignalled) {
  KEVENT event;
  KeInitializeEvent(&event, NotificationEvent, FALSE);
  EXPECT_EQ(Poll(event), STATUS_TIMEOUT);
  EXPECT_EQ(KeSetEvent(&event, IO_NO_INCREMENT, FALSE), 0);
  EXPECT_NE(KeSetEvent(&event, IO_NO_INCREMENT, FALSE), 0);
  EXPECT_EQ(Wait(event), STATUS_SUCCESS);
  EXPECT_EQ(Wait(event), STATUS_SUCCESS);
  EXPECT_NE(KeReadStateEvent(&event), 0);
  EXPECT_NE(KeResetEvent(&event), 0);
  EXPECT_EQ(KeReadStateEvent(&event), 0);
  EXPECT_EQ(Poll(event), STATUS_TIMEOUT);
}

TEST(EventTest, ASynchronizationEventLetsOneThrough) {
  KEVENT event;
  KeInitializeEvent(&event, SynchronizationEvent, TRUE);
  EXPECT_EQ(Wait(event), STATUS_SUCCESS);
  EXPECT_EQ(Poll(event), STATUS_TIMEOUT);
  KeSetEvent(&event, IO_NO_INCREMENT, FALSE);
  KeClearEvent(&event);
  EXPECT_EQ(Poll(event), STATUS_TIMEOUT);
}

TEST(EventTest, ARelativeTimeoutRunsOut) {
  KEVENT event;
  KeInitializeEvent(&event, SynchronizationEvent, FALSE);
  LARGE_INTEGER timeout = Ticks(-20 * kTicksPerMillisecond);
  const ULONGLONG before = KeQueryInterruptTime();
  EXPECT_EQ(Wait(event, &timeout), STATUS_TIMEOUT);
  EXPECT_GE(KeQueryInterruptTime() - before, 19u * kTicksPerMillisecond);
}

TEST(EventTest, AnAbsoluteTimeoutRunsOut) {
  KEVENT event;
  KeInitializeEvent(&event, NotificationEvent, FALSE);
  LARGE_INTEGER timeout;
  KeQuerySystemTime(&timeout);
  timeout.QuadPart += 20 * kTicksPerMillisecond;
  EXPECT_EQ(Wait(event, &timeout), STATUS_TIMEOUT);
  LARGE_INTEGER now;
  KeQuerySystemTime(&now);
  EXPECT_GE(now.QuadPart, timeout.QuadPart);
  LARGE_INTEGER past = Ticks(1);
  EXPECT_EQ(Wait(event, &past), STATUS_TIMEOUT);
}

TEST(EventTest, ANotificationEventWakesEverybody) {
  KEVENT event;
  KeInitializeEvent(&event, NotificationEvent, FALSE);
  std::atomic<int> through{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      EXPECT_EQ(Wait(event), STATUS_SUCCESS);
      ++through;
    });
  }
  KeSetEvent(&event, IO_NO_INCREMENT, FALSE);
  threads.clear();
  EXPECT_EQ(through, 4);
}

TEST(EventTest, EachSignalOfASynchronizationEventIsTakenOnce) {
  KEVENT event;
  KEVENT taken;
  KeInitializeEvent(&event, SynchronizationEvent, FALSE);
  KeInitializeEvent(&taken, SynchronizationEvent, FALSE);
  constexpr int kThreads = 4;
  constexpr int kEach = 500;
  std::atomic<int> through{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) {
        Wait(event);
        ++through;
        KeSetEvent(&taken, IO_NO_INCREMENT, FALSE);
      }
    });
  }
  for (int n = 0; n < kThreads * kEach; ++n) {
    EXPECT_EQ(KeSetEvent(&event, IO_NO_INCREMENT, FALSE), 0);
    Wait(taken);
    EXPECT_EQ(through, n + 1);
  }
}

// The pattern of every synchronous request: the event is on the stack of who waits.
TEST(EventTest, AnEventMayGoOnceTheWaitHasReturned) {
  for (int round = 0; round < 2000; ++round) {
    auto event = std::make_unique<KEVENT>();
    KeInitializeEvent(event.get(), NotificationEvent, FALSE);
    std::jthread other([raw = event.get()] { KeSetEvent(raw, IO_NO_INCREMENT, FALSE); });
    Wait(*event);
    event.reset();
  }
}

TEST(EventDeathTest, WaitingAtDispatchLevelAborts) {
  KEVENT event;
  KeInitializeEvent(&event, NotificationEvent, FALSE);
  KIRQL before = PASSIVE_LEVEL;
  KeRaiseIrql(DISPATCH_LEVEL, &before);
  EXPECT_EQ(Poll(event), STATUS_TIMEOUT);
  EXPECT_DEATH(Wait(event), "DISPATCH_LEVEL");
  LARGE_INTEGER interval = Ticks(-1);
  EXPECT_DEATH(KeDelayExecutionThread(KernelMode, FALSE, &interval), "DISPATCH_LEVEL");
  KeLowerIrql(before);
}

TEST(ClockTest, ADelayTakesItsTime) {
  LARGE_INTEGER frequency;
  const LARGE_INTEGER before = KeQueryPerformanceCounter(&frequency);
  EXPECT_EQ(frequency.QuadPart, 10'000'000);
  LARGE_INTEGER interval = Ticks(-10 * kTicksPerMillisecond);
  EXPECT_EQ(KeDelayExecutionThread(KernelMode, FALSE, &interval), STATUS_SUCCESS);
  const LARGE_INTEGER delayed = KeQueryPerformanceCounter(nullptr);
  EXPECT_GE(delayed.QuadPart - before.QuadPart, 10 * kTicksPerMillisecond);
  KeStallExecutionProcessor(100);
  EXPECT_GE(KeQueryPerformanceCounter(nullptr).QuadPart - delayed.QuadPart, 1000);
}

TEST(ClockTest, SystemTimeCountsFrom1601) {
  LARGE_INTEGER now;
  KeQuerySystemTime(&now);
  constexpr LONGLONG kYear2020 = 132'223'104'000'000'000;
  EXPECT_GT(now.QuadPart, kYear2020);
}

}  // namespace
