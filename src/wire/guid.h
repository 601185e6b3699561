// A GUID as it lies on the wire: three little-endian numbers, then eight bytes in text order.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace kmcl::wire {

struct Guid {
  std::uint32_t data1 = 0;
  std::uint16_t data2 = 0;
  std::uint16_t data3 = 0;
  std::array<std::uint8_t, 8> data4{};

  // Ordered as their text is.
  friend constexpr auto operator<=>(const Guid&, const Guid&) = default;
};
static_assert(sizeof(Guid) == 16 && alignof(Guid) == 4);
static_assert(offsetof(Guid, data2) == 4 && offsetof(Guid, data3) == 6);
static_assert(offsetof(Guid, data4) == 8);

// aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee
inline constexpr std::size_t kGuidTextChars = 36;

namespace guid_internal {

constexpr int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

constexpr bool IsDashPosition(std::size_t position) {
  return position == 8 || position == 13 || position == 18 || position == 23;
}

}  // namespace guid_internal

// Reads the text form, in either case, with or without braces around it. Nothing else is accepted:
// no blanks, no missing dashes.
constexpr std::optional<Guid> ParseGuid(std::string_view text) {
  if (text.size() == kGuidTextChars + 2 && text.front() == '{' && text.back() == '}') {
    text = text.substr(1, kGuidTextChars);
  }
  if (text.size() != kGuidTextChars) return std::nullopt;

  std::array<std::uint8_t, 16> octets{};
  std::size_t digit_count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (guid_internal::IsDashPosition(i)) {
      if (text[i] != '-') return std::nullopt;
      continue;
    }
    const int digit = guid_internal::HexDigit(text[i]);
    if (digit < 0) return std::nullopt;
    std::uint8_t& octet = octets[digit_count / 2];
    octet = static_cast<std::uint8_t>(octet << 4 | digit);
    ++digit_count;
  }

  Guid guid;
  guid.data1 = static_cast<std::uint32_t>(octets[0]) << 24 |
               static_cast<std::uint32_t>(octets[1]) << 16 |
               static_cast<std::uint32_t>(octets[2]) << 8 | octets[3];
  guid.data2 = static_cast<std::uint16_t>(octets[4] << 8 | octets[5]);
  guid.data3 = static_cast<std::uint16_t>(octets[6] << 8 | octets[7]);
  for (std::size_t i = 0; i < guid.data4.size(); ++i) guid.data4[i] = octets[8 + i];
  return guid;
}

// Lower case, no braces.
std::string ToString(const Guid& guid);

}  // namespace kmcl::wire

template <>
struct std::hash<kmcl::wire::Guid> {
  std::size_t operator()(const kmcl::wire::Guid& guid) const noexcept;
};
