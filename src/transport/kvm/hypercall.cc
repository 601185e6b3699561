#include "transport/kvm/hypercall.h"

#include <algorithm>
#include <cstring>

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint64_t kCodeMask = 0xFFFF;
constexpr std::uint64_t kFast = 1 << 16;
constexpr std::uint64_t kPostMessage = 0x005C;
constexpr std::uint64_t kSignalEvent = 0x005D;

constexpr std::uint32_t kVmbusMessage = 1;

// The input of HvPostMessage.
struct PostMessageInput {
  std::uint32_t connection;
  std::uint32_t reserved;
  std::uint32_t type;
  std::uint32_t payload_bytes;
  std::array<std::byte, kMaximumMessageBytes> payload;
};
static_assert(sizeof(PostMessageInput) == 256);

// Copies an input that stands in memory, once.
template <typename Input>
std::expected<Input, HypercallStatus> Fetch(const GuestMemory& memory, std::uint64_t address) {
  if (address % 8 != 0 || address % wire::kPageBytes > wire::kPageBytes - sizeof(Input)) {
    return std::unexpected(HypercallStatus::kInvalidAlignment);
  }
  std::array<std::byte, sizeof(Input)> bytes;
  if (!memory.Read(address, bytes)) return std::unexpected(HypercallStatus::kInvalidParameter);
  Input input;
  std::memcpy(&input, bytes.data(), sizeof input);
  return input;
}

std::expected<Hypercall, HypercallStatus> ParsePostMessage(const GuestMemory& memory,
                                                           std::uint64_t address) {
  const auto input = Fetch<PostMessageInput>(memory, address);
  if (!input) return std::unexpected(input.error());
  if (input->type != kVmbusMessage || input->payload_bytes > kMaximumMessageBytes) {
    return std::unexpected(HypercallStatus::kInvalidParameter);
  }
  PostMessage message{.connection = wire::ConnectionId{input->connection},
                      .bytes = input->payload_bytes,
                      .payload = input->payload};
  return message;
}

std::expected<Hypercall, HypercallStatus> ParseSignalEvent(std::uint64_t parameter) {
  const auto connection = static_cast<std::uint32_t>(parameter);
  const auto flag = static_cast<std::uint16_t>(parameter >> 32);
  if (parameter >> 48 != 0) return std::unexpected(HypercallStatus::kInvalidInput);
  // Each connection of ours has one flag.
  if (flag != 0) return std::unexpected(HypercallStatus::kInvalidPort);
  return SignalEvent{.connection = wire::ConnectionId{connection}};
}

}  // namespace

std::expected<Hypercall, HypercallStatus> ParseHypercall(const GuestMemory& memory,
                                                         std::uint64_t control,
                                                         std::uint64_t input) {
  const std::uint64_t code = control & kCodeMask;
  const bool is_fast = (control & kFast) != 0;
  if (code != kPostMessage && code != kSignalEvent) {
    return std::unexpected(HypercallStatus::kInvalidCode);
  }
  if (code == kPostMessage && is_fast) return std::unexpected(HypercallStatus::kInvalidCode);
  // Neither has a variable header or repetitions.
  if ((control & ~(kCodeMask | kFast)) != 0) return std::unexpected(HypercallStatus::kInvalidInput);

  if (code == kPostMessage) return ParsePostMessage(memory, input);
  if (is_fast) return ParseSignalEvent(input);
  const auto parameter = Fetch<std::uint64_t>(memory, input);
  if (!parameter) return std::unexpected(parameter.error());
  return ParseSignalEvent(*parameter);
}

}  // namespace kmcl::transport::kvm
