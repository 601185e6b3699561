// What the library says to a person: one line an event, never on the packet path.
#pragma once

namespace kmcl {

// Same numbers as KMCL_LOG_LEVEL in kmcl/endpoint.h.
enum class LogLevel : int { kError = 0, kWarning = 1, kInfo = 2, kDebug = 3 };

using LogSink = void (*)(void* context, LogLevel level, const char* line);

// Replaces the sink. The default one writes "kmcl: warning: ..." to standard error.
// `sink` may be called from any thread, also concurrently. nullptr restores the default.
void SetLogSink(LogSink sink, void* context);

// Lines above `level` are dropped. The start value is KMCL_LOG (error, warning, info or debug) from
// the environment, else warning.
void SetLogLevel(LogLevel level);

bool LogEnabled(LogLevel level);

// printf-style; the line carries no newline. Lines longer than 500 characters are cut.
void Log(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace kmcl
