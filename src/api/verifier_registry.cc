#include "api/verifier_registry.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace kmcl::api::verifier {
namespace {

// kmcl/verifier.h tells these.
constexpr std::size_t kMostKept = 4096;
constexpr std::size_t kMostKeptBytes = std::size_t{16} << 20;

// What freed memory is filled with; as a pointer, one that can never be followed.
constexpr std::byte kPoison{0xF5};
void* PoisonPointer() { return reinterpret_cast<void*>(0xF5F5F5F5F5F5F5F5); }

bool IsPoison(const std::byte* bytes, std::size_t count) {
  return std::all_of(bytes, bytes + count, [](std::byte each) { return each == kPoison; });
}

std::size_t BufferBytes(const DeliveryRecord& record) {
  return record.bytes - sizeof(channel::IncomingPacket);
}
std::size_t BufferBytes(const PacketRecord& record) {
  return record.bytes - sizeof(channel::Packet);
}

}  // namespace

Registry& Registry::Get() {
  static auto* const registry = new Registry;
  return *registry;
}

// ---- Channels.

void Registry::AddChannel(const void* handle, ChannelRecord record) {
  MutexLock lock(mutex_);
  channels_[handle] = record;
}

std::optional<ChannelRecord> Registry::FindChannel(const void* handle) {
  MutexLock lock(mutex_);
  const auto found = channels_.find(handle);
  if (found == channels_.end()) return std::nullopt;
  return found->second;
}

std::vector<ChannelRecord> Registry::ChannelsOf(const DeviceBinding& binding) {
  std::vector<ChannelRecord> found;
  MutexLock lock(mutex_);
  for (const auto& [handle, record] : channels_) {
    if (record.binding == &binding && !record.cleaned_up) found.push_back(record);
  }
  return found;
}

std::optional<ChannelRecord> Registry::FindSuspend(std::uint64_t suspend) {
  MutexLock lock(mutex_);
  for (const auto& [handle, record] : channels_) {
    if (record.suspends == suspend && record.suspended && !record.cleaned_up) return record;
  }
  return std::nullopt;
}

std::uint64_t Registry::NumberSuspend() {
  MutexLock lock(mutex_);
  return ++suspends_;
}

std::vector<PacketRecord> Registry::RetireChannel(const void* handle, const Site& site) {
  std::vector<PacketRecord> leaked;
  std::vector<ChannelObject*> evicted;
  {
    MutexLock lock(mutex_);
    const auto found = channels_.find(handle);
    if (found == channels_.end()) return leaked;
    for (auto& [packet, record] : packets_) {
      if (record.channel != handle || !record.is_allocated ||
          record.state == PacketRecord::State::kFreed) {
        continue;
      }
      leaked.push_back(record);
      RetirePacketLocked(*static_cast<channel::Packet*>(const_cast<void*>(packet)), record, site);
    }
    found->second.cleaned_up = site;
    found->second.binding = nullptr;  // the endpoint may go, and another one take its address
    // After its packets, so that it goes after them.
    Keep(Kind::kChannel, found->second.object, sizeof(ChannelObject) + sizeof(channel::Channel));
    evicted = Evict();
  }
  Destroy(evicted);
  return leaked;
}

// ---- Packets to send.

void Registry::AddPacket(const void* packet, PacketRecord record) {
  MutexLock lock(mutex_);
  packets_[packet] = record;
}

std::optional<PacketRecord> Registry::FindPacket(const void* packet) {
  MutexLock lock(mutex_);
  const auto found = packets_.find(packet);
  if (found == packets_.end()) return std::nullopt;
  return found->second;
}

void Registry::RetirePacketLocked(channel::Packet& packet, PacketRecord& record, const Site& site) {
  record.state = PacketRecord::State::kFreed;
  record.freed = site;
  packet.pointer = PoisonPointer();
  packet.routine = reinterpret_cast<void (*)()>(PoisonPointer());
  std::memset(packet.buffer(), static_cast<int>(kPoison), BufferBytes(record));
  Keep(Kind::kPacket, &packet, record.bytes);
}

void Registry::RetirePacket(channel::Packet& packet, const Site& site) {
  std::vector<ChannelObject*> evicted;
  {
    MutexLock lock(mutex_);
    const auto found = packets_.find(&packet);
    if (found == packets_.end()) return;
    RetirePacketLocked(packet, found->second, site);
    evicted = Evict();
  }
  Destroy(evicted);
}

// ---- Received packets.

void Registry::AddDelivery(const void* packet, DeliveryRecord record) {
  MutexLock lock(mutex_);
  deliveries_[packet] = record;
}

std::optional<DeliveryRecord> Registry::FindDelivery(const void* packet) {
  MutexLock lock(mutex_);
  const auto found = deliveries_.find(packet);
  if (found == deliveries_.end()) return std::nullopt;
  return found->second;
}

