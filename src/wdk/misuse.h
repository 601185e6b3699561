// The driver's mistakes for which Windows stops the machine: said, then the program ends.
#pragma once

#include <cstdlib>

#include "log.h"

namespace kmcl::wdk {

inline void Require(bool holds, const char* function, const char* rule) {
  if (holds) return;
  Log(LogLevel::kError, "%s: %s", function, rule);
  std::abort();
}

}  // namespace kmcl::wdk
