// The thread that runs the control protocol of one endpoint: it waits on descriptors and for tasks, and
// is the only one that touches the endpoint's bus machines and links.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "mutex.h"
#include "result.h"
#include "transport/link.h"

namespace kmcl::endpoint {

class BusThread {
  // Something that waits for its turn.
  struct Queued {
    virtual ~Queued() = default;
    // May end its own life.
    virtual void Run() = 0;
    Queued* next = nullptr;
  };

 public:
  // A task with all the memory that it needs to be posted.
  class Prepared final : Queued {
   public:
    explicit Prepared(std::function<void()> task) : task_(std::move(task)) {}

   private:
    friend class BusThread;
    void Run() override;
    const std::function<void()> task_;
  };

  // kOutOfDescriptors, kOutOfMemory.
  [[nodiscard]] static Result<std::unique_ptr<BusThread>> Create();
  // Runs what was posted, then ends. Not from the thread itself.
  ~BusThread();
  BusThread(const BusThread&) = delete;
  BusThread& operator=(const BusThread&) = delete;

  // Any thread. Tasks run in order. Call waits for the task; on the bus thread it runs at once.
  // The first Post needs memory. The second, and Call, need none, so that an end can be asked for
  // without.
  void Post(std::function<void()> task) KMCL_EXCLUDES(mutex_);
  void Post(std::unique_ptr<Prepared> task) KMCL_EXCLUDES(mutex_);
  template <typename Task>
  void Call(const Task& task) KMCL_EXCLUDES(mutex_) {
    CallBorrowed([](const void* borrowed) { (*static_cast<const Task*>(borrowed))(); }, &task);
  }
  bool IsCurrent() const { return std::this_thread::get_id() == thread_.get_id(); }

  // Only on the bus thread. `on_event` gets epoll events until Unwatch(token); it may unwatch itself.
  using Token = std::uint64_t;
  [[nodiscard]] Result<Token> Watch(int fd, std::uint32_t events,
                                    std::function<void(std::uint32_t)> on_event);
  void SetEvents(Token token, std::uint32_t events);
  void Unwatch(Token token);
  // Only on the bus thread: runs the task on it, not before `delay` from now. What is not due when the
  // thread ends does not run. For what no event tells.
  void PostLater(std::chrono::milliseconds delay, std::function<void()> task);

 private:
  struct Watched {
    int fd = -1;
    std::uint32_t events = 0;
    std::function<void(std::uint32_t)> on_event;
  };

  struct Called;

  BusThread() = default;
  void CallBorrowed(void (*run)(const void*), const void* task) KMCL_EXCLUDES(mutex_);
  void Enqueue(Queued& task) KMCL_EXCLUDES(mutex_);
  void Run();
  void RunTasks() KMCL_EXCLUDES(mutex_);
  int MillisecondsUntilDue() const;
  void RunDue();

  int epoll_ = -1;
  int wake_ = -1;
  Token next_token_ = 1;  // 0 is wake_
  std::map<Token, std::shared_ptr<Watched>> watched_;
  std::multimap<std::chrono::steady_clock::time_point, std::function<void()>> later_;
  Mutex mutex_;
  Queued* first_ KMCL_GUARDED_BY(mutex_) = nullptr;  // to run next
  Queued* last_ KMCL_GUARDED_BY(mutex_) = nullptr;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace kmcl::endpoint
