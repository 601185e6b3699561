// kill_test [--seed K | --seeds A-B]: kills one of two busy processes, once for each seed.
//
// KMCL_KILL_SEEDS=A-B does the same where no argument can be given; 1-1000 is the default. A
// failure names its seed, and --seed runs that one again.
#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "child.h"
#include "roles.h"
#include "seeds.h"

namespace kmcl::kill {
namespace {

SeedRange seeds;
int descriptors_at_start = 0;

bool ReadRange(const char* text) {
  char* end = nullptr;
  seeds.first = strtoull(text, &end, 10);
  seeds.last = *end == '-' ? strtoull(end + 1, &end, 10) : seeds.first;
  return end != text && *end == '\0' && seeds.first <= seeds.last;
}

}  // namespace

const SeedRange& Seeds() { return seeds; }
int DescriptorsAtStart() { return descriptors_at_start; }

}  // namespace kmcl::kill

int main(int argc, char** argv) {
  using namespace kmcl::kill;
  if (IsRole(argc, argv)) return PlayRole(argv);

  descriptors_at_start = TakeCensus().descriptors;
  testing::InitGoogleTest(&argc, argv);
  const char* range = getenv("KMCL_KILL_SEEDS");
  for (int i = 1; i < argc; ++i) {
    if ((strcmp(argv[i], "--seed") == 0 || strcmp(argv[i], "--seeds") == 0) && i + 1 < argc) {
      range = argv[++i];
    } else {
      fprintf(stderr, "usage: kill_test [--seed K | --seeds A-B]\n");
      return EXIT_FAILURE;
    }
  }
  if (range != nullptr && !ReadRange(range)) {
    fprintf(stderr, "kill_test: '%s' is no range of seeds; 1-1000 is one\n", range);
    return EXIT_FAILURE;
  }
  return RUN_ALL_TESTS();
}
