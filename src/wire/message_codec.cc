#include "wire/message_codec.h"

#include <type_traits>
#include <utility>
#include <variant>

namespace kmcl::wire {
namespace codec_internal {

std::size_t FormBytes(const OpenChannel&, const Agreed& agreed) {
  const bool has_signal_fields = !(agreed.features & OpenChannel::kSignalFeatures).empty();
  return has_signal_fields ? OpenChannel::kLongBytes : OpenChannel::kBytes;
}

std::size_t FormBytes(const InitiateContact& message, const Agreed&) {
  return message.features().Has(Feature::kClientId) ? InitiateContact::kLongBytes
                                                    : InitiateContact::kBytes;
}

std::size_t FormBytes(const VersionResponse& message, const Agreed& agreed) {
  if (!message.supported() || !agreed.version || !HasFeatureFlags(*agreed.version)) {
    return VersionResponse::kBytes;
  }
  return message.features.Has(Feature::kServerSpecifiedMonitorPages)
             ? VersionResponse::kMonitorPageBytes
             : VersionResponse::kFeatureBytes;
}

std::size_t FormBytes(const TlConnectRequest&, const Agreed& agreed) {
  return agreed.version && HasSiloId(*agreed.version) ? TlConnectRequest::kLongBytes
                                                      : TlConnectRequest::kBytes;
}

std::size_t FormBytes(const GpadlHeader& message, const Agreed&) {
  KMCL_CHECK(message.range_bytes_size <= message.range_bytes.size());
  return GpadlHeader::kBytes + message.range_bytes_size;
}

std::size_t FormBytes(const GpadlBody& message, const Agreed&) {
  KMCL_CHECK(message.range_bytes_size <= message.range_bytes.size());
  return GpadlBody::kBytes + message.range_bytes_size;
}

void ClearUnagreed(OfferChannel& message, const Agreed& agreed) {
  if (agreed.version && HasDedicatedConnections(*agreed.version)) return;
  message.interrupt_flags = 0;
  message.connection_id = ConnectionId{};
}

void ClearUnagreed(OpenChannel& message, const Agreed& agreed) {
  if (!agreed.features.Has(Feature::kGuestSpecifiedSignalParameters)) {
    message.connection_id = ConnectionId{};
    message.event_flag = 0;
  }
  if (!agreed.features.Has(Feature::kChannelInterruptRedirection)) message.flags = 0;
}

}  // namespace codec_internal

namespace {

// A message's bytes after the header.
using Body = std::span<const std::byte>;

// Copies the start of `message` from the body: as much as a form of `form_bytes` holds.
template <typename M>
void CopyForm(M& message, Body body, std::size_t form_bytes) {
  std::memcpy(&message, body.data(), form_bytes - kMessageHeaderBytes);
}

// Decode: one for messages of a single form, then one for each of the others. The body holds at
// least the shortest form.
template <typename M>
Result<M> Decode(Body body, const Agreed& agreed) {
  M message;
  if constexpr (!std::is_empty_v<M>) CopyForm(message, body, M::kBytes);
  codec_internal::ClearUnagreed(message, agreed);
  return message;
}

template <>
Result<OpenChannel> Decode<OpenChannel>(Body body, const Agreed& agreed) {
  OpenChannel message;
  const std::size_t form_bytes = codec_internal::FormBytes(message, agreed);
  if (OnWire(body.size()) < form_bytes) return std::unexpected(Error::kMessageTooShort);
  CopyForm(message, body, form_bytes);
  codec_internal::ClearUnagreed(message, agreed);
  return message;
}

template <>
Result<InitiateContact> Decode<InitiateContact>(Body body, const Agreed&) {
  InitiateContact message;
  CopyForm(message, body, InitiateContact::kBytes);
  if (!message.features().Has(Feature::kClientId)) return message;
  if (OnWire(body.size()) < InitiateContact::kLongBytes) {
    // Not refused: clients wait for the answer without a timeout. Without an id there is no
    // feature.
    message.target_info = InitiateContact::TargetInfo(
        message.sint(), message.vtl(), message.features().Without(Feature::kClientId));
    return message;
  }
  CopyForm(message, body, InitiateContact::kLongBytes);
  return message;
}

template <>
Result<VersionResponse> Decode<VersionResponse>(Body body, const Agreed&) {
  VersionResponse message;
  CopyForm(message, body, VersionResponse::kBytes);
  if (!message.supported() || OnWire(body.size()) < VersionResponse::kFeatureBytes) return message;
  CopyForm(message, body, VersionResponse::kFeatureBytes);
  if (!message.features.Has(Feature::kServerSpecifiedMonitorPages)) return message;
  if (OnWire(body.size()) < VersionResponse::kMonitorPageBytes) {
    message.features = message.features.Without(Feature::kServerSpecifiedMonitorPages);
    return message;
  }
  CopyForm(message, body, VersionResponse::kMonitorPageBytes);
  return message;
}

template <>
Result<TlConnectRequest> Decode<TlConnectRequest>(Body body, const Agreed& agreed) {
  TlConnectRequest message;
  const std::size_t form_bytes = codec_internal::FormBytes(message, agreed);
  // Linux sends the short form in every version.
  const bool whole = OnWire(body.size()) >= form_bytes;
  CopyForm(message, body, whole ? form_bytes : TlConnectRequest::kBytes);
  return message;
}

// GPADL messages: the fixed fields, then as many whole words of the range list as came.
template <typename M>
Result<M> DecodeWithRanges(Body body) {
  M message;
  const std::size_t range_bytes = OnWire(body.size()) - M::kBytes;
  const std::size_t kept = std::min(range_bytes & ~std::size_t{7}, message.range_bytes.size());
  CopyForm(message, body, M::kBytes + kept);
  message.range_bytes_size = static_cast<std::uint16_t>(kept);
  return message;
}

template <>
Result<GpadlHeader> Decode<GpadlHeader>(Body body, const Agreed&) {
  return DecodeWithRanges<GpadlHeader>(body);
}

template <>
Result<GpadlBody> Decode<GpadlBody>(Body body, const Agreed&) {
  return DecodeWithRanges<GpadlBody>(body);
}

template <typename M>
Result<M> CheckAndDecode(Body body, const Agreed& agreed) {
  if (!IsLegal<M>(agreed)) {
    return std::unexpected(agreed.version ? Error::kMessageNotInVersion : Error::kNotConnected);
  }
  if (OnWire(body.size()) < M::kBytes) return std::unexpected(Error::kMessageTooShort);
  return Decode<M>(body, agreed);
}

// A list of messages, walked by number.
template <typename Variant>
struct MessageList;

template <typename... Ms>
struct MessageList<std::variant<Ms...>> {
  using Message = std::variant<Ms...>;

