#include "vmm/real_time_clock.h"

#include <ctime>

namespace kmcl::vmm {
namespace {

std::uint8_t Decimal(int value) { return static_cast<std::uint8_t>(value / 10 * 16 + value % 10); }

}  // namespace

std::uint8_t RealTimeClock::Read(std::uint16_t port) {
  if (port == 0) {
    return 0xFF;
  }
  const std::time_t now = std::time(nullptr);
  std::tm time{};
  gmtime_r(&now, &time);
  switch (index_.load(std::memory_order_relaxed)) {
    case 0x00:
      return Decimal(time.tm_sec);
    case 0x02:
      return Decimal(time.tm_min);
    case 0x04:
      return Decimal(time.tm_hour);
    case 0x06:
      return Decimal(time.tm_wday + 1);
    case 0x07:
      return Decimal(time.tm_mday);
    case 0x08:
      return Decimal(time.tm_mon + 1);
    case 0x09:
      return Decimal(time.tm_year % 100);
    case 0x32:
      return Decimal((time.tm_year + 1900) / 100);
    case 0x0A:
      return 0x26;  // not being updated at the moment; the usual divider
    case 0x0B:
      return 0x02;  // 24 hours, decimal digits
    case 0x0D:
      return 0x80;  // the battery is good
    default:
      return 0;
  }
}

void RealTimeClock::Write(std::uint16_t port, std::uint8_t value) {
  if (port == 0) {
    index_.store(value & 0x7F, std::memory_order_relaxed);
  }
}

}  // namespace kmcl::vmm
