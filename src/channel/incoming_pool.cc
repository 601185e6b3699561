#include "channel/incoming_pool.h"

#include <algorithm>
#include <new>

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

void Destroy(IncomingPacket* list) {
  while (list != nullptr) {
    IncomingPacket* const next = list->next_free;
    list->~IncomingPacket();
    ::operator delete(list, std::align_val_t{kContextAlignment});
    list = next;
  }
}

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

IncomingPacket* IncomingPool::Take(std::uint32_t bytes) {
  if (bytes > standard_bytes_) return Make(bytes);
  if (free_ == nullptr) {
    MutexLock lock(mutex_);
    keeping_ = true;
    free_ = returned_;
    returned_ = nullptr;
  }
  if (free_ == nullptr) return Make(standard_bytes_);
  IncomingPacket* const packet = free_;
  free_ = packet->next_free;
  return packet;
}

void IncomingPool::Put(IncomingPacket& packet) {
  ReleaseExternalView(packet);
  packet.next_free = nullptr;
  if (packet.capacity == standard_bytes_) {
    MutexLock lock(mutex_);
    if (keeping_) {
      packet.next_free = returned_;
      returned_ = &packet;
      return;
    }
  }
  Destroy(&packet);
}

void IncomingPool::Trim() {
  IncomingPacket* returned = nullptr;
  {
    MutexLock lock(mutex_);
    keeping_ = false;
    returned = returned_;
    returned_ = nullptr;
  }
  Destroy(returned);
  Destroy(free_);
  free_ = nullptr;
}

}  // namespace kmcl::channel
