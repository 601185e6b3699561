// Control messages over one connected SOCK_SEQPACKET socket: a datagram is a message. Belongs to
// the endpoint's bus thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "transport/descriptor.h"
#include "transport/link.h"

namespace kmcl::transport {

// A peer that reads nothing for so long is broken: every channel there can be, several times over.
inline constexpr std::size_t kMaximumUnsentMessages = 16384;
// A client describes 2 GiB of its memory in 18,725 messages, in one go.
inline constexpr std::size_t kMaximumUnsentOfClient = 65536;

class MessageSocket {
 public:
  explicit MessageSocket(Descriptor socket, std::size_t maximum_unsent = kMaximumUnsentMessages)
      : socket_(std::move(socket)), maximum_unsent_(maximum_unsent) {}

  // As in Link. kMessageTooShort and kMessageTooLong are the caller's fault and change nothing.
  [[nodiscard]] Result<void> Send(std::span<const std::byte> message);
  ReceivedMessage Receive(std::span<std::byte> buffer);
  void Flush();
  std::size_t unsent_messages() const { return unsent_.size(); }
  // What waits, oldest first; the bytes stay here.
  std::vector<std::span<const std::byte>> Unsent() const;
  // As Send, but behind what waits, without trying.
  [[nodiscard]] Result<void> Queue(std::span<const std::byte> message);

  // Ends the connection for both ends, at once. What the peer has sent and what waits here is lost.
  void Break(const char* why);
  bool broken() const { return broken_; }

  int fd() const { return socket_.get(); }
  PeerIdentity peer() const;

 private:
  struct Message {
    std::uint8_t bytes;
    std::array<std::byte, kMaximumMessageBytes> data;
  };

  Result<void> SendNow(std::span<const std::byte> message);

  Descriptor socket_;
  std::size_t maximum_unsent_;
  std::deque<Message> unsent_;
  bool peer_reads_ = true;  // false once a send failed; what the peer sent before may still be read
  bool broken_ = false;     // final, for both directions
};

}  // namespace kmcl::transport
