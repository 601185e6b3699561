#include "endpoint/passive_pool.h"

#include <exception>
#include <thread>
#include <utility>

#include "log.h"

namespace kmcl::endpoint {
namespace {

// How long a thread waits for work before it goes. The last one stays.
constexpr auto kIdleTime = std::chrono::seconds(5);
// After the system has refused a thread.
constexpr auto kMakeAgain = std::chrono::milliseconds(100);

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

// All threads are detached: each takes itself off the count as its last act under the lock, and the
// destructor waits for zero.
Result<std::unique_ptr<PassivePool>> PassivePool::Create() {
  std::unique_ptr<PassivePool> pool(new PassivePool);
  MutexLock lock(pool->mutex_);
  if (!pool->AddThread()) return std::unexpected(Error::kOutOfMemory);
  try {
    std::thread([made = pool.get()] { made->MakeThreads(); }).detach();
  } catch (const std::exception&) {  // there is no thread, or no memory to make one
    return std::unexpected(Error::kOutOfMemory);
  }
  pool->has_maker_ = true;
  return pool;
}

PassivePool::~PassivePool() {
  MutexLock lock(mutex_);
  stopping_ = true;
  work_.NotifyAll();
  maker_.NotifyOne();
  while (threads_ > 0 || has_maker_) gone_.Wait(mutex_);
}

void PassivePool::MakeThreads() {
  MutexLock lock(mutex_);
  while (!stopping_ || queued_ > 0 || threads_ > 0) {
    if (!LacksThread()) {
      maker_.Wait(mutex_);
    } else if (!AddThread()) {
      maker_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kMakeAgain);
    }
  }
  has_maker_ = false;
  gone_.NotifyAll();
}

bool PassivePool::AddThread() {
  try {
    std::thread([this] { Run(); }).detach();
  } catch (const std::exception& error) {
    if (refused_.Count()) {
      Log(LogLevel::kError, "no thread for blocking work beyond %u: %s", threads_, error.what());
    }
    return false;
  }
  ++threads_;
  ++new_threads_;
  return true;
}

void PassivePool::Enqueue(Strand& strand) {
  strand.next_ = nullptr;
  (last_ == nullptr ? first_ : last_->next_) = &strand;
  last_ = &strand;
  ++queued_;
  if (LacksThread()) maker_.NotifyOne();
  work_.NotifyOne();
}

void PassivePool::Run() {
  std::shared_ptr<void> owner;  // let go of outside the lock
  bool is_new = true;
  for (;;) {
    Strand* strand = nullptr;
    {
      MutexLock lock(mutex_);
      if (std::exchange(is_new, false)) --new_threads_;
      ++idle_threads_;
      if (LacksThread()) maker_.NotifyOne();
      while (first_ == nullptr) {
        const bool timed_out =
            !stopping_ && !work_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kIdleTime);
        if (first_ != nullptr) break;
        if (stopping_ || (timed_out && threads_ > 1)) {
          --idle_threads_;
          --threads_;
          gone_.NotifyAll();
          maker_.NotifyOne();
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
