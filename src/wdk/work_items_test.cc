#include <gtest/gtest.h>
#include <kmcl/wdk/events.h>
#include <kmcl/wdk/work_items.h>
#include <pthread.h>

namespace {

struct Work {
  KEVENT done;
  KEVENT go;
  PDEVICE_OBJECT device = nullptr;
  PIO_WORKITEM item = nullptr;
  KIRQL level = DISPATCH_LEVEL;
  pthread_t thread{};
  int runs = 0;

  Work() {
    KeInitializeEvent(&done, SynchronizationEvent, FALSE);
    KeInitializeEvent(&go, SynchronizationEvent, FALSE);
  }
};

void Wait(KEVENT& event) { KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, nullptr); }

VOID Note(PDEVICE_OBJECT device, PVOID context) {
  Work& work = *static_cast<Work*>(context);
  work.device = device;
  work.level = KeGetCurrentIrql();
  work.thread = pthread_self();
  KeSetEvent(&work.done, IO_NO_INCREMENT, FALSE);
}

VOID WaitForGo(PDEVICE_OBJECT, PVOID context) {
  Work& work = *static_cast<Work*>(context);
  Wait(work.go);
  KeSetEvent(&work.done, IO_NO_INCREMENT, FALSE);
}

VOID AgainThenFree(PVOID object, PVOID context, PIO_WORKITEM item) {
  Work& work = *static_cast<Work*>(context);
  EXPECT_EQ(object, work.device);
  EXPECT_EQ(item, work.item);
  if (++work.runs < 3) {
    IoQueueWorkItemEx(item, AgainThenFree, DelayedWorkQueue, context);
    return;
  }
  IoFreeWorkItem(item);
  KeSetEvent(&work.done, IO_NO_INCREMENT, FALSE);
}

TEST(WorkItemTest, TheRoutineRunsAtPassiveLevelOnAnotherThread) {
  DEVICE_OBJECT device{};
  Work work;
  const PIO_WORKITEM item = IoAllocateWorkItem(&device);
  ASSERT_NE(item, nullptr);
  KIRQL before = PASSIVE_LEVEL;
  KeRaiseIrql(DISPATCH_LEVEL, &before);
  IoQueueWorkItem(item, Note, DelayedWorkQueue, &work);
  KeLowerIrql(before);
  Wait(work.done);
  EXPECT_EQ(work.device, &device);
  EXPECT_EQ(work.level, PASSIVE_LEVEL);
  EXPECT_EQ(pthread_equal(work.thread, pthread_self()), 0);
  IoFreeWorkItem(item);
}

TEST(WorkItemTest, ARoutineThatBlocksHoldsUpNobody) {
  constexpr int kBlocked = 10;
  Work blocked[kBlocked];
  PIO_WORKITEM items[kBlocked];
  for (int i = 0; i < kBlocked; ++i) {
    items[i] = IoAllocateWorkItem(nullptr);
    IoQueueWorkItem(items[i], WaitForGo, DelayedWorkQueue, &blocked[i]);
  }
  Work free;
  const PIO_WORKITEM item = IoAllocateWorkItem(nullptr);
  IoQueueWorkItem(item, Note, DelayedWorkQueue, &free);
  Wait(free.done);
  for (int i = 0; i < kBlocked; ++i) {
    KeSetEvent(&blocked[i].go, IO_NO_INCREMENT, FALSE);
    Wait(blocked[i].done);
    IoFreeWorkItem(items[i]);
  }
  IoFreeWorkItem(item);
}

TEST(WorkItemTest, TheRoutineMayQueueTheItemAgainAndFreeIt) {
  DEVICE_OBJECT device{};
  Work work;
  work.device = &device;
  work.item = IoAllocateWorkItem(&device);
  IoQueueWorkItemEx(work.item, AgainThenFree, CriticalWorkQueue, &work);
  Wait(work.done);
  EXPECT_EQ(work.runs, 3);
}

}  // namespace
