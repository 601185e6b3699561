#include "channel/wakeup_cost.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <thread>

namespace kmcl::channel {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

constexpr std::size_t kTrips = 21;
// A machine that is busy with other things has its own times; the measurement ends with what it
// has.
constexpr auto kLongest = std::chrono::milliseconds(5);
// What is measured is believed between these two.
constexpr nanoseconds kLeast = microseconds(2);
constexpr nanoseconds kMost = microseconds(50);
// Where it cannot be measured: neither descriptors nor threads.
constexpr nanoseconds kUsual = microseconds(20);

// Two of the processors that the calling thread may use.
struct Pair {
  int here;
  int there;
};
std::optional<Pair> TwoProcessors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  // A machine of more than 1,024 processors does not fit, and has two.
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return Pair{-1, -1};
  std::optional<int> first;
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (!CPU_ISSET(processor, &allowed)) continue;
    if (first) return Pair{*first, processor};
    first = processor;
  }
  return std::nullopt;
}

// Threads left alone are put on one processor, where a wake-up is no more than a switch. A thread
// that cannot be moved measures what it can.
void MoveTo(int processor) {
  if (processor < 0) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

class Event {
 public:
  Event() : fd_(eventfd(0, EFD_CLOEXEC)) {}
  ~Event() {
    if (fd_ >= 0) close(fd_);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  bool is_open() const { return fd_ >= 0; }
  void Set(std::uint64_t word) { (void)eventfd_write(fd_, word); }
  std::uint64_t Take() {
    eventfd_t word = 0;
    return eventfd_read(fd_, &word) == 0 ? word : kEnd;
  }
  static constexpr std::uint64_t kEnd = 2;

 private:
  const int fd_;
};

}  // namespace

nanoseconds MeasureWakeupCost() {
  const auto processors = TwoProcessors();
  if (!processors) return nanoseconds::zero();
  Event there;
  Event back;
  if (!there.is_open() || !back.is_open()) return kUsual;

  std::array<nanoseconds, kTrips> trips;
  std::size_t taken = 0;
  try {
    std::thread echo([&] {
      MoveTo(processors->there);
      while (there.Take() != Event::kEnd) back.Set(1);
    });
    std::optional<std::thread> asking;
    try {
      asking.emplace([&] {
        MoveTo(processors->here);
        for (const auto begun = Clock::now(); taken < kTrips; ++taken) {
          const auto sent = Clock::now();
          if (sent - begun > kLongest) break;
          there.Set(1);
          (void)back.Take();
          trips[taken] = Clock::now() - sent;
        }
      });
      asking->join();
    } catch (const std::exception&) {
      taken = 0;
    }
    there.Set(Event::kEnd);
    echo.join();
  } catch (const std::exception&) {
    taken = 0;
  }
  if (taken == 0) return kUsual;
  const auto middle = trips.begin() + static_cast<std::ptrdiff_t>(taken / 2);
  std::nth_element(trips.begin(), middle, trips.begin() + static_cast<std::ptrdiff_t>(taken));
  return std::clamp(*middle / 2, kLeast, kMost);
}

nanoseconds WakeupCost() {
  static const nanoseconds cost = MeasureWakeupCost();
  return cost;
}

}  // namespace kmcl::channel
