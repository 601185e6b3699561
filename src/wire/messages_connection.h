// Messages about the connection as a whole: contact, offers on request, unload, monitor pages,
// pause, and requests for hvsock channels. Rules in messages.h.
#pragma once

#include "wire/guid.h"
#include "wire/message_type.h"

namespace kmcl::wire {

// 3, client: send me the offers, and every later one.
struct RequestOffers {
  static constexpr MessageType kType = MessageType::kRequestOffers;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 8;
  friend bool operator==(const RequestOffers&, const RequestOffers&) = default;
};

// 4, server: all offers that stood when they were requested have been sent.
struct AllOffersDelivered {
  static constexpr MessageType kType = MessageType::kAllOffersDelivered;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 8;
  friend bool operator==(const AllOffersDelivered&, const AllOffersDelivered&) = default;
};

// 14, client: let us speak `version`. Legal in every state; it also ends the connection before it.
//
// The eight bytes at 16 changed their meaning with 5.0; they are reached through the functions,
// which answer by the version that the message itself asks for.
struct InitiateContact {
  static constexpr MessageType kType = MessageType::kInitiateContact;
  static constexpr Version kSince = Version::kV1;
  static constexpr bool kBeforeVersion = true;
  static constexpr std::size_t kBytes = 40;
  static constexpr std::size_t kLongBytes = 56;  // with client_id

  Version version{};  // requested; may be one that IsKnown denies
  ProcessorIndex target_message_vp{};
  std::uint64_t target_info = 0;
  std::uint64_t parent_to_child_monitor_page = 0;  // address, or 0
  std::uint64_t child_to_parent_monitor_page = 0;  // address, or 0
  Guid client_id{};                                // zero unless features() has kClientId

  // Below 5.0.
  constexpr std::uint64_t interrupt_page() const {
    return HasMessageConnectionId(version) ? 0 : target_info;
  }
  // From 5.0; 0 before.
  constexpr std::uint8_t sint() const {
    return HasMessageConnectionId(version) ? static_cast<std::uint8_t>(target_info) : 0;
  }
  // From 5.1; 0 before.
  constexpr std::uint8_t vtl() const {
    return HasTargetVtl(version) ? static_cast<std::uint8_t>(target_info >> 8) : 0;
  }
  // Wanted, from 6.0; empty before. Unknown bits are kept.
  constexpr FeatureFlags features() const {
    return HasFeatureFlags(version) ? FeatureFlags(static_cast<std::uint32_t>(target_info >> 32))
                                    : FeatureFlags();
  }
  // target_info of a message for 5.0 or later. Before, target_info is the interrupt page's address.
  static constexpr std::uint64_t TargetInfo(std::uint8_t sint, std::uint8_t vtl,
                                            FeatureFlags wanted) {
    return std::uint64_t{wanted.bits()} << 32 | std::uint64_t{vtl} << 8 | sint;
  }

  friend bool operator==(const InitiateContact&, const InitiateContact&) = default;
};
static_assert(OnWire(sizeof(InitiateContact)) == InitiateContact::kLongBytes);
static_assert(OnWire(offsetof(InitiateContact, target_message_vp)) == 12);
static_assert(OnWire(offsetof(InitiateContact, target_info)) == 16);
static_assert(OnWire(offsetof(InitiateContact, parent_to_child_monitor_page)) == 24);
static_assert(OnWire(offsetof(InitiateContact, child_to_parent_monitor_page)) == 32);
static_assert(OnWire(offsetof(InitiateContact, client_id)) == InitiateContact::kBytes);

// The SINT that VMBus uses; any other in INITIATE_CONTACT is refused (VMBus reference 3.3).
inline constexpr std::uint8_t kVmbusSint = 2;

// 15, server: the answer to INITIATE_CONTACT. Three sizes; a refusal is the shortest, all zero.
struct VersionResponse {
  static constexpr MessageType kType = MessageType::kVersionResponse;
  static constexpr Version kSince = Version::kV1;
  static constexpr bool kBeforeVersion = true;
  static constexpr std::size_t kBytes = 16;
  static constexpr std::size_t kFeatureBytes = 20;      // 6.0 and supported
  static constexpr std::size_t kMonitorPageBytes = 40;  // and kServerSpecifiedMonitorPages granted

  std::uint8_t version_supported = 0;  // 0 or 1
  ConnectionState connection_state = ConnectionState::kSuccessful;
  std::uint16_t padding = 0;
  // From 5.0 the connection for all later messages; before, the version that was selected.
  std::uint32_t connection_id_or_version = 0;
  // Granted; empty when the message has not got the field. Its version decides whether the field
  // means anything, and only who asked for that knows it: look at it from 6.0 on.
  FeatureFlags features{};
  std::uint32_t padding2 = 0;
  std::uint64_t parent_to_child_monitor_page = 0;
  std::uint64_t child_to_parent_monitor_page = 0;

  constexpr bool supported() const { return version_supported != 0; }

