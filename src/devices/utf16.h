// Text as guests send and take it: UTF-16, little endian.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kmcl::devices {

// Bytes of `text` that are not UTF-8 become U+FFFD.
std::u16string Utf16FromText(std::string_view text);

// Up to the first NUL, or to the end where there is none; an odd byte at the end is left out. Lone
// surrogates become U+FFFD, so that the text is UTF-8 whatever a guest sent.
std::string TextFromUtf16(std::span<const std::byte> bytes);

}  // namespace kmcl::devices
