// What all fuzzers share: the bytes of one run, taken as choices and numbers, and the check that
// ends it. An input that is too short goes on as zeros, so that every prefix is an input as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#define FUZZ_REQUIRE(condition)                                                           \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                       \
    }                                                                                     \
  } while (false)

namespace kmcl::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return rest_.empty(); }

  template <typename T>
  T Get() {
    T value{};
    const auto bytes = Take(sizeof value);
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  std::uint8_t Byte() { return Get<std::uint8_t>(); }
  bool Flag() { return (Byte() & 1) != 0; }
  // 0 to end - 1. `end` is at most 256.
  std::uint32_t Below(std::uint32_t end) { return Byte() % end; }
  // Mostly a small number, as ids and counts are; every other one can be had, too.
  std::uint32_t Number() {
    const std::uint8_t small = Byte();
    return small < 0xF0 ? small : Get<std::uint32_t>();
  }
  // Up to `most` bytes; how many is in the input.
  std::span<const std::byte> Bytes(std::size_t most) {
    return Take(most < 256 ? Below(static_cast<std::uint32_t>(most) + 1)
                           : Get<std::uint16_t>() % (most + 1));
  }
  std::span<const std::byte> Rest() { return Take(rest_.size()); }

 private:
  std::span<const std::byte> Take(std::size_t count) {
    const auto bytes = rest_.first(count < rest_.size() ? count : rest_.size());
    rest_ = rest_.subspan(bytes.size());
    return bytes;
  }

  std::span<const std::byte> rest_;
};

// A control message of any number, 1 to 31, whose words are Numbers: ids that exist, more often
// than not.
inline std::vector<std::byte> AnyMessage(Input& input) {
  const std::uint32_t number = input.Below(32);
  const std::uint32_t words = input.Below(59);
  std::vector<std::byte> message(8 + 4 * words);
  std::memcpy(message.data(), &number, sizeof number);
  for (std::uint32_t i = 0; i < words && !input.empty(); ++i) {
    const std::uint32_t word = input.Number();
    std::memcpy(message.data() + 8 + 4 * i, &word, sizeof word);
  }
  return message;
}

}  // namespace kmcl::fuzz

// libFuzzer's entry.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
