// Messages about one channel: offer, rescind, open, close, modify. Rules in messages.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "wire/guid.h"
#include "wire/message_type.h"

namespace kmcl::wire {

// Device data in an offer and in an open request.
inline constexpr std::size_t kUserDefinedBytes = 120;
using UserDefined = std::array<std::byte, kUserDefinedBytes>;

// flags of OFFER_CHANNEL (VMBus reference 3.4).
inline constexpr std::uint16_t kOfferEnumerateDeviceInterface = 0x0001;
inline constexpr std::uint16_t kOfferConfidentialRingBuffer = 0x0002;
inline constexpr std::uint16_t kOfferConfidentialExternalMemory = 0x0004;
inline constexpr std::uint16_t kOfferRequirePinnedExternalMemory = 0x0008;
inline constexpr std::uint16_t kOfferNamedPipeMode = 0x0010;
inline constexpr std::uint16_t kOfferLoopback = 0x0100;
inline constexpr std::uint16_t kOfferParent = 0x0200;
inline constexpr std::uint16_t kOfferRequestMonitoredNotification = 0x0400;
inline constexpr std::uint16_t kOfferTlnpiProvider = 0x2000;  // an hvsock channel

// The flags above that mean something on a connection with `features`.
constexpr std::uint16_t OfferFlagsFor(std::uint16_t flags, FeatureFlags features) {
  std::uint16_t granted = kOfferEnumerateDeviceInterface | kOfferNamedPipeMode | kOfferLoopback |
                          kOfferParent | kOfferRequestMonitoredNotification | kOfferTlnpiProvider;
  if (features.Has(Feature::kConfidentialChannels)) {
    granted |= kOfferConfidentialRingBuffer | kOfferConfidentialExternalMemory;
  }
  if (features.Has(Feature::kGpaPinning)) granted |= kOfferRequirePinnedExternalMemory;
  return flags & granted;
}

// A bit of monitor_flags.
inline constexpr std::uint8_t kOfferMonitorAllocated = 0x1;
// monitor_id of a channel without one.
inline constexpr std::uint8_t kNoMonitorId = 0xFF;

// 1, server: here is a channel that you may open.
struct OfferChannel {
  static constexpr MessageType kType = MessageType::kOfferChannel;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 196;

  Guid interface_id{};  // the class
  Guid instance_id{};   // the device
  std::array<std::byte, 16> reserved{};
  std::uint16_t flags = 0;
  std::uint16_t mmio_megabytes = 0;
  UserDefined user_defined{};
  std::uint16_t subchannel_index = 0;  // 0 = primary
  std::uint16_t mmio_megabytes_optional = 0;
  ChannelId channel_id{};
  std::uint8_t monitor_id = kNoMonitorId;
  std::uint8_t monitor_flags = 0;     // bit 0: monitor allocated
  std::uint16_t interrupt_flags = 1;  // bit 0: dedicated interrupt. Zero below Win7.
  ConnectionId connection_id{};       // what the client signals. Zero below Win7.

  // The only sign that monitor_id means something: some servers leave the id 0.
  constexpr bool monitor_allocated() const {
    return (monitor_flags & kOfferMonitorAllocated) != 0;
  }
  constexpr bool has_dedicated_interrupt() const { return (interrupt_flags & 1) != 0; }

  friend bool operator==(const OfferChannel&, const OfferChannel&) = default;
};
static_assert(OnWire(sizeof(OfferChannel)) == OfferChannel::kBytes);
static_assert(OnWire(offsetof(OfferChannel, instance_id)) == 24);
static_assert(OnWire(offsetof(OfferChannel, reserved)) == 40);
static_assert(OnWire(offsetof(OfferChannel, flags)) == 56);
static_assert(OnWire(offsetof(OfferChannel, mmio_megabytes)) == 58);
static_assert(OnWire(offsetof(OfferChannel, user_defined)) == 60);
static_assert(OnWire(offsetof(OfferChannel, subchannel_index)) == 180);
static_assert(OnWire(offsetof(OfferChannel, mmio_megabytes_optional)) == 182);
static_assert(OnWire(offsetof(OfferChannel, channel_id)) == 184);
static_assert(OnWire(offsetof(OfferChannel, monitor_id)) == 188);
static_assert(OnWire(offsetof(OfferChannel, monitor_flags)) == 189);
static_assert(OnWire(offsetof(OfferChannel, interrupt_flags)) == 190);
static_assert(OnWire(offsetof(OfferChannel, connection_id)) == 192);

// 2, server: the offer is withdrawn.
struct RescindChannelOffer {
  static constexpr MessageType kType = MessageType::kRescindChannelOffer;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 12;

