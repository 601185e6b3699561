// The thread that runs the control protocol of one endpoint: it waits on descriptors and for tasks, and
// is the only one that touches the endpoint's bus machines and links.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "mutex.h"
#include "result.h"
#include "transport/link.h"

namespace kmcl::endpoint {

class BusThread {
 public:
  // kOutOfDescriptors, kOutOfMemory.
  [[nodiscard]] static Result<std::unique_ptr<BusThread>> Create();
  // Runs what was posted, then ends. Not from the thread itself.
  ~BusThread();
  BusThread(const BusThread&) = delete;
  BusThread& operator=(const BusThread&) = delete;

  // Any thread. Tasks run in order. Call waits for the task; on the bus thread it runs at once.
  void Post(std::function<void()> task) KMCL_EXCLUDES(mutex_);
  void Call(const std::function<void()>& task) KMCL_EXCLUDES(mutex_);
  bool IsCurrent() const { return std::this_thread::get_id() == thread_.get_id(); }

  // Only on the bus thread. `on_event` gets epoll events until Unwatch(token); it may unwatch itself.
  using Token = std::uint64_t;
  [[nodiscard]] Result<Token> Watch(int fd, std::uint32_t events,
                                    std::function<void(std::uint32_t)> on_event);
  void SetEvents(Token token, std::uint32_t events);
  void Unwatch(Token token);

 private:
  struct Watched {
    int fd = -1;
    std::uint32_t events = 0;
    std::function<void(std::uint32_t)> on_event;
  };

  BusThread() = default;
  void Run();
  void RunTasks() KMCL_EXCLUDES(mutex_);

  int epoll_ = -1;
  int wake_ = -1;
  Token next_token_ = 1;  // 0 is wake_
  std::map<Token, std::shared_ptr<Watched>> watched_;
  Mutex mutex_;
  std::vector<std::function<void()>> tasks_ KMCL_GUARDED_BY(mutex_);
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace kmcl::endpoint
