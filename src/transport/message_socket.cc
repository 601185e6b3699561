#include "transport/message_socket.h"

#include <sys/socket.h>

#include <cstring>

#include "log.h"
#include "transport/descriptor_passing.h"

namespace kmcl::transport {

Result<void> MessageSocket::SendNow(std::span<const std::byte> message) {
  const Result<void> sent = SendDatagram(socket_.get(), message);
  if (sent || sent.error() == Error::kWouldBlock) return sent;
  peer_reads_ = false;
  unsent_.clear();
  return std::unexpected(Error::kPeerGone);
}

Result<void> MessageSocket::Send(std::span<const std::byte> message) {
  if (message.empty()) return std::unexpected(Error::kMessageTooShort);
  if (message.size() > kMaximumMessageBytes) return std::unexpected(Error::kMessageTooLong);
  if (broken_ || !peer_reads_) return std::unexpected(Error::kPeerGone);

  if (unsent_.empty()) {
    const Result<void> sent = SendNow(message);
    if (sent || sent.error() != Error::kWouldBlock) return sent;
  }
  if (unsent_.size() >= maximum_unsent_) {
    Break("it does not read its messages");
    return std::unexpected(Error::kPeerGone);
  }
  Message& waiting = unsent_.emplace_back();
  waiting.bytes = static_cast<std::uint8_t>(message.size());
  std::memcpy(waiting.data.data(), message.data(), message.size());
  return {};
}

std::vector<std::span<const std::byte>> MessageSocket::Unsent() const {
  std::vector<std::span<const std::byte>> messages;
  for (const Message& each : unsent_) {
    messages.push_back(std::span(each.data).first(each.bytes));
  }
  return messages;
}

Result<void> MessageSocket::Queue(std::span<const std::byte> message) {
  if (message.empty()) return std::unexpected(Error::kMessageTooShort);
  if (message.size() > kMaximumMessageBytes) return std::unexpected(Error::kMessageTooLong);
  Message& waiting = unsent_.emplace_back();
  waiting.bytes = static_cast<std::uint8_t>(message.size());
  std::memcpy(waiting.data.data(), message.data(), message.size());
  return {};
}

void MessageSocket::Flush() {
  while (!unsent_.empty()) {
    const Message& next = unsent_.front();
    if (!SendNow(std::span(next.data).first(next.bytes))) return;
    unsent_.pop_front();
  }
}

ReceivedMessage MessageSocket::Receive(std::span<std::byte> buffer) {
  KMCL_CHECK(buffer.size() >= kMaximumMessageBytes);
  if (broken_) return {ReceiveStatus::kGone, 0};
  // The buffer's first 240 bytes only: the kernel then tells us of a longer message.
  const ReceivedDatagram received =
      ReceiveDatagram(socket_.get(), buffer.first(kMaximumMessageBytes), 0);
  switch (received.status) {
    case ReceivedDatagram::Status::kNothing:
      return {ReceiveStatus::kNothing, 0};
    case ReceivedDatagram::Status::kEnd:
      Break(nullptr);
      return {ReceiveStatus::kGone, 0};
    case ReceivedDatagram::Status::kDatagram:
      break;
  }
  if (received.truncated) {
    Break("a message is too long or carries descriptors");
    return {ReceiveStatus::kGone, 0};
  }
  return {ReceiveStatus::kMessage, received.bytes};
}

void MessageSocket::Break(const char* why) {
  if (broken_) return;
  broken_ = true;
  unsent_.clear();
  shutdown(socket_.get(), SHUT_RDWR);
  if (why != nullptr) {
    Log(LogLevel::kWarning, "transport: connection to process %d ended: %s",
        static_cast<int>(peer().pid), why);
  }
}

PeerIdentity MessageSocket::peer() const {
  ucred credentials{};
  socklen_t bytes = sizeof credentials;
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0) return {};
  return {credentials.pid, credentials.uid, credentials.gid};
}

}  // namespace kmcl::transport
