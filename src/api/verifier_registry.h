// What the verifier knows: every watched channel and packet, and what was freed lately.
//
// Freed objects stay where they are for a while, poisoned, so that a stale handle is recognised and
// a write to freed memory found. Any thread; nothing here reports, as nothing may be told under the
// lock.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "api/objects.h"
#include "api/verifier_site.h"
#include "mutex.h"

namespace kmcl::api::verifier {

struct ChannelRecord {
  ChannelObject* object = nullptr;
  const DeviceBinding* binding = nullptr;
  bool is_server = false;
  Site allocated;
  Site enabled;
  Site stopping;  // the last VmbChannelPause or Disable
  const char* stopping_function = nullptr;
  Site suspended;              // while no sends are expected
  std::uint64_t suspends = 0;  // counts them
  Site cleaned_up;             // set: stale
};

// A packet to send.
struct PacketRecord {
  enum class State : std::uint8_t { kHeld, kInFlight, kFreed };
  State state = State::kHeld;
  bool is_allocated = false;  // else initialized in the driver's memory
  const void* channel = nullptr;
  std::size_t bytes = 0;
  Site created;
  Site sent;
  Site freed;
  void (*routine)() = nullptr;  // at the last send
};

// A received packet: what the driver has in its place.
struct DeliveryRecord {
  channel::IncomingPacket* real = nullptr;  // nullptr: retired
  channel::Handler::Retire retired_as{};
  const void* channel = nullptr;
  const void* function = nullptr;  // that it was delivered to
  std::size_t bytes = 0;
  Site delivered;
  Site retired;
};

// What was found written after it was freed.
struct Damage {
  bool is_delivery = false;
  const void* object = nullptr;
  const void* channel = nullptr;
  Site created;
  Site freed;
};

class Registry {
 public:
  static Registry& Get();

  // ---- Channels.
  void AddChannel(const void* handle, ChannelRecord record) KMCL_EXCLUDES(mutex_);
  std::optional<ChannelRecord> FindChannel(const void* handle) KMCL_EXCLUDES(mutex_);
  // Calls `change` with the record, if there is one.
  template <typename Change>
  void ChangeChannel(const void* handle, Change change) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = channels_.find(handle);
    if (found != channels_.end()) change(found->second);
  }
  std::vector<ChannelRecord> ChannelsOf(const DeviceBinding& binding) KMCL_EXCLUDES(mutex_);
  std::optional<ChannelRecord> FindSuspend(std::uint64_t suspend) KMCL_EXCLUDES(mutex_);
  // A number for one Suspend, different from all others.
  std::uint64_t NumberSuspend() KMCL_EXCLUDES(mutex_);
  // The channel was cleaned up: keeps it for a while. Gives the packets that were never freed.
  std::vector<PacketRecord> RetireChannel(const void* handle, const Site& site)
      KMCL_EXCLUDES(mutex_);

  // ---- Packets to send.
  void AddPacket(const void* packet, PacketRecord record) KMCL_EXCLUDES(mutex_);
  std::optional<PacketRecord> FindPacket(const void* packet) KMCL_EXCLUDES(mutex_);
  template <typename Change>
  void ChangePacket(const void* packet, Change change) KMCL_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = packets_.find(packet);
    if (found != packets_.end()) change(found->second);
  }
  // Marks an allocated packet as freed and keeps its memory for a while.
  void RetirePacket(channel::Packet& packet, const Site& site) KMCL_EXCLUDES(mutex_);

  // ---- Received packets.
  void AddDelivery(const void* packet, DeliveryRecord record) KMCL_EXCLUDES(mutex_);
  std::optional<DeliveryRecord> FindDelivery(const void* packet) KMCL_EXCLUDES(mutex_);
  // Marks it as retired. The record as it was: one of several callers finds `real`. nullopt:
  // unknown.
  std::optional<DeliveryRecord> TakeDelivery(const void* packet, channel::Handler::Retire as,
                                             const Site& site) KMCL_EXCLUDES(mutex_);
  // It was not retired after all.
  void UntakeDelivery(const void* packet, const DeliveryRecord& record) KMCL_EXCLUDES(mutex_);
  // Keeps the memory of a retired one for a while.
  void RetireDelivery(channel::IncomingPacket& packet) KMCL_EXCLUDES(mutex_);
  std::vector<DeliveryRecord> Outstanding(const void* channel) KMCL_EXCLUDES(mutex_);

  // Damage found since the last call; with `channel`, after a look at all that it has freed.
  std::vector<Damage> TakeDamage(const void* channel) KMCL_EXCLUDES(mutex_);

 private:
  enum class Kind : std::uint8_t { kChannel, kPacket, kDelivery };
  struct Kept {
    Kind kind;
    void* object;
    std::size_t bytes;
  };

  void Keep(Kind kind, void* object, std::size_t bytes) KMCL_REQUIRES(mutex_);
  void RetirePacketLocked(channel::Packet& packet, PacketRecord& record, const Site& site)
      KMCL_REQUIRES(mutex_);
  void LookForDamage(const Kept& kept) KMCL_REQUIRES(mutex_);
  // Gives the oldest ones back. The channels among them go outside of the lock.
  std::vector<ChannelObject*> Evict() KMCL_REQUIRES(mutex_);
  static void Destroy(const std::vector<ChannelObject*>& channels);

  Mutex mutex_;
  std::unordered_map<const void*, ChannelRecord> channels_ KMCL_GUARDED_BY(mutex_);
  std::unordered_map<const void*, PacketRecord> packets_ KMCL_GUARDED_BY(mutex_);
  std::unordered_map<const void*, DeliveryRecord> deliveries_ KMCL_GUARDED_BY(mutex_);
  std::deque<Kept> kept_ KMCL_GUARDED_BY(mutex_);
  std::size_t kept_bytes_ KMCL_GUARDED_BY(mutex_) = 0;
  std::uint64_t suspends_ KMCL_GUARDED_BY(mutex_) = 0;
  std::vector<Damage> damage_ KMCL_GUARDED_BY(mutex_);
};

// The memory of packets, given back by the registry.
inline constexpr std::align_val_t kPacketAlignment{16};

}  // namespace kmcl::api::verifier
