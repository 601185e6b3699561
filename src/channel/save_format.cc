#include "channel/save_format.h"

#include <array>

namespace kmcl::channel::saved {
namespace {

using wire::ByteReader;
using wire::ByteWriter;

constexpr std::uint32_t kChecksumOffset = 24;

constexpr std::array<std::uint32_t, 256> MakeCrcTable() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F6'3B78u : 0);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kCrcTable = MakeCrcTable();

// The checksum of a chunk: of its header without the checksum itself, and of its payload.
std::uint32_t ChecksumOf(std::span<const std::byte> chunk) {
  const std::uint32_t crc = Crc32c(0, chunk.first(kChecksumOffset));
  return Crc32c(crc, chunk.subspan(kChecksumOffset + sizeof(std::uint32_t)));
}

template <typename T>
Result<T> Checked(const ByteReader& reader, const T& value) {
  if (!reader.AtEnd()) return std::unexpected(Error::kSaveMalformed);
  return value;
}

}  // namespace

std::uint32_t Crc32c(std::uint32_t crc, std::span<const std::byte> bytes) {
  crc = ~crc;
  for (const std::byte byte : bytes) {
    crc = kCrcTable[(crc ^ static_cast<std::uint32_t>(byte)) & 0xFF] ^ (crc >> 8);
  }
  return ~crc;
}

std::vector<std::byte> Encode(ChunkType type, std::uint32_t sequence, std::uint64_t save,
                              std::span<const std::byte> payload) {
  ByteWriter header;
  header.Put(kMagic);
  header.Put(kVersion);
  header.Put(static_cast<std::uint16_t>(type));
  header.Put(static_cast<std::uint32_t>(payload.size()));
  header.Put(sequence);
  header.Put(save);
  std::uint32_t crc = Crc32c(0, header.bytes());
  constexpr std::byte kReserved[4] = {};
  crc = Crc32c(Crc32c(crc, kReserved), payload);
  header.Put(crc);
  header.PutBytes(kReserved);
  KMCL_CHECK(header.size() == kHeaderBytes);
  header.PutBytes(payload);
  return header.Take();
}

Result<std::vector<Chunk>> ParseChunks(std::span<const std::byte> bytes) {
  if (bytes.empty()) return std::unexpected(Error::kSaveMalformed);
  std::vector<Chunk> chunks;
  while (!bytes.empty()) {
    ByteReader header(bytes);
    const auto magic = header.Get<std::uint32_t>();
    const auto version = header.Get<std::uint16_t>();
    if (!header.ok() || magic != kMagic) return std::unexpected(Error::kSaveMalformed);
    // Before everything else: another version may mean something else by the rest.
    if (version != kVersion) return std::unexpected(Error::kSaveVersion);
    const auto type = header.Get<std::uint16_t>();
    const auto length = header.Get<std::uint32_t>();
    Chunk chunk{.type = static_cast<ChunkType>(type),
                .sequence = header.Get<std::uint32_t>(),
                .save = header.Get<std::uint64_t>(),
                .payload = {}};
    const auto checksum = header.Get<std::uint32_t>();
    const auto reserved = header.Get<std::uint32_t>();
    chunk.payload = header.GetBytes(length);
    if (!header.ok() || reserved != 0) return std::unexpected(Error::kSaveMalformed);
    const std::size_t chunk_bytes = kHeaderBytes + chunk.payload.size();
    if (ChecksumOf(bytes.first(chunk_bytes)) != checksum) {
      return std::unexpected(Error::kSaveMalformed);
    }
    if (type < static_cast<std::uint16_t>(ChunkType::kBegin) ||
        type > static_cast<std::uint16_t>(ChunkType::kEnd)) {
      return std::unexpected(Error::kSaveMalformed);
    }
    chunks.push_back(chunk);
    bytes = bytes.subspan(chunk_bytes);
  }
  return chunks;
}

std::vector<std::byte> Encode(const Begin& begin) {
  ByteWriter out;
  out.PutGuid(begin.name.interface_type);
  out.PutGuid(begin.name.instance);
  out.Put(begin.name.subchannel_index);
  out.PutFlag(begin.pipe);
  out.PutFlag(begin.open);
  out.PutFlag(begin.run_wanted);
  out.PutFlag(begin.failed);
  out.Put(std::uint16_t{0});
  out.Put(begin.maximum_packet_bytes);
  out.Put(begin.rings.gpadl);
  out.Put(begin.rings.downstream_page);
  out.Put(begin.last_transaction);
  out.Put(begin.items);
  return out.Take();
}

Result<Begin> ParseBegin(std::span<const std::byte> payload) {
  ByteReader in(payload);
  Begin begin;
  begin.name.interface_type = in.GetGuid();
  begin.name.instance = in.GetGuid();
  begin.name.subchannel_index = in.Get<std::uint16_t>();
  begin.pipe = in.GetFlag();
  begin.open = in.GetFlag();
  begin.run_wanted = in.GetFlag();
  begin.failed = in.GetFlag();
  if (in.Get<std::uint16_t>() != 0) in.Fail();
  begin.maximum_packet_bytes = in.Get<std::uint32_t>();
  begin.rings.gpadl = in.Get<std::uint32_t>();
  begin.rings.downstream_page = in.Get<std::uint32_t>();
  begin.last_transaction = in.Get<std::uint64_t>();
  begin.items = in.Get<std::uint32_t>();
  return Checked(in, begin);
}

std::vector<std::byte> Encode(const PacketItem& item) {
  ByteWriter out;
  out.PutBlock(item.library);
  out.PutBlock(item.driver);
  return out.Take();
}

Result<PacketItem> ParsePacketItem(std::span<const std::byte> payload) {
  ByteReader in(payload);
  PacketItem item;
  item.library = in.GetBlock();
  item.driver = in.GetBlock();
  return Checked(in, item);
}

std::vector<std::byte> Encode(const PacketState& state) {
  ByteWriter out;
  out.PutFlag(state.in_flight);
  out.PutFlag(state.wants_completion);
  out.Put(std::uint16_t{0});
  out.Put(static_cast<std::uint32_t>(state.data.size()));
  out.Put(state.transaction);
  out.PutBytes(state.data);
  return out.Take();
}

Result<PacketState> ParsePacketState(std::span<const std::byte> library) {
  ByteReader in(library);
  PacketState state;
  state.in_flight = in.GetFlag();
  state.wants_completion = in.GetFlag();
  if (in.Get<std::uint16_t>() != 0) in.Fail();
  const auto data_bytes = in.Get<std::uint32_t>();
  state.transaction = in.Get<std::uint64_t>();
  state.data = in.GetBytes(data_bytes);
  // One in flight waits for a completion, and its data is with the client already.
  const bool possible = state.in_flight
                            ? state.wants_completion && state.transaction != 0 && data_bytes == 0
                            : state.transaction == 0;
  if (!possible) in.Fail();
  return Checked(in, state);
}

std::vector<std::byte> Encode(const CompletionItem& item) {
  ByteWriter out;
  out.Put(item.transaction);
  out.PutBlock(item.data);
  return out.Take();
}

Result<CompletionItem> ParseCompletion(std::span<const std::byte> payload) {
  ByteReader in(payload);
  CompletionItem item;
  item.transaction = in.Get<std::uint64_t>();
  item.data = in.GetBlock();
  return Checked(in, item);
}

std::vector<std::byte> Encode(const DeferredItem& item) {
  ByteWriter out;
  out.Put(item.transaction);
  out.PutFlag(item.wants_completion);
  out.PutFlag(item.external_data);
  out.PutBlock(item.header);
  out.PutBlock(item.payload);
  return out.Take();
}

Result<DeferredItem> ParseDeferred(std::span<const std::byte> payload) {
  ByteReader in(payload);
  DeferredItem item;
  item.transaction = in.Get<std::uint64_t>();
  item.wants_completion = in.GetFlag();
  item.external_data = in.GetFlag();
  item.header = in.GetBlock();
  item.payload = in.GetBlock();
  return Checked(in, item);
}

}  // namespace kmcl::channel::saved
