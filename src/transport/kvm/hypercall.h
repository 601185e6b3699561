// The two hypercalls that VMBus is made of, as values (TLFS, HvPostMessage and HvSignalEvent; VMBus
// reference 4.5). Only the 64-bit calling convention.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <variant>

#include "transport/kvm/guest_memory.h"
#include "wire/ids.h"

namespace kmcl::transport::kvm {

// What a guest finds in RAX.
enum class HypercallStatus : std::uint16_t {
  kSuccess = 0x00,
  kInvalidCode = 0x02,
  kInvalidInput = 0x03,
  kInvalidAlignment = 0x04,
  kInvalidParameter = 0x05,
  kInvalidPort = 0x11,
  kInvalidConnection = 0x12,
  kInsufficientBuffers = 0x13,  // the caller tries again
};

struct PostMessage {
  wire::ConnectionId connection{};
  std::size_t bytes = 0;  // of the payload
  std::array<std::byte, kMaximumMessageBytes> payload;

  std::span<const std::byte> message() const { return {payload.data(), bytes}; }
};

struct SignalEvent {
  wire::ConnectionId connection{};
};

// `control` and `input` are the guest's RCX and RDX. What they point to is copied once.
using Hypercall = std::variant<PostMessage, SignalEvent>;
[[nodiscard]] std::expected<Hypercall, HypercallStatus> ParseHypercall(const GuestMemory& memory,
                                                                       std::uint64_t control,
                                                                       std::uint64_t input);

}  // namespace kmcl::transport::kvm
