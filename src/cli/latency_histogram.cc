#include "cli/latency_histogram.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace kmcl::cli {
namespace {

// A bar of `eighths` eighths of a column.
std::string Bar(std::uint64_t eighths) {
  constexpr std::array<const char*, 8> kPartial = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  std::string bar;
  for (std::uint64_t full = 0; full < eighths / 8; ++full) {
    bar += "█";
  }
  return bar + kPartial[eighths % 8];
}

}  // namespace

// Values below 64 have a bucket each. Above, the bits after the leading one choose among 64 buckets
// of the octave.
std::size_t LatencyHistogram::BucketOf(std::uint64_t value) {
  if (value < kSubBuckets) {
    return static_cast<std::size_t>(value);
  }
  const auto octave = static_cast<unsigned>(std::bit_width(value)) - 1;  // 6 to 63
  const std::uint64_t sub = (value >> (octave - kSubBits)) - kSubBuckets;
  return (octave - kSubBits + 1) * kSubBuckets + static_cast<std::size_t>(sub);
}

std::uint64_t LatencyHistogram::UpperEnd(std::size_t bucket) {
  if (bucket < kSubBuckets) {
    return bucket;
  }
  const std::size_t shift = bucket / kSubBuckets - 1;
  const std::uint64_t begin = (kSubBuckets + bucket % kSubBuckets) << shift;
  return begin + ((std::uint64_t{1} << shift) - 1);
}

void LatencyHistogram::Record(std::uint64_t nanoseconds) {
  buckets_[BucketOf(nanoseconds)].fetch_add(1, std::memory_order_relaxed);
  count_.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t seen = minimum_.load(std::memory_order_relaxed);
  while (nanoseconds < seen &&
         !minimum_.compare_exchange_weak(seen, nanoseconds, std::memory_order_relaxed)) {
  }
  seen = maximum_.load(std::memory_order_relaxed);
  while (nanoseconds > seen &&
         !maximum_.compare_exchange_weak(seen, nanoseconds, std::memory_order_relaxed)) {
  }
}

std::uint64_t LatencyHistogram::minimum() const {
  return count() == 0 ? 0 : minimum_.load(std::memory_order_relaxed);
}

std::uint64_t LatencyHistogram::Percentile(double fraction) const {
  const std::uint64_t total = count();
  if (total == 0) {
    return 0;
  }
  const auto rank = std::clamp<std::uint64_t>(
      static_cast<std::uint64_t>(std::ceil(fraction * static_cast<double>(total))), 1, total);
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += buckets_[bucket].load(std::memory_order_relaxed);
    if (seen >= rank) {
      return std::clamp(UpperEnd(bucket), minimum(), maximum());
    }
  }
  return maximum();
}

std::string LatencyHistogram::Draw(int bar_columns) const {
  std::array<std::uint64_t, 64> octaves{};
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    const std::uint64_t here = buckets_[bucket].load(std::memory_order_relaxed);
    if (here > 0) {
      const std::uint64_t value = std::max<std::uint64_t>(UpperEnd(bucket), 1);
      octaves[static_cast<std::size_t>(std::bit_width(value)) - 1] += here;
    }
  }
  const std::uint64_t most = *std::ranges::max_element(octaves);
  if (most == 0) {
    return {};
  }
  const auto used = [](std::uint64_t here) { return here > 0; };
  const auto first = std::ranges::find_if(octaves, used) - octaves.begin();
  const auto last = 63 - (std::find_if(octaves.rbegin(), octaves.rend(), used) - octaves.rbegin());

  std::string drawing;
  for (auto octave = first; octave <= last; ++octave) {
    const std::uint64_t here = octaves[static_cast<std::size_t>(octave)];
    const auto columns = static_cast<double>(bar_columns) * 8.0;
    auto eighths =
        static_cast<std::uint64_t>(static_cast<double>(here) * columns / static_cast<double>(most));
    if (here > 0) {
      eighths = std::max<std::uint64_t>(eighths, 1);  // few is not none
    }
    drawing += fmt::format("  {:>8} to {:>8} {:>12} {}\n", HumanTime(std::exp2(octave)),
                           HumanTime(std::exp2(octave + 1)), HumanCount(here), Bar(eighths));
  }
  return drawing;
}

Json ToJson(const LatencyHistogram& histogram) {
  return {{"min", histogram.minimum()},           {"p50", histogram.Percentile(0.5)},
          {"p90", histogram.Percentile(0.9)},     {"p99", histogram.Percentile(0.99)},
          {"p99_9", histogram.Percentile(0.999)}, {"max", histogram.maximum()}};
}

}  // namespace kmcl::cli
