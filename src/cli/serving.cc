#include "cli/serving.h"

#include <fmt/format.h>
#include <unistd.h>

namespace kmcl::cli {

void TellReady(const std::string& address, int descriptor) {
  if (descriptor < 0) return;
  const std::string line = fmt::format("ready {}\n", address);
  (void)!write(descriptor, line.data(), line.size());
  close(descriptor);
}

Failure WhyNotServing(const std::string& address, NTSTATUS status) {
  switch (status) {
    case STATUS_INVALID_PARAMETER_1:
      return {kExitUsage, fmt::format("\"{}\" is not an address: write unix:PATH", address),
              status};
    case STATUS_OBJECT_NAME_COLLISION:
      return {kExitFailure, fmt::format("{} is served already", address), status};
    case STATUS_ACCESS_DENIED:
      return {kExitFailure, fmt::format("{} cannot be created here", address), status};
    default:
      return {kExitFailure, fmt::format("cannot serve {}", address), status};
  }
}

}  // namespace kmcl::cli
