// The page by which a client signals without waking its server (VMBus reference 3.8), in use: a bit
// for each of 128 monitors that the client sets and the server takes, and beside it how soon the
// client wants the bit to be looked at.
//
// The format has a field for that latency and does not say who writes it. Here the client does,
// then rings the channel's bell once, which has the server read it: 0 stands for bells, as at
// first. The page is the client's memory; whatever it holds costs the server no more than turns at
// the pace of kShortestCheck.
//
// Any thread; the page is mapped for as long as anybody holds it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "transport/link.h"
#include "wire/monitor_page.h"

namespace kmcl::endpoint {

class MonitorPage {
 public:
  // However short the latency that is asked for, nobody looks more often.
  static constexpr std::chrono::nanoseconds kShortestCheck = std::chrono::microseconds(50);

  // For a client that does not say: the time to the next look, so long after the last bit that was
  // found. A bit is so seen late by a quarter of the time it took to come, and an idle channel
  // costs 500 looks a second.
  static std::chrono::nanoseconds UnannouncedInterval(std::chrono::nanoseconds quiet) {
    using namespace std::chrono_literals;
    return std::clamp<std::chrono::nanoseconds>(quiet / 4, 100us, 2ms);
  }

  explicit MonitorPage(transport::Mapping mapping) : mapping_(std::move(mapping)) {}

  // M0, partner of M1 in TakePending: what was written to the ring before is seen by the turn that
  // follows. Sequentially consistent, for MonitoredBell.
  void SetPending(std::uint8_t monitor) { Pending(monitor).fetch_or(Bit(monitor)); }
  bool TakePending(std::uint8_t monitor) {
    if ((Pending(monitor).load(std::memory_order_relaxed) & Bit(monitor)) == 0) return false;
    return (Pending(monitor).fetch_and(~Bit(monitor), std::memory_order_acq_rel) &  // M1
            Bit(monitor)) != 0;
  }

  // In units of 100 ns; 0 is none.
  void SetLatency(std::uint8_t monitor, std::uint16_t latency) { Latency(monitor).store(latency); }
  std::uint16_t latency(std::uint8_t monitor) const { return Latency(monitor).load(); }
  // What a latency says: the time between two looks.
  static std::chrono::nanoseconds IntervalOf(std::uint16_t latency) {
    return std::max(kShortestCheck, std::chrono::nanoseconds(100) * latency);
  }

 private:
  static std::uint32_t Bit(std::uint8_t monitor) {
    return std::uint32_t{1} << monitor % wire::kMonitorsPerGroup;
  }
  std::atomic_ref<std::uint32_t> Pending(std::uint8_t monitor) const {
    const std::size_t group = monitor / wire::kMonitorsPerGroup;
    return Word<std::uint32_t>(offsetof(wire::MonitorPage, trigger_groups) +
                               group * sizeof(wire::MonitorTriggerGroup));
  }
  std::atomic_ref<std::uint16_t> Latency(std::uint8_t monitor) const {
    return Word<std::uint16_t>(offsetof(wire::MonitorPage, latency) +
                               monitor * sizeof(std::uint16_t));
  }
  // The only way to the page.
  template <typename T>
  std::atomic_ref<T> Word(std::size_t offset) const {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(mapping_.base() + offset));
  }

  const transport::Mapping mapping_;
};

// Whether the client says when it is to be looked at. Operating systems do not: where a channel has
// a monitor they set its bit, ring no bell, and rely on a hypervisor that looks.
enum class MonitorPace : bool { kAnnounced, kUnannounced };

// One channel's place on it.
struct Monitor {
  std::shared_ptr<MonitorPage> page;
  std::uint8_t id = 0;  // below wire::kMonitorCount
  MonitorPace pace = MonitorPace::kAnnounced;
  explicit operator bool() const { return page != nullptr; }
  friend bool operator==(const Monitor&, const Monitor&) = default;
};

}  // namespace kmcl::endpoint
