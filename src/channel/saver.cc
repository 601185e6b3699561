#include "channel/saver.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

namespace kmcl::channel {
namespace {

// Differs from that of every other save of this process, and as good as surely of every other process.
std::uint64_t NewSaveNumber() {
  static std::atomic<std::uint64_t> count{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ticks = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  return (ticks << 12) + count.fetch_add(1, std::memory_order_relaxed) % 4096;
}

}  // namespace

Saver::Saver(saved::Begin begin, Sender::Inventory inventory, const IncomingPacket* deferred)
    : begin_(begin), inventory_(std::move(inventory)), deferred_(deferred), save_(NewSaveNumber()) {
  begin_.last_transaction = inventory_.last_transaction;
  begin_.items = static_cast<std::uint32_t>(inventory_.in_flight.size() + inventory_.queued.size() +
                                            (deferred_ != nullptr ? 1 : 0));
}

std::vector<std::byte> Saver::Chunk(saved::ChunkType type,
                                    std::span<const std::byte> payload) const {
  return saved::Encode(type, next_, save_, payload);
}

std::expected<std::vector<std::byte>, SaveFailure> Saver::PacketChunk(Handler& handler,
                                                                      Packet& packet,
                                                                      bool in_flight) const {
  std::vector<std::byte> driver;
  std::uint32_t needed = 0;
  std::int32_t status = handler.OnSavePacket(packet, {}, needed);
  if (status < 0) {
    if (needed == 0) return std::unexpected(SaveFailure{Error::kCallbackFailed, status});
    driver.resize(needed);
    status = handler.OnSavePacket(packet, driver, needed);
    if (status < 0) return std::unexpected(SaveFailure{Error::kCallbackFailed, status});
  }
  saved::PacketState state{.in_flight = in_flight,
                           .wants_completion = packet.wants_completion,
                           .transaction = 0,
                           .data = {}};
  if (in_flight) {
    state.transaction = static_cast<std::uint64_t>(packet.transaction_id);
  } else {
    state.data = {packet.buffer(), packet.queued_bytes};
  }
  const std::vector<std::byte> library = saved::Encode(state);
  return Chunk(in_flight ? saved::ChunkType::kInFlight : saved::ChunkType::kQueued,
               saved::Encode(saved::PacketItem{.library = library, .driver = driver}));
}

std::expected<std::vector<std::byte>, SaveFailure> Saver::MakeNext(Handler& handler) {
  if (next_ == 0) return Chunk(saved::ChunkType::kBegin, saved::Encode(begin_));
  std::size_t index = next_ - 1;
  if (index < inventory_.in_flight.size()) {
    return PacketChunk(handler, *inventory_.in_flight[index], true);
  }
  index -= inventory_.in_flight.size();
  if (index < inventory_.queued.size()) {
    Outgoing& item = *inventory_.queued[index];
    if (item.kind == Outgoing::Kind::kData) {
      return PacketChunk(handler, static_cast<Packet&>(item), false);
    }
    auto& packet = static_cast<IncomingPacket&>(item);
    return Chunk(saved::ChunkType::kCompletion,
                 saved::Encode(saved::CompletionItem{
                     .transaction = static_cast<std::uint64_t>(packet.transaction_id),
                     .data = {packet.buffer(), packet.queued_bytes}}));
  }
  index -= inventory_.queued.size();
  if (index == 0 && deferred_ != nullptr) {
    return Chunk(saved::ChunkType::kDeferred,
                 saved::Encode(saved::DeferredItem{
                     .transaction = static_cast<std::uint64_t>(deferred_->transaction_id),
                     .wants_completion = deferred_->wants_completion,
                     .external_data = deferred_->external_data,
                     .header = deferred_->header,
                     .payload = deferred_->payload}));
  }
  return Chunk(saved::ChunkType::kEnd, {});
}

std::expected<SaveProgress, SaveFailure> Saver::Continue(Handler& handler,
                                                         std::span<std::byte> buffer) {
  SaveProgress progress;
  while (true) {
    if (pending_.empty()) {
      failed_ = true;  // also when something is thrown
      auto made = MakeNext(handler);
      if (!made) return std::unexpected(made.error());
      failed_ = false;
      pending_ = std::move(*made);
    }
    if (pending_.size() > buffer.size() - progress.filled_bytes) {
      progress.kind = progress.filled_bytes == 0 ? SaveProgress::Kind::kTooSmall
                                                 : SaveProgress::Kind::kMore;
      progress.required_bytes = pending_.size();
      return progress;
    }
    std::memcpy(buffer.data() + progress.filled_bytes, pending_.data(), pending_.size());
    progress.filled_bytes += pending_.size();
    pending_.clear();
    if (++next_ == chunk_count()) {
      complete_ = true;
      return progress;
    }
  }
}

}  // namespace kmcl::channel
