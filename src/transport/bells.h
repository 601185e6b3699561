// Bells: a flag for each channel in a shared page, and a socket that wakes whoever sleeps.
//
// The first pages of the donated memory are bell pages, one for each pair of inboxes, laid out like
// the interrupt page of old VMBus clients (VMBus reference 3.7): bytes 0 to 2047 are flags from
// server to client, the rest from client to server, bit n for channel n. Only the first 2,048 bits
// of each half are used.
//
// The wake-up is a datagram on one connected pair of Unix sockets for each pair of inboxes, not an
// eventfd: both ends of an eventfd are one open file, so a hostile peer could clear its O_NONBLOCK,
// fill its counter, and hold our thread in write() for good. Sockets at two ends are two open
// files, and MSG_DONTWAIT asks nobody.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "transport/descriptor.h"
#include "transport/link.h"

namespace kmcl::transport {

inline constexpr std::uint32_t kMaximumBellCount = 16;

enum class Side : bool { kServer, kClient };

// All bells of one end of a link. A Doorbell may be rung by anyone and borrows from this object;
// each inbox belongs to one thread.
class Bells {
 public:
  // The sockets of both ends, for `count` (1 to 16) pairs. kOutOfDescriptors, kSystemCall.
  struct Sockets {
    std::vector<Descriptor> server;
    std::vector<Descriptor> client;
  };
  [[nodiscard]] static Result<Sockets> MakeSockets(std::uint32_t count);
  // Whether descriptors that a peer passed can serve as our sockets.
  static bool AreSockets(const std::vector<Descriptor>& sockets);

  Bells() = default;  // none yet
  // `pages` maps a bell page for each socket.
  Bells(Side side, Mapping pages, std::vector<Descriptor> sockets);

  std::uint32_t count() const { return static_cast<std::uint32_t>(inboxes_.size()); }
  BellInbox& inbox(std::uint32_t index);
  std::unique_ptr<Doorbell> MakeDoorbell(wire::ChannelId channel, std::uint32_t index);

 private:
  class Inbox;
  class SocketDoorbell;

  std::byte* Flags(std::uint32_t index, Side from) const;

  Side side_ = Side::kServer;
  Mapping pages_;
  std::vector<Descriptor> sockets_;
  std::vector<std::unique_ptr<BellInbox>> inboxes_;
};

}  // namespace kmcl::transport
