// The conversation of two processes of which one replaces the other (kmcl/handover.h has the picture).
//
// There is one moment after which the old process does not go back: when it has read that the new one
// runs. It waits for that without a limit once it has said "go", and a process that is gone cannot
// have begun: the new one says that it runs before it touches anything.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "result.h"
#include "transport/transfer.h"

namespace kmcl::endpoint {

// Borrows the socket. Belongs to one thread.
class HandoverSocket {
 public:
  explicit HandoverSocket(int socket) : socket_(socket) {}

  // See transport::TransferSocket.
  [[nodiscard]] Result<void> CheckPeer() const { return socket_.CheckPeer(); }
  // Tells the other process that there will be no handover. Never waits long.
  void Refuse(const char* why) const;

  // Old: gives everything away. An error means that it stays here: kPeerGone (refused, or died),
  // kWouldBlock (not ready within the limit; 0 is none), kSaveMalformed.
  [[nodiscard]] Result<void> Give(const transport::Transfer& server,
                                  std::span<const std::byte> luggage, std::uint32_t limit_ms) const;

  // New.
  struct State {
    transport::Transfer server;
    std::vector<std::byte> luggage;
  };
  [[nodiscard]] Result<State> AwaitState(std::uint32_t limit_ms) const;
  // Everything is in place. Success: it is ours, from this moment.
  [[nodiscard]] Result<void> Confirm(std::uint32_t limit_ms) const;

 private:
  Result<void> Expect(transport::TransferSocket::Kind kind, std::uint32_t limit_ms) const;

  transport::TransferSocket socket_;
};

}  // namespace kmcl::endpoint