  ChannelId channel_id{};

  friend bool operator==(const RescindChannelOffer&, const RescindChannelOffer&) = default;
};
static_assert(OnWire(sizeof(RescindChannelOffer)) == RescindChannelOffer::kBytes);

// flags of OPEN_CHANNEL.
inline constexpr std::uint16_t kOpenRedirectInterrupt = 0x0001;

// 5, client: open the channel on these rings.
//
// The longer form is used if and only if one of kSignalFeatures was granted. A field whose own
// feature was not granted is zero here, whatever the message said.
struct OpenChannel {
  static constexpr MessageType kType = MessageType::kOpenChannel;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 148;
  static constexpr std::size_t kLongBytes = 156;
  static constexpr FeatureFlags kSignalFeatures =
      Feature::kGuestSpecifiedSignalParameters | Feature::kChannelInterruptRedirection;

  ChannelId channel_id{};
  OpenId open_id{};
  GpadlId ring_gpadl_id{};
  ProcessorIndex target_vp{};
  std::uint32_t downstream_page_offset = 0;  // server-to-client ring, in pages of the GPADL
  UserDefined user_data{};
  ConnectionId connection_id{};  // kGuestSpecifiedSignalParameters; else the offer's counts
  std::uint16_t event_flag = 0;  // kGuestSpecifiedSignalParameters; else the channel id counts
  std::uint16_t flags = 0;       // kChannelInterruptRedirection

  friend bool operator==(const OpenChannel&, const OpenChannel&) = default;
};
static_assert(OnWire(sizeof(OpenChannel)) == OpenChannel::kLongBytes);
static_assert(OnWire(offsetof(OpenChannel, open_id)) == 12);
static_assert(OnWire(offsetof(OpenChannel, ring_gpadl_id)) == 16);
static_assert(OnWire(offsetof(OpenChannel, target_vp)) == 20);
static_assert(OnWire(offsetof(OpenChannel, downstream_page_offset)) == 24);
static_assert(OnWire(offsetof(OpenChannel, user_data)) == 28);
static_assert(OnWire(offsetof(OpenChannel, connection_id)) == OpenChannel::kBytes);
static_assert(OnWire(offsetof(OpenChannel, event_flag)) == 152);
static_assert(OnWire(offsetof(OpenChannel, flags)) == 154);

// 6, server.
struct OpenChannelResult {
  static constexpr MessageType kType = MessageType::kOpenChannelResult;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 20;

  ChannelId channel_id{};
  OpenId open_id{};
  std::uint32_t status = kStatusSuccess;  // 0 = open

  friend bool operator==(const OpenChannelResult&, const OpenChannelResult&) = default;
};
static_assert(OnWire(sizeof(OpenChannelResult)) == OpenChannelResult::kBytes);
static_assert(OnWire(offsetof(OpenChannelResult, open_id)) == 12);
static_assert(OnWire(offsetof(OpenChannelResult, status)) == 16);

// 7, client. Never answered.
struct CloseChannel {
  static constexpr MessageType kType = MessageType::kCloseChannel;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 12;

  ChannelId channel_id{};

  friend bool operator==(const CloseChannel&, const CloseChannel&) = default;
};
static_assert(OnWire(sizeof(CloseChannel)) == CloseChannel::kBytes);

// 13, client: the id of a rescinded offer may be used again.
struct RelIdReleased {
  static constexpr MessageType kType = MessageType::kRelIdReleased;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 12;

  ChannelId channel_id{};

