// printf as Windows drivers write it: `l` is 32 bits wide, and strings may be UTF-16.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <span>

namespace kmcl::wdk {

// Formats into `out`, cut to fit, with a terminator. Returns the length. Formats: kmcl/wdk/debug.h.
std::size_t FormatWindows(std::span<char> out, const char* format, va_list arguments);

}  // namespace kmcl::wdk
