#include "allowance.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

namespace kmcl::kill {
namespace {

std::uint64_t HighestDescriptor() {
  std::uint64_t highest = 0;
  if (DIR* const directory = opendir("/proc/self/fd")) {
    while (const dirent* const entry = readdir(directory)) {
      if (atoi(entry->d_name) != dirfd(directory)) {
        highest = std::max<std::uint64_t>(highest, strtoull(entry->d_name, nullptr, 10));
      }
    }
    closedir(directory);
  }
  return highest;
}

std::uint64_t MappedBytes() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * 4096;
}

}  // namespace

Allowance::Allowance(__rlimit_resource resource, std::uint64_t limit, std::vector<int> taken)
    : resource_(resource), taken_(std::move(taken)) {
  getrlimit(resource_, &before_);
  const rlimit few{limit, before_.rlim_max};
  setrlimit(resource_, &few);
}

Allowance Allowance::OfDescriptors(std::uint32_t more) {
  const auto highest = static_cast<int>(HighestDescriptor());
  std::vector<int> taken;
  // The kernel gives the lowest first.
  for (int fd = dup(STDERR_FILENO); fd >= 0; fd = dup(STDERR_FILENO)) {
    if (fd > highest) {
      close(fd);
      break;
    }
    taken.push_back(fd);
  }
  return {RLIMIT_NOFILE, static_cast<std::uint64_t>(highest) + 1 + more, std::move(taken)};
}

Allowance Allowance::OfMemory(std::uint64_t more) { return {RLIMIT_AS, MappedBytes() + more, {}}; }

Allowance::~Allowance() {
  Lift();
  for (const int fd : taken_) close(fd);
}

}  // namespace kmcl::kill
