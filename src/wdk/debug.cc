#include <kmcl/wdk/debug.h>

#include <cinttypes>
#include <cstdarg>
#include <cstdlib>

#include "log.h"
#include "wdk/windows_format.h"

namespace {

using kmcl::LogLevel;

LogLevel LevelOf(ULONG level) {
  switch (level) {
    case DPFLTR_ERROR_LEVEL:
      return LogLevel::kError;
    case DPFLTR_WARNING_LEVEL:
      return LogLevel::kWarning;
    case DPFLTR_TRACE_LEVEL:
      return LogLevel::kDebug;
    default:
      return LogLevel::kInfo;
  }
}

void Print(LogLevel level, const char* format, va_list arguments) {
  if (!kmcl::LogEnabled(level)) return;
  char line[512];
  std::size_t length = kmcl::wdk::FormatWindows(line, format, arguments);
  while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) line[--length] = 0;
  kmcl::Log(level, "%s", line);
}

}  // namespace

ULONG DbgPrint(PCSTR Format, ...) {
  va_list arguments;
  va_start(arguments, Format);
  Print(LogLevel::kInfo, Format, arguments);
  va_end(arguments);
  return STATUS_SUCCESS;
}

ULONG DbgPrintEx(ULONG, ULONG Level, PCSTR Format, ...) {
  va_list arguments;
  va_start(arguments, Format);
  Print(LevelOf(Level), Format, arguments);
  va_end(arguments);
  return STATUS_SUCCESS;
}

VOID RtlAssert(const char* FailedAssertion, const char* FileName, ULONG LineNumber,
               const char* Message) {
  kmcl::Log(LogLevel::kError, "assertion failed: %s%s%s at %s:%" PRIu32, FailedAssertion,
            Message == nullptr ? "" : ": ", Message == nullptr ? "" : Message, FileName,
            LineNumber);
  std::abort();
}

VOID KeBugCheckEx(ULONG BugCheckCode, ULONG_PTR P1, ULONG_PTR P2, ULONG_PTR P3, ULONG_PTR P4) {
  kmcl::Log(LogLevel::kError, "bug check 0x%08" PRIX32 " (0x%zx, 0x%zx, 0x%zx, 0x%zx)",
            BugCheckCode, P1, P2, P3, P4);
  std::abort();
}
