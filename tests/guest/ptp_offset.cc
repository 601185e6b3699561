// ptp_offset DEVICE MOST: how far the system's clock is from a PTP clock, in microseconds; exits
// with 1 when it is further than MOST. Linked without any library, for a guest that has none.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace {

long long Nanoseconds(clockid_t clock) {
  timespec now{};
  if (clock_gettime(clock, &now) != 0) {
    std::perror("clock_gettime");
    std::exit(2);
  }
  return static_cast<long long>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

int main(int argc, char** argv) {
  const int device = argc == 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
  if (device < 0) {
    std::perror("ptp_offset DEVICE MOST");
    return 2;
  }
  // Linux' rule for the clock behind a descriptor (clock_getres(2), "Dynamic clocks").
  const auto ptp = static_cast<clockid_t>((~static_cast<unsigned>(device) << 3) | 3);
  // The system's clock before and after, as reading the other one takes its time; the shortest of
  // some tries.
  long long best_span = -1;
  long long offset = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const long long before = Nanoseconds(CLOCK_REALTIME);
    const long long host = Nanoseconds(ptp);
    const long long after = Nanoseconds(CLOCK_REALTIME);
    if (best_span < 0 || after - before < best_span) {
      best_span = after - before;
      offset = host - (before + after) / 2;
    }
  }
  std::printf("%lld us, read in %lld us\n", offset / 1000, best_span / 1000);
  return std::llabs(offset) / 1000 > std::atoll(argv[2]) ? 1 : 0;
}
