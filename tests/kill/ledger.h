// Which packet of each sender was delivered last, in memory that all processes of a run share: so
// that a packet that two servers deliver is noticed, or one that neither does.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace kmcl::kill {

// Numbers of packets begin with the number of the slot that they were sent from.
inline constexpr int kSlotShift = 40;

class Ledger {
 public:
  void Clear() {
    for (auto& direction : last_) {
      for (auto& channel : direction) {
        for (auto& slot : channel) slot = 0;
      }
    }
  }

  // What is wrong with packet `number`, which is being delivered; nullptr if nothing is. Without
  // `gaps` its predecessor must have been the last one.
  const char* Deliver(bool to_server, std::uint32_t channel, std::uint64_t number, bool gaps) {
    const std::uint64_t slot = number >> kSlotShift;
    if (channel >= kChannels || slot >= kSlots) return "a packet that nobody sends";
    const std::uint64_t last = last_[to_server ? 1 : 0][channel][slot].exchange(number);
    if (number <= last) return "a packet is delivered twice, or out of order";
    const std::uint64_t next = (last == 0 ? slot << kSlotShift : last) + 1;
    return gaps || number == next ? nullptr : "a packet was accepted and never delivered";
  }

 private:
  static constexpr std::size_t kChannels = 3;
  static constexpr std::size_t kSlots = 28;
  std::array<std::array<std::array<std::atomic<std::uint64_t>, kSlots>, kChannels>, 2> last_{};
};

}  // namespace kmcl::kill
