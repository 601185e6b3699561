#include "vmm/real_time_clock.h"

#include <chrono>

namespace kmcl::vmm {
namespace {

template <typename Number>
std::uint8_t Decimal(Number value) {
  return static_cast<std::uint8_t>(value / 10 * 16 + value % 10);
}

}  // namespace

std::uint8_t RealTimeClock::Read(std::uint16_t port) {
  if (port == 0) {
    return 0xFF;
  }
  // Not by the C library, which would look for a time zone in files.
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  const auto today = std::chrono::floor<std::chrono::days>(now);
  const std::chrono::year_month_day date(today);
  const std::chrono::hh_mm_ss time(now - today);
  const int year = static_cast<int>(date.year());
  switch (index_.load(std::memory_order_relaxed)) {
    case 0x00:
      return Decimal(time.seconds().count());
    case 0x02:
      return Decimal(time.minutes().count());
    case 0x04:
      return Decimal(time.hours().count());
    case 0x06:
      return Decimal(std::chrono::weekday(today).c_encoding() + 1);
    case 0x07:
      return Decimal(static_cast<unsigned>(date.day()));
    case 0x08:
      return Decimal(static_cast<unsigned>(date.month()));
    case 0x09:
      return Decimal(year % 100);
    case 0x32:
      return Decimal(year / 100);
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
