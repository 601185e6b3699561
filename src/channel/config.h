// What a channel's owner sets before the channel is enabled, and the sizes that follow from it.
#pragma once

#include <cstdint>
#include <optional>

namespace kmcl::channel {

// What is set in the Init window and stays.
struct Config {
  std::uint32_t maximum_packet_bytes = 4096;
  std::uint32_t maximum_external_bytes = 0;  // 0: as much as a packet can describe
  std::uint32_t maximum_external_chain = 0;
  std::uint32_t context_bytes = 0;
  std::uint32_t inline_context_bytes = 0;  // in each packet object
  std::uint32_t maximum_packets = 0;       // allocated at a time, and kept ready; 0: no limit
  std::optional<std::uint32_t> spin_us;    // wait_policy.h; nothing: as the bus waits
  bool pipe = false;
  bool watched = false;  // the owner makes the packets it sends: Handler::OnAllocatePacket
};

// The longest header that describes external data in a packet of the channel; 0 while the channel
// is not set up for external data, when only the ring limits it.
std::uint32_t ExternalHeaderBytes(const Config& config);

// What a packet object sets aside for that description; a longer one is allocated when it is sent.
std::uint32_t ExternalRoom(const Config& config);

// Pages for one ring of a client's channel, control page included: `wanted`, or with 0 a default
// that holds some of the channel's largest packets; raised to what one of them needs.
std::uint32_t RingPages(const Config& config, std::uint32_t wanted);

}  // namespace kmcl::channel
