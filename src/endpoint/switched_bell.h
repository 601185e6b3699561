// The bell of one open channel, which may change while anyone rings it: the processor that it rings, or the
// use of a monitor in its place.
#pragma once

#include <atomic>
#include <cstdint>
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

  // On the bus thread. wire::kNoInterrupt silences the bell. When it returns, nobody rings the
  // target of before any more: whoever was about to has done so, and is waited for.
  // kFieldOutOfRange: the peer has no such processor.
  [[nodiscard]] Result<void> Switch(wire::ProcessorIndex target) {
    if (target == wire::kNoInterrupt) {
      MoveTo(nullptr);
      return {};
    }
    const auto index = static_cast<std::uint32_t>(target);
    if (index >= link_->bell_count()) return std::unexpected(Error::kFieldOutOfRange);
    if (targets_.size() <= index) targets_.resize(index + 1);
    if (targets_[index] == nullptr) {
      targets_[index] = std::make_unique<Target>(link_->MakeDoorbell(channel_, index));
    }
    MoveTo(targets_[index].get());
    return {};
  }

  // On the bus thread, with a bell switched on. From now on the peer shall look at the monitor within
  // `latency` (in units of 100 ns) instead of being rung; with 0 it is rung again. Tells the peer by a ring.
  void UseMonitor(const Monitor& monitor, std::uint16_t latency) {
    Target* const current = current_.load(std::memory_order_relaxed);
    if (monitored_ == nullptr) {
      auto made = std::make_unique<MonitoredBell>(*this, monitor);
      monitor_bell_ = made.get();
      monitored_ = std::make_unique<Target>(std::move(made));
    }
    if (current != monitored_.get()) {
      direct_ = current;
      monitor_bell_->SetDirect(*current->bell);
    }
    monitor.page->SetLatency(monitor.id, latency);
    current_.store(latency == 0 ? direct_ : monitored_.get());
    direct_->bell->Ring();
  }

  // A ringer that finds the bell switched while it announced itself goes to where it is now: so the
  // one who switches sees it, or it sees the switch (both seq_cst), and no ring goes where the peer
  // looks no more.
  void Ring() override {
    while (Target* const target = current_.load()) {
      target->ringers.fetch_add(1);
      const bool is_current = current_.load() == target;
      if (is_current) target->bell->Ring();
      target->ringers.fetch_sub(1);
      if (current_.load() != target) target->ringers.notify_all();
      if (is_current) return;
    }
  }

 private:
  // One that was ever the current one may still be looked at: none is destroyed before the end.
  struct Target {
    explicit Target(std::unique_ptr<transport::Doorbell> made) : bell(std::move(made)) {}
    const std::unique_ptr<transport::Doorbell> bell;
    std::atomic<std::uint32_t> ringers{0};
  };

  void MoveTo(Target* target) {
    Target* const before = current_.exchange(target);
    if (before == nullptr || before == target) return;
    while (const std::uint32_t ringers = before->ringers.load()) before->ringers.wait(ringers);
  }

  // Sets the monitor's bit. A ringer that was on its way in here when the peer was told to look no more
  // rings after all: bit then current_ here, current_ then the ring in UseMonitor (all seq_cst). Either the
  // ringer sees that it is not the current one any more, or its bit came before that ring, which has the
  // peer look into the ring buffer.
  class MonitoredBell final : public transport::Doorbell {
   public:
    MonitoredBell(const SwitchedBell& all, Monitor monitor)
        : all_(all), monitor_(std::move(monitor)) {}
    // Before it is the current one.
    void SetDirect(transport::Doorbell& direct) { direct_.store(&direct); }
    void Ring() override {
      monitor_.page->SetPending(monitor_.id);
      const Target* const current = all_.current_.load();
      if (current == nullptr || current->bell.get() != this) direct_.load()->Ring();
    }

   private:
    const SwitchedBell& all_;
    std::atomic<transport::Doorbell*> direct_{nullptr};
    const Monitor monitor_;
  };

  const std::shared_ptr<transport::Link> link_;
  const wire::ChannelId channel_;
  std::vector<std::unique_ptr<Target>> targets_;  // by processor
  std::atomic<Target*> current_{nullptr};
  std::unique_ptr<Target> monitored_;
  MonitoredBell* monitor_bell_ = nullptr;  // monitored_'s
  Target* direct_ = nullptr;               // what monitored_ stands for
};

}  // namespace kmcl::endpoint
