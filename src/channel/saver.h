// One save of one channel: hands its state out in whole chunks (save_format.h).
//
// Belongs to the thread that saves. The packets it names stay where they are and do not end while it
// exists; the channel sees to that.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <vector>

#include "channel/handler.h"
#include "channel/save_format.h"
#include "channel/sender.h"
#include "result.h"

namespace kmcl::channel {

struct SaveProgress {
  enum class Kind : std::uint8_t { kDone, kMore, kTooSmall };
  Kind kind = Kind::kDone;
  std::size_t filled_bytes = 0;    // whole chunks
  std::size_t required_bytes = 0;  // for the next step; 0 when done
};

// Why a save or restore failed. With kCallbackFailed, what the owner's callback said.
struct SaveFailure {
  Error error{};
  std::int32_t callback_status = 0;
};

class Saver {
 public:
  // `begin` without its counts.
  Saver(saved::Begin begin, Sender::Inventory inventory, const IncomingPacket* deferred);

  // Calls handler.OnSavePacket at most twice for each packet, however often it is repeated.
  // kCallbackFailed and everything thrown (no memory) end the save.
  std::expected<SaveProgress, SaveFailure> Continue(Handler& handler, std::span<std::byte> buffer);
  bool complete() const { return complete_; }
  bool over() const { return complete_ || failed_; }

 private:
  // The chunk at next_, or nothing behind the last one.
  std::expected<std::vector<std::byte>, SaveFailure> MakeNext(Handler& handler);
  std::vector<std::byte> Chunk(saved::ChunkType type, std::span<const std::byte> payload) const;
  std::expected<std::vector<std::byte>, SaveFailure> PacketChunk(Handler& handler, Packet& packet,
                                                                 bool in_flight) const;
  std::uint32_t chunk_count() const { return begin_.items + 2; }

  saved::Begin begin_;
  const Sender::Inventory inventory_;
  const IncomingPacket* const deferred_;
  const std::uint64_t save_;        // tells this save's chunks from those of others
  std::uint32_t next_ = 0;          // number of the chunk to be made
  std::vector<std::byte> pending_;  // made and not handed out yet
  bool complete_ = false;
  bool failed_ = false;
};

}  // namespace kmcl::channel
