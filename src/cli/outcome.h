// How a command ends: its exit code, and what it says when it fails.
#pragma once

#include <kmcl/nt.h>

#include <expected>
#include <string>

namespace kmcl::cli {

// Documented in `vmbus --help` and docs/vmbus.md: scripts rely on the numbers.
inline constexpr int kExitSuccess = 0;
inline constexpr int kExitFailure = 1;  // it failed, or the two ends do not agree
inline constexpr int kExitUsage = 2;    // the command line makes no sense
inline constexpr int kExitLost = 3;     // the bus cannot be reached, or the other end has gone
inline constexpr int kExitReset = 4;    // the guest was reset, and that was to end it
inline constexpr int kExitForbidden = 5;      // it made a system call that had been taken from it
inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells count

struct Failure {
  int exit_code = kExitFailure;
  std::string message;               // a sentence without a full stop
  NTSTATUS status = STATUS_SUCCESS;  // what KMCL said, unless it is STATUS_SUCCESS
};

template <typename T>
using Outcome = std::expected<T, Failure>;

inline std::unexpected<Failure> Fail(int exit_code, std::string message,
                                     NTSTATUS status = STATUS_SUCCESS) {
  return std::unexpected(Failure{exit_code, std::move(message), status});
}

}  // namespace kmcl::cli
