// What one channel gets back from saved chunks, before it is part of the channel: checks the chunks,
// and keeps the restored packets in order.
//
// Belongs to the thread that restores, and then to whoever takes it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "channel/packet.h"
#include "channel/save_format.h"
#include "result.h"

namespace kmcl::channel {

class Restorer {
 public:
  // What the chunks must have been saved from.
  struct Expected {
    ChannelName name;
    std::uint32_t maximum_packet_bytes = 0;
    bool pipe = false;
  };

  // One packet that the owner is to restore. Spans lie in the buffer given to Read.
  struct PacketStep {
    std::span<const std::byte> library;
    std::span<const std::byte> driver;
    saved::PacketState state;
  };
  using Step = std::variant<saved::Begin, PacketStep, saved::CompletionItem, saved::DeferredItem>;

  // Checks the next chunks, all of them, and says what is to be done: each step by Do or by the
  // owner, who then calls AddPacket. kSaveMalformed, kSaveVersion; nothing has changed then.
  [[nodiscard]] Result<std::vector<Step>> Read(std::span<const std::byte> buffer,
                                               const Expected& expected);
  bool complete() const { return cursor_.ended; }

  void Do(const saved::Begin& begin) { begin_ = begin; }
  void Do(const saved::CompletionItem& item);
  void Do(const saved::DeferredItem& item);

  // The step that the owner is asked to do, while it is asked.
  void Ask(const PacketStep* step) { asked_ = step; }
  // kPacketInFlight: nobody is asked, or the step was done; kSaveMalformed: `library` is not what
  // was asked for, or does not fit into the packet object.
  [[nodiscard]] Result<void> AddPacket(Packet& packet, std::span<const std::byte> library);
  bool asked_step_was_done() const { return asked_ == nullptr; }

  const saved::Begin& begin() const { return begin_; }

  // What stands here in send order: those in flight, then the queue.
  struct Completion {
    std::uint64_t transaction = 0;
    std::vector<std::byte> data;
  };
  struct Deferred {
    saved::DeferredItem item;  // without spans
    std::vector<std::byte> header;
    std::vector<std::byte> payload;
  };
  std::vector<Packet*> in_flight;
  std::vector<std::variant<Packet*, Completion>> queued;
  std::optional<Deferred> deferred;

 private:
  // How far the chunks were read.
  struct Cursor {
    bool begun = false;
    bool ended = false;
    std::uint64_t save = 0;
    std::uint32_t next_sequence = 0;
    saved::ChunkType last = saved::ChunkType::kBegin;
    std::uint64_t last_transaction = 0;  // of those in flight
    saved::Begin begin;
  };
  static Result<void> ReadOne(Cursor& cursor, const saved::Chunk& chunk, const Expected& expected,
                              std::vector<Step>& steps);

  Cursor cursor_;
  saved::Begin begin_;
  const PacketStep* asked_ = nullptr;
};

}  // namespace kmcl::channel
