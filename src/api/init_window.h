// The Init window (KMCL reference 4.2), as every Init function asks for it first.
#pragma once

#include <kmcl/kmcl.h>

#include "channel/channel.h"

namespace kmcl::api {

enum class Kind { kEither, kServer, kClient };

// What may be set, or nullptr outside of the window, for NULL, and at the wrong end.
channel::Config* ConfigOf(VMBCHANNEL channel, Kind kind);

// Room that we are ready to set aside with every packet.
inline constexpr UINT32 kMostContextBytes = 1u << 20;

}  // namespace kmcl::api
