// The threads that play PASSIVE_LEVEL: they may block for as long as they like, so there is always
// another one. A thread that has found nothing to do for a while goes away.
//
// One more thread does nothing but make them. When the system refuses it one it tries again: the
// threads at work may be waiting for what is queued, so nobody else could.
//
// Work comes in strands. A strand runs its function at least once after each request, and never on two
// threads at a time. Requests allocate nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "log_limit.h"
#include "mutex.h"
#include "result.h"

namespace kmcl::endpoint {

class PassivePool;

class Strand {
 public:
  // `run` is called on a passive thread. `owner` is kept alive from each request until its run ended.
  Strand(PassivePool& pool, std::function<void()> run) : pool_(pool), run_(std::move(run)) {}
  Strand(const Strand&) = delete;
  Strand& operator=(const Strand&) = delete;

  // Any thread.
  void Request(std::shared_ptr<void> owner);

 private:
  friend class PassivePool;
  enum class State : std::uint8_t { kIdle, kQueued, kRunning, kRunningAndRequested };

  PassivePool& pool_;
  const std::function<void()> run_;
  // Guarded by the pool's lock.
  State state_ = State::kIdle;
  Strand* next_ = nullptr;
  std::shared_ptr<void> owner_;
};

class PassivePool {
 public:
  // kOutOfMemory when there is not one thread, or none to make the others.
  [[nodiscard]] static Result<std::unique_ptr<PassivePool>> Create();
  // Waits for what is queued and for what runs. Not from one of its own threads.
  ~PassivePool();
  PassivePool(const PassivePool&) = delete;
  PassivePool& operator=(const PassivePool&) = delete;

 private:
  friend class Strand;
  PassivePool() = default;
  void Run() KMCL_EXCLUDES(mutex_);
  void MakeThreads() KMCL_EXCLUDES(mutex_);
  bool AddThread() KMCL_REQUIRES(mutex_);
  void Enqueue(Strand& strand) KMCL_REQUIRES(mutex_);
  // Each waiting strand gets a thread of its own, as those at work may block on it; but one thread
  // after the other, as those at work mostly come back soon.
  bool LacksThread() const KMCL_REQUIRES(mutex_) {
    return queued_ > idle_threads_ && new_threads_ == 0;
  }

  Mutex mutex_;
  CondVar work_;
  CondVar maker_;
  CondVar gone_;
  Strand* first_ KMCL_GUARDED_BY(mutex_) = nullptr;
  Strand* last_ KMCL_GUARDED_BY(mutex_) = nullptr;
  std::uint32_t queued_ KMCL_GUARDED_BY(mutex_) = 0;
  std::uint32_t threads_ KMCL_GUARDED_BY(mutex_) = 0;
  std::uint32_t idle_threads_ KMCL_GUARDED_BY(mutex_) = 0;
  std::uint32_t new_threads_ KMCL_GUARDED_BY(mutex_) = 0;  // made, and not yet at the queue
  bool has_maker_ KMCL_GUARDED_BY(mutex_) = false;
  LogLimit refused_;
  bool stopping_ KMCL_GUARDED_BY(mutex_) = false;
};

}  // namespace kmcl::endpoint
