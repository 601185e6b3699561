// Where a program was when it called KMCL.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>

namespace kmcl::api::verifier {

// The stack of one moment. Cheap enough to be taken at every call: names are looked up for a
// report.
struct Site {
  static constexpr int kMostFrames = 24;
  std::array<void*, kMostFrames> frames{};  // return addresses, innermost first
  int count = 0;
  std::uint32_t thread = 0;  // of the kernel; 0: nothing was taken
  std::chrono::steady_clock::time_point at;

  explicit operator bool() const { return thread != 0; }
};

// The stack of the caller. `caller`, if not null, is an address that the first frame of interest
// returns to
// (__builtin_return_address(0) of the public function): what is further in is left out.
Site Here(const void* caller);

// The innermost frame that is the program's own; nullptr without one.
void* ProgramFrame(const Site& site);
// "OnPacket+0x1c (driver.c:42), thread 123, 5.1 ms ago", seen from `now`.
std::string DescribeSite(const Site& site, std::chrono::steady_clock::time_point now);
// Numbered lines, from the program's innermost frame on.
std::string DescribeStack(const Site& site, const char* indent);

}  // namespace kmcl::api::verifier
