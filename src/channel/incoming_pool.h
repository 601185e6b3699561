// Where a channel's incoming packet objects come from: made when needed, kept while the channel is
// busy, given back when it falls asleep, so that an idle channel holds none.
//
// Whoever delivers takes from and puts back into a list of its own; other threads put into a second
// one, which is taken over as a whole when the first is empty. No lock: the second list is only
// ever pushed to or emptied, so a head that has come back means what it did.
#pragma once

#include <atomic>
#include <cstdint>

#include "channel/packet.h"

namespace kmcl::channel {

class IncomingPool {
 public:
  ~IncomingPool() { Trim(); }

  // Sizes of the objects made from now on: room for `packet_bytes` of payload, `context_bytes`, and
  // `header_bytes` that describe external data.
  void Configure(std::uint32_t packet_bytes, std::uint32_t context_bytes,
                 std::uint32_t header_bytes = 0);

  // Of whoever delivers. An object with room for at least `bytes`; nullptr without memory.
  IncomingPacket* Take(std::uint32_t bytes);
  // The next of the standard size that Take would give without looking further; nullptr if it would
  // have to. TakeFirst takes it. It is not unusual.
  IncomingPacket* first() const { return free_; }
  void TakeFirst() { free_ = free_->next_free; }
  void PutHere(IncomingPacket& packet) {
    if (packet.is_unusual && !MakeUsual(packet)) [[unlikely]]
      return Destroy(packet);
    PutUsualHere(packet);
  }
  void PutUsualHere(IncomingPacket& packet) {
    packet.next_free = free_;
    free_ = &packet;
  }
  // Gives all free objects back to the system, and those that are put back until the next Take.
  void Trim();

  // Any thread.
  void Put(IncomingPacket& packet);

 private:
  IncomingPacket* Make(std::uint32_t bytes) const;
  // False if it never can be one of the others again.
  bool MakeUsual(IncomingPacket& packet) const;
  static void Destroy(IncomingPacket& packet);
  static void DestroyAll(IncomingPacket* list);
  // In returned_: nothing is kept.
  static IncomingPacket* Nothing() {
    return reinterpret_cast<IncomingPacket*>(alignof(IncomingPacket));
  }

  std::uint32_t standard_bytes_ = 0;
  std::uint32_t context_bytes_ = 0;
  IncomingPacket* free_ = nullptr;  // of whoever delivers
  std::atomic<IncomingPacket*> returned_{Nothing()};
};

}  // namespace kmcl::channel
