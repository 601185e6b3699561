// This program once more, with one mistake and a setting of KMCL_VERIFIER.
#pragma once

#include <string>

namespace kmcl::verifier_test {

struct Ended {
  int exit_code = -1;  // or minus the signal that ended it
  std::string text;    // standard error
};

// `misuse`: its name, or "none". Waits for the end.
Ended RunMisuse(const std::string& misuse, const std::string& verifier);

}  // namespace kmcl::verifier_test