  friend bool operator==(const RelIdReleased&, const RelIdReleased&) = default;
};
static_assert(OnWire(sizeof(RelIdReleased)) == RelIdReleased::kBytes);

// 18, client: open a channel that survives disconnection.
struct OpenReservedChannel {
  static constexpr MessageType kType = MessageType::kOpenReservedChannel;
  static constexpr Version kSince = Version::kWin10;
  static constexpr std::size_t kBytes = 28;

  ChannelId channel_id{};
  ProcessorIndex target_vp{};
  std::uint32_t target_sint = 0;
  GpadlId ring_gpadl_id{};
  std::uint32_t downstream_page_offset = 0;

  friend bool operator==(const OpenReservedChannel&, const OpenReservedChannel&) = default;
};
static_assert(OnWire(sizeof(OpenReservedChannel)) == OpenReservedChannel::kBytes);
static_assert(OnWire(offsetof(OpenReservedChannel, target_vp)) == 12);
static_assert(OnWire(offsetof(OpenReservedChannel, target_sint)) == 16);
static_assert(OnWire(offsetof(OpenReservedChannel, ring_gpadl_id)) == 20);
static_assert(OnWire(offsetof(OpenReservedChannel, downstream_page_offset)) == 24);

// 19, client: close such a channel. Legal in every version and without one.
struct CloseReservedChannel {
  static constexpr MessageType kType = MessageType::kCloseReservedChannel;
  static constexpr Version kSince = Version::kV1;
  static constexpr bool kBeforeVersion = true;
  static constexpr std::size_t kBytes = 20;

  ChannelId channel_id{};
  ProcessorIndex target_vp{};     // where the answer goes
  std::uint32_t target_sint = 0;  // where the answer goes

  friend bool operator==(const CloseReservedChannel&, const CloseReservedChannel&) = default;
};
static_assert(OnWire(sizeof(CloseReservedChannel)) == CloseReservedChannel::kBytes);
static_assert(OnWire(offsetof(CloseReservedChannel, target_vp)) == 12);
static_assert(OnWire(offsetof(CloseReservedChannel, target_sint)) == 16);

// 20, server. The reference lists it from 4.0 on, but its request may come in any version and
// without one, so the answer must be legal there too.
struct CloseReservedResponse {
  static constexpr MessageType kType = MessageType::kCloseReservedResponse;
  static constexpr Version kSince = Version::kV1;
  static constexpr bool kBeforeVersion = true;
  static constexpr std::size_t kBytes = 12;

  ChannelId channel_id{};

  friend bool operator==(const CloseReservedResponse&, const CloseReservedResponse&) = default;
};
static_assert(OnWire(sizeof(CloseReservedResponse)) == CloseReservedResponse::kBytes);

// 22, client: interrupt this processor from now on.
struct ModifyChannel {
  static constexpr MessageType kType = MessageType::kModifyChannel;
  static constexpr Version kSince = Version::kWin10Rs3;
  static constexpr std::size_t kBytes = 16;

  ChannelId channel_id{};
  ProcessorIndex target_vp{};  // kNoInterrupt is not allowed; the state machine refuses it

  friend bool operator==(const ModifyChannel&, const ModifyChannel&) = default;
};
static_assert(OnWire(sizeof(ModifyChannel)) == ModifyChannel::kBytes);
static_assert(OnWire(offsetof(ModifyChannel, target_vp)) == 12);

// 24, server: no further interrupt arrives on the processor before.
struct ModifyChannelResponse {
  static constexpr MessageType kType = MessageType::kModifyChannelResponse;
  static constexpr Version kSince = Version::kIron;
  static constexpr std::size_t kBytes = 16;

  ChannelId channel_id{};
  std::uint32_t status = kStatusSuccess;

  friend bool operator==(const ModifyChannelResponse&, const ModifyChannelResponse&) = default;
};
static_assert(OnWire(sizeof(ModifyChannelResponse)) == ModifyChannelResponse::kBytes);
static_assert(OnWire(offsetof(ModifyChannelResponse, status)) == 12);

}  // namespace kmcl::wire
