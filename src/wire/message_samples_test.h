// One sample of every control message: the value, and its bytes written down from the offsets in
// VMBus reference 3.2. Every field holds something else, so that no two can be swapped unnoticed.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "wire/message_codec.h"

namespace kmcl::wire {

struct MessageSample {
  std::string name;
  std::variant<ClientMessage, ServerMessage> message;
  std::vector<std::byte> bytes;
  Agreed agreed;               // under which the value and the bytes are each other
  std::size_t shortest_bytes;  // below it the message is refused
  // As the table in the reference has it.
  Version since;
  FeatureFlags required;
  bool is_legal_before_version;

  bool from_client() const { return std::holds_alternative<ClientMessage>(message); }
};

// All 29, by number.
std::vector<MessageSample> AllMessageSamples();

}  // namespace kmcl::wire
