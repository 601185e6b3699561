#include "payload.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace kmcl::contract {

namespace {

constexpr std::size_t kHeaderBytes = 8;  // number, exact length

std::byte PatternAt(std::uint32_t number, std::size_t index) {
  return static_cast<std::byte>((number * 31 + index * 7 + 1) & 0xff);
}

}  // namespace

std::vector<std::byte> MakePayload(std::uint32_t number, std::uint32_t bytes) {
  std::vector<std::byte> payload(bytes);
  if (bytes == 0) {
    return payload;
  }
  std::array<std::uint32_t, 2> header{number, bytes < kHeaderBytes ? 0 : bytes};
  std::memcpy(payload.data(), header.data(), std::min<std::size_t>(bytes, kHeaderBytes));
  for (std::size_t i = kHeaderBytes; i < payload.size(); ++i) {
    payload[i] = PatternAt(number, i);
  }
  return payload;
}

std::uint32_t PayloadNumber(std::span<const std::byte> payload) {
  std::uint32_t number = 0;
  std::memcpy(&number, payload.data(), std::min(payload.size(), sizeof(number)));
  return number;
}

bool PayloadIsIntact(std::span<const std::byte> payload) {
  if (payload.size() < kHeaderBytes && !payload.empty()) {
    return false;
  }
  if (payload.empty()) {
    return true;
  }
  const std::uint32_t number = PayloadNumber(payload);
  std::uint32_t exact = 0;
  std::memcpy(&exact, payload.data() + sizeof(number), sizeof(exact));
  if (exact == 0) {
    return payload.size() == kHeaderBytes;  // below 8 bytes; what follows the number is zero
  }
  if (payload.size() != exact && payload.size() != (std::size_t{exact} + 7) / 8 * 8) {
    return false;
  }
  for (std::size_t i = kHeaderBytes; i < payload.size(); ++i) {
    if (payload[i] != (i < exact ? PatternAt(number, i) : std::byte{0})) {
      return false;
    }
  }
  return true;
}

}  // namespace kmcl::contract
