#include "wdk/windows_format.h"

#include <kmcl/nt.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace kmcl::wdk {
namespace {

class Output {
 public:
  explicit Output(std::span<char> out) : out_(out) {}

  void Add(std::string_view text) {
    const std::size_t count = std::min(text.size(), out_.size() - 1 - length_);
    std::memcpy(out_.data() + length_, text.data(), count);
    length_ += count;
  }
  std::size_t Finish() {
    out_[length_] = '\0';
    return length_;
  }

 private:
  const std::span<char> out_;
  std::size_t length_ = 0;
};

// One %... of a format: what stands between the sign and the conversion.
struct Directive {
  char flags[8] = "";
  int width = -1;
  int precision = -1;
  enum class Size : unsigned char { kInt, kChar, kShort, kWide, k64 } size = Size::kInt;
  char conversion = 0;
};

class Formatter {
 public:
  Formatter(Output& output, const char* format, va_list arguments) : output_(output), at_(format) {
    va_copy(arguments_, arguments);
  }
  ~Formatter() { va_end(arguments_); }
  Formatter(const Formatter&) = delete;
  Formatter& operator=(const Formatter&) = delete;

  void Run() {
    while (*at_ != '\0') {
      const char* const percent = std::strchr(at_, '%');
      if (percent == nullptr) return output_.Add(at_);
      output_.Add({at_, percent});
      at_ = percent + 1;
      if (!Emit(Parse())) return;
    }
  }

 private:
  int Number() {
    if (*at_ == '*') {
      ++at_;
      return va_arg(arguments_, int);
    }
    int number = 0;
    for (; *at_ >= '0' && *at_ <= '9'; ++at_) number = std::min(number * 10 + (*at_ - '0'), 4096);
    return number;
  }

  Directive Parse() {
    Directive directive;
    std::size_t flags = 0;
    while (*at_ != '\0' && std::strchr("-+ #0", *at_) != nullptr) {
      if (flags + 1 < sizeof(directive.flags)) directive.flags[flags++] = *at_;
      ++at_;
    }
    directive.flags[flags] = '\0';
    if (*at_ == '*' || (*at_ >= '0' && *at_ <= '9')) directive.width = Number();
    if (*at_ == '.') {
      ++at_;
      directive.precision = Number();
    }
    directive.size = ParseSize();
    directive.conversion = *at_;
    if (*at_ != '\0') ++at_;
    return directive;
  }

  bool Skip(std::string_view prefix) {
    if (std::strncmp(at_, prefix.data(), prefix.size()) != 0) return false;
    at_ += prefix.size();
    return true;
  }

  Directive::Size ParseSize() {
    using Size = Directive::Size;
    if (Skip("I64") || Skip("ll") || Skip("j")) return Size::k64;
    if (Skip("I32")) return Size::kInt;
    if (Skip("I") || Skip("z") || Skip("t")) return Size::k64;
    if (Skip("hh")) return Size::kChar;
    if (Skip("h")) return Size::kShort;
    if (Skip("l") || Skip("w")) return Size::kWide;
    return Size::kInt;
  }

  void Print(const Directive& directive, const char* tail, auto value) {
    char format[48];
    char precision[16] = "";
    if (directive.precision >= 0) {
      std::snprintf(precision, sizeof(precision), ".%d", directive.precision);
    }
    char width[16] = "";
    if (directive.width >= 0) std::snprintf(width, sizeof(width), "%d", directive.width);
    std::snprintf(format, sizeof(format), "%%%s%s%s%s", directive.flags, width, precision, tail);
    char text[512];
    const int length = std::snprintf(text, sizeof(text), format, value);
    if (length > 0) output_.Add({text, std::min<std::size_t>(length, sizeof(text) - 1)});
  }

  long long Integer(const Directive& directive, bool is_signed) {
    if (directive.size == Directive::Size::k64) return va_arg(arguments_, long long);
    const int value = va_arg(arguments_, int);
    switch (directive.size) {
      case Directive::Size::kChar:
        return is_signed ? static_cast<signed char>(value) : static_cast<unsigned char>(value);
      case Directive::Size::kShort:
        return is_signed ? static_cast<short>(value) : static_cast<unsigned short>(value);
      case Directive::Size::kInt:
      case Directive::Size::kWide:
      case Directive::Size::k64:
        break;
    }
    return is_signed ? static_cast<long long>(value)
                     : static_cast<long long>(static_cast<unsigned>(value));
  }

