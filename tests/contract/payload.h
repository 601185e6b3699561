// The bytes that scenarios send: a number to tell packets apart, the exact length, and a pattern,
// so that a receiver can say whether each byte is what the sender meant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kmcl::contract {

// `bytes` below 8 hold only the number's low bytes; 0 is an empty payload, read as number 0.
std::vector<std::byte> MakePayload(std::uint32_t number, std::uint32_t bytes);

// The number of a received payload.
std::uint32_t PayloadNumber(std::span<const std::byte> payload);

// Whether the payload is MakePayload's, rounded up to 8 with zeroes, or as it was (pipe mode).
bool PayloadIsIntact(std::span<const std::byte> payload);

}  // namespace kmcl::contract
