// The packet objects that one channel sends: their layout, and a lookaside list of idle ones.
#pragma once

#include <cstdint>

#include "channel/config.h"
#include "channel/packet.h"
#include "mutex.h"
#include "result.h"

namespace kmcl::channel {

class Sender;

class PacketPool {
 public:
  // Both outlive the pool.
  PacketPool(Channel& channel, Sender& sender) : channel_(channel), sender_(sender) {}
  ~PacketPool();
  PacketPool(const PacketPool&) = delete;
  PacketPool& operator=(const PacketPool&) = delete;

  // The owner's packets count against its maximum.
  enum class For : std::uint8_t { kOwner, kLibrary };
  // nullptr without memory, or beyond the maximum.
  Packet* Take(For who) KMCL_EXCLUDES(mutex_);
  void Free(Packet& packet) KMCL_EXCLUDES(mutex_);
  // Instead of Free, for a packet of Initialize.
  void Forget(Packet& packet) KMCL_EXCLUDES(mutex_);

  std::uint32_t object_bytes() const;
  Packet* Initialize(void* memory);

  // Fills the lookaside list up to the maximum of packets, if one is set. kOutOfMemory.
  [[nodiscard]] Result<void> Preallocate() KMCL_EXCLUDES(mutex_);
  // The lookaside list keeps packets from the first turn after a sleep to the next sleep; with a
  // maximum of packets, for ever.
  void KeepIdle() KMCL_EXCLUDES(mutex_);
  void TrimIdle() KMCL_EXCLUDES(mutex_);

 private:
  Packet* New();
  static void Delete(Packet& packet);
  const Config& config() const;

  Channel& channel_;
  Sender& sender_;
  Mutex mutex_;
  Packet* idle_ KMCL_GUARDED_BY(mutex_) = nullptr;
  std::uint32_t idle_count_ KMCL_GUARDED_BY(mutex_) = 0;
  bool keeping_ KMCL_GUARDED_BY(mutex_) = false;
  std::uint32_t count_ KMCL_GUARDED_BY(mutex_) = 0;         // allocated, idle ones included
  std::uint32_t owners_count_ KMCL_GUARDED_BY(mutex_) = 0;  // in the owner's hands
};

}  // namespace kmcl::channel
