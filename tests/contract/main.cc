// The contract suite, or with --driver=FD one end of a scenario of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "port.h"

int main(int argc, char** argv) {
  constexpr std::string_view kDriver = "--driver=";
  if (argc == 2 && std::string_view(argv[1]).starts_with(kDriver)) {
    return kmcl::contract::RunDriver(std::atoi(argv[1] + kDriver.size()));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
