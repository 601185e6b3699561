#include "channel/packet_pool.h"

#include <cinttypes>
#include <cstring>
#include <new>
#include <utility>

#include "channel/channel.h"
#include "log.h"

namespace kmcl::channel {
namespace {

constexpr std::uint32_t kMostIdlePackets = 256;  // in a busy channel's lookaside list
constexpr std::size_t kPacketAlignment = 16;
static_assert(alignof(Packet) <= kPacketAlignment && sizeof(Packet) % kPacketAlignment == 0);

// `unit` is a power of two.
constexpr std::uint32_t RoundUp(std::uint32_t bytes, std::uint32_t unit) {
  return (bytes + unit - 1) & ~(unit - 1);
}

// Where a packet's inline context stands in its buffer, at a multiple of `unit`.
std::uint32_t InlineContextOffset(const Config& config, std::uint32_t unit) {
  return RoundUp(RoundUp(config.maximum_packet_bytes, 8) + ExternalRoom(config), unit);
}

}  // namespace

PacketPool::~PacketPool() {
  TrimIdle();
  MutexLock lock(mutex_);
  if (count_ != 0) {
    Log(LogLevel::kError, "a channel goes while its owner still has %" PRIu32 " of its packets",
        count_);
  }
}

const Config& PacketPool::config() const { return channel_.config(); }

// [Packet | payload | description of external data | inline context]
std::uint32_t PacketPool::object_bytes() const {
  const std::uint32_t inline_bytes = config().inline_context_bytes;
  return static_cast<std::uint32_t>(sizeof(Packet)) +
         (inline_bytes == 0 ? InlineContextOffset(config(), 8)
                            : InlineContextOffset(config(), 16) + RoundUp(inline_bytes, 16));
}

Packet* PacketPool::Initialize(void* memory) {
  auto* packet = new (memory) Packet;
  packet->channel = &channel_;
  packet->capacity = config().maximum_packet_bytes;
  packet->send_limit = packet->capacity + 1;
  packet->external_room = ExternalRoom(config());
  packet->in_caller_memory = true;
  if (config().inline_context_bytes != 0) {
    packet->inline_context_bytes = config().inline_context_bytes;
    packet->inline_context = packet->buffer() + InlineContextOffset(config(), 16);
    std::memset(packet->inline_context, 0, packet->inline_context_bytes);
  }
  return packet;
}

Packet* PacketPool::New() {
  void* memory = ::operator new(object_bytes(), std::align_val_t{kPacketAlignment}, std::nothrow);
  if (memory == nullptr) return nullptr;
  Packet* const packet = Initialize(memory);
  packet->in_caller_memory = false;
  return packet;
}

void PacketPool::Delete(Packet& packet) {
  packet.~Packet();
  ::operator delete(&packet, std::align_val_t{kPacketAlignment});
}

Packet* PacketPool::Take(For who) {
  const bool counts = who == For::kOwner;
  Packet* packet = nullptr;
  std::uint32_t count = 0;
  {
    MutexLock lock(mutex_);
    if (counts && config().maximum_packets != 0 && owners_count_ >= config().maximum_packets) {
      return nullptr;
    }
    // One whose layout is still the right one: the Init window may have been used since.
    while (packet == nullptr && idle_ != nullptr) {
      Packet* const idle = std::exchange(idle_, idle_->next_idle);
      --idle_count_;
      if (idle->capacity == config().maximum_packet_bytes &&
          idle->external_room == ExternalRoom(config()) &&
          idle->inline_context_bytes == config().inline_context_bytes) {
        packet = idle;
      } else {
        --count_;
        Delete(*idle);
      }
    }
    if (packet == nullptr && (!counts || !config().watched)) count = ++count_;
    if (counts) ++owners_count_;
  }
  if (packet != nullptr) {
    packet->next_idle = nullptr;
    if (packet->inline_context != nullptr) {
      std::memset(packet->inline_context, 0, packet->inline_context_bytes);
    }
  } else {
    packet = count == 0 ? channel_.handler().OnAllocatePacket() : New();
    if (packet == nullptr) {
      MutexLock lock(mutex_);
      if (count != 0) --count_;
      if (counts) --owners_count_;
      return nullptr;
    }
    if (count != 0) sender_.ReserveTransactions(count);
  }
  packet->counts = counts;
  return packet;
}

void PacketPool::Forget(Packet& packet) {
  MutexLock lock(mutex_);
  if (std::exchange(packet.counts, false)) --owners_count_;
}

void PacketPool::Free(Packet& packet) {
  packet.pointer = nullptr;
  packet.routine = nullptr;
  packet.waiter = nullptr;
  {
    MutexLock lock(mutex_);
    if (std::exchange(packet.counts, false)) --owners_count_;
    const std::uint32_t most =
        config().maximum_packets != 0 ? config().maximum_packets : kMostIdlePackets;
    if (keeping_ && idle_count_ < most) {
      packet.next_idle = idle_;
      idle_ = &packet;
      ++idle_count_;
      return;
    }
    --count_;
  }
  Delete(packet);
}

Result<void> PacketPool::Preallocate() {
  const std::uint32_t wanted = config().maximum_packets;
  if (wanted == 0 || config().watched) return {};
  sender_.ReserveTransactions(wanted);
  for (;;) {
    {
      MutexLock lock(mutex_);
      keeping_ = true;
      if (count_ >= wanted) return {};
      ++count_;
    }
    Packet* const packet = New();
    MutexLock lock(mutex_);
    if (packet == nullptr) {
      --count_;
      return std::unexpected(Error::kOutOfMemory);
    }
    packet->next_idle = std::exchange(idle_, packet);
    ++idle_count_;
  }
}

void PacketPool::KeepIdle() {
  MutexLock lock(mutex_);
  keeping_ = !config().watched;  // none that the watching owner does not know
}

void PacketPool::TrimIdle() {
  Packet* idle = nullptr;
  {
    MutexLock lock(mutex_);
    keeping_ = false;
    idle = std::exchange(idle_, nullptr);
    count_ -= std::exchange(idle_count_, 0);
  }
  while (idle != nullptr) Delete(*std::exchange(idle, idle->next_idle));
}

}  // namespace kmcl::channel
