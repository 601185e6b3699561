#include "errno_text.h"

#include <cstring>

namespace kmcl {
namespace {

// What strerror_r has given: glibc's is the text, that of POSIX whether the text is in the buffer.
[[maybe_unused]] const char* Words(const char* text, const char*) { return text; }
[[maybe_unused]] const char* Words(int failed, const char* buffer) {
  return failed == 0 ? buffer : "unknown error";
}

}  // namespace

ErrnoText::ErrnoText(int error)
    : words_(Words(strerror_r(error, buffer_, sizeof buffer_), buffer_)) {}

}  // namespace kmcl
