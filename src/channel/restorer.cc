#include "channel/restorer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kmcl::channel {
namespace {

using saved::ChunkType;

std::vector<std::byte> Copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

// Whether a chunk of this type may follow one of that type: kBegin, kInFlight*, (kQueued or
// kCompletion)*, kDeferred at most once, kEnd.
bool MayFollow(ChunkType last, ChunkType next) {
  switch (next) {
    case ChunkType::kBegin:
      return false;
    case ChunkType::kInFlight:
      return last == ChunkType::kBegin || last == ChunkType::kInFlight;
    case ChunkType::kQueued:
    case ChunkType::kCompletion:
      return last != ChunkType::kDeferred;
    case ChunkType::kDeferred:
      return last != ChunkType::kDeferred;
    case ChunkType::kEnd:
      return true;
  }
  return false;
}

}  // namespace

Result<void> Restorer::ReadOne(Cursor& cursor, const saved::Chunk& chunk, const Expected& expected,
                               std::vector<Step>& steps) {
  constexpr std::unexpected kMalformed(Error::kSaveMalformed);
  if (cursor.ended || chunk.sequence != cursor.next_sequence) return kMalformed;
  if (!cursor.begun) {
    if (chunk.type != ChunkType::kBegin) return kMalformed;
    const auto begin = saved::ParseBegin(chunk.payload);
    if (!begin) return std::unexpected(begin.error());
    if (begin->name != expected.name || begin->pipe != expected.pipe ||
        begin->maximum_packet_bytes != expected.maximum_packet_bytes ||
        (!begin->open && begin->rings != RingName{})) {
      return kMalformed;
    }
    cursor.begun = true;
    cursor.save = chunk.save;
    cursor.begin = *begin;
    cursor.next_sequence = 1;
    steps.emplace_back(*begin);
    return {};
  }
  if (chunk.save != cursor.save || !MayFollow(cursor.last, chunk.type)) return kMalformed;
  // A channel that is not open has sent and received nothing.
  const bool only_open =
      chunk.type != ChunkType::kQueued && chunk.type != ChunkType::kEnd && !cursor.begin.open;
  const bool is_last = chunk.sequence == std::uint64_t{cursor.begin.items} + 1;
  if (only_open || is_last != (chunk.type == ChunkType::kEnd)) return kMalformed;

  const std::size_t longest = cursor.begin.maximum_packet_bytes;
  switch (chunk.type) {
    case ChunkType::kBegin:
      return kMalformed;
    case ChunkType::kInFlight:
    case ChunkType::kQueued: {
      const auto item = saved::ParsePacketItem(chunk.payload);
      if (!item) return std::unexpected(item.error());
      const auto state = saved::ParsePacketState(item->library);
      if (!state) return std::unexpected(state.error());
      const bool in_flight = chunk.type == ChunkType::kInFlight;
      if (state->in_flight != in_flight || state->data.size() > longest) return kMalformed;
      if (in_flight) {
        // Ids rise with age, and none is above the last that was given.
        if (state->transaction <= cursor.last_transaction ||
            state->transaction > cursor.begin.last_transaction) {
          return kMalformed;
        }
        cursor.last_transaction = state->transaction;
      }
      steps.emplace_back(PacketStep{item->library, item->driver, *state});
      break;
    }
    case ChunkType::kCompletion: {
      const auto item = saved::ParseCompletion(chunk.payload);
      if (!item) return std::unexpected(item.error());
      if (item->data.size() > longest) return kMalformed;
      steps.emplace_back(*item);
      break;
    }
    case ChunkType::kDeferred: {
      const auto item = saved::ParseDeferred(chunk.payload);
      if (!item) return std::unexpected(item.error());
      // A ring packet's length has 16 bits.
      constexpr std::size_t kLongestHeader = std::size_t{0xFFFF} * 8;
      if (item->payload.size() > (longest + 7) / 8 * 8 || item->header.size() > kLongestHeader) {
        return kMalformed;
      }
      steps.emplace_back(*item);
      break;
    }
    case ChunkType::kEnd:
      if (!chunk.payload.empty()) return kMalformed;
      cursor.ended = true;
      break;
  }
  cursor.last = chunk.type;
  ++cursor.next_sequence;
  return {};
}

Result<std::vector<Restorer::Step>> Restorer::Read(std::span<const std::byte> buffer,
                                                   const Expected& expected) {
  const auto chunks = saved::ParseChunks(buffer);
  if (!chunks) return std::unexpected(chunks.error());
  Cursor cursor = cursor_;
  std::vector<Step> steps;
  for (const saved::Chunk& chunk : *chunks) {
    if (auto read = ReadOne(cursor, chunk, expected, steps); !read) {
      return std::unexpected(read.error());
    }
  }
  cursor_ = cursor;
  return steps;
}

void Restorer::Do(const saved::CompletionItem& item) {
  queued.emplace_back(Completion{item.transaction, Copy(item.data)});
}

void Restorer::Do(const saved::DeferredItem& item) {
  deferred.emplace();
  deferred->item = item;
  deferred->item.header = deferred->item.payload = {};
  deferred->header = Copy(item.header);
  deferred->payload = Copy(item.payload);
}

Result<void> Restorer::AddPacket(Packet& packet, std::span<const std::byte> library) {
  if (asked_ == nullptr || packet.state.load(std::memory_order_relaxed) != Packet::State::kIdle) {
    return std::unexpected(Error::kPacketInFlight);
  }
  const saved::PacketState& state = asked_->state;
  if (!std::ranges::equal(library, asked_->library) || state.data.size() > packet.capacity) {
    return std::unexpected(Error::kSaveMalformed);
  }
  if (state.in_flight) {
    in_flight.push_back(&packet);
  } else {
    queued.emplace_back(&packet);
  }
  // Ours from here on: whatever the owner does with it finds it in flight.
  packet.wants_completion = state.wants_completion;
  packet.transaction_id = wire::TransactionId{state.transaction};
  packet.queued_bytes = static_cast<std::uint32_t>(state.data.size());
  if (!state.data.empty()) std::memcpy(packet.buffer(), state.data.data(), state.data.size());
  packet.state.store(Packet::State::kQueued, std::memory_order_relaxed);
  asked_ = nullptr;
  return {};
}

}  // namespace kmcl::channel
