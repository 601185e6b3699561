#include "mutex.h"

#include <errno.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace kmcl {
namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

template <typename Body>
void InThreads(int count, Body body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

TEST(Mutex, IsOneWordAndACondVarTwo) {
  EXPECT_EQ(sizeof(Mutex), 4u);
  EXPECT_EQ(sizeof(CondVar), 8u);
}

TEST(Mutex, HeldItIsRefusedAndFreeItIsTaken) {
  Mutex mutex;
  if (!mutex.TryLock()) FAIL();
  InThreads(1, [&](int) {
    const bool locked = mutex.TryLock();
    EXPECT_FALSE(locked);
    if (locked) mutex.Unlock();
  });
  mutex.Unlock();
  InThreads(1, [&](int) {
    const bool locked = mutex.TryLock();
    EXPECT_TRUE(locked);
    if (locked) mutex.Unlock();
  });
}

// More threads than processors, so that some are preempted while they hold it and others sleep.
TEST(Mutex, OneThreadAtATimeIsInside) {
  constexpr int kTimes = 5000;
  struct {
    Mutex mutex;
    int inside KMCL_GUARDED_BY(mutex) = 0;
    int count KMCL_GUARDED_BY(mutex) = 0;
  } shared;
  InThreads(8, [&](int number) {
    for (int i = 0; i < kTimes; ++i) {
      MutexLock lock(shared.mutex);
      ASSERT_EQ(++shared.inside, 1);
      ++shared.count;
      if (i % 64 == number) std::this_thread::yield();  // the others run into it
      --shared.inside;
    }
  });
  MutexLock lock(shared.mutex);
  EXPECT_EQ(shared.count, 8 * kTimes);
}

TEST(Mutex, AWaiterLeavesErrnoAlone) {
  Mutex mutex;
  CondVar changed;
  mutex.Lock();
  std::thread other([&] {
    errno = EXDEV;
    MutexLock lock(mutex);
    EXPECT_EQ(errno, EXDEV);
    changed.WaitUntil(mutex, steady_clock::now());
    EXPECT_EQ(errno, EXDEV);
  });
  std::this_thread::yield();
  mutex.Unlock();
  other.join();
}

// Two threads that each wait for the other: a wake-up that is lost hangs them.
void HandToAndFro(bool notify_inside) {
  constexpr int kTurns = 4000;
  struct {
    Mutex mutex;
    CondVar changed;
    int turn KMCL_GUARDED_BY(mutex) = 0;
  } shared;
  InThreads(2, [&](int number) {
    for (int i = 0; i < kTurns; ++i) {
      {
        MutexLock lock(shared.mutex);
        while (shared.turn % 2 != number) shared.changed.Wait(shared.mutex);
        ++shared.turn;
        if (notify_inside) shared.changed.NotifyOne();
      }
      if (!notify_inside) shared.changed.NotifyOne();
    }
  });
  MutexLock lock(shared.mutex);
  EXPECT_EQ(shared.turn, 2 * kTurns);
}

TEST(CondVar, WakesWhoWaitsWhileTheMutexIsHeld) { HandToAndFro(true); }

TEST(CondVar, WakesWhoWaitsAfterTheMutexWasLeft) { HandToAndFro(false); }

// A place for one thing, several who put and several who take: each notification wakes one, and
// whoever is woken for nothing waits again.
TEST(CondVar, NothingIsLostBetweenManyWhoPutAndMany) {
  constexpr int kThings = 2000;
  struct {
    Mutex mutex;
    CondVar filled;
    CondVar emptied;
    int thing KMCL_GUARDED_BY(mutex) = 0;  // 0: the place is empty
    std::int64_t sum KMCL_GUARDED_BY(mutex) = 0;
  } shared;
  InThreads(6, [&](int number) {
    for (int i = 1; i <= kThings; ++i) {
      MutexLock lock(shared.mutex);
      if (number % 2 == 0) {
        while (shared.thing != 0) shared.emptied.Wait(shared.mutex);
        shared.thing = i;
        shared.filled.NotifyOne();
      } else {
        while (shared.thing == 0) shared.filled.Wait(shared.mutex);
        shared.sum += std::exchange(shared.thing, 0);
        shared.emptied.NotifyOne();
      }
    }
  });
  MutexLock lock(shared.mutex);
  EXPECT_EQ(shared.sum, std::int64_t{3} * kThings * (kThings + 1) / 2);
}

TEST(CondVar, NotifyAllWakesAll) {
  constexpr int kRounds = 300;
  struct {
    Mutex mutex;
    CondVar begun;
    CondVar ended;
    int round KMCL_GUARDED_BY(mutex) = 0;
    int answers KMCL_GUARDED_BY(mutex) = 0;
  } shared;
  InThreads(5, [&](int number) {
    for (int round = 1; round <= kRounds; ++round) {
      MutexLock lock(shared.mutex);
      if (number == 0) {
        shared.round = round;
        shared.begun.NotifyAll();
        while (shared.answers != 4 * round) shared.ended.Wait(shared.mutex);
      } else {
        while (shared.round < round) shared.begun.Wait(shared.mutex);
        if (++shared.answers == 4 * round) shared.ended.NotifyOne();
      }
    }
  });
  MutexLock lock(shared.mutex);
  EXPECT_EQ(shared.answers, 4 * kRounds);
}

TEST(CondVar, ADeadlineThatHasPassedIsNotWaitedFor) {
  Mutex mutex;
  CondVar changed;
  MutexLock lock(mutex);
  EXPECT_FALSE(changed.WaitUntil(mutex, steady_clock::now() - 1s));
  EXPECT_FALSE(changed.WaitUntil(mutex, steady_clock::time_point{}));
  EXPECT_FALSE(changed.WaitUntil(mutex, steady_clock::time_point::min()));
}

TEST(CondVar, ADeadlineEndsTheWaitAndNotBefore) {
  Mutex mutex;
  CondVar changed;
  MutexLock lock(mutex);
  const auto deadline = steady_clock::now() + 3ms;
  while (changed.WaitUntil(mutex, deadline)) {
  }
  EXPECT_GE(steady_clock::now(), deadline);
}

TEST(CondVar, ANotificationEndsAWaitWhoseDeadlineIsFar) {
  struct {
    Mutex mutex;
    CondVar changed;
    bool done KMCL_GUARDED_BY(mutex) = false;
  } shared;
  std::thread other([&] {
    MutexLock lock(shared.mutex);
    shared.done = true;
    shared.changed.NotifyAll();
  });
  {
    MutexLock lock(shared.mutex);
    while (!shared.done) {
      EXPECT_TRUE(shared.changed.WaitUntil(shared.mutex, steady_clock::time_point::max()));
    }
  }
  other.join();
}

// A waiter may destroy both as soon as it has seen the change: whoever made it must be done with
// them.
TEST(CondVar, MayBeDestroyedByWhoeverWasWoken) {
  struct Wait {
    Mutex mutex;
    CondVar changed;
    bool done KMCL_GUARDED_BY(mutex) = false;
  };
  constexpr int kTimes = 2000;
  std::vector<std::unique_ptr<Wait>> waits(kTimes);
  for (auto& wait : waits) wait = std::make_unique<Wait>();
  std::thread other([raw = [&] {
    std::vector<Wait*> all;
    for (auto& wait : waits) all.push_back(wait.get());
    return all;
  }()] {
    for (Wait* wait : raw) {
      MutexLock lock(wait->mutex);
      wait->done = true;
      wait->changed.NotifyAll();
    }
  });
  for (auto& wait : waits) {
    {
      MutexLock lock(wait->mutex);
      while (!wait->done) wait->changed.Wait(wait->mutex);
    }
    wait.reset();
  }
  other.join();
}

}  // namespace
}  // namespace kmcl
