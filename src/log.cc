#include "log.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "mutex.h"

namespace kmcl {
namespace {

constexpr const char* kLevelNames[] = {"error", "warning", "info", "debug"};

int LevelFromEnvironment() {
  const char* wanted = std::getenv("KMCL_LOG");
  if (wanted == nullptr) return static_cast<int>(LogLevel::kWarning);
  for (int level = 0; level < 4; ++level) {
    if (std::strcmp(wanted, kLevelNames[level]) == 0) return level;
  }
  std::fprintf(stderr, "kmcl: warning: KMCL_LOG is '%s', expected error, warning, info or debug\n",
               wanted);
  return static_cast<int>(LogLevel::kWarning);
}

std::atomic<int>& CurrentLevel() {
  static std::atomic<int> level{LevelFromEnvironment()};
  return level;
}

struct Sink {
  Mutex mutex;
  LogSink function KMCL_GUARDED_BY(mutex) = nullptr;
  void* context KMCL_GUARDED_BY(mutex) = nullptr;
};

// Never destroyed: threads may log while the process exits.
Sink& CurrentSink() {
  static Sink* sink = new Sink;
  return *sink;
}

}  // namespace

void SetLogSink(LogSink function, void* context) {
  Sink& sink = CurrentSink();
  MutexLock lock(sink.mutex);
  sink.function = function;
  sink.context = context;
}

void SetLogLevel(LogLevel level) {
  CurrentLevel().store(static_cast<int>(level), std::memory_order_relaxed);
}

bool LogEnabled(LogLevel level) {
  return static_cast<int>(level) <= CurrentLevel().load(std::memory_order_relaxed);
}

void Log(LogLevel level, const char* format, ...) {
  if (!LogEnabled(level)) return;
  char line[501];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);

  LogSink function = nullptr;
  void* context = nullptr;
  {
    Sink& sink = CurrentSink();
    MutexLock lock(sink.mutex);
    function = sink.function;
    context = sink.context;
  }
  if (function != nullptr) {
    function(context, level, line);
  } else {
    std::fprintf(stderr, "kmcl: %s: %s\n", kLevelNames[static_cast<int>(level)], line);
  }
}

}  // namespace kmcl
