// Latencies in logarithmic buckets: 64 in each octave, so that a percentile is at most 1.6 % off,
// whatever its size. Recording allocates nothing and may happen on several threads.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "cli/output.h"

namespace kmcl::cli {

class LatencyHistogram {
 public:
  void Record(std::uint64_t nanoseconds);

  std::uint64_t count() const { return count_.load(std::memory_order_relaxed); }
  std::uint64_t minimum() const;  // 0 when nothing was recorded
  std::uint64_t maximum() const { return maximum_.load(std::memory_order_relaxed); }
  // The value that `fraction` (0 to 1) of all values do not exceed: its bucket's upper end, and
  // never more than the maximum.
  std::uint64_t Percentile(double fraction) const;

  // One line for each octave from the lowest to the highest that has values.
  std::string Draw(int bar_columns) const;

 private:
  static constexpr unsigned kSubBits = 6;
  static constexpr std::size_t kSubBuckets = std::size_t{1} << kSubBits;
  static constexpr std::size_t kBuckets = (64 - kSubBits + 1) * kSubBuckets;

  static std::size_t BucketOf(std::uint64_t value);
  static std::uint64_t UpperEnd(std::size_t bucket);

  std::array<std::atomic<std::uint64_t>, kBuckets> buckets_{};
  std::atomic<std::uint64_t> count_{0};
  std::atomic<std::uint64_t> minimum_{UINT64_MAX};
  std::atomic<std::uint64_t> maximum_{0};
};

// "p50", "p90", "p99", "p99_9", "min" and "max", in nanoseconds.
Json ToJson(const LatencyHistogram& histogram);

}  // namespace kmcl::cli
