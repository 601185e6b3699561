// The packets of one channel that wait for the other end's completion, found by transaction id.
//
// Threaded through the packets themselves, so that entering one can never fail. Ids count up from 1 and
// are never used twice on a channel: a late or invented completion finds nothing. (0 is not used: Hyper-V
// does not complete packets with id 0, VMBus reference 1.5.3.)
//
// Not locked: the sender's lock guards it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <new>

#include "channel/packet.h"

namespace kmcl::channel {

class Transactions {
 public:
  // The id that Enter will give.
  wire::TransactionId next_id() const { return wire::TransactionId{last_id_ + 1}; }

  std::uint64_t last_id() const { return last_id_; }

  // Gives `packet` that id and enters it as the newest.
  void Enter(Packet& packet) {
    packet.transaction_id = wire::TransactionId{++last_id_};
    Insert(packet);
  }

  // Enters a restored packet under the id that it has, as the newest: ids in rising order.
  void Reenter(Packet& packet) {
    KeepBelow(static_cast<std::uint64_t>(packet.transaction_id));
    Insert(packet);
  }
  // From now on ids are above this one.
  void KeepBelow(std::uint64_t id) {
    if (last_id_ < id) last_id_ = id;
  }

  // Takes out the packet with this id; nullptr when there is none.
  Packet* Take(wire::TransactionId id) {
    for (Packet** link = &Bucket(id); *link != nullptr; link = &(*link)->chain) {
      Packet* packet = *link;
      if (packet->transaction_id != id) continue;
      *link = packet->chain;
      (packet->older == nullptr ? oldest_ : packet->older->newer) = packet->newer;
      (packet->newer == nullptr ? newest_ : packet->newer->older) = packet->older;
      packet->chain = packet->older = packet->newer = nullptr;
      --size_;
      return packet;
    }
    return nullptr;
  }

  Packet* TakeOldest() { return oldest_ == nullptr ? nullptr : Take(oldest_->transaction_id); }

  Packet* oldest() const { return oldest_; }
  std::uint32_t size() const { return size_; }

  // Makes lookups of up to `packets` entries quick. Called when packet objects are made, so that the
  // packet path never allocates. Without memory the chains grow longer, nothing else.
  void Reserve(std::uint32_t packets) {
    std::uint32_t wanted = bucket_count_;
    while (wanted < packets && wanted < kMostBuckets) wanted *= 4;
    if (wanted == bucket_count_) return;
    std::unique_ptr<Packet*[]> larger(new (std::nothrow) Packet*[wanted]());
    if (larger == nullptr) return;
    heap_buckets_ = std::move(larger);
    bucket_count_ = wanted;
    few_buckets_.fill(nullptr);
    for (Packet* packet = oldest_; packet != nullptr; packet = packet->newer) {
      Packet*& bucket = Bucket(packet->transaction_id);
      packet->chain = bucket;
      bucket = packet;
    }
  }

 private:
  static constexpr std::uint32_t kFewBuckets = 8;
  static constexpr std::uint32_t kMostBuckets = kFewBuckets << 16;

  void Insert(Packet& packet) {
    Packet*& bucket = Bucket(packet.transaction_id);
    packet.chain = bucket;
    bucket = &packet;
    packet.newer = nullptr;
    packet.older = newest_;
    (newest_ == nullptr ? oldest_ : newest_->newer) = &packet;
    newest_ = &packet;
    ++size_;
  }

  Packet*& Bucket(wire::TransactionId id) {
    Packet** buckets = heap_buckets_ ? heap_buckets_.get() : few_buckets_.data();
    return buckets[static_cast<std::uint64_t>(id) & (bucket_count_ - 1)];
  }

  std::uint64_t last_id_ = 0;
  Packet* oldest_ = nullptr;
  Packet* newest_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t bucket_count_ = kFewBuckets;
  std::array<Packet*, kFewBuckets> few_buckets_{};
  std::unique_ptr<Packet*[]> heap_buckets_;
};

}  // namespace kmcl::channel
