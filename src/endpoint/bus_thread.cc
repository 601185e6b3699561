#include "endpoint/bus_thread.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "errno_text.h"
#include "log.h"

namespace kmcl::endpoint {

// It owns itself until it has run.
void BusThread::Prepared::Run() {
  const std::unique_ptr<Prepared> self(this);
  task_();
}

// Its caller's, who waits.
struct BusThread::Called final : Queued {
  Called(void (*run)(const void*), const void* wanted) : run_task(run), task(wanted) {}
  void Run() override {
    run_task(task);
    MutexLock lock(mutex);
    done = true;
    changed.NotifyAll();
  }
  void (*const run_task)(const void*);
  const void* const task;
  Mutex mutex;
  CondVar changed;
  bool done KMCL_GUARDED_BY(mutex) = false;
};

Result<std::unique_ptr<BusThread>> BusThread::Create() {
  std::unique_ptr<BusThread> bus(new BusThread);
  bus->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  bus->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bus->epoll_ < 0 || bus->wake_ < 0) return std::unexpected(Error::kOutOfDescriptors);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  if (epoll_ctl(bus->epoll_, EPOLL_CTL_ADD, bus->wake_, &event) != 0) {
    return std::unexpected(Error::kOutOfMemory);
  }
  try {
    bus->thread_ = std::thread([raw = bus.get()] { raw->Run(); });
  } catch (const std::exception&) {
    return std::unexpected(Error::kOutOfMemory);
  }
  return bus;
}

BusThread::~BusThread() {
  if (thread_.joinable()) {
    Call([this] { stopping_ = true; });
    thread_.join();
  }
  // What was posted by the last tasks.
  MutexLock lock(mutex_);
  while (first_ != nullptr) delete std::exchange(first_, first_->next);
  if (wake_ >= 0) close(wake_);
  if (epoll_ >= 0) close(epoll_);
}

void BusThread::Post(std::function<void()> task) {
  Post(std::make_unique<Prepared>(std::move(task)));
}

void BusThread::Post(std::unique_ptr<Prepared> task) { Enqueue(*task.release()); }

void BusThread::Enqueue(Queued& task) {
  bool wake = false;
  {
    MutexLock lock(mutex_);
    wake = first_ == nullptr;
    (wake ? first_ : last_->next) = &task;
    last_ = &task;
  }
  if (wake) {
    const std::uint64_t one = 1;
    // Cannot fail: our own descriptor, and the counter is far from its end.
    KMCL_CHECK(write(wake_, &one, sizeof one) == sizeof one);
  }
}

void BusThread::CallBorrowed(void (*run)(const void*), const void* task) {
  if (IsCurrent()) return run(task);
  Called called(run, task);
  Enqueue(called);
  MutexLock lock(called.mutex);
  while (!called.done) called.changed.Wait(called.mutex);
}

Result<BusThread::Token> BusThread::Watch(int fd, std::uint32_t events,
                                          std::function<void(std::uint32_t)> on_event) {
  const Token token = next_token_++;
  epoll_event event{.events = events, .data = {.u64 = token}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    Log(LogLevel::kError, "cannot wait on a descriptor: %s", ErrnoText(errno).words());
    return std::unexpected(Error::kOutOfMemory);
  }
  watched_[token] = std::make_shared<Watched>(fd, events, std::move(on_event));
  return token;
}

void BusThread::SetEvents(Token token, std::uint32_t events) {
  const auto found = watched_.find(token);
  if (found == watched_.end() || found->second->events == events) return;
  found->second->events = events;
  epoll_event event{.events = events, .data = {.u64 = token}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, found->second->fd, &event);
}

void BusThread::Unwatch(Token token) {
  const auto found = watched_.find(token);
  if (found == watched_.end()) return;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, found->second->fd, nullptr);
  watched_.erase(found);
}

void BusThread::PostLater(std::chrono::milliseconds delay, std::function<void()> task) {
  later_.emplace(std::chrono::steady_clock::now() + delay, std::move(task));
}

int BusThread::MillisecondsUntilDue() const {
  if (later_.empty()) return -1;
  const auto left = later_.begin()->first - std::chrono::steady_clock::now();
  const auto rounded_up = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<std::int64_t>(rounded_up, 0, INT_MAX));
}

void BusThread::RunDue() {
  if (later_.empty()) return;
  const auto now = std::chrono::steady_clock::now();
  while (!later_.empty() && later_.begin()->first <= now) {
    const auto due = later_.extract(later_.begin());  // it may post another
    due.mapped()();
  }
}

void BusThread::RunTasks() {
  std::uint64_t count = 0;
  // The counter is cleared before the tasks are taken, so none is left behind without a wake-up.
  if (read(wake_, &count, sizeof count) < 0 && errno != EAGAIN) {
    Log(LogLevel::kError, "cannot read the bus thread's own bell: %s", ErrnoText(errno).words());
  }
  Queued* next = nullptr;
  {
    MutexLock lock(mutex_);
    next = std::exchange(first_, nullptr);
  }
  while (next != nullptr) std::exchange(next, next->next)->Run();
}

void BusThread::Run() {
  epoll_event events[64];
  while (!stopping_) {
    const int count = epoll_wait(epoll_, events, 64, MillisecondsUntilDue());
    if (count < 0) {
      KMCL_CHECK(errno == EINTR);
      continue;
    }
    for (int i = 0; i < count; ++i) {
      const std::uint64_t token = events[i].data.u64;  // copied: it is not aligned there
      if (token == 0) {
        RunTasks();
        continue;
      }
      // Unwatched by an event before it in the same round: gone from the map.
      const auto found = watched_.find(token);
      if (found == watched_.end()) continue;
      const auto watched = found->second;  // it may unwatch itself
      watched->on_event(events[i].events);
    }
    RunDue();
  }
  RunTasks();
}

}  // namespace kmcl::endpoint
