// What travels on an echo channel. Both ends include this; neither trusts the other to follow it.
//
// Every packet begins with an EchoHeader. Ring packets are rounded up to 8 bytes, so the header
// carries the exact length itself.
//
//   client sends            with a completion asked           without
//   kData + n bytes     completed with the same bytes     counted
//   kCount              completed with EchoCounts         nothing
//   kSubchannels        completed with EchoSubchannels    the same is done
//
// A packet that is none of these is completed with a lone header of kind kRefused.
//
// Sub-channels, as network cards have them. The primary channel's client asks how many it wants;
// the device offers them under its own class and instance with the indices 1, 2, ..., and answers
// how many there are now, which may be fewer. Their offers arrive in their own time, before or
// after the answer. On each the same protocol is spoken, with counts of its own, but for
// kSubchannels. They stand until the primary closes. One request at a time: the next one is refused
// until the first was answered.
#pragma once

#include <kmcl/kmcl.h>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace kmcl::devices {

static_assert(std::endian::native == std::endian::little, "packets carry little-endian numbers");

// Made for this device with a random generator; no other device has them.
inline constexpr GUID kEchoInterface = {
    0x799d7bf1, 0xe70d, 0x4e71, {0x98, 0x5d, 0x6d, 0x8b, 0x3a, 0xcf, 0xb1, 0x75}};
inline constexpr GUID kEchoInstance = {
    0x81bd0cb9, 0xddac, 0x4475, {0xb7, 0xc5, 0x88, 0x00, 0x03, 0xaa, 0xb6, 0x06}};

inline constexpr std::uint32_t kEchoMaximumPacketBytes = 64 * 1024;  // header included

enum class EchoKind : std::uint32_t {
  kData = 1,
  kCount = 2,
  kRefused = 3,
  kSubchannels = 4,
};

struct EchoHeader {
  std::uint32_t kind = 0;   // EchoKind
  std::uint32_t bytes = 0;  // that follow, exactly
};
static_assert(sizeof(EchoHeader) == 8);

// The data packets that were delivered on this channel since it was opened, completed ones
// included.
struct EchoCounts {
  EchoHeader header;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;  // exact lengths, headers included
};
static_assert(sizeof(EchoCounts) == 24 && offsetof(EchoCounts, packets) == 8);

inline constexpr std::uint32_t kEchoMaximumSubchannels = 32;

// The request: how many are wanted. The answer: how many are offered.
struct EchoSubchannels {
  EchoHeader header;
  std::uint32_t count = 0;
};
static_assert(sizeof(EchoSubchannels) == 12);

}  // namespace kmcl::devices
