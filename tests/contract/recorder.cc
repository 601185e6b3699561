#include "recorder.h"

namespace kmcl::contract {

void Recorder::Record(const std::string& name, const std::string& detail) {
  std::function<void()> action;
  {
    const std::lock_guard lock(mutex_);
    events_.push_back({name, detail});
    ++counts_[name];
    if (const auto found = actions_.find(name); found != actions_.end()) {
      action = found->second;
    }
    changed_.notify_all();
  }
  if (action) {
    action();
  }
  std::unique_lock lock(mutex_);
  const bool released =
      changed_.wait_for(lock, kDeadline, [&] { return open_for_good_ || !gates_.contains(name); });
  if (!released) {
    gates_.erase(name);
    events_.push_back({"gate timed out", name});
  }
}

bool Recorder::Wait(const std::string& name, int count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kDeadline, [&] { return counts_[name] >= count; });
}

std::vector<Event> Recorder::Events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

void Recorder::Gate(const std::string& name) {
  const std::lock_guard lock(mutex_);
  gates_.insert(name);
}

void Recorder::Release(const std::string& name) {
  const std::lock_guard lock(mutex_);
  gates_.erase(name);
  changed_.notify_all();
}

void Recorder::ReleaseAll() {
  const std::lock_guard lock(mutex_);
  open_for_good_ = true;
  changed_.notify_all();
}

void Recorder::On(const std::string& name, std::function<void()> action) {
  const std::lock_guard lock(mutex_);
  actions_[name] = std::move(action);
}

}  // namespace kmcl::contract
