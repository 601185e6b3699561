#include <kmcl/wdk/work_items.h>
#include <pthread.h>

#include <chrono>
#include <new>

#include "log.h"
#include "mutex.h"
#include "wdk/misuse.h"

struct _IO_WORKITEM {
  PDEVICE_OBJECT device = nullptr;
  PIO_WORKITEM_ROUTINE routine = nullptr;
  PIO_WORKITEM_ROUTINE_EX routine_ex = nullptr;
  PVOID context = nullptr;
  // Guarded by the workers' mutex.
  PIO_WORKITEM next = nullptr;
  bool queued = false;
};

namespace kmcl::wdk {
namespace {

// Threads for work items: another one whenever all are busy. One stays for ever, the others go when
// they have had nothing to do for a while.
class Workers {
 public:
  // Makes sure that there is a thread. False if the system has none.
  bool Start() KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return threads_ > 0 || AddThread();
  }

  void Queue(PIO_WORKITEM item) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    Require(!item->queued, "IoQueueWorkItem", "the work item is queued already");
    item->queued = true;
    item->next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = item;
    last_ = item;
    ++waiting_;
    // Without another thread the item waits for one of those there are.
    if (waiting_ > idle_) AddThread();
    wanted_.NotifyOne();
  }

  bool IsQueued(PIO_WORKITEM item) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return item->queued;
  }

 private:
  static constexpr std::chrono::seconds kPatience{5};

  bool AddThread() KMCL_REQUIRES(mutex_) {
    pthread_t thread{};
    const auto run = [](void* self) -> void* {
      static_cast<Workers*>(self)->Run();
      return nullptr;
    };
    if (pthread_create(&thread, nullptr, run, this) != 0) return false;
    pthread_detach(thread);
    ++threads_;
    return true;
  }

  void Run() KMCL_EXCLUDES(mutex_) {
    while (PIO_WORKITEM item = Take()) {
      // The routine may free the item.
      const _IO_WORKITEM work = *item;
      if (work.routine_ex != nullptr) {
        work.routine_ex(work.device, work.context, item);
      } else {
        work.routine(work.device, work.context);
      }
      Require(KeGetCurrentIrql() == PASSIVE_LEVEL, "a work item's routine",
              "returned at another level than PASSIVE_LEVEL");
    }
  }

  // The next item; nullptr when this thread is not needed any more.
  PIO_WORKITEM Take() KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ++idle_;
    while (first_ == nullptr) {
      const bool woken = wanted_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kPatience);
      if (woken || first_ != nullptr || threads_ == 1) continue;
      --idle_;
      --threads_;
      return nullptr;
    }
    --idle_;
    --waiting_;
    PIO_WORKITEM const item = first_;
    first_ = item->next;
    if (first_ == nullptr) last_ = nullptr;
    item->queued = false;
    return item;
  }

  Mutex mutex_;
  CondVar wanted_;
  PIO_WORKITEM first_ KMCL_GUARDED_BY(mutex_) = nullptr;
  PIO_WORKITEM last_ KMCL_GUARDED_BY(mutex_) = nullptr;
  std::size_t waiting_ KMCL_GUARDED_BY(mutex_) = 0;
  std::size_t idle_ KMCL_GUARDED_BY(mutex_) = 0;
  std::size_t threads_ KMCL_GUARDED_BY(mutex_) = 0;
};

// Never destroyed: its threads run until the process ends.
Workers& TheWorkers() {
  static auto* const workers = new Workers;
  return *workers;
}

void QueueItem(PIO_WORKITEM item, PIO_WORKITEM_ROUTINE routine, PIO_WORKITEM_ROUTINE_EX routine_ex,
               PVOID context) {
  Require(!TheWorkers().IsQueued(item), "IoQueueWorkItem", "the work item is queued already");
  item->routine = routine;
  item->routine_ex = routine_ex;
  item->context = context;
  TheWorkers().Queue(item);
}

}  // namespace
}  // namespace kmcl::wdk

using namespace kmcl::wdk;

PIO_WORKITEM IoAllocateWorkItem(PDEVICE_OBJECT DeviceObject) {
  if (!TheWorkers().Start()) return nullptr;
  auto* const item = new (std::nothrow) _IO_WORKITEM;
  if (item != nullptr) item->device = DeviceObject;
  return item;
}

VOID IoFreeWorkItem(PIO_WORKITEM IoWorkItem) {
  if (IoWorkItem == nullptr) return;
  Require(!TheWorkers().IsQueued(IoWorkItem), "IoFreeWorkItem", "the work item is queued");
  delete IoWorkItem;
}

VOID IoQueueWorkItem(PIO_WORKITEM IoWorkItem, PIO_WORKITEM_ROUTINE WorkerRoutine, WORK_QUEUE_TYPE,
                     PVOID Context) {
  QueueItem(IoWorkItem, WorkerRoutine, nullptr, Context);
}

VOID IoQueueWorkItemEx(PIO_WORKITEM IoWorkItem, PIO_WORKITEM_ROUTINE_EX WorkerRoutine,
                       WORK_QUEUE_TYPE, PVOID Context) {
  QueueItem(IoWorkItem, nullptr, WorkerRoutine, Context);
}
