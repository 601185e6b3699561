#include "endpoint/passive_pool.h"

#include <system_error>
#include <thread>
#include <utility>

#include "log.h"

namespace kmcl::endpoint {
namespace {

// How long a thread waits for work before it goes. The last one stays.
constexpr auto kIdleTime = std::chrono::seconds(5);

}  // namespace

void Strand::Request(std::shared_ptr<void> owner) {
  MutexLock lock(pool_.mutex_);
  switch (state_) {
    case State::kIdle:
      owner_ = std::move(owner);
      state_ = State::kQueued;
      pool_.Enqueue(*this);
      return;
    case State::kRunning:
      state_ = State::kRunningAndRequested;
      return;
    case State::kQueued:
    case State::kRunningAndRequested:
      return;
  }
}

Result<std::unique_ptr<PassivePool>> PassivePool::Create() {
  std::unique_ptr<PassivePool> pool(new PassivePool);
  MutexLock lock(pool->mutex_);
  if (!pool->AddThread()) return std::unexpected(Error::kOutOfMemory);
  return pool;
}

PassivePool::~PassivePool() {
  MutexLock lock(mutex_);
  stopping_ = true;
  work_.NotifyAll();
  while (threads_ > 0) gone_.Wait(mutex_);
}

// Threads are detached: each takes itself off the count as its last act under the lock, and the
// destructor waits for zero.
bool PassivePool::AddThread() {
  try {
    std::thread([this] { Run(); }).detach();
  } catch (const std::system_error& error) {
    Log(LogLevel::kError, "no thread for blocking work beyond %u: %s", threads_, error.what());
    return false;
  }
  ++threads_;
  return true;
}

void PassivePool::Enqueue(Strand& strand) {
  strand.next_ = nullptr;
  (last_ == nullptr ? first_ : last_->next_) = &strand;
  last_ = &strand;
  ++queued_;
  // Each waiting strand gets a thread of its own: those at work may block on it.
  if (queued_ > idle_threads_) AddThread();
  work_.NotifyOne();
}

void PassivePool::Run() {
  std::shared_ptr<void> owner;  // let go of outside the lock
  for (;;) {
    Strand* strand = nullptr;
    {
      MutexLock lock(mutex_);
      ++idle_threads_;
      while (first_ == nullptr) {
        const bool timed_out =
            !stopping_ && !work_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kIdleTime);
        if (first_ != nullptr) break;
        if (stopping_ || (timed_out && threads_ > 1)) {
          --idle_threads_;
          --threads_;
          gone_.NotifyAll();
          return;
        }
      }
      --idle_threads_;
      --queued_;
      strand = std::exchange(first_, first_->next_);
      if (first_ == nullptr) last_ = nullptr;
      strand->state_ = Strand::State::kRunning;
    }
    strand->run_();
    {
      MutexLock lock(mutex_);
      if (strand->state_ == Strand::State::kRunningAndRequested) {
        strand->state_ = Strand::State::kQueued;
        Enqueue(*strand);
      } else {
        strand->state_ = Strand::State::kIdle;
        owner = std::move(strand->owner_);
      }
    }
    owner.reset();  // may destroy the strand
  }
}

}  // namespace kmcl::endpoint
