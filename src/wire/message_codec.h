// The only way in and out for control messages: bytes to structs, checked, and structs to bytes.
//
// What is checked here: the message's number, whether this side may send it, whether the agreed
// version and features have it, and that all of it arrived. What is not: whether its ids exist,
// whether the state allows it, and what its fields say; that is the state machines' part.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "result.h"
#include "wire/messages.h"

namespace kmcl::wire {

// Reads a message from a client, or from a server. `bytes` must be private memory: the peer must
// not be able to change it any more.
//
// Messages may be longer than their struct, because some senders always send 240 bytes or round up;
// the tail is ignored. Errors:
//   kMessageTooLong        more than 240 bytes
//   kMessageTooShort       less than a header, or than the shortest form that is legal here
//   kMessageUnknown        a number that is not in the protocol
//   kMessageWrongDirection a number that only the reader of this message may send
//   kNotConnected          needs a version, and none was agreed on
//   kMessageNotInVersion   not in the agreed version, or needs a feature that was not granted
//
// The form of OPEN_CHANNEL follows from the features. That of INITIATE_CONTACT, VERSION_RESPONSE
// and TL_CONNECT_REQUEST follows from the size; a feature bit that announces fields for which the
// message is too short is taken back, so that the sender still gets its answer.
[[nodiscard]] Result<ClientMessage> ParseClientMessage(std::span<const std::byte> bytes,
                                                       const Agreed& agreed);
[[nodiscard]] Result<ServerMessage> ParseServerMessage(std::span<const std::byte> bytes,
                                                       const Agreed& agreed);

// The number that a message claims, for the log; nullopt when it is shorter than that.
std::optional<std::uint32_t> MessageNumber(std::span<const std::byte> bytes);

// "OpenChannel", ...; "unknown" for a number that is not in the protocol.
const char* NameOf(MessageType type);

// One encoded message: 240 bytes, of which size() count; the others are zero.
class MessageBytes {
 public:
  MessageBytes() = default;
  // A message that was encoded before. kMessageTooLong.
  [[nodiscard]] static Result<MessageBytes> Of(std::span<const std::byte> bytes) {
    MessageBytes message;
    if (bytes.size() > message.bytes_.size()) return std::unexpected(Error::kMessageTooLong);
    std::ranges::copy(bytes, message.bytes_.begin());
    message.size_ = bytes.size();
    return message;
  }

  std::size_t size() const { return size_; }
  const std::byte* data() const { return bytes_.data(); }
  std::span<const std::byte> span() const { return std::span(bytes_).first(size_); }
  operator std::span<const std::byte>() const { return span(); }  // NOLINT: that is what it is

  friend bool operator==(const MessageBytes&, const MessageBytes&) = default;

 private:
  template <typename M>
  friend MessageBytes Encode(const M& message, const Agreed& agreed);

  std::array<std::byte, kMaximumMessageBytes> bytes_{};
  std::size_t size_ = 0;
};

namespace codec_internal {

// The size of the form in which `message` travels. Messages with one form take the first.
template <typename M>
std::size_t FormBytes(const M&, const Agreed&) {
  return M::kBytes;
}
std::size_t FormBytes(const OpenChannel& message, const Agreed& agreed);
std::size_t FormBytes(const InitiateContact& message, const Agreed& agreed);
std::size_t FormBytes(const VersionResponse& message, const Agreed& agreed);
std::size_t FormBytes(const TlConnectRequest& message, const Agreed& agreed);
std::size_t FormBytes(const GpadlHeader& message, const Agreed& agreed);
std::size_t FormBytes(const GpadlBody& message, const Agreed& agreed);

// Zeroes the fields that the agreed version or features have not got. Used in both directions.
template <typename M>
void ClearUnagreed(M&, const Agreed&) {}
void ClearUnagreed(OfferChannel& message, const Agreed& agreed);
void ClearUnagreed(OpenChannel& message, const Agreed& agreed);

}  // namespace codec_internal

// Writes `message` in the form that `agreed` asks for. `agreed` is what the reader will go by: for
// VERSION_RESPONSE the version and features that it grants, for INITIATE_CONTACT it does not
// matter. Does not ask IsLegal<M>(agreed).
template <typename M>
[[nodiscard]] MessageBytes Encode(const M& message, const Agreed& agreed) {
  M on_wire = message;
  codec_internal::ClearUnagreed(on_wire, agreed);
  MessageBytes encoded;
  encoded.size_ = codec_internal::FormBytes(on_wire, agreed);
  KMCL_CHECK(encoded.size_ >= kMessageHeaderBytes && encoded.size_ <= kMaximumMessageBytes);
  const MessageHeader header{.type = M::kType};
  std::memcpy(encoded.bytes_.data(), &header, sizeof header);
  std::memcpy(encoded.bytes_.data() + sizeof header, &on_wire, encoded.size_ - sizeof header);
  return encoded;
}

}  // namespace kmcl::wire
