// Bells: a flag for each channel in a shared page, and an eventfd that wakes whoever sleeps.
//
// The first pages of the donated memory are bell pages, one for each pair of inboxes, laid out like
// the interrupt page of old VMBus clients (VMBus reference 3.7): bytes 0 to 2047 are flags from
// server to client, the rest from client to server, bit n for channel n. Only the first 2,048 bits
// of each half are used.
//
// All who hold an eventfd hold the same open file: each of them can clear its O_NONBLOCK, fill its
// counter, and so hold a writer in write(). Hence nobody reads an eventfd (waiting is
// edge-triggered), and a stranger never holds one that we write: the server writes E and gives the
// client an epoll P that watches E; it waits on F and gives the client F to write.
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

// A server does not trust a client of another process; a client trusts its server not to hold it
// up.
enum class Peer : bool { kTrusted, kStranger };

// All bells of one end of a link. A Doorbell may be rung by anyone and borrows from this object;
// each inbox belongs to one thread.
class Bells {
 public:
  // What the ends hold of each pair of inboxes: at 2i what this end waits on, at 2i + 1 the eventfd
  // that it writes.
  struct Ends {
    std::vector<Descriptor> server;
    std::vector<Descriptor> client;
  };
  // For `count` (1 to 16) pairs. For a stranger, the client's ends are fit to be given away.
  // kOutOfDescriptors, kOutOfMemory, kSystemCall.
  [[nodiscard]] static Result<Ends> MakeEnds(std::uint32_t count, Peer client);
  // Whether descriptors that a server passed are a client's ends.
  static bool AreEnds(const std::vector<Descriptor>& ends);
  // The same for a server's ends for strangers.
  static bool AreServerEnds(const std::vector<Descriptor>& ends);

  Bells() = default;  // none yet
  // `pages` maps a bell page for each pair of inboxes.
  Bells(Side side, Peer peer, Mapping pages, std::vector<Descriptor> ends);
  Bells(Bells&& other) noexcept = default;
  Bells& operator=(Bells&& other) noexcept;
  ~Bells();  // closes what a stranger shares on another thread

  // Duplicates of this end's descriptors. kOutOfDescriptors.
  [[nodiscard]] Result<std::vector<Descriptor>> DuplicateEnds() const;

  std::uint32_t count() const { return static_cast<std::uint32_t>(inboxes_.size()); }
  BellInbox& inbox(std::uint32_t index);
  std::unique_ptr<Doorbell> MakeDoorbell(wire::ChannelId channel, std::uint32_t index);

 private:
  class Inbox;
  class EventDoorbell;

  std::byte* Flags(std::uint32_t index, Side from) const;

  Side side_ = Side::kServer;
  Peer peer_ = Peer::kTrusted;
  Mapping pages_;
  std::vector<Descriptor> ends_;
  std::vector<std::unique_ptr<BellInbox>> inboxes_;
};

}  // namespace kmcl::transport
