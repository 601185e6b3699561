// What all control messages share: numbers, header, limits, and the status values in the answers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/version.h"

namespace kmcl::wire {

enum class MessageType : std::uint32_t {
  kOfferChannel = 1,
  kRescindChannelOffer = 2,
  kRequestOffers = 3,
  kAllOffersDelivered = 4,
  kOpenChannel = 5,
  kOpenChannelResult = 6,
  kCloseChannel = 7,
  kGpadlHeader = 8,
  kGpadlBody = 9,
  kGpadlCreated = 10,
  kGpadlTeardown = 11,
  kGpadlTorndown = 12,
  kRelIdReleased = 13,
  kInitiateContact = 14,
  kVersionResponse = 15,
  kUnload = 16,
  kUnloadComplete = 17,
  kOpenReservedChannel = 18,
  kCloseReservedChannel = 19,
  kCloseReservedResponse = 20,
  kTlConnectRequest = 21,
  kModifyChannel = 22,
  kTlConnectResult = 23,
  kModifyChannelResponse = 24,
  kModifyConnection = 25,
  kModifyConnectionResponse = 26,
  kPause = 27,
  kPauseResponse = 28,
  kResume = 29,
};

// The payload of one SynIC message.
inline constexpr std::size_t kMaximumMessageBytes = 240;

// Every message begins with it. Sizes and offsets in the reference count it; the structs of
// messages.h begin after it.
struct MessageHeader {
  MessageType type{};
  std::uint32_t padding = 0;
};
static_assert(sizeof(MessageHeader) == 8);
inline constexpr std::size_t kMessageHeaderBytes = sizeof(MessageHeader);

// Where a field of a message struct lies in the message; for the assertions beside the structs.
constexpr std::size_t OnWire(std::size_t offset_in_struct) {
  return kMessageHeaderBytes + offset_in_struct;
}

// NTSTATUS values in answers. A client takes every value but 0 for a failure.
inline constexpr std::uint32_t kStatusSuccess = 0;
inline constexpr std::uint32_t kStatusFailure = 0x8000FFFF;
inline constexpr std::uint32_t kStatusConnectionRefused = 0xC0000236;

// connection_state of VERSION_RESPONSE and MODIFY_CONNECTION_RESPONSE.
enum class ConnectionState : std::uint8_t {
  kSuccessful = 0,
  kLowResources = 1,
  kUnknownFailure = 2,
};

// What a message struct says about itself: kType, kSince (first version), kBytes (shortest legal
// size, with the header), and the following two where they differ from none and false.
template <typename M>
constexpr FeatureFlags RequiredFeatures() {
  if constexpr (requires { M::kRequires; }) {
    return M::kRequires;
  } else {
    return {};
  }
}
template <typename M>
constexpr bool IsLegalBeforeVersion() {
  if constexpr (requires { M::kBeforeVersion; }) {
    return M::kBeforeVersion;
  } else {
    return false;
  }
}

// Whether a connection that agreed on this can carry M. The codec refuses to read what is not
// legal; it does not refuse to write it: whoever answers asks here first where a version has no
// answer.
template <typename M>
constexpr bool IsLegal(const Agreed& agreed) {
  if (!agreed.version) return IsLegalBeforeVersion<M>();
  return *agreed.version >= M::kSince && agreed.features.HasAll(RequiredFeatures<M>());
}

}  // namespace kmcl::wire
