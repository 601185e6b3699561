// Moves a server's end of links and its listener to another process, and the bytes that go with them.
// Both ends of the move are programs of this library that trust each other; what they move belongs
// to strangers and is checked again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "result.h"
#include "transport/descriptor.h"
#include "transport/link.h"

namespace kmcl::transport {

// Something on its way: its own bytes, and duplicates of its descriptors.
struct Transfer {
  std::vector<std::byte> bytes;
  std::vector<Descriptor> descriptors;
};

// Makes the link, or the listener, that was exported. What was exported in the other process must not
// be used any more when this one is used.
//   kSaveMalformed  not what Export gave
//   kMemoryNotSealed, kMemoryKind, kPageOutOfRange, kOutOfMemory, kOutOfDescriptors
[[nodiscard]] Result<std::unique_ptr<Link>> ImportLink(Transfer transfer);
[[nodiscard]] Result<std::unique_ptr<Listener>> ImportListener(Transfer transfer);

// What the two processes say to each other, one message at a time, over a connected SOCK_SEQPACKET
// socket. A message may be longer than a datagram and carry more descriptors than one does.
//
// Belongs to one thread. Waits, each time up to the limit; 0 is forever.
class TransferSocket {
 public:
  enum class Kind : std::uint16_t {
    kState = 1,    // old to new: everything
    kReady = 2,    // new to old: everything is in place
    kGo = 3,       // old to new: it is yours
    kRunning = 4,  // new to old: it is mine
    kRefused = 5,  // either way, before kGo: no, and why (text)
  };
  struct Message {
    Kind kind{};
    Transfer content;
  };

  // Borrows `socket`.
  explicit TransferSocket(int socket) : socket_(socket) {}

  // kPermissionDenied: the process at the other end is another user's. kSystemCall: not such a socket.
  [[nodiscard]] Result<void> CheckPeer() const;
  // kPeerGone, kWouldBlock (the time is up), kSystemCall. The descriptors stay the caller's.
  [[nodiscard]] Result<void> Send(Kind kind, std::span<const std::byte> bytes,
                                  std::span<const Descriptor> descriptors,
                                  std::uint32_t limit_ms) const;
  // kPeerGone, kWouldBlock, kSaveMalformed, kSaveVersion, kOutOfDescriptors.
  [[nodiscard]] Result<Message> Receive(std::uint32_t limit_ms) const;

 private:
  int socket_;
};

}  // namespace kmcl::transport
