// Where a channel's incoming packet objects come from: made when needed, kept while the channel is
// busy, given back when it falls asleep, so that an idle channel holds none.
//
// Take and Trim belong to whoever delivers; Put may be called from any thread.
#pragma once

#include <cstdint>

#include "channel/packet.h"
#include "mutex.h"

namespace kmcl::channel {

class IncomingPool {
 public:
  ~IncomingPool() { Trim(); }

  // Sizes of the objects made from now on: room for `packet_bytes` of payload, `context_bytes`, and
  // `header_bytes` that describe external data.
  void Configure(std::uint32_t packet_bytes, std::uint32_t context_bytes,
                 std::uint32_t header_bytes = 0);

  // An object with room for at least `bytes`; nullptr without memory.
  IncomingPacket* Take(std::uint32_t bytes) KMCL_EXCLUDES(mutex_);
  void Put(IncomingPacket& packet) KMCL_EXCLUDES(mutex_);
  // Gives all free objects back to the system, and those that are put back until the next Take.
  void Trim() KMCL_EXCLUDES(mutex_);

 private:
  IncomingPacket* Make(std::uint32_t bytes) const;

  std::uint32_t standard_bytes_ = 0;
  std::uint32_t context_bytes_ = 0;
  IncomingPacket* free_ = nullptr;  // of whoever delivers
  Mutex mutex_;
  IncomingPacket* returned_ KMCL_GUARDED_BY(mutex_) = nullptr;
  bool keeping_ KMCL_GUARDED_BY(mutex_) = false;
};

}  // namespace kmcl::channel
