// Index arithmetic of a VMBus ring (VMBus reference 1.3): plain numbers, no memory, no peer.
//
// Indices are byte offsets into a data area of `data_bytes` (S below): below S, multiples of 8. S
// is a multiple of 4096 and not necessarily a power of two, so everything compares and subtracts
// and nothing masks. Sums stay below 2 * S, and S is below 2^31 (kMaximumDataBytes): nothing
// overflows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/ring_layout.h"

namespace kmcl::ring {

inline constexpr std::uint32_t kUnusedBytes = 8;  // never filled, so that full is not empty
inline constexpr std::uint32_t kMaximumDataBytes = 0x7FFFF000;  // ours: a mirrored S fits 32 bits

constexpr bool IsUnitMultiple(std::size_t bytes) { return bytes % wire::kRingUnitBytes == 0; }

constexpr std::size_t RoundUpToUnit(std::size_t bytes) {
  return (bytes + (wire::kRingUnitBytes - 1)) & ~std::size_t{wire::kRingUnitBytes - 1};
}

// Whether a correct peer may have written `index`.
constexpr bool IsIndex(std::uint32_t index, std::uint32_t data_bytes) {
  return index < data_bytes && index % wire::kRingUnitBytes == 0;
}

// Bytes from `from` up to `to`, walking forwards. With (read, write): the bytes in the ring.
constexpr std::uint32_t Distance(std::uint32_t from, std::uint32_t to, std::uint32_t data_bytes) {
  if (to >= from) {
    //  0         from          to         S
    //  |..........|=============|.........|        = what is counted
    return to - from;
  }
  //  0          to           from        S
  //  |==========|.............|==========|         the tail first, then the head
  return to + (data_bytes - from);
}

// Bytes that may still be written: never the last 8, which tell a full ring from an empty one.
constexpr std::uint32_t FreeBytes(std::uint32_t write, std::uint32_t read,
                                  std::uint32_t data_bytes) {
  //  0         read         write        S
  //  |.........|#############|...........|         # used, . free apart from 8 of them
  return data_bytes - Distance(read, write, data_bytes) - kUnusedBytes;
}

// `index`, `bytes` further. `bytes` is at most S.
constexpr std::uint32_t Advance(std::uint32_t index, std::uint32_t bytes,
                                std::uint32_t data_bytes) {
  const std::uint32_t sum = index + bytes;
  if (sum < data_bytes) {
    //  0        index -----> sum         S
    return sum;
  }
  //  0 --> sum - S          index -----> S         reaching S exactly is 0
  return sum - data_bytes;
}

// Ring bytes of a packet: descriptor, type-specific header, padded payload and trailer.
constexpr std::size_t PacketBytes(std::size_t header_bytes, std::size_t payload_bytes) {
  return wire::kPacketDescriptorBytes + header_bytes + RoundUpToUnit(payload_bytes) +
         wire::kPacketTrailerBytes;
}

// The longest packet that we write: one unit less than the wire allows, because some readers refuse
// a ring that is filled to the last usable byte (VMBus reference 1.3), and never more than length8
// says.
constexpr std::uint32_t MaximumPacketBytes(std::uint32_t data_bytes) {
  const std::uint32_t fits = data_bytes - kUnusedBytes - wire::kRingUnitBytes;
  const std::uint32_t expressible = wire::kMaximumPacketBytes + wire::kPacketTrailerBytes;
  return fits < expressible ? fits : expressible;
}

}  // namespace kmcl::ring
