// A small generator whose numbers are the same everywhere (splitmix64).
#pragma once

#include <cstdint>

namespace kmcl::sim {

class Random {
 public:
  constexpr explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t Next() {
    std::uint64_t mixed = (state_ += 0x9E3779B97F4A7C15);
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB;
    return mixed ^ (mixed >> 31);
  }
  // From `low` to `high`, both included.
  std::uint32_t Between(std::uint32_t low, std::uint32_t high) {
    return low + static_cast<std::uint32_t>(Next() % (std::uint64_t{high} - low + 1));
  }
  bool OneIn(std::uint32_t times) { return Between(1, times) == 1; }

 private:
  std::uint64_t state_;
};

}  // namespace kmcl::sim
