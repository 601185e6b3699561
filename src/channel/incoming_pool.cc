#include "channel/incoming_pool.h"

#include <algorithm>
#include <new>
#include <utility>

namespace kmcl::channel {
namespace {

// Type-specific headers of up to two small ranges always fit beside the largest payload; a packet that
// describes more than the channel is set up for gets an object of its own size.
constexpr std::uint32_t kLeastHeaderRoom = 64;
constexpr std::uint32_t kContextAlignment = 16;

constexpr std::uint32_t AlignContext(std::uint32_t bytes) {
  return (bytes + kContextAlignment - 1) & ~(kContextAlignment - 1);
}

static_assert(sizeof(IncomingPacket) % kContextAlignment == 0);

}  // namespace

void IncomingPool::Configure(std::uint32_t packet_bytes, std::uint32_t context_bytes,
                             std::uint32_t header_bytes) {
  Trim();
  standard_bytes_ = AlignContext(packet_bytes + std::max(header_bytes, kLeastHeaderRoom));
  context_bytes_ = context_bytes;
}

IncomingPacket* IncomingPool::Make(std::uint32_t bytes) const {
  const std::uint32_t capacity = AlignContext(bytes);
  void* memory = ::operator new(
      sizeof(IncomingPacket) + std::size_t{capacity} + AlignContext(context_bytes_),
      std::align_val_t{kContextAlignment}, std::nothrow);
  if (memory == nullptr) return nullptr;
  auto* packet = new (memory) IncomingPacket;
  packet->capacity = capacity;
  packet->context = context_bytes_ == 0 ? nullptr : packet->buffer() + capacity;
  return packet;
}

void IncomingPool::Destroy(IncomingPacket& packet) {
  packet.~IncomingPacket();
  ::operator delete(&packet, std::align_val_t{kContextAlignment});
}

void IncomingPool::DestroyAll(IncomingPacket* list) {
  while (list != nullptr) Destroy(*std::exchange(list, list->next_free));
}

IncomingPacket* IncomingPool::Take(std::uint32_t bytes) {
  if (bytes > standard_bytes_) return Make(bytes);
  if (free_ == nullptr) {
    // Acquire: what others did with the objects is over. From here on they are kept.
    IncomingPacket* const returned = returned_.exchange(nullptr, std::memory_order_acquire);
    if (returned != Nothing()) free_ = returned;
  }
  if (free_ == nullptr) return Make(standard_bytes_);
  return std::exchange(free_, free_->next_free);
}

bool IncomingPool::MakeUsual(IncomingPacket& packet) const {
  ReleaseExternalView(packet);
  packet.external_data = false;
  packet.header = {};
  packet.is_unusual = false;
  return packet.capacity == standard_bytes_;
}

void IncomingPool::Put(IncomingPacket& packet) {
  if (packet.is_unusual && !MakeUsual(packet)) return Destroy(packet);
  IncomingPacket* head = returned_.load(std::memory_order_relaxed);
  do {
    if (head == Nothing()) return Destroy(packet);
    packet.next_free = head;
  } while (!returned_.compare_exchange_weak(head, &packet, std::memory_order_release,
                                            std::memory_order_relaxed));
}

void IncomingPool::Trim() {
  IncomingPacket* const returned = returned_.exchange(Nothing(), std::memory_order_acquire);
  if (returned != Nothing()) DestroyAll(returned);
  DestroyAll(std::exchange(free_, nullptr));
}

}  // namespace kmcl::channel
