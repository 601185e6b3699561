// The two packet objects of a channel: what its owner sends, and what it received and must retire.
//
// Both may wait in the outgoing queue: a packet with its data, a received packet with its completion.
// That is why both carry a buffer that takes the largest packet of the channel: a send or a completion
// can wait, but it cannot fail for lack of memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/ids.h"

namespace kmcl::channel {

class Channel;
struct SynchronousWait;

// How an accepted packet ended. The edge turns it into an NTSTATUS.
enum class Outcome : std::uint8_t {
  kSuccess,
  kRemoved,    // the channel was closed, rescinded or disabled first
  kCancelled,  // this packet alone was given up: a time-out
};

// What may stand in the outgoing queue.
struct Outgoing {
  enum class Kind : std::uint8_t { kData, kCompletion };
  Outgoing* next = nullptr;
  wire::TransactionId transaction_id{};
  std::uint32_t queued_bytes = 0;  // of the buffer, while queued
  Kind kind = Kind::kData;
};

// A packet object that the channel's owner sends (VMBPACKET). Between a successful send and its
// completion the library owns it; otherwise the channel's owner does.
struct alignas(16) Packet : Outgoing {
  enum class State : std::uint8_t {
    kIdle,      // the channel's owner has it
    kQueued,    // waits for room, or for the channel to run
    kInFlight,  // in the ring: waits for the completion packet
    kEnding,    // on the way to its completion routine, at whose call it is idle again
  };

  // For the edge; nothing here looks at them.
  void* pointer = nullptr;
  void (*routine)() = nullptr;
  void (*routine_with_context)() = nullptr;
  void* routine_context = nullptr;

  Channel* channel = nullptr;
  SynchronousWait* waiter = nullptr;  // of a synchronous request
  // The memory that the packet describes: the header of a GPA-direct packet, valid until the packet has
  // ended; and what the handler keeps for it until Handler::OnExternalDone. Empty: data in band.
  std::span<const std::byte> external{};
  void* transfer = nullptr;
  // Links of the in-flight set, in send order, and of its hash chain.
  Packet* older = nullptr;
  Packet* newer = nullptr;
  Packet* chain = nullptr;
  std::uint32_t capacity = 0;
  // For the edge, too: sends of fewer bytes need no closer look. At first one more than the capacity.
  std::uint32_t send_limit = 0;
  std::uint32_t external_room = 0;  // bytes for `external` behind the buffer
  std::atomic<State> state{State::kIdle};
  bool wants_completion = false;
  bool in_caller_memory = false;
  bool counts = false;  // against the channel's maximum of packets
  Packet* next_idle = nullptr;  // in the lookaside list

  // The owner's bytes in this object, 16-byte aligned; null when there are none.
  void* inline_context = nullptr;
  std::uint32_t inline_context_bytes = 0;

  std::byte* buffer() { return reinterpret_cast<std::byte*>(this + 1); }
  std::span<std::byte> room_for_external() {
    return {buffer() + (std::size_t{capacity} + 7) / 8 * 8, external_room};
  }
};

// One packet that was received and not retired yet (VMBPACKETCOMPLETION), in private memory.
struct alignas(16) IncomingPacket : Outgoing {
  Channel* channel = nullptr;
  std::span<std::byte> header;   // type-specific header of the ring packet
  std::span<std::byte> payload;  // what the channel's owner sees
  void* context = nullptr;       // the owner's bytes for this packet, zeroed, 16-byte aligned
  IncomingPacket* next_free = nullptr;
  std::uint32_t capacity = 0;  // of buffer()
  bool wants_completion = false;
  // May have a header, external data and a view of it, or a buffer of another size than most:
  // whoever takes it back has to look closer.
  bool is_unusual = true;
  bool external_data = false;  // `header` describes memory of the peer's
  // The handler's view of that memory, and how it is let go of when the packet is retired.
  void* external_view = nullptr;
  void (*release_external_view)(void* view) = nullptr;
  std::atomic<bool> outstanding{false};  // delivered and not retired

  std::byte* buffer() { return reinterpret_cast<std::byte*>(this + 1); }
};

inline void ReleaseExternalView(IncomingPacket& packet) {
  if (packet.external_view == nullptr) return;
  packet.release_external_view(packet.external_view);
  packet.external_view = nullptr;
}

// A first-in first-out queue threaded through the objects themselves.
class OutgoingQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  std::uint64_t size() const { return size_; }
  Outgoing* front() const { return head_; }

  void Push(Outgoing& item) {
    item.next = nullptr;
    if (head_ == nullptr) {
      head_ = &item;
    } else {
      tail_->next = &item;
    }
    tail_ = &item;
    ++size_;
  }

  Outgoing* Pop() {
    Outgoing* item = head_;
    if (item != nullptr) Unlink(nullptr, item);
    return item;
  }

  // Takes `item` out; `before` is the item that precedes it, or nullptr for the first.
  void Unlink(Outgoing* before, Outgoing* item) {
    (before == nullptr ? head_ : before->next) = item->next;
    if (tail_ == item) tail_ = before;
    item->next = nullptr;
    --size_;
  }

  // Puts all of `others` in front, in their order.
  void Prepend(OutgoingQueue& others) {
    if (others.empty()) return;
    others.tail_->next = head_;
    if (head_ == nullptr) tail_ = others.tail_;
    head_ = others.head_;
    size_ += others.size_;
    others = OutgoingQueue{};
  }

  // Takes `item` out wherever it is. False if it is not here.
  bool Remove(const Outgoing& item) {
    Outgoing* before = nullptr;
    for (Outgoing* each = head_; each != nullptr; before = each, each = each->next) {
      if (each != &item) continue;
      Unlink(before, each);
      return true;
    }
    return false;
  }

 private:
  Outgoing* head_ = nullptr;
  Outgoing* tail_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace kmcl::channel
