#include "cache_line.h"

#include <sys/mman.h>

#include <thread>

#include "rows.h"

namespace kmcl::bench {
namespace {

struct Line {
  alignas(128) std::atomic<std::uint64_t> there{0};
  alignas(128) std::atomic<std::uint64_t> back{0};
};

// As little as two processes can do to each other: a word there, a word back.
class CacheLine final : public Pair {
 public:
  void Open(Stage& stage) override {
    void* const at =
        mmap(nullptr, sizeof(Line), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) stage.Fail("no shared memory");
    line_ = new (at) Line;
  }
  void Near(Stage& stage) override {
    Ask(stage, sizeof(std::uint64_t), [&](const std::byte* message) {
      std::uint64_t number;
      std::memcpy(&number, message, sizeof(number));
      ++number;  // not 0, which is there from the beginning
      line_->there.store(number, std::memory_order_release);
      while (line_->back.load(std::memory_order_acquire) != number) {
      }
      return number - 1;
    });
  }
  void Far(Stage& stage) override {
    stage.Meet();
    std::uint64_t seen = 0;
    for (;;) {
      std::uint64_t number;
      while ((number = line_->there.load(std::memory_order_acquire)) == seen) {
      }
      seen = number;
      line_->back.store(number, std::memory_order_release);
      if (((number - 1) & kLast) != 0) return;
    }
  }

 private:
  Line* line_ = nullptr;
};

}  // namespace

void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  sched_setaffinity(0, sizeof(set), &set);
}

double ProbeCacheLine(int near_cpu, int far_cpu) {
  constexpr std::uint64_t kBatches = 32, kRounds = 200;
  Line line;
  cpu_set_t before;
  sched_getaffinity(0, sizeof(before), &before);
  std::thread echo([&] {
    PinTo(far_cpu);
    for (std::uint64_t i = 1; i <= kBatches * kRounds; ++i) {
      while (line.there.load(std::memory_order_acquire) != i) {
      }
      line.back.store(i, std::memory_order_release);
    }
  });
  PinTo(near_cpu);
  std::array<double, kBatches> batches;
  std::uint64_t number = 0;
  for (double& batch : batches) {
    const std::uint64_t begin = Nanoseconds();
    for (std::uint64_t i = 0; i < kRounds; ++i) {
      line.there.store(++number, std::memory_order_release);
      while (line.back.load(std::memory_order_acquire) != number) {
      }
    }
    batch = static_cast<double>(Nanoseconds() - begin) / kRounds;
  }
  echo.join();
  sched_setaffinity(0, sizeof(before), &before);
  std::ranges::sort(batches);
  return batches[kBatches / 2];
}

void AddCacheLineRows(Registry& registry) {
  registry.rows.push_back({.name = RowName("roundtrip", "cache-line", 8), .bytes = 8, .make = [] {
                             return std::make_unique<CacheLine>();
                           }});
}

}  // namespace kmcl::bench