  // UTF-16 as UTF-8; half a pair becomes U+FFFD.
  void Wide(const WCHAR* text, std::size_t units) {
    for (std::size_t i = 0; i < units; ++i) {
      unsigned code = text[i];
      if (code >= 0xD800 && code < 0xDC00 && i + 1 < units && (text[i + 1] & 0xFC00) == 0xDC00) {
        code = 0x10000 + ((code - 0xD800) << 10) + (text[++i] - 0xDC00u);
      } else if (code >= 0xD800 && code < 0xE000) {
        code = 0xFFFD;
      }
      char bytes[4];
      std::size_t count = 0;
      if (code < 0x80) {
        bytes[count++] = static_cast<char>(code);
      } else if (code < 0x800) {
        bytes[count++] = static_cast<char>(0xC0 | code >> 6);
      } else if (code < 0x10000) {
        bytes[count++] = static_cast<char>(0xE0 | code >> 12);
        bytes[count++] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
      } else {
        bytes[count++] = static_cast<char>(0xF0 | code >> 18);
        bytes[count++] = static_cast<char>(0x80 | (code >> 12 & 0x3F));
        bytes[count++] = static_cast<char>(0x80 | (code >> 6 & 0x3F));
      }
      if (code >= 0x80) bytes[count++] = static_cast<char>(0x80 | (code & 0x3F));
      output_.Add({bytes, count});
    }
  }

  void WideString(const Directive& directive) {
    const auto* const text = va_arg(arguments_, const WCHAR*);
    if (text == nullptr) return output_.Add("(null)");
    std::size_t units = 0;
    const auto limit = static_cast<std::size_t>(directive.precision);
    while ((directive.precision < 0 || units < limit) && text[units] != 0) ++units;
    Wide(text, units);
  }

  void CountedString() {
    const auto* const text = va_arg(arguments_, const UNICODE_STRING*);
    if (text == nullptr || text->Buffer == nullptr) return output_.Add("(null)");
    Wide(text->Buffer, text->Length / sizeof(WCHAR));
  }

  // False at the end of the format.
  bool Emit(const Directive& directive) {
    const bool wide = directive.size == Directive::Size::kWide;
    switch (directive.conversion) {
      case '\0':
        return false;
      case '%':
        output_.Add("%");
        return true;
      case 'd':
      case 'i':
        Print(directive, "lld", Integer(directive, true));
        return true;
      case 'u':
        Print(directive, "llu", Integer(directive, false));
        return true;
      case 'o':
        Print(directive, "llo", Integer(directive, false));
        return true;
      case 'x':
        Print(directive, "llx", Integer(directive, false));
        return true;
      case 'X':
        Print(directive, "llX", Integer(directive, false));
        return true;
      case 'p':
      case 'P':
        Print({.precision = 16}, "llX",
              static_cast<long long>(reinterpret_cast<ULONG_PTR>(va_arg(arguments_, void*))));
        return true;
      case 'c':
      case 'C': {
        const auto unit = static_cast<WCHAR>(va_arg(arguments_, int));
        if (wide || directive.conversion == 'C') {
          Wide(&unit, 1);
        } else {
          Print(directive, "c", static_cast<int>(unit));
        }
        return true;
      }
      case 's':
        if (wide) {
          WideString(directive);
        } else {
          const char* const text = va_arg(arguments_, const char*);
          Print(directive, "s", text == nullptr ? "(null)" : text);
        }
        return true;
      case 'S':
        WideString(directive);
        return true;
      case 'Z':
        CountedString();
        return true;
      case 'e':
      case 'f':
      case 'g': {
        const char tail[] = {directive.conversion, '\0'};
        Print(directive, tail, va_arg(arguments_, double));
        return true;
      }
      default:
        output_.Add({at_ - 1, 1});
        return true;
    }
  }

  Output& output_;
  const char* at_;
  va_list arguments_;
};

}  // namespace

std::size_t FormatWindows(std::span<char> out, const char* format, va_list arguments) {
  Output output(out);
  Formatter(output, format, arguments).Run();
  return output.Finish();
}

}  // namespace kmcl::wdk
