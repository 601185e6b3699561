#include "cli/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <kmcl/endpoint.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace kmcl::cli {
namespace {

void WriteAll(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::string Coloured(std::string_view code, std::string_view text) {
  return UseColour() ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

}  // namespace

void Print(std::string_view text) { WriteAll(STDOUT_FILENO, text); }
void PrintError(std::string_view text) { WriteAll(STDERR_FILENO, text); }

void JsonSink::Emit(const Json& object) const {
  const std::string line = object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (print) {
    Print(line);
  }
  JsonSink opened = *this;
  if (!file.empty() && opened.Open()) {
    WriteAll(opened.descriptor, line);
    if (descriptor < 0) {
      close(opened.descriptor);
    }
  }
}

bool JsonSink::Open() {
  if (!file.empty() && descriptor < 0) {
    descriptor = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) {
      PrintError(fmt::format("vmbus: cannot write {}: {}\n", file,
                             std::generic_category().message(errno)));
    }
  }
  return file.empty() || descriptor >= 0;
}

bool UseColour() {
  static const bool use = [] {
    const char* refused = std::getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) == 1 && (refused == nullptr || *refused == '\0');
  }();
  return use;
}

std::string Bold(std::string_view text) { return Coloured("1", text); }
std::string Green(std::string_view text) { return Coloured("32", text); }
std::string Red(std::string_view text) { return Coloured("31", text); }

int ReportFailure(std::string_view command, const JsonSink& json, const Failure& failure,
                  const Json& details) {
  const char* status = failure.status == STATUS_SUCCESS ? nullptr : KmclStatusName(failure.status);
  Json object = {{"command", command}, {"ok", false}};
  object["error"] = {{"message", failure.message}};
  if (status != nullptr) {
    object["error"]["status"] = status;
  }
  object["exit_code"] = failure.exit_code;
  object.update(details);
  json.Emit(object);
  if (json.text()) {
    PrintError(fmt::format("vmbus {}: {}{}\n", command, failure.message,
                           status == nullptr ? "" : fmt::format(" ({})", status)));
  }
  return failure.exit_code;
}

std::string HumanBytes(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string HumanTime(double nanoseconds) {
  if (nanoseconds < 1e3) {
    return fmt::format("{:.0f} ns", nanoseconds);
  }
  if (nanoseconds < 1e6) {
    return fmt::format("{:.1f} µs", nanoseconds / 1e3);
  }
  if (nanoseconds < 1e9) {
    return fmt::format("{:.1f} ms", nanoseconds / 1e6);
  }
  return fmt::format("{:.2f} s", nanoseconds / 1e9);
}

std::string HumanCount(std::uint64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t end = digits.size(); end > 3; end -= 3) {
    digits.insert(end - 3, 1, ',');
  }
  return digits;
}

std::string HumanRemaining(double seconds) {
  const auto whole = static_cast<std::uint64_t>(std::llround(seconds));
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

double UnixTime() {
  timeval now{};
  gettimeofday(&now, nullptr);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_usec) / 1e6;
}

}  // namespace kmcl::cli
