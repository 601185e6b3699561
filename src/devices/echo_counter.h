// What an echo device says and counts on one of its channels.
#pragma once

#include <kmcl/kmcl.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace kmcl::devices {

// Used by the channel's delivery thread: KMCL delivers the packets of one channel one after
// another.
class EchoCounter {
 public:
  EchoCounter() = default;
  EchoCounter(std::uint64_t packets, std::uint64_t bytes) : packets_(packets), bytes_(bytes) {}

  std::uint64_t packets() const { return packets_; }
  std::uint64_t bytes() const { return bytes_; }

  // Retires the packet with what the protocol says; a request for sub-channels is refused.
  void Answer(VMBPACKETCOMPLETION packet, const std::byte* bytes, UINT32 byte_count);

 private:
  std::uint64_t packets_ = 0;
  std::uint64_t bytes_ = 0;
};

// How many sub-channels the packet asks for, if it does.
std::optional<std::uint32_t> WantedSubchannels(const std::byte* bytes, UINT32 byte_count);

// Retires the packet with a header of kind kRefused.
void RefuseEcho(VMBPACKETCOMPLETION packet);

}  // namespace kmcl::devices
