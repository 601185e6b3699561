// Pipe mode: a header in every packet that gives the exact length of its data, and the parameters
// in the offer (VMBus reference 2 and 3.10).
//
// A pipe packet is an in-band packet without flags and with transaction id 0, whose payload is a
// PipeHeader, the data, and padding to 8 bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "result.h"
#include "wire/guid.h"
#include "wire/messages_channel.h"
#include "wire/ring_layout.h"

namespace kmcl::wire {

// The most data that other implementations put into one pipe packet, and that a Linux socket takes.
// A limit for senders who want to be understood everywhere; the parser goes by the packet alone.
inline constexpr std::uint32_t kMaximumPipeBytes = 16384;

enum class PipePacketType : std::uint32_t {
  kData = 1,
  kPartial = 2,         // written by a reader into a packet that it has read a part of; never sent
  kSetupGpaDirect = 3,  // zero-copy, only where the parameters say so
  kTeardownGpaDirect = 4,  // likewise
};

struct PipeHeader {
  PipePacketType type{};
  std::uint32_t len = 0;  // of the data; of kPartial: total in the low half, taken in the high half
};
static_assert(sizeof(PipeHeader) == 8);
static_assert(offsetof(PipeHeader, len) == 4);

// A pipe packet of any kind. The data is a view of the payload it was read from.
struct PipePacket {
  PipePacketType type{};
  std::span<const std::byte> data{};  // of kPartial: what is left to read
};

// Reads a packet's payload (a private copy).
//   kPipeHeaderMalformed  no whole header, an unknown type, more data than the payload holds, or a
//                         partial packet of which everything, or more, was taken
[[nodiscard]] Result<PipePacket> ParsePipePayload(std::span<const std::byte> payload);

// The same for what a writer may send without further agreement, which is data: its bytes, which
// begin right behind the header. Every other type is kPipeHeaderMalformed, partial too, because a
// hardened reader keeps its place in private memory.
[[nodiscard]] Result<std::span<const std::byte>> ParsePipePacket(
    std::span<const std::byte> payload);

// What the first number of user_defined says about a pipe.
enum class PipeKind : std::uint32_t {
  kByteStream = 0,  // boundaries mean nothing; no data is the end of the stream
  kMessage = 4,     // one packet, one message; may be empty
};

inline constexpr std::uint32_t kPipeFlagGpaDirect = 0x1;
inline constexpr std::size_t kPipeUserBytes = 112;

// user_defined of an offer with kOfferNamedPipeMode.
struct PipeParameters {
  PipeKind kind = PipeKind::kByteStream;
  std::array<std::byte, kPipeUserBytes> user_bytes{};
  std::uint32_t flags = 0;  // to Linux and FreeBSD the last of 116 user bytes

  friend bool operator==(const PipeParameters&, const PipeParameters&) = default;
};
static_assert(sizeof(PipeParameters) == kUserDefinedBytes);
static_assert(offsetof(PipeParameters, user_bytes) == 4);
static_assert(offsetof(PipeParameters, flags) == 116);

// kFieldOutOfRange for a kind that is not defined.
[[nodiscard]] Result<PipeParameters> ParsePipeParameters(const UserDefined& user_defined);
UserDefined EncodePipeParameters(const PipeParameters& parameters);

// user_defined of an offer with kOfferTlnpiProvider. Its version number is not aligned on the wire,
// so this is the value and not the layout.
struct HvsockParameters {
  bool is_for_client_accept = false;  // true: the server connects to a listener of the client
  bool is_for_container = false;
  std::uint32_t version = 0;  // 0 before 5.2, 1 from 5.2 on
  Guid silo_id{};

  friend bool operator==(const HvsockParameters&, const HvsockParameters&) = default;
};

// kFieldOutOfRange when it is not a byte stream.
[[nodiscard]] Result<HvsockParameters> ParseHvsockParameters(const UserDefined& user_defined);
UserDefined EncodeHvsockParameters(const HvsockParameters& parameters);

}  // namespace kmcl::wire
