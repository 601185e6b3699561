#include "endpoint/bus_thread.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>

#include "log.h"

namespace kmcl::endpoint {

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
  } catch (const std::system_error&) {
    return std::unexpected(Error::kOutOfMemory);
  }
  return bus;
}

BusThread::~BusThread() {
  if (thread_.joinable()) {
    Post([this] { stopping_ = true; });
    thread_.join();
  }
  if (wake_ >= 0) close(wake_);
  if (epoll_ >= 0) close(epoll_);
}

void BusThread::Post(std::function<void()> task) {
  bool wake = false;
  {
    MutexLock lock(mutex_);
    wake = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (wake) {
    const std::uint64_t one = 1;
    // Cannot fail: our own descriptor, and the counter is far from its end.
    KMCL_CHECK(write(wake_, &one, sizeof one) == sizeof one);
  }
}

void BusThread::Call(const std::function<void()>& task) {
  if (IsCurrent()) return task();
  Mutex done_mutex;
  CondVar done_changed;
  bool done = false;
  Post([&] {
    task();
    MutexLock lock(done_mutex);
    done = true;
    done_changed.NotifyAll();
  });
  MutexLock lock(done_mutex);
  while (!done) done_changed.Wait(done_mutex);
}

Result<BusThread::Token> BusThread::Watch(int fd, std::uint32_t events,
                                          std::function<void(std::uint32_t)> on_event) {
  const Token token = next_token_++;
  epoll_event event{.events = events, .data = {.u64 = token}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    Log(LogLevel::kError, "cannot wait on a descriptor: %s", strerror(errno));
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

void BusThread::RunTasks() {
  std::uint64_t count = 0;
  // The counter is cleared before the tasks are taken, so none is left behind without a wake-up.
  if (read(wake_, &count, sizeof count) < 0 && errno != EAGAIN) {
    Log(LogLevel::kError, "cannot read the bus thread's own bell: %s", strerror(errno));
  }
  std::vector<std::function<void()>> tasks;
  {
    MutexLock lock(mutex_);
    tasks.swap(tasks_);
  }
  for (auto& task : tasks) task();
}

void BusThread::Run() {
  epoll_event events[64];
  while (!stopping_) {
    const int count = epoll_wait(epoll_, events, 64, -1);
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
  }
  RunTasks();
}

}  // namespace kmcl::endpoint
