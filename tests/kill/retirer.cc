#include "retirer.h"

#include <utility>

namespace kmcl::kill {

Retirer::Retirer() : thread_([this] { Run(); }) {}

Retirer::~Retirer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  added_.notify_one();
  thread_.join();
}

void Retirer::Add(VMBPACKETCOMPLETION packet, std::uint64_t answer, std::function<void()> retired) {
  {
    const std::lock_guard lock(mutex_);
    items_.push_back({packet, answer, std::move(retired)});
  }
  added_.notify_one();
}

void Retirer::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    added_.wait(lock, [this] { return stopping_ || !items_.empty(); });
    if (items_.empty()) return;
    std::vector<Item> items = std::exchange(items_, {});
    lock.unlock();
    // The newest first: completions come in any order.
    while (!items.empty()) {
      Item item = std::move(items.back());
      items.pop_back();
      item.retired();
      VmbChannelPacketComplete(item.packet, &item.answer, sizeof item.answer);
    }
    lock.lock();
  }
}

}  // namespace kmcl::kill
