// The bell of one open channel, whose target processor may change while anyone rings it.
#pragma once

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "result.h"
#include "transport/link.h"
#include "wire/ids.h"

namespace kmcl::endpoint {

// Keeps the link, and so the flags and descriptors it rings, for as long as anyone may ring.
class SwitchedBell final : public transport::Doorbell {
 public:
  SwitchedBell(std::shared_ptr<transport::Link> link, wire::ChannelId channel)
      : link_(std::move(link)), channel_(channel) {}

  // On the bus thread. wire::kNoInterrupt silences the bell. kFieldOutOfRange: the peer has no such
  // processor.
  [[nodiscard]] Result<void> Switch(wire::ProcessorIndex target) {
    if (target == wire::kNoInterrupt) {
      current_.store(nullptr, std::memory_order_release);
      return {};
    }
    const auto index = static_cast<std::uint32_t>(target);
    if (index >= link_->bell_count()) return std::unexpected(Error::kFieldOutOfRange);
    if (bells_.size() <= index) bells_.resize(index + 1);
    // A bell that was ever the current one may still be ringing: none is destroyed before the end.
    if (bells_[index] == nullptr) bells_[index] = link_->MakeDoorbell(channel_, index);
    current_.store(bells_[index].get(), std::memory_order_release);
    return {};
  }

  void Ring() override {
    transport::Doorbell* const bell = current_.load(std::memory_order_acquire);
    if (bell != nullptr) bell->Ring();
  }

 private:
  const std::shared_ptr<transport::Link> link_;
  const wire::ChannelId channel_;
  std::vector<std::unique_ptr<transport::Doorbell>> bells_;
  std::atomic<transport::Doorbell*> current_{nullptr};
};

}  // namespace kmcl::endpoint
