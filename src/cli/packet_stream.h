// One-way packets to the echo device, as fast as the ring takes them; the device's count at the end
// proves that all of them arrived.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "cli/client_channel.h"

namespace kmcl::cli {

struct StreamResult {
  std::uint64_t packets = 0;
  double seconds = 0;  // until the device had counted the last one
};

// Sends packets of `packet_bytes` (at least 8) for `duration`, or until interrupted. Fails when the
// channel is lost or the device counted something else than was sent.
Outcome<StreamResult> StreamPackets(ClientChannel& channel, std::uint32_t packet_bytes,
                                    std::chrono::nanoseconds duration);

}  // namespace kmcl::cli