  friend bool operator==(const VersionResponse&, const VersionResponse&) = default;
};
static_assert(OnWire(sizeof(VersionResponse)) == VersionResponse::kMonitorPageBytes);
static_assert(OnWire(offsetof(VersionResponse, connection_state)) == 9);
static_assert(OnWire(offsetof(VersionResponse, connection_id_or_version)) == 12);
static_assert(OnWire(offsetof(VersionResponse, features)) == VersionResponse::kBytes);
static_assert(OnWire(offsetof(VersionResponse, padding2)) == VersionResponse::kFeatureBytes);
static_assert(OnWire(offsetof(VersionResponse, parent_to_child_monitor_page)) == 24);
static_assert(OnWire(offsetof(VersionResponse, child_to_parent_monitor_page)) == 32);

// 16, client: I am leaving; close everything.
struct Unload {
  static constexpr MessageType kType = MessageType::kUnload;
  static constexpr Version kSince = Version::kV1;
  static constexpr std::size_t kBytes = 8;
  friend bool operator==(const Unload&, const Unload&) = default;
};

// 17, server: nothing of yours is in use any more.
struct UnloadComplete {
  static constexpr MessageType kType = MessageType::kUnloadComplete;
  static constexpr Version kSince = Version::kWin7;
  static constexpr std::size_t kBytes = 8;
  friend bool operator==(const UnloadComplete&, const UnloadComplete&) = default;
};

// 21, client: offer me an hvsock channel to this service.
struct TlConnectRequest {
  static constexpr MessageType kType = MessageType::kTlConnectRequest;
  static constexpr Version kSince = Version::kWin10;
  static constexpr std::size_t kBytes = 40;
  static constexpr std::size_t kLongBytes = 56;  // with silo_id, from 5.2; told apart by size

  Guid endpoint_id{};  // becomes the offer's instance
  Guid service_id{};   // becomes the offer's interface
  Guid silo_id{};      // zero unless sent

  friend bool operator==(const TlConnectRequest&, const TlConnectRequest&) = default;
};
static_assert(OnWire(sizeof(TlConnectRequest)) == TlConnectRequest::kLongBytes);
static_assert(OnWire(offsetof(TlConnectRequest, service_id)) == 24);
static_assert(OnWire(offsetof(TlConnectRequest, silo_id)) == TlConnectRequest::kBytes);

// 23, server: there will be no such channel. Never sent after a success.
struct TlConnectResult {
  static constexpr MessageType kType = MessageType::kTlConnectResult;
  static constexpr Version kSince = Version::kWin10Rs3;
  static constexpr std::size_t kBytes = 44;

  Guid endpoint_id{};
  Guid service_id{};
  std::uint32_t status = kStatusSuccess;

  friend bool operator==(const TlConnectResult&, const TlConnectResult&) = default;
};
static_assert(OnWire(sizeof(TlConnectResult)) == TlConnectResult::kBytes);
static_assert(OnWire(offsetof(TlConnectResult, service_id)) == 24);
static_assert(OnWire(offsetof(TlConnectResult, status)) == 40);

// 25, client: use these monitor pages from now on.
struct ModifyConnection {
  static constexpr MessageType kType = MessageType::kModifyConnection;
  static constexpr Version kSince = Version::kCopper;
  static constexpr FeatureFlags kRequires = Feature::kModifyConnection;
  static constexpr std::size_t kBytes = 24;

  std::uint64_t parent_to_child_monitor_page = 0;
  std::uint64_t child_to_parent_monitor_page = 0;

  friend bool operator==(const ModifyConnection&, const ModifyConnection&) = default;
};
static_assert(OnWire(sizeof(ModifyConnection)) == ModifyConnection::kBytes);
static_assert(OnWire(offsetof(ModifyConnection, child_to_parent_monitor_page)) == 16);

// 26, server.
struct ModifyConnectionResponse {
  static constexpr MessageType kType = MessageType::kModifyConnectionResponse;
  static constexpr Version kSince = Version::kCopper;
  static constexpr FeatureFlags kRequires = Feature::kModifyConnection;
  static constexpr std::size_t kBytes = 9;

  ConnectionState connection_state = ConnectionState::kSuccessful;

  friend bool operator==(const ModifyConnectionResponse&,
                         const ModifyConnectionResponse&) = default;
};
static_assert(OnWire(sizeof(ModifyConnectionResponse)) == ModifyConnectionResponse::kBytes);

// 27, client: send me nothing until RESUME.
struct Pause {
  static constexpr MessageType kType = MessageType::kPause;
  static constexpr Version kSince = Version::kCopper;
  static constexpr FeatureFlags kRequires = Feature::kPauseResume;
  static constexpr std::size_t kBytes = 8;
  friend bool operator==(const Pause&, const Pause&) = default;
};

// 28, server: the last message before the pause.
struct PauseResponse {
  static constexpr MessageType kType = MessageType::kPauseResponse;
  static constexpr Version kSince = Version::kCopper;
  static constexpr FeatureFlags kRequires = Feature::kPauseResume;
  static constexpr std::size_t kBytes = 8;
  friend bool operator==(const PauseResponse&, const PauseResponse&) = default;
};

// 29, client: the pause is over.
struct Resume {
  static constexpr MessageType kType = MessageType::kResume;
  static constexpr Version kSince = Version::kCopper;
  static constexpr FeatureFlags kRequires = Feature::kPauseResume;
  static constexpr std::size_t kBytes = 8;
  friend bool operator==(const Resume&, const Resume&) = default;
};

}  // namespace kmcl::wire
