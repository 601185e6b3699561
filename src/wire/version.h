// Protocol versions, feature flags, and which of them brought what (VMBus reference 3.1).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "wire/ids.h"

namespace kmcl::wire {

// major << 16 | minor, so newer versions compare greater. A value read from a message may be any
// number: ask IsKnown.
enum class Version : std::uint32_t {
  kV1 = 0x0000000D,        // 0.13, Windows Server 2008
  kWin7 = 0x00010001,      // 1.1
  kWin8 = 0x00020004,      // 2.4
  kWin8_1 = 0x00030000,    // 3.0
  kWin10 = 0x00040000,     // 4.0
  kWin10Rs3 = 0x00040001,  // 4.1
  kWin10V5 = 0x00050000,   // 5.0
  kWin10Rs4 = 0x00050001,  // 5.1
  kWin10Rs5 = 0x00050002,  // 5.2
  kIron = 0x00050003,      // 5.3, Windows Server 2022
  kCopper = 0x00060000,    // 6.0
};

inline constexpr std::array kVersionsNewestFirst = {
    Version::kCopper,  Version::kIron,     Version::kWin10Rs5, Version::kWin10Rs4,
    Version::kWin10V5, Version::kWin10Rs3, Version::kWin10,    Version::kWin8_1,
    Version::kWin8,    Version::kWin7,     Version::kV1,
};

constexpr bool IsKnown(Version version) {
  return std::ranges::find(kVersionsNewestFirst, version) != kVersionsNewestFirst.end();
}

constexpr std::uint32_t MajorOf(Version version) { return std::to_underlying(version) >> 16; }
constexpr std::uint32_t MinorOf(Version version) { return std::to_underlying(version) & 0xFFFF; }

// "Copper", "Win8_1", ...; "unknown" for a number that is not in the table.
const char* NameOf(Version version);

// What a version brought. Each answers for `version` itself, which must be known.

// The offer names a connection per channel, and UNLOAD is answered.
constexpr bool HasDedicatedConnections(Version version) { return version >= Version::kWin7; }
// Event flags per channel instead of the interrupt page; target_vp and sub-channels; and
// connection_state in VERSION_RESPONSE.
constexpr bool HasEventFlagPerChannel(Version version) { return version >= Version::kWin8; }
constexpr bool HasConnectionState(Version version) { return version >= Version::kWin8; }
constexpr bool HonoursTargetMessageVp(Version version) { return version >= Version::kWin8_1; }
constexpr bool HasReservedChannels(Version version) { return version >= Version::kWin10; }
constexpr bool HasTlConnect(Version version) { return version >= Version::kWin10; }
constexpr bool HasTlConnectResult(Version version) { return version >= Version::kWin10Rs3; }
constexpr bool HasModifyChannel(Version version) { return version >= Version::kWin10Rs3; }
// INITIATE_CONTACT goes to connection 4 and names a SINT; the response names the connection for
// every later message.
constexpr bool HasMessageConnectionId(Version version) { return version >= Version::kWin10V5; }
constexpr bool HasTargetVtl(Version version) { return version >= Version::kWin10Rs4; }
constexpr bool HasSiloId(Version version) { return version >= Version::kWin10Rs5; }
constexpr bool HasModifyChannelResponse(Version version) { return version >= Version::kIron; }
constexpr bool HasFeatureFlags(Version version) { return version >= Version::kCopper; }

// The highest id that a client of this version can be offered.
constexpr std::uint32_t MaximumChannelId(Version version) {
  return HasEventFlagPerChannel(version) ? kMaximumChannelId : kMaximumChannelIdInterruptPage;
}

// Optional parts of the protocol, from Copper on.
enum class Feature : std::uint32_t {
  kGuestSpecifiedSignalParameters = 0x01,  // OPEN_CHANNEL carries event flag and connection id
  kChannelInterruptRedirection = 0x02,     // OPEN_CHANNEL carries flags
  kModifyConnection = 0x04,                // messages 25 and 26
  kClientId = 0x08,                        // INITIATE_CONTACT carries a client id
  kConfidentialChannels = 0x10,            // offer flags 0x2 and 0x4
  kPauseResume = 0x20,                     // messages 27 to 29
  kServerSpecifiedMonitorPages = 0x40,     // VERSION_RESPONSE carries monitor pages
  kGpaPinning = 0x80,                      // offer flag 0x8
};

// A set of features; four bytes, as on the wire. Two sides have in common what is in both: a & b.
class FeatureFlags {
 public:
  constexpr FeatureFlags() = default;
  constexpr FeatureFlags(Feature feature) : bits_(std::to_underlying(feature)) {}  // NOLINT
  constexpr explicit FeatureFlags(std::uint32_t bits) : bits_(bits) {}

  constexpr bool Has(Feature feature) const { return (bits_ & std::to_underlying(feature)) != 0; }
  constexpr bool HasAll(FeatureFlags others) const {
    return (bits_ & others.bits_) == others.bits_;
  }
  constexpr FeatureFlags Without(FeatureFlags others) const {
    return FeatureFlags(bits_ & ~others.bits_);
  }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr std::uint32_t bits() const { return bits_; }

  friend constexpr FeatureFlags operator&(FeatureFlags a, FeatureFlags b) {
    return FeatureFlags(a.bits_ & b.bits_);
  }
  friend constexpr FeatureFlags operator|(FeatureFlags a, FeatureFlags b) {
    return FeatureFlags(a.bits_ | b.bits_);
  }
  friend constexpr bool operator==(FeatureFlags, FeatureFlags) = default;

 private:
  std::uint32_t bits_ = 0;
};
static_assert(sizeof(FeatureFlags) == 4);

constexpr FeatureFlags operator|(Feature a, Feature b) { return FeatureFlags(a) | FeatureFlags(b); }

// Every bit that has a meaning.
inline constexpr FeatureFlags kKnownFeatures{0xFFu};

// What both ends of a connection have settled on, which decides how messages are read and written.
// Without a version only the messages that lead to one are legal.
struct Agreed {
  std::optional<Version> version{};
  FeatureFlags features{};

  friend bool operator==(const Agreed&, const Agreed&) = default;
};

}  // namespace kmcl::wire
