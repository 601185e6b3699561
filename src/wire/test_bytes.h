// Bytes for tests, laid down by offset and by hand: what the code under test is compared with must
// not come from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace kmcl::wire {

class TestBytes {
 public:
  explicit TestBytes(std::size_t size) : bytes_(size) {}

  TestBytes& U8(std::size_t offset, std::uint64_t value) { return Put(offset, value, 1); }
  TestBytes& U16(std::size_t offset, std::uint64_t value) { return Put(offset, value, 2); }
  TestBytes& U32(std::size_t offset, std::uint64_t value) { return Put(offset, value, 4); }
  TestBytes& U64(std::size_t offset, std::uint64_t value) { return Put(offset, value, 8); }
  // "63 51 61 F8": bytes in the order in which they lie.
  TestBytes& Hex(std::size_t offset, std::string_view text) {
    const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; };
    for (std::size_t i = 0; i + 1 < text.size();) {
      if (text[i] == ' ') {
        ++i;
        continue;
      }
      bytes_.at(offset++) = static_cast<std::byte>(digit(text[i]) << 4 | digit(text[i + 1]));
      i += 2;
    }
    return *this;
  }
  TestBytes& Fill(std::size_t offset, std::size_t count, std::uint8_t first, std::uint8_t step) {
    for (std::size_t i = 0; i < count; ++i) {
      bytes_.at(offset + i) = static_cast<std::byte>(first + i * step);
    }
    return *this;
  }

  operator std::span<const std::byte>() const { return bytes_; }  // NOLINT
  std::span<const std::byte> span() const { return bytes_; }
  std::vector<std::byte> vector() const { return bytes_; }

 private:
  TestBytes& Put(std::size_t offset, std::uint64_t value, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      bytes_.at(offset + i) = static_cast<std::byte>(value >> (8 * i));
    }
    return *this;
  }

  std::vector<std::byte> bytes_;
};

}  // namespace kmcl::wire
