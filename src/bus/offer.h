// What makes an offer: the key that names it, and what it says.
#pragma once

#include <compare>
#include <cstdint>

#include "wire/guid.h"
#include "wire/ids.h"
#include "wire/messages_channel.h"

namespace kmcl::bus {

// Unique among the offers that stand on one connection.
struct OfferKey {
  wire::Guid interface_type;
  wire::Guid instance;
  std::uint16_t subchannel_index = 0;  // 0 is the primary

  bool IsPrimary() const { return subchannel_index == 0; }
  OfferKey Primary() const { return OfferKey{interface_type, instance, 0}; }
  friend auto operator<=>(const OfferKey&, const OfferKey&) = default;
};

// What a device tells about itself (VMBus reference 3.4).
struct OfferParameters {
  OfferKey key;
  std::uint16_t flags = 0;  // as on the wire
  std::uint16_t mmio_megabytes = 0;
  std::uint16_t mmio_megabytes_optional = 0;
  wire::UserDefined user_defined{};

  friend bool operator==(const OfferParameters&, const OfferParameters&) = default;
};

// An offer as a client received it.
struct Offer {
  wire::ChannelId channel{};
  OfferParameters parameters;
  wire::ConnectionId connection{};   // what the client signals; 0 below 1.1
  bool dedicated_interrupt = false;  // false below 1.1
  bool monitor_allocated = false;
  std::uint8_t monitor_id = 0xFF;  // means something only if monitor_allocated

  friend bool operator==(const Offer&, const Offer&) = default;
};

}  // namespace kmcl::bus
