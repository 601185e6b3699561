// What the command writes: plain text for people, one JSON object for programs, and numbers with
// units.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cli/outcome.h"

namespace kmcl::cli {

using Json = nlohmann::ordered_json;

// To standard output and standard error, unbuffered. A reader that has gone away is no failure.
void Print(std::string_view text);
void PrintError(std::string_view text);

// Where a command's JSON object goes, besides or instead of its text.
struct JsonSink {
  bool print = false;   // on standard output, instead of text
  std::string file;     // and into this file, unless empty
  int descriptor = -1;  // of that file, after Open

  bool text() const { return !print; }
  // Opens and empties the file already, for a process that later may not. False, with a message on
  // standard error, when that fails. The descriptor stays open.
  bool Open();
  // One line. Strings that are not UTF-8 get replacement characters.
  void Emit(const Json& object) const;
};

// Whether colours are wanted on standard output: a terminal, and NO_COLOR is not set.
bool UseColour();
std::string Bold(std::string_view text);
std::string Green(std::string_view text);
std::string Red(std::string_view text);

// Says why `command` failed, as text on standard error and as the JSON object; returns the exit
// code. `details` are further members of the object.
int ReportFailure(std::string_view command, const JsonSink& json, const Failure& failure,
                  const Json& details = Json::object());

std::string HumanBytes(double bytes);         // "1.5 MiB"
std::string HumanTime(double nanoseconds);    // "12.3 µs"
std::string HumanCount(std::uint64_t count);  // "1,234,567"
std::string HumanRemaining(double seconds);   // "1:05"

// Seconds since 1970, with microseconds: to compare with another process's clock.
double UnixTime();

}  // namespace kmcl::cli
