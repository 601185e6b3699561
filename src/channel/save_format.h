// The chunks of a saved channel (docs/save-format.md): what they are made of, and the only code that
// turns saved bytes into values we trust. Knows no channel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "result.h"
#include "wire/byte_stream.h"
#include "wire/guid.h"

namespace kmcl::channel {

// Which channel of a partition was saved. The channel room only compares it.
struct ChannelName {
  wire::Guid interface_type;
  wire::Guid instance;
  std::uint16_t subchannel_index = 0;
  friend bool operator==(const ChannelName&, const ChannelName&) = default;
};

// Which of the client's rings a channel was attached to.
struct RingName {
  std::uint32_t gpadl = 0;
  std::uint32_t downstream_page = 0;
  friend bool operator==(const RingName&, const RingName&) = default;
};

namespace saved {

inline constexpr std::uint32_t kMagic = 0x53'43'4D'4B;  // "KMCS"
inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::size_t kHeaderBytes = 32;

enum class ChunkType : std::uint16_t {
  kBegin = 1,       // first
  kInFlight = 2,    // a packet that waits for its completion; oldest first
  kQueued = 3,      // a packet that waits to be placed
  kCompletion = 4,  // a completion that waits to be placed, among kQueued in send order
  kDeferred = 5,    // a packet that was received and is to be delivered again; at most one
  kEnd = 6,         // last
};

struct Chunk {
  ChunkType type{};
  std::uint32_t sequence = 0;  // from 0
  std::uint64_t save = 0;      // the same in all chunks of one save
  std::span<const std::byte> payload;
};

// What kBegin says.
struct Begin {
  ChannelName name;
  std::uint32_t maximum_packet_bytes = 0;
  bool pipe = false;
  bool open = false;
  bool run_wanted = false;
  bool failed = false;  // the incoming queue has stopped for good (VmbChannelPacketFail)
  RingName rings;       // zero unless open
  std::uint64_t last_transaction = 0;
  std::uint32_t items = 0;  // chunks between kBegin and kEnd
};

// What kInFlight and kQueued say: the library's part, which EvtVmbChannelRestorePacket gets as
// LibBuf, and the driver's.
struct PacketItem {
  std::span<const std::byte> library;
  std::span<const std::byte> driver;
};
// The library's part.
struct PacketState {
  bool in_flight = false;
  bool wants_completion = false;
  std::uint64_t transaction = 0;  // while in flight
  std::span<const std::byte> data;
};

// What kCompletion says.
struct CompletionItem {
  std::uint64_t transaction = 0;
  std::span<const std::byte> data;
};

// What kDeferred says.
struct DeferredItem {
  std::uint64_t transaction = 0;
  bool wants_completion = false;
  bool external_data = false;
  std::span<const std::byte> header;
  std::span<const std::byte> payload;
};

std::vector<std::byte> Encode(ChunkType type, std::uint32_t sequence, std::uint64_t save,
                              std::span<const std::byte> payload);
std::vector<std::byte> Encode(const Begin& begin);
std::vector<std::byte> Encode(const PacketItem& item);
std::vector<std::byte> Encode(const PacketState& state);
std::vector<std::byte> Encode(const CompletionItem& item);
std::vector<std::byte> Encode(const DeferredItem& item);

// All spans in the results lie in the bytes given.
//   kSaveMalformed     no whole number of chunks, or one that is not what was written
//   kSaveVersion       a version that we do not know
[[nodiscard]] Result<std::vector<Chunk>> ParseChunks(std::span<const std::byte> bytes);
// kSaveMalformed.
[[nodiscard]] Result<Begin> ParseBegin(std::span<const std::byte> payload);
[[nodiscard]] Result<PacketItem> ParsePacketItem(std::span<const std::byte> payload);
[[nodiscard]] Result<PacketState> ParsePacketState(std::span<const std::byte> library);
[[nodiscard]] Result<CompletionItem> ParseCompletion(std::span<const std::byte> payload);
[[nodiscard]] Result<DeferredItem> ParseDeferred(std::span<const std::byte> payload);

// CRC-32C (Castagnoli), as in iSCSI.
std::uint32_t Crc32c(std::uint32_t crc, std::span<const std::byte> bytes);

}  // namespace saved
}  // namespace kmcl::channel
