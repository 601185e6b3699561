// The threads that play PASSIVE_LEVEL: they may block for as long as they like, so there is always
// another one. A thread that has found nothing to do for a while goes away.
//
// Work comes in strands. A strand runs its function at least once after each request, and never on two
// threads at a time. Requests allocate nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

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
  // kOutOfMemory when not even one thread could be made.
  [[nodiscard]] static Result<std::unique_ptr<PassivePool>> Create();
  // Waits for what is queued and for what runs. Not from one of its own threads.
  ~PassivePool();
  PassivePool(const PassivePool&) = delete;
  PassivePool& operator=(const PassivePool&) = delete;

 private:
  friend class Strand;
  PassivePool() = default;
  void Run() KMCL_EXCLUDES(mutex_);
  bool AddThread() KMCL_REQUIRES(mutex_);
  void Enqueue(Strand& strand) KMCL_REQUIRES(mutex_);

  Mutex mutex_;
  CondVar work_;
  CondVar gone_;
  Strand* first_ KMCL_GUARDED_BY(mutex_) = nullptr;
  Strand* last_ KMCL_GUARDED_BY(mutex_) = nullptr;
  std::uint32_t queued_ KMCL_GUARDED_BY(mutex_) = 0;
  std::uint32_t threads_ KMCL_GUARDED_BY(mutex_) = 0;
  std::uint32_t idle_threads_ KMCL_GUARDED_BY(mutex_) = 0;
  bool stopping_ KMCL_GUARDED_BY(mutex_) = false;
};

}  // namespace kmcl::endpoint
