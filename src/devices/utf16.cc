#include "devices/utf16.h"

#include <algorithm>
#include <cstring>

namespace kmcl::devices {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

bool IsHighSurrogate(char32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool IsLowSurrogate(char32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

// Takes one character from the front of `text`, which is not empty.
char32_t TakeCharacter(std::string_view& text) {
  const auto first = static_cast<unsigned char>(text.front());
  text.remove_prefix(1);
  if (first < 0x80) {
    return first;
  }
  const std::size_t following = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
  if (first < 0xC2 || first > 0xF4 || text.size() < following) {
    return kReplacement;
  }
  char32_t character = first & (0x3FU >> following);
  for (std::size_t i = 0; i < following; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xC0) != 0x80) {
      return kReplacement;
    }
    character = character << 6 | (next & 0x3FU);
  }
  constexpr char32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  if (character < kLeast[following] || character > 0x10FFFF || IsHighSurrogate(character) ||
      IsLowSurrogate(character)) {
    return kReplacement;
  }
  text.remove_prefix(following);
  return character;
}

void Append(std::string& text, char32_t character) {
  if (character < 0x80) {
    text += static_cast<char>(character);
    return;
  }
  const int following = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
  constexpr unsigned char kLead[] = {0, 0xC0, 0xE0, 0xF0};
  text += static_cast<char>(kLead[following] | character >> (6 * following));
  for (int i = following - 1; i >= 0; --i) {
    text += static_cast<char>(0x80 | (character >> (6 * i) & 0x3F));
  }
}

}  // namespace

std::u16string Utf16FromText(std::string_view text) {
  std::u16string units;
  while (!text.empty()) {
    const char32_t character = TakeCharacter(text);
    if (character < 0x10000) {
      units += static_cast<char16_t>(character);
    } else {
      units += static_cast<char16_t>(0xD800 + ((character - 0x10000) >> 10));
      units += static_cast<char16_t>(0xDC00 + (character & 0x3FF));
    }
  }
  return units;
}

std::string TextFromUtf16(std::span<const std::byte> bytes) {
  std::u16string units(bytes.size() / 2, u'\0');
  if (!units.empty()) {  // memcpy takes no null pointer
    std::memcpy(units.data(), bytes.data(), units.size() * 2);
  }
  units.resize(std::min(units.size(), units.find(u'\0')));
  std::string text;
  for (std::size_t i = 0; i < units.size(); ++i) {
    char32_t character = units[i];
    if (IsHighSurrogate(character) && i + 1 < units.size() && IsLowSurrogate(units[i + 1])) {
      character = 0x10000 + ((character - 0xD800) << 10) + (units[i + 1] - 0xDC00U);
      ++i;
    } else if (IsHighSurrogate(character) || IsLowSurrogate(character)) {
      character = kReplacement;
    }
    Append(text, character);
  }
  return text;
}

}  // namespace kmcl::devices
