// Visiting a variant of states with one function per state, or per named group of states. A state
// that no function names does not compile; there is no "otherwise".
//
//   return std::visit(Match{[&](const Open& open) { ... },
//                           [&](const OneOf<Opening, Closing> auto&) { ... }},
//                     state);
#pragma once

#include <concepts>

namespace kmcl::bus {

template <typename... Functions>
struct Match : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Match(Functions...) -> Match<Functions...>;

template <typename State, typename... States>
concept OneOf = (std::same_as<State, States> || ...);

}  // namespace kmcl::bus
