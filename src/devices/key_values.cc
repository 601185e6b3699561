#include "devices/key_values.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>
#include <utility>

#include "devices/utf16.h"

namespace kmcl::devices {
namespace {

using Kind = IntegrationFailure::Kind;

constexpr IntegrationVersion kVersions[] = {{3, 0}, {4, 0}};

enum class Operation : std::uint8_t {
  kGet = 0,
  kSet = 1,
  kDelete = 2,
  kEnumerate = 3,
  kGetAddresses = 4,
};

// Every body begins with the operation and the pool.
constexpr std::size_t kPairMessageBytes = 2580;
constexpr std::size_t kKeyBytes = 512;
constexpr std::size_t kValueBytes = 2048;

// A value: type, bytes of the key, bytes of the value, both texts. Of GET and SET it stands at 4,
// of ENUMERATE behind an index.
constexpr std::size_t kPairOffset = 4;
constexpr std::size_t kIndexOffset = 4;
constexpr std::size_t kEnumeratedPairOffset = 8;
struct PairHead {
  std::uint32_t type = 0;
  std::uint32_t key_bytes = 0;
  std::uint32_t value_bytes = 0;
};
constexpr std::uint32_t kTypeText = 1;
constexpr std::uint32_t kTypeExpandableText = 2;
constexpr std::uint32_t kTypeNumber = 4;
constexpr std::uint32_t kTypeLinuxLongNumber = 8;
constexpr std::uint32_t kTypeLongNumber = 11;

// DELETE: the bytes of the key at 4, the key at 8.
constexpr std::size_t kDeletedKeyOffset = 8;

// The body of an address message: fields of text that are not aligned.
constexpr std::size_t kAddressMessageBytes = 7428;
struct Field {
  std::size_t offset;
  std::size_t bytes;
};
constexpr Field kAdapter{2, 256};
constexpr std::size_t kFamilyOffset = 258;
constexpr std::size_t kDhcpOffset = 259;
constexpr Field kAddresses{260, 2048};
constexpr Field kSubnets{2308, 2048};
constexpr Field kGateways{4356, 1024};
constexpr Field kDnsServers{5380, 2048};
static_assert(kDnsServers.offset + kDnsServers.bytes == kAddressMessageBytes);

constexpr IntegrationService kService = {
    .interface_type = kKeyValueInterface,
    .interface_instance = kKeyValueInstance,
    .friendly_name = u"Key/value exchange",
    .name = "kvp",
    .message = IntegrationMessage::kKeyValue,
    .frameworks = kIntegrationFrameworks,
    .versions = kVersions,
    .maximum_body_bytes = kAddressMessageBytes,
};

IntegrationFailure Malformed() { return {Kind::kMalformed, IntegrationState::kReady, 0}; }

std::vector<std::byte> NewBody(std::size_t bytes, Operation operation, KeyValuePool pool) {
  std::vector<std::byte> body(bytes);
  body[0] = static_cast<std::byte>(operation);
  body[1] = static_cast<std::byte>(pool);
  return body;
}

template <typename T>
void Put(std::vector<std::byte>& body, std::size_t offset, const T& value) {
  std::memcpy(body.data() + offset, &value, sizeof(value));
}

// Puts `text` and its NUL; returns the bytes of both, or nothing when it is too long.
std::optional<std::uint32_t> PutText(std::vector<std::byte>& body, const Field& field,
                                     std::string_view text) {
  const std::u16string units = Utf16FromText(text);
  const std::size_t bytes = (units.size() + 1) * sizeof(char16_t);
  if (bytes > field.bytes || units.find(u'\0') != std::u16string::npos) {
    return std::nullopt;
  }
  std::memcpy(body.data() + field.offset, units.c_str(), bytes);
  return static_cast<std::uint32_t>(bytes);
}

// `offset` is where the value structure begins.
bool PutPair(std::vector<std::byte>& body, std::size_t offset, std::string_view key,
             std::string_view value) {
  const std::size_t texts = offset + sizeof(PairHead);
  const auto key_bytes = PutText(body, {texts, kKeyBytes}, key);
  const auto value_bytes = PutText(body, {texts + kKeyBytes, kValueBytes}, value);
  if (!key_bytes || !value_bytes) {
    return false;
  }
  Put(body, offset, PairHead{kTypeText, *key_bytes, *value_bytes});
  return true;
}

std::string NumberText(std::span<const std::byte> bytes) {
  std::uint64_t number = 0;
  std::memcpy(&number, bytes.data(), bytes.size());
  return std::to_string(number);
}

// The body is of a pair message, so every offset is within it; the lengths are the guest's.
std::optional<KeyValue> ParsePair(std::span<const std::byte> body, std::size_t offset) {
  PairHead head;
  std::memcpy(&head, body.data() + offset, sizeof(head));
  if (head.key_bytes > kKeyBytes || head.value_bytes > kValueBytes) {
    return std::nullopt;
  }
  const auto key = body.subspan(offset + sizeof(head), kKeyBytes).first(head.key_bytes);
  const auto value = body.subspan(offset + sizeof(head) + kKeyBytes, kValueBytes);
  switch (head.type) {
    case kTypeText:
    case kTypeExpandableText:
      return KeyValue{TextFromUtf16(key), TextFromUtf16(value.first(head.value_bytes))};
    case kTypeNumber:
      return KeyValue{TextFromUtf16(key), NumberText(value.first(4))};
    case kTypeLinuxLongNumber:
    case kTypeLongNumber:
      return KeyValue{TextFromUtf16(key), NumberText(value.first(8))};
    default:
      return std::nullopt;
  }
}

// What stands between semicolons, without empty pieces.
std::vector<std::string> ParseList(std::span<const std::byte> body, const Field& field) {
  const std::string text = TextFromUtf16(body.subspan(field.offset, field.bytes));
  std::vector<std::string> list;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(';', begin), text.size());
    if (end > begin) {
      list.push_back(text.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  return list;
}

}  // namespace

std::expected<std::unique_ptr<KeyValueDevice>, NTSTATUS> KeyValueDevice::Offer(
    PDEVICE_OBJECT device_object, HANDLE partition, Report report) {
  std::unique_ptr<KeyValueDevice> device(new KeyValueDevice);
  auto channel = IntegrationChannel::Offer(device_object, partition, kService, std::move(report));
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  return device;
}

KeyValueDevice::Result<std::vector<std::byte>> KeyValueDevice::Ask(
    std::uint64_t agreement, std::vector<std::byte> body, std::chrono::milliseconds timeout) {
  auto reply = channel_->Ask(agreement, [&body] { return body; }, timeout);
  if (!reply) {
    return std::unexpected(reply.error());
  }
  if (reply->status != kIntegrationSuccess) {
    return std::unexpected(
        IntegrationFailure{Kind::kRefused, IntegrationState::kReady, reply->status});
  }
  if (reply->body.size() < body.size() || reply->body[0] != body[0] || reply->body[1] != body[1]) {
    return std::unexpected(Malformed());
  }
  return std::move(reply->body);
}

KeyValueDevice::Result<std::string> KeyValueDevice::Get(KeyValuePool pool, std::string_view key,
                                                        std::chrono::milliseconds timeout) {
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  auto body = NewBody(kPairMessageBytes, Operation::kGet, pool);
  if (!PutPair(body, kPairOffset, key, "")) {
    return std::unexpected(Malformed());
  }
  const auto answer = Ask(agreement->number, std::move(body), timeout);
  if (!answer) {
    return std::unexpected(answer.error());
  }
  auto pair = ParsePair(*answer, kPairOffset);
  if (!pair) {
    return std::unexpected(Malformed());
  }
  return std::move(pair->value);
}

KeyValueDevice::Result<void> KeyValueDevice::Set(KeyValuePool pool, std::string_view key,
                                                 std::string_view value,
                                                 std::chrono::milliseconds timeout) {
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  auto body = NewBody(kPairMessageBytes, Operation::kSet, pool);
  if (!PutPair(body, kPairOffset, key, value)) {
    return std::unexpected(Malformed());
  }
  const auto answer = Ask(agreement->number, std::move(body), timeout);
  if (!answer) {
    return std::unexpected(answer.error());
  }
  return {};
}

KeyValueDevice::Result<void> KeyValueDevice::Delete(KeyValuePool pool, std::string_view key,
                                                    std::chrono::milliseconds timeout) {
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  auto body = NewBody(kPairMessageBytes, Operation::kDelete, pool);
  const auto key_bytes = PutText(body, {kDeletedKeyOffset, kKeyBytes}, key);
  if (!key_bytes) {
    return std::unexpected(Malformed());
  }
  Put(body, kPairOffset, *key_bytes);
  const auto answer = Ask(agreement->number, std::move(body), timeout);
  if (!answer) {
    return std::unexpected(answer.error());
  }
  return {};
}

KeyValueDevice::Result<std::vector<KeyValue>> KeyValueDevice::Enumerate(
    KeyValuePool pool, std::chrono::milliseconds timeout) {
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  std::vector<KeyValue> pairs;
  for (std::uint32_t index = 0; index < kMostKeyValues; ++index) {
    auto body = NewBody(kPairMessageBytes, Operation::kEnumerate, pool);
    Put(body, kIndexOffset, index);
    const auto answer = Ask(agreement->number, std::move(body), timeout);
    if (!answer) {
      if (answer.error().kind == Kind::kRefused &&
          answer.error().status == kIntegrationNoMoreItems) {
        break;
      }
      return std::unexpected(answer.error());
    }
    auto pair = ParsePair(*answer, kEnumeratedPairOffset);
    if (!pair) {
      return std::unexpected(Malformed());
    }
    pairs.push_back(std::move(*pair));
  }
  return pairs;
}

// Linux compares the hardware address with its own in capital letters.
KeyValueDevice::Result<AdapterAddresses> KeyValueDevice::Addresses(
    std::string_view hardware_address, std::chrono::milliseconds timeout) {
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(agreement.error());
  }
  std::string adapter(hardware_address);
  std::ranges::transform(adapter, adapter.begin(), [](unsigned char letter) {
    return static_cast<char>(std::toupper(letter));
  });
  auto body = NewBody(kAddressMessageBytes, Operation::kGetAddresses, KeyValuePool::kExternal);
  if (!PutText(body, kAdapter, adapter)) {
    return std::unexpected(Malformed());
  }
  const auto answer = Ask(agreement->number, std::move(body), timeout);
  if (!answer) {
    return std::unexpected(answer.error());
  }
  AdapterAddresses found;
  found.family = static_cast<std::uint8_t>((*answer)[kFamilyOffset]);
  found.dhcp = (*answer)[kDhcpOffset] != std::byte{0};
  found.addresses = ParseList(*answer, kAddresses);
  found.subnets = ParseList(*answer, kSubnets);
  found.gateways = ParseList(*answer, kGateways);
  found.dns_servers = ParseList(*answer, kDnsServers);
  return found;
}

}  // namespace kmcl::devices
