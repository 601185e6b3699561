// What the commands that serve a bus have in common.
#pragma once

#include <string>

#include "cli/outcome.h"

namespace kmcl::cli {

// For whoever started us: a line with the address to `descriptor`, then the end of that file.
// Nothing for -1.
void TellReady(const std::string& address, int descriptor);

Failure WhyNotServing(const std::string& address, NTSTATUS status);

}  // namespace kmcl::cli