std::optional<DeliveryRecord> Registry::TakeDelivery(const void* packet,
                                                     channel::Handler::Retire as,
                                                     const Site& site) {
  MutexLock lock(mutex_);
  const auto found = deliveries_.find(packet);
  if (found == deliveries_.end()) return std::nullopt;
  const DeliveryRecord before = found->second;
  if (before.real != nullptr) {
    found->second.real = nullptr;
    found->second.retired_as = as;
    found->second.retired = site;
  }
  return before;
}

void Registry::UntakeDelivery(const void* packet, const DeliveryRecord& record) {
  MutexLock lock(mutex_);
  deliveries_[packet] = record;
}

void Registry::RetireDelivery(channel::IncomingPacket& packet) {
  std::vector<ChannelObject*> evicted;
  {
    MutexLock lock(mutex_);
    const auto found = deliveries_.find(&packet);
    if (found == deliveries_.end()) return;
    packet.context = nullptr;
    std::memset(packet.buffer(), static_cast<int>(kPoison), BufferBytes(found->second));
    Keep(Kind::kDelivery, &packet, found->second.bytes);
    evicted = Evict();
  }
  Destroy(evicted);
}

std::vector<DeliveryRecord> Registry::Outstanding(const void* channel) {
  std::vector<DeliveryRecord> outstanding;
  MutexLock lock(mutex_);
  for (const auto& [packet, record] : deliveries_) {
    if (record.channel == channel && record.real != nullptr) outstanding.push_back(record);
  }
  std::sort(outstanding.begin(), outstanding.end(),
            [](const DeliveryRecord& a, const DeliveryRecord& b) {
              return a.delivered.at < b.delivered.at;
            });
  return outstanding;
}

// ---- What was freed.

void Registry::Keep(Kind kind, void* object, std::size_t bytes) {
  kept_.push_back({kind, object, bytes});
  kept_bytes_ += bytes;
}

void Registry::LookForDamage(const Kept& kept) {
  if (kept.kind == Kind::kPacket) {
    auto& packet = *static_cast<channel::Packet*>(kept.object);
    const PacketRecord& record = packets_.at(kept.object);
    if (packet.pointer == PoisonPointer() &&
        reinterpret_cast<void*>(packet.routine) == PoisonPointer() &&
        IsPoison(packet.buffer(), BufferBytes(record))) {
      return;
    }
    damage_.push_back({.is_delivery = false,
                       .object = kept.object,
                       .channel = record.channel,
                       .created = record.created,
                       .freed = record.freed});
    packet.pointer = PoisonPointer();
    packet.routine = reinterpret_cast<void (*)()>(PoisonPointer());
    std::memset(packet.buffer(), static_cast<int>(kPoison), BufferBytes(record));
  } else if (kept.kind == Kind::kDelivery) {
    auto& packet = *static_cast<channel::IncomingPacket*>(kept.object);
    const DeliveryRecord& record = deliveries_.at(kept.object);
    if (IsPoison(packet.buffer(), BufferBytes(record))) return;
    damage_.push_back({.is_delivery = true,
                       .object = kept.object,
                       .channel = record.channel,
                       .created = record.delivered,
                       .freed = record.retired});
    std::memset(packet.buffer(), static_cast<int>(kPoison), BufferBytes(record));
  }
}

std::vector<ChannelObject*> Registry::Evict() {
  std::vector<ChannelObject*> evicted;
  while (kept_.size() > kMostKept || kept_bytes_ > kMostKeptBytes) {
    const Kept oldest = kept_.front();
    kept_.pop_front();
    kept_bytes_ -= oldest.bytes;
    LookForDamage(oldest);
    switch (oldest.kind) {
      case Kind::kPacket:
        packets_.erase(oldest.object);
        static_cast<channel::Packet*>(oldest.object)->~Packet();
        ::operator delete(oldest.object, kPacketAlignment);
        break;
      case Kind::kDelivery:
        deliveries_.erase(oldest.object);
        static_cast<channel::IncomingPacket*>(oldest.object)->~IncomingPacket();
        ::operator delete(oldest.object, kPacketAlignment);
        break;
      case Kind::kChannel:
        // Those in the driver's memory.
        std::erase_if(packets_,
                      [&](const auto& entry) { return entry.second.channel == oldest.object; });
        channels_.erase(oldest.object);
        evicted.push_back(static_cast<ChannelObject*>(oldest.object));
        break;
    }
  }
  return evicted;
}

void Registry::Destroy(const std::vector<ChannelObject*>& channels) {
  for (ChannelObject* const channel : channels) delete channel;
}

std::vector<Damage> Registry::TakeDamage(const void* channel) {
  MutexLock lock(mutex_);
  if (channel != nullptr) {
    for (const Kept& kept : kept_) {
      if ((kept.kind == Kind::kPacket && packets_.at(kept.object).channel == channel) ||
          (kept.kind == Kind::kDelivery && deliveries_.at(kept.object).channel == channel)) {
        LookForDamage(kept);
      }
    }
  }
  return std::exchange(damage_, {});
}

}  // namespace kmcl::api::verifier
