#include "retirer.h"

#include "end.h"

namespace kmcl::sim {

Retirer::Retirer(std::uint32_t process) { SpawnFiber(Run, this, process)->detached = true; }

void Retirer::Add(const Item& item) {
  items_.push_back(item);
  Changed();
}

void Retirer::Stop() {
  stopping_ = true;
  Changed();
  WaitUntil([this] { return stopped_; }, kNever, "the retirer's end");
}

void* Retirer::Run(void* argument) {
  const InTest test;
  Retirer& self = *static_cast<Retirer*>(argument);
  for (;;) {
    WaitUntil([&] { return self.stopping_ || !self.items_.empty(); }, kNever, "packets to retire");
    if (self.items_.empty()) break;
    // In any order, and not at once.
    if (Choices().OneIn(4)) {
      WaitUntil([] { return false; }, NowNs() + Choices().Between(0, 20'000), "a packet's time");
    }
    const std::size_t which = Choices().Next() % self.items_.size();
    const Item item = self.items_[which];
    self.items_.erase(self.items_.begin() + static_cast<std::ptrdiff_t>(which));
    if (item.packet == nullptr) {
      item.end->EndView(item.handle);
      continue;
    }
    if (item.handle != 0) item.end->WorkOn(item.handle, item.share, item.name);
    item.end->Retired(item.packet, item.answer);
  }
  self.stopped_ = true;
  Changed();
  return nullptr;
}

}  // namespace kmcl::sim
