// The page through which a client signals without a hypercall, or without waking anybody (VMBus
// reference 3.8). Shared with the peer; only its layout is here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "wire/ids.h"

namespace kmcl::wire {

// Monitor id m is bit m % 32 of group m / 32. 0xFF is none (kNoMonitorId).
inline constexpr std::size_t kMonitorGroupCount = 4;
inline constexpr std::size_t kMonitorsPerGroup = 32;
inline constexpr std::size_t kMonitorCount = kMonitorGroupCount * kMonitorsPerGroup;

struct MonitorTriggerGroup {
  std::uint32_t pending;
  std::uint32_t armed;
};
static_assert(sizeof(MonitorTriggerGroup) == 8);

struct MonitorParameter {
  ConnectionId connection_id;
  std::uint16_t flag_number;
  std::uint16_t reserved;
};
static_assert(sizeof(MonitorParameter) == 8);
static_assert(offsetof(MonitorParameter, flag_number) == 4);

struct MonitorPage {
  template <typename T>
  using PerMonitor = std::array<std::array<T, kMonitorsPerGroup>, kMonitorGroupCount>;

  std::uint32_t trigger_state;  // low four bits: group enable
  std::uint32_t reserved1;
  std::array<MonitorTriggerGroup, kMonitorGroupCount> trigger_groups;
  std::array<std::byte, 24> reserved2;
  PerMonitor<std::int32_t> next_check_time;
  PerMonitor<std::uint16_t> latency;  // in units of 100 ns
  std::array<std::byte, 256> reserved3;
  PerMonitor<MonitorParameter> parameters;
  std::array<std::byte, 1984> reserved4;
};
static_assert(sizeof(MonitorPage) == kPageBytes);
static_assert(offsetof(MonitorPage, trigger_groups) == 0x008);
static_assert(offsetof(MonitorPage, reserved2) == 0x028);
static_assert(offsetof(MonitorPage, next_check_time) == 0x040);
static_assert(offsetof(MonitorPage, latency) == 0x240);
static_assert(offsetof(MonitorPage, reserved3) == 0x340);
static_assert(offsetof(MonitorPage, parameters) == 0x440);
static_assert(offsetof(MonitorPage, reserved4) == 0x840);

}  // namespace kmcl::wire
