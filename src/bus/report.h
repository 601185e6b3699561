// What a machine has to say about a message it did not follow. For the log only.
#pragma once

#include <cstdint>

#include "result.h"

namespace kmcl::bus {

struct Report {
  Error rule{};                      // the rule that was broken
  std::uint32_t message_number = 0;  // as received; 0 if the message had none
  std::uint32_t channel = 0;         // as received, 0 if the message names none; not validated
  std::uint32_t detail = 0;          // GPADL id, version or length, whichever the rule is about

  friend bool operator==(const Report&, const Report&) = default;
};

// A message was dropped, or answered with the protocol's refusal. The connection goes on.
struct Refused {
  Report report;
  // A correct peer may have sent it: it crossed a message of ours. Not counted towards Broken.
  bool is_crossing = false;
  friend bool operator==(const Refused&, const Refused&) = default;
};

// The peer broke a rule that no refusal mends. The machine drops everything from now on; the
// endpoint ends the link and then calls OnPeerGone. At most one in the life of a machine.
struct Broken {
  Report report;
  friend bool operator==(const Broken&, const Broken&) = default;
};

// One connection may have this many messages refused, crossings apart, before it is Broken, unless
// the server's limits say otherwise.
inline constexpr std::uint32_t kMaximumRefusals = 10'000;

}  // namespace kmcl::bus
