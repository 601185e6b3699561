// The bytes of the integration services: what a host and the utilities of its guest say to each
// other, one channel for each service (VMBus device reference 1.1 and 1.2).
//
// A message is a header, then a body whose form the service defines. Only the host asks; the guest
// answers with the request's own buffer, so an answer is as long as its request. What a guest sent
// is read here, from a private copy, and becomes values only when it holds together.
#pragma once

#include <kmcl/kmcl.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kmcl::devices {

static_assert(std::endian::native == std::endian::little, "messages carry little-endian numbers");

struct IntegrationVersion {
  std::uint16_t major = 0;
  std::uint16_t minor = 0;
  friend bool operator==(const IntegrationVersion&, const IntegrationVersion&) = default;
};
std::string VersionText(const IntegrationVersion& version);  // "3.0"

enum class IntegrationMessage : std::uint16_t {
  kNegotiate = 0,
  kHeartbeat = 1,
  kKeyValue = 2,
  kShutdown = 3,
  kTimeSync = 4,
  kFreeze = 5,  // VSS
  kFileCopy = 7,
};

// What a guest answers in the header (the values are HRESULTs).
inline constexpr std::uint32_t kIntegrationSuccess = 0;
inline constexpr std::uint32_t kIntegrationNoMoreItems = 0x80070103;
inline constexpr std::uint32_t kIntegrationFailure = 0x80004005;
inline constexpr std::uint32_t kIntegrationNotSupported = 0x80070032;
inline constexpr std::uint32_t kIntegrationUnknownDevice = 0x80041002;
inline constexpr std::uint32_t kIntegrationInvalidArgument = 0x80070057;
inline constexpr std::uint32_t kIntegrationLocked = 0x800704F7;
inline constexpr std::uint32_t kIntegrationNotConnected = 0x8007048F;
inline constexpr std::uint32_t kIntegrationAlreadyExists = 0x80070050;
inline constexpr std::uint32_t kIntegrationDiskFull = 0x80070070;
// In words, and with its number: "it failed (0x80004005)".
std::string IntegrationStatusText(std::uint32_t status);

inline constexpr std::uint8_t kIntegrationTransaction = 1;
inline constexpr std::uint8_t kIntegrationRequest = 2;
inline constexpr std::uint8_t kIntegrationResponse = 4;

// Stands right behind the pipe header, which KMCL writes and takes away.
struct IntegrationHeader {
  IntegrationVersion framework;
  std::uint16_t type = 0;  // IntegrationMessage
  IntegrationVersion message;
  std::uint16_t body_bytes = 0;
  std::uint32_t status = 0;
  std::uint8_t transaction = 0;  // the host's choice, echoed
  std::uint8_t flags = 0;
  std::uint16_t reserved = 0;
};
// Packed on the wire: `message` and what follows it stand where the natural alignment puts them.
static_assert(sizeof(IntegrationHeader) == 20);
static_assert(offsetof(IntegrationHeader, message) == 6);
static_assert(offsetof(IntegrationHeader, body_bytes) == 10);
static_assert(offsetof(IntegrationHeader, status) == 12);
static_assert(offsetof(IntegrationHeader, transaction) == 16);

// A request, ready to be sent. `body` is at most 65,535 bytes.
std::vector<std::byte> EncodeIntegrationRequest(IntegrationMessage type,
                                                const IntegrationVersion& framework,
                                                const IntegrationVersion& message,
                                                std::uint8_t transaction,
                                                std::span<const std::byte> body);

// The body of a negotiate request.
std::vector<std::byte> EncodeNegotiation(std::span<const IntegrationVersion> frameworks,
                                         std::span<const IntegrationVersion> messages);

// An answer. The body is a view of the packet.
struct IntegrationAnswer {
  IntegrationMessage type{};
  std::uint8_t transaction = 0;
  std::uint32_t status = 0;
  std::span<const std::byte> body;
};
// Nothing when the packet is too short, is no answer, or claims more bytes than came.
std::optional<IntegrationAnswer> ParseIntegrationAnswer(std::span<const std::byte> packet);

// What a guest chose. `body` is of an answer to EncodeNegotiation; nothing when the guest found no
// common version, or names one that was not offered.
struct IntegrationChoice {
  IntegrationVersion framework;
  IntegrationVersion message;
};
std::optional<IntegrationChoice> ParseChoice(std::span<const std::byte> body,
                                             std::span<const IntegrationVersion> frameworks,
                                             std::span<const IntegrationVersion> messages);

}  // namespace kmcl::devices
