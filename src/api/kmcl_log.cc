// Log lines and names of statuses for programs (kmcl/endpoint.h).

#include <kmcl/endpoint.h>
#include <kmcl/raw.h>

#include <cstdio>

#include "log.h"
#include "mutex.h"

namespace kmcl::api {
namespace {

struct UserSink {
  Mutex mutex;
  VOID (*function)(PVOID, KMCL_LOG_LEVEL, const char*) KMCL_GUARDED_BY(mutex) = nullptr;
  PVOID context KMCL_GUARDED_BY(mutex) = nullptr;
};

UserSink& Sink() {
  static auto* sink = new UserSink;
  return *sink;
}

void Forward(void*, LogLevel level, const char* line) {
  VOID (*function)(PVOID, KMCL_LOG_LEVEL, const char*) = nullptr;
  PVOID context = nullptr;
  {
    UserSink& sink = Sink();
    MutexLock lock(sink.mutex);
    function = sink.function;
    context = sink.context;
  }
  if (function != nullptr) function(context, static_cast<KMCL_LOG_LEVEL>(level), line);
}

}  // namespace
}  // namespace kmcl::api

using namespace kmcl;
using namespace kmcl::api;

VOID KmclSetLogSink(VOID (*LogSink)(PVOID, KMCL_LOG_LEVEL, const char*), PVOID Context) {
  {
    UserSink& sink = Sink();
    MutexLock lock(sink.mutex);
    sink.function = LogSink;
    sink.context = Context;
  }
  kmcl::SetLogSink(LogSink == nullptr ? nullptr : &Forward, nullptr);
}

VOID KmclSetLogLevel(KMCL_LOG_LEVEL Level) { SetLogLevel(static_cast<LogLevel>(Level)); }

const char* KmclStatusName(NTSTATUS Status) {
  switch (Status) {
    case STATUS_SUCCESS:
      return "STATUS_SUCCESS";
    case STATUS_TIMEOUT:
      return "STATUS_TIMEOUT";
    case STATUS_PENDING:
      return "STATUS_PENDING";
    case STATUS_NO_MORE_ENTRIES:
      return "STATUS_NO_MORE_ENTRIES";
    case STATUS_BUFFER_OVERFLOW:
      return "STATUS_BUFFER_OVERFLOW";
    case STATUS_DEVICE_BUSY:
      return "STATUS_DEVICE_BUSY";
    case STATUS_UNSUCCESSFUL:
      return "STATUS_UNSUCCESSFUL";
    case STATUS_NOT_IMPLEMENTED:
      return "STATUS_NOT_IMPLEMENTED";
    case STATUS_INVALID_HANDLE:
      return "STATUS_INVALID_HANDLE";
    case STATUS_INVALID_PARAMETER:
      return "STATUS_INVALID_PARAMETER";
    case STATUS_NO_SUCH_DEVICE:
      return "STATUS_NO_SUCH_DEVICE";
    case STATUS_INVALID_DEVICE_REQUEST:
      return "STATUS_INVALID_DEVICE_REQUEST";
    case STATUS_MORE_PROCESSING_REQUIRED:
      return "STATUS_MORE_PROCESSING_REQUIRED";
    case STATUS_NO_MEMORY:
      return "STATUS_NO_MEMORY";
    case STATUS_ACCESS_DENIED:
      return "STATUS_ACCESS_DENIED";
    case STATUS_BUFFER_TOO_SMALL:
      return "STATUS_BUFFER_TOO_SMALL";
    case STATUS_OBJECT_NAME_NOT_FOUND:
      return "STATUS_OBJECT_NAME_NOT_FOUND";
    case STATUS_OBJECT_NAME_COLLISION:
      return "STATUS_OBJECT_NAME_COLLISION";
    case STATUS_DATA_ERROR:
      return "STATUS_DATA_ERROR";
    case STATUS_REVISION_MISMATCH:
      return "STATUS_REVISION_MISMATCH";
    case STATUS_INSUFFICIENT_RESOURCES:
      return "STATUS_INSUFFICIENT_RESOURCES";
    case STATUS_DEVICE_NOT_CONNECTED:
      return "STATUS_DEVICE_NOT_CONNECTED";
    case STATUS_DEVICE_NOT_READY:
      return "STATUS_DEVICE_NOT_READY";
    case STATUS_NOT_SUPPORTED:
      return "STATUS_NOT_SUPPORTED";
    case STATUS_INVALID_PARAMETER_1:
      return "STATUS_INVALID_PARAMETER_1";
    case STATUS_INVALID_PARAMETER_2:
      return "STATUS_INVALID_PARAMETER_2";
    case STATUS_INVALID_PARAMETER_3:
      return "STATUS_INVALID_PARAMETER_3";
    case STATUS_INVALID_PARAMETER_4:
      return "STATUS_INVALID_PARAMETER_4";
    case STATUS_INVALID_PARAMETER_5:
      return "STATUS_INVALID_PARAMETER_5";
    case STATUS_INVALID_PARAMETER_6:
      return "STATUS_INVALID_PARAMETER_6";
    case STATUS_INVALID_PARAMETER_7:
      return "STATUS_INVALID_PARAMETER_7";
    case STATUS_INVALID_PARAMETER_8:
      return "STATUS_INVALID_PARAMETER_8";
    case STATUS_CANCELLED:
      return "STATUS_CANCELLED";
    case STATUS_INVALID_DEVICE_STATE:
      return "STATUS_INVALID_DEVICE_STATE";
    case STATUS_INVALID_BUFFER_SIZE:
      return "STATUS_INVALID_BUFFER_SIZE";
    case STATUS_CONNECTION_DISCONNECTED:
      return "STATUS_CONNECTION_DISCONNECTED";
    case STATUS_NOT_FOUND:
      return "STATUS_NOT_FOUND";
    case STATUS_DEVICE_REMOVED:
      return "STATUS_DEVICE_REMOVED";
    case STATUS_NOINTERFACE:
      return "STATUS_NOINTERFACE";
  }
  thread_local char unknown[sizeof "STATUS_0x00000000"];
  std::snprintf(unknown, sizeof unknown, "STATUS_0x%08X", static_cast<unsigned>(Status));
  return unknown;
}
