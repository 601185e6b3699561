// How many connections one client may ask for (hvsock): so many at once, and as many in each
// second. Everything else about a request costs the server more than it costs the client, an offer
// above all.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace kmcl::endpoint {

// Belongs to one thread.
class ConnectGate {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::uint32_t kPerSecond = 1024;

  // False: one too many. `now` never goes back.
  bool Admit(Clock::time_point now) {
    constexpr auto kEach = Clock::duration(std::chrono::seconds(1)) / kPerSecond;
    // Time that is spent in advance; at most a second of it.
    spent_until_ = std::max(spent_until_, now);
    if (spent_until_ - now > (kPerSecond - 1) * kEach) return false;
    spent_until_ += kEach;
    return true;
  }

 private:
  Clock::time_point spent_until_{};
};

}  // namespace kmcl::endpoint
