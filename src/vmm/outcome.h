// How the steps of making and running a machine fail: with a sentence for the person who asked for
// it.
#pragma once

#include <cerrno>
#include <expected>
#include <string>
#include <system_error>
#include <utility>

namespace kmcl::vmm {

// A sentence without a full stop.
template <typename T>
using Outcome = std::expected<T, std::string>;

inline std::unexpected<std::string> Fail(std::string why) {
  return std::unexpected(std::move(why));
}

// `what` and the reason that errno gives.
inline std::unexpected<std::string> FailWithErrno(std::string what) {
  return std::unexpected(std::move(what) + ": " + std::generic_category().message(errno));
}

}  // namespace kmcl::vmm
