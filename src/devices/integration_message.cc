#include "devices/integration_message.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace kmcl::devices {
namespace {

// In front of the versions.
struct NegotiationHead {
  std::uint16_t frameworks = 0;
  std::uint16_t messages = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(NegotiationHead) == 8);

bool Contains(std::span<const IntegrationVersion> list, const IntegrationVersion& version) {
  return std::ranges::find(list, version) != list.end();
}

const char* Words(std::uint32_t status) {
  switch (status) {
    case kIntegrationSuccess:
      return "done";
    case kIntegrationNoMoreItems:
      return "there is no such item";
    case kIntegrationFailure:
      return "it failed";
    case kIntegrationNotSupported:
      return "it does not support that";
    case kIntegrationUnknownDevice:
      return "it has no such device";
    case kIntegrationInvalidArgument:
      return "it finds an argument invalid";
    case kIntegrationLocked:
      return "it is locked";
    case kIntegrationNotConnected:
      return "the device is not connected";
    case kIntegrationAlreadyExists:
      return "the file exists already";
    case kIntegrationDiskFull:
      return "its disk is full";
    default:
      return "a status without a name";
  }
}

}  // namespace

std::string VersionText(const IntegrationVersion& version) {
  return std::to_string(version.major) + "." + std::to_string(version.minor);
}

std::string IntegrationStatusText(std::uint32_t status) {
  char number[16];
  std::snprintf(number, sizeof(number), " (0x%08X)", status);
  return std::string(Words(status)) + number;
}

std::vector<std::byte> EncodeIntegrationRequest(IntegrationMessage type,
                                                const IntegrationVersion& framework,
                                                const IntegrationVersion& message,
                                                std::uint8_t transaction,
                                                std::span<const std::byte> body) {
  IntegrationHeader header;
  header.framework = framework;
  header.type = static_cast<std::uint16_t>(type);
  header.message = message;
  header.body_bytes = static_cast<std::uint16_t>(body.size());
  header.transaction = transaction;
  header.flags = kIntegrationTransaction | kIntegrationRequest;
  std::vector<std::byte> bytes(sizeof(header) + body.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::ranges::copy(body, bytes.begin() + sizeof(header));
  return bytes;
}

std::vector<std::byte> EncodeNegotiation(std::span<const IntegrationVersion> frameworks,
                                         std::span<const IntegrationVersion> messages) {
  NegotiationHead head;
  head.frameworks = static_cast<std::uint16_t>(frameworks.size());
  head.messages = static_cast<std::uint16_t>(messages.size());
  const auto first = std::as_bytes(std::span(&head, 1));
  std::vector<std::byte> body(first.begin(), first.end());
  for (const auto list : {std::as_bytes(frameworks), std::as_bytes(messages)}) {
    body.insert(body.end(), list.begin(), list.end());
  }
  return body;
}

std::optional<IntegrationAnswer> ParseIntegrationAnswer(std::span<const std::byte> packet) {
  IntegrationHeader header;
  if (packet.size() < sizeof(header)) {
    return std::nullopt;
  }
  std::memcpy(&header, packet.data(), sizeof(header));
  constexpr std::uint8_t kAnswer = kIntegrationTransaction | kIntegrationResponse;
  if ((header.flags & kAnswer) != kAnswer || header.body_bytes > packet.size() - sizeof(header)) {
    return std::nullopt;
  }
  return IntegrationAnswer{static_cast<IntegrationMessage>(header.type), header.transaction,
                           header.status, packet.subspan(sizeof(header), header.body_bytes)};
}

std::optional<IntegrationChoice> ParseChoice(std::span<const std::byte> body,
                                             std::span<const IntegrationVersion> frameworks,
                                             std::span<const IntegrationVersion> messages) {
  NegotiationHead head;
  IntegrationChoice choice;
  if (body.size() < sizeof(head) + sizeof(choice)) {
    return std::nullopt;
  }
  std::memcpy(&head, body.data(), sizeof(head));
  std::memcpy(&choice, body.data() + sizeof(head), sizeof(choice));
  if (head.frameworks != 1 || head.messages != 1 || !Contains(frameworks, choice.framework) ||
      !Contains(messages, choice.message)) {
    return std::nullopt;
  }
  return choice;
}

}  // namespace kmcl::devices
