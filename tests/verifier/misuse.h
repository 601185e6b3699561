// One program for each mistake that the verifier knows, and what it must say about it.
#pragma once

#include <kmcl/verifier.h>

#include <span>

namespace kmcl::verifier_test {

struct Misuse {
  const char* name;
  KMCL_VERIFIER_CHECK check;
  void (*run)();
  const char* violation;  // part of the first line
  const char* before;     // a line about what came before, or nullptr
  const char* site;       // a function that must be named, or nullptr
  const char* options;    // more words for KMCL_VERIFIER, or ""
};

std::span<const Misuse> AllMisuse();
// As all of them, but right.
void RunWithoutMisuse();

}  // namespace kmcl::verifier_test
