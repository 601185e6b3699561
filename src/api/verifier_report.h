// The verifier's options, and how a violation is told.
#pragma once

#include <kmcl/verifier.h>

#include <chrono>
#include <string>
#include <vector>

#include "api/verifier_site.h"

namespace kmcl::api::verifier {

// printf into a string.
std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));

KMCL_VERIFIER_OPTIONS CurrentOptions();
// kmcl/verifier.h says what is valid; these do not check.
void SetOptions(const KMCL_VERIFIER_OPTIONS& options);
void SetReport(VOID (*report)(PVOID, const KMCL_VERIFIER_REPORT*), PVOID context);

// The words of KMCL_VERIFIER. False: it says off. Words that are not understood are logged.
bool ParseOptions(const char* words, KMCL_VERIFIER_OPTIONS& options);

// A violation, put together and told. Not under a lock.
class Violation {
 public:
  // `done`: one sentence, what was done wrong.
  Violation(KMCL_VERIFIER_CHECK check, std::string done) : check_(check), done_(std::move(done)) {}

  Violation& Channel(VMBCHANNEL channel) { return channel_ = channel, *this; }
  Violation& Object(const void* object) { return object_ = object, *this; }
  // What came before: the first one is the report's FirstSite.
  Violation& Before(const char* what, const Site& site);
  // The call that is the violation; its stack is told whole.
  Violation& Now(const char* what, const Site& site);
  // A line more.
  Violation& Note(std::string line);

  // False: the check is left out, and nothing was told. Does not return with KmclVerifierStop.
  bool Report();

 private:
  std::string Text() const;

  // Naming lines takes a while; what came before is as old as it was when the mistake was made.
  const std::chrono::steady_clock::time_point at_ = std::chrono::steady_clock::now();
  const KMCL_VERIFIER_CHECK check_;
  const std::string done_;
  VMBCHANNEL channel_ = nullptr;
  const void* object_ = nullptr;
  struct Place {
    const char* what;
    Site site;
  };
  std::vector<Place> before_;
  std::vector<Place> now_;  // none or one
  std::vector<std::string> notes_;
};

}  // namespace kmcl::api::verifier