  static bool Knows(MessageType type) { return ((Ms::kType == type) || ...); }

  static Result<Message> Parse(MessageType type, Body body, const Agreed& agreed) {
    Result<Message> result = std::unexpected(Error::kMessageUnknown);
    (void)((Ms::kType == type && (result = CheckAndDecode<Ms>(body, agreed), true)) || ...);
    return result;
  }
};

template <typename Message, typename OtherDirection>
Result<Message> ParseMessage(std::span<const std::byte> bytes, const Agreed& agreed) {
  if (bytes.size() > kMaximumMessageBytes) return std::unexpected(Error::kMessageTooLong);
  if (bytes.size() < kMessageHeaderBytes) return std::unexpected(Error::kMessageTooShort);
  MessageHeader header;  // its padding is zero from correct peers, and nobody checks it
  std::memcpy(&header, bytes.data(), sizeof header);
  if (MessageList<OtherDirection>::Knows(header.type)) {
    return std::unexpected(Error::kMessageWrongDirection);
  }
  return MessageList<Message>::Parse(header.type, bytes.subspan(kMessageHeaderBytes), agreed);
}

}  // namespace

Result<ClientMessage> ParseClientMessage(std::span<const std::byte> bytes, const Agreed& agreed) {
  return ParseMessage<ClientMessage, ServerMessage>(bytes, agreed);
}

Result<ServerMessage> ParseServerMessage(std::span<const std::byte> bytes, const Agreed& agreed) {
  return ParseMessage<ServerMessage, ClientMessage>(bytes, agreed);
}

std::optional<std::uint32_t> MessageNumber(std::span<const std::byte> bytes) {
  std::uint32_t number = 0;
  if (bytes.size() < sizeof number) return std::nullopt;
  std::memcpy(&number, bytes.data(), sizeof number);
  return number;
}

const char* NameOf(MessageType type) {
  switch (type) {
    case MessageType::kOfferChannel:
      return "OfferChannel";
    case MessageType::kRescindChannelOffer:
      return "RescindChannelOffer";
    case MessageType::kRequestOffers:
      return "RequestOffers";
    case MessageType::kAllOffersDelivered:
      return "AllOffersDelivered";
    case MessageType::kOpenChannel:
      return "OpenChannel";
    case MessageType::kOpenChannelResult:
      return "OpenChannelResult";
    case MessageType::kCloseChannel:
      return "CloseChannel";
    case MessageType::kGpadlHeader:
      return "GpadlHeader";
    case MessageType::kGpadlBody:
      return "GpadlBody";
    case MessageType::kGpadlCreated:
      return "GpadlCreated";
    case MessageType::kGpadlTeardown:
      return "GpadlTeardown";
    case MessageType::kGpadlTorndown:
      return "GpadlTorndown";
    case MessageType::kRelIdReleased:
      return "RelIdReleased";
    case MessageType::kInitiateContact:
      return "InitiateContact";
    case MessageType::kVersionResponse:
      return "VersionResponse";
    case MessageType::kUnload:
      return "Unload";
    case MessageType::kUnloadComplete:
      return "UnloadComplete";
    case MessageType::kOpenReservedChannel:
      return "OpenReservedChannel";
    case MessageType::kCloseReservedChannel:
      return "CloseReservedChannel";
    case MessageType::kCloseReservedResponse:
      return "CloseReservedResponse";
    case MessageType::kTlConnectRequest:
      return "TlConnectRequest";
    case MessageType::kModifyChannel:
      return "ModifyChannel";
    case MessageType::kTlConnectResult:
      return "TlConnectResult";
    case MessageType::kModifyChannelResponse:
      return "ModifyChannelResponse";
    case MessageType::kModifyConnection:
      return "ModifyConnection";
    case MessageType::kModifyConnectionResponse:
      return "ModifyConnectionResponse";
    case MessageType::kPause:
      return "Pause";
    case MessageType::kPauseResponse:
      return "PauseResponse";
    case MessageType::kResume:
      return "Resume";
  }
  return "unknown";
}

}  // namespace kmcl::wire
