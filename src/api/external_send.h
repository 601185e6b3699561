// What the sending functions have in common when they are given memory to describe.
#pragma once

#include <kmcl/kmcl.h>

#include <cstddef>
#include <span>

#include "api/objects.h"
#include "channel/packet.h"
#include "endpoint/transfers.h"

namespace kmcl::api {

// Whether packets of this channel may describe memory: at a client, and not in pipe mode.
bool MayDescribe(ChannelObject& object);

// Whether the channel's limits allow it, and there is anything.
bool IsWithinLimits(ChannelObject& object, const endpoint::ExternalSource& source);

// Describes `source`, in `room` if it fits. `too_large`: the status if no packet can.
NTSTATUS Describe(ChannelObject& object, const endpoint::ExternalSource& source,
                  std::span<std::byte> room, NTSTATUS too_large,
                  endpoint::Transfers::Description& description);

// Sends a packet with `source`, and wants a completion.
NTSTATUS SendDescribed(channel::Packet& packet, std::span<const std::byte> data,
                       const endpoint::ExternalSource& source, NTSTATUS too_large);

}  // namespace kmcl::api
