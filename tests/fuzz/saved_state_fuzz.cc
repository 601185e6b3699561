// What one process saved and another restores: a server's bus machine, and the chunks of a channel
// with the checks that stand before they become part of it. Whole ones, spoilt ones, and chunks in
// any order that are whole each for itself, with a checksum that fits.
#include <memory>
#include <variant>

#include "bus/server.h"
#include "bus/server_snapshot.h"
#include "channel/restorer.h"
#include "channel/save_format.h"
#include "input.h"
#include "wire/message_codec.h"

namespace kmcl {
namespace {

using fuzz::Input;

void Spoil(Input& input, std::vector<std::byte>& bytes) {
  for (std::uint32_t left = input.Below(4); left > 0 && !bytes.empty(); --left) {
    bytes[input.Get<std::uint16_t>() % bytes.size()] = static_cast<std::byte>(input.Byte());
  }
  if (input.Below(8) == 0) bytes.resize(input.Get<std::uint16_t>() % (bytes.size() + 1));
}

void Machine(Input& input) {
  bus::ServerLimits limits;
  limits.channels = 1 + input.Below(4);
  bus::Server server(limits);
  for (std::uint32_t i = input.Below(4); i > 0; --i) {
    bus::OfferParameters offer;
    offer.key.instance.data1 = i;
    (void)server.OnOffer(offer);
  }
  wire::InitiateContact contact;
  contact.version = wire::kVersionsNewestFirst[input.Below(wire::kVersionsNewestFirst.size())];
  server.OnMessage(wire::Encode(contact, {}));
  server.OnMessage(wire::Encode(wire::RequestOffers{}, server.agreed()));
  for (std::uint32_t i = input.Below(8); i > 0 && server.agreed().version; --i) {
    server.OnMessage(fuzz::AnyMessage(input));
  }
  std::vector<std::byte> saved = bus::ServerSnapshot::Save(server);
  if (input.Flag()) {
    const auto bytes = input.Rest();
    saved.assign(bytes.begin(), bytes.end());
  } else {
    Spoil(input, saved);
  }
  auto restored = bus::ServerSnapshot::Restore(saved, limits);
  if (!restored) return;
  restored->CheckInvariants();
  FUZZ_REQUIRE(bus::ServerSnapshot::Restore(bus::ServerSnapshot::Save(*restored), limits) ==
               *restored);
  restored->OnPeerGone();
  restored->CheckInvariants();
}

std::vector<std::byte> AnyPayload(Input& input, channel::saved::ChunkType type) {
  using namespace channel::saved;
  const std::vector<std::byte> state = Encode(PacketState{.in_flight = input.Flag(),
                                                          .wants_completion = input.Flag(),
                                                          .transaction = input.Byte(),
                                                          .data = input.Bytes(64)});
  switch (type) {
    case ChunkType::kBegin:
      return Encode(Begin{.name = {},
                          .maximum_packet_bytes = input.Flag() ? 256u : input.Number(),
                          .pipe = input.Below(8) == 0,
                          .open = input.Flag(),
                          .run_wanted = input.Flag(),
                          .failed = input.Below(8) == 0,
                          .rings = {input.Below(2), input.Below(2)},
                          .last_transaction = input.Byte(),
                          .items = input.Below(6)});
    case ChunkType::kInFlight:
    case ChunkType::kQueued:
      return Encode(PacketItem{.library = state, .driver = input.Bytes(32)});
    case ChunkType::kCompletion:
      return Encode(CompletionItem{.transaction = input.Byte(), .data = input.Bytes(64)});
    case ChunkType::kDeferred:
      return Encode(DeferredItem{.transaction = input.Byte(),
                                 .wants_completion = input.Flag(),
                                 .external_data = input.Flag(),
                                 .header = input.Bytes(32),
                                 .payload = input.Bytes(64)});
    default:
      return {};
  }
}

// One packet object, as a driver has it while a packet is restored.
struct PacketRoom {
  alignas(channel::Packet) std::byte bytes[sizeof(channel::Packet) + 256];
  channel::Packet& packet = *new (bytes) channel::Packet;
  PacketRoom() { packet.capacity = 256; }
};

void Chunks(Input& input) {
  using namespace channel;
  std::vector<std::byte> bytes;
  std::uint32_t sequence = 0;
  const bool in_order = input.Flag();
  if (in_order) {
    // Often as a save is: begin, items, end.
    const auto begin = AnyPayload(input, saved::ChunkType::kBegin);
    bytes = saved::Encode(saved::ChunkType::kBegin, sequence++, 7, begin);
  }
  while (!input.empty()) {
    const auto type = static_cast<saved::ChunkType>(1 + input.Below(in_order ? 6 : 7));
    std::vector<std::byte> payload = AnyPayload(input, type);
    if (input.Below(8) == 0) Spoil(input, payload);
    const std::uint32_t number = input.Below(16) == 0 ? input.Byte() : sequence;
    const auto chunk = saved::Encode(type, number, input.Below(32) == 0 ? 8 : 7, payload);
    ++sequence;
    bytes.insert(bytes.end(), chunk.begin(), chunk.end());
    if (input.Below(32) == 0) Spoil(input, bytes);
    if (bytes.size() > 8192) break;
  }
  if (const auto chunks = saved::ParseChunks(bytes)) {
    for (const saved::Chunk& chunk : *chunks) {
      (void)saved::ParseBegin(chunk.payload);
      (void)saved::ParseDeferred(chunk.payload);
      (void)saved::ParseCompletion(chunk.payload);
      if (const auto item = saved::ParsePacketItem(chunk.payload)) {
        (void)saved::ParsePacketState(item->library);
      }
    }
  }

  Restorer restorer;
  const auto steps = restorer.Read(bytes, {.name = {}, .maximum_packet_bytes = 256, .pipe = false});
  if (!steps) return;
  std::vector<std::unique_ptr<PacketRoom>> rooms;
  for (const Restorer::Step& step : *steps) {
    if (const auto* packet = std::get_if<Restorer::PacketStep>(&step)) {
      rooms.push_back(std::make_unique<PacketRoom>());
      restorer.Ask(packet);
      const auto added = restorer.AddPacket(rooms.back()->packet, packet->library);
      FUZZ_REQUIRE(!added || restorer.asked_step_was_done());
      restorer.Ask(nullptr);
    } else if (const auto* begin = std::get_if<saved::Begin>(&step)) {
      restorer.Do(*begin);
    } else if (const auto* item = std::get_if<saved::CompletionItem>(&step)) {
      restorer.Do(*item);
    } else {
      restorer.Do(std::get<saved::DeferredItem>(step));
    }
  }
}

}  // namespace
}  // namespace kmcl

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::Input input(data, size);
  if (input.Flag()) {
    kmcl::Machine(input);
  } else {
    kmcl::Chunks(input);
  }
  return 0;
}
