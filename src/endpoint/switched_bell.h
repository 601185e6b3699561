// The bell of one open channel, which may change while anyone rings it: the processor that it rings, or the
// use of a monitor in its place.
#pragma once

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "endpoint/monitor_page.h"
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

  // On the bus thread, with a bell switched on. From now on the peer shall look at the monitor within
  // `latency` (in units of 100 ns) instead of being rung; with 0 it is rung again. Tells the peer by a ring.
  void UseMonitor(const Monitor& monitor, std::uint16_t latency) {
    transport::Doorbell* const direct =
        monitored_ == nullptr ? current_.load(std::memory_order_relaxed) : monitored_->direct();
    if (monitored_ == nullptr) {
      monitored_ = std::make_unique<MonitoredBell>(*direct, current_, monitor);
    }
    monitor.page->SetLatency(monitor.id, latency);
    current_.store(latency == 0 ? direct : monitored_.get());
    direct->Ring();
  }

  void Ring() override {
    transport::Doorbell* const bell = current_.load(std::memory_order_acquire);
    if (bell != nullptr) bell->Ring();
  }

 private:
  // Sets the monitor's bit. A ringer that was on its way in here when the peer was told to look no more
  // rings after all: bit then current_ here, current_ then the ring in UseMonitor (all seq_cst). Either the
  // ringer sees that it is not the current one any more, or its bit came before that ring, which has the
  // peer look into the ring buffer.
  class MonitoredBell final : public transport::Doorbell {
   public:
    MonitoredBell(transport::Doorbell& direct, const std::atomic<transport::Doorbell*>& current,
                  Monitor monitor)
        : direct_(direct), current_(current), monitor_(std::move(monitor)) {}
    transport::Doorbell* direct() const { return &direct_; }
    void Ring() override {
      monitor_.page->SetPending(monitor_.id);
      if (current_.load() != this) direct_.Ring();
    }

   private:
    transport::Doorbell& direct_;
    const std::atomic<transport::Doorbell*>& current_;
    const Monitor monitor_;
  };

  const std::shared_ptr<transport::Link> link_;
  const wire::ChannelId channel_;
  std::vector<std::unique_ptr<transport::Doorbell>> bells_;
  std::atomic<transport::Doorbell*> current_{nullptr};
  std::unique_ptr<MonitoredBell> monitored_;
};

}  // namespace kmcl::endpoint
